"""The history of a training run: a file with a JSON object in a line for each step and validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .json_lines import JsonLines


class History:
    """Adds lines to the file at `path`, of which those of steps after `done`, which will be done again, are removed.

    So is what is no line of a history: one is cut off where a disk was full. Raises RealCompoError for a file that
    cannot be written.
    """

    def __init__(self, path: Path, done: int):
        advice = "free some room and run again. The run will go on from its last checkpoint"

        def is_kept(entry: dict) -> bool:
            return isinstance(entry.get("step"), int) and entry["step"] <= done

        self._lines = JsonLines(path, "history", advice, is_kept)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """A figure that is not finite, such as a mean over nothing, becomes null."""
        self._lines.add({"step": step, **figures})
