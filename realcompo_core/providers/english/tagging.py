"""Parses that contradict what is known about words, parsed again with plainer words in the doubtful places.

A statistical tagger takes "a rose petal fell" for a thing that rose, and "an owl stares" for several stares. Where its
tags cannot be right, the parser is given a word of the class that fits ("sits" for "stares") and decides the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...text.parser import Token
from ...text.parser import parse as parse_tokens
from ...text.words import DETERMINERS, singular
from . import vocabulary as v

Form = tuple[str, int, int]
THING, ANIMAL, THINGS = "box", "dog", "boxes"  # words that the tagger never takes for anything but nouns
PRESENT, BASE, PAST = ("sits", "holds"), ("remain", "have"), ("sat", "held")  # without and with an object
PARTICIPLE = "placed"
PASSES = 3  # each may uncover what the next repairs
NOUN_TAGS = ("NN", "NNS", "NNP", "NNPS")
FINITE_TAGS = ("VB", "VBP", "VBD", "VBZ", "MD")


def parse(forms: Sequence[Form]) -> list[Token]:
    """`forms` tagged and parsed. Tokens keep the given forms, whatever the parser saw in their place."""
    seen = list(forms)
    tokens = parse_tokens(seen)
    for _ in range(PASSES):
        words = [form.lower() for form, _, _ in forms]
        plainer = {i: word for i in range(len(forms)) if (word := _plainer(words, tokens, i)) and word != seen[i][0]}
        if not plainer:
            break
        seen = [(plainer.get(i, form), start, end) for i, (form, start, end) in enumerate(seen)]
        tokens = parse_tokens(seen)
    return [replace(token, text=form) for token, (form, _, _) in zip(tokens, forms, strict=True)]


def _plainer(words: list[str], tokens: list[Token], i: int) -> str | None:
    """The word that the parser shall see instead of the i-th, None if its tag may be right."""
    tag = tokens[i].tag
    if tag in (*NOUN_TAGS, "JJ") and _is_predicate(words, tokens, i):
        forms = PAST if words[i] in v.PAST_FORMS else BASE if words[i] in v.VERB_BASES else PRESENT
        return forms[_has_object(words, tokens, i)]
    if tag in ("VB", "VBP") and tokens[i].label in ("compound", "amod", "nmod") and i and words[i - 1] in v.NOUNS:
        return BASE[_has_object(words, tokens, i)] if _are_several(words, i - 1) else None
    if tag in NOUN_TAGS and _is_participle(words, tokens, i):
        return PARTICIPLE
    if tag not in NOUN_TAGS and _must_be_noun(words, tokens, i):
        return _noun_like(words[i])
    return None


def _noun_like(word: str) -> str:
    if singular(word) != word:
        return THINGS
    return ANIMAL if word in v.ANIMATE else THING


def _is_predicate(words: list[str], tokens: list[Token], i: int) -> bool:
    """Whether a "noun" is what the noun before it does: "an owl stares at …", "the clock ticks", "a petal fell"."""
    if i > 2 and words[i - 2] in v.BE and words[i - 1] in v.ADJECTIVES and words[i] in v.ACTIONS:
        return True  # "a dog whose collar is blue lies on …"
    if not i or words[i - 1] not in v.NOUNS or tokens[i - 1].tag not in (*NOUN_TAGS, "JJ", "VBG"):
        return False
    if words[i] in v.VERB_BASES - v.ADJECTIVES and tokens[i].tag != "NNS" and _are_several(words, i - 1):
        return words[i] not in v.NOUNS or words[i - 1] in v.ANIMATES
    following = tokens[i + 1].tag if i + 1 < len(tokens) else ""
    if following in NOUN_TAGS and not _begins_phrase(words, i + 1):
        return False
    if tokens[i].tag == "JJ":
        return False
    if words[i] in v.PAST_FORMS:
        return True
    if words[i] not in v.ACTIONS or singular(words[i - 1]) != words[i - 1]:
        return False
    start = i - 1
    while start and words[start] not in DETERMINERS and tokens[start - 1].tag in (*NOUN_TAGS, "JJ", "VBN", "DT"):
        start -= 1
    certain = words[start] in v.SINGULAR_DETERMINERS
    return certain or (words[start] in DETERMINERS and words[i] not in v.NOUNS)


def _are_several(words: list[str], i: int) -> bool:
    """Whether what ends with the i-th word is more than one: "elephants", "a hat and a coat"."""
    return singular(words[i]) != words[i] or "and" in words[:i]


def _is_participle(words: list[str], tokens: list[Token], i: int) -> bool:
    """ "a bicycle tethered to a post", taken for a noun."""
    ends = words[i].endswith("ed") and words[i] not in v.NOUNS and i + 1 < len(words) and words[i + 1] in v.PREPOSITIONS
    return ends and bool(i) and words[i - 1] in v.NOUNS and tokens[i - 1].tag in NOUN_TAGS


def _has_object(words: list[str], tokens: list[Token], i: int) -> bool:
    return (
        i + 1 < len(words) and (_begins_phrase(words, i + 1) or words[i + 1] in v.NOUNS) and tokens[i + 1].tag != "IN"
    )


def _begins_phrase(words: list[str], i: int) -> bool:
    return words[i] in DETERMINERS or words[i] in v.NUMBERS or words[i] in v.VAGUE


def _must_be_noun(words: list[str], tokens: list[Token], i: int) -> bool:
    """Whether a word between an article and the end of its phrase has to be a noun: "a rose petal", "the iron on …"."""
    if not words[i].isalpha() or words[i] in v.FUNCTION_WORDS - v.NOUNS:
        return False
    start = i
    while start and _qualifies(words, tokens, start - 1):
        start -= 1
    if not start or words[start - 1] not in DETERMINERS:
        return False
    finite = tokens[i].tag in FINITE_TAGS
    if finite and (start == i or words[i] in v.NOUNS):
        return True
    return words[i] in v.NOUNS - v.ADJECTIVES and _ends_phrase(words, tokens, i + 1)


def _qualifies(words: list[str], tokens: list[Token], i: int) -> bool:
    return words[i] in v.ADJECTIVES or (tokens[i].tag in ("JJ", "JJR", "VBN") and words[i] not in v.NOUNS)


def _ends_phrase(words: list[str], tokens: list[Token], i: int) -> bool:
    return i >= len(words) or words[i] in v.PREPOSITIONS or words[i] in v.BE or tokens[i].tag in (",", ".", "CC", "VBZ")
