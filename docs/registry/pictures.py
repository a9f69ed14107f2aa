"""Draws the pack's icon and banner for the registry, in the colours of the two branches."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

HERE = Path(__file__).parent
GROUND, INK, QUIET = "#161b24", "#f4f4f2", "#9aa6b8"
FIDELITY, SPATIAL = (42, 120, 214), (217, 134, 26)
SCALE = 4  # drawn larger, for smooth edges
CELLS = 7  # of the grid of weights where the discs meet


def mark(side: int) -> Image.Image:
    """Two branches as discs; where they meet, each cell is mixed by a weight of its own."""
    size = SCALE * side
    image = Image.new("RGB", (size, size), GROUND)
    discs = []
    for x, color in ((0.37, FIDELITY), (0.63, SPATIAL)):
        disc = Image.new("L", (size, size))
        ImageDraw.Draw(disc).ellipse([size * edge for edge in (x - 0.29, 0.21, x + 0.29, 0.79)], fill=255)
        image.paste(color, mask=disc)
        discs.append(disc)
    weights = Image.new("RGB", (CELLS, CELLS))
    for row in range(CELLS):
        for column in range(CELLS):
            weight = (column + 1) / (CELLS + 1) + 0.22 * ((row + column) % 2) - 0.11
            mixed = tuple(round(a + (b - a) * weight) for a, b in zip(FIDELITY, SPATIAL, strict=True))
            weights.putpixel((column, row), mixed)
    left, top, right, bottom = (round(size * edge) for edge in (0.34, 0.21, 0.66, 0.79))
    grid = image.copy()
    grid.paste(weights.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    image.paste(grid, mask=ImageChops.multiply(*discs))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def banner(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), GROUND)
    image.paste(mark(height), (40, 0))
    draw = ImageDraw.Draw(image)
    left = height + 70
    draw.text((left, height * 0.38), "RealCompo", INK, ImageFont.load_default(112), anchor="lm")
    lines = "A sentence becomes a layout;\ntwo models draw it, mixed per pixel\nby their own attention."
    draw.multiline_text((left, height * 0.64), lines, QUIET, ImageFont.load_default(32), anchor="lm", spacing=12)
    return image


if __name__ == "__main__":
    mark(400).save(HERE / "icon.png", optimize=True)
    banner(1344, 576).save(HERE / "banner.png", optimize=True)
