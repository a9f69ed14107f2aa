"""What the noun phrases of a sentence stand for: objects, things named before, the setting, what is absent."""

from __future__ import annotations

import re
from dataclasses import replace

from ...text.words import DETERMINERS, singular
from . import vocabulary as v
from .nouns import BOORU, Nouns, Unit
from .numerals import number, number_in
from .scene import Group, GroupRelation, SceneGraph

OBJECTS = {"dobj", "dative", "attr", "oprd"}


class Story:
    """The scene so far, and what later words can refer to.

    `plain` is the prompt without markup, of the same length. `main` is what tags without a subject are about, `one`
    what "the other" is another of.
    """

    def __init__(self, prompt: str, plain: str):
        self.prompt, self.plain = prompt, plain
        self.scene = SceneGraph()
        self.main: list[Group] = []
        self.one: Group | None = None

    def text(self, start: int, end: int) -> str:
        """A piece of the prompt as it stands; without its markup if it holds any."""
        stands, plain = (" ".join(text[start:end].split()) for text in (self.prompt, self.plain))
        return plain if set("()[]{}<>:|") & set(stands) else stands

    def add(self, group: Group) -> Group:
        if group not in self.scene.groups:
            self.scene.groups.append(group)
        self.main = self.main or [group]
        return group

    def split(self, group: Group) -> Group:
        """One of the group as a group of its own; the rest stays as it was, behind it in the scene."""
        first = replace(group, count=1, exact=True)
        self.scene.groups.insert(self.scene.groups.index(group), first)
        group.count -= 1
        for relation in list(self.scene.relations):
            if group in relation.groups:
                groups = tuple(first if each is group else each for each in relation.groups)
                self.scene.relations.append(replace(relation, groups=groups))
        return first

    def last(self, nouns: frozenset[str], without: list[Group]) -> Group | None:
        """The last group of one of the nouns."""
        groups = (group for group in reversed(self.scene.groups) if group not in without)
        return next((group for group in groups if group.noun in nouns), None)


class Naming(Nouns):
    """The groups that each noun phrase of a sentence or a tag stands for, by the index of its head in `groups`."""

    def __init__(self, story: Story, units: list[Unit], is_tag: bool):
        super().__init__(units)
        self.story, self.scene, self.is_tag = story, story.scene, is_tag
        self.groups: dict[int, list[Group]] = {i: [] for i in self.mentions}
        self.counts: dict[int, tuple[int, bool]] = {}  # of nouns that a collective counts, and whether vague
        self.absent: set[int] = set()
        self.placed: list[Group] = []  # that "on the left" or the like follows
        self.last_subjects: list[Group] = []  # of the preposition before
        self.last_between: tuple[list[Group], list[Group]] = ([], [])
        for i in self.mentions:
            if self._is_absent(i):
                self.absent.add(i)
        for i in self.mentions:
            self._name(i)

    def text(self, start: int, end: int) -> str:
        return self.story.text(self.units[start].token.start, self.units[end - 1].token.end)

    # Absence.

    def _is_absent(self, i: int) -> bool:
        token, words = self.units[i].token, self.words(i)
        governor, start = self.units[token.head], self.spans[i][0]
        before = self.units[start - 1] if start else None
        determined = words[0] in DETERMINERS or number_in(words[:-1]) is not None
        if before is not None and before.word in ("just", "only", "but"):
            return False  # "there isn't a dog, only a cat"
        return (
            words[0] in ("no", "zero", "0")
            or (before is not None and (before.word in v.ABSENCE or before.kind == "without"))
            or (governor.word in v.ABSENCE and governor.token.tag == "IN")
            or (token.label in ("dobj", "attr") and self._is_denied(token.head))
            # "no cats or dogs", but not "no cats and a dog"
            or (token.label == "conj" and token.head in self.absent)
            and (not determined or (before is not None and before.word in ("or", "nor")))
        )

    def _is_denied(self, verb: int) -> bool:
        """ "a dog isn't wearing a hat": the hat is absent, the dog is there."""
        return any(self.units[j].token.label == "neg" for j in self.children[verb])

    # What a phrase names.

    def _name(self, i: int) -> None:
        unit, words = self.units[i], self.words(i)
        start, end = self.spans[i]
        if unit.token.tag in ("WP", "WDT"):
            return  # `_antecedent` looks it up
        is_pronoun = unit.word in v.PRONOUNS and unit.token.tag == "PRP"
        if i in self.absent:
            if not is_pronoun:
                self.scene.absent.append(_without_determiner(self.text(start, end)))
        elif is_pronoun or words == ["one"]:
            self.groups[i] = self._referred(i)
        elif unit.word in v.OTHERS or (unit.word in ("one", "ones") and not v.OTHERS.isdisjoint(words)):
            self.groups[i] = self._other(i)
        elif unit.word in ("one", "ones") and len(words) > 1:
            self.groups[i] = self._one_such(i, words)
        elif words[0] == "its" and unit.word in v.OWN_PARTS:
            self.groups[i] = self._referred(i)
        elif i in self.contents and (unit.word in v.COLLECTIVES.keys() | v.PART_NOUNS or unit.token.tag == "JJS"):
            if unit.word in v.COLLECTIVES:
                self._count_content(i)
        elif not (i in self.outers and self.groups[self.outers[i]]) and self._is_object(i):
            if i in self.contents:
                end = self.spans[self.contents[i]][1]  # "a cup of coffee"
            group = self._group(i, start, end)
            known = self._known(i, group) if words[0] in v.DEFINITE else None
            if end < len(self.units) and self.units[end].kind == "position":
                self.placed.append(known or group)
            self.groups[i] = [self.story.add(known or group)]
            if BOORU.fullmatch(unit.token.text) and all(each.noun in v.PEOPLE for each in self.story.main):
                self.story.main = list(dict.fromkeys([*self.story.main, *self.groups[i]]))
            for word in words[:-1]:
                if word in v.LEFT_OR_RIGHT:  # "the left box"
                    self.scene.relations.append(GroupRelation(v.LEFT_OR_RIGHT[word], (known or group,), group.text))
            if words[0] == "one" and known is None:
                self.story.one = group

    def _known(self, i: int, group: Group) -> Group | None:
        """ "the cat": the cat named before, if it is not the other side of the same relation."""
        opposite = self._opposite(i)
        end = self.spans[i][1]
        is_placed = end < len(self.units) and self.units[end].kind == "position"
        for known in reversed(self.scene.groups):
            if is_placed and known in self.placed:
                continue  # "the bottle on the left … the bottle on the right"
            if known.noun == group.noun and known.attributes >= group.attributes and known not in opposite:
                return known
        return None

    def _count_content(self, i: int) -> None:
        """ "a herd of five zebras" is five, "a herd of zebras" is some, "a pair of scissors" is one."""
        content, words = self.contents[i], self.words(i)
        counted = [j for j in self.run(content) if j >= content]
        if self.units[content].word in v.PAIRED and self.units[i].word == "pair":
            self.spans[content] = (self.spans[i][0], self.spans[content][1])
        elif len(counted) > 1 and not v.SAME.isdisjoint(words):
            for other in counted:  # "an equal number of forks and knives"
                self.counts[other] = (v.COLLECTIVES[self.units[i].word], False)
        elif self.units[i].word == "number" and self.scene.groups and not v.SAME.isdisjoint(words):
            self.counts[content] = (self.scene.groups[-1].count, False)
        elif number_in(self.words(content)[:-1]) is None:
            times, word = number_in(words[:-1]), self.units[i].word
            each = v.COLLECTIVES[word] if times is None else v.COLLECTIVES.get(singular(word), v.COLLECTIVES[word])
            self.counts[content] = ((times or 1) * each, word not in v.NUMBERS)

    def _group(self, i: int, start: int, end: int) -> Group:
        words, head, text = self.words(i), self.units[i], self.text(start, end)
        attributes = frozenset(u.word for u in self.units[start:i] if not u.counts and u.word.isalnum())
        if booru := BOORU.fullmatch(head.token.text):
            return Group(text, int(booru[1]), singular(booru[2].lower()), attributes, 1.0, True, text)
        noun = singular(head.word)
        if head.word in v.PAIRED:  # "a pair of scissors" is one
            words = [word for word in words if word != "pair"]
        counted = (number_in(words[:-1]) or 1) > 1
        plural = noun != head.word and (counted or head.word not in v.PAIRED)  # "three glasses", "a pair of glasses"
        stated, vague = number_in(words[:-1]), not v.VAGUE.keys().isdisjoint(words[:-1])
        if stated is None and i in self.counts:
            stated, vague = self.counts[i]
        if words[0] in v.COMPARATIVES and self.scene.groups:  # "two cows and fewer sheep"
            stated, vague = max(self.scene.groups[-1].count + (1 if words[0] == "more" else -1), 1), False
        if vague and not plural and noun not in v.UNCHANGED:  # "some water"
            stated = None
        count = stated if stated is not None else v.BARE_PLURAL if plural else 1
        phrase = text
        if plural or stated is not None:
            phrase = self._singular_phrase(i, start, end, noun if plural else head.word)
        exact = not vague if stated is not None else not plural
        scale = next((v.SCALES[word] for word in words[:-1] if word in v.SCALES), 1.0)
        return Group(phrase, max(count, 1), noun, attributes, scale, exact, text)

    def _singular_phrase(self, i: int, start: int, end: int, noun: str) -> str:
        """One of "two red circles": "a red circle". `match_phrases` finds it in the prompt all the same."""
        units = self.units[start:i]
        while units and (units[0].counts or units[0].word == "of" or not units[0].word.isalnum()):
            units = units[1:]
        rest = [self.text(i + 1, end)] if end > i + 1 else []
        phrase = " ".join([*(unit.token.text for unit in units if not unit.counts), noun, *rest]).replace(" - ", "-")
        phrase = re.sub(r" ('s?)(?= )", r"\1", phrase)
        return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"

    # Objects and other nouns.

    def _is_object(self, i: int) -> bool:
        """Whether the noun names a thing with a place of its own. Settings and styles become background."""
        unit, words = self.units[i], self.words(i)
        if BOORU.fullmatch(unit.token.text):
            return True
        forms = {unit.word, singular(unit.word)}
        if self._is_comparison(i, forms) or not forms.isdisjoint(v.ABSTRACT):
            return False
        if unit.token.label == "dobj" and self._word(unit.token.head).startswith("play") and unit.word in v.GAMES:
            return False
        if not forms.isdisjoint(v.BODY) and (forms.isdisjoint(v.ALSO_THINGS) or self._belongs(i)):
            return False
        determined = words[0] in DETERMINERS or number_in(words[:-1]) is not None
        if not forms.isdisjoint(v.STYLE | v.AMBIENT) or (len(words) == 1 and unit.word in v.FALLING):
            self._set_background(i)
            return False
        if not determined and (self._is_style(i, words, forms) or (self.is_tag and self._is_scenery(i, forms))):
            self._set_background(i)
            return False
        several = (number_in(words[:-1]) or 1) > 1 and singular(unit.word) == unit.word
        is_place = not forms.isdisjoint(v.PLACES) or ("light" in forms and self.is_alone(i))
        if is_place and not several and self._is_setting(i):
            self._set_background(i)
            return False
        return True

    def _belongs(self, i: int) -> bool:
        """ "her chest", "a bird with a red feather", but not "a chest full of gold"."""
        above = self._word(self.units[i].token.head)
        if i in self.contents:
            return True
        return self._word(self.spans[i][0]) not in ("a", "an", "the", "two") or above in {"with", *v.HAVE}

    def _set_background(self, i: int) -> None:
        self.scene.background.append(self.text(*self.spans[i]))

    def _is_comparison(self, i: int, forms: set[str]) -> bool:
        """ "shaped like a train", "made of gold", "waiting for a moment"."""
        token, governor = self.units[i].token, self.units[self.units[i].token.head]
        if token.label != "pobj":
            return False
        if governor.word == "for":
            return v.SIZES.keys().isdisjoint(forms)
        return governor.kind in ("ignored", "from") or (not governor.kind and governor.word in v.IGNORED_PREPOSITIONS)

    def _is_style(self, i: int, words: list[str], forms: set[str]) -> bool:
        token = self.units[i].token
        by = self.units[token.head].word == "by" and token.label == "pobj" and token.tag.startswith("NNP")
        tag = self.is_tag and (self.units[0].word == "by" or not v.ARTWORKS.isdisjoint(forms))
        return by or tag or (not v.STYLE.isdisjoint(words) and v.SIZES.keys().isdisjoint(forms))

    def _is_scenery(self, i: int, forms: set[str]) -> bool:
        """Tags without an article: settings, clothes of who was named, and things that no size is known of."""
        if not forms.isdisjoint(v.PLACES | {"light"}):
            return True
        if self.story.main and self.units[i].word not in v.SCENERY and not forms.isdisjoint(v.SCENERY):
            return True
        whole = self.spans[i] == (0, len(self.units))
        worn = not v.CLOTHES.isdisjoint(forms)
        return bool(self.story.main) and (worn or (whole and v.SIZES.keys().isdisjoint(forms)))

    def _is_setting(self, i: int) -> bool:
        """ "in a park", "a park with …" and "at night", but not "a park bench" nor "a river next to a park"."""
        token = self.units[i].token
        governor = self.units[token.head]
        if governor.kind == "on" and governor.flipped:
            return True  # "covered in snow"
        if token.label == "pobj" and (governor.word in v.SETTING_PREPOSITIONS or governor.kind == "inside"):
            return governor.kind in ("", "inside")
        if token.label == "conj" and token.head in self.spans and not self.groups[token.head]:
            return self._is_setting(token.head)
        end = self.spans[i][1]
        after = self.units[end] if end < len(self.units) else None
        leads = not self.scene.groups and after is not None and (after.word == "with" or after.kind == "without")
        return leads or self.is_alone(i)

    # Who is meant.

    def _referred(self, i: int) -> list[Group]:
        """Whom a pronoun means: of the last groups that are not the other side of its relation, one that fits."""
        word, opposite = self.units[i].word, self._opposite(i)
        if not set(self.scene.groups) - set(opposite):
            opposite = opposite[-1:]  # "a pier and a boat to the right of it"
        known = [group for group in self.scene.groups if group not in opposite]
        several = [group for group in known if group.count > 1]
        if not known or (word == "one" and not several):
            return []
        if word == "one":
            if self._word(i + 1) == "of" and self._is_described(i + 3):
                self.story.one = several[-1]
                return several[-1:]  # "one of them is red" says nothing about places
            self.story.one = self._split(several[-1])
            return [self.story.one]
        if word in v.PLURAL_PRONOUNS:
            return self._referred_several(known)
        if word in ("it", "its", "itself"):
            return self._referred_thing(i, [group for group in known if group.noun not in v.PEOPLE]) or known[-1:]
        excluded = v.FEMALE if word in v.HE else v.MALE if word in v.SHE else frozenset()
        fitting = [group for group in known if group.noun not in excluded]
        people = [group for group in fitting if group.noun in v.PEOPLE]
        animate = [group for group in fitting if group.noun in v.ANIMATE]
        gendered = [group for group in people if group.noun in v.FEMALE | v.MALE]
        return gendered[-1:] or people[-1:] or animate[-1:] or fitting[-1:] or known[-1:]

    def _split(self, group: Group) -> Group:
        """One of the group as its own; what this sentence says of all of them holds for both."""
        first = self.story.split(group)
        for groups in self.groups.values():
            if group in groups:
                groups.insert(groups.index(group), first)
        return first

    def _one_such(self, i: int, words: list[str]) -> list[Group]:
        """ "the red one": what was named red before; "a red one": another of the last kind."""
        attributes = frozenset(word for word in words[:-1] if word not in DETERMINERS)
        if words[0] in v.DEFINITE:
            return [group for group in self.scene.groups if attributes and attributes <= group.attributes][-1:]
        if not self.scene.groups:
            return []
        kind = self.scene.groups[-1]
        count = number_in(words[:-1]) or (1 if words[-1] == "one" else v.BARE_PLURAL)
        text = self.text(*self.spans[i])
        phrase = f"{'an' if kind.noun[0] in 'aeiou' else 'a'} {kind.noun}"
        return [self.story.add(replace(kind, phrase=phrase, count=count, attributes=attributes, exact=True, text=text))]

    def _is_described(self, i: int) -> bool:
        """Whether "is red" or the like stands at i."""
        return self._word(i) in v.BE and self._tag(i + 1) not in ("VBG", "VBN", "IN", "RB")

    def _referred_several(self, known: list[Group]) -> list[Group]:
        """ "they": several of one kind, or else the last two, who live before things."""
        animate = [group for group in known if group.noun in v.ANIMATE]
        for groups in (animate, known):
            if several := [group for group in groups if group.count > 1]:
                return several[-1:]
            if len(groups) > 1:
                return groups[-2:]
        return known[-1:]

    def _referred_thing(self, i: int, things: list[Group]) -> list[Group]:
        """ "it": what can be in, on or under a thing decides; else an animal, or what the last statement was about."""
        token = self.units[i].token
        governor = self.units[token.head]
        relation = (v.PREPOSITIONS.get(governor.word) or ("",))[0] if not governor.kind else governor.kind
        held = {each.groups[0] for each in self.scene.relations if each.name == "held"}
        on_something = {each.groups[0] for each in self.scene.relations if each.name in ("on", "inside", "held")}
        if relation == "inside":
            holding = [group for group in things if group.noun in v.CONTAINERS]
        elif relation == "on":
            holding = [
                group for group in things if group.noun in v.SURFACES | v.CONTAINERS and group not in on_something
            ]
        elif relation == "under":
            holding = [group for group in things if group not in on_something and group.noun not in v.ANIMATE]
        else:
            holding = [group for group in things if group.noun in v.ANIMALS and group not in held]
        if holding or relation in ("inside", "on", "under"):
            return holding[-1:] or things[-1:]
        things = [group for group in things if group.noun not in v.PLACES] or things
        stated = [each.groups[0] for each in self.scene.relations if each.groups[0] in things]
        return stated[-1:] if stated and things[-1] in self._last_sides() else things[-1:]

    def _last_sides(self) -> tuple[Group, ...]:
        return self.scene.relations[-1].groups if self.scene.relations else ()

    def _other(self, i: int) -> list[Group]:
        """ "the other": another of the kind that "one" was, or of the last kind; "the others": all the rest."""
        one = self.story.one or next(reversed(self.scene.groups), None)
        if one is None:
            return []
        rest = next((g for g in reversed(self.scene.groups) if g is not one and g.phrase == one.phrase), None)
        if rest is not None:
            return [self._split(rest)] if rest.count > 1 and self.units[i].word != "others" else [rest]
        return [self._split(one) if one.count > 1 else self.story.add(replace(one, count=1))]

    def _opposite(self, i: int) -> list[Group]:
        """The groups on the other side of the relation that i is part of: "a cat next to the cat" are two."""
        token = self.units[i].token
        if token.label == "dobj":
            return self.subject(token.head) or []
        return self.about(token.head) if token.label == "pobj" and token.head != i else []

    def stands_for(self, i: int) -> int:
        """The noun that matters: the zebras of "a herd of five zebras"."""
        while i in self.contents and not self.groups[i]:
            i = self.contents[i]
        return i

    def conjuncts(self, i: int, left: bool = True, right: bool = True) -> list[Group]:
        """The groups of the noun i and of all that "and" joins to it on its left and on its right."""
        run = self.run(i)
        at = run.index(self.outer(i))
        run = run[0 if left else at : None if right else at + 1]
        return list(dict.fromkeys(group for j in run for group in self.groups[self.stands_for(j)])) or self.groups[i]

    def governor(self, i: int, below: int) -> list[Group]:
        """The groups that something below i is about: a noun itself, a verb's subject, else the last noun before."""
        seen = set()
        while i not in seen:
            seen.add(i)
            i = self.verbs.get(i, i)
            if i in self.spans and (found := self.conjuncts(i)):
                return found
            token = self.units[i].token
            if token.tag.startswith(("VB", "MD")) or token.label in v.CLAUSES:
                subject = self.subject(i)
                if subject is not None:
                    return subject
            i = token.head
        return self.before(below)

    def subject(self, verb: int) -> list[Group] | None:
        """The groups of the verb's subject; None if it has none."""
        children = [(j, self.units[j].token.label) for j in self.children[verb]]
        labels = [label for _, label in children]
        for j, label in children:
            if self._tag(verb) == "VBG" and j > verb:
                continue  # ", sitting at a desk, a tree outside"
            if label in ("nsubj", "nsubjpass") and j in self.spans:
                if self._tag(j) in ("WP", "WDT"):
                    return self._antecedent(verb)
                if found := self.conjuncts(j):
                    return found
        inverted = any(label in ("prep", "advmod") and j < verb for j, label in children)  # "on it stood a vase"
        if "expl" in labels or (inverted and not {"nsubj", "nsubjpass", "csubj"} & set(labels)):
            for j, label in children:
                if label in OBJECTS and j in self.spans:
                    return self.conjuncts(j)
        return self._antecedent(verb) if self.units[verb].token.label in ("acl", "relcl") else None

    def _antecedent(self, verb: int) -> list[Group] | None:
        """Whom "who …" or "sitting …" is about: the noun before it, or who has it with them."""
        token = self.units[verb].token
        if token.head not in self.spans:
            return None
        found = self.groups[self.stands_for(token.head)]
        noun = token.head
        while self.units[noun].token.label == "conj" and self.units[noun].token.head in self.spans:
            noun = self.units[noun].token.head
        above = self.units[noun].token.head
        accompanies = self.units[above].word in ("with", "in") or self._tag(above).startswith("VB")
        if token.label == "acl" and found and found[0].noun not in v.ANIMATE and accompanies:
            owner = self.governor(above, verb)  # "a man with a cane sitting on a bench", "a girl in boots holding …"
            if owner and owner[0].noun in v.ANIMATE:
                return owner
        if found and not any(label in OBJECTS for label in (self.units[j].token.label for j in self.children[verb])):
            return self.conjuncts(token.head, right=False)  # "a cat and a dog sitting on a sofa"
        return found or None

    # What a preposition is about.

    def about(self, i: int) -> list[Group]:
        """The groups that the preposition i is about."""
        unit, before = self.units[i], self._word(i - 1) if i else ","
        pronoun = next((j for j in self.children[i] if j in self.spans and self.units[j].word in v.PRONOUNS), None)
        if pronoun is not None and before in (",", "and", "while") and pronoun + 1 in self.starts:
            return self.after(i)  # "behind him a castle"
        if before in (",", "and", "but") and unit.token.head > i and self._tag(unit.token.head).startswith("VB"):
            return self.governor(unit.token.head, i)  # ", on the counter there are two pots"
        if unit.token.head == i or (pronoun is not None and self.before(i)):
            return self.before(i)
        if i and self.last_subjects and before in ("and", ",", "but"):
            return self.last_subjects  # "on a table and next to a lamp"
        if self._hangs_on_verb(i):
            return self.governor(unit.token.head, i)
        subjects = self._beside(i) or self.governor(unit.token.head, i)
        between, sides = self.last_between
        # "between two candles on a table": all are on it
        return [*between, *sides] if set(subjects) & set(sides) else subjects

    def before(self, i: int) -> list[Group]:
        """The last nouns before i; in a tag without any, what the tags are about."""
        before = [j for j in self.mentions if j < i and self.groups[j]]
        return self.conjuncts(before[-1]) if before else list(self.story.main) if self.is_tag else []

    def after(self, i: int) -> list[Group]:
        """ "next to the house, a tree": the next nouns that the preposition i does not govern."""
        governed = {
            *self.children[i],
            self.starts.get(i + 1),
        }  # the parser takes "it" for a subject in "next to it is …"
        after = [j for j in self.mentions if j > i and j not in governed and self.groups[j]]
        return self.conjuncts(after[0]) if after else []

    def _beside(self, i: int) -> list[Group]:
        """The noun right before a preposition, unless it is a verb's object: "a man wearing a hat on …"."""
        if i - 1 not in self.ends:
            return []
        noun = self.ends[i - 1]
        token, found = self.units[noun].token, self.conjuncts(noun, right=False)
        if self._word(token.head) in ("with", "in") and found and found[0].noun in v.CLOTHES | v.HANDHELD:
            owner = self.governor(self.units[token.head].token.head, i)  # "a knight with a shield in front of …"
            found = owner if owner and owner[0].noun in v.ANIMATE else found
        return [] if token.label in ("dobj", "dative", "oprd") else found

    def _hangs_on_verb(self, i: int) -> bool:
        """Whether the parser hangs the preposition i on a verb: "the teapot stood between two candles on the table"."""
        token = self.units[self.units[i].token.head].token
        doing = token.tag.startswith("VB") and token.text.lower() not in v.BE
        return doing and token.label in ("ROOT", "conj", "advcl", "relcl", "ccomp")


def _without_determiner(text: str) -> str:
    words = text.split()
    while len(words) > 1 and (words[0].lower() in DETERMINERS or number(words[0].lower()) == 0):
        words = words[1:]
    return " ".join(words)
