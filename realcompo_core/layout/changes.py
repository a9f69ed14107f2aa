"""Objects in another place, where box, mask and keypoints go together; and places for boxes.

Lengths are shares of the picture's width or height; axis 0 is x, axis 1 is y, which grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from .layout import Box, LayoutObject
from .pose import JOINTS

MARGIN = 0.02  # to the picture's border, of what is moved there
GRID = 21  # places along each side of the picture that are tried for a free box

Axes = dict[int, int]  # axis -> -1 for left or top, 1 for right or bottom, 0 for the middle

# Which joint of a mirrored body each of OpenPose's 18 is: what was the right arm is the left one.
MIRRORED_JOINTS = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


def in_box(item: LayoutObject, box: Box) -> LayoutObject:
    """`item` in `box`: its mask and keypoints are moved and stretched as its box is. Nothing else changes.

    A mask of which no pixel is left, as `box` is too small or the mask was outside of the old box, is dropped.
    """
    if box == item.box:
        return item
    scale, offset = _to(item.box, box)
    keypoints = tuple((x * scale[0] + offset[0], y * scale[1] + offset[1], c) for x, y, c in item.keypoints)
    mask = None if item.mask is None else _moved(item.mask, scale, offset)
    if mask is not None and not (mask > 0.5).any():
        mask = None
    return replace(item, box=box, mask=mask, keypoints=keypoints)


def mirrored(item: LayoutObject, axis: int = 0) -> LayoutObject:
    """`item` mirrored across the picture's middle: left and right change places with `axis` 0, top and bottom with 1.

    Keypoints of OpenPose's 18 joints stay those of a person: left and right joints change names.
    """
    low, high = 1 - item.box[axis + 2], 1 - item.box[axis]
    box = (low, item.box[1], high, item.box[3]) if axis == 0 else (item.box[0], low, item.box[2], high)
    keypoints = tuple((1 - x, y, c) if axis == 0 else (x, 1 - y, c) for x, y, c in item.keypoints)
    if len(keypoints) == JOINTS:
        keypoints = tuple(keypoints[i] for i in MIRRORED_JOINTS)
    mask = None if item.mask is None else np.flip(item.mask, 1 - axis).copy()
    return replace(item, box=box, mask=mask, keypoints=keypoints)


def _to(old: Box, new: Box) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and offset along x and y that take the box `old` to `new`."""
    scale = tuple((new[i + 2] - new[i]) / (old[i + 2] - old[i]) for i in (0, 1))
    return scale, tuple(new[i] - old[i] * scale[i] for i in (0, 1))


def _moved(mask: np.ndarray, scale: tuple[float, float], offset: tuple[float, float]) -> np.ndarray:
    """The mask (height, width) under x -> scale * x + offset of the picture's 0..1: each pixel takes the nearest."""
    rows, columns = (
        ((np.arange(side) + 0.5) / side - offset[axis]) / scale[axis] * side
        for axis, side in ((1, mask.shape[0]), (0, mask.shape[1]))
    )
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    near = [
        np.clip(np.floor(at).astype(int), 0, side - 1) for at, side in zip((rows, columns), mask.shape, strict=True)
    ]
    return np.where(inside, mask[np.ix_(*near)], np.zeros((), mask.dtype))


def inside(edges: Sequence[float]) -> Box:
    """The box with these edges, shifted into the picture; a side longer than the picture is cut."""
    edges = list(edges)
    for axis in (0, 1):
        length = min(edges[axis + 2] - edges[axis], 1.0)
        low = min(max(edges[axis], 0.0), 1.0 - length)
        edges[axis], edges[axis + 2] = low, low + length
    return tuple(min(max(round(edge, 6), 0.0), 1.0) for edge in edges)


def at_sides(box: Box, axes: Axes) -> Box:
    """`box` at a side of the picture or in its middle, along each of `axes`; what leaves no margin is centred."""
    edges = list(box)
    for axis, sign in axes.items():
        length = box[axis + 2] - box[axis]
        room = max(1 - length - 2 * MARGIN, 0.0)
        edges[axis] = (1 - length) / 2 + sign * room / 2
        edges[axis + 2] = edges[axis] + length
    return tuple(edges)


def free_box(sides: tuple[float, float], others: Sequence[Box], axes: Axes) -> Box:
    """A box of these sides in the middle of the largest free place, or where the others cover least of it.

    Along `axes` it is at the given side of the picture.
    """
    centred = at_sides((0.0, 0.0, *sides), {0: 0, 1: 0} | axes)
    grid = [[centred[axis]] if axis in axes else _grid(sides[axis]) for axis in (0, 1)]
    corners = [(centred[0], centred[1]), *product(*grid)]
    boxes = [(x, y, x + sides[0], y + sides[1]) for x, y in corners]

    def cost(box: Box) -> tuple[float, float, float]:
        off_centre = abs(box[0] + box[2] - 1) + abs(box[1] + box[3] - 1)
        return round(covered(box, others), 6), -round(_clearance(box, others), 2), off_centre

    return inside(min(boxes, key=cost))


def _grid(side: float) -> list[float]:
    return [MARGIN + at / (GRID - 1) * (1 - 2 * MARGIN - side) for at in range(GRID)]


def covered(box: Box, others: Sequence[Box]) -> float:
    """The share of `box` that the others cover, each counted for itself."""
    common = (
        max(min(box[2], other[2]) - max(box[0], other[0]), 0.0)
        * max(min(box[3], other[3]) - max(box[1], other[1]), 0.0)
        for other in others
    )
    return sum(common) / ((box[2] - box[0]) * (box[3] - box[1]))


def _clearance(box: Box, others: Sequence[Box]) -> float:
    """The least distance to the border and to the others, along the axis where it is larger."""
    border = min(box[0], box[1], 1 - box[2], 1 - box[3])
    return min([border, *(max(o[0] - box[2], box[0] - o[2], o[1] - box[3], box[1] - o[3]) for o in others)])
