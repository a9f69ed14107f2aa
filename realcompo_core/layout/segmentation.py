"""Segmentation pictures: a layout drawn in one flat colour a class, as segmentation ControlNets read it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from ..errors import RealCompoError
from ..palettes import RGB
from .layout import Layout
from .regions import region_of

BACKGROUND: RGB = (0, 0, 0)


class UnknownClassError(RealCompoError):
    """A phrase, or a colour, that is none of the palette's classes."""


def draw_segmentation(layout: Layout, palette: Mapping[str, RGB], size: tuple[int, int]) -> Image.Image:
    """The layout's regions as an RGB picture of `size` (width, height) pixels, each in the colour of its class.

    The rest is black. Where regions overlap, the smaller one is in front. Raises UnknownClassError (see `class_of`).
    """
    width, height = size
    colours = [palette[class_of(item.phrase, palette)] for item in layout.objects]
    inside = [region_of(item).coverage(height, width) > 0.5 for item in layout.objects]
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for index in sorted(range(len(inside)), key=lambda i: -int(torch.count_nonzero(inside[i]))):
        picture[inside[index].numpy()] = colours[index]
    return Image.fromarray(picture)


def class_of(phrase: str, palette: Mapping[str, RGB]) -> str:
    """The palette's class whose words all occur in the phrase, the longest of them. Raises UnknownClassError."""
    words = set(phrase.lower().split())
    found = [name for name in palette if set(name.lower().split()) <= words]
    if not found:
        raise UnknownClassError(f"{phrase!r} is none of the palette's classes: {', '.join(palette)}")
    return max(found, key=lambda name: len(name.split()))
