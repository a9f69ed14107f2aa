"""The colours of every picture, and numbers as colours. Colours are CSS hex strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RGB = tuple[int, int, int]

# Colours at even distances from 0 to 1. All four are matplotlib's maps of these names, sampled.
PALETTES = {
    "viridis": ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"),
    "inferno": ("#000004", "#210c4a", "#57106e", "#8a226a", "#bc3754", "#e45a31", "#f98e09", "#f9cb35", "#fcffa4"),
    "turbo": ("#30123b", "#466be3", "#28bceb", "#32f298", "#a4fc3c", "#eecf3a", "#fb7e21", "#d02f05", "#7a0403"),
    "gray": ("#000000", "#ffffff"),
}
# Of weights: 0, one half, 1. Of differences: negative, none, positive.
DIVERGING = ("#542788", "#f7f7f7", "#b35806")
NOT_A_NUMBER = "#8c9196"

# Ten hues that stay apart on paper-white and on photographs, as red, green and blue from 0 to 255.
OBJECTS: tuple[RGB, ...] = (
    (228, 60, 50),
    (40, 110, 220),
    (30, 150, 70),
    (240, 140, 20),
    (140, 70, 190),
    (0, 160, 175),
    (225, 70, 150),
    (135, 90, 50),
    (120, 150, 20),
    (70, 75, 90),
)
# The fidelity branch first. The first two are the ends of DIVERGING.
BRANCHES = ("#542788", "#b35806", "#1b7837", "#2166ac", "#c51b7d", "#b2182b", "#01665e", "#8c6d1f")

INK, SOFT, LINE, ACCENT = "#1d1f24", "#666a73", "#dcdcd6", "#b35806"  # text, lesser text, rules, what stands out


def color_of(index: int) -> RGB:
    """The colour of the layout's object `index` in every picture of it; they repeat after ten."""
    return OBJECTS[index % len(OBJECTS)]


def hex_of(index: int) -> str:
    """The colour of the layout's object `index` as a CSS hex string, "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color_of(index))


def branch_color(index: int) -> str:
    """The colour of branch `index`; they repeat after eight."""
    return BRANCHES[index % len(BRANCHES)]


def colorize(values: np.ndarray, colors: Sequence[str]) -> np.ndarray:
    """(H, W) in 0..1 to (H, W, 3) bytes: `colors` at even distances, straight lines between them; NaN is grey."""
    stops = np.array([_channels(color) for color in colors], dtype=float)
    places = np.linspace(0, 1, len(stops))
    known = ~np.isnan(values)
    found = np.stack([np.interp(np.where(known, values, 0), places, stops[:, i]) for i in range(3)], -1)
    return np.where(known[..., None], found.round(), _channels(NOT_A_NUMBER)).astype(np.uint8)


def _channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]
