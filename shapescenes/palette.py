"""The colours in which segmentation pictures of this world are drawn: one for each colour and shape of an object."""

from __future__ import annotations

from itertools import product

from realcompo_core.layout.segmentation import BACKGROUND
from realcompo_core.palettes import RGB
from shapescenes.world import COLOURS, SHAPES

LEVELS = (0, 85, 170, 255)


def _palette() -> dict[str, RGB]:
    # Points of a coarse grid, so that no two are close; black is the background.
    grid = [colour for colour in product(LEVELS, repeat=3) if colour != BACKGROUND]
    kinds = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return {kind: grid[i * len(grid) // len(kinds)] for i, kind in enumerate(kinds)}


PALETTE = _palette()
"""From "red circle" to its colour."""
