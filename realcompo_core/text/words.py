"""English words without a tagger: singular of a noun, head noun of a phrase, occurrences of phrases in a prompt.

The word lists are small on purpose. A word that they lack can lead to a wrong head noun, but never to a crash.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import PhraseNotInPromptError

Span = tuple[int, int]
"""Start and end (exclusive) of a piece of text, in characters."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTED = "one two three four five six seven eight nine ten eleven twelve"
NUMBERS = {word: number for number, word in enumerate(_COUNTED.split(), start=1)}
NUMBERS |= {"pair": 2, "couple": 2, "both": 2, "dozen": 12}
DETERMINERS = _words("a an the this that these those some any each every another no my your his her its our their")
PREPOSITIONS = _words(
    "of with without in on at by to from into onto inside outside within under underneath below beneath above over "
    "behind before after beside besides between among near nearby next against along across around through toward "
    "towards atop upon off for as like during opposite alongside that which who whose where while"
)
PARTICIPLES = _words(
    "sitting standing lying laying running walking sleeping jumping flying swimming resting leaning hanging floating "
    "waiting looking staring smiling grazing playing dancing parked placed made filled covered surrounded topped "
    "dressed seated perched stacked decorated mounted attached located posing talking climbing crossing growing"
)
TRANSITIVE_PARTICIPLES = _words(
    "wearing holding riding carrying eating drinking watching reading using pulling pushing chasing catching throwing "
    "kicking driving facing having containing showing featuring hitting touching"
)
MEASURES = _words("pair couple lot bunch group number dozen kind sort type piece")  # "a group of people"
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | _words("and or is are was were has have")
BOUNDARIES = FUNCTION_WORDS | PARTICIPLES | TRANSITIVE_PARTICIPLES  # where a noun phrase in a prompt begins
MAX_SKIPPED = 2  # unknown adjectives tolerated between a head noun and a known one: "red" in "red vintage sports car"

_IRREGULAR_PAIRS = (
    "people:person men:man women:woman children:child mice:mouse lice:louse geese:goose feet:foot teeth:tooth "
    "oxen:ox dice:die cacti:cactus fungi:fungus octopi:octopus knives:knife wolves:wolf leaves:leaf shelves:shelf "
    "loaves:loaf lives:life wives:wife calves:calf halves:half elves:elf thieves:thief scarves:scarf hooves:hoof "
    "dwarves:dwarf selves:self movies:movie cookies:cookie zombies:zombie brownies:brownie selfies:selfie "
    "hoodies:hoodie smoothies:smoothie genies:genie shoes:shoe horseshoes:horseshoe snowshoes:snowshoe canoes:canoe "
    "toes:toe does:doe oboes:oboe axes:axe lenses:lens canvases:canvas gases:gas irises:iris atlases:atlas "
    "headaches:headache mustaches:mustache moustaches:moustache quiches:quiche avalanches:avalanche caches:cache "
    "quizzes:quiz tvs:tv corgis:corgi taxis:taxi skis:ski bikinis:bikini kiwis:kiwi menus:menu emus:emu"
)
IRREGULAR = dict(pair.split(":") for pair in _IRREGULAR_PAIRS.split())
COMPOUND_ENDINGS = ("women", "men", "people", "children", "mice", "geese", "feet", "teeth", "knives", "shelves")
UNCHANGED = _words(
    "sheep fish deer moose bison aircraft spacecraft series species scissors pants jeans shorts trousers sunglasses "
    "binoculars goggles headphones pajamas clothes lens canvas atlas christmas news "
    "omen ramen specimen abdomen stamen cyclamen"
)

WEIGHT = r":\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*[)\]]"  # the end of "(red:1.2)"

# Weights and possessive endings are not words; inner hyphens and apostrophes belong to the word ("t-shirt", "o'clock").
# Everything that is neither space nor punctuation counts as a letter, so emoji and combining marks stay whole.
_LETTER = r"[^\s!-/:-@\[-`{-~¡«»¿\u2010-\u205e\u3000-\u3003\u3008-\u301f\uff01-\uff0f\uff1a-\uff20]"
_POSSESSIVE = rf"['\u2019][sS](?!{_LETTER})"
_WORD = re.compile(
    rf"{WEIGHT}|{_POSSESSIVE}|(?P<word>{_LETTER}+(?:(?!{_POSSESSIVE})[-'\u2010\u2011\u2019]{_LETTER}+)*)"
)


class WordSpan(NamedTuple):
    """A word of a text, and its characters there."""

    text: str
    span: Span


class Match(NamedTuple):
    """An occurrence of a phrase in a prompt.

    `head` is the span of its head noun; `words` are those of its adjectives and of the head noun, in prompt order.
    """

    head: Span
    words: list[Span]


def split_words(text: str) -> list[WordSpan]:
    """Words of `text` in order, without punctuation, possessive endings and the numbers of weights "(red:1.2)"."""
    return [WordSpan(match["word"], match.span()) for match in _WORD.finditer(text) if match["word"]]


def singular(word: str) -> str:
    """Lower-case lemma of an English noun: "Cities" -> "city", "women" -> "woman"; a singular is returned as it is."""
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in UNCHANGED or len(word) <= 3:
        return word
    for ending in COMPOUND_ENDINGS:  # firemen, bookshelves
        if word.endswith(ending):
            return word.removesuffix(ending) + IRREGULAR[ending]
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-3] + "y"  # ties, cities
    if word.endswith(("sses", "shes", "ches", "xes", "zzes", "oes")):
        return word[:-2]
    if word.endswith("uses") and not word.endswith(("ouses", "auses", "fuses", "muses")):
        return word[:-2]  # buses, octopuses; not houses
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def head_noun(words: Sequence[str]) -> int:
    """Index of the head noun: the last word before the first preposition, relative pronoun or trailing participle.

    ["a", "man", "with", "a", "red", "hat"] -> 1. A measure is not the head, what it measures is: "a pair of shoes" ->
    "shoes". `words` must not be empty; if no word qualifies, the last one is the head.
    """
    lowered = [word.lower() for word in words]
    head = None
    for i, word in enumerate(lowered):
        if head is not None and word == "of" and singular(lowered[head]) in MEASURES:
            head = None
        elif head is not None and _ends_noun(lowered, i):
            break
        elif word not in DETERMINERS and word not in PREPOSITIONS and not word.isdecimal():
            head = i
    return len(words) - 1 if head is None else head


def match_phrases(phrases: Sequence[str], prompt: str) -> list[Match]:
    """One match per phrase: where in `prompt` its head noun occurs, in any case and number ("a car" in "three cars").

    Of several occurrences a phrase gets the one that shares the most of its other words. Occurrences that are equally
    good are assigned in prompt order: each to as many phrases as its number says ("two cats": to two). Phrases beyond
    these numbers share an occurrence with others. Scripts without spaces between words are matched as substrings.
    Phrases and prompt may hold weights "(red:1.2)". Raises PhraseNotInPromptError for a phrase whose head noun is not
    in the prompt.
    """
    words = split_words(prompt)
    lemmas = [_lemma(word.text) for word in words]
    candidates = [_best_occurrences(phrase, prompt, words, lemmas) for phrase in phrases]
    capacity = {word.span: _capacity(words, lemmas, i) for i, word in enumerate(words)}
    load = Counter()

    def room(match: Match) -> int:
        return capacity.get(match.head, 1) - load[match.head]

    matches = {}
    # The most specific phrases come first, so that "a cup" does not take the occurrence of "a red cup".
    for i in sorted(range(len(phrases)), key=lambda i: -candidates[i].agreement):
        options = candidates[i].matches
        matches[i] = next((option for option in options if room(option) > 0), None) or max(options, key=room)
        load[matches[i].head] += 1
    return [matches[i] for i in range(len(phrases))]


def count_of(phrase: str) -> int | None:
    """How many objects a phrase names: as its number word says, else 1; None for a plural without a number.

    "four friends" -> 4, "a couple of dogs" -> 2, "a dog" -> 1, "some dogs" -> None.
    """
    words = split_words(phrase)
    if not words:
        return 1
    lemmas = [_lemma(word.text) for word in words]
    head = head_noun([word.text for word in words])
    number = number_before(lemmas, head)
    if number is None:
        number = NUMBERS.get(lemmas[head])  # "a couple"
    if number is None and words[head].text.casefold() == lemmas[head]:
        return 1
    return number


def noun_words(phrase: str) -> list[str]:
    """The lemmas of a phrase up to its head noun, which is the last: "two red cars on a road" -> two, red, car."""
    words = [word.text for word in split_words(phrase)]
    return [_lemma(word) for word in words[: head_noun(words) + 1]] if words else []


class _Occurrences(NamedTuple):
    agreement: int
    matches: list[Match]


def _best_occurrences(phrase: str, prompt: str, words: list[WordSpan], lemmas: list[str]) -> _Occurrences:
    """The occurrences of `phrase` that share the most of its other words, and how many they share."""
    phrase_words = [word.text for word in split_words(phrase)]
    at = head_noun(phrase_words) if phrase_words else 0
    head = phrase_words[at] if phrase_words else phrase
    adjectives = {_lemma(word) for word in phrase_words[:at]} - DETERMINERS - NUMBERS.keys() - MEASURES - {"of"}
    tail = [_lemma(word) for word in phrase_words[at + 1 :]]

    scored = []
    for i, lemma in enumerate(lemmas):
        if lemma == _lemma(head):
            found = _adjectives_before(i, adjectives, prompt, words, lemmas)
            following = set(lemmas[i + 1 : i + 1 + len(tail)]) & set(tail) - BOUNDARIES
            spans = [words[j].span for j in [*found, i]]
            scored.append((len(found) + len(following), Match(words[i].span, spans)))
    if not scored and _is_unspaced(head):
        spans = [match.span() for match in re.finditer(re.escape(head), prompt)]
        scored = [(0, Match(span, [span])) for span in spans]
    if not scored:
        listed = ", ".join(word.text for word in words) or "none"
        raise PhraseNotInPromptError(
            f"phrase {phrase!r} is not in the prompt: no word matches its noun {head!r}. The prompt's words: {listed}. "
            "Reword the phrase with a noun of the prompt, or name the object in the prompt."
        )
    agreement = max(score for score, _ in scored)
    return _Occurrences(agreement, [match for score, match in scored if score == agreement])


def _adjectives_before(
    head: int, adjectives: set[str], prompt: str, words: list[WordSpan], lemmas: list[str]
) -> list[int]:
    """Indices of the prompt words before `head`, within its noun phrase, that are in `adjectives`."""
    found = []
    skipped = 0
    for i in range(head - 1, -1, -1):
        if lemmas[i] in adjectives:
            found.append(i)
            continue
        gap = prompt[words[i].span[1] : words[i + 1].span[0]]
        skipped += 1
        if lemmas[i] in BOUNDARIES or skipped > MAX_SKIPPED or any(mark in gap for mark in ",.;!?"):
            break
    return found[::-1]


def _capacity(words: list[WordSpan], lemmas: list[str], head: int) -> int:
    """How many objects the noun at `head` stands for: as its number word says, else 1, or 2 for a plural."""
    number = number_before(lemmas, head)
    if number is not None:
        return number
    return 1 if words[head].text.lower() == lemmas[head] else 2


def number_before(lemmas: list[str], head: int) -> int | None:
    """The number word of the noun at `head`, None if there is none: 3 for "cup" in three, red, cup."""
    for i in range(head - 1, max(head - 2 - MAX_SKIPPED, -1), -1):
        if lemmas[i] in NUMBERS:
            return NUMBERS[lemmas[i]]
        if lemmas[i].isdecimal():
            return int(lemmas[i])
        if lemmas[i] in MEASURES:  # "two groups of people" are not two people
            break
        if lemmas[i] in BOUNDARIES and lemmas[i] != "of":  # "a pair of shoes"
            break
    return None


def _ends_noun(lowered: list[str], i: int) -> bool:
    """Whether the noun phrase that started before word `i` ends before it."""
    word = lowered[i]
    if word in PREPOSITIONS or word in TRANSITIVE_PARTICIPLES:
        return True
    # A participle before a noun is an adjective: "a small sleeping cat".
    return word in PARTICIPLES and (i + 1 == len(lowered) or lowered[i + 1] in FUNCTION_WORDS)


def _lemma(word: str) -> str:
    return singular(unicodedata.normalize("NFC", word).casefold())


def _is_unspaced(word: str) -> bool:
    """Whether `word` is of a script without spaces: not ASCII and without case (Chinese, Japanese, Thai, emoji)."""
    return not word.isascii() and word.upper() == word.lower()


def plain(text: str) -> str:
    """The text without spaces and capitals."""
    return "".join(text.split()).casefold()


def words_in_a_row(phrase: str, words: Sequence[str]) -> slice | None:
    """Where words that make up `phrase` first stand in a row; None where they do not.

    Tokenizers split "t-shirt" into three: spaces do not count.
    """
    wanted = plain(phrase)
    for first in range(len(words)):
        joined = ""
        for last in range(first, len(words)):
            joined += plain(words[last])
            if joined == wanted:
                return slice(first, last + 1)
            if not wanted.startswith(joined):
                break
    return None
