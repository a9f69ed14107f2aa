"""Checks a whole training set before it is trained on, and leaves out what cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from realcompo_core.text.tokens import CHUNK

from .dataset import grounded_tokens
from .pictures import read_image, read_mask
from .records import DatasetError, NounMask, Problem, Record, RecordError, each_record
from .shards import ShardSet

SHOWN = 5  # problems quoted in an error
NO_MASKS = (
    "no noun of this set has a mask that can be used: the token and the pixel loss have nothing to act on, and "
    "training is that of the denoising loss alone. Are the masks where they are looked for?"
)


def check(
    records: Sequence[Record] | ShardSet,
    tokenizer: Callable,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    chunk: int = CHUNK,
    grounded: Callable[[int], None] = lambda nouns: None,
) -> Iterator[Problem]:
    """Every problem of a set, in order: each image and mask is decoded, each noun with a mask sought in its caption.

    One record can have several problems, and so can a noun. Nouns without a mask are not used, so nothing is wrong with
    them. `progress` is called after each record with the number of those read and that of all, `grounded`
    with the number of nouns that can be trained on in each record without a problem of its own; a set without any is
    no problem to be refused, but one to be warned of (`NO_MASKS`).
    """
    entries = records.each() if isinstance(records, ShardSet) else each_record(records)
    for index, entry in enumerate(entries):
        errors = [entry] if isinstance(entry, RecordError) else check_record(entry, tokenizer, chunk=chunk)
        for error in errors:
            yield Problem.of(error, index)
        if all(error.noun is not None for error in errors):
            at_fault = {error.noun for error in errors}
            grounded(sum(mask is not None and i not in at_fault for i, (_, mask) in enumerate(entry.nouns)))
        progress(index + 1, len(records))


def check_record(record: Record, tokenizer: Callable, *, chunk: int = CHUNK) -> list[RecordError]:
    """All that is wrong with one record."""
    errors = []
    size = None
    try:
        size = read_image(record).size
    except RecordError as error:
        errors.append(error)
    try:
        tokens = grounded_tokens(record, tokenizer, chunk=chunk)
        errors += [found for found in tokens.values() if isinstance(found, RecordError)]
    except RecordError as error:
        errors.append(error)
    for i, (_, mask) in enumerate(record.nouns):
        if mask is not None:
            try:
                read_mask(record, i, size)
            except RecordError as error:
                errors.append(error)
    return errors


def kept_records(
    records: Sequence[Record] | ShardSet,
    problems: Iterable[Problem],
    on_problem: Literal["refuse", "skip"] = "refuse",
) -> Sequence[Record] | ShardSet:
    """The records to train on, given the problems that `check` found.

    "refuse": DatasetError if there is any; it counts them by kind and shows the first. "skip": a noun with a problem
    loses its mask, so it is not grounded, and a record with one is left out; DatasetError if none is left. Shards are
    read as they come, so they stay as they are; `ShardDataset` leaves out the same
    records when it reads them.
    """
    problems = list(problems)
    if not problems:
        return records
    if on_problem == "refuse":
        raise DatasetError(
            f"{summary(problems, len(records))}\nMend the set, or train without them (on_problem='skip')"
        )
    lost = {problem.index for problem in problems if problem.noun is None}
    if len(lost) == len(records):
        raise DatasetError(f"nothing is left to train on: {summary(problems, len(records))}")
    return records if isinstance(records, ShardSet) else KeptRecords(records, problems)


class KeptRecords(Sequence):
    """`records` without those that have a problem; where only a noun has one, without its mask."""

    def __init__(self, records: Sequence[Record], problems: Iterable[Problem]):
        self._records = records
        self._ungrounded: dict[int, set[int]] = {}
        lost = set()
        for problem in problems:
            if problem.noun is None:
                lost.add(problem.index)
            else:
                self._ungrounded.setdefault(problem.index, set()).add(problem.noun)
        self._indices = [index for index in range(len(records)) if index not in lost]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        record = self._records[self._indices[index]]
        ungrounded = self._ungrounded.get(self._indices[index], ())
        nouns = (NounMask(noun, None if i in ungrounded else mask) for i, (noun, mask) in enumerate(record.nouns))
        return replace(record, nouns=tuple(nouns))


def summary(problems: Sequence[Problem], records: int) -> str:
    """How many problems of each kind in a set of `records`, and the first few of them with file and line."""
    kinds = Counter(problem.kind for problem in problems).most_common()
    counted = ", ".join(f"{count} × {kind}" for kind, count in kinds)
    bad = len({problem.index for problem in problems})
    lines = [f"{bad} of {records} records have problems: {counted}. The first:"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    return "\n".join(lines)
