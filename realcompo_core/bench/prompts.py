"""Files of prompts in the benchmarks' own formats: JSON lists, JSON lines, and plain lines of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RealCompoError
from ..files import read_file


class PromptFileError(RealCompoError):
    """A file of prompts that cannot be used at all."""


@dataclass(frozen=True)
class Prompt:
    """A prompt. `index` is its place in the file from 0, which names its pictures; `record` what the file says of it.

    `names` are the objects that a detector has to look for.
    """

    index: int
    text: str
    names: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = None


class Problem(NamedTuple):
    """Something that is not in the scores, or is there with a reservation: where, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, and what could not be read of it. `digest` is the file's SHA-256.

    `unread`: how many of its records are no prompts.
    """

    prompts: tuple[Prompt, ...]
    problems: tuple[Problem, ...] = ()
    digest: str = ""
    unread: int = 0

    @classmethod
    def read(cls, path: Path, parse: Callable[[int, Any], Prompt]) -> PromptFile:
        """`parse(index, record)` makes a prompt of a record, a line of text or JSON; its errors are problems.

        Indices count all records, so that those after a bad one keep their pictures. Raises PromptFileError for a file
        that cannot be read, or that has no prompt.
        """
        text, digest = read_text(path)
        prompts, problems = [], []
        for index, (where, record) in enumerate(_records(path, text)):
            try:
                if isinstance(record, Exception):
                    raise record
                prompts.append(parse(index, record))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
                problems.append(Problem(f"{path.name}, {where}", reason))
        if not prompts:
            first = f"; {problems[0]}" if problems else ""
            raise PromptFileError(f"there is no prompt in {path}{first}")
        return cls(tuple(prompts), tuple(problems), digest, len(problems))


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file of prompts, and the file's SHA-256. Raises PromptFileError."""
    try:
        content = read_file(path)
        return content.decode("utf-8-sig"), hashlib.sha256(content).hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"cannot read the prompts {path}: {error}") from error


def lines_of(text: str) -> StringIO:
    """The lines as files have them; `splitlines` would also part them at marks that JSON allows in a text."""
    return StringIO(text, newline=None)


def _records(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Where each record is and what it says; an exception where it is no JSON. Empty lines are none."""
    if path.suffix.lower() == ".json":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PromptFileError(f"{path} is no JSON: {error}") from error
        if not isinstance(data, list):
            raise PromptFileError(f"{path} holds {type(data).__name__}: a list of prompts was expected")
        yield from ((f"entry {i}", record) for i, record in enumerate(data))
        return
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        record: Any = line.strip()
        if path.suffix.lower() == ".jsonl":
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                record = ValueError(f"no JSON: {error}")
        yield f"line {number}", record


def text_of(value: Any, what: str) -> str:
    """`value`, if it is a text that says something. Raises ValueError."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} is {value!r}: a text was expected")
    value.encode()  # JSON allows half a character, which no file or tokenizer can hold
    return value.strip()


def record_of(value: Any) -> Mapping[str, Any]:
    """`value`, if it is an object of JSON. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no record: an object such as {{…}} was expected")
    return value
