"""Files with a JSON object in each line, which grow line by line and survive a kill or a full disk at any moment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from realcompo_core.errors import RealCompoError
from realcompo_core.files import write_file


class JsonLines:
    """Adds lines to the file at `path`. Opening it removes what is no line that `keep` wants, such as half a line.

    what, advice: what the file is, and what is to be done where it cannot be written, for the text of that
    RealCompoError.
    """

    def __init__(self, path: Path, what: str, advice: str, keep: Callable[[dict], bool] = lambda entry: True):
        self._path, self._what, self._advice = path, what, advice
        with self._named_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            mended = b"".join(line_of(entry) for entry in entries_of(content) if keep(entry))
            if mended != content:
                write_file(path, mended)

    def add(self, entry: Mapping[str, Any]) -> None:
        """A number of the entry itself that is not finite, such as a mean over nothing, becomes null."""
        with self._named_errors(), self._path.open("ab", buffering=0) as file:
            _write_whole(file, line_of(entry))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RealCompoError(
                f"{self._what} {self._path} cannot be written ({error.strerror or error}): {self._advice}"
            ) from error


def entries_of(content: bytes) -> Iterator[dict]:
    """The objects of a file's lines, without lines that are none."""
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def line_of(entry: Mapping[str, Any]) -> bytes:
    is_null = {name: isinstance(value, float) and not math.isfinite(value) for name, value in entry.items()}
    values = {name: None if is_null[name] else entry[name] for name in entry}
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _write_whole(file: BinaryIO, line: bytes) -> None:
    """Where the disk becomes full, the system writes a part first, and fails when it is asked for the rest."""
    while line:
        line = line[file.write(line) :]
