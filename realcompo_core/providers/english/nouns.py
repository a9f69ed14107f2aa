"""The noun phrases of a sentence: where each begins and ends, and which of them "and" and "of" tie together.

The parser's tags and labels say most of it. Where they cannot be right ("a remote" without a noun, "a" before a
plural), the words around them decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from ...text.parser import Token, tokens_of
from ...text.words import DETERMINERS, PARTICIPLES, singular
from . import vocabulary as v
from .numerals import number
from .tagging import parse

MODIFIERS = {"det", "amod", "compound", "nummod", "nmod", "poss", "quantmod", "predet", "advmod", "npadvmod", "punct"}
MODIFIERS |= {"case", "neg", "preconj", "cc", "conj"}
BOORU = re.compile(r"(\d+)\+?(girl|boy|man|woman|cat|dog|other|person|people)s?", re.IGNORECASE)


@dataclass
class Unit:
    """A token as the parser sees it: a word, or a connector of several words. `kind` is "" for a word."""

    token: Token
    kind: str = ""
    flipped: bool = False

    @property
    def word(self) -> str:
        return self.token.text.lower()

    @property
    def counts(self) -> bool:
        """Whether it is a number, a word such as "several", or an article."""
        return self.word in DETERMINERS or self.word in v.VAGUE or number(self.word) is not None

    @property
    def relates(self) -> bool:
        """Whether it is a connector or a preposition."""
        return bool(self.kind) or self.word in v.PREPOSITIONS


def units_of(text: str, start: int, end: int) -> list[Unit]:
    """The tokens of a piece of text, connectors of several words as one, tagged and parsed."""
    tokens = [(form, a + start, b + start) for form, a, b in tokens_of(text[start:end])]
    tokens = [token for token in tokens if token[0].isalpha() or (token[0].isascii() and token[0].isprintable())]
    joined, offsets = "", []
    for form, _, _ in tokens:
        offsets.append(len(joined))
        joined += form.lower() + " "
    found = {offset: (stop, connector) for offset, stop, connector in v.connectors(joined.rstrip())}
    forms: list[tuple[str, int, int]] = []
    kinds: list[tuple[str, bool]] = []
    i = 0
    while i < len(tokens):
        if offsets[i] not in found:
            forms.append(tokens[i])
            kinds.append(("", False))
            i += 1
            continue
        stop, connector = found[offsets[i]]
        after = next((j for j in range(i, len(tokens)) if offsets[j] >= stop), len(tokens))
        if connector.kind != "dropped":
            forms.append((connector.form, tokens[i][1], tokens[after - 1][2]))
            kinds.append((connector.kind, connector.flipped))
        i = after
    return [Unit(token, *kind) for token, kind in zip(parse(forms), kinds, strict=True)]


class Nouns:
    """The noun phrases among `units`, each by the index of its head noun or pronoun.

    `spans` has the units of each phrase, `mentions` the heads in order, `verbs` what the parser took for nouns: the
    verb's index and its subject's.
    """

    def __init__(self, units: list[Unit]):
        self.units = units
        self.children: list[list[int]] = [[] for _ in units]
        for i, unit in enumerate(units):
            if unit.token.head != i:
                self.children[unit.token.head].append(i)
        self.spans: dict[int, tuple[int, int]] = {}
        self.verbs: dict[int, int] = {}
        self.taken: set[int] = set()  # units of phrases
        for i in range(len(units)):
            if self._is_noun(i):
                self._find_span(i)
        self._find_missed()
        for i in list(self.spans):
            self._go_on_to_noun(i)
        self.verbs = {verb: noun for verb, noun in self.verbs.items() if noun in self.spans}
        self.mentions = sorted(self.spans)
        self.order = {i: at for at, i in enumerate(self.mentions)}
        self.ends = {self.spans[i][1] - 1: i for i in self.mentions}
        self.starts = {self.spans[i][0]: i for i in self.mentions}
        self.contents: dict[int, int] = {}  # the noun after "of" behind a noun
        for i in self.mentions:
            end = self.spans[i][1]
            if self._word(end) == "of" and end + 1 in self.starts:
                self.contents[i] = self.starts[end + 1]
        self.outers = {content: i for i, content in self.contents.items()}

    def words(self, i: int) -> list[str]:
        """The words of the phrase i up to its head."""
        return [unit.word for unit in self.units[self.spans[i][0] : i + 1]]

    def run(self, i: int) -> list[int]:
        """The nouns around i with only "and", "or" and commas between them; i alone if there is no such word.

        On the left it ends at the object of a preposition: in "next to a cat and a dog above a car", only the dog is
        above the car. "…, and a lamp" after a single noun begins something new.
        """
        outer = self.outer(i)
        first = last = self.order[outer]
        while first > 0 and self._is_joint(first - 1) and not self.follows_preposition(self.mentions[first - 1]):
            if self._begins_clause(first):
                break
            first -= 1
        while last + 1 < len(self.mentions) and self._is_joint(last):
            last += 1
        for at in range(self.order[outer] + 1, last + 1):  # "right of a heart and a square below a star"
            if self._begins_statement(at):
                last = at - 1
                break
        run = self.mentions[first : last + 1]
        joints = {self.units[k].word for k in range(self.spans[run[0]][1], self.spans[run[-1]][0])}
        new = len(run) == 2 and "," in joints
        return run if joints & v.JOINTS and not new else [outer]

    def _begins_statement(self, index: int) -> bool:
        """Whether a mention that "and" joins is what the next relation is about, and the one before is its own."""
        end = self.spans[self.mentions[index]][1]
        relates = end < len(self.units) and self.units[end].relates and self._word(end) != "of"
        if relates:
            return any(self.follows_preposition(i) for i in self.mentions[:index])
        return self._begins_clause(index)

    def _begins_clause(self, index: int) -> bool:
        """Whether a mention that "and" joins is a subject and the one before an object: "a chest and a knight is …"."""
        before = self.mentions[index - 1]
        token = self.units[before].token
        return self._tag(self.spans[self.mentions[index]][1]) == "VBZ" and token.label == "dobj" and token.head < before

    def outer(self, i: int) -> int:
        """The phrase that i is part of: the group of "a group of clocks"."""
        while i in self.outers:
            i = self.outers[i]
        return i

    def follows_preposition(self, i: int) -> bool:
        start = self.spans[i][0]
        return bool(start) and self.units[start - 1].relates and self.units[start - 1].token.tag != "RP"

    def is_alone(self, i: int) -> bool:
        """Whether the phrase is all between two commas, without an article: ", snowy forest, winter morning"."""
        start, end = self.spans[i]
        begins = not start or self.units[start - 1].word == ","
        ends = end == len(self.units) or self.units[end].word in (",", ".")
        return begins and ends and self.units[start].word not in DETERMINERS and len(self.units) > end - start

    def _is_joint(self, index: int) -> bool:
        """Whether only joining words stand between a mention and the next."""
        one, other = self.mentions[index : index + 2]
        words = [self.units[k].word for k in range(self.spans[one][1], self.spans[other][0])]
        return words == ["of"] or (bool(words) and all(word in v.JOINTS or word == "," for word in words))

    # Which tokens are head nouns.

    def _word(self, i: int) -> str:
        return self.units[i].word if 0 <= i < len(self.units) else ""

    def _tag(self, i: int) -> str:
        return self.units[i].token.tag if 0 <= i < len(self.units) else ""

    def _is_noun(self, i: int) -> bool:
        unit, token = self.units[i], self.units[i].token
        if unit.kind or i in self.taken:
            return False
        if BOORU.fullmatch(token.text):
            return True
        if number(unit.word) is not None and self._tag(i + 1) in ("NN", "NNS", "JJ", "HYPH", "CD"):
            return False  # "a dozen eggs"
        if unit.word in v.PRONOUNS and token.tag in ("PRP", "WP", "WDT"):
            return True
        if unit.word in v.OTHERS | {"one"} and self._stands_alone(i):
            return True
        if unit.word in v.ADJECTIVES and token.tag != "NN":
            return False
        if unit.word in v.NOUNS_IN_ING and token.tag == "VBG" and (self._tag(i - 1) == "JJ" or self._may_begin(i - 1)):
            return True  # "a bearded viking"
        if not (token.tag.startswith("NN") or (token.tag == "PRP" and token.label in ("pobj", "dobj"))):
            return False
        if self._is_subject_in_disguise(i):
            return True
        if self._is_gerund(i) or (token.tag in ("NN", "NNP") and self._goes_on(i)):
            return False
        if token.label in ("compound", "amod", "nmod", "poss", "npadvmod") and token.head > i:
            between = {other.word for other in self.units[i + 1 : token.head]}
            return not between.isdisjoint(DETERMINERS | {","})
        return True

    def _goes_on(self, i: int) -> bool:
        """ "three orange bowls": a noun follows at once, whatever the parser says."""
        following = self.units[i + 1] if i + 1 < len(self.units) else None
        noun = following is not None and following.token.tag in ("NN", "NNS") and not following.kind
        return noun and self.units[i].token.label != "conj"

    def _is_gerund(self, i: int) -> bool:
        """ "holding a compass and navigating": a verb that the tagger took for a noun."""
        token, word = self.units[i].token, self.units[i].word
        bare = not any(self.units[j].token.label in ("det", "amod", "compound", "poss") for j in self.children[i])
        joined = token.label == "conj" and self._tag(token.head).startswith(("VB", "NN"))
        return bare and joined and word.endswith("ing") and word not in v.NOUNS_IN_ING

    def _is_subject_in_disguise(self, i: int) -> bool:
        """ "three sheep graze": a plural with a number before what the parser took for a noun."""
        token = self.units[i].token
        has_number = any(self.units[j].token.label in ("nummod", "det") for j in self.children[i])
        counted = has_number or (i > 0 and number(self._word(i - 1)) not in (None, 1))
        plural = token.tag == "NNS" or self.units[i].word in v.UNCHANGED
        if not (token.label == "compound" and plural and counted):
            return False
        self.verbs[token.head] = i
        self.taken.add(token.head)
        return True

    def _stands_alone(self, i: int) -> bool:
        """Whether "one" or "other" stands for a noun instead of standing before it."""
        token = self.units[i].token
        if self.units[i].word == "one" and self._may_be_noun(i + 1):
            return False  # "one oven"
        return token.head <= i or not self._tag(token.head).startswith("NN")

    # How far the phrase around a head goes.

    def _find_span(self, i: int) -> None:
        start, end = self._left_end(i), i + 1
        doing = [k for k in range(start + 1, i) if self._is_doing(k)]
        if doing:  # "cute penguin holding balloon"
            self._take(i, doing[-1] + 1, end)
            i, end = self._as_verb(doing[-1])
        if self._tag(i) == "NNS" and self._word(start) in v.SINGULAR_DETERMINERS:
            nouns = [j for j in range(start + 1, i) if self._tag(j) in ("NN", "NNP")]
            nouns = [j for j in nouns if self._word(j) not in v.ADJECTIVES and number(self._word(j)) is None]
            if nouns and any(self._tag(j) == "VBG" for j in range(nouns[-1], i)):
                self._take(i, i, end)  # "an old man mending nets" is two phrases
                i, end = nouns[-1], nouns[-1] + 1
            elif nouns and nouns[-1] == i - 1:
                i, end = self._as_verb(i)  # "a horse gallops"
        elif start < i and self._tag(i - 1).startswith("NN") and self._word(i - 1) not in v.ADJECTIVES:
            object_follows = self._tag(i + 1) in ("DT", "PRP$") and not self.units[i + 1].kind
            howling = self._word(i).endswith("ing") and self._word(i) not in v.NOUNS_IN_ING
            if object_follows or howling or self._word(i) in v.PAST_FORMS:
                i, end = self._as_verb(i)  # "a father and his daughter share a bike", "a wolf howling"
        while self._tag(end) == "CD" and self.units[end].token.head == i:
            end += 1
        if self._word(i) not in v.COLOURS or self._tag(i) == "NNS":  # "a woman in red"
            self._take(i, start, end)

    def _is_doing(self, i: int) -> bool:
        """Whether a verb in -ing stands behind the noun that does it."""
        return (
            self._word(i) in v.VERBS and self._word(i).endswith("ing") and self._word(i - 1) in v.NOUNS - v.ADJECTIVES
        )

    def _as_verb(self, i: int) -> tuple[int, int]:
        """Makes i a verb and the noun before it the head; that noun and the end of its phrase."""
        self.verbs[i] = i - 1
        return i - 1, i

    def _left_end(self, i: int) -> int:
        start, after_comma = i, False
        for j in reversed([j for j in self.children[i] if j < i]):
            unit = self.units[j]
            if unit.word == ",":  # "a big, red car"
                after_comma = True
                continue
            first = self._left_edges[j]
            new = after_comma and (unit.token.label != "amod" or first < j)
            verb = j == 0 and unit.word in v.VERBS  # the tag "holding sword"
            if unit.token.label not in MODIFIERS or new or verb:
                break
            if any(self.units[k].relates for k in range(first, start)):
                break
            start = first
        while start and self._may_begin(start - 1):
            start -= 1
        if start > 1 and self._tag(start - 1) in ("VB", "VBP") and self._may_begin(start - 2):
            if self._word(start - 1) not in v.FUNCTION_WORDS and start - 1 not in self.taken:
                start -= 2  # "two stop signs"
        articles = [
            k
            for k in range(start + 1, i)
            if (self._word(k) in ("a", "an", "the") and self._word(k - 1) != "half")
            or (self.units[k].counts and self._word(k - 1) in v.JOINTS and self._word(k - 2) not in v.NUMBERS)
        ]
        if self._word(start) == "whose":
            start += 1
        start = articles[-1] if articles else start  # "the other a wrench" and "a fence and three balls" are two
        while start < i and self._tag(start) in (",", "HYPH", "CC", ":", "``", "''", "RB"):
            start += 1
        return start

    @cached_property
    def _left_edges(self) -> list[int]:
        """The leftmost unit that depends on each unit through units on the left of their heads."""
        edges = list(range(len(self.units)))
        for i in range(len(self.units)):
            j = i
            while (head := self.units[j].token.head) > j and edges[head] > i:
                edges[head] = i
                j = head
        return edges

    def _may_begin(self, i: int) -> bool:
        """Whether unit i is an article, a number, an adjective or a noun that the parser hung elsewhere."""
        unit = self.units[i]
        if i < 0 or unit.kind or i in self.taken:
            return False
        if unit.word in v.ADJECTIVES:
            return unit.token.tag in ("JJ", "NN", "NNP")
        return unit.counts or (unit.token.tag in ("NN", "NNP") and self._tag(i + 1) in ("NN", "NNS"))

    def _take(self, i: int, start: int, end: int) -> None:
        self.spans[i] = (start, end)
        self.taken.update(range(start, end))

    # Nouns that the tagger took for something else.

    def _may_be_noun(self, i: int) -> bool:
        unit = self.units[i] if i < len(self.units) else None
        if unit is None or unit.relates or i in self.taken or unit.word in v.FUNCTION_WORDS:
            return False
        return unit.word.isalpha() and not unit.token.tag.startswith("VB") and not unit.word.endswith("ly")

    def _find_missed(self) -> None:
        """ "a remote": the last of what follows an article or a number without a noun."""
        for i, unit in enumerate(self.units):
            if i in self.taken or unit.kind or not unit.counts or unit.word in v.VAGUE:
                continue
            end = i + 1
            while self._may_be_noun(end):
                end += 1
            verb = self._tag(end) in ("VB", "VBP") and end not in self.taken and self._word(end) not in v.FUNCTION_WORDS
            if end > i + 1 and verb and self._word(end - 1) in v.ADJECTIVES:
                end += 1  # "a cyan cross"
            if (
                end > i + 1
                and self._word(end) == ","
                and self._tag(end - 1) == "JJ"
                and self._word(end - 1) not in v.NOUNS
            ):
                continue  # "the fiery, blazing sun"
            if end > i + 1 and self.units[end - 1].word not in (v.ADJECTIVES - v.ALSO_NOUNS) | v.OTHERS:
                self._take(end - 1, i, end)
        for i in range(1, len(self.units)):  # "some ducks and geese", which is taken for an adjective
            joined = self._word(i - 1) in v.JOINTS and self.units[i].token.label == "conj" and self._tag(i) == "JJ"
            if joined and self._may_be_noun(i) and not self._may_be_noun(i + 1) and self._word(i) not in v.ADJECTIVES:
                self._take(i, i, i + 1)

    def _go_on_to_noun(self, i: int) -> None:
        """Moves the head to the hydrant of "a fire hydrant", the lights of "a few traffic lights", "a trash can"."""
        start, end = self.spans[i]
        if end >= len(self.units) or end in self.taken or end != i + 1 or self.units[end].relates:
            return
        after, token = self.units[end].word, self.units[end].token
        several = any((v.VAGUE.get(unit.word) or number(unit.word) or 0) > 1 for unit in self.units[start:i])
        counted = several and singular(self._word(i)) == self._word(i) and self._word(i) not in v.UNCHANGED
        plural = counted and after.endswith("s") and after not in v.FUNCTION_WORDS | v.ADVERBS
        ends = end + 1 == len(self.units) or self.units[end + 1].relates or self._word(end + 1) in v.JOINTS | {",", "."}
        odd = token.tag in ("RB", "FW", "UH", "XX", "JJ") or (token.tag == "VB" and ends)
        acts = any(self.units[j].token.label.startswith("nsubj") for j in self.children[end])
        odd = odd and token.label in v.ODD_LABELS and not (acts and (after in v.VERB_BASES or after.endswith("ed")))
        odd = (
            odd and after not in v.FUNCTION_WORDS | v.ADVERBS | v.ADJECTIVES | PARTICIPLES and not after.endswith("ly")
        )
        if plural or (self._tag(i) in ("NN", "NNP") and (after == "can" or (odd and after.isalpha()))):
            del self.spans[i]
            self._take(end, start, end + 1)
