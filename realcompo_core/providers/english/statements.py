"""The relations that a sentence states between what its nouns stand for."""

from __future__ import annotations

import re
from itertools import product

from ...text.words import singular
from . import vocabulary as v
from .naming import OBJECTS, Naming, Story
from .nouns import Unit
from .scene import Group, GroupRelation

OPEN_ENDED = {"left_of", "above", "surrounded_by"}  # hold for every group that "and" joins on their right side
BESIDES = {"next_to", "surrounded_by"}  # there is no room for every group that "and" joins on their left side
POSSESSIVES = ("his", "her", "its", "their")
MOST_ON_SURFACE = 6  # things that "a table with …" puts on it


class Sentence(Naming):
    """Reads a sentence or a tag into the story's scene."""

    def __init__(self, story: Story, units: list[Unit], is_tag: bool):
        super().__init__(story, units, is_tag)
        for i, unit in enumerate(units):
            if unit.kind == "position":
                self._position(i)
            elif unit.kind == "in_hand":
                self._in_hand(i)
            elif unit.kind in v.RELATIONS:
                self._preposition(i, unit.kind, unit.flipped)
            elif unit.word in v.PREPOSITIONS and unit.token.tag in ("IN", "TO", "RB", "RP") and i not in self.taken:
                self._preposition(i, *v.PREPOSITIONS[unit.word])
            elif (unit.token.tag.startswith("VB") and not unit.kind) or i in self.verbs:
                self._verb(i)
        for i, unit in enumerate(units):
            if unit.word == "with" and not unit.kind:
                self._with(i)

    # Prepositions.

    def _preposition(self, i: int, name: str, flipped: bool) -> None:
        others, unit = self._governed(i), self.units[i]
        if others is None:
            if unit.kind or (unit.token.tag == "IN" and unit.token.label in ("prep", "ROOT") and not self.is_tag):
                self._warn_unfinished(i)
            return
        if not others:
            if not self._warn_unknown(i, self.starts.get(i + 1)):
                self._on_body(i)
            return
        governor, text = self.units[unit.token.head], self._quote(i)
        if governor.token.tag == "VBN" and unit.word == "by" and governor.word in v.VERBS:
            self._do(v.VERBS[governor.word], others, self.governor(unit.token.head, i), text)  # "ridden by a girl"
            return
        subjects = [group for group in self.about(i) if group not in others]
        subjects = subjects or [group for group in self.after(i) if group not in others]
        if not subjects:
            return
        self.last_subjects = subjects
        if unit.word == "in" and not flipped and all(group.noun in v.CLOTHES for group in others):
            self._wear(subjects[-1:], others, text)
        elif unit.word == "on" and all(group.noun in v.CLOTHES for group in subjects) and others[0].noun in v.PEOPLE:
            self._wear(others[:1], subjects, text)
        else:
            self._state(name, flipped, subjects, others, text)

    def _governed(self, i: int) -> list[Group] | None:
        """The groups of the nouns that the preposition i governs; None if no noun follows it."""
        nouns = [j for j in self.children[i] if j in self.spans and j > i]
        for j in self.children[i]:  # "from under a table"
            if self.units[j].token.label == "prep":
                nouns += [k for k in self.children[j] if k in self.spans]
        if not nouns and i + 1 in self.starts:
            nouns = [self.starts[i + 1]]
        return self.conjuncts(nouns[0], left=False) if nouns else None

    def _on_body(self, i: int) -> None:
        """ "an owl on his shoulder": at whoever has the shoulder."""
        part = self.starts.get(i + 1)
        if part is None or self._word(i + 1) not in POSSESSIVES or singular(self.units[part].word) not in v.BODY:
            return
        subjects = self.about(i)
        owner = self.story.last(v.ANIMATE, without=subjects)
        name = v.AT_BODY.get(singular(self.units[part].word), "held")
        if subjects and owner:
            self._add(name, (subjects[-1], owner), self._quote(i))

    def _in_hand(self, i: int) -> None:
        """ "a mother with her baby in her arms"."""
        held = self.before(i)
        owner = self.story.last(v.ANIMATE, without=held)
        if held and owner:
            self._add("held", (held[-1], owner), self._quote(i))

    def _with(self, i: int) -> None:
        """What someone wears or holds, what is on or in something; else it is just there too."""
        others, head = self._governed(i), self.units[self.units[i].token.head]
        if not others or self.units[i].token.head == i:
            return
        text = self._quote(i)
        for owner, other in product(self.governor(self.units[i].token.head, i)[-1:], others):
            related = any({owner, other} <= set(relation.groups) for relation in self.scene.relations)
            if owner is other or related:
                continue
            if owner.noun in v.ANIMATE and other.noun in v.CLOTHES:
                self._wear([owner], [other], text)
            elif owner.noun in v.PEOPLE and other.noun in v.HANDHELD and owner.count == 1:
                self._add("held", (other, owner), text)
            elif owner.noun in v.CONTAINERS:
                self._add("inside", (other, owner), text)
            elif owner.noun in v.SURFACES and _fits_on_surface(other):
                self._add("on", (other, owner), text)
            elif head.token.tag.startswith("VB") and head.word not in v.HAVE:
                self._add("next_to", (owner, other), text)

    # Verbs.

    def _verb(self, i: int) -> None:
        unit = self.units[i]
        objects = [j for j in self.children[i] if self.units[j].token.label in OBJECTS and j in self.spans]
        if i in self.verbs and i + 1 in self.starts:
            objects = [self.starts[i + 1]]
        if unit.token.label == "amod":  # "a ridden horse", but the tag "holding sword"
            objects = [unit.token.head] if i == 0 and unit.word in v.VERBS and unit.token.head in self.spans else []
        objects = [j for j in objects if not self.follows_preposition(j)]
        if not objects or unit.word in v.SHOW | v.BE:
            return
        others = self.conjuncts(objects[0], left=False)
        subjects = self.conjuncts(self.verbs[i]) if i in self.verbs else self.subject(i)
        if subjects is None and i and unit.token.head != i:
            subjects = self.governor(unit.token.head, i)
        subjects = subjects or self.before(i) or (list(self.story.main) if i == 0 else [])
        subjects = [group for group in subjects if group not in others]
        pronouns = [j for j in self.children[i] if self.units[j].token.label == "nsubj"] + objects[:1]
        if any([self._warn_unknown(i, j) for j in pronouns]) or not others or not subjects:
            return
        if unit.word in v.HAVE:
            self._have(subjects[-1], others, self._quote(i))
        else:
            self._do(v.VERBS.get(unit.word, "next_to"), subjects, others, self._quote(i))

    def _have(self, owner: Group, others: list[Group], text: str) -> None:
        for other in others:
            if owner.noun in v.ANIMATE and other.noun in v.CLOTHES:
                self._wear([owner], [other], text)
            elif owner.noun in v.PEOPLE and other.noun in v.HANDHELD:
                self._add("held", (other, owner), text)

    def _do(self, name: str, subjects: list[Group], others: list[Group], text: str) -> None:
        """Relates what a verb's subjects do to its objects; `name` as in `vocabulary.VERBS`."""
        if name == "wear":
            self._wear(subjects, others, text)
        elif name == "hold":
            for other in others:
                self._add("held" if other.noun not in v.PEOPLE else "next_to", (other, subjects[-1]), text)
        elif name == "carry":
            self._state("on", True, subjects[-1:], others, text)
        elif name == "contain":
            for other in others:
                self._add("inside", (other, subjects[-1]), text)
        elif name == "surround":
            self._state("surrounded_by", True, subjects, others, text)
        elif name == "share":
            self._state("on" if others[0].noun in v.SEATS else "next_to", False, subjects, others, text)
        else:
            self._state(name, False, subjects, others, text)

    # Positions.

    def _position(self, i: int) -> None:
        """ "on the left", "in the top right corner"."""
        text = self.text(i, i + 1)
        names = dict.fromkeys(v.POSITIONS[w] for w in re.findall(r"\w+", text.lower()) if w in v.POSITIONS)
        if {"at_top", "at_bottom", "at_left", "at_right"} & names.keys():
            names.pop("at_middle", None)  # "at the top middle"
        for subject, name in product(self._located(i), names):
            self._add(name, (subject,), f"{subject.text} {text}")

    def _located(self, i: int) -> list[Group]:
        """What stands at the position i: the nouns right before it, or after it if it begins its part."""
        before = [j for j in self.mentions if j < i and self.groups[self.stands_for(j)]]
        after = [j for j in self.mentions if j > i and self.groups[self.stands_for(j)]]
        begins = not i or self._word(i - 1) in (",", "and", "while", ":", "but")
        if after and ((begins and self._word(i + 1) not in ("", ",", "and", ".")) or not before):
            return self.conjuncts(after[0])
        if not before:
            return list(self.story.main)
        head = self.units[i].token.head
        if head != i and not self._tag(head).startswith("NN") and not self._tag(i + 1).startswith(("VB", "EX", "MD")):
            return self.governor(head, i)
        return self.conjuncts(before[-1])

    # Statements.

    def _state(self, name: str, flipped: bool, subjects: list[Group], others: list[Group], text: str) -> None:
        if name == "between":
            self.last_between = (subjects, others)
            others = others[: 1 if others[0].count > 1 else 2]
            if len(others) == 1 and others[0].count < 2:
                self._warn(f"left out, as it names one side only: {text!r}")
                return
        elif name not in OPEN_ENDED:
            others = others[:1]
        if flipped:
            subjects, others = others, subjects
        if name in BESIDES:
            subjects = subjects[-1:]
        if name == "surrounded_by":
            for group in others:
                group.count = group.count if group.exact else max(group.count, v.BARE_SURROUNDING)
        for subject in subjects:
            for sides in [others] if name in ("between", "surrounded_by") else [[other] for other in others]:
                self._add(name, (subject, *sides), text)
        if name == "under":  # "a dog on a rug under a chair": both are under it
            for relation in list(self.scene.relations):
                if relation.name == "on" and relation.groups[1] in subjects:
                    self._add("under", (relation.groups[0], others[0]), text)

    def _wear(self, wearers: list[Group], worn: list[Group], text: str) -> None:
        for wearer, thing in product(wearers, worn):
            place = next((place for place, nouns in v.WORN_AT.items() if thing.noun in nouns), "worn")
            self._add(place, (thing, wearer), text)

    def _add(self, name: str, groups: tuple[Group, ...], text: str) -> None:
        if groups[0] not in groups[1:]:
            self.scene.relations.append(GroupRelation(name, groups, text))

    def _quote(self, i: int) -> str:
        """The words around the connector i, from the noun phrase before it to the one after it."""
        before = [j for j in self.mentions if j < i]
        after = [j for j in self.mentions if j > i]
        start = self.spans[before[-1]][0] if before else i
        end = self.spans[after[0]][1] if after else i + 1
        return self.text(min(start, i), max(end, i + 1))

    def _warn_unfinished(self, i: int) -> None:
        before = [j for j in self.mentions if j < i]
        self._warn(f"left out, as nothing follows it: {self.text(self.spans[before[-1]][0] if before else i, i + 1)!r}")

    def _warn_unknown(self, i: int, noun: int | None) -> bool:
        """Warns if `noun` is a pronoun that stands for nothing named, in what the word i says; whether it is."""
        unknown = noun in self.spans and self._tag(noun) == "PRP" and not self.groups[noun]
        unknown = unknown and self.units[noun].word in v.PRONOUNS and noun not in self.absent
        if unknown:
            word = self.units[noun].token.text
            self._warn(f"left out, as nothing is named that {word!r} could mean: {self._quote(i)!r}")
        return unknown

    def _warn(self, sentence: str) -> None:
        if sentence not in self.scene.warnings:
            self.scene.warnings.append(sentence)


def _fits_on_surface(group: Group) -> bool:
    return group.noun not in v.SURFACES | v.PEOPLE and group.count <= MOST_ON_SURFACE
