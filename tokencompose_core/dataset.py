"""From a record to a training example: image and masks cropped alike, and the tokens of each noun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.utils.data import Dataset

from realcompo_core.errors import TokenAlignmentError
from realcompo_core.text.tokens import CHUNK

from .nouns import noun_tokens
from .pictures import Size, crop_image, crop_mask, read_image, read_mask
from .records import DatasetError, Problem, Record, RecordError


class TokenComposeDataset(Dataset):
    """Examples of `records` at `size` (see `load_example`), each with a list of `problems`.

    A record that cannot be read is replaced by the next one that can, and a noun that cannot be grounded is left out;
    `problems` has both. Raises DatasetError only where no record at all can be read.
    """

    def __init__(self, records: Sequence[Record], size: Size, tokenizer: Callable, *, chunk: int = CHUNK):
        self.records, self.size, self.tokenizer, self.chunk = records, size, tokenizer, chunk

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        count = len(self.records)
        first = range(count)[index]
        problems = []
        for i in chain(range(first, count), range(first)):
            try:
                example, errors = load_example(self.records[i], self.size, self.tokenizer, chunk=self.chunk)
            except RecordError as error:
                problems.append(Problem.of(error, i))
                continue
            return example | {"problems": [*problems, *(Problem.of(error, i) for error in errors)]}
        raise DatasetError(f"none of {count} records can be read. The first: {problems[0]}")


def load_example(
    record: Record, size: Size, tokenizer: Callable, *, chunk: int = CHUNK
) -> tuple[dict, list[RecordError]]:
    """The example of a record at `size`, and what is wrong with the nouns that had to be left out.

    - `image`: (3, height, width) float, -1 to 1
    - `masks`: (nouns, height, width) bool
    - `tokens`: for each noun its token indices, all occurrences in the caption together
    - `nouns`, `caption`, `key`, `where`: as in the record

    Nouns without a mask, and those whose object lies outside the crop, are left out; nouns with the same tokens are
    joined. Raises RecordError if image or caption cannot be used.
    """
    picture = read_image(record)
    tokens = grounded_tokens(record, tokenizer, chunk=chunk)
    masks: dict[tuple[int, ...], Tensor] = {}
    nouns: dict[tuple[int, ...], str] = {}
    errors = []
    for i, found in tokens.items():
        try:
            if isinstance(found, RecordError):
                raise found
            mask = crop_mask(read_mask(record, i, picture.size), size)
        except RecordError as error:
            errors.append(error)
            continue
        if mask.any():
            place = tuple(found)
            masks[place] = masks[place] | mask if place in masks else mask
            nouns.setdefault(place, record.nouns[i].noun)
    example = {
        "image": crop_image(picture, size),
        "masks": torch.stack([*masks.values()]) if masks else torch.zeros(0, *size[::-1], dtype=torch.bool),
        "tokens": [list(place) for place in masks],
        "nouns": list(nouns.values()),
        "caption": record.caption,
        "key": record.key,
        "where": record.where,
    }
    return example, errors


def grounded_tokens(record: Record, tokenizer: Callable, *, chunk: int = CHUNK) -> dict[int, list[int] | RecordError]:
    """For the index of each noun with a mask its token indices, or what is wrong with it.

    Occurrences in the part that the text encoder cuts off do not count. Raises RecordError if the caption cannot be
    traced through the tokenizer.
    """
    try:
        occurrences = noun_tokens(tokenizer, record.caption, [noun for noun, _ in record.nouns], chunk=chunk)
    except TokenAlignmentError as error:
        raise record.error("unreadable caption", str(error)) from error
    found: dict[int, list[int] | RecordError] = {}
    for i, (noun, mask) in enumerate(record.nouns):
        if mask is None:
            continue
        inside = [tokens for tokens in occurrences[i] if tokens[-1] < chunk]
        if inside:
            found[i] = sorted({index for tokens in inside for index in tokens})
        elif occurrences[i]:
            message = f"{noun!r} is past the {chunk - 2} tokens that the text encoder reads: {record.caption!r}"
            found[i] = record.error("noun past the token limit", message, noun=i)
        else:
            found[i] = record.error("noun not in the caption", f"{noun!r} is not in {record.caption!r}", noun=i)
    return found
