"""What the numbers of a reply mean: one unit for all of it, and an order that is possible for all its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BoxOutsideError, EmptyBoxError, LayoutError, LayoutFormatError
from ..layout import Box
from .entries import Entry

FORMATS = ("auto", "xyxy", "xywh", "yxyx", "lmd")
FRACTION_MAX = 4  # no box in pixels ends before pixel 4
CERTAIN_FRACTION_MAX = 1.3  # a box with smaller numbers, beside others in pixels, is meant in fractions
# How far a box may reach outside the picture and still be clipped, by its order. Models write corners with more care
# than they add width to x: the sum was up to 21 % too large in the replies that LMD published.
OVERHANG = {"xyxy": 0.1, "yxyx": 0.1, "xywh": 0.25, "cxcywh": 0.25}
ROUNDING = 1e-6  # 0.7 + 0.3 may exceed 1
NEAR = 0.03  # of the picture's side: boxes that differ by less are the same

LIKELY = 1.8  # a reading that costs less than this above the best is named in the warning

ORDER_WORDS = {
    "xyxy": "left, top, right, bottom (xyxy)",
    "xywh": "left, top, width, height (xywh)",
    "yxyx": "top, left, bottom, right (yxyx)",
    "": "their keys say",
}


@dataclass(frozen=True)
class Unit:
    """What a picture of `width` x `height` is measured in; `name` completes "in …"."""

    name: str
    width: float
    height: float


FRACTIONS = Unit("fractions of the picture", 1, 1)
PERCENT = Unit("percent of the picture", 100, 100)
THOUSANDTHS = Unit("thousandths of the picture", 1000, 1000)


def pixels(width: int, height: int) -> Unit:
    return Unit(f"pixels of {width} x {height}", width, height)


LMD_PIXELS = pixels(512, 512)
GUESSED = (PERCENT, THOUSANDTHS, LMD_PIXELS)  # no reply is asked for these


@dataclass(frozen=True)
class Hints:
    """What is known about the boxes beside their numbers.

    `size` is that of the picture asked for, `format` one of FORMATS. The reply may have LMD's lines ("Background
    prompt: …"), and state in words an `order` or `units` of its boxes, and the size of a `canvas` in pixels.
    """

    size: tuple[int, int]
    format: str = "auto"
    lmd: bool = False
    order: str = ""
    units: tuple[Unit, ...] = ()
    canvas: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """A meaning of all numbers: their unit, and the order of the boxes whose keys name none.

    Likely ones have a small `cost`. Costs were weighed so that LMD's published replies, and the same layouts written in
    other ways, are read right: a unit or order that was not asked for costs 1 or more, boxes that fill but a corner of
    the picture 1.5 to 4, what is said in words is worth 1. `assumed` tells that nothing in the reply calls for it.
    """

    order: str
    unit: Unit
    cost: float
    assumed: bool

    def __str__(self) -> str:
        return f"{ORDER_WORDS[self.order]}, in {self.unit.name}"


def place(entries: Sequence[Entry], hints: Hints) -> tuple[list[Box], list[str]]:
    """The boxes as fractions x0, y0, x1, y1 inside the picture, and what was assumed or clipped, a sentence each.

    1. All boxes have one unit: a reply that mixes units is refused (LayoutFormatError).
    2. Readings that the reply's form calls for are tried first, see `_usual_orders`; then every order.
    3. Possible is a reading with which all boxes have an area and lie in the picture, but for a small overhang. Of
       these the most likely is taken; if it is a guess, or another one is nearly as likely, a warning says so.

    Raises BoxOutsideError or EmptyBoxError, which names a box, if there is none.
    """
    if not entries:
        return [], []
    check_one_unit(entries)
    orders = _usual_orders(entries, hints)
    usual = _readings(entries, hints, orders)
    possible = [reading for reading in usual if _fault(entries, reading) is None]
    fixed = hints.format != "auto" or all(entry.order for entry in entries)
    if not possible and not fixed:
        possible = [reading for reading in _readings(entries, hints, ANY_ORDER) if _fault(entries, reading) is None]
    first = min(orders, key=orders.get)
    expected = min((reading for reading in usual if reading.order == first), key=lambda reading: reading.cost)
    if not possible:
        raise _fault(entries, expected).error(expected)
    best = min(possible, key=lambda reading: reading.cost)
    boxes, notes = _boxes(entries, best)
    return boxes, _doubt(entries, hints, best, possible, expected) + _other_unit(entries, best) + notes


def check_one_unit(entries: Sequence[Entry]) -> None:
    """Raises LayoutFormatError, which names two boxes, if not all are measured alike."""
    for other in entries[1:]:
        if other.unit != entries[0].unit:
            raise LayoutFormatError(f"{entries[0]} and {other} are in different units; ask for one unit")
    if entries[0].unit or _largest(entries) <= FRACTION_MAX:
        return
    large = max(entries, key=lambda entry: max(map(abs, entry.box)))
    for entry in entries:
        if max(map(abs, entry.box)) <= CERTAIN_FRACTION_MAX or any(0 < abs(number) < 1 for number in entry.box):
            raise LayoutFormatError(
                f"{entry} is wholly or partly in fractions of the picture, {large} is not; ask for one unit"
            )


ANY_ORDER = {"xyxy": 0.0, "xywh": 1.0, "yxyx": 2.0}


def _usual_orders(entries: Sequence[Entry], hints: Hints) -> dict[str, float]:
    """The orders that the form of the reply calls for, with their costs.

    In this sequence: the format that the user chose, keys that name the coordinates, the order that the text states;
    `box_2d` (Gemini) and elements (Ideogram): yxyx; `bbox_2d` (Qwen): xyxy. In fractions, this project's own keys and
    RealCompo's tuples are xyxy; LMD's tuples are xywh in pixels of 512 x 512. Anything else is xyxy, or else xywh.
    """
    style = _style(entries)
    if hints.format != "auto":
        return {hints.format.replace("lmd", "xywh"): 0}
    if all(entry.order for entry in entries):
        return {"": 0}
    if hints.order:
        return {hints.order: 0}
    if style == "bbox_2d" or (style in ("own", "tuple") and _are_fractions(entries) and not hints.lmd):
        return {"xyxy": 0}
    if style in ("box_2d", "elements"):
        return {"yxyx": 0}
    if style == "tuple" and hints.lmd:
        return {"xywh": 0, "xyxy": 0.5 if _are_fractions(entries) else 1.6}
    return {"xyxy": 0, "xywh": 1.6}


def _units(entries: Sequence[Entry], hints: Hints, order: str) -> dict[Unit, float]:
    """The units that boxes of this order may have, with their costs."""
    style, sign = _style(entries), entries[0].unit
    forced = hints.format not in ("auto", "lmd")  # whoever chooses one of these and means LMD's pixels would say lmd
    lmd = style == "tuple" and order == "xywh" and not forced
    if sign == "%":
        return {PERCENT: 0}
    if _are_fractions(entries):
        return {FRACTIONS: 0}
    if hints.format == "lmd":
        return {LMD_PIXELS: 0}
    if style in ("box_2d", "elements"):
        return {THOUSANDTHS: 0}
    asked = pixels(*hints.size)
    units = {LMD_PIXELS: (-3.0 if hints.lmd else 0.0) if lmd else 1.0}
    units[asked] = min(units.get(asked, 1.0), -2.0 if forced else 1.0 if lmd else 0.0)
    if hints.canvas:
        units[pixels(*hints.canvas)] = -1.0
    if not sign:
        units |= {THOUSANDTHS: 0.4 if style == "bbox_2d" else 1.0 + lmd, PERCENT: 1.0}
        units |= dict.fromkeys(hints.units, -1.0)
    return units


def _readings(entries: Sequence[Entry], hints: Hints, orders: dict[str, float]) -> list[Reading]:
    return [
        Reading(
            order, unit, by_order + by_unit + _implausibility(entries, order, unit), unit in GUESSED and by_unit >= 1
        )
        for order, by_order in orders.items()
        for unit, by_unit in _units(entries, hints, order).items()
    ]


def _implausibility(entries: Sequence[Entry], order: str, unit: Unit) -> float:
    """What it costs that objects fill but a corner of the picture, or reach outside of it."""
    boxes = [_normalised(entry, order, unit) for entry in entries]
    reach = min(max(box[2] for box in boxes), max(box[3] for box in boxes))
    outside = max(map(_overhang, boxes))
    return (4 if reach < 0.35 else 1.5 if reach < 0.6 else 0) + (
        2 if outside > 0.03 else 0.5 if outside > ROUNDING else 0
    )


def _doubt(
    entries: Sequence[Entry], hints: Hints, best: Reading, possible: list[Reading], expected: Reading
) -> list[str]:
    """The sentence that says which reading was taken where others were at hand, in a list, or nothing."""
    boxes, _ = _boxes(entries, best)
    style = _style(entries)
    rivals = [
        reading
        for reading in possible
        if reading.cost < best.cost + LIKELY and not _alike(boxes, _boxes(entries, reading)[0])
    ]
    rivals.sort(key=lambda reading: reading.cost)
    guessed = best.order == "xywh" and not hints.order and not hints.lmd and hints.format == "auto"
    swapped = _swapped(entries) if guessed else None
    # That tuples without LMD's lines are LMD's is nothing to speak of.
    contradicted = best.order != expected.order and (style != "tuple" or hints.lmd)
    if contradicted and (fault := _fault(entries, expected)):
        why = f"read as {expected}, {fault.reason}"
    elif rivals:
        rival = rivals[0]
        why = f"{rival if rival.order != best.order else f'in {rival.unit.name}'} is possible too"
    elif swapped:
        why = f"the corners of {swapped.phrase!r} may be swapped instead"
    elif best.assumed:
        why = "this fits their numbers, but the reply does not say it"
    elif hints.format not in ("auto", "yxyx") and style in ("box_2d", "elements"):
        why = f"the format {hints.format} was asked for, though such replies usually are {ORDER_WORDS['yxyx']}"
    else:
        return []
    order_in_doubt = contradicted or guessed or any(reading.order != best.order for reading in rivals)
    way_out = "The format (xyxy, xywh, yxyx, lmd) decides" if order_in_doubt else "Fractions from 0 to 1 are certain"
    return [f"The boxes are read as {best}; {why}. {way_out}."]


def _other_unit(entries: Sequence[Entry], reading: Reading) -> list[str]:
    """The sentence that names a box which may be in percent where the others are not, in a list, or nothing."""
    ends = [max(_normalised(entry, reading.order, Unit("", 1, 1))[2:]) for entry in entries]
    if reading.unit.width <= 100 or max(ends) <= 200 or min(ends) > 100:
        return []
    entry = entries[ends.index(min(ends))]
    return [f"The box of {entry.phrase!r} is read in {reading.unit.name} like the others, though it could be percent."]


def _swapped(entries: Sequence[Entry]) -> Entry | None:
    """The box that starts at its lower right corner where others, read as xyxy, start at the upper left one."""
    turned = [entry for entry in entries if entry.box[0] > entry.box[2] and entry.box[1] > entry.box[3]]
    proper = [entry for entry in entries if entry.box[0] < entry.box[2] and entry.box[1] < entry.box[3]]
    return turned[0] if turned and proper and len(turned) + len(proper) == len(entries) else None


@dataclass(frozen=True)
class _Fault:
    """Why a reading is impossible; `what` completes "the box of … would"."""

    entry: Entry
    kind: type[LayoutError]
    what: str
    way_out: str

    @property
    def reason(self) -> str:
        return f"the box of {self.entry.phrase!r} would {self.what}"

    def error(self, reading: Reading) -> LayoutError:
        return self.kind(f"{self.entry}: read as {reading} it would {self.what}{self.way_out}")


def _fault(entries: Sequence[Entry], reading: Reading) -> _Fault | None:
    for entry in entries:
        box = _normalised(entry, reading.order, reading.unit)
        allowed = OVERHANG[entry.order or reading.order]
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            what = "have no area"
            return _Fault(
                entry, EmptyBoxError, what, f"; correct the box or choose its format ({', '.join(FORMATS[1:])})"
            )
        if _overhang(box) > allowed:
            what = f"reach outside the picture by {_overhang(box):.0%}"
            way_out = (
                f", at most {allowed:.0%} is clipped; correct the box or choose its format ({', '.join(FORMATS[1:])})"
            )
            return _Fault(entry, BoxOutsideError, what, way_out)
        x0, y0, x1, y1 = _clipped(box)
        if x1 <= x0 or y1 <= y0:
            return _Fault(entry, BoxOutsideError, "lie outside the picture", "; correct the box")
    return None


def _boxes(entries: Sequence[Entry], reading: Reading) -> tuple[list[Box], list[str]]:
    """The boxes inside the picture, and a sentence for each that was clipped."""
    boxes = [_normalised(entry, reading.order, reading.unit) for entry in entries]
    notes = [
        f"{entry}: clipped, it reaches outside the picture by {_overhang(box):.1%}."
        for entry, box in zip(entries, boxes, strict=True)
        if _overhang(box) > ROUNDING
    ]
    return [_clipped(box) for box in boxes], notes


def _normalised(entry: Entry, order: str, unit: Unit) -> Box:
    a, b, c, d = entry.box
    order = entry.order or order
    if order == "xywh":
        box = a, b, a + c, b + d
    elif order == "cxcywh":
        box = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    elif order == "yxyx":
        box = b, a, d, c
    else:
        box = a, b, c, d
    return box[0] / unit.width, box[1] / unit.height, box[2] / unit.width, box[3] / unit.height


def _clipped(box: Box) -> Box:
    x0, y0, x1, y1 = (min(max(number, 0.0), 1.0) for number in box)
    return x0, y0, x1, y1


def _overhang(box: Box) -> float:
    return max(0 - min(box), max(box) - 1)


def _alike(first: Sequence[Box], second: Sequence[Box]) -> bool:
    """Whether two readings of the same objects put them in the same places."""
    return all(
        abs(a - b) <= NEAR for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def _are_fractions(entries: Sequence[Entry]) -> bool:
    return not entries[0].unit and _largest(entries) <= FRACTION_MAX


def _largest(entries: Sequence[Entry]) -> float:
    return max(max(map(abs, entry.box)) for entry in entries)


def _style(entries: Sequence[Entry]) -> str:
    """The one way in which the objects without named coordinates are written, "" if there are several."""
    styles = {entry.style for entry in entries if not entry.order}
    return styles.pop() if len(styles) == 1 else ""
