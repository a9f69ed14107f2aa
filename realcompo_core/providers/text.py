"""Layouts from the text of a language model's reply. Nothing in a reply is ever evaluated."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BoxOutsideError, LayoutError, LayoutFormatError, NotFiniteError, ReplyError
from ..layout import Layout, LayoutObject
from .literals import LiteralReader

MAX_REPLY = 1_000_000  # characters
LMD_SIZE = (512, 512)
NORMALISED_MAX = 4  # no box in pixels ends before pixel 4
# How far a box may reach outside the picture and still be clipped, by its format. Models write corners with more care
# than they add width to x: the sum was up to 21 % too large in the replies that LMD published.
OVERHANG = {"xyxy": 0.1, "xywh": 0.25}
ROUNDING = 1e-6  # 0.7 + 0.3 may exceed 1

FORMATS = ("xyxy", "xywh", "lmd")
PHRASE_KEYS = ("phrase", "label", "name", "desc", "caption")
BOX_KEYS = ("box", "bbox", "bounding_box")
COORDINATE_KEYS = {
    ("x", "y", "width", "height"): "xywh",
    ("x", "y", "w", "h"): "xywh",
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
}
REASONING = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
ANSWER_LABELS = ("", "objects", "layout", "answer")


class TextProvider:
    """Parses a reply that a language model gave elsewhere; `format` as in `parse_reply`."""

    name = "text"

    def __init__(self, reply: str, format: str | None = None):
        self.reply = reply
        self.format = format

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        return parse_reply(self.reply, prompt, size, self.format)


def parse_reply(reply: str, prompt: str = "", size: tuple[int, int] = (512, 512), format: str | None = None) -> Layout:
    """The layout in a language model's reply about a picture of `size` = (width, height) pixels.

    Understood, alone, in prose or in markdown fences:
    - this project's layout JSON;
    - a JSON list of objects with a phrase (or label, name, desc, caption) and a box (or bbox, bounding_box, or single
      coordinates such as x, y, width, height), also as "objects" beside "background" and "negative";
    - RealCompo's `[('a cat', [x0, y0, x1, y1]), ...]`;
    - LMD's `[('a cat', [x, y, width, height]), ...]` with lines "Background prompt: ..." and "Negative prompt: ...".

    Reasoning up to `</think>` is skipped. Of several lists the last complete one is used; if there is no list, all
    single objects of the reply are. `[]` is a layout without objects.

    How boxes are read:
    1. Coordinates with keys of their own (x, width, x0, ...) mean what the keys say.
    2. `format` forces the rest: "xyxy", "xywh", or "lmd" (xywh in 512 px, whatever `size` is).
    3. Tuples beside a "Background prompt:" line are LMD's.
    4. Everything else is xyxy. Only where that is impossible, in pixels (some x1 <= x0 or y1 <= y0), tuples are LMD's
       and JSON is xywh.
    5. If no number exceeds 4, all are fractions of the picture; otherwise pixels of `size`, or of 512 px for LMD.

    A box that reaches outside the picture by at most 10 % of its side (25 % if written as xywh) is clipped, with a
    warning. With `prompt`, each phrase must occur in it. A reply that cannot be used raises `ReplyError`, which quotes
    it and names the object and box at fault; its cause is the `LayoutError`.
    """
    if format not in (None, *FORMATS):
        raise LayoutFormatError(f"unknown box format {format!r}; use one of {', '.join(FORMATS)}")
    try:
        return _parse(reply, prompt, size, format)
    except LayoutError as error:
        quote = reply if len(reply) <= 600 else f"{reply[:300]} … {reply[-300:]}"
        raise ReplyError(f"unusable reply: {error}. The reply was: {quote!r}", reply) from error


def _parse(reply: str, prompt: str, size: tuple[int, int], format: str | None) -> Layout:
    if len(reply) > MAX_REPLY:
        raise LayoutFormatError(f"{len(reply)} characters, at most {MAX_REPLY} are read: pass the answer only")
    text = _answer(reply)
    found = _last_layout(text)
    if isinstance(found, dict) and "version" in found:
        layout = Layout.from_dict(found)
        return replace(layout, prompt=layout.prompt or prompt).validate(prompt or None)
    if isinstance(found, dict):
        found_objects = found["objects"]
        background = _text(found, "background")
        negative = _text(found, "negative")
        lmd = False
    else:
        found_objects = found
        background = _line(text, "background")
        negative = _line(text, "negative")
        lmd = background is not None
    entries = [_read_entry(value) for value in found_objects]
    return Layout(
        objects=_place(entries, size, format or _choose_format(entries, lmd)),
        background=background or "",
        negative=negative or "",
        prompt=prompt,
    ).validate(prompt or None)


@dataclass(frozen=True)
class _Entry:
    """One object as the reply wrote it. `format` is empty unless the entry itself names it."""

    phrase: str
    box: tuple[float, ...]
    format: str
    is_tuple: bool

    def __str__(self) -> str:
        return f"object {self.phrase!r}, box {list(self.box)}"


def _answer(reply: str) -> str:
    """The reply without its reasoning."""
    end = 0
    thinking = False
    for mark in REASONING.finditer(reply):
        end = mark.end()
        thinking = not mark.group().startswith("</")
    if thinking:
        raise LayoutFormatError("it ends inside the model's reasoning; allow the model a longer reply")
    return reply[end:]


def _last_layout(text: str) -> dict | list:
    """The last layout or list of objects in `text`, else the list of its single objects."""
    lists, singles = [], []
    reader = LiteralReader(text)
    for start, value in reader.values():
        if isinstance(value, dict) and isinstance(value.get("objects"), list):
            lists.append(value)
        elif _looks_like_object(value):
            singles.append(value)
        elif isinstance(value, list) and any(map(_looks_like_object, value)):
            lists.append(value)
        elif value == [] and _is_answer(text, start):
            lists.append(value)
    if lists:
        return lists[-1]
    if reader.broken_at is not None:
        raise LayoutFormatError(f"its list breaks off after {text[max(0, reader.broken_at - 40) : reader.broken_at]!r}")
    if singles:
        return singles
    raise LayoutFormatError(
        'it holds no list of objects, expected for example [{"phrase": "a cat", "box": [0.1, 0.2, 0.6, 0.9]}]'
    )


def _is_answer(text: str, start: int) -> bool:
    """Whether the empty list at `start` stands on its own: the one in RealCompo's "Position: []" does not."""
    before = text[max(0, start - 20) : start].rpartition("\n")[2]
    return re.sub(r"\W", "", before).lower() in ANSWER_LABELS


def _looks_like_object(value: Any) -> bool:
    if isinstance(value, dict):
        has_box = any(key in value for key in BOX_KEYS) or any(set(keys) <= value.keys() for keys in COORDINATE_KEYS)
        return has_box and any(key in value for key in PHRASE_KEYS)
    if isinstance(value, list | tuple) and len(value) == 2:
        return isinstance(value[0], str) and isinstance(value[1], list | tuple)
    return False


def _text(found: dict, name: str) -> str:
    value = found.get(name, found.get(f"{name}_prompt"))
    if value is not None and not isinstance(value, str):
        raise LayoutFormatError(f"{name!r} is {value!r}, expected a string")
    return " ".join((value or "").split())


def _line(text: str, name: str) -> str | None:
    """The rest of LMD's line "Background prompt: ..." or "Negative prompt: ...", None if there is no such line."""
    lines = re.findall(rf"^[ \t*#>-]*{name} prompt[ *]*:([^\n]*)$", text, flags=re.IGNORECASE | re.MULTILINE)
    return lines[-1].strip(" \t\r*") if lines else None


def _read_entry(value: Any) -> _Entry:
    if not _looks_like_object(value):
        raise LayoutFormatError(f"{_short(value)} in the list of objects is no object with a phrase and a box")
    if not isinstance(value, dict):
        return _checked(value[0], value[1], "", is_tuple=True)
    phrase = next(value[key] for key in PHRASE_KEYS if key in value)
    box = next((value[key] for key in BOX_KEYS if key in value), value)
    if isinstance(box, dict):
        for keys, form in COORDINATE_KEYS.items():
            if set(keys) <= box.keys():
                return _checked(phrase, [box[key] for key in keys], form, is_tuple=False)
    return _checked(phrase, box, "", is_tuple=False)


def _checked(phrase: Any, box: Any, form: str, is_tuple: bool) -> _Entry:
    is_box = isinstance(box, list | tuple) and len(box) == 4 and all(type(number) in (int, float) for number in box)
    if not isinstance(phrase, str) or not is_box:
        raise LayoutFormatError(
            f"object {_short(phrase)} has the box {_short(box)}, expected a string and four numbers"
        )
    entry = _Entry(" ".join(phrase.split()), tuple(box), form, is_tuple)
    if not all(map(math.isfinite, box)):
        raise NotFiniteError(f"{entry}: the box is not finite")
    return entry


def _choose_format(entries: list[_Entry], lmd: bool) -> str:
    """Rules 3 and 4 of `parse_reply`."""
    unnamed = [entry for entry in entries if not entry.format]
    are_tuples = all(entry.is_tuple for entry in unnamed)
    if lmd and are_tuples:
        return "lmd"
    possible = all(x1 > x0 and y1 > y0 for x0, y0, x1, y1 in (entry.box for entry in unnamed))
    if possible or _are_fractions(entries):
        return "xyxy"
    return "lmd" if are_tuples else "xywh"


def _are_fractions(entries: list[_Entry]) -> bool:
    return max((max(map(abs, entry.box)) for entry in entries), default=0) <= NORMALISED_MAX


def _place(entries: list[_Entry], size: tuple[int, int], format: str) -> tuple[LayoutObject, ...]:
    """The objects with normalised xyxy boxes inside the picture."""
    width, height = LMD_SIZE if format == "lmd" else size
    if _are_fractions(entries):
        width, height = 1, 1
    return tuple(
        LayoutObject(entry.phrase, _inside(entry, width, height, entry.format or format.replace("lmd", "xywh")))
        for entry in entries
    )


def _inside(entry: _Entry, width: float, height: float, format: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = entry.box
    if format == "xywh":
        x1, y1 = x0 + x1, y0 + y1
    box = (x0 / width, y0 / height, x1 / width, y1 / height)
    overhang = max(0 - min(box), max(box) - 1)
    if overhang > OVERHANG[format]:
        raise BoxOutsideError(
            f"{entry}: read as {format} it reaches outside the {width} x {height} picture by {overhang:.0%}, at most "
            f"{OVERHANG[format]:.0%} is clipped; correct the box or name its format ({', '.join(FORMATS)})"
        )
    if overhang > ROUNDING:
        warnings.warn(f"{entry}: clipped, it reaches outside the picture by {overhang:.1%}", stacklevel=2)
    x0, y0, x1, y1 = (min(max(number, 0.0), 1.0) for number in box)
    return x0, y0, x1, y1


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
