"""Statements about numbers: "more apples than oranges", "twice as many cats as dogs".

Also "…, the number of cats is less than that of dogs".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...text.words import singular
from .numerals import number
from .scene import SceneGraph

_MORE, _FEWER = "more|greater|larger|bigger|higher", "less|fewer|smaller|lower"
_NUMBERS = re.compile(
    r",?\s*(?:and |where |while |but )?the number of (?:the )?(?P<one>[\w -]+?) (?:is|are|being) "
    rf"(?P<how>{_MORE}|{_FEWER}|equal|the same)(?: than| to| as)?(?: that| those| the number)?(?: of)?(?: the)? "
    r"(?P<other>[\w -]+)",
    re.IGNORECASE,
)
_OTHER = r"(?: there are)?(?: the)? (?P<other>[\w-]+(?: [\w-]+){0,2})"
_THAN = re.compile(rf"\b(?:(?P<by>\w+) )?(?P<how>more|fewer|less) (?P<one>[\w -]+?) than{_OTHER}", re.IGNORECASE)
_TIMES = re.compile(
    r"\b(?:(?P<times>twice|thrice|half|double|triple|\w+ times) (?:as many|the number of)|as many) "
    rf"(?P<one>[\w -]+?)(?: as{_OTHER}|(?=[,.;]|$))",
    re.IGNORECASE,
)
_FACTORS = {"twice": 2.0, "double": 2.0, "thrice": 3.0, "triple": 3.0, "half": 0.5}
_AT_LEAST = 2  # of what nothing else counts


class Comparison(NamedTuple):
    """That there are `factor` times as many of the noun `one` as of `other`, and `more` (or fewer) beside that.

    `other` are the words among which the noun is; without any, what the prompt names before is meant.
    """

    one: str
    other: tuple[str, ...]
    more: int = 0
    factor: float = 1.0

    def apply(self, scene: SceneGraph) -> None:
        """Sets the number that the prompt left open so that the comparison holds."""
        first = next((group for group in scene.groups if group.noun == self.one), None)
        if self.other:
            named = {group.noun: group for group in reversed(scene.groups)}
            second = next((named[noun] for noun in self.other if noun in named), None)
        else:
            earlier = scene.groups[: scene.groups.index(first)] if first in scene.groups else []
            second = earlier[-1] if earlier else None
        if first is None or second is None or first is second:
            return
        if first.exact and second.exact and (first.count - second.count) * self.more > 0:
            return
        if first.exact:
            second.count = max(round((first.count - self.more) / self.factor), 1)
            return
        if not second.exact:
            second.count = max(_AT_LEAST, 1 - self.more)
        first.count = max(round(second.count * self.factor) + self.more, 1)
        second.count += first.count == second.count and self.more < 0


def without_comparisons(text: str) -> tuple[str, list[Comparison]]:
    """`text` with its comparisons of numbers blanked in place or turned into "some … and …", and the comparisons."""
    found = []

    def sides(match: re.Match) -> tuple[str, tuple[str, ...]]:
        return singular(match["one"].split()[-1]), tuple(map(singular, (match["other"] or "").split()))

    def blanked(match: re.Match) -> str:
        how = match["how"].lower()
        more = 1 if re.fullmatch(_MORE, how) else -1 if re.fullmatch(_FEWER, how) else 0
        found.append(Comparison(*sides(match), more))
        return " " * len(match[0])

    def differing(match: re.Match) -> str:
        by = number(match["by"].lower()) if match["by"] else None
        sign = 1 if match["how"].lower() == "more" else -1
        found.append(Comparison(*sides(match), sign * (by or 1)))
        kept = match["by"] or "" if by is None else ""
        return _joined(match, kept)

    def multiplied(match: re.Match) -> str:
        times = (match["times"] or "").lower()
        factor = _FACTORS.get(times) or (number(times.split()[0]) if times.endswith(" times") else None) or 1.0
        found.append(Comparison(*sides(match), factor=factor))
        return _joined(match, "")

    return _TIMES.sub(multiplied, _THAN.sub(differing, _NUMBERS.sub(blanked, text))), found


def _joined(match: re.Match, before: str) -> str:
    """ "twice as many cats as dogs" -> "some cats and dogs", of the same length, as spans must stay."""
    start, one_start, one_end = (match.start(), *match.span("one"))
    first = f"{before} some ".lstrip().ljust(one_start - start)
    if match["other"] is None:
        return first + match["one"]
    between = " and ".ljust(match.start("other") - one_end)
    return first + match["one"] + between + match["other"]
