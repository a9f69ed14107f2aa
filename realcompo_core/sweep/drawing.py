"""The grid of a sweep as one picture, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..layout.drawing import ascii_text, shortened
from ..palettes import ACCENT, INK, LINE, SOFT
from .plan import Plan

# Pixels, and sizes of letters.
MARGIN, GAP, WIDEST = 28, 12, 1500
LARGEST, SMALLEST = 256, 144  # the longer side of a picture
LEAST_WIDTH = 560  # for title and caption
TITLE, TEXT = 20, 14
ROW = round(TEXT * 1.4)
NOT_RUN = "#f2f2ee"


def draw_grid(
    plan: Plan,
    pictures: Sequence[Image.Image | None],
    lines: Sequence[Sequence[str]],
    title: str,
    caption: Sequence[str] = (),
) -> Image.Image:
    """The cells of `plan` in rows and columns, the values of its axes beside them.

    pictures: one for each cell, row by row; None for one that was not run. lines: what is written below each picture.
    caption: paragraphs at the foot. Pictures keep their aspect; small ones are enlarged.
    """
    rows, columns = plan.shape
    text = ImageFont.load_default(TEXT)
    x_titles = plan.x.titles
    y_titles = plan.y.titles if plan.y is not None else []
    names = min(max((_width(name, text) for name in y_titles), default=0), 220)
    left = MARGIN + (names + GAP if y_titles else 0)
    side = max(SMALLEST, min(LARGEST, (WIDEST - left - MARGIN) // columns - GAP))
    width, height = _cell_size(pictures, side)
    right = left + columns * (width + GAP) - GAP
    page_width = max(right + MARGIN, LEAST_WIDTH)
    inner = page_width - 2 * MARGIN
    heading = _wrapped(title, ImageFont.load_default(TITLE), inner)
    foot = [line for paragraph in caption for line in _wrapped(paragraph, text, inner)]
    below = [[part for line in own for part in _wrapped(line, text, width)] for own in lines]
    noted = ROW * max((len(own) for own in below), default=0)
    top = MARGIN + round(len(heading) * TITLE * 1.4) + GAP + ROW + GAP // 2
    bottom = top + rows * (height + noted + 2 * GAP)

    page = Image.new("RGB", (page_width, bottom + len(foot) * ROW + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(heading):
        _write(draw, MARGIN, MARGIN + i * TITLE * 1.4, line, INK, TITLE, bold=True)
    for j, name in enumerate(x_titles):
        _write(draw, left + j * (width + GAP), top - ROW - 2, shortened(name, text, width), ACCENT, TEXT, bold=True)
    for i, name in enumerate(y_titles):
        y = top + i * (height + noted + 2 * GAP) + height / 2 - TEXT / 2
        _write(draw, MARGIN, y, shortened(name, text, names + TEXT // 2), ACCENT, TEXT, bold=True)
    for n, picture in enumerate(pictures):
        x, y = left + n % columns * (width + GAP), top + n // columns * (height + noted + 2 * GAP)
        _show(page, draw, picture, (x, y, width, height))
        for k, line in enumerate(below[n]):
            _write(draw, x, y + height + 4 + k * ROW, line, INK)
    for i, line in enumerate(foot):
        _write(draw, MARGIN, bottom + i * ROW, line, SOFT)
    return page


def _cell_size(pictures: Sequence[Image.Image | None], side: int) -> tuple[int, int]:
    """Width and height that every picture fits into, its longer side `side`."""
    sizes = [picture.size for picture in pictures if picture is not None] or [(1, 1)]
    widths, heights = zip(*((w * side / max(w, h), h * side / max(w, h)) for w, h in sizes), strict=True)
    return max(round(max(widths)), SMALLEST // 2), max(round(max(heights)), SMALLEST // 2)


def _show(page: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image | None, place: tuple) -> None:
    x, y, width, height = place
    if picture is None:
        draw.rectangle((x, y, x + width - 1, y + height - 1), NOT_RUN, LINE)
        draw.text((x + width / 2, y + height / 2), "not run", SOFT, ImageFont.load_default(TEXT), "mm")
        return
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    page.paste(shown, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, line: str, color: str, size: int = TEXT, bold: bool = False
) -> None:
    stroke = size / 64 if bold else 0
    draw.text((x, y), line, color, ImageFont.load_default(size), stroke_width=stroke, stroke_fill=color)


def _wrapped(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """In lines of at most `width` pixels; a longer word is cut."""
    found: list[str] = []
    for word in ascii_text(line).split():
        if found and font.getlength(f"{found[-1]} {word}") <= width:
            found[-1] += f" {word}"
        else:
            found.append(word if font.getlength(word) <= width else shortened(word, font, width))
    return found


def _width(line: str, font: ImageFont.FreeTypeFont) -> int:
    return round(font.getlength(ascii_text(line))) + 1
