"""Numbers in words."""

from __future__ import annotations

from collections.abc import Sequence

from . import vocabulary as v


def number_in(words: Sequence[str]) -> int | None:
    """The number that the words before a noun state, roughly for "several"; None if they state none."""
    if "half" in words and "dozen" in words:
        return 6
    found = None
    for word in words:
        if word in v.VAGUE and found is None:
            found = v.VAGUE[word]
        elif (value := number(word)) is not None:
            found = value if found is None or word == words[0] else _combined(found, value)
    return found


def number(word: str) -> int | None:
    """The number that a word is: "3", "three", "twenty-five"."""
    if word.isdecimal():
        return int(word) if len(word) < 6 else 10**6
    parts = [v.NUMBERS.get(part) for part in word.split("-")]
    if None in parts:
        return None
    return parts[0] if len(parts) == 1 else _combined(*parts[:2])


def _combined(first: int, second: int) -> int:
    if first >= 20 and first % 10 == 0 and 0 < second < 10:  # twenty five
        return first + second
    return first * second  # two dozen
