"""Layouts from the text of a language model's reply. Nothing in a reply is ever evaluated.

The way of a reply: `answers` finds the list of objects that is meant, `entries` and `listings` read its objects,
`coordinates` decides what their numbers mean, and `parse_reply` makes the layout and its warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import LayoutError, LayoutFormatError, PhraseNotInPromptError, ReplyError, TooManyObjectsError
from ..layout import MAX_OBJECTS, Layout, LayoutObject
from ..text.words import match_phrases, noun_words
from .answers import Answer, Answers, find_answers, without_reasoning
from .coordinates import FORMATS, NEAR, PERCENT, THOUSANDTHS, Hints, place
from .entries import Entry, stated_order
from .left_out import left_out

MAX_REPLY = 1_000_000  # characters
TINY_SIDE = 0.02  # of the picture's side
TINY_AREA = 0.0015  # of the picture
STATED_UNITS = {
    THOUSANDTHS: re.compile(
        r"\b0\s?(?:to|-|–|\.\.)\s?1[,.]?000\b|\bthousandths\b|\b1000\s?[x×]\s?1000\b", re.IGNORECASE
    ),
    PERCENT: re.compile(
        r"\b(?:(?:in|as|are) |units?\W{1,4})(?:percent\w*|%)|\bpercentages?\b|\b0\s?(?:to|-|–)\s?100\b", re.IGNORECASE
    ),
}
UPWARDS = re.compile(
    r"\borigin\b[^.\n]{0,30}\b(?:bottom|lower)[- ]left|\b(?:bottom|lower)[- ]left[^.\n]{0,20}(?:\borigin|\(0, ?0\))"
    r"|\by\b[^.,\n]{0,20}\bupwards?\b",
    re.IGNORECASE,
)
CANVAS = re.compile(r"(?<![\d.])([1-9]\d{1,3})\s?(?:px)?\s?[x×*]\s?([1-9]\d{1,3})(?![\d.])")


def parse_reply(reply: str, prompt: str = "", size: tuple[int, int] = (512, 512), format: str = "auto") -> Layout:
    """The layout in a language model's reply about a picture of `size` = (width, height) pixels.

    Understood, alone, in prose or in Markdown fences:
    - this project's layout JSON;
    - JSON or Python lists of objects with a phrase (or label, name, object, …) and a box (or bbox, box_2d, …, or single
      coordinates such as x, y, width, height), below any keys, beside "background" and "negative";
    - maps from phrases to boxes, and lists of phrases beside lists of boxes;
    - RealCompo's `[('a cat', [x0, y0, x1, y1]), ...]`;
    - LMD's `[('a cat', [x, y, width, height]), ...]` with lines "Background prompt: ..." and "Negative prompt: ...";
    - Markdown tables, and objects on lines: `a cat: (10, 20, 100, 200)`, or with each key on a line of its own.

    Reasoning (`<think>`) is skipped. Of several lists the last one counts that the reply does not call wrong, an
    example or a draft; see `answers`. `[]` is a layout without objects. Numbers may be fractions, percent, thousandths,
    or pixels of `size` or of 512 x 512, all of the reply alike, and boxes xyxy, xywh or yxyx; see `coordinates.place`.
    `format` forces the order: "xyxy", "xywh", "yxyx", or "lmd" (xywh in pixels of 512 x 512); "auto" finds it.
    A box that reaches outside the picture by at most 10 % of its side (25 % if written as xywh) is clipped.

    The layout's `warnings` say what was assumed or clipped, that the reply holds several layouts, that an object is
    tiny, and which objects of `prompt` are left out. With `prompt`, each phrase must occur in it. A reply that cannot
    be used raises `ReplyError`, which quotes it and names the object and box at fault; its cause is the `LayoutError`.
    """
    format = format or "auto"
    if format not in FORMATS:
        raise LayoutFormatError(f"unknown box format {format!r}; use one of {', '.join(FORMATS)}")
    try:
        return _parse(reply, prompt, Hints(size, format))
    except LayoutError as error:
        quote = reply if len(reply) <= 600 else f"{reply[:300]} … {reply[-300:]}"
        raise ReplyError(f"unusable reply: {error}. The reply was: {quote!r}", reply) from error


def _parse(reply: str, prompt: str, hints: Hints) -> Layout:
    if len(reply) > MAX_REPLY:
        raise LayoutFormatError(f"{len(reply)} characters, at most {MAX_REPLY} are read: pass the answer only")
    text = without_reasoning(reply)
    if upwards := UPWARDS.search(text):
        raise LayoutFormatError(f"its boxes are measured upwards ({upwards.group()!r}); ask for y downwards")
    answers = find_answers(text)
    hints = replace(
        hints,
        lmd=_line(text, "background") is not None or _line(text, "negative") is not None,
        order=stated_order(text) or "",
        units=tuple(unit for unit, words in STATED_UNITS.items() if words.search(text)),
    )
    chosen = _joined(answers, prompt)
    layout = _layout_of(chosen, text, prompt, hints).validate(prompt or None)
    notes = [*layout.warnings]
    if chosen is answers.chosen:
        notes += _other_layouts(layout, answers, text, prompt, hints)
    else:
        notes.append("The reply holds several lists of different objects; they are taken together.")
    if answers.broken:
        at = answers.broken[1]
        notes.append(f"The reply breaks off after {text[max(0, at - 40) : at]!r}; the whole list before that is used.")
    if text[-1:].isdigit() and "\n" not in text[chosen.end :]:
        notes.append("The reply ends with a number: if it was cut off, that one is wrong.")
    if chosen.whole is None:
        notes += [*_tiny_objects(layout), *_repeated_objects(layout)]
    notes += [f"The prompt names {asked}, the layout has {has or 'none'}." for asked, has in left_out(prompt, layout)]
    return replace(layout, warnings=tuple(dict.fromkeys(notes)))


def _layout_of(answer: Answer, text: str, prompt: str, hints: Hints) -> Layout:
    """The layout that one answer of the reply means. Raises LayoutError."""
    if answer.whole is not None:
        layout = Layout.from_dict(answer.whole)
        return replace(layout, prompt=layout.prompt or prompt)
    entries = answer.entries
    if len(entries) > MAX_OBJECTS:
        raise TooManyObjectsError(f"{len(entries)} objects, {MAX_OBJECTS} are possible: ask for fewer")
    scene = dict(answer.scene)  # what is said nearest to the objects counts
    boxes, notes = place(entries, replace(hints, canvas=_canvas(scene.get("canvas"), text)))
    return Layout(
        objects=tuple(LayoutObject(entry.phrase, box) for entry, box in zip(entries, boxes, strict=True)),
        background=_text(scene, "background") or _line(text, "background") or "",
        negative=_text(scene, "negative") or _line(text, "negative") or "",
        prompt=prompt,
        warnings=tuple(notes),
    )


def _joined(answers: Answers, prompt: str) -> Answer:
    """The answer; if the reply gives its objects in several lists, all of them.

    That is so where the lists have no object in common and all objects are in the prompt.
    """
    parts = sorted((answers.chosen, *answers.rivals), key=lambda answer: answer.start)
    phrases = [{entry.phrase for entry in part.found if isinstance(entry, Entry)} for part in parts]
    nouns = [{" ".join(noun_words(phrase)[-1:]) for phrase in part} for part in phrases]
    different = sum(map(len, nouns)) == len(set().union(*nouns))
    if len(parts) == 1 or not prompt or not different or not all(phrases) or any(part.label for part in parts):
        return answers.chosen
    try:
        match_phrases([phrase for part in phrases for phrase in part], prompt)
    except PhraseNotInPromptError:
        return answers.chosen
    found = tuple(entry for part in parts for entry in part.found)
    scene = tuple(said for part in parts for said in part.scene)
    return Answer(parts[0].start, parts[-1].end, found, scene)


def _other_layouts(layout: Layout, answers: Answers, text: str, prompt: str, hints: Hints) -> Iterator[str]:
    for rival in answers.rivals:
        try:
            other = _layout_of(rival, text, prompt, hints).validate(prompt or None)
        except LayoutError:
            continue
        if not _same(layout, other):
            used = ", ".join(f"{item.phrase} {[round(edge, 2) for edge in item.box]}" for item in layout.objects[:3])
            yield f"The reply holds several layouts. Used is the one with {used or 'no objects'}; ask for one only."
            return


def _same(first: Layout, second: Layout) -> bool:
    """Whether two layouts have the same objects, by their nouns, in the same places."""
    remaining = list(second.objects)
    for item in first.objects:
        for other in remaining:
            near = all(abs(a - b) <= NEAR for a, b in zip(item.box, other.box, strict=True))
            if near and noun_words(item.phrase)[-1:] == noun_words(other.phrase)[-1:]:
                remaining.remove(other)
                break
        else:
            return False
    return not remaining


def _tiny_objects(layout: Layout) -> Iterator[str]:
    for item in layout.objects:
        x0, y0, x1, y1 = item.box
        width, height = x1 - x0, y1 - y0
        if min(width, height) < TINY_SIDE or width * height < TINY_AREA:
            yield f"Object {item.phrase!r} is tiny: {width:.1%} of the picture's width, {height:.1%} of its height."


def _repeated_objects(layout: Layout) -> Iterator[str]:
    for i, item in enumerate(layout.objects):
        if any(item.phrase == other.phrase and item.box == other.box for other in layout.objects[:i]):
            yield f"Object {item.phrase!r} is there more than once in the same place."


def _canvas(said: Any, text: str) -> tuple[int, int] | None:
    """The size in pixels that a reply names for its picture, in JSON or as the only "1024 x 768" of its text."""
    if isinstance(said, dict):
        said = [said.get("width"), said.get("height")]
    if isinstance(said, list | tuple) and len(said) == 2 and all(type(side) is int and side > 1 for side in said):
        return said[0], said[1]
    sizes = {(int(width), int(height)) for width, height in CANVAS.findall(text if said is None else str(said))}
    return sizes.pop() if len(sizes) == 1 else None


def _text(scene: dict[str, Any], name: str) -> str:
    value = scene.get(name)
    if value is not None and not isinstance(value, str):
        raise LayoutFormatError(f"{name!r} is {value!r}, expected a string")
    return " ".join((value or "").split())


def _line(text: str, name: str) -> str | None:
    """The rest of LMD's line "Background prompt: ..." or "Negative prompt: ...", None if there is no such line."""
    lines = re.findall(rf"^[ \t*#>-]*{name} prompt[ *]*:([^\n]*)$", text, flags=re.IGNORECASE | re.MULTILINE)
    return lines[-1].strip(" \t\r*") if lines else None
