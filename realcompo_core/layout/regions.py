"""Regions: where each object may be, as coverage maps at the resolution of an attention map.

A layout object keeps what it was made from: a box, a mask or keypoints. `region_of` says which of them is its region,
and the region is rasterised when a resolution is asked for. A map's cells are taken to be square in the picture, so
that a map of height x width cells stands for a picture of that aspect. See docs/method.md, R10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .layout import Box, Layout, LayoutObject
from .pose import MARGIN, MIN_CONFIDENCE, limbs_of

SAMPLES = 256  # sample points along the longer side of a small map of keypoints
MIN_SAMPLES = 4  # and along a cell of a large one

Point = tuple[float, float]


class Region(Protocol):
    """Where an object may be, at any resolution."""

    def coverage(self, height: int, width: int) -> Tensor:
        """(height, width) float64 in 0..1: the share of each cell that lies in the region."""


@dataclass(frozen=True)
class BoxRegion:
    """The inside of `box`."""

    box: Box

    def coverage(self, height: int, width: int) -> Tensor:
        x0, y0, x1, y1 = torch.tensor(self.box, dtype=torch.float64)
        return overlap(torch.stack([y0, y1])[None], height) @ overlap(torch.stack([x0, x1])[None], width).T


@dataclass(frozen=True, eq=False)
class MaskRegion:
    """Where `mask`, an array (rows, columns) over the whole picture, is above 0.5."""

    mask: np.ndarray

    def coverage(self, height: int, width: int) -> Tensor:
        mask = torch.from_numpy(np.asarray(self.mask, dtype=np.float64) > 0.5).double()
        rows, columns = (overlap(_pixels(n), cells) for n, cells in zip(mask.shape, (height, width), strict=True))
        return rows @ mask @ columns.T


@dataclass(frozen=True)
class KeypointRegion:
    """The neighbourhood of a body: of its seen keypoints, and of the limbs between them.

    The neighbourhood reaches `MARGIN` times the longer side of the extent of the seen keypoints, measured in cells. The
    object's `box` stands in where that says nothing: its longer side is the size of a body whose keypoints are all in
    one place, and it is the region of one that has no seen keypoint or lies outside the picture.
    """

    keypoints: tuple[tuple[float, float, float], ...]
    box: Box

    def coverage(self, height: int, width: int) -> Tensor:
        points = [(x * width, y * height) for x, y, _ in self.keypoints]
        seen = [i for i, (_, _, confidence) in enumerate(self.keypoints) if confidence > MIN_CONFIDENCE]
        limbs = limbs_of(self.keypoints)
        alone = set(seen).difference(*limbs)
        segments = [(points[a], points[b]) for a, b in limbs] + [(points[i], points[i]) for i in alone]
        radius = MARGIN * self._size([points[i] for i in seen], height, width)
        covered = capsule_coverage(segments, radius, height, width)
        return covered if covered.any() else BoxRegion(self.box).coverage(height, width)

    def _size(self, seen: list[Point], height: int, width: int) -> float:
        """The longer side of the body, in cells."""
        extent = max((max(axis) - min(axis) for axis in zip(*seen, strict=True)), default=0.0)
        x0, y0, x1, y1 = self.box
        return extent or max((x1 - x0) * width, (y1 - y0) * height)


def region_of(item: LayoutObject) -> Region:
    """The object's mask if it has one, else the neighbourhood of its keypoints, else its box.

    The box as well if the object's `region` is "box".
    """
    if item.region == "box":
        return BoxRegion(item.box)
    if item.mask is not None:
        return MaskRegion(item.mask)
    if item.keypoints:
        return KeypointRegion(item.keypoints, item.box)
    return BoxRegion(item.box)


def region_map(item: LayoutObject, height: int, width: int) -> Tensor:
    """(height, width) float64: the coverage of the object's region, scaled so that its largest value is 1.

    An object smaller than a cell is thus never empty and weighs as much as a large one.
    """
    covered = region_of(item).coverage(height, width)
    return covered / covered.max()


def region_maps(layout: Layout, groups: Sequence[Sequence[int]], height: int, width: int) -> Tensor:
    """(G, height, width) float32: one map a group of objects that share tokens, their regions joined (maximum)."""
    maps = [torch.stack([region_map(layout.objects[i], height, width) for i in group]).amax(0) for group in groups]
    return torch.stack(maps).float() if maps else torch.zeros(0, height, width)


def covered_by_objects(layout: Layout, height: int, width: int) -> Tensor:
    """(height, width) float32 in 0..1: all of the layout's objects joined; zeros without objects."""
    if not layout.objects:
        return torch.zeros(height, width)
    return region_maps(layout, [range(len(layout.objects))], height, width)[0]


def overlap(edges: Tensor, cells: int) -> Tensor:
    """Share of each of `cells` equal cells of 0..1 that intervals cover.

    edges: (n, 2) start and end of n intervals, normalised. Returns (cells, n) in 0..1.
    """
    left = torch.arange(cells, dtype=edges.dtype)[:, None] / cells
    covered = torch.minimum(left + 1 / cells, edges[:, 1]) - torch.maximum(left, edges[:, 0])
    return (covered * cells).clamp(0, 1)


def capsule_coverage(segments: Sequence[tuple[Point, Point]], radius: float, height: int, width: int) -> Tensor:
    """(height, width) float64: the share of each cell within `radius` of any of the line segments.

    Ends and radius are in cells; a segment of length 0 gives a disc. The share is counted on a grid of sample points.
    A radius below the grid's spacing is raised to it, so that no capsule inside the map falls between the points.
    """
    samples = max(MIN_SAMPLES, math.ceil(SAMPLES / max(height, width)))
    radius = max(radius, math.sqrt(0.5) / samples)
    y, x = ((torch.arange(cells * samples, dtype=torch.float64) + 0.5) / samples for cells in (height, width))
    inside = torch.zeros(len(y), len(x), dtype=torch.bool)
    for (x0, y0), (x1, y1) in segments:
        rows, columns = _between(y, y0, y1, radius), _between(x, x0, x1, radius)  # the others are too far away
        right, down = x[columns] - x0, (y[rows] - y0)[:, None]
        dx, dy = x1 - x0, y1 - y0
        nearest = ((right * dx + down * dy) / max(dx * dx + dy * dy, 1e-300)).clamp(0, 1)  # 0: first end, 1: second
        inside[rows, columns] |= torch.hypot(right - nearest * dx, down - nearest * dy) <= radius
    return inside.view(height, samples, width, samples).double().mean((1, 3))


def _between(points: Tensor, a: float, b: float, radius: float) -> slice:
    """Which of the ascending `points` lie between a and b or at most `radius` beyond, and one more on either side."""
    first, last = torch.searchsorted(points, points.new_tensor([min(a, b) - radius, max(a, b) + radius])).tolist()
    return slice(max(first - 1, 0), last + 1)


def _pixels(n: int) -> Tensor:
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    return torch.stack([edges[:-1], edges[1:]], -1)
