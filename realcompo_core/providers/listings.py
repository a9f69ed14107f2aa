"""Objects in Markdown tables, and on lines of their own: "- a cat: (10, 20, 100, 200)"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import LayoutError, LayoutFormatError
from .entries import (
    BOX_KEY,
    MARKUP,
    NAMED_ORDERS,
    NUMBER,
    PHRASE_KEYS,
    WEAK_BOX_KEYS,
    Entry,
    entries_of,
    entry_of_text,
    is_object,
    plain,
    stated_order,
)

MAX_LINE = 400  # characters of a line that may name an object
# What lines name besides objects.
NO_PHRASES = frozenset(
    "canvas image picture size imagesize canvassize picturesize resolution format box bbox boundingbox boxes bboxes "
    "coordinates position layout objects background negative backgroundprompt negativeprompt prompt margin "
    "example".split()
)
COORDINATES = frozenset(name for names in NAMED_ORDERS for name in names)
UNIT_NAMES = {"%": "%", "percent": "%", "px": "px", "pixel": "px", "pixels": "px"}

RULE = re.compile(r"[\s|:+=-]+")
BULLET = re.compile(r"[\s>#]*(?:[-*•+]\s+|\(?\d{1,3}[.)]\s+)?")
LINE = re.compile(
    r"(?P<phrase>[^\[\](){}:=|<>]{1,80}?)\s*(?::|=|->|→|⇒|—|–|\s-\s|\bat\b|(?=[\[({]))\s*(?P<box>.*)", re.DOTALL
)
LEAD_IN = re.compile(
    r"(?:\s(?:is|are))?(?:\s(?:placed|located|positioned))?(?:\s(?:at|in))?(?:\s(?:bounding\s)?b?box)?$", re.IGNORECASE
)
AND = re.compile(r"[\s,;.]*(?:and\s)?\s*")
GAP = r"[\s,;\[\](){}]{1,5}(?:(?:to|x|-|–)[\s\[({]{1,5})?"
FOUR = re.compile(rf"[\s\[({{]{{0,5}}(?:{NUMBER}\s?(?:%|px)?{GAP}){{3}}{NUMBER}\s?(?:%|px)?(?!{GAP}{NUMBER})")
BOX = re.compile(rf"[\[(]\s?{NUMBER}(?:\s?,\s?{NUMBER}){{3}}\s?[\])]")
SOME = re.compile(rf"[\[({{]\s*{NUMBER}\s*,")
COORDINATE = re.compile(rf"\b(?:{'|'.join(sorted(COORDINATES))})['\"]?\s?[:=]\s?{NUMBER}", re.IGNORECASE)
KEY_LINE = re.compile(r"['\"*`]*(?P<key>[A-Za-z][\w .-]{0,30}?)['\"*`]*\s*[:=]\s*(?P<value>.*)")
TAGS = re.compile(  # Qwen2-VL
    r"(?:<ref>|<\|object_ref_start\|>)(?P<phrase>[^<]{1,80})(?:</ref>|<\|object_ref_end\|>)\s{0,3}"
    r"(?:<box>|<\|box_start\|>)(?P<box>[^<]{1,80})(?:</box>|<\|box_end\|>)"
)


@dataclass(frozen=True)
class Listing:
    """Objects that stand together from `start` to `end` of a text, or why one of them cannot be read."""

    start: int
    end: int
    found: tuple[Entry | LayoutError, ...]


def tables(text: str) -> Iterator[Listing]:
    """The Markdown tables whose header names a phrase and coordinates."""
    rows: list[str] = []
    start = 0
    for position, line in [*_lines(text), (len(text), "")]:
        if line.count("|") >= 2:
            start = start if rows else position
            rows.append(line.strip())
        elif rows:
            columns = _columns(rows[0])
            if columns and len(rows) > 1:
                yield Listing(start, position, tuple(_row(row, columns) for row in rows[1:] if not RULE.fullmatch(row)))
            rows = []


def object_lines(text: str) -> list[Listing]:
    """Objects on lines of their own, or with their keys on lines of their own, in groups that headings part."""
    for read in (_tagged, _one_a_line, _keys_on_lines):
        groups: list[list[tuple[int, Entry | LayoutError]]] = [[]]
        for start, entry in read(text):
            if entry is None:
                groups.append([])
            else:
                groups[-1].append((start, entry))
        groups = [group for group in groups if any(isinstance(entry, Entry) for _, entry in group)]
        if groups:
            return [Listing(group[0][0], group[-1][0] + 1, tuple(entry for _, entry in group)) for group in groups]
    return []


@dataclass(frozen=True)
class _Columns:
    """Where a table has what; `units` are those that the header names."""

    count: int
    phrase: int
    numbers: tuple[int, ...]
    units: tuple[str, ...]
    order: str
    closed: bool


def _columns(header: str) -> _Columns | None:
    cells = _cells(header)
    names = [plain(cell) for cell in cells]
    phrase = next((names.index(key) for key in PHRASE_KEYS if key in names), None)
    order = next((order for order in NAMED_ORDERS if set(order) <= set(names)), ())
    boxes = [i for i, name in enumerate(names) if BOX_KEY.fullmatch(name) or name in WEAK_BOX_KEYS]
    numbers = tuple(names.index(name) for name in order) or tuple(boxes[:1])
    if phrase is None or not numbers:
        return None
    named = NAMED_ORDERS[order] if order else stated_order(cells[numbers[0]]) or ""
    units = tuple(_unit(cells[i]) for i in numbers)
    return _Columns(len(cells), phrase, numbers, units, named, header.endswith("|"))


def _row(row: str, columns: _Columns) -> Entry | LayoutError:
    cells = _cells(row)
    if len(cells) != columns.count or (columns.closed and not row.endswith("|")):
        return LayoutFormatError(f"the row {row[:100]!r} of its table is not complete")
    written = [cells[i] for i in columns.numbers]
    if len(written) == 4:
        written = [number + unit * number[-1:].isdigit() for number, unit in zip(written, columns.units, strict=True)]
    entry = _attempt(cells[columns.phrase], ", ".join(written), columns.order)
    return entry or LayoutFormatError(f"the row {row[:100]!r} of its table has no four numbers")


def _cells(row: str) -> list[str]:
    return [cell.strip(MARKUP) for cell in row.strip("|").split("|")]


def _unit(header: str) -> str:
    written = re.search(r"[(\[]\s*([A-Za-z%]+)\s*[)\]]", header)
    return UNIT_NAMES.get(written[1].lower(), "") if written else ""


def _tagged(text: str) -> Iterator[tuple[int, Entry | LayoutError]]:
    for match in TAGS.finditer(text):
        entry = _attempt(match["phrase"].strip(), match["box"], style="bbox_2d")
        yield match.start(), entry or LayoutFormatError(f"{match.group()!r} does not hold four numbers")


def _one_a_line(text: str) -> Iterator[tuple[int, Entry | LayoutError | None]]:
    """Objects and faults with their positions; None where a heading ends a group."""
    for start, line in _lines(text):
        entries = []
        if len(line) <= MAX_LINE and any(map(str.isdigit, line)):
            entries = [entry for part in _parts(line) if (entry := _object_line(part)) is not None]
        yield from ((start, entry) for entry in entries)
        if not entries and _is_heading(line):
            yield start, None


def _parts(line: str) -> list[str]:
    """The line, or each of the boxes in it with what stands before: "the cat is at (…) and the dog is at (…)"."""
    ends = [match.end() for match in BOX.finditer(line)]
    if len(ends) < 2:
        return [line]
    return [line[AND.match(line, start).end() : end] for start, end in zip([0, *ends], ends, strict=False)]


def _object_line(line: str) -> Entry | LayoutError | None:
    match = LINE.fullmatch(line[BULLET.match(line).end() :].replace("**", "").replace("`", "").strip(" \t\r\n,;"))
    phrase = match["phrase"].strip(MARKUP) if match else ""
    if not any(map(str.isalpha, phrase)) or plain(phrase) in NO_PHRASES | COORDINATES:
        return None
    phrase = LEAD_IN.sub("", phrase)
    four = FOUR.match(match["box"])
    entry = _attempt(phrase, four.group() if four else match["box"][:200])
    if entry is None and (SOME.match(match["box"]) or len(COORDINATE.findall(match["box"])) > 1):
        return LayoutFormatError(f"the line {line.strip()[:100]!r} does not hold four numbers")
    return entry


def _keys_on_lines(text: str) -> Iterator[tuple[int, Entry | LayoutError | None]]:
    """As `_one_a_line`, for objects whose keys have lines of their own, as in YAML.

    A line without a known key may be the phrase of the keys that follow it.
    """
    title, keys, begin = "", {}, 0
    for start, line in [*_lines(text), (len(text), "end")]:
        body = line[BULLET.match(line).end() :].strip()
        match = KEY_LINE.fullmatch(body) if len(line) <= MAX_LINE else None
        key, value = (plain(match["key"]), match["value"].strip(MARKUP)) if match else ("", "")
        known = bool(value) and (
            key in PHRASE_KEYS or key in COORDINATES or key in WEAK_BOX_KEYS or BOX_KEY.fullmatch(key) is not None
        )
        if not body or (known and key not in keys):
            begin = begin if keys else start
            keys |= {key: value} if body else {}
            continue
        if keys:
            yield from _object_of_keys(begin, keys, title)
        if _is_heading(line) and (not keys or _has_phrase(keys)):
            yield start, None
        title, keys, begin = ("", {key: value}, start) if known else (body.strip(MARKUP + ":")[:80], {}, start)


def _has_phrase(keys: dict[str, str]) -> bool:
    return not keys.keys().isdisjoint(PHRASE_KEYS)


def _is_heading(line: str) -> bool:
    line = line.strip()
    return line.startswith("#") or line.strip(MARKUP).endswith(":")


def _object_of_keys(start: int, keys: dict[str, str], title: str) -> Iterator[tuple[int, Entry | LayoutError]]:
    value = keys if _has_phrase(keys) else {"label": title, **keys}
    if not any(map(str.isalpha, value.get("label", "a"))) or plain(value.get("label", "")) in NO_PHRASES:
        return
    if not is_object(value):
        if len(set(keys) & COORDINATES) > 1:
            yield start, LayoutFormatError(f"object {title!r} has the coordinates {keys}, expected four")
        return
    try:
        yield from ((start, entry) for entry in entries_of(value))
    except LayoutError as error:
        yield start, error


def _attempt(phrase: str, box: str, order: str = "", style: str = "") -> Entry | LayoutError | None:
    try:
        return entry_of_text(phrase, box, order, style)
    except LayoutError as error:
        return error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line
        start += len(line)
