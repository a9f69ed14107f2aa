"""OpenPose pictures: a layout's people as stick figures on black, as pose ControlNets read them.

Colours, order of the limbs, and widths are those of the pictures that the ControlNets for Stable Diffusion 1.5 and SDXL
were trained with: limbs are ellipses at 0.6 of their colour, joints are discs at full colour in front of them.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ..errors import LayoutError
from ..palettes import RGB
from .layout import Layout
from .pose import JOINTS, LIMBS, MIN_CONFIDENCE

# Of the joints in their order; of the limbs in theirs, darkened. The hues run once around the circle.
COLOURS: tuple[RGB, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
LIMB_BRIGHTNESS = 0.6
STICK = 4.5 / 512  # half a limb's width and a joint's radius: a pixel and 4 around it, where the shorter side is 512


def draw_pose(layout: Layout, size: tuple[int, int]) -> Image.Image:
    """The seen keypoints of all objects as an RGB picture of `size` (width, height) pixels; what is outside is cut.

    Objects without keypoints are left out. Raises LayoutError if no object has any, or if one has others than
    OpenPose's 18.
    """
    people = [item for item in layout.objects if item.keypoints]
    if not people:
        raise LayoutError(
            "layout: none of its objects has keypoints, and an OpenPose picture shows nothing else: take a layout from "
            "keypoints, or another kind of picture"
        )
    for item in people:
        if len(item.keypoints) != JOINTS:
            raise LayoutError(f"layout: {item.phrase!r} has {len(item.keypoints)} keypoints, OpenPose's are {JOINTS}")
    width, height = size
    stick = max(1.0, STICK * min(size))
    points = [[(x * width, y * height) for x, y, _ in item.keypoints] for item in people]
    seen = [[c > MIN_CONFIDENCE for *_, c in item.keypoints] for item in people]

    picture = np.zeros((height, width, 3), np.uint8)
    for colour, (a, b) in zip(COLOURS, LIMBS, strict=False):  # there is one limb less
        for person, visible in zip(points, seen, strict=True):
            if visible[a] and visible[b]:
                _fill_ellipse(picture, person[a], person[b], stick, [int(LIMB_BRIGHTNESS * c) for c in colour])
    for joint, colour in enumerate(COLOURS):
        for person, visible in zip(points, seen, strict=True):
            if visible[joint]:
                _fill_ellipse(picture, person[joint], person[joint], stick, colour)
    return Image.fromarray(picture)


def _fill_ellipse(picture: np.ndarray, start: tuple, end: tuple, radius: float, colour: RGB | list[int]) -> None:
    """Fills the pixels whose centres lie in the ellipse from `start` to `end` with half-width `radius`.

    Where both are one point it is a disc.
    """
    (x0, y0), (x1, y1) = start, end
    along = max(math.hypot(x1 - x0, y1 - y0) / 2, radius if start == end else 0.5)
    reach = max(along, radius)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    rows, columns = (_pixels(c, reach, side) for c, side in zip((y, x), picture.shape[:2], strict=True))
    right, down = np.arange(columns.start, columns.stop) + 0.5 - x, np.arange(rows.start, rows.stop)[:, None] + 0.5 - y
    angle = math.atan2(y1 - y0, x1 - x0)
    forward = right * math.cos(angle) + down * math.sin(angle)
    aside = down * math.cos(angle) - right * math.sin(angle)
    picture[rows, columns][(forward / along) ** 2 + (aside / radius) ** 2 <= 1] = colour


def _pixels(centre: float, reach: float, side: int) -> slice:
    """The pixels of 0..side that lie at most `reach` from `centre`; none if that is outside."""
    first, last = (min(max(edge, 0), side) for edge in (centre - reach, centre + reach))
    return slice(math.floor(first), math.ceil(last))
