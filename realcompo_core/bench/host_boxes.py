"""Boxes of ComfyUI's detectors (BOUNDING_BOX) as what a benchmark sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as short
from typing import Any

from ..errors import RealCompoError
from ..layout.formats import label_of, number
from ..text.words import singular, split_words
from .seen import Detection, Seen

CERTAIN = 1.0  # the score of a box that has none
ARTICLES = ("a", "an", "the")


def without_article(name: str) -> str:
    first, _, rest = name.strip().partition(" ")
    return rest.strip() if rest and first.lower() in ARTICLES else name.strip()


def class_key(name: str) -> str:
    """What all names of one class share: "a wine glass", "Wine glasses" and "wine_glass" have "wine glass"."""
    plain = without_article(name)
    return " ".join(singular(word.text) for word in split_words(plain)) or plain.casefold()


def seen_in_boxes(boxes: Any, names: Iterable[str], pictures: int, width: int, height: int) -> list[Seen]:
    """What is seen in each of a batch of `pictures`, all of `width` × `height` pixels.

    boxes: `{x, y, width, height, label, score}` in pixels, a list of them for each picture; of a single picture also
    one list, or one box. The label may be in `metadata.desc` or `metadata.text` too. A box without a score is certain.
    A label gives a detection the name of its class in `names`, and its own where it is none of them. Raises
    RealCompoError.
    """
    known = {class_key(name): name for name in names}
    return [
        Seen(width, height, tuple(_detection(box, known, f"box {i} of picture {b}") for i, box in enumerate(own)))
        for b, own in enumerate(_for_each_picture(boxes, pictures))
    ]


def _for_each_picture(boxes: Any, pictures: int) -> list[Sequence[Any]]:
    if isinstance(boxes, Mapping):
        boxes = [boxes]
    if not isinstance(boxes, list | tuple):
        raise RealCompoError(f"boxes: {short(boxes)}, expected a list of {{x, y, width, height, label}} a picture")
    if all(isinstance(box, Mapping) for box in boxes):
        if pictures != 1:
            raise RealCompoError(
                f"boxes: one list of {len(boxes)} for {pictures} pictures: it does not say which box is in which. "
                "Connect a detector that gives a list for each picture of the batch"
            )
        return [boxes]
    if len(boxes) != pictures:
        raise RealCompoError(
            f"boxes: of {len(boxes)} pictures, and image has {pictures}: connect the pictures that the boxes were "
            "found in"
        )
    return [[own] if isinstance(own, Mapping) else own or [] for own in boxes]


def _detection(box: Any, known: Mapping[str, str], where: str) -> Detection:
    if not isinstance(box, Mapping):
        raise RealCompoError(f"boxes: {where} is {short(box)}, expected {{x, y, width, height, label}}")
    label = label_of(box)
    if not isinstance(label, str) or not label.strip():
        raise RealCompoError(
            f"boxes: {where} has no label: {short(box)}. Names are compared with labels, and SAM3 Detect and Create "
            "Bounding Boxes, for example, give none: connect a detector that does, such as RT-DETR"
        )
    path = f"boxes: {where}"
    x, y, w, h = (number(box, key, path) for key in ("x", "y", "width", "height"))
    score = CERTAIN if box.get("score") is None else number(box, "score", path)
    if not all(map(math.isfinite, (x, y, w, h, score))):
        raise RealCompoError(f"{path} has a number that is not finite: {short(box)}")
    if not 0 <= score <= 1:
        raise RealCompoError(f"{path} has the score {score:g}: expected 0 to 1")
    return Detection(known.get(class_key(label), label.strip()), (x, y, x + w, y + h), score)
