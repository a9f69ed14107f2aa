"""The colours in which segmentation pictures of this world are drawn: one for each colour and shape of an object."""

from __future__ import annotations

from realcompo_core.palettes import RGB
from shapescenes.world import COLOURS, SHAPES

DARKEST = 0.35  # of the shapes' shares of the full colour, which are at even distances


def _shade(colour: str, shape: str) -> RGB:
    share = DARKEST + (1 - DARKEST) * SHAPES.index(shape) / (len(SHAPES) - 1)
    red, green, blue = (round(share * value) for value in COLOURS[colour])
    return red, green, blue


PALETTE = {f"{colour} {shape}": _shade(colour, shape) for colour in COLOURS for shape in SHAPES}
"""From "red circle" to its colour: red, as dark as all circles."""
