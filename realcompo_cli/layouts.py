"""Layouts from files of keypoints and segmentations, and layouts as pictures for ControlNets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from realcompo_core.errors import LayoutFormatError
from realcompo_core.layout import Layout
from realcompo_core.layout.formats import split_phrases
from realcompo_core.layout.keypoints import from_pose_keypoints, parse_people
from realcompo_core.layout.openpose_picture import draw_pose
from realcompo_core.layout.segmentation import ADE20K, draw_segmentation, from_colour_map, parse_classes, parse_phrases
from shapescenes.palette import PALETTE

__all__ = ["draw_pose", "is_picture", "of_keypoints", "of_segmentation", "segmentation"]

PALETTES = {"ADE20K": ADE20K, "ShapeScenes": PALETTE}


def is_picture(path: Path) -> bool:
    return path.suffix.lower() != ".json"


def of_keypoints(path: Path, prompt: str, phrases: str, people: str, region: str, canvas: tuple[int, int]) -> Layout:
    """The people in a JSON file. `canvas` is (0, 0) if the file says it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutFormatError(f"cannot read the keypoints {path}: {error}") from error
    width, height = canvas
    named, chosen = split_phrases(phrases), parse_people(people)
    layout = from_pose_keypoints(text, named, people=chosen, region=region, width=width, height=height, prompt=prompt)
    return layout.validate(prompt)


def of_segmentation(path: Path, prompt: str, phrases: str, palette: str) -> Layout:
    """The classes of a segmentation picture that `phrases` name."""
    try:
        picture = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, ValueError) as error:
        raise LayoutFormatError(f"cannot read the segmentation {path}: {error}. Keypoints end in .json") from error
    named, classes = parse_phrases(phrases)
    return from_colour_map(picture, PALETTES[palette], named, classes=classes, prompt=prompt).validate(prompt)


def segmentation(layout: Layout, palette: str, classes: str, size: tuple[int, int]) -> Image.Image:
    """The layout in the palette's colours; `classes` are those of phrases that it does not know."""
    return draw_segmentation(layout, PALETTES[palette], size, parse_classes(classes))
