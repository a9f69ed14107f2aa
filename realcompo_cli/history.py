"""The history of a training run: a file with a JSON object in a line for each step and validation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from realcompo_core.errors import RealCompoError
from realcompo_core.files import write_file


class History:
    """Adds lines to the file at `path`, of which those of steps after `done`, which will be done again, are removed.

    So is what is no line of a history: one is cut off where a disk was full. Raises RealCompoError for a file that
    cannot be written.
    """

    def __init__(self, path: Path, done: int):
        self._path = path
        with self._named_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            mended = b"".join(_line(entry) for entry in _entries(content) if entry["step"] <= done)
            if mended != content:
                write_file(path, mended)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """A figure that is not finite, such as a mean over nothing, becomes null."""
        with self._named_errors(), self._path.open("ab", buffering=0) as file:
            _write_whole(file, _line({"step": step, **figures}))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RealCompoError(
                f"history {self._path} cannot be written ({error.strerror or error}): free some room and run again. "
                "The run will go on from its last checkpoint"
            ) from error


def _write_whole(file: BinaryIO, line: bytes) -> None:
    """Where the disk becomes full, the system writes a part first, and fails when it is asked for the rest."""
    while line:
        line = line[file.write(line) :]


def _entries(content: bytes) -> Iterator[dict]:
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry


def _line(entry: Mapping) -> bytes:
    is_null = {name: isinstance(value, float) and not math.isfinite(value) for name, value in entry.items()}
    return (json.dumps({name: None if is_null[name] else entry[name] for name in entry}) + "\n").encode()
