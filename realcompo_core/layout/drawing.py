"""A picture of a layout."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..palettes import RGB, color_of
from .layout import Box, Layout, LayoutObject
from .pose import MIN_CONFIDENCE, limbs_of

Size = tuple[int, int]  # width, height

READABLE = 512  # pixels that the shorter side of a small picture of a layout comes near to
PAPER = (247, 247, 245)
PLATE = (25, 25, 30)
ASCII_PUNCTUATION = str.maketrans("‘’“”–—×", "''\"\"--x")  # for Pillow's own font; accents are dropped


def draw_layout(
    layout: Layout,
    size: Size = (512, 512),
    background: Image.Image | None = None,
    colors: Sequence[RGB] | None = None,
) -> Image.Image:
    """The layout as an RGB picture of `size` (width, height) pixels, over `background` scaled to that size.

    Each box has a label with its phrase, in the object's colour: that of `colors`, one for each object, or `color_of`
    its place in the layout. Masks are filled. Keypoints are dots, joined by limbs if they are OpenPose's 18. The
    layout's background and negative phrases, if any, are written at the bottom.
    """
    colors = colors or [color_of(index) for index in range(len(layout.objects))]
    picture = Image.new("RGB", size, PAPER) if background is None else background.convert("RGB").resize(size)
    line = max(1, min(size) // 200)
    by_area = sorted(enumerate(layout.objects), key=lambda pair: -_area(pair[1].box))  # small ones stay visible
    for index, item in by_area:
        picture.paste(colors[index], mask=_fill(item, size))
    draw = ImageDraw.Draw(picture)
    for index, item in by_area:
        draw.rectangle(_pixels(item.box, size), outline=colors[index], width=line)
        _draw_keypoints(draw, item, size, colors[index], line)

    font = ImageFont.load_default(size=max(9, min(size) // 38))
    bottom = _draw_caption(picture, layout, font)
    plates: list[Box] = []
    for index, item in by_area[::-1]:  # a small box has the fewest places for its label
        plates.append(_draw_label(draw, item, size, colors[index], font, bottom, plates))
    return picture


def readable_size(size: Size) -> Size:
    """A whole multiple of `size` at which the labels leave their boxes to be seen; `size` itself if it is large enough.

    The shorter side has 257 pixels or more then: 128 x 128 is drawn at 512 x 512.
    """
    times = max(1, READABLE // min(size))
    return size[0] * times, size[1] * times


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _pixels(box: Box, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of the box, all inside the picture and at least one pixel in size."""
    x0, y0 = (min(round(box[i] * size[i]), size[i] - 1) for i in (0, 1))
    x1, y1 = (max(round(box[i + 2] * size[i]) - 1, low) for i, low in enumerate((x0, y0)))
    return x0, y0, x1, y1


def _fill(item: LayoutObject, size: Size) -> Image.Image:
    """The opacity (0..255) of the object's colour at every pixel: inside its mask, or fainter inside its box."""
    if item.mask is not None:
        opacity = Image.fromarray(np.where(item.mask > 0.5, 130, 0).astype(np.uint8))
        return opacity.resize(size, Image.Resampling.BILINEAR)
    opacity = Image.new("L", size)
    ImageDraw.Draw(opacity).rectangle(_pixels(item.box, size), fill=40)
    return opacity


def _draw_keypoints(draw: ImageDraw.ImageDraw, item: LayoutObject, size: Size, color: RGB, line: int) -> None:
    points = [(x * size[0], y * size[1]) if c > MIN_CONFIDENCE else None for x, y, c in item.keypoints]
    for a, b in limbs_of(item.keypoints):
        draw.line((*points[a], *points[b]), fill=color, width=2 * line)
    for point in filter(None, points):
        draw.circle(point, 2 * line, fill="white", outline=color, width=line)


def _draw_caption(picture: Image.Image, layout: Layout, font: ImageFont.FreeTypeFont) -> int:
    """Writes background and negative phrase along the bottom; returns the height that is left above."""
    captions = {"background": layout.background, "without": layout.negative}
    lines = [f"{word}: {phrase}" for word, phrase in captions.items() if phrase]
    width, height = picture.size
    row = sum(font.getmetrics())
    top = height - row * len(lines)
    picture.paste(PLATE, (0, top, width, height), Image.new("L", (width, height - top), 200))
    for i, text in enumerate(lines):
        _write(ImageDraw.Draw(picture), (0, top + i * row), shortened(text, font, width), "white", font)
    return top


def _draw_label(
    draw: ImageDraw.ImageDraw,
    item: LayoutObject,
    size: Size,
    color: RGB,
    font: ImageFont.FreeTypeFont,
    bottom: int,
    plates: list[Box],
) -> Box:
    """Writes the phrase at its box, above `bottom`, where it covers the least of the other labels (`plates`).

    Returns the label's rectangle.
    """
    x0, y0, x1, y1 = _pixels(item.box, size)
    text = shortened(item.phrase, font, max(size[0] * 2 // 3, x1 - x0))
    w, h = _text_width(text, font), sum(font.getmetrics())

    def overlap(corner: tuple[int, int]) -> float:
        x, y = corner
        return sum(
            max(0, min(x + w, right) - max(x, left)) * max(0, min(y + h, low) - max(y, top))
            for left, top, right, low in plates
        )

    # Above, at the top, below, at the bottom of the box; from its left edge, then from its right edge.
    places = [(x, y) for x in (x0, x1 - w + 1) for y in (y0 - h, y0, y1 + 1, y1 - h + 1)]
    x, y = min(((min(max(x, 0), size[0] - w), max(min(y, bottom - h), 0)) for x, y in places), key=overlap)
    draw.rectangle((x, y, x + w - 1, y + h - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    _write(draw, (x, y), text, "black" if brightness > 150 else "white", font)
    return x, y, x + w, y + h


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str, font) -> None:
    """One line of text in a row whose upper left is `corner`."""
    draw.text((corner[0] + font.size / 4, corner[1] + sum(font.getmetrics()) / 2), text, color, font, anchor="lm")


def _text_width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return round(font.getlength(text) + font.size / 2)


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text on one line of at most `width` pixels, cut with an ellipsis if need be."""
    text = ascii_text(" ".join(text.split())[:300])
    if _text_width(text, font) <= width:
        return text
    while text and _text_width(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def ascii_text(text: str) -> str:
    """The text in letters that Pillow's own font has: without accents, with typewriter's quotes and dashes."""
    plain = unicodedata.normalize("NFKD", text).translate(ASCII_PUNCTUATION)
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
