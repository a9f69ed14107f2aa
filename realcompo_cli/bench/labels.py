"""What the classes of a detector are called: its own names, a file of labels, and names that mean the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realcompo_core.errors import RealCompoError

SAME = (  # as GenEval or older sets of data have them, and as COCO does
    {"mouse", "computer mouse"},
    {"remote", "tv remote"},
    {"keyboard", "computer keyboard"},
    {"airplane", "aeroplane"},
    {"tv", "tvmonitor"},
    {"couch", "sofa"},
    {"dining table", "diningtable"},
    {"potted plant", "pottedplant"},
    {"motorcycle", "motorbike"},
    {"hair drier", "hair dryer"},
    {"donut", "doughnut"},
)
NUMBERED = re.compile(r"(\d+)\s*[:\s]\s*(.*)")
FORMS = '{"1": "person"}, or lines such as "1 person" or "1: person, man, woman", or a name in each line, from 0 on'


class LabelsError(RealCompoError):
    """A file of labels that cannot be used."""


@dataclass(frozen=True)
class Labels:
    """The names of each class of a detector, by the class's number."""

    names: Mapping[int, tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> Labels:
        """From a JSON object or lines. Raises LabelsError, with the file and the line."""
        try:
            text = path.read_text(encoding="utf-8-sig")
            items = _object(json.loads(text)) if text.lstrip().startswith("{") else _lines(text)
        except (OSError, ValueError, RecursionError) as error:
            raise LabelsError(f"cannot read the labels in {path}: {error}. Expected {FORMS}") from error
        if not items:
            raise LabelsError(f"{path} has no labels. Expected {FORMS}")
        return cls(items)

    @property
    def count(self) -> int:
        """How many classes there are, counted from 0 to the last that has a name."""
        return max(self.names) + 1

    def ids(self, name: str) -> frozenset[int]:
        """The classes that are called so, or else those whose names mean the same; none for a name that is unknown."""
        wanted = _plain(name)
        for meant in ({wanted}, *(group for group in SAME if wanted in group)):
            if found := frozenset(i for i, own in self.names.items() if not meant.isdisjoint(map(_plain, own))):
                return found
        return frozenset()


def _object(data: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    items: dict[int, tuple[str, ...]] = {}
    for key, value in data.items():
        if not key.isdecimal() or not isinstance(value, str) or not _synonyms(value):
            raise ValueError(f"{json.dumps({key: value})}: expected a number and a name")
        items[int(key)] = _synonyms(value)
    return items


def _lines(text: str) -> dict[int, tuple[str, ...]]:
    """The first line decides whether all begin with numbers."""
    lines = text.rstrip().splitlines()
    numbered = bool(lines) and NUMBERED.fullmatch(lines[0].strip()) is not None
    items: dict[int, tuple[str, ...]] = {}
    for place, line in enumerate(lines):
        match = NUMBERED.fullmatch(line.strip())
        if numbered and match is None:
            raise ValueError(f"line {place + 1} is {line!r}: a number and a name were expected, as in the first line")
        number, names = (int(match[1]), _synonyms(match[2])) if numbered and match else (place, _synonyms(line))
        if not names:
            raise ValueError(f"line {place + 1} is {line!r}: it has no name")
        if number in items:
            raise ValueError(f"line {place + 1} is {line!r}: another line has the number {number} already")
        items[number] = names
    return items


def _synonyms(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
