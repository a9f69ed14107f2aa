"""Objects as a reply writes them: a phrase and four numbers, whose order and unit their keys may name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import LayoutFormatError, NotFiniteError

# Keys are compared in lower case, without what is neither letter nor digit: "Bounding_Box" is "boundingbox".
PHRASE_KEYS = (
    "phrase label name object objectname desc description caption class classname category entity item element text"
).split()
BOX_KEY = re.compile(r"(?:bounding|b)?box(?:es)?(?:2d)?(?:norm|normali[sz]ed|pixels)?(?P<order>xyxy|xywh|yxyx)?")
WEAK_BOX_KEYS = frozenset("position location coordinates coords region area rect rectangle bounds geometry".split())
PARTS = WEAK_BOX_KEYS | {"size", "dimensions", "origin"}  # {"position": {"x": 1, "y": 2}, "size": {…}}
BOX_LISTS = frozenset(("boxes", "bboxes", "boundingboxes"))

_STARTS = {"x": "y", "left": "top", "xmin": "ymin", "minx": "miny", "x0": "y0", "x1": "y1", "l": "t"}
NAMED_ORDERS: dict[tuple[str, ...], str] = {
    **{(x, y, w, h): "xywh" for x, y in _STARTS.items() for w, h in (("width", "height"), ("w", "h"))},
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("minx", "miny", "maxx", "maxy"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("l", "t", "r", "b"): "xyxy",
    **{
        (x, y, w, h): "cxcywh"
        for x, y in (("cx", "cy"), ("xcenter", "ycenter"), ("centerx", "centery"))
        for w, h in (("width", "height"), ("w", "h"))
    },
}
STATED_ORDERS = NAMED_ORDERS | {
    ("y0", "x0", "y1", "x1"): "yxyx",
    ("y1", "x1", "y2", "x2"): "yxyx",
    ("ymin", "xmin", "ymax", "xmax"): "yxyx",
    ("miny", "minx", "maxy", "maxx"): "yxyx",
    ("top", "left", "bottom", "right"): "yxyx",
}
"""What the four names of a box say about the order of its numbers."""

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
MEASURE = re.compile(rf"\s*(?P<number>{NUMBER}|[+-]?(?:nan|inf|infinity))\s*(?P<unit>%|px|pixels)?\s*", re.IGNORECASE)
BOX_TEXT = re.compile(rf"[\s\[\](){{}},;x]|{NUMBER}|%|px|pixels|to|-|–")
NAMED_NUMBER = re.compile(rf"([A-Za-z][\w-]{{0,15}})['\"]?\s{{0,3}}[:=]\s{{0,3}}({NUMBER})\s?(%|px\b)?")
_NAME = r"['\"]?([A-Za-z][\w-]{0,12})['\"]?"
STATEMENT = re.compile(
    rf"(?<![\w-])(?={_NAME}\s{{0,2}},\s{{0,2}}{_NAME}\s{{0,2}},\s{{0,2}}{_NAME}\s{{0,2}},\s{{0,2}}{_NAME})"
)
MARKUP = " \t\r*_`\"'“”‘’,"
UNITS = {"%": "%", "px": "px", "pixels": "px"}


@dataclass(frozen=True)
class Entry:
    """One object as the reply wrote it.

    `order` ("xyxy", "xywh", "cxcywh", "yxyx") and `unit` ("%", "px") are empty unless the entry itself names them.
    `style` is the way of writing: "own" (phrase and box), "tuple", "box_2d", "bbox_2d", "elements", "" for all others.
    """

    phrase: str
    box: tuple[float, ...]
    order: str = ""
    unit: str = ""
    style: str = ""

    def __str__(self) -> str:
        return f"object {self.phrase!r}, box {list(self.box)}{self.unit and f' in {self.unit}'}"


def plain(key: Any) -> str:
    """A key in lower case, without spaces, signs and a unit in brackets: "X-min (px)" is "xmin"."""
    key = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", str(key))
    return "".join(character for character in key.casefold() if character.isalnum())


def is_object(value: Any) -> bool:
    """Whether `value` means an object: it has a phrase and a box, right or wrong."""
    if isinstance(value, dict):
        keys = {plain(key): value[key] for key in value}
        return _phrase_key(keys) is not None and _box_key(keys) is not None
    if isinstance(value, list | tuple) and len(value) == 2:
        first, second = value
        return (isinstance(first, str) and isinstance(second, list | tuple)) or (
            isinstance(second, str) and _is_four_numbers(first)
        )
    return (
        isinstance(value, list | tuple)
        and len(value) == 5
        and isinstance(value[0], str)
        and _is_four_numbers(value[1:])
    )


def is_phrase_map(value: Any) -> bool:
    """Whether `value` maps phrases to boxes: {"a cat": [0.1, 0.2, 0.4, 0.8]}; texts and numbers may be beside."""
    if not isinstance(value, dict):
        return False
    boxes = _boxes_of_map(value)
    return bool(boxes) and all(
        not BOX_KEY.fullmatch(plain(key))
        and plain(key) not in WEAK_BOX_KEYS
        and plain(key) not in PHRASE_KEYS
        and (_is_box(box) or _is_box_list(box))
        for key, box in boxes.items()
    )


def entries_of(value: Any) -> Iterator[Entry]:
    """The entries of an object; several if it has several boxes. Raises LayoutFormatError or NotFiniteError."""
    if not is_object(value):
        raise LayoutFormatError(f"{shortened(value)} in the list of objects is no object with a phrase and a box")
    if not isinstance(value, dict):
        phrase, box = (value[0], value[1] if len(value) == 2 else value[1:])
        if not isinstance(phrase, str):
            phrase, box = box, phrase
        yield _entry(phrase, box, "tuple")
        return
    keys = {plain(key): value[key] for key in value}
    phrase_key, box_key = _phrase_key(keys), _box_key(keys)
    phrase = keys[phrase_key]
    if box_key == "":
        yield _entry(phrase, value, "")
    elif box_key in BOX_LISTS and _is_box_list(keys[box_key]):
        for box in keys[box_key]:
            yield _entry(phrase, box, "")
    else:
        named = BOX_KEY.fullmatch(box_key)
        yield _entry(phrase, keys[box_key], _style(keys, phrase_key, box_key), (named and named["order"]) or "")


def entries_of_map(value: dict) -> Iterator[Entry]:
    """The entries of a map from phrases to boxes."""
    for phrase, box in _boxes_of_map(value).items():
        for one in box if _is_box_list(box) else [box]:
            yield _entry(phrase, one, "")


def entry_of_text(phrase: str, box: str, order: str = "", style: str = "") -> Entry | None:
    """The entry of a phrase and a box written as text, None if that does not hold four numbers."""
    numbers, order = _coordinates(box, order)
    return None if numbers is None else _entry(phrase, numbers, style, order)


def stated_order(text: str) -> str | None:
    """The one order of a box's numbers that `text` states ("[x, y, width, height]"), None for none or for several."""
    stated = {STATED_ORDERS.get(tuple(map(plain, names))) for names in STATEMENT.findall(text)} - {None}
    return stated.pop() if len(stated) == 1 else None


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _boxes_of_map(value: dict) -> dict[str, Any]:
    return {key: box for key, box in value.items() if not isinstance(box, str | int | float)}


def _phrase_key(keys: dict[str, Any]) -> str | None:
    present = [key for key in PHRASE_KEYS if key in keys and not isinstance(keys[key], dict | list | tuple)]
    return present[0] if present else next((key for key in PHRASE_KEYS[:3] if key in keys), None)


def _box_key(keys: dict[str, Any]) -> str | None:
    """The key with the box, "" if the object itself has coordinates, None if there is no box."""
    for key in keys:
        if BOX_KEY.fullmatch(key) or (key in WEAK_BOX_KEYS and _is_box(keys[key])):
            return key
    return "" if _named_numbers(keys) is not None else None


def _style(keys: dict[str, Any], phrase_key: str, box_key: str) -> str:
    if box_key in ("box2d", "bbox2d"):
        return {"box2d": "box_2d", "bbox2d": "bbox_2d"}[box_key]
    if box_key == "bbox" and phrase_key in ("desc", "description") and keys.get("type") in ("obj", "text"):
        return "elements"
    return "own" if (phrase_key, box_key) == ("phrase", "box") else ""


def _named_numbers(value: dict) -> tuple[list[Any], str] | None:
    """Numbers and order of a box whose coordinates have keys of their own, some of them perhaps one level deeper."""
    keys = {plain(key): number for key, number in value.items()}
    for part in PARTS & keys.keys():
        if isinstance(keys[part], dict):
            keys = {**{plain(key): number for key, number in keys[part].items()}, **keys}
    for names, order in NAMED_ORDERS.items():
        if all(name in keys for name in names):
            return [keys[name] for name in names], order
    corners = keys.get("topleft"), keys.get("bottomright")
    if all(isinstance(corner, list | tuple) and len(corner) == 2 for corner in corners):
        return [*corners[0], *corners[1]], "xyxy"
    return None


def _numbers_in(text: str) -> list[str] | None:
    """The four numbers of a text that holds nothing else, with their units."""
    if len(text) > 200 or BOX_TEXT.sub("", text):
        return None
    numbers = [match.group() for match in re.finditer(rf"(?<![\d.]){NUMBER}\s?(?:%|px|pixels)?", text)]
    return numbers if len(numbers) == 4 else None


def _is_four_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(_measure(number) for number in value)


def _is_box(value: Any) -> bool:
    """Whether `value` holds four numbers: a list, a text, a dictionary, or one with a box in it."""
    if isinstance(value, dict):
        inner = _inner_box(value)
        return _named_numbers(value) is not None or (
            inner is not None and not isinstance(inner, dict) and _is_box(inner)
        )
    return _is_four_numbers(value) or (isinstance(value, str) and _numbers_in(value) is not None)


def _is_box_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_four_numbers(box) for box in value)


def _measure(value: Any) -> tuple[float, str] | None:
    """A number and its unit: 12, "12", "12%" or "128px"."""
    if type(value) in (int, float):
        return value, ""
    match = MEASURE.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
    return match and (float(match["number"]), UNITS.get((match["unit"] or "").lower(), ""))


def _inner_box(value: dict) -> Any:
    return next((box for key, box in value.items() if BOX_KEY.fullmatch(plain(key))), None)


def _coordinates(box: Any, order: str) -> tuple[Any, str]:
    """What should be the four numbers of a box, and their order if it is named."""
    if isinstance(box, str):
        named = {plain(name): number + unit for name, number, unit in NAMED_NUMBER.findall(box[:200])}
        return (_named_numbers(named) if named else None) or (_numbers_in(box), order)
    if isinstance(box, dict):
        return _named_numbers(box) or (_inner_box(box), order)  # {"a cat": {"box": [...]}}
    if isinstance(box, list | tuple) and len(box) == 2 and all(isinstance(point, list | tuple) for point in box):
        return [*box[0], *box[1]], order
    return box, order


def _entry(phrase: Any, written: Any, style: str, order: str = "") -> Entry:
    box, order = _coordinates(written, order)
    measures = [_measure(number) for number in box] if isinstance(box, list | tuple) and len(box) == 4 else []
    if not isinstance(phrase, str) or not measures or not all(measures):
        raise LayoutFormatError(
            f"object {shortened(phrase)} has the box {shortened(written)}, expected a string and four numbers"
        )
    units = {unit for number, unit in measures if unit or number}  # a plain 0 has any unit
    if len(units) > 1:
        raise LayoutFormatError(f"object {shortened(phrase)} has the box {shortened(written)}, which mixes units")
    numbers = tuple(number for number, _ in measures)
    entry = Entry(" ".join(phrase.split()), numbers, order, next(iter(units), ""), "" if order else style)
    if not all(map(math.isfinite, numbers)):
        raise NotFiniteError(f"{entry}: the box is not finite")
    return entry
