"""Parses a sentence into a scene graph, by a small closed grammar of English captions.

A caption is a sequence of noun phrases and connectors.

- A preposition relates the noun phrases on either side of it: "a cup on a table next to a lamp" puts the table next to
  the lamp. After a verb, the subject stays the same: "a man wearing a hat next to a car" puts the man next to the car.
- Noun phrases joined by "and" share a direction. In "a dog and a cat to the left of a car" both are on the left. In
  "a dog above a cat and a car" the dog is above both: the sentence may mean the cat alone, and this satisfies either.
- "the cat" is the cat that was named before. "a cat" is a new one, except in a second statement about the same pair:
  "a cat above a dog and a dog above a cat".
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
OPEN_ENDED = {"left_of", "above", "surrounded_by"}  # hold for every group that "and" joins on their right side
BARE_PLURAL = 2  # the number of "cats" without a number word
BARE_SURROUNDING = 4  # the number of "cats" in "surrounded by cats"
HINT = "Say it as in 'a red circle to the left of a blue square', choose another provider, or draw the layout by hand."


@dataclass(eq=False)
class Group:
    """`count` objects of one phrase.

    `noun` is the head noun in the singular, `attributes` are the words before it. `scale` is the size that they ask
    for, 1 by default. `exact` is False where the prompt gives no number: "cats", "several cats". `text` is the noun
    phrase as the prompt has it.
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
    """What a prompt states. `absent` are the phrases of what must not be there, `background` those of the setting."""

    groups: list[Group] = field(default_factory=list)
    relations: list[GroupRelation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)


def parse(prompt: str) -> SceneGraph:
    """The scene graph that `prompt` states.

    Raises ProviderError for a prompt that names no object and no absence, that is longer than 4000 characters, or whose
    relation has no right side; TooManyObjectsError for more than 30 objects.
    """
    if len(prompt) > MAX_PROMPT:
        raise ProviderError(
            f"prompt {_short(prompt)} has {len(prompt)} characters, rules reads up to {MAX_PROMPT}. {HINT}"
        )
    frame, tokens = split_prompt(prompt)
    parser = _Parser(prompt)
    for token, following in zip_longest(tokens, tokens[1:]):
        parser.add(token, following)
    parser.end_clause()
    scene = parser.scene
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


class _Parser:
    """Builds the scene graph token by token.

    `statement` is the relation whose right side is not complete yet. `pending` are the groups since the last relation
    or position, `conjunctions` what joins each of them to the one before ("and", "," or None). `subjects` are the
    groups that the last relation or position was about: the cup in "a cup on a table and next to a lamp". `negated`
    holds after "without" or "no". `positions` were stated before their subject: "on the left, a dog".
    """

    def __init__(self, prompt: str):
        self.prompt = prompt
        self.scene = SceneGraph()
        self.negated = False
        self.positions: list[str] = []
        self._start_clause()

    def _start_clause(self) -> None:
        self.statement: _Statement | None = None
        self.pending: list[Group] = []
        self.conjunctions: list[str | None] = []
        self.subjects: list[Group] = []
        self.conjunction: str | None = None
        self.after_link = False

    def end_clause(self) -> None:
        if self.statement:
            self._require_right_side()
            self._state(self.statement, len(self.pending))
        self._start_clause()

    def add(self, token: Token, following: Token | None) -> None:
        if token.kind == "noun":
            self._add_noun(token.text, following)
            self.conjunction = None
        elif token.kind == "conjunction":
            self.conjunction = "and" if "and" in (token.value, self.conjunction) else ","
        elif token.kind in ("relation", "verb"):
            subjects = self._take_subjects()
            self.statement = _Statement(*token.value, token.text, subjects, token.kind == "verb")
        elif token.kind == "position":
            self._add_position(token.text, following)
        elif token.kind == "without":
            self.negated = True
            self.conjunction = None
        elif token.kind == "break":
            self.end_clause()
            self.negated = False
        self.after_link = token.kind == "link"

    def _add_noun(self, text: str, following: Token | None) -> None:
        words = text.split()
        adjectives_only = all(word in ADJECTIVES | {"and"} for word in words)
        if self.after_link and self.pending and adjectives_only:  # "a car that is red"
            group = self.pending[-1]
            group.phrase = _with_article(f"{text} {group.phrase.split(' ', 1)[-1]}")
            return
        awaited = self.statement is not None and not self.pending
        if words[-1] in PRONOUNS and all(word in DETERMINERS | PRONOUNS for word in words):
            if not self.negated:
                raise ProviderError(
                    f"rules cannot tell what {text!r} stands for in prompt {_short(self.prompt)}: repeat the noun"
                )
            self.statement = None
            return
        group = _parse_group(text)
        if group is None:
            return
        if group.count == 0 or (self.negated and not awaited and (self.conjunction is None or not starts_phrase(text))):
            self.negated = True
            self.scene.absent.append(_without_determiner(text))
            return
        self.negated = False
        place = group.noun in PLACES and group.count == 1
        style = not STYLE.isdisjoint(words)
        if awaited and (place or style) and self.statement.name in ("on", "inside", "next_to", "under"):
            self.subjects, self.statement = self.statement.subjects, None
            self.pending, self.conjunctions = list(self.subjects), ["and"] * len(self.subjects)
            self.scene.background.append(text)
        elif place and not self.scene.groups and following and following.kind in ("break", "without"):
            self.scene.background.append(text)  # "a kitchen with a table"
        elif not awaited and not starts_phrase(text) and style:
            self.scene.background.append(text)  # ", cinematic lighting"
        else:
            if awaited and self.statement.text == "in" and group.noun in CLOTHES:  # "a man in a hat"
                self.statement = self.statement._replace(flipped=True)
            self._add_group(self._named_before(group, words) or group)

    def _add_group(self, group: Group) -> None:
        if group not in self.scene.groups:
            self.scene.groups.append(group)
        self.pending.append(group)
        self.conjunctions.append(self.conjunction)
        for name in self.positions:
            self._locate(group, name, name.replace("_", " the "))
        self.positions = []

    def _named_before(self, group: Group, words: list[str]) -> Group | None:
        if words[0] not in DEFINITE:
            return None
        subjects = self.statement.subjects if self.statement and not self.pending else []
        for known in reversed(self.scene.groups):
            if known.noun == group.noun and known.attributes >= group.attributes and known not in subjects:
                return known
        return None

    def _add_position(self, text: str, following: Token | None) -> None:
        names = dict.fromkeys(POSITIONS[word] for word in text.replace("-", " ").split() if word in POSITIONS)
        if {"at_top", "at_bottom", "at_left", "at_right"} & names.keys():
            names.pop("at_middle", None)  # "at the top middle"
        starts = self.conjunction is not None and following is not None and following.kind == "noun"
        if starts or not (self.pending or self.subjects):
            self.end_clause()
            self.positions = list(names)
            return
        self.subjects = self._take_subjects()
        for subject, name in product(self.subjects, names):
            self._locate(subject, name, text)

    def _locate(self, subject: Group, name: str, text: str) -> None:
        self.scene.relations.append(GroupRelation(name, (subject,), f"{subject.text} {text}"))

    def _take_subjects(self) -> list[Group]:
        """The groups that the relation or position at hand is about. Records the relation before it."""
        fresh = self.pending
        if self.statement:
            self._require_right_side()
            first = len(self.pending) if self.conjunction else self.statement.others
            self._state(self.statement, first)
            fresh = self.pending[first:]
        if fresh:
            conjunctions = self.conjunctions[len(self.pending) - len(fresh) + 1 :]
            subjects = fresh if conjunctions[-1:] == ["and"] and None not in conjunctions else fresh[-1:]
        elif self.statement:
            # "a man wearing a hat next to a car": the man is next to it
            stays = self.conjunction or self.statement.verb
            subjects = self.statement.subjects if stays else self.pending[-1:]
        else:
            subjects = self.subjects
        self._start_clause()
        self.subjects = subjects
        return subjects

    def _state(self, statement: _Statement, size: int) -> None:
        """Records `statement`, whose right side is among the first `size` pending groups."""
        subjects, others = statement.subjects, self.pending[:size]
        if not subjects:  # "on a table, a cup"
            subjects, others = self.pending[statement.others :], self.pending[: statement.others]
        elif statement.name not in OPEN_ENDED or set(self.conjunctions[1:size]) - {"and"}:
            others = others[: statement.others]
        if statement.flipped:
            subjects, others = others, subjects
        if statement.name in ("next_to", "surrounded_by"):  # there is no room for every group that "and" joins
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
        size = len(self.pending)
        if size < self.statement.others and not (size == 1 and self.pending[0].count > 1):  # "between two cats"
            raise ProviderError(
                f"rules misses what stands after {self.statement.text!r} in prompt {_short(self.prompt)}. {HINT}"
            )


def _parse_group(text: str) -> Group | None:
    """The group that a noun phrase names, with count 0 for "no cats"; None for a text without a noun."""
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
    """Makes a second statement about two phrases that are related already one about the same two groups."""
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
