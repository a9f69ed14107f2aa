"""Which tokens of a caption a noun stands for."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from realcompo_core.text.tokens import CHUNK, word_tokens
from realcompo_core.text.words import singular, split_words

Span = tuple[int, int]
"""First word and the one after the last."""


def noun_tokens(
    tokenizer: Callable, caption: str, nouns: Sequence[str], *, chunk: int = CHUNK
) -> list[list[list[int]]]:
    """For each noun the token indices of each of its occurrences in `caption`, all of its words, in caption order.

    A noun is found in any case; in another number ("cats" for "cat") only where its own is not there. Where it is part
    of a longer noun of the list ("train" in "train track") it does not count, unless it occurs nowhere else. No
    occurrence gives an empty list. Indices count as in `word_tokens`: those the text encoder cuts off are >= `chunk`.
    Raises TokenAlignmentError.
    """
    words = word_tokens(tokenizer, caption, weights=False, chunk=chunk)
    known = [word.casefold() for word, _ in words]
    spans = [_occurrences(known, noun) for noun in nouns]
    everywhere = {span for own in spans for span in own}
    found = [[_tokens(words[start:end]) for start, end in _outside(own, everywhere)] for own in spans]
    return [[tokens for tokens in own if tokens] for own in found]


def is_in_caption(caption: str, noun: str) -> bool:
    """Whether `noun_tokens` would find the noun in `caption`, of whatever length."""
    words = [word.text.casefold() for word in split_words(unicodedata.normalize("NFC", caption))]
    return bool(_occurrences(words, noun))


def _tokens(words: Sequence[tuple[str, list[int]]]) -> list[int]:
    return [index for _, tokens in words for index in tokens]


def _occurrences(words: list[str], noun: str) -> list[Span]:
    wanted = [word.text.casefold() for word in split_words(unicodedata.normalize("NFC", noun))]
    return _find(words, wanted) or _find([*map(singular, words)], [*map(singular, wanted)])


def _find(words: list[str], wanted: list[str]) -> list[Span]:
    count = len(wanted)
    return [(i, i + count) for i in range(len(words) - count + 1) if count and words[i : i + count] == wanted]


def _outside(spans: list[Span], others: set[Span]) -> list[Span]:
    """The spans that are no part of a longer one; all of them where none is left."""
    return [
        (start, end)
        for start, end in spans
        if not any(s <= start and end <= e and e - s > end - start for s, e in others)
    ] or spans
