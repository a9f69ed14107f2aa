"""Reads a prompt into a scene graph: which objects it names, how many, and how they stand to each other.

A dependency parser (`text.parser`) says what depends on what. Before it runs, connectors of several words become one
preposition ("to the left of" is parsed as "beside"), so that they attach as a whole. Then:

- A noun with its modifiers is an object; "a herd of five zebras" is five. Frames ("a photo of"), settings ("in a park"),
  styles, parts of a body and abstract nouns are not.
- A preposition relates its object to what it depends on; behind a verb that is the verb's subject. A verb relates its
  object to its subject.
- Nouns joined by "and" share a direction: in "a dog and a cat to the left of a car" both are on the left. In "a dog
  above a cat and a car" the dog is above both: the sentence may mean the cat alone, and this satisfies either.
- "the cat", a pronoun and "the other" are what was named before. "a cat" is a new one, except in a second statement
  about the same pair: "a cat above a dog and a dog above a cat".

Prompts in tags ("1girl, long hair, park") are read tag by tag; a tag that begins with a verb or a preposition is about
the first object. What cannot be read is left out with a warning that quotes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

from ..errors import ProviderError, TooManyObjectsError
from ..layout import MAX_OBJECTS
from ..text.parser import Token, parse as parse_tokens, tokens_of
from ..text.words import DETERMINERS, singular
from . import vocabulary as v
from .language import other_language
from .markup import plain
from .profiles import usable_profiles

MAX_PROMPT = 4000  # characters; a caption, not a document
OPEN_ENDED = {"left_of", "above", "surrounded_by"}  # hold for every group that "and" joins on their right side
BESIDES = {"next_to", "surrounded_by"}  # there is no room for every group that "and" joins on their left side
HINT = "Say it as in 'a red circle to the left of a blue square', choose another provider, or draw the layout by hand."

MODIFIERS = {"det", "amod", "compound", "nummod", "nmod", "poss", "quantmod", "predet", "advmod", "npadvmod", "punct"}
MODIFIERS |= {"case", "neg", "preconj"}
SUBJECTS = {"nsubj", "nsubjpass", "csubj", "expl"}
OBJECTS = {"dobj", "dative", "attr", "oprd"}
BOORU = re.compile(r"(\d+)\+?(girl|boy|man|woman|cat|dog|other|person|people)s?", re.IGNORECASE)


@dataclass(eq=False)
class Group:
    """`count` objects of one phrase.

    `noun` is the head noun in the singular, `attributes` are the words before it. `scale` is the size that they and the
    thing's own size ask for, 1 by default. `exact` is False where the prompt gives no number: "cats", "several cats".
    `text` is the noun phrase as the prompt has it.
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

    Of two groups: left_of, above, under, on, in_front_of, next_to, inside, held, worn (on_head, on_face, at_neck,
    on_feet). Of one and all those around it: between, surrounded_by. Of one: at_left, at_right, at_top, at_bottom,
    at_middle.
    """

    name: str
    groups: tuple[Group, ...]
    text: str


@dataclass
class SceneGraph:
    """What a prompt states. `absent` are the phrases of what must not be there, `background` those of the setting.

    `warnings` quote what was left out.
    """

    groups: list[Group] = field(default_factory=list)
    relations: list[GroupRelation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def parse(prompt: str) -> SceneGraph:
    """The scene graph that `prompt` states.

    Raises ProviderError for a prompt that names no object and no absence, that is longer than 4000 characters or in
    another language than English; TooManyObjectsError for more than 30 objects.
    """
    if len(prompt) > MAX_PROMPT:
        raise ProviderError(
            f"prompt {_short(prompt)} has {len(prompt)} characters, rules reads up to {MAX_PROMPT}. {HINT}"
        )
    text, marked = plain(prompt)
    if language := other_language(text):
        raise ProviderError(f"rules reads English, prompt {_short(prompt)} is {language}: {_who_else()}")
    text, comparisons = _without_comparisons(text)
    scene = SceneGraph()
    reader = _Scene(prompt, text, scene)
    segments = _segments(text)
    in_tags = marked or _are_tags([text[start:end] for start, end in segments])
    for start, end in segments if in_tags else _sentences(text):
        _Sentence(reader, text, start, end, in_tags).read()
    for comparison in comparisons:
        comparison(scene)
    _merge_repeated_pairs(scene)
    _set_scales(scene)
    if not scene.groups and not scene.absent:
        raise ProviderError(f"rules finds no object in prompt {_short(prompt)}. {HINT}")
    count = sum(group.count for group in scene.groups)
    if count > MAX_OBJECTS:
        listed = ", ".join(f"{group.count} × {group.phrase!r}" for group in scene.groups[:MAX_OBJECTS])
        raise TooManyObjectsError(f"{count} objects in prompt {_short(prompt)} ({listed}), {MAX_OBJECTS} are possible")
    return scene


# The text in pieces ------------------------------------------------------------------------------------------------


def _segments(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[^,.;!?\n]+", text) if match[0].strip()]


def _sentences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"(?:[^.;!?\n]|\.(?=\w))+", text) if match[0].strip()]


def _are_tags(segments: list[str]) -> bool:
    """Whether the parts between commas are tags, not clauses: a booru tag, a tag of quality, or many short parts."""
    words = [segment.lower().split() for segment in segments]
    if any(BOORU.fullmatch(word) for segment in words for word in segment):
        return True
    styled = [segment for segment in words if len(segment) <= 4 and not v.STYLE.isdisjoint(segment)]
    if len(segments) > 1 and styled:
        return True
    bare = [segment for segment in words if len(segment) <= 3 and segment[0] not in DETERMINERS | v.NUMBERS.keys()]
    return len(segments) >= 5 and 2 * len(bare) > len(segments)


_COMPARED_NUMBERS = re.compile(
    r",?\s*(?:and |where |while |but )?the number of (?:the )?(?P<one>[\w -]+?) (?:is|are|being) "
    r"(?P<how>more|greater|larger|bigger|higher|less|fewer|smaller|lower|equal|the same)(?: than| to| as)?"
    r"(?: that| those| the number)?(?: of)?(?: the)? (?P<other>[\w -]+)",
    re.IGNORECASE,
)
_MORE_THAN = re.compile(r"\b(?P<how>more|fewer|less) (?P<one>[\w -]+?) (?P<than>than) (?P<other>[\w-]+)", re.IGNORECASE)
_MORE = {"more", "greater", "larger", "bigger", "higher"}
_FEWER = {"less", "fewer", "smaller", "lower"}


def _without_comparisons(text: str) -> tuple[str, list[Callable[[SceneGraph], None]]]:
    """`text` without its statements about numbers, and functions that make a scene true to them."""
    found: list[Callable[[SceneGraph], None]] = []

    def take(match: re.Match, kept: str) -> str:
        one, other, how = match["one"].split()[-1], match["other"].split()[-1], match["how"].lower()
        found.append(lambda scene: _compare(scene, singular(one), singular(other), how))
        return kept.ljust(len(match[0]))[: len(match[0])]

    text = _COMPARED_NUMBERS.sub(lambda match: take(match, ""), text)
    # "more apples than oranges" -> "some apples and  oranges"
    return _MORE_THAN.sub(
        lambda match: take(
            match,
            "some".ljust(len(match["how"]))[: len(match["how"])]
            + match[0][len(match["how"]) :].replace(" than ", " and  ", 1),
        ),
        text,
    ), found


def _compare(scene: SceneGraph, one: str, other: str, how: str) -> None:
    """Sets the number that the prompt left open so that the comparison holds."""
    groups = [
        next((g for g in scene.groups if singular(g.noun) == noun or g.noun == noun), None) for noun in (one, other)
    ]
    if None in groups or groups[0] is groups[1]:
        return
    first, second = groups
    more = 1 if how in _MORE else -1 if how in _FEWER else 0
    open_one, fixed, sign = (second, first, -more) if first.exact or not second.exact else (first, second, more)
    if not fixed.exact:
        fixed.count = 2 if sign > 0 or more == 0 else 3
    open_one.count = max(1, fixed.count + sign)
    if open_one.count == fixed.count and sign < 0:
        fixed.count += 1


# A sentence --------------------------------------------------------------------------------------------------------


@dataclass
class _Unit:
    """A token for the parser: a word, or a connector of several words. `kind` is "" for a word."""

    token: Token
    kind: str = ""
    value: object = None

    @property
    def word(self) -> str:
        return self.token.text.lower()


class _Scene:
    """The scene graph so far, and what later words can refer to."""

    def __init__(self, prompt: str, plain_text: str, scene: SceneGraph):
        self.prompt, self.plain = prompt, plain_text
        self.scene = scene
        self.main: list[Group] = []  # what tags without a subject are about
        self.last_one: Group | None = None  # of which "the other" is another

    def text(self, start: int, end: int) -> str:
        """A piece of the prompt as it stands; without its markup if it holds any."""
        stands, plain_text = (" ".join(text[start:end].split()) for text in (self.prompt, self.plain))
        return stands if not set("()[]{}<>:|") & set(stands) else plain_text

    def add(self, group: Group) -> Group:
        if group not in self.scene.groups:
            self.scene.groups.append(group)
        if not self.main:
            self.main = [group]
        return group

    def named(self, noun: str, attributes: frozenset[str], without: list[Group]) -> Group | None:
        for known in reversed(self.scene.groups):
            if known.noun == noun and known.attributes >= attributes and known not in without:
                return known
        return None

    def warn(self, sentence: str) -> None:
        if sentence not in self.scene.warnings:
            self.scene.warnings.append(sentence)


class _Sentence:
    """Reads a sentence or a tag into the scene."""

    def __init__(self, reader: _Scene, text: str, start: int, end: int, is_tag: bool):
        self.reader, self.scene, self.is_tag = reader, reader.scene, is_tag
        start = self._frame(text, start, end)
        self.units = _units(text, start, end)
        self.children: list[list[int]] = [[] for _ in self.units]
        for i, unit in enumerate(self.units):
            if unit.token.head != i:
                self.children[unit.token.head].append(i)
        self.groups: dict[int, list[Group]] = {}  # by the index of the head noun or pronoun
        self.spans: dict[int, tuple[int, int]] = {}  # the units of each noun phrase
        self.contents: dict[int, int] = {}  # the noun after "of" behind a noun
        self.outers: dict[int, int] = {}  # and back
        self.order: dict[int, int] = {}  # of each noun phrase among all
        self.ends: dict[int, int] = {}  # the noun whose phrase ends at a unit
        self.left_edges = self._left_edges()
        self.mentions: list[int] = []
        self.taken: set[int] = set()  # units that are part of a noun phrase
        self.negated: set[int] = set()
        self.verbs: dict[int, int] = {}  # verbs that the parser took for nouns, and their subjects
        self.last_between: tuple[list[Group], list[Group]] | None = None
        self.last_subjects: list[Group] = []  # of the preposition before
        self.counts: dict[int, tuple[int, bool]] = {}  # numbers of nouns that a collective counts, and whether vague

    def _frame(self, text: str, start: int, end: int) -> int:
        """Where the sentence goes on after "a photo of", which is background."""
        while match := _FRAME.match(text, start, end):
            frame = _FRAME_END.sub("", " ".join(match[1].split()))
            if frame:
                self.scene.background.append(frame)
            start = match.end()
        return start

    def read(self) -> None:
        for i in range(len(self.units)):
            if self._is_noun(i):
                self._span(i)
        self._add_missed_nouns()
        self.mentions.sort()
        self.order = {i: at for at, i in enumerate(self.mentions)}
        self.ends = {self.spans[i][1] - 1: i for i in self.mentions}
        for i in self.mentions:
            if (content := self._of(i)) is not None:
                self.contents[i], self.outers[content] = content, i
        self._find_absent()
        for i in self.mentions:
            self._resolve(i)
        for i in range(len(self.units)):
            self._relate(i)
        for i, unit in enumerate(self.units):
            if unit.word == "with" and unit.kind in ("", "inside"):
                self._with(i)

    # Noun phrases.

    def _is_noun(self, i: int) -> bool:
        unit = self.units[i]
        if unit.kind or i in self.taken:
            return False
        tag, label, head = unit.token.tag, unit.token.label, unit.token.head
        if BOORU.fullmatch(unit.token.text):
            return True
        following = self.units[i + 1].token.tag if i + 1 < len(self.units) else ""
        if _number(unit.word) is not None and following in ("NN", "NNS", "JJ", "HYPH", "CD"):
            return False  # "a dozen eggs"
        if unit.word in v.ADJECTIVES - {"orange", "glass"} and tag != "NN":
            return False
        if (tag in ("PRP", "WP", "WDT") and unit.word in v.PRONOUNS) or (
            unit.word in v.OTHERS and self._stands_alone(i)
        ):
            return True
        if unit.word == "one" and self._stands_alone(i):
            return True
        if not (tag.startswith("NN") or (tag == "PRP" and label in ("pobj", "dobj"))) or self._is_gerund(i):
            return False
        if tag in ("NN", "NNP") and following in ("NN", "NNS") and not self.units[i + 1].kind and label != "conj":
            return False  # "three orange bowls", whatever the parser says
        if label in ("compound", "amod", "nmod", "poss", "npadvmod") and head > i:
            between = {other.word for other in self.units[i + 1 : head]}
            return bool(between & ({","} | DETERMINERS)) or self._is_subject_in_disguise(i)
        return True

    def _is_gerund(self, i: int) -> bool:
        """ "holding a compass and navigating": a verb that the tagger took for a noun."""
        token = self.units[i].token
        bare = not any(self.units[j].token.label in ("det", "amod", "compound", "poss") for j in self.children[i])
        joined = token.label == "conj" and self.units[token.head].token.tag.startswith(("VB", "NN"))
        return bare and joined and self.units[i].word.endswith("ing") and self.units[i].word not in v.NOUNS_IN_ING

    def _is_subject_in_disguise(self, i: int) -> bool:
        """ "three sheep graze": a plural with a number before what the parser took for a noun."""
        token = self.units[i].token
        has_number = any(self.units[j].token.label in ("nummod", "det") for j in self.children[i])
        return token.label == "compound" and token.tag == "NNS" and has_number

    def _stands_alone(self, i: int) -> bool:
        """Whether "one" or "other" stands for a noun instead of standing before it."""
        token = self.units[i].token
        return token.head < i or token.head == i or not self.units[token.head].token.tag.startswith("NN")

    def _span(self, i: int) -> None:
        """The noun phrase around the head i: its modifiers on the left, "of …" and "that is …" on the right."""
        start, after_comma = i, False
        for j in reversed([j for j in self.children[i] if j < i]):
            unit = self.units[j]
            if unit.word == ",":  # "a big, red car"
                after_comma = True
                continue
            if unit.token.label not in MODIFIERS | {"cc", "conj"} or unit.kind or unit.word in v.PREPOSITIONS:
                break
            if (after_comma and (unit.token.label != "amod" or self.left_edges[j] < j)) or (
                j == 0 and unit.word in v.VERBS
            ):
                break
            first = self.left_edges[j]
            if any(self.units[k].kind or self.units[k].word in v.PREPOSITIONS for k in range(first, j)):
                break
            start = first
        while start and self._may_begin(start - 1):
            start -= 1
        while start < i and self.units[start].token.tag in (",", "HYPH", "CC", ":", "``", "''", "RB"):
            start += 1
        end = i + 1
        clause = [unit.word for unit in self.units[end : end + 2]]
        if len(clause) == 2 and clause[0] in ("that", "which", "who") and clause[1] in ("is", "are", "was", "were"):
            adjective = end + 2
            if adjective < len(self.units) and self.units[adjective].token.label == "acomp":  # "a car that is red"
                end = adjective + 1
        while end < len(self.units) and self.units[end].token.tag == "CD" and self.units[end].token.head == i:
            end += 1
        if self.units[i].word in v.COLOURS:  # an adjective is no head: "the soft pink rose petal fell"
            found = [j for j in range(end, min(end + 3, len(self.units))) if self.units[j].token.tag in ("NN", "NNS")]
            if not found or any(
                self.units[j].kind or self.units[j].token.tag in ("IN", "CC", ",") for j in range(end, found[0])
            ):
                return
            for j in (i, *range(i + 1, found[0])):
                self.taken.add(j)
            i, end = found[0], found[0] + 1
        if (
            self.units[i].token.tag == "NNS"
            and self.units[start].word in v.SINGULAR_DETERMINERS
            and (
                start < i - 1
                and self.units[i - 1].token.tag in ("NN", "NNP")
                and self.units[i - 1].word not in v.ADJECTIVES
            )
        ):
            self.verbs[i] = i - 1  # "a horse gallops"
            i, end = i - 1, i
        self._take(i, start, end)

    def _add_missed_nouns(self) -> None:
        """Nouns that the tagger took for something else: "a remote" and the hydrant of "a fire hydrant"."""
        for i, unit in enumerate(self.units):
            if i in self.taken or unit.kind or not (unit.word in DETERMINERS or _number(unit.word) is not None):
                continue
            end = i + 1
            while end < len(self.units) and self._may_be_noun(end):
                end += 1
            if end > i + 1 and self.units[end - 1].word not in v.ADJECTIVES | v.OTHERS:
                self._take(end - 1, i, end)
        for i in list(self.mentions):
            end = self.spans[i][1]
            if (
                end < len(self.units)
                and end == i + 1
                and self.units[i].token.tag in ("NN", "NNP")
                and not self.units[i].kind
            ):
                after = self.units[end]
                odd = after.token.tag in ("RB", "FW", "UH", "XX", "JJ") and after.token.label in v.ODD_LABELS
                if (
                    (odd or after.word == "can")
                    and (after.word == "can" or self._may_be_noun(end))
                    and after.word not in v.ADVERBS | v.ADJECTIVES
                ):
                    start = self.spans.pop(i)[0]
                    self.mentions.remove(i)
                    self._take(end, start, end + 1)

    def _may_be_noun(self, i: int) -> bool:
        unit = self.units[i]
        if unit.kind or i in self.taken or not unit.word.isalpha() or unit.word in v.FUNCTION_WORDS:
            return False
        return unit.word not in v.PREPOSITIONS and not unit.token.tag.startswith("VB") and not unit.word.endswith("ly")

    def _take(self, i: int, start: int, end: int) -> None:
        self.spans[i] = (start, end)
        self.mentions.append(i)
        self.taken.update(range(start, end))

    def _may_begin(self, i: int) -> bool:
        """Whether unit i is an article, a number or an adjective that the parser hung elsewhere."""
        unit = self.units[i]
        if unit.kind or i in self.taken:
            return False
        counts = unit.word in DETERMINERS or unit.word in v.VAGUE or _number(unit.word) is not None
        if unit.word in v.ADJECTIVES:
            return unit.token.tag in ("JJ", "NN", "NNP")
        return counts or (unit.token.tag in ("NN", "NNP") and self.units[i + 1].token.tag in ("NN", "NNS"))

    def _left_edges(self) -> list[int]:
        """The leftmost unit that depends on each unit through units on the left of their heads."""
        edges = list(range(len(self.units)))
        for i in range(len(self.units)):
            j = i
            while (head := self.units[j].token.head) > j and edges[head] > i:
                edges[head] = i
                j = head
        return edges

    def _of(self, i: int) -> int | None:
        end = self.spans[i][1]
        if end >= len(self.units) or self.units[end].word != "of":
            return None
        after = self.order[i] + 1
        content = self.mentions[after] if after < len(self.mentions) else None
        return content if content is not None and self.spans[content][0] == end + 1 else None

    # What the phrases name.

    def _find_absent(self) -> None:
        for i in self.mentions:
            start, _ = self.spans[i]
            token = self.units[i].token
            words = [unit.word for unit in self.units[start : i + 1]]
            before = self.units[start - 1] if start else None
            governor = self.units[token.head]
            if (
                words[0] in ("no", "zero", "0", "without")
                or (before and (before.word in v.ABSENCE or before.kind == "without"))
                or (governor.word in v.ABSENCE and governor.token.tag == "IN")
                or (token.label in ("dobj", "attr", "nsubj") and self._denied(token.head))
                or (token.label == "conj" and token.head in self.negated and self._goes_on(i, words))
            ):
                self.negated.add(i)

    def _denied(self, verb: int) -> bool:
        return any(self.units[j].token.label == "neg" for j in self.children[verb]) and not any(
            self.units[j].token.label == "nsubj" and self.units[verb].token.label != "ROOT" for j in self.children[verb]
        )

    def _goes_on(self, i: int, words: list[str]) -> bool:
        """Whether what is absent goes on: "no cats or dogs", but not "no cats and a dog"."""
        determined = words[0] in DETERMINERS or _count(words) is not None
        return not determined or self._joined_by(i) in ("or", "nor")

    def _joined_by(self, i: int) -> str:
        start, _ = self.spans[i]
        return self.units[start - 1].word if start else ""

    def _resolve(self, i: int) -> None:
        """The groups that the noun or pronoun i stands for; none if it names no object."""
        self.groups.setdefault(i, [])
        unit = self.units[i]
        start, end = self.spans[i]
        words = [other.word for other in self.units[start:end]]
        if i in self.negated:
            if not (unit.token.tag in ("PRP", "WP", "WDT")):
                text = self._text(start, end)
                self.scene.absent.append(_without_determiner(text))
            return
        if unit.token.tag in ("WP", "WDT"):
            return  # `_who` looks it up
        if (unit.token.tag == "PRP" and unit.word in v.PRONOUNS) or (unit.word == "one" and len(words) == 1):
            self.groups[i] = self._referred(i)
            return
        if unit.word in v.OTHERS or (unit.word in ("one", "ones") and words[-2] in v.OTHERS):
            self.groups[i] = self._other(i, words)
            return
        if self._is_part_of_phrase(i):
            return
        content = self.contents.get(i)
        if content is not None and unit.word in v.COLLECTIVES | v.PART_NOUNS:
            if unit.word in v.COLLECTIVES:
                self._counted(i, content)
                if unit.word == "number" and not {"same", "equal", "similar"}.isdisjoint(words) and self.scene.groups:
                    self.counts[content] = (self.scene.groups[-1].count, False)
            return  # the noun after "of" is what matters; `_stands_for` leads there
        if not self._is_object(i, words, content):
            return
        if content is not None:
            end = self._extended(i, content)
        group = self._group(i, start, end)
        if group is None:
            return
        known = None
        if words[0] in v.DEFINITE and group.count == (1 if group.noun == unit.word else group.count):
            known = self.reader.named(group.noun, group.attributes, self._opposite(i))
        self.groups[i] = [self.reader.add(known or group)]
        if words[0] in ("one", "a", "an") and known is None:
            self.reader.last_one = group

    def _is_part_of_phrase(self, i: int) -> bool:
        """Whether i is the noun in "of …" of another phrase that is an object: the coffee of "a cup of coffee"."""
        return i in self.outers and bool(self.groups.get(self.outers[i]))

    def _extended(self, i: int, content: int) -> int:
        _, end = self.spans[content]
        for j in range(self.spans[i][0], end):
            self.taken.add(j)
        return end

    def _counted(self, i: int, content: int) -> None:
        """ "a herd of five zebras" is five, "a herd of zebras" is some."""
        start, _ = self.spans[i]
        words = [unit.word for unit in self.units[start : i + 1]]
        number = _count(words)
        inner_start, inner_end = self.spans[content]
        inner = [unit.word for unit in self.units[inner_start:inner_end]]
        if self.units[content].word in v.PAIRED and self.units[i].word == "pair":
            self.spans[content] = (start, inner_end)
            return
        if _count(inner) is None and number is not None:
            self.counts[content] = (number, self.units[i].word in v.VAGUE or any(w in v.VAGUE for w in words))

    def _is_object(self, i: int, words: list[str], content: int | None) -> bool:
        """Whether the noun names a thing with a place of its own; where not, it may be background."""
        unit = self.units[i]
        if BOORU.fullmatch(unit.token.text):
            return True
        noun = singular(unit.word)
        governor = self.units[unit.token.head]
        text = self._text(*self.spans[i])
        determined = words[0] in DETERMINERS or _count(words) is not None
        plural = noun != unit.word
        if governor.word in v.IGNORED_PREPOSITIONS and unit.token.label == "pobj" and not governor.kind:
            return False
        if unit.token.label == "pobj" and (governor.kind in ("ignored", "from") or governor.word == "for"):
            if governor.word != "for" or noun not in v.SIZES:
                return False
        if noun in v.BODY or unit.word in v.BODY:
            return False
        if noun in v.ABSTRACT or unit.word in v.ABSTRACT or noun in v.STYLE:
            return False
        if self.is_tag and self.units[0].word == "by":
            self.scene.background.append(text)
            return False
        styled = not v.STYLE.isdisjoint(words) or (self.is_tag and noun in v.ARTWORKS)
        if styled and (self.is_tag or not determined):
            self.scene.background.append(text)
            return False
        if unit.token.label == "pobj" and governor.word == "by" and unit.token.tag.startswith("NNP") and not determined:
            self.scene.background.append(text)
            return False
        if _count(words) in (None, 1) or plural:
            place = unit.word in v.PLACES or noun in v.PLACES
            if place and (self._is_setting(i) or (self.is_tag and not determined)):
                self.scene.background.append(text)
                return False
            if self.is_tag and not determined and self.scene.groups and len(words) == len(self.units):
                alive = noun in v.SIZES and noun not in v.CLOTHES
                if not alive:
                    self.scene.background.append(text)
                    return False
        if self.is_tag and self.reader.main and (noun in v.CLOTHES or unit.word in v.CLOTHES) and not determined:
            return False
        return True

    def _is_setting(self, i: int) -> bool:
        """ "in a park", "a park with …" and "at night", but not "a park bench" nor "a river next to a park"."""
        token = self.units[i].token
        governor = self.units[token.head]
        if token.label == "pobj" and governor.word in (
            "in",
            "at",
            "on",
            "through",
            "under",
            "during",
            "across",
            "into",
            "along",
            "from",
            "of",
            "by",
            "near",
            "over",
            "inside",
            "within",
            "beneath",
            "to",
            "onto",
            "against",
            "throughout",
            "around",
        ):
            return not governor.kind or governor.kind == "inside"
        if token.label == "conj" and token.head in self.spans and not self.groups.get(token.head):
            return self._is_setting(token.head)
        start, end = self.spans[i]
        alone = (not start or self.units[start - 1].word == ",") and (
            end == len(self.units) or self.units[end].word == ","
        )
        if alone and self.units[start].word not in DETERMINERS and len(self.units) > end - start:
            return True  # ", snowy forest, winter morning"
        after = self.units[self.spans[i][1]].word if self.spans[i][1] < len(self.units) else ""
        return (
            not self.scene.groups
            and (after == "with" or self.units[-1] is self.units[i])
            and token.label == "ROOT"
            and after == "with"
        )

    def _group(self, i: int, start: int, end: int) -> Group | None:
        words = [unit.word for unit in self.units[start : i + 1]]
        head = self.units[i]
        text = self._text(start, end)
        if booru := BOORU.fullmatch(head.token.text):
            noun = singular(booru[2].lower())
            return Group(text, int(booru[1]), noun, frozenset(words[:-1]), 1.0, True, text)
        noun = singular(head.word)
        plural = noun != head.word and head.word not in v.PAIRED
        number, vague = _count(words), any(word in v.VAGUE for word in words)
        if number is None and i in self.counts:
            number, vague = self.counts[i]
        if words[0] in ("more", "fewer", "less") and self.scene.groups:  # "two cows and fewer sheep"
            number, vague = max(self.scene.groups[-1].count + (1 if words[0] == "more" else -1), 1), False
        if vague and not plural and number is not None and noun not in _UNCHANGED_PLURALS:  # "some water"
            number = None
        attributes = frozenset(
            word
            for word in words[:-1]
            if word not in DETERMINERS and _number(word) is None and word not in v.VAGUE and word.isalnum()
        )
        count = number if number is not None else v.MAX_PLURAL if plural else 1
        phrase = text
        if plural or number is not None:
            phrase = self._singular_phrase(start, i, end, noun if plural else head.word)
        exact = (number is not None and not vague) or (number is None and not plural)
        return Group(phrase, max(count, 1), noun, attributes, _asked_scale(words[:-1]), exact, text)

    def _singular_phrase(self, start: int, i: int, end: int, noun: str) -> str:
        """One of "two red circles": "a red circle". `match_phrases` finds it in the prompt all the same."""
        words = []
        for unit in self.units[start:i]:
            counting = unit.word in DETERMINERS or unit.word in v.VAGUE or _number(unit.word) is not None
            if not counting and unit.word != "of" and unit.word not in v.COLLECTIVES:
                words.append(unit.token.text)
        while words and not words[0].isalnum():  # the hyphen of "twenty-five"
            words.pop(0)
        rest = self._text(self.spans[i][1], end) if end > self.spans[i][1] else ""
        phrase = " ".join([*words, noun, *([rest] if rest else [])])
        phrase = phrase.replace(" - ", "-")
        return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"

    def _text(self, start: int, end: int) -> str:
        return self.reader.text(self.units[start].token.start, self.units[end - 1].token.end)

    # Who is meant.

    def _opposite(self, i: int) -> list[Group]:
        """The groups on the other side of the relation that i is part of: "a cat next to the cat" are two."""
        token = self.units[i].token
        if token.label == "dobj":
            return self._subject(token.head) or []
        if token.label != "pobj":
            return []
        return self._about(token.head) if token.head != i else []

    def _referred(self, i: int) -> list[Group]:
        word = self.units[i].word
        without = self._opposite(i)
        known = [group for group in self.scene.groups if group not in without]
        if not known:
            return []
        if word in v.PLURAL_PRONOUNS:
            plural = [group for group in known if group.count > 1]
            return plural[-1:] or known[-2:]
        people = [group for group in known if group.noun in v.PEOPLE]
        if word == "it" or word == "itself":
            return [group for group in known if group.noun not in v.PEOPLE][-1:] or known[-1:]
        if word == "one":
            several = [group for group in self.scene.groups if group.count > 1]
            if not several:
                return []
            if i + 1 < len(self.units) and self.units[i + 1].word == "of":
                return several[-1:]  # "one of them is red" says nothing about places
            first = self._split(several[-1])
            self.reader.last_one = first
            return [first]
        return people[-1:] or known[-1:]

    def _split(self, group: Group) -> Group:
        """One of the group as a group of its own; the rest stays as it was, before it in the scene."""
        first = replace(group, count=1, exact=True)
        at = self.scene.groups.index(group)
        self.scene.groups.insert(at, first)
        group.count -= 1
        return first

    def _other(self, i: int, words: list[str]) -> list[Group]:
        """ "the other": another of the kind that "one" was; "the others": all the rest."""
        one = self.reader.last_one
        if one is None:
            one = next((group for group in reversed(self.scene.groups)), None)
            if one is None:
                return []
        rest = next((g for g in reversed(self.scene.groups) if g is not one and g.phrase == one.phrase), None)
        if rest is not None:
            if rest.count > 1 and words[-1] in ("other", "another", "one"):
                return [self._split(rest)]
            return [rest]
        if one.count > 1:
            return [self._split(one)]
        twin = replace(one, count=1)
        return [self.reader.add(twin)]

    def _governor(self, i: int, below: int) -> list[Group]:
        """The groups that something below i is about: a noun itself, a verb's subject."""
        seen = set()
        while i not in seen:
            seen.add(i)
            i = self.verbs.get(i, i)
            found = self._conjuncts(i) if i in self.spans else []
            if found:
                return found
            token = self.units[i].token
            if token.tag.startswith(("VB", "MD")) or token.label in ("ROOT", "acl", "relcl", "advcl", "ccomp", "xcomp"):
                subject = self._subject(i)
                if subject is not None:
                    return subject
            if token.head == i:
                break
            i = token.head
        before = [j for j in self.mentions if j < below and self.groups.get(j)]
        if before and not self.is_tag:
            return self._conjuncts(before[-1])
        return list(self.reader.main) if not before else self._conjuncts(before[-1])

    def _subject(self, verb: int) -> list[Group] | None:
        """The groups of the verb's subject; None if it has none."""
        for j in self.children[verb]:
            token = self.units[j].token
            if token.label in ("nsubj", "nsubjpass") and j in self.spans:
                if token.tag in ("WP", "WDT"):
                    return self._who(verb)
                found = self._conjuncts(j)
                if found:
                    return found
        for j in self.children[verb]:  # "there is a cat", "on it stood a vase"
            token = self.units[j].token
            if token.label in OBJECTS and j in self.spans:
                expletive = any(self.units[k].token.label == "expl" for k in self.children[verb])
                no_subject = not any(self.units[k].token.label in SUBJECTS for k in self.children[verb])
                inverted = any(
                    self.units[k].token.label in ("prep", "advmod") and k < verb for k in self.children[verb]
                )
                if expletive or (no_subject and inverted):
                    return self._conjuncts(j)
        token = self.units[verb].token
        if token.label in ("acl", "relcl"):
            return self._who(verb)
        return None

    def _who(self, verb: int) -> list[Group] | None:
        token = self.units[verb].token
        if token.head not in self.spans:
            return None
        found = self.groups.get(self._stands_for(token.head), [])
        above = self.units[token.head].token.head
        if token.label == "acl" and found and found[0].noun not in v.ANIMATE and above != token.head:
            owner = self._governor(above, verb)  # "a man with a cane sitting on a bench", "a girl in boots holding …"
            if owner and owner[0].noun in v.ANIMATE:
                return owner
        return found

    def _stands_for(self, i: int) -> int:
        """The noun that matters: the zebras of "a herd of five zebras"."""
        while i in self.contents and not self.groups.get(i):
            i = self.contents[i]
        return i

    def _conjuncts(self, i: int) -> list[Group]:
        """The groups of i and of all that "and" joins to it on either side, with nothing else between them."""
        return self._joined(i, self._run(i))

    def _run(self, i: int) -> list[int]:
        """The nouns around i with only "and", "or" and commas between them; i alone if there is no such word."""
        at = self.order[self._outer(i)]
        first = last = at
        while first > 0 and self._is_joint(first - 1):
            first -= 1
        while last + 1 < len(self.mentions) and self._is_joint(last):
            last += 1
        run = self.mentions[first : last + 1]
        joints = {self.units[k].word for k in range(self.spans[run[0]][1], self.spans[run[-1]][0])}
        return run if joints & v.JOINTS else [self._outer(i)]

    def _outer(self, i: int) -> int:
        """The phrase that i is part of: the group of "a group of clocks"."""
        while i in self.outers:
            i = self.outers[i]
        return i

    def _is_joint(self, index: int) -> bool:
        """Whether only joining words stand between a mention and the next, "of …" counted with the first."""
        one, other = self.mentions[index : index + 2]
        between = range(self.spans[one][1], self.spans[other][0])
        words = [self.units[k].word for k in between]
        return words == ["of"] or (bool(words) and all(word in v.JOINTS or word == "," for word in words))

    def _joined(self, i: int, run: list[int]) -> list[Group]:
        found = [group for j in run for group in self.groups.get(self._stands_for(j), [])]
        return list(dict.fromkeys(found)) or self.groups.get(i, [])

    # Relations.

    def _relate(self, i: int) -> None:
        unit = self.units[i]
        if unit.kind == "position":
            self._position(i)
        elif unit.kind == "in_hand":
            self._in_hand(i)
        elif unit.kind and unit.kind not in ("and", "without", "ignored", "from", "in_hand"):
            (flipped,) = unit.value
            self._preposition(i, unit.kind, flipped)
        elif unit.kind:
            return
        elif unit.word == "with":
            return
        elif unit.token.tag in ("IN", "TO", "RB", "RP") and unit.word in v.PREPOSITIONS and i not in self.taken:
            self._preposition(i, *v.PREPOSITIONS[unit.word])
        elif unit.token.tag.startswith("VB"):
            self._verb(i)

    def _objects(self, i: int) -> list[Group] | None:
        """The groups of the nouns that the preposition i governs; None if no noun follows it."""
        nouns = [j for j in self.children[i] if j in self.spans and j > i]
        if not nouns:
            nouns = [
                k
                for j in self.children[i]
                if self.units[j].token.label == "prep"
                for k in self.children[j]
                if k in self.spans
            ]
        if not nouns and i + 1 < len(self.units):
            nouns = [j for j in self.mentions if self.spans[j][0] == i + 1]
        if not nouns:
            return None
        return self._conjuncts_right(nouns[0])

    def _conjuncts_right(self, i: int) -> list[Group]:
        """The groups of i and of all that "and" joins to it on its right."""
        run = self._run(i)
        return self._joined(i, run[run.index(self._outer(i)) :])

    def _preposition(self, i: int, name: str, flipped: bool) -> None:
        others = self._objects(i)
        token = self.units[i].token
        if others is None:
            if self.units[i].kind or (token.tag == "IN" and token.label in ("prep", "ROOT") and not self.is_tag):
                self._unreadable(i)
            return
        if not others:
            return
        governor = self.units[token.head]
        if governor.token.tag == "VBN" and self.units[i].word == "by" and governor.word in v.VERBS:
            self._state_verb(v.VERBS[governor.word], others, self._governor(token.head, i), self._quote(i))
            return
        subjects = self._about(i)
        subjects = [group for group in subjects if group not in others]
        if not subjects:
            subjects = [group for group in self._after(i) if group not in others]
        if not subjects:
            return
        self.last_subjects = subjects
        if self.units[i].word == "in" and not flipped and all(_is_worn(group.noun) for group in others):
            for subject, other in product(subjects[-1:], others):
                self._add(_worn(other.noun), (other, subject), self._quote(i))
            return
        if (
            name == "on"
            and self.units[i].word == "on"
            and all(_is_worn(group.noun) for group in subjects)
            and all(group.noun in v.PEOPLE for group in others)
        ):
            for subject, other in product(subjects, others[:1]):
                self._add(_worn(subject.noun), (subject, other), self._quote(i))
            return
        self._state(name, flipped, subjects, others, self._quote(i))

    def _about(self, i: int) -> list[Group]:
        """The groups that the preposition i is about."""
        unit, before = self.units[i], self.units[i - 1].word if i else ","
        pronoun = next((j for j in self.children[i] if j in self.spans and self.units[j].word in v.PRONOUNS), None)
        if pronoun is not None and before in (",", "and", "while") and self._begins_noun(pronoun + 1):
            return self._after(i)  # "behind him a castle"
        if unit.token.head == i or (pronoun is not None and self._before(i)):
            return self._before(i)
        if i and self.last_subjects and before in ("and", ",", "but"):
            return self.last_subjects  # "on a table and next to a lamp"
        if self._verb_above(i):
            return self._governor(unit.token.head, i)
        subjects = self._beside(i) or self._governor(unit.token.head, i)
        if self.last_between and set(subjects) & set(self.last_between[1]):
            subjects = [*self.last_between[0], *self.last_between[1]]  # "between two candles on a table": all on it
        return subjects

    def _begins_noun(self, i: int) -> bool:
        return any(self.spans[j][0] == i for j in self.mentions)

    def _before(self, i: int) -> list[Group]:
        before = [j for j in self.mentions if j < i and self.groups.get(j)]
        return self._conjuncts(before[-1]) if before else list(self.reader.main) if self.is_tag else []

    def _beside(self, i: int) -> list[Group]:
        """The noun right before a preposition, which it is about unless a verb's object: "a man wearing a hat on …"."""
        if not i or i - 1 not in self.ends:
            return []
        noun = self.ends[i - 1]
        is_object = self.units[noun].token.label in ("dobj", "dative", "oprd")
        return [] if is_object else self._joined(noun, self._run(noun)[: self._run(noun).index(self._outer(noun)) + 1])

    def _verb_above(self, i: int) -> bool:
        """Whether the parser hangs the preposition i on a verb: "the teapot stood between two candles on the table"."""
        token = self.units[self.units[i].token.head].token
        doing = token.tag.startswith("VB") and token.text.lower() not in v.BE
        return doing and token.label in ("ROOT", "conj", "advcl", "relcl", "ccomp")

    def _after(self, i: int) -> list[Group]:
        """ "next to the house, a tree": the next noun that the preposition does not govern."""
        own = {j for j in self.children[i]}
        after = [j for j in self.mentions if j > i and j not in own and self.groups.get(j)]
        return self._conjuncts(after[0]) if after else []

    def _state(self, name: str, flipped: bool, subjects: list[Group], others: list[Group], text: str) -> None:
        if name not in OPEN_ENDED and name != "between":
            others = others[:1]
        if name == "between":
            self.last_between = (subjects, others)
            others = others[: 1 if others[0].count > 1 else 2]
        if flipped:
            subjects, others = others, subjects
        if name in BESIDES:
            subjects = subjects[-1:]
        if name == "between" and len(others) == 1 and others[0].count < 2:
            self.reader.warn(f"left out, as it names one side only: {text!r}")
            return
        for subject in subjects:
            if name in ("between", "surrounded_by"):
                if name == "surrounded_by":
                    for group in others:
                        if not group.exact:
                            group.count = max(group.count, v.MAX_SURROUNDING)
                self._add(name, (subject, *others), text)
            else:
                for other in others:
                    self._add(name, (subject, other), text)
        if name == "under" and not flipped:  # "a dog on a rug under a chair": both are under it
            for relation in list(self.scene.relations):
                if relation.name == "on" and relation.groups[1] in subjects:
                    self._add("under", (relation.groups[0], others[0]), text)

    def _with(self, i: int) -> None:
        """What someone wears or holds, what is on or in something; else it is just there too."""
        others, token = self._objects(i), self.units[i].token
        if not others or token.head == i:
            return
        owners = self._governor(token.head, i)
        text = self._quote(i)
        doing = self.units[token.head].token.tag.startswith("VB") and self.units[token.head].word not in v.HAVE
        for owner, other in product(owners[-1:], others):
            if owner is other or self._are_related(owner, other):
                continue
            if owner.noun in v.PEOPLE and _is_worn(other.noun):
                self._add(_worn(other.noun), (other, owner), text)
            elif owner.noun in v.PEOPLE and other.noun in v.HANDHELD and owner.count == 1:
                self._add("held", (other, owner), text)
            elif self.units[i].kind:
                continue
            elif owner.noun in v.CONTAINERS:
                self._add("inside", (other, owner), text)
            elif (
                owner.noun in v.SURFACES
                and other.noun not in v.SURFACES
                and other.noun not in v.PEOPLE
                and other.count <= 6
            ):
                self._add("on", (other, owner), text)
            elif doing:
                self._add("next_to", (owner, other), text)

    def _are_related(self, one: Group, other: Group) -> bool:
        return any(one in relation.groups and other in relation.groups for relation in self.scene.relations)

    def _verb(self, i: int) -> None:
        unit = self.units[i]
        objects = [j for j in self.children[i] if self.units[j].token.label in OBJECTS and j in self.spans]
        if unit.token.label == "amod" and unit.word in v.VERBS and unit.token.head in self.spans and i == 0:
            objects = [unit.token.head]  # the tag "holding sword"
        objects = [j for j in objects if not self._has_preposition(j)]
        if not objects or (unit.token.tag == "VBN" and unit.token.label == "amod"):
            return
        if unit.word in v.SHOW | v.BE:
            return
        others = self._conjuncts_right(objects[0])
        subjects = self._subject(i)
        if subjects is None and i != 0:
            subjects = self._governor(unit.token.head, i) if unit.token.head != i else self._before(i)
        subjects = subjects or (self._before(i) if i else list(self.reader.main))
        subjects = [group for group in subjects if group not in others]
        if not others or not subjects:
            return
        text = self._quote(i)
        if unit.word in v.HAVE:
            for other in others:
                if _is_worn(other.noun) and subjects[-1].noun in v.PEOPLE:
                    self._add(_worn(other.noun), (other, subjects[-1]), text)
                elif other.noun in v.HANDHELD and subjects[-1].noun in v.PEOPLE:
                    self._add("held", (other, subjects[-1]), text)
            return
        self._state_verb(v.VERBS.get(unit.word, "next_to"), subjects, others, text)

    def _has_preposition(self, i: int) -> bool:
        before = self.units[self.spans[i][0] - 1] if self.spans[i][0] else None
        return before is not None and (bool(before.kind) or before.word in v.PREPOSITIONS and before.token.tag != "RP")

    def _state_verb(self, name: str, subjects: list[Group], others: list[Group], text: str) -> None:
        """Relates what a verb's subjects do to its objects."""
        if name == "worn":
            for subject, other in product(subjects, others):
                self._add(_worn(other.noun), (other, subject), text)
        elif name == "held":
            for other in others:
                self._add("held" if other.noun not in v.PEOPLE else "next_to", (other, subjects[-1]), text)
        elif name == "carries":
            self._state("on", True, subjects[-1:], others, text)
        elif name == "contains":
            for other in others:
                self._add("inside", (other, subjects[-1]), text)
        elif name == "surrounds":
            self._state("surrounded_by", True, subjects, others, text)
        elif name == "shares":
            self._state("on" if others[0].noun in v.SEATS else "next_to", False, subjects, others, text)
        else:
            self._state(name, False, subjects, others, text)

    def _position(self, i: int) -> None:
        text = self.reader.text(self.units[i].token.start, self.units[i].token.end)
        names = dict.fromkeys(v.POSITIONS[w] for w in re.findall(r"\w+", text.lower()) if w in v.POSITIONS)
        if {"at_top", "at_bottom", "at_left", "at_right"} & names.keys():
            names.pop("at_middle", None)  # "at the top middle"
        subjects = self._located(i)
        for subject, name in product(subjects, names):
            self._add(name, (subject,), f"{subject.text} {text}" if subject.text else text)

    def _in_hand(self, i: int) -> None:
        """ "a mother with her baby in her arms"."""
        held = self._before(i)
        owner = next((g for g in reversed(self.scene.groups) if g not in held and g.noun in v.ANIMATE), None)
        if held and owner:
            self._add("held", (held[-1], owner), self._quote(i))

    def _located(self, i: int) -> list[Group]:
        """What stands at the position i: the nouns right before it, or after it if it begins its part."""
        before = [j for j in self.mentions if j < i and self.groups.get(self._stands_for(j))]
        after = [j for j in self.mentions if j > i and self.groups.get(self._stands_for(j))]
        previous = self.units[i - 1].word if i else ","
        following = self.units[i + 1].word if i + 1 < len(self.units) else ","
        verb_follows = i + 1 < len(self.units) and self.units[i + 1].token.tag.startswith(("VB", "EX", "MD"))
        starts = previous in (",", "and", "while", ":", "but") and following not in (",", "and", ".")
        if after and (starts or not before):
            return self._conjuncts(after[0])
        if not before:
            return list(self.reader.main)
        token = self.units[i].token
        if not verb_follows and token.head != i and not self.units[token.head].token.tag.startswith("NN"):
            found = self._governor(token.head, i)
            if found:
                return found
        return self._conjuncts(before[-1])

    def _add(self, name: str, groups: tuple[Group, ...], text: str) -> None:
        if len(groups) > 1 and groups[0] in groups[1:]:
            return
        self.scene.relations.append(GroupRelation(name, groups, text))

    def _quote(self, i: int) -> str:
        """The words around the connector i, from the noun phrase before it to the one after it."""
        before = [j for j in self.mentions if j < i]
        after = [j for j in self.mentions if j > i]
        start = self.spans[before[-1]][0] if before else i
        end = self.spans[after[0]][1] if after else i + 1
        return self._text(min(start, i), max(end, i + 1))

    def _unreadable(self, i: int) -> None:
        before = [j for j in self.mentions if j < i]
        start = self.spans[before[-1]][0] if before else i
        self.reader.warn(f"left out, as nothing follows it: {self._text(start, i + 1)!r}")


def _units(text: str, start: int, end: int) -> list[_Unit]:
    """The tokens of a piece of text, connectors of several words as one, tagged and parsed."""
    tokens = [(form, a + start, b + start) for form, a, b in tokens_of(text[start:end])]
    tokens = [token for token in tokens if token[0].isascii() or token[0].isalpha()]
    joined, offsets = "", []
    for form, _, _ in tokens:
        offsets.append(len(joined))
        joined += form.lower() + " "
    merged: list[tuple[str, int, int]] = []
    kinds: list[tuple[str, object]] = []
    found = {offset: (stop, index) for offset, stop, index in v.connectors(joined.rstrip())}
    i = 0
    while i < len(tokens):
        hit = found.get(offsets[i])
        if hit is None:
            merged.append(tokens[i])
            kinds.append(("", None))
            i += 1
            continue
        stop, index = hit
        last = max(j for j in range(i, len(tokens)) if offsets[j] < stop)
        kind, value, form, _ = v.CONNECTORS[index]
        if kind != "dropped":
            merged.append((form, tokens[i][1], tokens[last][2]))
            kinds.append((kind, value))
        i = last + 1
    return [_Unit(token, *kind) for token, kind in zip(parse_tokens(merged), kinds, strict=True)]


def _is_worn(noun: str) -> bool:
    return noun in v.CLOTHES


def _worn(noun: str) -> str:
    """Where on the body it is."""
    for name, nouns in (
        ("on_head", v.HEADWEAR),
        ("on_face", v.FACEWEAR),
        ("at_neck", v.NECKWEAR),
        ("on_feet", v.FOOTWEAR),
    ):
        if noun in nouns:
            return name
    return "worn"


_UNCHANGED_PLURALS = {"sheep", "fish", "deer", "people", "shrimp", "moose", "bison", "cattle", "goldfish"}


def _count(words: list[str]) -> int | None:
    """The number that the words of a noun phrase state, roughly for "several"; None if they state none."""
    if "half" in words and "dozen" in words:
        return 6
    count = None
    for word in words:
        if word in v.VAGUE and count is None:
            count = v.VAGUE[word]
        elif (number := _number(word)) is not None:
            count = number if count is None or word == words[0] else _combined(count, number)
    return count


def _number(word: str) -> int | None:
    if word.isdecimal():
        return int(word) if len(word) < 6 else 10**6
    parts = [v.NUMBERS.get(part) for part in word.split("-")]
    if None in parts:
        return None
    return parts[0] if len(parts) == 1 else _combined(*parts[:2])


def _combined(first: int, second: int) -> int:
    if first >= 20 and first % 10 == 0 and 0 < second < 10:  # twenty five
        return first + second
    return first * second  # two dozen


def _asked_scale(words: list[str]) -> float:
    return next((v.SCALES[word] for word in words if word in v.SCALES), 1.0)


def _set_scales(scene: SceneGraph) -> None:
    """Among things of known sizes, each by the fourth root of its size; and as its adjectives ask.

    What is held is smaller than who holds it, and so is what stands on or in it.
    """
    logs = {group: math.log(v.SIZES[group.noun]) for group in scene.groups if group.noun in v.SIZES}
    if len(logs) > 1:
        middle = sum(logs.values()) / len(logs)
        for group, log in logs.items():
            group.scale *= min(max(math.exp((log - middle) / 4), SMALLEST), LARGEST)
    held = {relation.groups[0] for relation in scene.relations if relation.name == "held"}
    for relation in scene.relations:
        if relation.name in ("on", "inside") and relation.groups[1] in held:
            relation.groups[0].scale *= HELD


SMALLEST, LARGEST, HELD = 0.5, 1.6, 0.5  # scales


def _without_determiner(text: str) -> str:
    words = text.split()
    while len(words) > 1 and (words[0].lower() in DETERMINERS or words[0].lower() in ("no", "zero", "0")):
        words = words[1:]
    return " ".join(words)


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


def _who_else() -> str:
    """Which providers read other languages; those that are set up on this machine by name."""
    usable = usable_profiles()
    if usable:
        return f"choose {' or '.join(map(repr, usable))}, a language model that is set up here, or translate it"
    return (
        "translate it, choose another provider, connect a language model (clip), or describe one in providers.json (for example ollama; see "
        "realcompo providers): language models read most languages"
    )


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 200 else prompt[:200] + "…")


_FRAME = re.compile(
    r"[\s,:]*(?:please )?(?:(?:i (?:want|need|would like)|give me|can you) )?(?:(?:draw|generate|create|show|make|paint|imagine|render)(?: me| us)? )?"
    rf"((?:(?:an?|the|this|my) )?(?:(?!(?:an?|the|of|on|in|with|from|by|,|\.) )[\w-]+ ){{0,5}}?{v.PICTURE}s?"
    r"(?: of| with| showing| shows| depicting| containing| featuring| where| in which|(?=[\s.,]*$)))(?= |$)",
    re.IGNORECASE,
)
_FRAME_END = re.compile(r" (?:of|with|showing|shows|depicting|containing|featuring|where|in which)$", re.IGNORECASE)
