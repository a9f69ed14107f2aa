"""Layouts from and to the types that ComfyUI nodes exchange.

Every `from_…` function returns a validated layout. Its `phrases` are one per object, or a single one for all objects.
Its keyword arguments `**scene` are the layout's `prompt`, `background` and `negative`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from reprlib import repr as short

import numpy as np

from ..errors import (
    EmptyBoxError,
    EmptyMaskError,
    EmptyPhraseError,
    LayoutFormatError,
    MaskShapeError,
    PhraseCountError,
)
from .layout import Box, Layout, LayoutObject
from .pose import MARGIN, MIN_CONFIDENCE

ELEMENT_GRID = 1000  # coordinates of `elements` are in thousandths of the picture
OVERSHOOT = 0.02  # boxes of detectors and drag canvases may end a few pixels outside the picture


def from_bounding_boxes(
    boxes: dict | list | None,
    phrases: str | Sequence[str] | None = None,
    *,
    width: int,
    height: int,
    image: int = 0,
    **scene: str,
) -> Layout:
    """A layout from BOUNDING_BOX: `{x, y, width, height}` in pixels of a `width` × `height` picture.

    `boxes` is one box, the boxes of one picture, or a list per image, of which `image` is taken. An image without boxes
    gives an empty layout. Without `phrases`, a box's phrase is its `label`, `metadata.desc` or `metadata.text`. Boxes
    are cut at the border if they reach beyond it by at most 2 %.
    """
    boxes = _boxes_of_image(boxes, image)
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        raise LayoutFormatError(f"boxes: {short(boxes)}, expected a list of {{x, y, width, height}}")
    if not boxes:
        return Layout(**scene)
    if phrases is None:
        phrases = [_label(box, f"boxes[{i}]") for i, box in enumerate(boxes)]
    objects = []
    for i, (box, phrase) in enumerate(zip(boxes, _one_phrase_each(phrases, len(boxes), "boxes"), strict=True)):
        x, y, w, h = (_number(box, key, f"boxes[{i}]") for key in ("x", "y", "width", "height"))
        objects.append(LayoutObject(phrase, _cut((x / width, y / height, (x + w) / width, (y + h) / height))))
    return Layout(tuple(objects), **scene).validate()


def to_bounding_boxes(layout: Layout, width: int, height: int) -> list[dict]:
    """The objects as BOUNDING_BOX in whole pixels, at least 1 × 1; `label` and `metadata.desc` carry the phrase."""
    boxes = []
    for item in layout.objects:
        x0, y0, x1, y1 = _on_grid(item.box, width, height)
        metadata = {"type": "obj", "text": "", "desc": item.phrase, "palette": []}
        boxes.append(
            {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": item.phrase, "metadata": metadata}
        )
    return boxes


def from_elements(elements: list | dict | str, phrases: str | Sequence[str] | None = None, **scene: str) -> Layout:
    """A layout from elements `{type, bbox: [ymin, xmin, ymax, xmax] in thousandths, desc}`.

    `elements` is a list, a dict that holds it as "elements", or either as JSON text. Without `phrases`, an element's
    phrase is its `desc`, or its `text` if it has no `desc`.
    """
    if isinstance(elements, str):
        elements = _parsed(elements, "elements")
    if isinstance(elements, dict):
        elements = elements.get("elements")
    if not isinstance(elements, list):
        raise LayoutFormatError(f'elements: {short(elements)}, expected a list or {{"elements": […]}}')
    boxes = [_box_of_element(element, f"elements[{i}]") for i, element in enumerate(elements)]
    if phrases is None:
        phrases = [_description(element, f"elements[{i}]") for i, element in enumerate(elements)]
    elif boxes:
        phrases = _one_phrase_each(phrases, len(boxes), "elements")
    return Layout(tuple(map(LayoutObject, phrases, boxes)), **scene).validate()


def from_boxes_or_elements(
    data: dict | list | str | None,
    phrases: str | Sequence[str] | None = None,
    *,
    width: int,
    height: int,
    image: int = 0,
    **scene: str,
) -> Layout:
    """A layout from BOUNDING_BOX, elements, or the JSON text of either; see `from_bounding_boxes`, `from_elements`."""
    if isinstance(data, str):
        data = _parsed(data, "boxes")
    first = data[0] if isinstance(data, list) and data else data
    if isinstance(first, dict) and ("bbox" in first or "elements" in first):
        return from_elements(data, phrases, **scene)
    return from_bounding_boxes(data, phrases, width=width, height=height, image=image, **scene)


def to_elements(layout: Layout) -> list[dict]:
    """The objects as elements, see `from_elements`; whole thousandths, at least 1 × 1."""
    elements = []
    for item in layout.objects:
        x0, y0, x1, y1 = _on_grid(item.box, ELEMENT_GRID, ELEMENT_GRID)
        elements.append({"type": "obj", "bbox": [y0, x0, y1, x1], "desc": item.phrase})
    return elements


def from_masks(masks: np.ndarray, phrases: str | Sequence[str], **scene: str) -> Layout:
    """A layout from a (objects, height, width) array, > 0.5 inside. Each object gets its mask and the box around it."""
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise MaskShapeError(f"masks of shape {masks.shape}, expected (objects, height, width)")
    phrases = _one_phrase_each(phrases, len(masks), "masks")
    objects = (
        LayoutObject(phrase, _box_around(mask, phrase), mask) for mask, phrase in zip(masks, phrases, strict=True)
    )
    return Layout(tuple(objects), **scene).validate()


def from_pose_keypoints(
    pose: dict | list[dict],
    phrases: str | Sequence[str],
    *,
    image: int = 0,
    min_confidence: float = MIN_CONFIDENCE,
    **scene: str,
) -> Layout:
    """A layout from POSE_KEYPOINT, one object per person of image `image`.

    `pose` lists `{canvas_width, canvas_height, people: [{pose_keypoints_2d: [x, y, confidence, …]}]}`, coordinates in
    pixels or as shares of the canvas. Keypoints above `min_confidence` count as seen. Their extent, padded by a tenth
    of its longer side, is the person's box; their neighbourhood is the region (`regions.KeypointRegion`). The
    layout counts keypoints above `MIN_CONFIDENCE` as seen: where `min_confidence` decides otherwise about a keypoint,
    its confidence becomes 1 or 0.
    """
    frames = [pose] if isinstance(pose, dict) else pose
    if image >= len(frames):
        raise LayoutFormatError(f"pose: no image {image} among {len(frames)}")
    frame = frames[image]
    people = frame.get("people")
    if not isinstance(people, list):
        raise LayoutFormatError(f"pose[{image}].people: {short(people)}, expected a list")
    poses = [_triples(person, f"pose[{image}].people[{i}]") for i, person in enumerate(people)]
    canvas = tuple(_number(frame, f"canvas_{side}", f"pose[{image}]") for side in ("width", "height"))
    # Some nodes write shares of the canvas. No pose in pixels lies within 2 pixels of the corner; a share may pass 1.
    seen = [abs(coordinate) for points in poses for x, y, c in points if c > min_confidence for coordinate in (x, y)]
    scale = canvas if max(seen, default=0) > 2 else (1, 1)
    poses = [
        tuple((x / scale[0], y / scale[1], _confidence(c, min_confidence)) for x, y, c in points) for points in poses
    ]
    phrases = _one_phrase_each(phrases, len(poses), "people")
    objects = []
    for i, (points, phrase) in enumerate(zip(poses, phrases, strict=True)):
        confident = [(x, y) for x, y, c in points if c > MIN_CONFIDENCE]
        if len(confident) < 2:
            raise EmptyBoxError(
                f"people[{i}] ({phrase}): {len(confident)} keypoints above confidence {min_confidence}, "
                "a box needs 2: remove the person or lower min_confidence"
            )
        objects.append(LayoutObject(phrase, _box_of_pose(confident, canvas), keypoints=points))
    return Layout(tuple(objects), **scene).validate()


def split_phrases(text: str) -> list[str]:
    """The phrases that a user wrote one a line, or separated by commas on a single line."""
    lines = text.strip().split("\n")
    return [phrase.strip() for phrase in (lines if len(lines) > 1 else text.split(",")) if phrase.strip()]


def _boxes_of_image(boxes: dict | list | None, image: int) -> list[dict]:
    if isinstance(boxes, list) and not all(isinstance(box, dict) for box in boxes):
        boxes = boxes[image] if image < len(boxes) else None
    return [boxes] if isinstance(boxes, dict) else boxes or []


def _parsed(text: str, name: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutFormatError(f"{name}: the text is no JSON ({error}): {short(text)}") from error


def _box_of_element(element: dict, path: str) -> Box:
    bbox = element.get("bbox") if isinstance(element, dict) else None
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        raise LayoutFormatError(f"{path}: {short(element)}, expected a bbox [ymin, xmin, ymax, xmax]")
    y0, x0, y1, x1 = (_number(bbox, corner, f"{path}.bbox") / ELEMENT_GRID for corner in range(4))
    return _cut((x0, y0, x1, y1))


def _description(element: dict, path: str) -> str:
    phrase = element.get("desc") or element.get("text")
    if not isinstance(phrase, str):
        raise EmptyPhraseError(f"{path}: no desc in {short(element)}, describe what is in the box")
    return phrase


def _label(box: dict, path: str) -> str:
    metadata = box.get("metadata") or {}
    label = box.get("label") or metadata.get("desc") or metadata.get("text")
    if not label:
        raise EmptyPhraseError(f"{path}: neither label nor metadata.desc in {short(box)}, give phrases")
    return label


def _one_phrase_each(phrases: str | Sequence[str], count: int, what: str) -> list[str]:
    phrases = [phrases] if isinstance(phrases, str) else list(phrases)
    if len(phrases) == 1:
        return phrases * count
    if len(phrases) != count:
        raise PhraseCountError(f"{count} {what} but {len(phrases)} phrases {phrases}: give one each, or one for all")
    return phrases


def _number(holder: dict | Sequence, key: str | int, path: str) -> float:
    try:
        return float(holder[key])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LayoutFormatError(f"{path}: {key} is missing or no number in {short(holder)}") from error


def _cut(box: Box) -> Box:
    """Moves edges a little outside the picture onto its border. Edges farther outside stay: validation refuses them."""
    return tuple(min(max(v, 0.0), 1.0) if -OVERSHOOT <= v <= 1 + OVERSHOOT else v for v in box)


def _on_grid(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole cells of a width × height grid, at least one cell in size."""
    x0, y0 = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    return x0, y0, max(round(box[2] * width), x0 + 1), max(round(box[3] * height), y0 + 1)


def _box_around(mask: np.ndarray, phrase: str) -> Box:
    inside = mask > 0.5
    if not inside.any():
        raise EmptyMaskError(f"the mask of {phrase!r} has nothing inside: leave the phrase out or mark its region")
    height, width = mask.shape
    rows, columns = (np.flatnonzero(inside.any(axis)).tolist() for axis in (1, 0))
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _triples(person: dict, path: str) -> tuple[tuple[float, float, float], ...]:
    values = person.get("pose_keypoints_2d") or []
    if len(values) % 3:
        raise LayoutFormatError(f"{path}.pose_keypoints_2d: {len(values)} numbers, expected x, y, confidence in turn")
    numbers = [_number(values, i, f"{path}.pose_keypoints_2d") for i in range(len(values))]
    return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _confidence(given: float, threshold: float) -> float:
    """`given`, or 1 or 0 if it is above only one of `threshold` and `MIN_CONFIDENCE`."""
    seen = given > threshold
    return given if seen == (given > MIN_CONFIDENCE) else float(seen)


def _box_of_pose(points: list[tuple[float, float]], canvas: tuple[float, float]) -> Box:
    """Extent of normalised points, padded by the same number of canvas pixels on all sides, cut at the border."""
    lows, highs = zip(*((min(axis), max(axis)) for axis in zip(*points, strict=True)), strict=True)
    padding = MARGIN * max((high - low) * side for low, high, side in zip(lows, highs, canvas, strict=True))
    x0, y0 = (max(low - padding / side, 0.0) for low, side in zip(lows, canvas, strict=True))
    x1, y1 = (min(high + padding / side, 1.0) for high, side in zip(highs, canvas, strict=True))
    return x0, y0, x1, y1
