"""Objects of a prompt that a layout lacks, as far as they are plain to see without a grammar."""

from __future__ import annotations

import re
from collections import Counter

from ..layout import Layout
from ..text.words import (
    BOUNDARIES,
    MEASURES,
    NUMBERS,
    count_of,
    noun_words,
    number_before,
    singular,
    split_words,
)

MAX_WORDS = 4  # of a noun phrase after its article
NO_OBJECTS = frozenset(  # pictures, views and places in them
    "photo photograph picture image painting drawing sketch illustration render rendering artwork poster portrait "
    "close-up closeup shot scene view still watercolor watercolour cartoon print snapshot background foreground side "
    "left right top bottom middle center centre front back corner style day night".split()
)
ARTICLES = {"a", "an", *NUMBERS}
# Words before an article that make its noun an object: "a cat and a dog", "to the left of a dog", "next to a dog".
JOINING = frozenset("and beside besides above below under underneath beneath behind near".split())
JOINING_PAIRS = {"of": NO_OBJECTS | {"group"}, "to": frozenset(("next", "close", "adjacent"))}
ABSENCE = frozenset("without no not".split())


def left_out(prompt: str, layout: Layout) -> list[tuple[str, str]]:
    """What `prompt` names and what `layout` has of it, in words: [("3 x cup", "2"), ("a dog", "none")].

    Counted are nouns with a number word. A noun without one is looked for where it begins the prompt or is joined to
    another by "and", a comma or a word for a place; none of the words before it may occur in the layout.
    """
    words = split_words(prompt)
    lemmas = [singular(word.text) for word in words]
    present = Counter()
    for item in layout.objects:
        if named := noun_words(item.phrase):
            present[named[-1]] += count_of(item.phrase) or len(prompt)  # "some dogs" are as many as it takes
    told = {singular(word.text) for item in layout.objects for word in split_words(item.phrase)}
    told |= {singular(word.text) for text in (layout.background, layout.negative) for word in split_words(text)}

    found: dict[str, str] = {}
    for i, word in enumerate(words):
        if lemmas[i] in ABSENCE:
            break
        number = number_before(lemmas, i) if word.text.lower() != lemmas[i] else None
        if number and 0 < present[lemmas[i]] < number:
            found[f"{number} x {lemmas[i]}"] = str(present[lemmas[i]])
        if lemmas[i] in ARTICLES and (i == 0 or _joins(prompt[words[i - 1].span[1] : word.span[0]], lemmas[:i])):
            noun_phrase = _noun_phrase(prompt, words, lemmas, i)
            if noun_phrase and told.isdisjoint(noun_phrase) and NO_OBJECTS.isdisjoint(noun_phrase):
                end = i + len(noun_phrase)
                found[prompt[word.span[0] : words[end].span[1]]] = "none"
    return list(found.items())


def _joins(gap: str, before: list[str]) -> bool:
    """Whether the word before an article makes its noun an object of the picture."""
    return "," in gap or before[-1] in JOINING or (len(before) > 1 and before[-2] in JOINING_PAIRS.get(before[-1], ()))


def _noun_phrase(prompt: str, words: list, lemmas: list[str], article: int) -> list[str]:
    """The lemmas between an article and the end of its noun phrase; empty if that is not plain to see."""
    end = article + 1
    while end < len(words) and lemmas[end] not in BOUNDARIES:
        if re.search(r"[,.;:!?()]", prompt[words[end - 1].span[1] : words[end].span[0]]):
            break
        end += 1
    phrase = lemmas[article + 1 : end]
    return phrase if len(phrase) <= MAX_WORDS and MEASURES.isdisjoint(phrase) else []
