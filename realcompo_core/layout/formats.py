"""Layouts from and to the types that ComfyUI nodes exchange.

Every `from_…` function returns a validated layout. Its `phrases` are one per object, or a single one for all objects.
Its keyword arguments `**scene` are the layout's `prompt`, `background` and `negative`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from reprlib import repr as short

import numpy as np

from ..errors import (
    BoxOutsideError,
    EmptyMaskError,
    EmptyPhraseError,
    LayoutFormatError,
    MaskShapeError,
    PhraseCountError,
)
from .layout import Box, Layout, LayoutObject

ELEMENT_GRID = 1000  # coordinates of `elements` are in thousandths of the picture
OVERSHOOT = 0.02  # boxes of detectors and drag canvases may end a few pixels outside the picture
MEASURED = "width and height must be those of the picture that the boxes are measured in"
IN_THOUSANDTHS = f"a bbox is [ymin, xmin, ymax, xmax] in thousandths of the picture, up to {ELEMENT_GRID}"
KEPT = 0.5  # share of a box that must lie in the picture


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
    are cut at the border; the layout's warnings tell of those that reach beyond it by more than 2 %, and that there are
    none. Raises BoxOutsideError for a box of which more than half lies outside.
    """
    boxes = _boxes_of_image(boxes, image)
    if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
        raise LayoutFormatError(f"boxes: {short(boxes)}, expected a list of {{x, y, width, height}}")
    if not boxes:
        return _empty("boxes", scene)
    if phrases is None:
        phrases = [_label(box, f"boxes[{i}]") for i, box in enumerate(boxes)]
    phrases = one_phrase_each(phrases, len(boxes), "boxes")
    objects, warnings = [], []
    for i, (box, phrase) in enumerate(zip(boxes, phrases, strict=True)):
        x, y, w, h = (number(box, key, f"boxes[{i}]") for key in ("x", "y", "width", "height"))
        whole = (x / width, y / height, (x + w) / width, (y + h) / height)
        cut = _cut(whole, f"boxes[{i}] ({short(phrase)})", f"the {width}x{height} picture", MEASURED, warnings)
        objects.append(LayoutObject(phrase, cut))
    return Layout(tuple(objects), **scene, warnings=tuple(warnings)).validate()


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
    phrase is its `desc`, or its `text` if it has no `desc`. They are cut at the border as in `from_bounding_boxes`.
    """
    if isinstance(elements, str):
        elements = parsed_json(elements, "elements")
    if isinstance(elements, dict):
        elements = elements.get("elements")
    if not isinstance(elements, list):
        raise LayoutFormatError(f'elements: {short(elements)}, expected a list or {{"elements": […]}}')
    if not elements:
        return _empty("elements", scene)
    warnings: list[str] = []
    boxes = [_box_of_element(element, f"elements[{i}]", warnings) for i, element in enumerate(elements)]
    if phrases is None:
        phrases = [_description(element, f"elements[{i}]") for i, element in enumerate(elements)]
    else:
        phrases = one_phrase_each(phrases, len(boxes), "elements")
    return Layout(tuple(map(LayoutObject, phrases, boxes)), **scene, warnings=tuple(warnings)).validate()


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
        data = parsed_json(data, "boxes")
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


def from_masks(masks: np.ndarray | Sequence[np.ndarray], phrases: str | Sequence[str], **scene: str) -> Layout:
    """A layout from masks, > 0.5 inside: a batch (objects, height, width), one (height, width), or a list of these.

    A batch may have a channel, (objects, 1, height, width). Each object gets its mask and the box around it. Raises
    MaskShapeError if there is no mask or the masks differ in size.
    """
    batch = _mask_batch(masks)
    phrases = one_phrase_each(phrases, len(batch), "masks")
    objects = (
        LayoutObject(phrase, box_around(mask, phrase), mask) for mask, phrase in zip(batch, phrases, strict=True)
    )
    return Layout(tuple(objects), **scene).validate()


def split_phrases(text: str) -> list[str]:
    """The phrases that a user wrote one a line, or separated by commas on a single line."""
    lines = text.strip().split("\n")
    return [phrase.strip() for phrase in (lines if len(lines) > 1 else text.split(",")) if phrase.strip()]


def _boxes_of_image(boxes: dict | list | None, image: int) -> list[dict]:
    if isinstance(boxes, list) and not all(isinstance(box, dict) for box in boxes):
        boxes = boxes[image] if image < len(boxes) else None
    return [boxes] if isinstance(boxes, dict) else boxes or []


def parsed_json(text: str, name: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutFormatError(f"{name}: the text is no JSON ({error}): {short(text)}") from error


def _box_of_element(element: dict, path: str, warnings: list[str]) -> Box:
    bbox = element.get("bbox") if isinstance(element, dict) else None
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        raise LayoutFormatError(f"{path}: {short(element)}, expected a bbox [ymin, xmin, ymax, xmax]")
    y0, x0, y1, x1 = (number(bbox, corner, f"{path}.bbox") / ELEMENT_GRID for corner in range(4))
    return _cut((x0, y0, x1, y1), path, "the picture", IN_THOUSANDTHS, warnings)


def _description(element: dict, path: str) -> str:
    phrase = element.get("desc") or element.get("text")
    if not isinstance(phrase, str):
        raise EmptyPhraseError(f"{path}: no desc in {short(element)}, describe what is in the box")
    return phrase


def _label(box: dict, path: str) -> str:
    label = label_of(box)
    if not label:
        raise EmptyPhraseError(f"{path}: neither label nor metadata.desc in {short(box)}, give phrases")
    return label


def one_phrase_each(phrases: str | Sequence[str], count: int, what: str) -> list[str]:
    phrases = [phrases] if isinstance(phrases, str) else list(phrases)
    if len(phrases) == 1:
        return phrases * count
    if len(phrases) != count:
        raise PhraseCountError(f"{count} {what} but {len(phrases)} phrases {phrases}: give one each, or one for all")
    return phrases


def label_of(box: Mapping) -> str | None:
    """What a box says that it holds: its `label`, `metadata.desc` or `metadata.text`."""
    metadata = box.get("metadata") or {}
    return box.get("label") or metadata.get("desc") or metadata.get("text")


def number(holder: dict | Sequence, key: str | int, path: str) -> float:
    try:
        return float(holder[key])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LayoutFormatError(f"{path}: {key} is missing or no number in {short(holder)}") from error


def _cut(box: Box, name: str, picture: str, measure: str, warnings: list[str]) -> Box:
    """The part of the box that is in the picture. Adds a warning if that is much less than all of it.

    Raises BoxOutsideError for a box that is mostly outside: it is measured in another picture. What is no box stays as
    it is, for validation to refuse.
    """
    if not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
        return box
    cut = tuple(min(max(edge, 0.0), 1.0) for edge in box)
    kept = math.prod((cut[i + 2] - cut[i]) / (box[i + 2] - box[i]) for i in range(2))
    if kept < KEPT:
        raise BoxOutsideError(f"{name}: {1 - kept:.0%} of it lie outside {picture}: {measure}")
    if max(-min(box), max(box) - 1) > OVERSHOOT:
        warnings.append(f"{name} reaches outside {picture}, and was cut at the border")
    return cut


def _empty(what: str, scene: Mapping[str, str]) -> Layout:
    """A layout without objects, which says so where its prompt may name some."""
    told = (f"there are no {what}: the layout has no objects, and the fidelity branch works alone",)
    return Layout(**scene, warnings=told if scene.get("prompt") else ())


def _on_grid(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole cells of a width × height grid, at least one cell in size."""
    x0, y0 = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    return x0, y0, max(round(box[2] * width), x0 + 1), max(round(box[3] * height), y0 + 1)


def _mask_batch(masks: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """The masks as (objects, height, width)."""
    shapes = [np.shape(mask)[-2:] for mask in masks] if isinstance(masks, Sequence) else []
    if len(set(shapes)) > 1:
        raise MaskShapeError(f"masks of different sizes (height, width) {shapes}: resize them to one")
    batch = np.asarray(masks)
    if batch.ndim == 2:
        batch = batch[None]
    if batch.ndim == 4 and 1 in batch.shape[:2]:
        batch = batch.reshape(-1, *batch.shape[2:])
    if batch.ndim != 3 or not batch.size:
        raise MaskShapeError(f"masks of shape {np.shape(masks)}, expected (objects, height, width) with at least one")
    return batch


def box_around(mask: np.ndarray, phrase: str) -> Box:
    inside = mask > 0.5
    if not inside.any():
        raise EmptyMaskError(f"the mask of {phrase!r} has nothing inside: leave the phrase out or mark its region")
    height, width = mask.shape
    rows, columns = (np.flatnonzero(inside.any(axis)).tolist() for axis in (1, 0))
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
