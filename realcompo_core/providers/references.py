"""Which objects of a layout words mean: "the red cat", "the second dog", "both cats", "it"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ..errors import ProviderError
from ..layout import LayoutObject
from ..text.words import DETERMINERS, NUMBERS, noun_words, singular, split_words

Objects = Mapping[int, LayoutObject]  # each under a number of its own
Choice = Callable[[Objects, list[int]], list[int]]  # some of the numbered objects, which are given from left to right


def find(text: str, objects: Objects, last: Sequence[int] = ()) -> list[int]:
    """The numbers of the objects that `text` means, from left to right.

    - "the red cat": the object with this noun and these adjectives, of several the one without others;
    - "the left dog", "the second dog" (from the left), "the biggest dog", "the dog on the right": one of several;
    - "both cats", "all cats", "three cats", "the cats"; "everything";
    - "it", "them": `last`, which were spoken of last; else the only object, and all objects;
    - "the cat and the dog".

    Raises ProviderError, which lists all objects, if none fits, or several fit where one is meant.
    """
    text = text.strip()
    found = _find(text, objects, last)
    if not found:
        parts = [_find(part.strip(), objects, last) for part in re.split(r"\s+and\s+|,", text)]
        found = sorted({i for part in parts for i in part}, key=_left_of(objects)) if all(parts) else []
    if not found:
        raise ProviderError(f"no object fits {text!r}. {listed(objects)}")
    return found


def listed(objects: Objects) -> str:
    """A sentence that lists all objects."""
    if not objects:
        return "The layout has no objects."
    boxes = (f"{item.phrase!r} at {[round(edge, 2) for edge in item.box]}" for item in objects.values())
    return f"The layout's objects (left, top, right, bottom): {', '.join(boxes)}"


def _find(text: str, objects: Objects, last: Sequence[int]) -> list[int]:
    """As `find`, for one of the parts that "and" joins; empty if no object fits."""
    if text.casefold() in EVERYTHING:
        return sorted(objects, key=_left_of(objects))
    if text.casefold() in PRONOUNS:
        spoken_of = [i for i in last if i in objects]
        is_clear = len(objects) == 1 or text.casefold() in PLURALS
        return spoken_of or (sorted(objects, key=_left_of(objects)) if is_clear else [])
    choice, rest = _choice_at_end(text)
    words = [word.text.casefold() for word in split_words(rest)]
    choice = choice or next((CHOICES[word] for word in words if word in CHOICES), None)
    lemmas = [singular(word) for word in words if word not in CHOICES]
    wanted = [lemma for lemma in lemmas if lemma not in NO_NAMES and not lemma.isdecimal()]
    if not wanted and not GENERIC.intersection(lemmas):
        return []
    fitting = sorted(_fitting(wanted, objects), key=_left_of(objects))
    if choice:
        return choice(objects, fitting) if fitting else []
    count = next((number for lemma in lemmas if lemma != "one" and (number := number_of(lemma))), None)
    if fitting and count not in (None, len(fitting)):
        raise ProviderError(f"{text!r} are {count}, but {len(fitting)} objects fit. {listed(objects)}")
    several = count or words[-1] != lemmas[-1] or {"all", "every", "each"}.intersection(lemmas)
    if len(fitting) > 1 and not several and len(plain := _plain(fitting, wanted, objects)) == 1:
        return plain
    if len(fitting) > 1 and not several:
        raise ProviderError(
            f"{text!r} can be any of {len(fitting)} objects. Say which, as in 'the left one', 'the second "
            f"{wanted[-1] if wanted else 'one'}' (from the left) or 'both'. {listed(objects)}"
        )
    return fitting


def _fitting(wanted: list[str], objects: Objects) -> list[int]:
    """The objects with the noun and the adjectives `wanted`; if there are none, those with all of the words."""
    words = {i: {singular(word.text) for word in split_words(item.phrase)} for i, item in objects.items()}
    nouns = {i: noun_words(item.phrase) for i, item in objects.items()}
    holding = [i for i, known in words.items() if known.issuperset(wanted)]
    return [i for i in holding if wanted and nouns[i] and nouns[i][-1] == wanted[-1]] or holding


def _plain(numbers: list[int], wanted: list[str], objects: Objects) -> list[int]:
    """Those of the objects that have no further adjectives."""
    without = DETERMINERS | NUMBERS.keys() | set(wanted)
    return [i for i in numbers if not set(noun_words(objects[i].phrase)) - without]


def number_of(word: str) -> int | None:
    """The number that a word is: "two", "both" or "2"; else None."""
    return int(word) if word.isdecimal() and len(word) < 10 else NUMBERS.get(word.casefold())


def _choice_at_end(text: str) -> tuple[Choice | None, str]:
    """The choice that "the dog on the left" or "the second dog from the right" makes, and the text without it."""
    match = re.search(
        r"\s+(?P<how>on|at|in|from)\s+the\s+(?:far\s+)?(?P<side>left|right|top|bottom)(?:\s+side)?$",
        text,
        re.IGNORECASE,
    )
    if match is None:
        return None, text
    rest, side = text[: match.start()], match["side"].lower()
    if match["how"].lower() != "from":
        return CHOICES[side], rest
    ordinal = next((word for word in rest.lower().split() if word in ORDINALS), ORDINALS[0])
    axis = 0 if side in ("left", "right") else 1
    return _nth(ORDINALS.index(ordinal), axis, reverse=side in ("right", "bottom")), rest


def _nth(n: int, axis: int = 0, reverse: bool = False) -> Choice:
    """The n-th of the objects along an axis; none if there are not so many."""

    def choose(objects: Objects, numbers: list[int]) -> list[int]:
        ordered = sorted(numbers, key=lambda i: objects[i].box[axis] + objects[i].box[axis + 2], reverse=reverse)
        return ordered[n : n + 1]

    return choose


def _largest(objects: Objects, numbers: list[int]) -> list[int]:
    return [max(numbers, key=lambda i: _area(objects[i]))]


def _smallest(objects: Objects, numbers: list[int]) -> list[int]:
    return [min(numbers, key=lambda i: _area(objects[i]))]


def _middle(objects: Objects, numbers: list[int]) -> list[int]:
    return [numbers[len(numbers) // 2]]


def _area(item: LayoutObject) -> float:
    x0, y0, x1, y1 = item.box
    return (x1 - x0) * (y1 - y0)


def _left_of(objects: Objects) -> Callable[[int], float]:
    """What orders objects from left to right."""
    return lambda i: objects[i].box[0] + objects[i].box[2]


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
CHOICES: dict[str, Choice] = {word: _nth(n) for n, word in enumerate(ORDINALS)}
CHOICES |= dict.fromkeys(("left", "leftmost"), _nth(0))
CHOICES |= dict.fromkeys(("right", "rightmost", "last"), _nth(0, reverse=True))
CHOICES |= dict.fromkeys(("top", "topmost", "upper"), _nth(0, axis=1))
CHOICES |= dict.fromkeys(("bottom", "lowest", "lower"), _nth(0, axis=1, reverse=True))
CHOICES |= dict.fromkeys(("middle", "central"), _middle)
CHOICES |= dict.fromkeys(("biggest", "bigger", "largest", "larger"), _largest)
CHOICES |= dict.fromkeys(("smallest", "smaller"), _smallest)
EVERYTHING = {"everything", "all", "all objects", "everyone", "everybody"}
PLURALS = {"them", "these", "those", "both", "both of them", "all of them"}
PRONOUNS = PLURALS | {"it", "him", "her", "this", "that"}
GENERIC = {"one", "object", "thing", "item"}
NO_NAMES = DETERMINERS | NUMBERS.keys() | GENERIC | {"of", "all"}
