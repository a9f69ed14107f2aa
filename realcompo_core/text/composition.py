"""The parts of a prompt that Composable Diffusion (Liu et al. 2022) makes one picture of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import RealCompoError
from ..layout import Layout

_SEPARATORS = (re.compile(r"\|"), re.compile(r"\bAND\b"), re.compile(r"\band\b", re.IGNORECASE))
_WEIGHTED = re.compile(r"(.*?)(?::\s*([-+]?(?:\d+\.?\d*|\.\d+)))?\s*", re.DOTALL)


class Part(NamedTuple):
    """A prompt of its own. weight: a factor of the guidance scale; below 0 the picture is led away from the text."""

    text: str
    weight: float = 1.0


def split_prompt(prompt: str) -> list[Part]:
    """The prompt's parts: between the signs |, without any between the words AND, without any between the words and.

    "a cloudy sky | a church :1.5 | a tree :-1" has three, the last of which is to be absent. Raises RealCompoError for
    a prompt of one part, and for an empty part.
    """
    pattern = next((pattern for pattern in _SEPARATORS if pattern.search(prompt)), None)
    if pattern is None:
        raise RealCompoError(
            f"the prompt {prompt!r} has neither | nor the word and, at which it would be taken apart: write its parts "
            "like 'a cat | a dog', or take the layout's phrases"
        )
    parts = []
    for number, piece in enumerate(pattern.split(prompt), start=1):
        text, weight = _WEIGHTED.fullmatch(piece).groups()
        if not text.strip(" ,.\n"):
            raise RealCompoError(f"part {number} of the prompt {prompt!r} is empty: take its separator away")
        parts.append(Part(text.strip(" ,\n"), 1.0 if weight is None else float(weight)))
    return parts


def layout_parts(layout: Layout) -> list[Part]:
    """A part for each of the layout's phrases. Raises RealCompoError for a layout without objects."""
    phrases: Sequence[str] = list(dict.fromkeys(item.phrase for item in layout.objects))
    if not phrases:
        raise RealCompoError("the layout has no objects, whose phrases would be composed: compose the prompt's parts")
    return [Part(phrase) for phrase in phrases]
