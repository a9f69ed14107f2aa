"""Layout: which objects are in the picture, and where."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

import numpy as np

from ..errors import (
    BoxOutsideError,
    EmptyBoxError,
    EmptyMaskError,
    EmptyPhraseError,
    LayoutFormatError,
    MaskShapeError,
    NotFiniteError,
    TooManyObjectsError,
)
from ..text.words import match_phrases

MAX_OBJECTS = 30  # what GLIGEN was trained with
MAX_MASK_SIDE = 8192  # so that a few bytes of run lengths cannot ask for gigabytes
BOX_TOLERANCE = 1e-6  # float32 boxes that touch the border overshoot 0..1 by rounding
VERSION = 1
REGIONS = ("shape", "box")  # what an object's region may be made of

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class LayoutObject:
    """One object: its phrase and its place.

    `box` is (x0, y0, x1, y1), normalised to 0..1, y down. `mask` is an optional (height, width) array, > 0.5 inside.
    `keypoints` are optional (x, y, confidence) triples, x and y normalised; they may lie outside the picture. All that
    is given is kept. With the `region` "shape", `regions.region_of` takes the mask, else the keypoints, else the box;
    with "box" it takes the box. GLIGEN always takes the box.
    """

    phrase: str
    box: Box
    mask: np.ndarray | None = None
    keypoints: tuple[tuple[float, float, float], ...] = ()
    region: str = "shape"


@dataclass(frozen=True, eq=False)
class Layout:
    """Objects, a phrase for the background, a phrase for what must be absent, and the prompt that the layout is for.

    `warnings` say, a sentence each, what whoever made the layout assumed or left out.
    """

    objects: tuple[LayoutObject, ...] = ()
    background: str = ""
    negative: str = ""
    prompt: str = ""
    warnings: tuple[str, ...] = ()

    def validate(self, prompt: str | None = None) -> Layout:
        """Returns the layout itself. Raises the `LayoutError` that says what is wrong with it.

        With `prompt`, every phrase must occur in it (`PhraseNotInPromptError`). A layout without objects is valid.
        """
        if len(self.objects) > MAX_OBJECTS:
            raise TooManyObjectsError(
                f"{len(self.objects)} objects, {MAX_OBJECTS} are possible: remove some or join them into one phrase"
            )
        for index, item in enumerate(self.objects):
            _check_object(item, f"objects[{index}] ({short(item.phrase)})")
        shapes = {item.mask.shape for item in self.objects if item.mask is not None}
        if len(shapes) > 1:
            raise MaskShapeError(f"masks of different shapes {sorted(shapes)}: resize them to one (height, width)")
        if prompt is not None:
            match_phrases([item.phrase for item in self.objects], prompt)
        return self

    def to_dict(self) -> dict:
        """The layout as JSON data that `layout.schema.json` describes. Masks become binary (> 0.5)."""
        self.validate()
        data = {
            "version": VERSION,
            "prompt": self.prompt,
            "background": self.background,
            "negative": self.negative,
            "objects": [_object_to_dict(item) for item in self.objects],
        }
        return data | ({"warnings": list(self.warnings)} if self.warnings else {})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: dict) -> Layout:
        """The layout that `to_dict` wrote, validated. Raises `LayoutFormatError`, which names the field at fault."""
        optional = ("prompt", "background", "negative", "warnings")
        _check_fields(data, "layout", required=("version", "objects"), optional=optional)
        if type(data["version"]) is not int or data["version"] != VERSION:
            raise LayoutFormatError(f"layout.version: {short(data['version'])}, this release reads version {VERSION}")
        objects = _typed(data["objects"], list, "layout.objects")
        warnings = _typed(data.get("warnings", []), list, "layout.warnings")
        return cls(
            objects=tuple(_object_from_dict(item, f"layout.objects[{i}]") for i, item in enumerate(objects)),
            background=_typed(data.get("background", ""), str, "layout.background"),
            negative=_typed(data.get("negative", ""), str, "layout.negative"),
            prompt=_typed(data.get("prompt", ""), str, "layout.prompt"),
            warnings=tuple(_typed(warning, str, f"layout.warnings[{i}]") for i, warning in enumerate(warnings)),
        ).validate()

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The layout that `to_json` wrote; raises as `from_dict`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LayoutFormatError(f"not a layout, the text is no JSON ({error}): {short(text)}") from error
        return cls.from_dict(data)


def layout_schema() -> dict:
    """The JSON Schema (draft 2020-12) of `Layout.to_dict`."""
    return json.loads(Path(__file__).with_name("layout.schema.json").read_text(encoding="utf-8"))


def _check_object(item: LayoutObject, name: str) -> None:
    if not item.phrase.strip():
        raise EmptyPhraseError(f"{name}: the phrase is empty, say what is in box {item.box}")

    if not all(map(math.isfinite, item.box)):
        raise NotFiniteError(f"{name}: box {item.box} is not finite")
    if min(item.box) < -BOX_TOLERANCE or max(item.box) > 1 + BOX_TOLERANCE:
        raise BoxOutsideError(
            f"{name}: box {item.box} reaches outside 0..1; divide pixels by the picture's width and height"
        )
    x0, y0, x1, y1 = item.box
    if x1 <= x0 or y1 <= y0:
        raise EmptyBoxError(f"{name}: box {item.box} has no area; the order is x0, y0, x1, y1 with x0 < x1, y0 < y1")

    if item.region not in REGIONS:
        raise LayoutFormatError(f"{name}: region {short(item.region)}, expected {' or '.join(map(repr, REGIONS))}")

    for point in item.keypoints:
        if not all(map(math.isfinite, point)):
            raise NotFiniteError(f"{name}: keypoint {point} is not finite")

    if item.mask is None:
        return
    if item.mask.ndim != 2:
        raise MaskShapeError(f"{name}: mask of shape {item.mask.shape}, a mask is (height, width)")
    if max(item.mask.shape) > MAX_MASK_SIDE:
        raise MaskShapeError(f"{name}: mask of shape {item.mask.shape}, the longest side possible is {MAX_MASK_SIDE}")
    if not np.isfinite(item.mask).all():
        raise NotFiniteError(f"{name}: the mask holds NaN or infinity")
    if not (item.mask > 0.5).any():
        raise EmptyMaskError(f"{name}: the mask has nothing inside, no value is above 0.5")


def _object_to_dict(item: LayoutObject) -> dict:
    data = {"phrase": item.phrase, "box": [float(value) for value in item.box]}
    if item.mask is not None:
        data["mask"] = {"size": list(item.mask.shape), "runs": _runs(item.mask > 0.5)}
    if item.keypoints:
        data["keypoints"] = [[float(value) for value in point] for point in item.keypoints]
    if item.region != "shape":
        data["region"] = item.region
    return data


def _object_from_dict(data: dict, path: str) -> LayoutObject:
    _check_fields(data, path, required=("phrase", "box"), optional=("mask", "keypoints", "region"))
    keypoints = _typed(data.get("keypoints", []), list, f"{path}.keypoints")
    return LayoutObject(
        phrase=_typed(data["phrase"], str, f"{path}.phrase"),
        box=_numbers(data["box"], 4, f"{path}.box"),
        mask=_mask_from_dict(data["mask"], f"{path}.mask") if "mask" in data else None,
        keypoints=tuple(_numbers(point, 3, f"{path}.keypoints[{i}]") for i, point in enumerate(keypoints)),
        region=_typed(data.get("region", "shape"), str, f"{path}.region"),
    )


def _runs(inside: np.ndarray) -> list[int]:
    """Row-major run lengths of a bool array: outside, inside, outside, … (the first may be 0)."""
    changes = np.flatnonzero(np.diff(inside.ravel(), prepend=False))
    return np.diff(changes, prepend=0, append=inside.size).tolist()


def _mask_from_dict(data: dict, path: str) -> np.ndarray:
    _check_fields(data, path, required=("size", "runs"))
    size = _typed(data["size"], list, f"{path}.size")
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= MAX_MASK_SIDE for side in size):
        raise LayoutFormatError(f"{path}.size: {short(size)}, expected [height, width] of 1..{MAX_MASK_SIDE}")
    runs = _typed(data["runs"], list, f"{path}.runs")
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise LayoutFormatError(f"{path}.runs: {short(runs)}, expected whole numbers >= 0 of sum {size[0] * size[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def _check_fields(data: dict, path: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    _typed(data, dict, path)
    for field in required:
        if field not in data:
            raise LayoutFormatError(f"{path}.{field} is missing from {short(data)}")
    for field in data:
        if field not in required + optional:
            raise LayoutFormatError(f"{path}: unknown field {short(field)}, known are {', '.join(required + optional)}")


def _typed(value, kind: type, path: str):
    if not isinstance(value, kind):
        json_name = {dict: "an object", list: "an array", str: "a string"}[kind]
        raise LayoutFormatError(f"{path}: {short(value)}, expected {json_name}")
    return value


def _numbers(value, count: int, path: str) -> tuple[float, ...]:
    try:
        if len(value) == count and all(type(number) in (int, float) for number in _typed(value, list, path)):
            return tuple(float(number) for number in value)
    except (TypeError, OverflowError):
        pass
    raise LayoutFormatError(f"{path}: {short(value)}, expected {count} numbers")
