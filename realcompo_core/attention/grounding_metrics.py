"""How well attention falls on objects: share inside a region, IoU with a mask (DAAM's protocol), concentration."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RealCompoError
from ..layout import Layout
from ..layout.regions import region_maps
from ..text.tokens import phrase_indices, token_groups
from .losses import share_inside
from .maps import AttentionMaps, BranchMaps, WordColumns

THRESHOLD = 0.4  # of a map's largest value: Tang et al. 2023, "What the DAAM"
ALL = "all"


def attention_iou(maps: Tensor, masks: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Intersection over union of `maps` above `threshold` times their largest value, with `masks`; (..., H, W) each."""
    inside = maps >= threshold * maps.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    wanted = masks > 0.5
    return (inside & wanted).sum((-2, -1)) / (inside | wanted).sum((-2, -1)).clamp_min(1)


def concentration(maps: Tensor) -> Tensor:
    """1 - entropy / log(cells) of each map (..., H, W): 0 for an even map, 1 for one that is a single cell."""
    flat = maps.flatten(-2)
    p = flat / flat.sum(-1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    return 1 + torch.xlogy(p, p).sum(-1) / math.log(max(flat.shape[-1], 2))


class Target(NamedTuple):
    """Words whose attention should fall on a region. `region`: (height, width) -> (height, width) coverage in 0..1."""

    label: str
    word: WordColumns
    region: Callable[[int, int], Tensor]


class GroundingRow(NamedTuple):
    """`layer` and `step` may be "all": the mean map. `area`: of the region, which is the share of an even map."""

    branch: str
    item: int
    label: str
    layer: str
    step: int | str
    share: float
    area: float
    iou: float
    concentration: float


def layout_targets(branch: BranchMaps, layout: Layout, conditioning: str = "positive") -> list[Target]:
    """One target for the layout's objects that share words. Raises RealCompoError for a phrase that is not there."""
    own = [word for word in branch.words.get(conditioning, []) if not word.text.startswith("<")]
    pieces = [(word.text + " ", list(word.columns)) for word in own]
    found = phrase_indices(pieces, [item.phrase for item in layout.objects], include_adjectives=True)
    targets = []
    for columns, objects in token_groups(found):
        phrase = layout.objects[objects[0]].phrase
        region = partial(_region, layout, objects)
        targets.append(Target(phrase, WordColumns(phrase, tuple(columns)), region))
    return targets


def _region(layout: Layout, objects: Sequence[int], height: int, width: int) -> Tensor:
    return region_maps(layout, [objects], height, width)[0]


def mask_target(branch: BranchMaps, phrase: str, mask: Tensor, conditioning: str = "positive") -> Target:
    """mask: (H, W) in 0..1, averaged down to the maps' size."""
    return Target(
        phrase,
        branch.find(phrase, conditioning),
        lambda h, w: F.interpolate(mask[None, None].float(), (h, w), mode="area")[0, 0],
    )


def grounding_table(
    branch: BranchMaps,
    targets: Sequence[Sequence[Target]],
    conditioning: str = "positive",
    layers: bool = False,
    steps: bool = False,
) -> list[GroundingRow]:
    """A row for each item and target; with `layers` and `steps` also for each of them apart.

    targets: one list an item, or one for all of them. IoU is taken at the maps' own size, with the region above a half.
    """
    rows = []
    for layer in [None, *(kept.name for kept in branch.kept_layers)] if layers else [None]:
        for step in [None, *branch.steps_of(conditioning)] if steps else [None]:
            for item, own in enumerate(targets if len(targets) == branch.batch else targets * branch.batch):
                words = [target.word for target in own]
                if not words:
                    continue
                maps = branch.word_maps(words, conditioning, layer=layer, step=step)[item]
                regions = torch.stack([target.region(*maps.shape[-2:]).float() for target in own])
                shares, ious, peaks = share_inside(maps, regions), attention_iou(maps, regions), concentration(maps)
                for i, target in enumerate(own):
                    rows.append(
                        GroundingRow(
                            branch.name,
                            item,
                            target.label,
                            ALL if layer is None else layer,
                            ALL if step is None else step,
                            *(float(value[i]) for value in (shares, regions.mean((-2, -1)), ious, peaks)),
                        )
                    )
    return rows


def layout_table(maps: AttentionMaps, layout: Layout | None = None, **axes: bool) -> list[GroundingRow]:
    """`grounding_table` of every branch with the layout given, or that of the maps. Raises RealCompoError without."""
    layout = layout or maps.layout
    if layout is None or not layout.objects:
        raise RealCompoError("there is nothing to measure against: give a layout with objects")
    return [
        row for branch in maps.recorded for row in grounding_table(branch, [layout_targets(branch, layout)], **axes)
    ]


def differences(rows: Sequence[GroundingRow]) -> list[GroundingRow]:
    """What the second branch of a table has more than the first, row by row: share, IoU and concentration.

    `branch` names both, the second first; `area` is the region's. Rows that only one of them has are left out. Raises
    RealCompoError for a table of less or more than two branches.
    """
    names = list(dict.fromkeys(row.branch for row in rows))
    if len(names) != 2:
        raise RealCompoError(f"differences are between two branches, and there are {', '.join(names) or 'none'}")
    firsts = {row[1:5]: row for row in rows if row.branch == names[0]}
    found = []
    for row in rows:
        if row.branch == names[1] and row[1:5] in firsts:
            first = firsts[row[1:5]]
            changed = {name: getattr(row, name) - getattr(first, name) for name in ("share", "iou", "concentration")}
            found.append(row._replace(branch=f"{names[1]} - {names[0]}", **changed))
    return found


def mean_of(rows: Sequence[GroundingRow], name: str) -> float:
    """The mean of a column over objects and pictures, of the mean maps alone."""
    values = [getattr(row, name) for row in rows if row.layer == row.step == ALL]
    return sum(values) / len(values)


def as_csv(rows: Sequence[GroundingRow]) -> str:
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(GroundingRow._fields)
    writer.writerows([f"{value:.4f}" if isinstance(value, float) else value for value in row] for row in rows)
    return file.getvalue()
