"""Which part of a reply is its answer: the reasoning is left out, rejected examples and drafts are told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from ..errors import LayoutError, LayoutFormatError
from .entries import Entry, entries_of, entries_of_map, is_object, is_phrase_map, plain
from .listings import object_lines, tables
from .literals import LiteralReader

MAX_ANSWERS = 50  # of a reply; earlier ones are not looked at
ANSWER_LABELS = ("", "objects", "layout", "answer")
LIST_KEYS = frozenset("objects layout elements items boxes bboxes boundingboxes".split())
PHRASE_LISTS = ("phrases", "labels", "names", "objects", "classes", "categories")
BOX_LISTS = ("boxes", "bboxes", "boundingboxes")
SCENE_KEYS = {
    "background": "background",
    "backgroundprompt": "background",
    "negative": "negative",
    "negativeprompt": "negative",
    "canvas": "canvas",
    "canvassize": "canvas",
    "imagesize": "canvas",
    "size": "canvas",
    "resolution": "canvas",
}

REASONING = re.compile(
    r"<(?P<close>/)?(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad)>|\[(?P<slash>/)?THINK\]",
    re.IGNORECASE,
)
FINAL_CHANNEL = "<|channel|>final<|message|>"  # of gpt-oss

# What a reply says before or after a list that is not its answer; compared with a sentence in lower case.
_BAD = r"(?:bad|wrong|incorrect|invalid|poor|faulty|flawed|rejected|discarded|mistaken|worse|unacceptable)"
_NOUN = (
    r"(?:answer|example|layout|version|reply|output|response|draft|attempt|option|format|approach|placement|idea|choice"
    r"|solution|result|one|case|arrangement)"
)
_NEVER = r"(?:do not|don['’]?t|never|must not|mustn['’]?t|should not|shouldn['’]?t|avoid|not)"
_SAY = r"(?:do|write|writing|answer|answering|use|using|output|return|reply|give|produce|say|send|copy)(?: with)?"
_FIT = r"(?:right|correct|good|acceptable|allowed|valid|wanted|okay|ok)"
VERDICT = re.compile(_BAD)
REJECTED_BEFORE = re.compile(
    rf"(?<!no )(?<!not )(?<!any )(?<!without )(?<!avoid )\b{_BAD}\b[\w\s,-]{{0,20}}\b{_NOUN}\b"
    rf"|^\W*(?:{_BAD}|{_NEVER}|counter-?example|anti-?pattern)\b\W*(?:(?:like|do|this|these|{_NOUN}|[a-d1-9])\b\W*){{0,2}}"
    r"(?:\([^()]*\)\W*)?$"
    rf"|\b{_NEVER}\s+(?:[\w'’]+\s+){{0,4}}(?:like(?: this| that| these)?|such as)\W*$"
    rf"|\b{_NEVER}\s+{_SAY}(?:\s+\w+){{0,3}}\W*$"
    r"|\b(?:instead of|rather than|unlike|as opposed to|replac(?:e|es|ing)|not|avoid(?:ed|ing)?|against)\W*$"
    r"|\b(?:mistakes?|(?:what|how) not to)\b[\w\s]{0,20}\W*$"
    rf"|\bnot (?:the|an?|my) (?:\w+ )?{_NOUN}\W*$"
    rf"|\b(?:would|will|is|are|was|were)\s+(?:be\s+)?(?:{_BAD}|not {_FIT})[^\w.!?]*$"
    rf"|^\W*(?:{_BAD}|avoid)\s*[:(—]"
    r"|(?<!~)~~\s*$|<!--\s*$|[❌✗✘🚫]"
)
MENDED = re.compile(r"\b(?:fix\w*|corrected|repaired|improved)\b|\b(?:was|were|earlier|previous|last)\b.*[.!]$")
REJECTED_AFTER = re.compile(
    r"(?:(?P<other>\W*(?:which|this|that|it|the above)\s+)|[^\w\n]*)"
    r"(?:is|are|was|were|would be|will be|would have been|would(?= not)|is(?=n't)|would(?=n't))"
    rf"(?:\s+(?:an?\s+)?(?:(?!not|never|no\b)\w+\s)?(?:{_BAD}|a mistake|useless)|(?: not|n['’]t)(?: be)? {_FIT})\b"
    r"(?(other)(?![^.!?\n]{0,60}[\[{`]))"  # about the next list: "This would be wrong: [...]"
    rf"|[^\w\n]*(?:an?\s+)?{_BAD}\b(?!\s+\w*:)|[^\w\n]*(?:don['’]?t|do not|never) {_SAY}\b|[^\w\n]*[❌✗✘🚫]"
)
DRAFT_BEFORE = re.compile(
    r"\b(?:draft|first (?:attempt|try|version|idea|guess|pass|layout)|initial(?:ly)?|example|e\.g\.|previous(?:ly)?"
    r"|earlier|original(?:ly)?|old|alternative(?:ly)?|another (?:option|layout|possibility|version)|option [b-z2-9])\b"
)
FINAL_BEFORE = re.compile(r"\b(?:final(?:ly)?|corrected|improved|better|revised|fixed|updated)\b")
CLOSING_MARK = re.compile(r"</[^<>]{0,40}>|^~~|-->")
HEADING = re.compile(r"^(?:#+[^\n]*|\*\*[^\n]*\*\*:?)$", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
OPENER = re.compile(r"(?:(?:```|~~~)\s?\w{0,12}|(?P<name>\b[\w.]{1,40})\s{0,3}=)\s*$")
REJECTING_KEYS = ("bad", "wrong", "incorrect", "reject", "invalid", "avoid", "counterexample")
DRAFT_KEYS = ("draft", "example", "initial", "previous", "original", "alternative", "before")
REJECTED, DRAFT = "rejected", "draft"


@dataclass(frozen=True, eq=False)
class Answer:
    """A list of objects in a reply, and what was said around it.

    `found` has an error in the place of what cannot be read. `whole` is a layout in this project's own JSON. `scene` is
    what the dictionaries around it say about background, negative and canvas. `single` is an object outside of a list.
    `label` is "rejected" if the reply calls the list wrong, "draft" if it calls it an example, a draft or an
    alternative.
    """

    start: int
    end: int
    found: tuple[Entry | LayoutError, ...] = ()
    scene: tuple[tuple[str, Any], ...] = ()
    whole: dict | None = None
    label: str = ""
    single: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The objects; raises the first error among them."""
        for entry in self.found:
            if isinstance(entry, LayoutError):
                raise entry
        return self.found


@dataclass(frozen=True)
class Answers:
    """The answer of a reply, others that it gives too, and start and end of a list after them that breaks off."""

    chosen: Answer
    rivals: tuple[Answer, ...]
    broken: tuple[int, int] | None


def without_reasoning(reply: str) -> str:
    """The reply without what it put between marks of reasoning. Raises LayoutFormatError if nothing else is there."""
    reply = reply[reply.rfind(FINAL_CHANNEL) + len(FINAL_CHANNEL) :] if FINAL_CHANNEL in reply else reply
    parts: list[str] = []
    position, thinking = 0, False
    for mark in REASONING.finditer(reply):
        closes = bool(mark["close"] or mark["slash"])
        if closes and not thinking:
            parts = []  # the start of the reasoning was left out
        elif not closes and not thinking:
            parts.append(reply[position : mark.start()])
        thinking, position = not closes, mark.end()
    if not thinking:
        parts.append(reply[position:])
    elif not any(character in "[{(|" for part in parts for character in part):
        raise LayoutFormatError("it ends inside the model's reasoning; allow the model a longer reply")
    return "".join(parts)


def find_answers(text: str) -> Answers:
    """The answer in `text`: the last list of objects that is neither rejected nor a draft.

    Lists in JSON or Python and Markdown tables come before single objects, and these before objects on lines. Raises
    LayoutFormatError if there is none, or only a part of one.
    """
    reader = LiteralReader(text)
    literals, singles = _in_literals(text, reader)
    listed = [Answer(table.start, table.end, table.found) for table in tables(text)]
    lists = _labelled(text, sorted(literals + listed, key=lambda answer: answer.start)[-MAX_ANSWERS:])
    if not lists and reader.broken:
        raise _breaks_off(text, reader.broken[-1][1])
    singles = [single for single in _labelled(text, singles, together=True) if single.label != REJECTED]
    found = tuple(chain.from_iterable(single.found for single in singles))
    joined = [Answer(singles[0].start, singles[-1].end, found, label=singles[0].label)] if singles else []
    spans = [(answer.start, answer.end) for answer in [*lists, *singles]]
    lines = [Answer(group.start, group.end, group.found) for group in object_lines(_without(text, spans))]
    lines = _labelled(text, lines[-MAX_ANSWERS:])

    kinds = [[answer for answer in kind if answer.label != REJECTED] for kind in (lists, joined, lines)]
    kind = next((kind for kind in kinds if kind), None)
    if kind is None:
        rejected = next((answer for answer in [*lists, *lines]), None)
        if rejected:
            raise LayoutFormatError(f"its only layout is one that it calls wrong: {text[rejected.start :][:100]!r}")
        raise LayoutFormatError(
            'it holds no list of objects, expected for example [{"phrase": "a cat", "box": [0.1, 0.2, 0.6, 0.9]}]'
        )
    chosen = next((answer for answer in reversed(kind) if answer.label != DRAFT), kind[-1])
    for start, end in reader.broken[-MAX_ANSWERS:]:
        inside = start < chosen.start and _stays_open(text, start, chosen.start)
        if inside or (chosen.label == DRAFT and start >= chosen.end):
            raise _breaks_off(text, end)
    others = chain(*(other for other in kinds if other is not kind))
    later = [answer for answer in [*kind, *others] if answer.start > chosen.start and answer.start >= chosen.end]
    rivals = [answer for answer in kind if answer is not chosen and answer.label != DRAFT]
    broken = [(start, end) for start, end in reader.broken if start >= chosen.end and re.search(r"\d", text[start:end])]
    return Answers(chosen, tuple(dict.fromkeys(rivals + later)), broken[-1] if broken else None)


def _breaks_off(text: str, at: int) -> LayoutFormatError:
    return LayoutFormatError(f"its list breaks off after {text[max(0, at - 40) : at]!r}")


def _stays_open(text: str, start: int, end: int) -> bool:
    """Whether a bracket opened at `start` is still open at `end`."""
    between = text[start:end]
    return sum(map(between.count, "[({")) > sum(map(between.count, "])}"))


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with blanks in the place of the spans."""
    parts, position = [], 0
    for start, end in sorted(spans):
        if start >= position:
            parts += [text[position:start], " " * (end - start)]
            position = end
    return "".join([*parts, text[position:]])


def _in_literals(text: str, reader: LiteralReader) -> tuple[list[Answer], list[Answer]]:
    """The lists of objects, and the single objects, among JSON and Python literals."""
    lists, singles = [], []
    for start, end, value in reader.values():
        if value == [] and _is_answer(text, start):
            lists.append(Answer(start, end))
            continue
        found = [replace(answer, start=start, end=end) for answer in _in_value(value, (), ())]
        full = [answer for answer in found if answer.found or answer.whole]
        for answer in full or found:
            (singles if answer.single else lists).append(answer)
    return lists, singles


def _is_answer(text: str, start: int) -> bool:
    """Whether the empty list at `start` stands on its own: the one in RealCompo's "Position: []" does not."""
    before = text[max(0, start - 20) : start].rpartition("\n")[2]
    return re.sub(r"\W", "", before).lower() in ANSWER_LABELS


def _in_value(value: Any, path: tuple[str, ...], scene: tuple[tuple[str, Any], ...]) -> Iterator[Answer]:
    """The answers in a literal. `path` has the keys that lead to it, `scene` what the dictionaries around it say."""
    label = _label_of_keys(path)
    if is_object(value):
        yield Answer(0, 0, _read(entries_of, [value]), scene, label=label, single=True)
    elif isinstance(value, dict):
        if isinstance(value.get("version"), int) and isinstance(value.get("objects"), list):
            yield Answer(0, 0, whole=value, label=label)
            return
        keys = {plain(key): key for key in value}
        if any(isinstance(said, str) and VERDICT.fullmatch(said.lower()) for said in value.values()):
            label = REJECTED
            path += ("wrong",)
        scene += tuple((name, value[keys[key]]) for key, name in SCENE_KEYS.items() if key in keys)
        if {"width", "height"} <= keys.keys():
            scene += (("canvas", [value[keys["width"]], value[keys["height"]]]),)
        if pairs := _parallel_lists({key: value[name] for key, name in keys.items()}):
            yield Answer(0, 0, _read(entries_of, pairs), scene, label=label)
        elif is_phrase_map(value):
            yield Answer(0, 0, _read(entries_of_map, [value]), scene, label=label)
        else:
            for key, inner in value.items():
                if not inner and isinstance(inner, list | dict) and plain(key) in LIST_KEYS:
                    yield Answer(0, 0, scene=scene, label=label)
                elif isinstance(inner, list | tuple | dict):
                    yield from _in_value(inner, (*path, plain(key)), scene)
    elif isinstance(value, list | tuple):
        if isinstance(value, tuple) and len(value) == 1 and is_object(value[0]):  # objects.append(("a cat", [...]))
            yield from _in_value(value[0], path, scene)
        elif any(map(is_object, value)):
            yield Answer(0, 0, _read(entries_of, value), scene, label=label)
        elif value and all(map(is_phrase_map, value)):
            yield Answer(0, 0, _read(entries_of_map, value), scene, label=label)
        else:
            for inner in value:
                if isinstance(inner, list | tuple | dict):
                    yield from _in_value(inner, path, scene)


def _read(read: Callable[[Any], Iterator[Entry]], values: Iterable) -> tuple[Entry | LayoutError, ...]:
    found: list[Entry | LayoutError] = []
    for value in values:
        try:
            found += read(value)
        except LayoutError as error:
            found.append(error)
    return tuple(found)


def _parallel_lists(keys: dict[str, Any]) -> list[dict] | None:
    """Phrases and boxes that stand in two lists: {"labels": ["a cat"], "boxes": [[0.1, 0.2, 0.4, 0.8]]}."""
    phrases = next((keys[key] for key in PHRASE_LISTS if isinstance(keys.get(key), list) and keys[key]), None)
    boxes = next((keys[key] for key in BOX_LISTS if isinstance(keys.get(key), list) and keys[key]), None)
    if not phrases or not boxes or not all(isinstance(phrase, str) for phrase in phrases):
        return None
    if not all(isinstance(box, list | tuple) for box in boxes):
        return None
    if len(phrases) != len(boxes):
        boxes = [f"one of {len(boxes)} for {len(phrases)} phrases"] * len(phrases)
    return [{"label": phrase, "box": box} for phrase, box in zip(phrases, boxes, strict=True)]


def _label_of_keys(path: tuple[str, ...]) -> str:
    if any(word in key for key in path for word in REJECTING_KEYS):
        return REJECTED
    return DRAFT if any(key.startswith(DRAFT_KEYS) for key in path) else ""


def _labelled(text: str, answers: list[Answer], together: bool = False) -> list[Answer]:
    """The answers with the labels that the text around them gives them.

    With `together`, a label also counts for the answers after it as long as there are no words between.
    """
    labelled: list[Answer] = []
    position, start, label = 0, -1, ""
    for answer in answers:
        between = text[position : answer.start]
        if answer.start != start and not (together and labelled and not any(map(str.isalpha, between))):
            label = _label(text, position, answer)
        position, start = answer.end, answer.start
        labelled.append(replace(answer, label=answer.label or label))
    return labelled


def _label(text: str, begin: int, answer: Answer) -> str:
    before = text[max(begin, answer.start - 400) : answer.start]
    before = CLOSING_MARK.sub(" ", before) if begin else before  # of the answer before
    headings = HEADING.findall(before)
    name = ""
    while opener := OPENER.search(before):
        name = opener["name"] or name
        before = before[: opener.start()]
    sentences = SENTENCE_END.split(before.strip()) or [""]
    lead = sentences[-1]
    if lead[:1].islower():  # a line of a longer sentence
        lead = " ".join(sentences[-2:])
    leads = [said.lower().replace("_", " ").strip() for said in (lead, name, *headings[-1:]) if said]
    if any(REJECTED_BEFORE.search(said) and not MENDED.search(said) for said in leads):
        return REJECTED
    if REJECTED_AFTER.match(text[answer.end : answer.end + 120].lower().replace("`", " ")):
        return REJECTED
    return DRAFT if any(DRAFT_BEFORE.search(said) and not FINAL_BEFORE.search(said) for said in leads) else ""
