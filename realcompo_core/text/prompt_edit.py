"""Which tokens of one prompt stand for which of another, for Prompt-to-Prompt (Hertz et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import RealCompoError
from .words import plain, words_in_a_row

Words = Sequence[tuple[str, Sequence[int]]]
"""A prompt's words, each with the indices of its tokens."""


class TokenMapping(NamedTuple):
    """What an edited prompt takes from the prompt that it was made of.

    source: (T', T), how much of each of the T source tokens' attention each of the T' edited tokens takes; rows of new
    words are 0. factors: (T',), what each edited token's attention is multiplied by.
    """

    source: Tensor
    factors: Tensor

    @property
    def own(self) -> Tensor:
        """(T',): 1 for tokens of new words, which keep their own attention, 0 for others."""
        return (self.source.sum(1) == 0).to(self.source.dtype)


def token_mapping(
    source: Words, edited: Words, lengths: tuple[int, int], weights: Mapping[str, float] | None = None
) -> TokenMapping:
    """The mapping from one prompt's tokens to another's.

    Words that both have take their attention, in the order in which they stand. Where as many other words stand in the
    place of some, each takes the attention of its predecessor (word swap); else new words have their own (refinement).
    What follows the last word, end and padding, takes that of its counterpart. lengths: of both sequences. weights: of
    phrases of the edited prompt (re-weighting). Raises RealCompoError for a phrase that is not there.
    """
    matrix = torch.zeros(lengths[1], lengths[0])
    ours, theirs = ([plain(text) for text, _ in words] for words in (source, edited))
    for kind, a, a_end, b, b_end in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and a_end - a == b_end - b):
            for (_, from_tokens), (_, to_tokens) in zip(source[a:a_end], edited[b:b_end], strict=True):
                _take(matrix, from_tokens, to_tokens)
    tails = [_without_words(words, length) for words, length in zip((source, edited), lengths, strict=True)]
    for place, token in enumerate(tails[1]):
        matrix[token, tails[0][min(place, len(tails[0]) - 1)]] = 1
    factors = torch.ones(lengths[1])
    for phrase, weight in (weights or {}).items():
        factors[tokens_of(phrase, edited)] = weight
    return TokenMapping(matrix, factors)


def _take(matrix: Tensor, source: Sequence[int], edited: Sequence[int]) -> None:
    if len(source) == len(edited):
        matrix[list(edited), list(source)] = 1
    else:  # as the authors do: each piece of the word has its share of the whole word's attention
        for token in edited:
            matrix[token, list(source)] = 1 / len(edited)


def _without_words(words: Words, length: int) -> list[int]:
    """Start, end and padding: the tokens of no word."""
    taken = {token for _, tokens in words for token in tokens}
    return [token for token in range(length) if token not in taken]


def tokens_of(phrase: str, words: Words) -> list[int]:
    """The tokens of a phrase where it first stands in a prompt. Raises RealCompoError where it does not."""
    found = words_in_a_row(phrase, [text for text, _ in words])
    if found is None:
        raise RealCompoError(
            f"{phrase!r} is not in the prompt, whose words are {', '.join(text for text, _ in words) or 'none'}"
        )
    return [token for _, tokens in words[found] for token in tokens]
