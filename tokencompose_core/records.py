"""What a training set holds: records of an image, its caption and its nouns with their masks; and what can be wrong.

A set is a `Sequence[Record]`. Records are read when they are asked for; one that cannot be used raises `RecordError`
and leaves the others as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from realcompo_core.errors import RealCompoError
from realcompo_core.files import read_file

Kind = Literal[
    "malformed record",
    "path outside the set",
    "missing file",
    "undecodable image",
    "mask of another size",
    "empty mask",
    "unreadable caption",
    "noun not in the caption",
    "noun past the token limit",
    "unreadable shard",
]


class DatasetError(RealCompoError):
    """A training set that cannot be used as a whole. The message counts and shows what is wrong."""


class RecordError(RealCompoError):
    """A record, or one noun of it, that cannot be used.

    `where` is the record's place ("metadata.jsonl:17"), `file` the file at fault ("" where none is), `noun` the index
    of the noun in the record, None where the whole record is at fault.
    """

    def __init__(self, kind: Kind, where: str, file: str, message: str, noun: int | None = None):
        super().__init__(f"{where}: {kind}: {message}")
        self.kind, self.where, self.file, self.message, self.noun = kind, where, file, message, noun


class Problem(NamedTuple):
    """A `RecordError` as data, with the index of its record in the set."""

    index: int
    where: str
    file: str
    kind: Kind
    message: str
    noun: int | None

    @classmethod
    def of(cls, error: RecordError, index: int) -> Problem:
        return cls(index, error.where, error.file, error.kind, error.message, error.noun)

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.message}"


@dataclass(frozen=True)
class Source:
    """An image file: its bytes, or the places where it may lie, of which the first that can be read counts.

    `name` is what the set calls it.
    """

    name: str
    paths: tuple[Path, ...] = ()
    data: bytes | None = field(default=None, repr=False)

    @property
    def file(self) -> str:
        """The path that messages name."""
        return str(self.paths[0]) if self.paths else self.name

    def read(self) -> bytes:
        """Raises FileNotFoundError with every place and what is wrong with it."""
        if self.data is not None:
            return self.data
        failures = []
        for path in self.paths:
            try:
                return read_file(path)
            except OSError as error:
                failures.append(f"{path} ({error.strerror or error})")
        raise FileNotFoundError(f"{self.name}: {'tried ' + ', '.join(failures) if failures else 'not there'}")

    def stamp(self) -> list:
        """What changes with the content: length and digest of bytes, or size and modification time of the file."""
        if self.data is not None:
            return [len(self.data), hashlib.sha256(self.data).hexdigest()]
        for path in self.paths:
            try:
                found = path.stat()
            except OSError:
                continue
            return [found.st_size, found.st_mtime_ns]
        return []


class NounMask(NamedTuple):
    """A noun of the caption and the mask of all that it names; None where nothing was found in the image."""

    noun: str
    mask: Source | None


@dataclass(frozen=True)
class Record:
    """One image with its caption and nouns. `where` is its place in the set: "metadata.jsonl:17"."""

    image: Source
    caption: str
    nouns: tuple[NounMask, ...]
    where: str

    @property
    def key(self) -> str:
        """Names this example whatever its place in the set: a digest of its names, caption and nouns.

        Another image under the same name has the same key; `fingerprint` tells them apart.
        """
        named = [(noun, mask and mask.name) for noun, mask in self.nouns]
        return hashlib.sha256(repr((self.image.name, self.caption, named)).encode()).hexdigest()[:16]

    def read(self, source: Source, noun: int | None = None) -> bytes:
        """The bytes of one of its files. Raises RecordError."""
        try:
            return source.read()
        except FileNotFoundError as error:
            raise self.error("missing file", str(error), source, noun) from error

    def error(self, kind: Kind, message: str, source: Source | None = None, noun: int | None = None) -> RecordError:
        return RecordError(kind, self.where, source.file if source else "", message, noun)


def each_record(records: Sequence[Record]) -> Iterator[Record | RecordError]:
    """Every record in order, or the error in its place."""
    for index in range(len(records)):
        try:
            yield records[index]
        except RecordError as error:
            yield error


def fingerprint(records: Iterable[Record | RecordError]) -> str:
    """A digest of a set as `each_record` gives it, for caches of what was computed from it.

    It covers the order and text of all records, and of each file its name, size and modification time; images that are
    held in memory count by their content. Where the set lies does not matter.
    """
    digest = hashlib.sha256()
    for record in records:
        if isinstance(record, RecordError):
            parts = [record.where, record.kind]
        else:
            files = [record.image, *(mask for _, mask in record.nouns if mask)]
            parts = [record.key, *(file.stamp() for file in files)]
        digest.update(repr(parts).encode())
    return digest.hexdigest()
