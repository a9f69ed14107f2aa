"""Sentence -> scene graph, by a small closed grammar of English captions.

A caption is read as noun phrases held together by connectors. A relation relates the noun phrases next to it: "a cup on
a table next to a lamp" puts the table next to the lamp; what follows a verb is still about its subject. What "and"
joins shares directions: in "a dog and a cat to the left of a car" both are, and in "a dog above a cat and a car" the
dog is above both, so that the sentence is satisfied whichever way it was meant. "the cat" is a cat named before;
"a cat" is a new one, except in a second statement about the same pair: "a cat above a dog and a dog above a cat".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product, zip_longest
from typing import NamedTuple

from ..errors import ProviderError, TooManyObjectsError
from ..layout import MAX_OBJECTS
from ..text.words import DETERMINERS, head_noun, singular
from .lexicon import (
    ADJECTIVES,
    CLOTHES,
    COLLECTIVES,
    DEFINITE,
    FILLERS,
    NUMBERS,
    PLACES,
    POSITIONS,
    PRONOUNS,
    SCALES,
    STYLE,
    VAGUE_NUMBERS,
    Token,
    split_prompt,
    starts_phrase,
)

MAX_PROMPT = 4000  # characters; a caption, not a document
GROWING = {"left_of", "above", "surrounded_by"}  # relations whose right side goes on over "and"
BARE_PLURAL = 2  # how many "cats" are
BARE_SURROUNDING = 4  # and how many in "surrounded by cats"
HINT = "Say it as in 'a red circle to the left of a blue square', choose another provider, or draw the layout by hand."


@dataclass(eq=False)
class Group:
    """`count` objects of one phrase. `exact` is False where the prompt gives no number: "cats", "several cats".

    `scale` is the size that the attributes ask for, 1 by default. `text` is the phrase as the prompt has it.
    """

    phrase: str
    count: int
    noun: str
    attributes: frozenset[str]
    scale: float
    exact: bool
    text: str


@dataclass(frozen=True, eq=False)
class GroupRelation:
    """A stated relation between groups; `text` is how the prompt words it.

    Of two groups: left_of, above, under, on, in_front_of, next_to, inside. Of one and all those around it: between,
    surrounded_by. Of one: at_left, at_right, at_top, at_bottom, at_middle.
    """

    name: str
    groups: tuple[Group, ...]
    text: str


@dataclass
class SceneGraph:
    groups: list[Group] = field(default_factory=list)
    relations: list[GroupRelation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)


def parse(prompt: str) -> SceneGraph:
    """The scene that `prompt` states.

    Raises ProviderError for a prompt that names no object and no absence, that is longer than 4000 characters, or whose
    relation has no right side; TooManyObjectsError for more than 30 objects.
    """
    if len(prompt) > MAX_PROMPT:
        raise ProviderError(
            f"prompt {_short(prompt)} has {len(prompt)} characters, rules reads up to {MAX_PROMPT}. {HINT}"
        )
    frame, tokens = split_prompt(prompt)
    reader = _Reader(prompt)
    for token, following in zip_longest(tokens, tokens[1:]):
        reader.read(token, following)
    reader.end_clause()
    scene = reader.scene
    scene.background = [text for text in [frame, *scene.background] if text]
    _merge_repeated_pairs(scene)
    if not scene.groups and not scene.absent:
        raise ProviderError(f"rules finds no object in prompt {_short(prompt)}. {HINT}")
    count = sum(group.count for group in scene.groups)
    if count > MAX_OBJECTS:
        listed = ", ".join(f"{group.count} × {group.phrase!r}" for group in scene.groups[:MAX_OBJECTS])
        raise TooManyObjectsError(f"{count} objects in prompt {_short(prompt)} ({listed}), {MAX_OBJECTS} are possible")
    return scene


class _Statement(NamedTuple):
    """A relation whose right side is not complete yet."""

    name: str
    flipped: bool
    text: str
    subjects: list[Group]
    verb: bool

    @property
    def others(self) -> int:
        """How many groups the right side takes at least."""
        return 2 if self.name == "between" else 1


class _Reader:
    """Builds the scene token by token.

    `run` are the groups since the last relation or position, `joints` what joins each of them to the one before.
    `subjects` are those that the last relation or position was about: "a cup on a table and next to a lamp".
    """

    def __init__(self, prompt: str):
        self.prompt = prompt
        self.scene = SceneGraph()
        self.negated = False
        self.positions: list[str] = []  # stated before their subject: "on the left, a dog"
        self._start_clause()

    def _start_clause(self) -> None:
        self.statement: _Statement | None = None
        self.run: list[Group] = []
        self.joints: list[str | None] = []
        self.subjects: list[Group] = []
        self.joint: str | None = None
        self.linked = False

    def end_clause(self) -> None:
        if self.statement:
            self._require_right_side()
            self._state(self.statement, len(self.run))
        self._start_clause()

    def read(self, token: Token, following: Token | None) -> None:
        if token.kind == "noun":
            self._read_noun(token.text, following)
            self.joint = None
        elif token.kind == "joint":
            self.joint = "and" if "and" in (token.value, self.joint) else ","
        elif token.kind in ("relation", "verb"):
            subjects = self._take_subjects()
            self.statement = _Statement(*token.value, token.text, subjects, token.kind == "verb")
        elif token.kind == "position":
            self._read_position(token.text, following)
        elif token.kind == "without":
            self.negated = True
            self.joint = None
        elif token.kind == "break":
            self.end_clause()
            self.negated = False
        self.linked = token.kind == "link"

    def _read_noun(self, text: str, following: Token | None) -> None:
        words = text.split()
        if self.linked and self.run and all(word in ADJECTIVES | {"and"} for word in words):  # "a car that is red"
            group = self.run[-1]
            group.phrase = _with_article(f"{text} {group.phrase.split(' ', 1)[-1]}")
            return
        asks = self.statement is not None and not self.run
        if words[-1] in PRONOUNS and all(word in DETERMINERS | PRONOUNS for word in words):
            if not self.negated:
                raise ProviderError(
                    f"rules cannot tell what {text!r} stands for in prompt {_short(self.prompt)}: repeat the noun"
                )
            self.statement = None
            return
        group = _read_group(text)
        if group is None:
            return
        if group.count == 0 or (self.negated and not asks and (self.joint is None or not starts_phrase(text))):
            self.negated = True
            self.scene.absent.append(_without_determiner(text))
            return
        self.negated = False
        place = group.noun in PLACES and group.count == 1
        style = not STYLE.isdisjoint(words)
        if asks and (place or style) and self.statement.name in ("on", "inside", "next_to", "under"):
            self.subjects, self.statement = self.statement.subjects, None
            self.run, self.joints = list(self.subjects), ["and"] * len(self.subjects)
            self.scene.background.append(text)
        elif place and not self.scene.groups and following and following.kind in ("break", "without"):
            self.scene.background.append(text)  # "a kitchen with a table"
        elif not asks and not starts_phrase(text) and style:
            self.scene.background.append(text)  # ", cinematic lighting"
        else:
            if asks and self.statement.text == "in" and group.noun in CLOTHES:  # "a man in a hat"
                self.statement = self.statement._replace(flipped=True)
            self._add(self._named_before(group, words) or group)

    def _add(self, group: Group) -> None:
        if group not in self.scene.groups:
            self.scene.groups.append(group)
        self.run.append(group)
        self.joints.append(self.joint)
        for name in self.positions:
            self._locate(group, name, name.replace("_", " the "))
        self.positions = []

    def _named_before(self, group: Group, words: list[str]) -> Group | None:
        if words[0] not in DEFINITE:
            return None
        subjects = self.statement.subjects if self.statement and not self.run else []
        for known in reversed(self.scene.groups):
            if known.noun == group.noun and known.attributes >= group.attributes and known not in subjects:
                return known
        return None

    def _read_position(self, text: str, following: Token | None) -> None:
        names = dict.fromkeys(POSITIONS[word] for word in text.replace("-", " ").split() if word in POSITIONS)
        if {"at_top", "at_bottom", "at_left", "at_right"} & names.keys():
            names.pop("at_middle", None)  # "at the top middle"
        starts = self.joint is not None and following is not None and following.kind == "noun"
        if starts or not (self.run or self.subjects):
            self.end_clause()
            self.positions = list(names)
            return
        self.subjects = self._take_subjects()
        for subject, name in product(self.subjects, names):
            self._locate(subject, name, text)

    def _locate(self, subject: Group, name: str, text: str) -> None:
        self.scene.relations.append(GroupRelation(name, (subject,), f"{subject.text} {text}"))

    def _take_subjects(self) -> list[Group]:
        """What the relation or position read now is about. States the relation before it."""
        fresh = self.run
        if self.statement:
            self._require_right_side()
            first = len(self.run) if self.joint else self.statement.others
            self._state(self.statement, first)
            fresh = self.run[first:]
        if fresh:
            joints = self.joints[len(self.run) - len(fresh) + 1 :]
            subjects = fresh if joints[-1:] == ["and"] and None not in joints else fresh[-1:]
        elif self.statement:
            stays = self.joint or self.statement.verb  # "a man wearing a hat next to a car": the man is next to it
            subjects = self.statement.subjects if stays else self.run[-1:]
        else:
            subjects = self.subjects
        self._start_clause()
        self.subjects = subjects
        return subjects

    def _state(self, statement: _Statement, size: int) -> None:
        """Record `statement` with its right side among the first `size` groups of the run."""
        subjects, others = statement.subjects, self.run[:size]
        if not subjects:  # "on a table, a cup"
            subjects, others = self.run[statement.others :], self.run[: statement.others]
        elif statement.name not in GROWING or set(self.joints[1:size]) - {"and"}:
            others = others[: statement.others]
        if statement.flipped:
            subjects, others = others, subjects
        if statement.name in ("next_to", "surrounded_by"):  # not all that "and" joins finds room there
            subjects = subjects[-1:]
        for subject in subjects:
            if statement.name in ("between", "surrounded_by"):
                self._relate(statement, subject, others)
            else:
                for other in others:
                    self._relate(statement, subject, [other])

    def _relate(self, statement: _Statement, subject: Group, others: list[Group]) -> None:
        if statement.name == "surrounded_by":
            for group in others:
                if not group.exact:
                    group.count = max(group.count, BARE_SURROUNDING)
        left, right = ([subject], others) if not statement.flipped else (others, [subject])
        text = f"{_listing(left)} {statement.text} {_listing(right)}".strip()
        self.scene.relations.append(GroupRelation(statement.name, (subject, *others), text))

    def _require_right_side(self) -> None:
        size = len(self.run)
        if size < self.statement.others and not (size == 1 and self.run[0].count > 1):  # "between two cats"
            raise ProviderError(
                f"rules misses what stands after {self.statement.text!r} in prompt {_short(self.prompt)}. {HINT}"
            )


def _read_group(text: str) -> Group | None:
    """The group that a noun phrase names, of count 0 for "no cats"; None where it holds no noun."""
    words = text.split()
    count, vague, determined = None, False, False
    while words:
        word, following = words[0], words[1:2]
        if word in VAGUE_NUMBERS or (word in COLLECTIVES and following == ["of"]):
            count, vague = (VAGUE_NUMBERS | COLLECTIVES)[word], True
        elif (number := _number(word)) is not None and (word not in ("pair", "couple", "trio") or following == ["of"]):
            count = number if count is None else _combined(count, number)
            vague = False
        elif word in DETERMINERS:
            determined = True
        elif word not in FILLERS:
            break
        words = words[1:]
    while words and words[-1] in FILLERS:
        words.pop()
    if not words:
        return None
    head = head_noun(words)
    noun = singular(words[head])
    plural = noun != words[head]
    if vague and not plural:  # "some water"
        count = None
    exact = not plural if count is None else not vague
    phrase = " ".join([*words[:head], noun, *words[head + 1 :]])
    if determined or plural or count is not None:
        phrase = _with_article(phrase)
    if count is None:
        count = BARE_PLURAL if plural else 1
    scale = next((SCALES[word] for word in words[:head] if word in SCALES), 1.0)
    return Group(phrase, count, noun, frozenset(words[:head]), scale, exact, text)


def _number(word: str) -> int | None:
    if word.isdecimal():
        return int(word) if len(word) < 6 else 10**6
    parts = [NUMBERS.get(part) for part in word.split("-")]
    if None in parts:
        return None
    return parts[0] if len(parts) == 1 else _combined(*parts[:2])


def _combined(first: int, second: int) -> int:
    if first >= 20 and first % 10 == 0 and 0 < second < 10:  # twenty five
        return first + second
    return first * second  # two dozen


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _without_determiner(text: str) -> str:
    words = text.split()
    while len(words) > 1 and (words[0] in DETERMINERS or words[0] in ("no", "zero", "0")):
        words = words[1:]
    return " ".join(words)


def _listing(groups: list[Group]) -> str:
    return " and ".join(group.text for group in groups)


def _merge_repeated_pairs(scene: SceneGraph) -> None:
    """A second statement about two phrases that are related already is about the same two groups."""
    same: dict[Group, Group] = {}
    seen: dict[tuple, tuple[Group, ...]] = {}
    for relation in scene.relations:
        if len(relation.groups) == 2:
            pair = sorted(relation.groups, key=lambda group: (group.phrase, group.count))
            known = seen.setdefault(tuple((group.phrase, group.count) for group in pair), tuple(pair))
            if not set(known) & set(pair):
                same.update(zip(pair, known, strict=True))
    scene.groups = [group for group in scene.groups if group not in same]
    scene.relations = [
        GroupRelation(relation.name, tuple(same.get(group, group) for group in relation.groups), relation.text)
        for relation in scene.relations
    ]


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 200 else prompt[:200] + "…")
