"""The colours in which segmentation pictures of this world are drawn: one for each colour and shape of an object."""

from __future__ import annotations

from realcompo_core.palettes import RGB
from shapescenes.world import COLOURS, SHAPES

TINTS = ((1.0, 0.0), (0.75, 0.0), (0.5, 0.0), (1.0, 0.3), (0.8, 0.45), (1.0, 0.6))
"""For each shape: the share of the full brightness, and how much white is in it."""


def _tint(colour: str, shape: str) -> RGB:
    brightness, white = TINTS[SHAPES.index(shape)]
    red, green, blue = (round(brightness * ((1 - white) * value + white * 255)) for value in COLOURS[colour])
    return red, green, blue


PALETTE = {f"{colour} {shape}": _tint(colour, shape) for colour in COLOURS for shape in SHAPES}
"""From "red circle" to its colour: the full red; a red square is a darker, a red cross a paler one."""
