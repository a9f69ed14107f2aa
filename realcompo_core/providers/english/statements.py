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
CONTACTS = {"on", "inside", "held", *v.WORN_AT, "worn"}  # of which one is enough for two things
POSSESSIVES = ("his", "her", "its", "their")
HANDY = 0.3  # the size in metres of what a hand holds
MOST_ON_SURFACE = 6  # things that "a table with …" puts on it


class Sentence(Naming):
    """Reads a sentence or a tag into the story's scene."""

    def __init__(self, story: Story, units: list[Unit], is_tag: bool):
        super().__init__(story, units, is_tag)
        self.companions: list[Group] = []  # all that the last "next to" is about
        self.stated_before = len(self.scene.relations)
        self.last_owners: list[Group] = []  # of a place such as "on its left"
        for i, unit in enumerate(units):
            if unit.kind == "position":
                self._position(i)
            elif unit.kind == "in_hand":
                self._in_hand(i)
            elif unit.kind in v.OWN_PLACES:
                self._without_object(i, *v.OWN_PLACES[unit.kind])
            elif unit.kind in v.RELATIONS:
                self._preposition(i, unit.kind, unit.flipped)
            elif unit.word in v.PREPOSITIONS and self._states_place(i):
                self._preposition(i, *v.PREPOSITIONS[unit.word])
            elif (unit.token.tag.startswith("VB") and not unit.kind) or i in self.verbs:
                self._verb(i)
        for i, unit in enumerate(units):
            if unit.word == "with" and not unit.kind:
                self._with(i)
            elif unit.word == "whose" and i - 1 in self.ends and i + 1 in self.starts:
                self._relate_accompanying(self.groups[self.ends[i - 1]], self.groups[self.starts[i + 1]], i)
        for i in self.mentions:
            if self.is_alone(i) and self.groups[i] and self.groups[i][0].noun in v.CLOTHES:
                self._dress(i)

    def _dress(self, i: int) -> None:
        """ "a girl with pink hair, school uniform, …"."""
        thing = self.groups[i][0]
        wearer = self.story.last(v.PEOPLE, without=[thing])
        if wearer and not any(thing in relation.groups for relation in self.scene.relations):
            self._wear([wearer], [thing], self.text(*self.spans[i]))

    # Prepositions.

    def _states_place(self, i: int) -> bool:
        tag = self._tag(i)
        return i not in self.taken and (tag in ("IN", "TO", "RB") or (tag == "RP" and self._word(i) in v.PARTICLES))

    def _preposition(self, i: int, name: str, flipped: bool) -> None:
        others, unit = self._governed(i), self.units[i]
        if others is None:
            if not unit.kind and unit.word in v.ADVERBIAL and self._ends_clause(i + 1):
                self._without_object(i, name, flipped)
            elif unit.kind or (unit.token.tag == "IN" and unit.token.label in ("prep", "ROOT") and not self.is_tag):
                self._warn_unfinished(i)
            return
        if not others and i - 1 in self.ends and self._tag(i + 1) in ("WDT", "WP"):
            others = self.groups[self.ends[i - 1]]  # "a bowl in which there are eggs"
            self._state(name, flipped, self.after(i), others, self._quote(i))
            return
        if not others:
            if not self._warn_unknown(i, self.starts.get(i + 1)):
                self._on_body(i)
            return
        governor, text = self.units[unit.token.head], self._quote(i)
        if governor.token.tag == "VBN" and unit.word == "by" and governor.word in v.VERBS:
            self._do(governor.word, others, self.governor(unit.token.head, i), text)  # "ridden by a girl"
            return
        passive = self._passive(i) if unit.word == "by" and others[0].noun in v.ANIMATE else None
        about = self.about(i) if passive is None else self.governor(passive, i)
        subjects = [group for group in about if group not in others]
        subjects = subjects or [group for group in self.after(i) if group not in others]
        if not subjects or self._acts_nothing(i):
            return
        subjects = self._placed(i, name, [*self._joined_wearers(i, subjects), *subjects], others)
        self.last_subjects = subjects
        self._relate(i, *self._meant(i, name, flipped, subjects, others), subjects, others, text)

    def _meant(self, i: int, name: str, flipped: bool, subjects: list[Group], others: list[Group]) -> tuple[str, bool]:
        """The relation that the preposition i states between these things, where it is not the usual one."""
        unit, verb = self.units[i], self._word(self.units[i].token.head)
        if name == "on" and others[0].noun in v.TETHERS:
            return "next_to", False
        if name == "on" and verb in v.USING and subjects[-1].noun in v.PEOPLE:
            return ("hold", True) if _is_handy(others[0]) else ("next_to", False)
        if name == "inside" and unit.kind and others[0].noun in v.SURFACES - v.CONTAINERS:
            return "on", False  # "in the center of the table"
        if unit.word == "around":
            return ("surrounded_by", True) if sum(group.count for group in subjects) > 2 else ("next_to", False)
        if unit.word == "through" and subjects[-1].noun in v.PEOPLE and _is_handy(others[0]):
            return "hold", True  # "looks through a telescope"
        if unit.word == "from" and verb in v.HANGING:
            return "under", False
        at_bottom = name == "above" and flipped and self.text(i, i + 1).lower().startswith(("at ", "in "))
        if at_bottom and all(map(_fits_into, subjects, others)):
            return "inside", False  # "a spoon at the bottom of a sink"
        return name, flipped

    def _relate(self, i: int, name: str, flipped: bool, subjects: list[Group], others: list[Group], text: str) -> None:
        """States what the preposition i says, or that the one wears or faces the other."""
        word = self._word(i)
        if name == "hold":
            self._add("held", (others[0], subjects[-1]), text)
        elif word == "in" and not flipped and all(group.noun in v.CLOTHES for group in others):
            self._wear(subjects[-1:], others, text)
        elif word == "on" and all(group.noun in v.CLOTHES for group in subjects) and others[0].noun in v.PEOPLE:
            self._wear(others[:1], subjects, text)
        elif name == "flanking":
            sides = subjects[-2:]
            self._add("between" if sum(side.count for side in sides) > 1 else "next_to", (others[0], *sides), text)
        elif word == "across" and (opposite := self._opposite_side(i)):
            self._add("between", (others[0], subjects[-1], opposite), text)
        elif self._faces_across(i, subjects := self._join_partner(subjects, others), others):
            self._add("between", (others[0], *subjects[-2:]), text)
        else:
            self._state(name, flipped, subjects, others, text)

    def _faces_across(self, i: int, subjects: list[Group], others: list[Group]) -> bool:
        """ "two women at a table": they sit on either side of it."""
        living = all(group.noun in v.ANIMATE for group in subjects)
        table = others[0].noun in v.TABLES and self._word(i) in ("at", "across", "around", "over")
        return living and table and sum(group.count for group in subjects) == 2

    def _join_partner(self, subjects: list[Group], others: list[Group]) -> list[Group]:
        """ "a man plays chess against his father at a table": both sit there, with the table between them."""
        for relation in self.scene.relations[self.stated_before :]:
            pair = list(relation.groups)
            if relation.name == "next_to" and len(subjects) == 1 and subjects[0] in pair and others[0] not in pair:
                if all(group.noun in v.ANIMATE for group in pair) and others[0].noun in v.TABLES:
                    self.scene.relations.remove(relation)
                    return pair
        return subjects

    def _passive(self, i: int) -> int | None:
        """The last verb before i that says what is done to its subject: "pushed on a swing by her father"."""
        verbs = [j for j in range(i) if self._tag(j) == "VBN"]
        verbs = [j for j in verbs if any(self.units[k].token.label == "nsubjpass" for k in self.children[j])]
        return verbs[-1] if verbs else None

    def _acts_nothing(self, i: int) -> bool:
        """Whether the verb that i is part of is what light does: "sunlight streams through a window onto a cat"."""
        above = i
        while not self._tag(above).startswith("VB") and self.units[above].token.head != above:
            above = self.units[above].token.head
        subjects = [j for j in self.children[above] if self.units[j].token.label == "nsubj"]
        return any(self._word(j) in v.AMBIENT | v.FALLING and not self.groups.get(j) for j in subjects)

    def _opposite_side(self, i: int) -> Group | None:
        """The woman of "a man across the table from a woman"."""
        end = next((self.spans[j][1] for j in self.children[i] if j in self.spans), len(self.units))
        side = self.starts.get(end + 1) if self._word(end) == "from" else None
        return self.groups[side][0] if side is not None and self.groups[side] else None

    def _ends_clause(self, i: int) -> bool:
        return i >= len(self.units) or self.units[i].word in {",", ".", ";", "!", *v.JOINTS, "while"}

    def _without_object(self, i: int, name: str, flipped: bool) -> None:
        """ "a box with a kitten inside", "a plate with a fork on its left": about what was named before."""
        if i - 1 in self.ends:
            noun = self.ends[i - 1]
            subjects = self.conjuncts(noun, right=False)
        else:
            noun, subjects = i, self.governor(self.units[i].token.head, i)
        token = self.units[noun].token
        owners = self.last_owners if self.units[i].kind else []
        if noun != i and self._word(token.head) == "with":
            owners = self.governor(self.units[token.head].token.head, i)
        earlier = [group for group in self.scene.groups if group not in subjects]
        related = [each.groups[0] for each in self.scene.relations if not set(each.groups) & set(subjects)]
        owners = [group for group in owners if group not in subjects] or related[-1:] or earlier[-1:]
        if subjects and owners:
            self.last_owners = owners[-1:]
            self._state(name, flipped, subjects, owners[-1:], self._quote(i))
        elif not self.units[i].kind and self.units[i].token.tag == "IN" and not self.is_tag:
            self._warn_unfinished(i)

    def _placed(self, i: int, name: str, subjects: list[Group], others: list[Group]) -> list[Group]:
        """Who of a verb's subject and its object stands where the preposition behind the object says.

        What someone holds, wears or rides is where they are, and what someone puts down is where it is put. Of the
        others, no one is in or on what is much smaller than they are: "a cook flips a pancake in a pan".
        """
        noun = self.ends.get(i - 1)
        verb = self._verb_of(noun)
        if verb is None:
            nearer = (
                [] if noun is None else [group for group in self.conjuncts(noun, right=False) if group not in others]
            )
            fits = nearer and name in ("on", "inside") and others[0].noun not in v.SEATS
            if fits and _much_smaller(others[0], subjects[-1]) and not _much_smaller(subjects[-1], nearer[-1]):
                return nearer  # "a cat stares at a fish in a bowl"
            return subjects
        objects = [group for group in self.conjuncts(noun, right=False) if group not in others]
        actors = self.subject(verb)
        if actors is None:
            actors = self.governor(self.units[verb].token.head, verb) if self.units[verb].token.head != verb else []
        actors = [group for group in actors if group not in others + objects]
        if not actors or not objects:
            return subjects
        meets = name in ("on", "inside")
        small = meets and others[0].noun not in v.SEATS and _much_smaller(others[0], actors[-1])
        if self._word(verb) in v.PLACING or small:
            return objects
        if self._word(i) in ("into", "onto") and self.units[i].token.tag == "IN":
            return objects  # "helps an old lady into a wheelchair"
        does = v.VERBS.get(self._word(verb))
        if does == "hold" and name == "above":
            return objects  # "holds an umbrella over her"
        if does == "on" and objects[0].noun in v.SEATS | v.ANIMALS:
            return objects  # the rider is where the horse is
        return actors if does in ("hold", "wear") and others[0].noun not in v.CLOTHES else subjects

    def _joined_wearers(self, i: int, subjects: list[Group]) -> list[Group]:
        """The man of "a man in a suit and a woman in a dress on a stage"."""
        worn = self.groups.get(self.ends.get(i - 1, -1), [])
        if not worn or worn[-1].noun not in v.CLOTHES:
            return []
        found: list[Group] = []
        noun = next((j for j in self.mentions if self.groups[j] and self.groups[j] == subjects[-1:]), None)
        while noun is not None and self.units[noun].token.label == "conj" and self.units[noun].token.head in self.spans:
            noun = self.units[noun].token.head
            wearers = [each.groups[1] for each in self.scene.relations if each.groups[0] in self.groups[noun]]
            found += [group for group in [*self.groups[noun], *wearers] if group.noun in v.ANIMATE]
        return [group for group in dict.fromkeys(found) if group not in subjects]

    def _verb_of(self, noun: int | None) -> int | None:
        """The verb whose object the noun is."""
        if noun is None:
            return None
        token = self.units[noun].token
        while token.label == "conj" and token.head in self.spans:
            token = self.units[token.head].token
        is_verb = self._tag(token.head).startswith("VB") and token.label in OBJECTS
        return token.head if is_verb else None

    def _governed(self, i: int) -> list[Group] | None:
        """The groups of the nouns that the preposition i governs; None if no noun follows it."""
        nouns = [j for j in self.children[i] if j in self.spans and j > i]
        for j in self.children[i]:  # "from under a table"
            if self.units[j].token.label == "prep":
                nouns += [k for k in self.children[j] if k in self.spans]
        if i + 1 in self.starts and self.starts[i + 1] not in nouns:
            nouns.insert(0, self.starts[i + 1])
        return self.conjuncts(nouns[0], left=False) if nouns else None

    def _on_body(self, i: int) -> None:
        """ "an owl on his shoulder": at whoever has the shoulder."""
        part = self.starts.get(i + 1)
        if part is None or self._word(i + 1) not in POSSESSIVES or singular(self.units[part].word) not in v.BODY:
            return
        subjects = self.groups[self.ends[i - 1]] if i - 1 in self.ends else self.about(i)
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
        others = self._governed(i)
        if not others or self.units[i].token.head == i:
            return
        self._relate_accompanying(self._accompanied(i), others, i)

    def _relate_accompanying(self, owners: list[Group], others: list[Group], i: int) -> None:
        head, text = self.units[self.units[i].token.head], self._quote(i)
        for owner, other in product(owners, others):
            stated = self.scene.relations[self.stated_before :]
            related = any({owner, other} <= set(relation.groups) for relation in stated)
            placed = any(other in relation.groups for relation in stated)
            if owner is other or related:
                continue
            if owner.noun in v.ANIMATE and other.noun in v.CLOTHES:
                self._wear([owner], [other], text)
            elif owner.noun in v.PEOPLE and _is_handy(other) and owner.count in (1, other.count):
                self._add("held", (other, owner), text)
            elif owner.noun in v.ANIMATE and (other.noun in v.ANIMATE or _is_handy(other)):
                self._add("next_to", (owner, other), text)
            elif owner.noun in v.CONTAINERS:
                self._add("inside", (other, owner), text)
            elif owner.noun in v.SURFACES and _fits_on_surface(other):
                self._add("on", (other, owner), text)
            elif head.token.tag.startswith("VB") and head.word not in v.HAVE and not placed:
                self._add("next_to", (owner, other), text)

    def _accompanied(self, i: int) -> list[Group]:
        """What has something "with" it: "carrying a tray with three glasses" the tray."""
        noun = self.ends.get(i - 1)
        if noun is not None and self._verb_of(noun) is not None:
            found = self.conjuncts(noun, right=False)[-1:]
            if found and found[0].noun in v.SURFACES | v.CONTAINERS:
                return found
        return self.governor(self.units[i].token.head, i)[-1:]

    # Verbs.

    def _verb(self, i: int) -> None:
        unit = self.units[i]
        objects = [j for j in self.children[i] if self.units[j].token.label in OBJECTS and j in self.spans]
        if i in self.verbs and i + 1 in self.starts:
            objects = [self.starts[i + 1]]
        if unit.token.label == "amod" and i not in self.verbs:  # "a ridden horse", but the tag "holding sword"
            objects = [unit.token.head] if i == 0 and unit.word in v.VERBS and unit.token.head in self.spans else []
        objects = [j for j in objects if not self.follows_preposition(j)]
        if any(self._tag(j) == "RP" and self._word(j) in v.PARTICLES for j in self.children[i]):
            return  # "climbed up a tree": as the preposition says
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
            given = [j for j in objects[1:] if self.units[j].token.label == "dobj"]
            if self.units[objects[0]].token.label == "dative" and given:  # "hands him a wrench"
                self._do("", subjects, others, self._quote(i))
                others = self.conjuncts(given[0], left=False)
            self._do(unit.word, subjects, others, self._quote(i))

    def _have(self, owner: Group, others: list[Group], text: str) -> None:
        for other in others:
            if owner.noun in v.ANIMATE and other.noun in v.CLOTHES:
                self._wear([owner], [other], text)
            elif owner.noun in v.PEOPLE and other.noun in v.HANDHELD:
                self._add("held", (other, owner), text)

    def _do(self, verb: str, subjects: list[Group], others: list[Group], text: str) -> None:
        """Relates what a verb's subjects do to its objects."""
        name = v.VERBS.get(verb, "next_to")
        if name == "wear":
            self._wear(subjects, others, text)
        elif name == "hold" and subjects[-1].noun in v.CONTAINERS | v.SURFACES and verb in v.HOLD:
            holds = "inside" if subjects[-1].noun in v.CONTAINERS else "on"
            for other in others:
                self._add(holds, (other, subjects[-1]), text)
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
        owner = self._with_owner(i)
        names = dict.fromkeys(v.POSITIONS[w] for w in re.findall(r"\w+", text.lower()) if w in v.POSITIONS)
        if {"at_top", "at_bottom", "at_left", "at_right"} & names.keys():
            names.pop("at_middle", None)  # "at the top middle"
        if owner and names.keys() in ({"at_left"}, {"at_right"}):  # "a plate with a glass to the left"
            subjects = [
                group for group in self.groups[self.stands_for(self.outer(self.ends[i - 1]))] if group not in owner
            ]
            self._state("left_of", "at_right" in names, subjects, owner, self._quote(i))
            return
        for subject, name in product(self._located(i), names):
            self._add(name, (subject,), f"{subject.text} {text}")

    def _with_owner(self, i: int) -> list[Group]:
        """What has the thing before i with it."""
        if i - 1 not in self.ends:
            return []
        token = self.units[self.outer(self.ends[i - 1])].token
        while token.label == "conj" and token.head in self.spans:
            token = self.units[token.head].token
        if self._word(token.head) == "with":
            return self.governor(self.units[token.head].token.head, i)[-1:]
        return self.last_owners if token.label == "conj" else []

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
            self.companions = subjects
            subjects = subjects[-1:]
        if name == "surrounded_by":
            for group in others:
                group.count = group.count if group.exact else max(group.count, v.BARE_SURROUNDING)
        for subject in subjects:
            for sides in [others] if name in ("between", "surrounded_by") else [[other] for other in others]:
                self._add(name, (subject, *sides), text)
        if name in ("on", "inside") and others[0].noun in v.SURFACES | v.CONTAINERS:
            for group in self._neighbours(subjects):  # "a cup next to a plate on a table": both are on it
                if group not in others and _fits_on_surface(group) and not _much_smaller(others[0], group):
                    self._add(name, (group, others[0]), text)
        if name == "under":  # "a dog on a rug under a chair": both are under it
            for relation in list(self.scene.relations):
                if relation.name == "on" and relation.groups[1] in subjects:
                    self._add("under", (relation.groups[0], others[0]), text)

    def _neighbours(self, groups: list[Group]) -> list[Group]:
        """What this sentence places beside the groups, and nowhere else."""
        stated = self.scene.relations[self.stated_before :]
        placed = {relation.groups[0] for relation in stated if relation.name in ("on", "inside", "held")}
        beside = [relation.groups for relation in stated if relation.name in ("next_to", "left_of")]
        found = [group for pair in beside if set(pair) & set(groups) for group in pair if group not in groups]
        found += self.companions if set(found) & set(self.companions) else []
        return [group for group in dict.fromkeys(found) if group not in placed and group.noun not in v.ANIMATE]

    def _wear(self, wearers: list[Group], worn: list[Group], text: str) -> None:
        for wearer, thing in product(wearers, worn):
            place = next((place for place, nouns in v.WORN_AT.items() if thing.noun in nouns), "worn")
            self._add(place, (thing, wearer), text)

    def _add(self, name: str, groups: tuple[Group, ...], text: str) -> None:
        if groups[0] in groups[1:]:
            return
        relation = GroupRelation(name, groups, text)
        if name == "next_to" and any(
            set(groups) < set(each.groups) for each in self.scene.relations[self.stated_before :]
        ):
            return  # "a man across the table from a woman"
        if len(groups) == 2:
            same = [each for each in self.scene.relations[self.stated_before :] if set(each.groups) == set(groups)]
            weak = [each for each in same if each.name == "next_to"]
            if same and (name == "next_to" or (name, groups) in [(each.name, each.groups) for each in same]):
                return
            if name in CONTACTS and any(each.name in CONTACTS - {name} for each in same):
                return  # "holds a mirror and looks at herself in it"
            for each in weak:
                self.scene.relations.remove(each)
        self.scene.relations.append(relation)

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


def _is_handy(group: Group) -> bool:
    """Whether it can be held in a hand or a mouth."""
    size = v.known_size(group.noun, group.attributes)
    small = size is not None and size <= HANDY and group.noun not in v.ANIMATE
    return group.noun in v.HANDHELD or small


def _much_smaller(one: Group, other: Group) -> bool:
    sizes = [v.known_size(group.noun, group.attributes) for group in (one, other)]
    return None not in sizes and 2 * sizes[0] <= sizes[1]


def _fits_into(one: Group, other: Group) -> bool:
    return other.noun in v.CONTAINERS and v.size_of(one.noun, one.attributes) < v.size_of(other.noun, other.attributes)


def _fits_on_surface(group: Group) -> bool:
    return group.noun not in v.SURFACES | v.PEOPLE and group.count <= MOST_ON_SURFACE
