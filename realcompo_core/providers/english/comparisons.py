"""Statements about numbers: "more apples than oranges", "…, the number of cats is less than that of dogs"."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...text.words import singular
from .scene import SceneGraph

_MORE, _FEWER = "more|greater|larger|bigger|higher", "less|fewer|smaller|lower"
_NUMBERS = re.compile(
    r",?\s*(?:and |where |while |but )?the number of (?:the )?(?P<one>[\w -]+?) (?:is|are|being) "
    rf"(?P<how>{_MORE}|{_FEWER}|equal|the same)(?: than| to| as)?(?: that| those| the number)?(?: of)?(?: the)? "
    r"(?P<other>[\w -]+)",
    re.IGNORECASE,
)
_THAN = re.compile(r"\b(?P<how>more|fewer|less) (?P<one>[\w -]+?) (?P<than>than) (?P<other>[\w-]+)", re.IGNORECASE)
_AND = {"more": "some", "less": "some", "fewer": "some "}  # of the same length, as spans must stay


class Comparison(NamedTuple):
    """That there are more (`sign` 1), fewer (-1) or as many (0) of the noun `one` than of `other`."""

    one: str
    other: str
    sign: int

    def apply(self, scene: SceneGraph) -> None:
        """Sets the number that the prompt left open so that the comparison holds."""
        first, second = (next((g for g in scene.groups if g.noun == noun), None) for noun in (self.one, self.other))
        if first is None or second is None or first is second:
            return
        left_open, fixed, sign = (second, first, -self.sign) if first.exact else (first, second, self.sign)
        if not fixed.exact:
            fixed.count = 2
        left_open.count = max(fixed.count + sign, 1)
        fixed.count += left_open.count == fixed.count and sign < 0


def without_comparisons(text: str) -> tuple[str, list[Comparison]]:
    """`text` with its comparisons of numbers blanked in place or turned into "some … and …", and the comparisons."""
    found = []

    def note(match: re.Match) -> None:
        how = match["how"].lower()
        sign = 1 if re.fullmatch(_MORE, how) else -1 if re.fullmatch(_FEWER, how) else 0
        found.append(Comparison(singular(match["one"].split()[-1]), singular(match["other"].split()[-1]), sign))

    def blanked(match: re.Match) -> str:
        note(match)
        return " " * len(match[0])

    def joined(match: re.Match) -> str:
        note(match)
        how = match["how"]
        return _AND[how.lower()] + match[0][len(how) :].replace(" than ", " and  ", 1)

    return _THAN.sub(joined, _NUMBERS.sub(blanked, text)), found
