"""Regions: where each object may be, as coverage maps at the resolution of an attention map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .layout import Layout, LayoutObject


def overlap(edges: Tensor, cells: int) -> Tensor:
    """Share of each of `cells` equal cells of 0..1 that intervals cover.

    edges: (n, 2) start and end of n intervals, normalised. Returns (cells, n) in 0..1.
    """
    left = torch.arange(cells, dtype=edges.dtype)[:, None] / cells
    covered = torch.minimum(left + 1 / cells, edges[:, 1]) - torch.maximum(left, edges[:, 0])
    return (covered * cells).clamp(0, 1)


def coverage(item: LayoutObject, height: int, width: int) -> Tensor:
    """(height, width) float64: the share of each cell that lies in the object's mask, or in its box if it has none."""
    if item.mask is not None:
        mask = torch.from_numpy(np.asarray(item.mask, dtype=np.float64) > 0.5).double()
        rows, columns = (overlap(_pixels(n), cells) for n, cells in zip(mask.shape, (height, width), strict=True))
        return rows @ mask @ columns.T
    x0, y0, x1, y1 = torch.tensor(item.box, dtype=torch.float64)
    return overlap(torch.stack([y0, y1])[None], height) @ overlap(torch.stack([x0, x1])[None], width).T


def region(item: LayoutObject, height: int, width: int) -> Tensor:
    """(height, width): coverage, scaled so that its largest value is 1.

    An object smaller than a cell is thus never empty and weighs as much as a large one.
    """
    covered = coverage(item, height, width)
    return covered / covered.max()


def region_maps(layout: Layout, groups: Sequence[Sequence[int]], height: int, width: int) -> Tensor:
    """(G, height, width) float32: one map a group of objects that share tokens, their regions joined (maximum)."""
    maps = [torch.stack([region(layout.objects[i], height, width) for i in group]).amax(0) for group in groups]
    return torch.stack(maps).float() if maps else torch.zeros(0, height, width)


def covered_by_objects(layout: Layout, height: int, width: int) -> Tensor:
    """(height, width) float32 in 0..1: all of the layout's objects joined; zeros without objects."""
    if not layout.objects:
        return torch.zeros(height, width)
    return region_maps(layout, [range(len(layout.objects))], height, width)[0]


def _pixels(n: int) -> Tensor:
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    return torch.stack([edges[:-1], edges[1:]], -1)
