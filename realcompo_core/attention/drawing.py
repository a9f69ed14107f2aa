"""Attention maps as pictures: over the image, one by one, or as a grid over words and one more axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import RealCompoError
from ..layout.drawing import shortened
from ..palettes import DIVERGING, INK, PALETTES, colorize
from .maps import AttentionMaps, BranchMaps, WordColumns

AXES = ("words", "layers", "steps", "heads", "branches")
MAX_COLUMNS = 10
CELL = 192  # pixels, of a grid's pictures at their longer side
GAP, LABEL = 6, 18
PAPER = "#ffffff"


class View(NamedTuple):
    """What of a recording is shown. None is the mean over layers, steps or heads, and the first branch.

    normalise: a map's colours reach from 0 to its own largest value, or to that of all maps shown.
    """

    conditioning: str = "positive"
    branch: str | None = None
    layer: str | None = None
    step: int | None = None
    head: int | None = None
    palette: str = "viridis"
    opacity: float = 0.6
    normalise: Literal["each", "together"] = "each"


class Shown(NamedTuple):
    """Maps of one item by word and by the values of the second axis: (words, columns, H, W), with their labels.

    `signed`: the last column is a difference.
    """

    maps: Tensor
    words: list[str]
    columns: list[str]
    signed: bool = False


def overlay(
    values: Tensor, picture: Image.Image | None, colors: Sequence[str], opacity: float, size: tuple[int, int]
) -> Image.Image:
    """A map (H, W) in 0..1 in `colors`, over `picture` (opaque without one), `size` (width, height) pixels."""
    smooth = F.interpolate(values[None, None].float(), size[::-1], mode="bilinear")[0, 0].clamp(0, 1)
    heat = Image.fromarray(colorize(smooth.numpy(), colors))
    return heat if picture is None else Image.blend(picture.convert("RGB").resize(size), heat, opacity)


def chosen_words(branch: BranchMaps, phrases: Sequence[str], conditioning: str = "positive") -> list[WordColumns]:
    """The words of these phrases; without any, all words of the prompt. Raises RealCompoError for one that is not."""
    if phrases:
        return [branch.find(phrase, conditioning) for phrase in phrases]
    words = branch.words.get(conditioning, [])
    return [word for word in words if not word.text.startswith("<")] or list(words)


def select(maps: AttentionMaps, axis: str, phrases: Sequence[str], view: View) -> list[Shown]:
    """What a sheet over `axis` shows of each item. Raises RealCompoError for what was not recorded."""
    if axis not in AXES:
        raise RealCompoError(f"axis {axis!r}: choose one of {', '.join(AXES)}")
    branch = maps.branch(view.branch)
    words = chosen_words(branch, phrases, view.conditioning)
    fixed = {"layer": view.layer, "step": view.step, "head": view.head}

    def column(own: BranchMaps, **change) -> Tensor:
        # Positions of words may differ between the branches' prompts.
        found = words if own is branch else [own.find(word.text, view.conditioning) for word in words]
        return own.word_maps(found, view.conditioning, **(fixed | change))

    labels = [word.text for word in words]
    if axis == "words":
        return _items([column(branch)], labels, [""])
    if axis == "branches":
        columns = _same_size([column(own) for own in maps.recorded])
        names = [own.name for own in maps.recorded]
        if len(names) == 2:
            difference = columns[1] - columns[0]
            return _items([*columns, difference], labels, [*names, f"{names[1]} - {names[0]}"], signed=True)
        return _items(columns, labels, names)
    known = {
        "layers": [layer.name for layer in branch.kept_layers],
        "steps": branch.steps_of(view.conditioning),
        "heads": list(range(branch.heads)),
    }[axis]
    count = min(len(known), MAX_COLUMNS)
    values = [known[round(i * (len(known) - 1) / max(count - 1, 1))] for i in range(count)]
    columns = _same_size([column(branch, **{axis[:-1]: value}) for value in values])
    names = [f"{axis[:-1]} {value}" if axis in ("steps", "heads") else str(value) for value in values]
    return _items(columns, labels, names)


Under = Image.Image | Sequence[Image.Image] | None
"""What maps are drawn over: a picture, one for each column, or nothing."""


def pictures(shown: Shown, picture: Under, view: View, longest: int = 512) -> list[list[Image.Image]]:
    """One picture for each word and column. `longest`: pixels of the longer side."""
    count = shown.maps.shape[1]
    under = list(picture) if isinstance(picture, Sequence) else [picture] * count
    height, width = shown.maps.shape[-2:] if under[0] is None else under[0].size[::-1]
    size = round(longest * width / max(height, width)), round(longest * height / max(height, width))
    plain = shown.maps[:, :-1] if shown.signed else shown.maps
    top = plain.amax().expand(shown.maps.shape[:2])
    if view.normalise == "each":
        top = shown.maps.abs().amax((-2, -1))
    top = top.clamp_min(1e-12)
    rows = []
    for i, word in enumerate(shown.maps):
        row = []
        for j, values in enumerate(word):
            if shown.signed and j == len(word) - 1:
                row.append(overlay(values / top[i, j] / 2 + 0.5, under[j], DIVERGING, view.opacity, size))
            else:
                row.append(overlay(values / top[i, j], under[j], PALETTES[view.palette], view.opacity, size))
        rows.append(row)
    return rows


def sheet(shown: Shown, picture: Under, view: View) -> Image.Image:
    """All maps with their labels: words down, columns across; words alone fill rows."""
    rows = pictures(shown, picture, view, CELL)
    if len(shown.columns) == 1:
        cells = [(label, row[0]) for label, row in zip(shown.words, rows, strict=True)]
        across = min(len(cells), 6)
        table = [cells[i : i + across] for i in range(0, len(cells), across)]
    else:
        table = [
            [(f"{word}, {column}", cell) for column, cell in zip(shown.columns, row, strict=True)]
            for word, row in zip(shown.words, rows, strict=True)
        ]
    width, height = rows[0][0].size
    page = Image.new("RGB", (GAP + len(table[0]) * (width + GAP), GAP + len(table) * (height + LABEL + GAP)), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, row in enumerate(table):
        for j, (label, cell) in enumerate(row):
            x, y = GAP + j * (width + GAP), GAP + i * (height + LABEL + GAP)
            draw.text((x, y), shortened(label, font, width), INK, font)
            page.paste(cell, (x, y + LABEL))
    return page


def threshold_mask(values: Tensor, threshold: float, size: tuple[int, int]) -> Tensor:
    """(..., H, W) maps to masks of 0 and 1 at `size` (height, width): where they reach `threshold` of their maximum."""
    flat = F.interpolate(values.flatten(0, -3)[:, None].float(), size, mode="bilinear")[:, 0]
    top = flat.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    return (flat >= threshold * top).float().unflatten(0, values.shape[:-2])


def _items(columns: list[Tensor], words: list[str], names: list[str], signed: bool = False) -> list[Shown]:
    """columns: (B, words, H, W) each."""
    return [Shown(maps, words, names, signed) for maps in torch.stack(columns, 2)]


def _same_size(maps: list[Tensor]) -> list[Tensor]:
    size = max((m.shape[-2:] for m in maps), key=lambda s: s[0] * s[1])
    return [m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps]
