"""Whether a layout is what its prompt asks for: checks that know the prompt's meaning, not how a provider read it.

An `Expected` says what a sensible layout of one prompt has to satisfy; `problems` compares a layout with it. Nothing
here imports a layout provider or its word lists, so that a mistake there cannot hide itself.

An object is meant by a reference: its head noun in either number, after any words that its phrase must hold as well.
"dog" is every dog, "black dog" a dog whose phrase says black, "mug|cup" a mug or a cup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations, product
from typing import NamedTuple

from realcompo_core.layout import Box, Layout, LayoutObject

Count = int | str
"""A number; "3+" for at least three, "2-4" for two to four."""

ARTICLES = frozenset("a an the this that these those some any each every another my your his her its our their".split())
NUMBERS = {
    word: number
    for number, word in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), start=1)
}
COLLECTIVES = frozenset(
    "pair pairs couple group bunch set row line stack pile herd flock pack swarm crowd team school dozen dozens "
    "hundreds lots lot number handful trio half".split()
)  # "a herd of zebras" are zebras
NEVER_HEADS = frozenset(
    "of with without in on at by to from into onto inside outside under below beneath above over behind before after "
    "beside between among near against along across through toward towards as like and or but while because if than "
    "is are was were be been being has have had does did do will would could should must "
    "sat sit sits sitting stood stands standing lay lies lying laying rests resting rested perched parked "
    "holding wearing riding carrying holds wears rides carries held wore rode carried leaning leans placed hung "
    "it they them him her he she who which that there here one other others another each "
    "red blue green yellow purple brown black white pink gray grey golden wooden metallic fluffy shiny rusty tiny "
    "small big large huge tall short old young beautiful very "
    "masterpiece quality highres uhd hdr bokeh artstation detailed break".split()
)  # words that name nothing to draw: function words, verbs, adjectives, tags
FINITE = frozenset("is are was were has have had does did".split())
CLAUSE = FINITE | {"that", "which", "who", "because", "while"}
ENDS_NOUN = FINITE | frozenset(
    "of for with without in on at by to from into onto inside outside under below beneath above over behind before "
    "after beside between among near against along across through toward towards while because who which that "
    "sitting standing lying laying resting holding wearing riding carrying leaning".split()
)  # where the noun phrase before is over
IRREGULAR_PLURALS = dict(
    pair.split(":")
    for pair in (
        "people:person men:man women:woman children:child mice:mouse geese:goose feet:foot teeth:tooth oxen:ox "
        "knives:knife wolves:wolf leaves:leaf shelves:shelf loaves:loaf wives:wife calves:calf halves:half elves:elf "
        "thieves:thief scarves:scarf hooves:hoof dwarves:dwarf firemen:fireman policemen:policeman snowmen:snowman "
        "dice:die fishermen:fisherman businessmen:businessman cacti:cactus"
    ).split()
)
UPPER_WEAR = frozenset(
    "hat cap helmet crown tiara beanie beret hood headband headphones glasses sunglasses goggles monocle mask "
    "bandana turban wig fez sombrero earring earrings veil wreath".split()
)
NECK_WEAR = frozenset("scarf necklace tie collar bow pendant bandanna medal stethoscope".split())
LOWER_WEAR = frozenset("shoe boot sneaker sandal slipper sock skate heel trainer flipper ski jeans trousers".split())
OVERHEAD = frozenset("umbrella parasol balloon kite flag torch lantern sign banner trophy".split())  # may be held up

SLACK = 0.03  # in shares of the picture's side: what the eye forgives
NEAR = 0.25  # the widest gap between things that are next to each other
THINNEST = 12  # the longest side by the shortest
EMPTIEST = 0.03  # the area that all objects span together
SMALLEST = 0.02  # the least side of a box that a model can still fill


class Problem(NamedTuple):
    """What is wrong with a layout. `kind` is one of `KINDS`."""

    kind: str
    text: str


FORM = ("phrase", "absurd")  # kinds of problems that no label tells
KINDS = (
    "refused",
    "not refused",
    "count",
    "extra",
    "comparison",
    "relation",
    "attribute",
    "size",
    "absent",
    "warning",
    *FORM,
)


@dataclass(frozen=True)
class Expected:
    """What a sensible layout of `prompt` satisfies; `tests/data/README.md` describes every field."""

    prompt: str
    style: str = ""
    objects: Mapping[str, Count] = field(default_factory=dict)
    may: Sequence[str] = ()
    nothing_else: bool = True
    relations: Sequence[Sequence[str]] = ()
    comparisons: Sequence[Sequence[str]] = ()
    attributes: Mapping[str, Count] = field(default_factory=dict)
    sizes: Sequence[Sequence[str]] = ()
    absent: Sequence[str] = ()
    warns_about: str = ""
    refused: bool = False
    compounds: bool = False

    @classmethod
    def from_dict(cls, data: Mapping) -> Expected:
        """The expectation in one entry of a file. Raises ValueError, which names an unknown field or relation."""
        if unknown := data.keys() - {known.name for known in fields(cls)}:
            raise ValueError(f"unknown fields {sorted(unknown)} for prompt {data.get('prompt')!r}")
        expected = cls(**data)
        names = {name for _, names, *_ in expected.relations for name in names.split("|")}
        if unknown := names - RELATIONS:
            raise ValueError(f"unknown relations {sorted(unknown)} for prompt {expected.prompt!r}")
        return expected

    @property
    def labelled(self) -> bool:
        """Whether it says anything about the layout's objects."""
        return bool(self.refused or self.objects or self.relations or self.attributes or self.absent)


def problems(expected: Expected, layout: Layout | None) -> list[Problem]:
    """Everything that is wrong with the layout of `expected.prompt`; None stands for a refused prompt."""
    if layout is None:
        return [] if expected.refused else [Problem("refused", "the prompt was refused")]
    if expected.refused:
        return [Problem("not refused", f"refusal expected, got {_listing(layout.objects)}")]
    return [
        *count_problems(expected, layout),
        *comparison_problems(expected, layout),
        *relation_problems(expected, layout),
        *attribute_problems(expected, layout),
        *size_problems(expected, layout),
        *absence_problems(expected, layout),
        *warning_problems(expected, layout),
        *phrase_problems(expected.prompt, layout),
        *absurdities(expected, layout),
    ]


# Words


def words_of(text: str) -> list[str]:
    """Lower-case words without weights and punctuation; "1girl" is "1" and "girl"."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r":\s*-?[\d.]+\s*(?=[)\]])", " ", text)
    text = re.sub(r"'s\b", " ", text)
    return re.findall(r"\d+(?=[a-z]{3,}\b)|[^\W_]+(?:[-'][^\W_]+)*", text)


def noun_words(phrase: str) -> list[str]:
    """The words of a noun phrase up to its head, which is the last: "two pairs of red shoes on a mat" -> red, shoes."""
    words = words_of(phrase)
    while words and (_counts_or_points(words[0]) or (words[0] == "dozen" and words[1:2] != ["of"])):
        words = words[1:]
    if len(words) > 2 and words[0] in COLLECTIVES and words[1] == "of":
        return noun_words(" ".join(words[2:]))
    for i, word in enumerate(words[1:], start=1):
        if word in ENDS_NOUN:
            return words[:i]
    return words


def _counts_or_points(word: str) -> bool:
    return word in ARTICLES or word in NUMBERS or word == "half" or word.isdecimal()


def same_noun(one: str, other: str) -> bool:
    """Whether two words are the same noun in either number."""
    return not _singulars(one).isdisjoint(_singulars(other))


def _singulars(word: str) -> set[str]:
    """The word and all that it could be the plural of."""
    found = {word, IRREGULAR_PLURALS.get(word, word)}
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f")):
        if word.endswith(ending) and len(word) - len(ending) + len(singular) > 1:
            found.add(word.removesuffix(ending) + singular)
    return found


def is_meant(reference: str, item: LayoutObject, compounds: bool = False) -> bool:
    """Whether the object is one that the reference means; with `compounds`, "laptop" means a laptop keyboard too."""
    named = noun_words(item.phrase)
    for choice in reference.removeprefix("some ").split("|"):
        words = words_of(choice)
        at_head = any(same_noun(words[-1], word) for word in (named if compounds else named[-1:]))
        if at_head and all(any(same_noun(word, have) for have in named) for word in words):
            return True
    return False


def meant(reference: str, layout: Layout, compounds: bool = False) -> list[LayoutObject]:
    """The objects that the reference means; those of compounds only if there are no others."""
    strictly = [item for item in layout.objects if is_meant(reference, item)]
    return strictly or [item for item in layout.objects if is_meant(reference, item, compounds)]


def counts(wanted: Count, found: int) -> bool:
    """Whether `found` is the number that `wanted` stands for."""
    low, sign, high = re.fullmatch(r"(\d+)([+-]?)(\d*)", str(wanted)).groups()
    return found >= int(low) if sign == "+" else int(low) <= found <= int(high or low)


# Geometry: boxes are x0, y0, x1, y1 in shares of the picture, y down


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def sides(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def area(box: Box) -> float:
    return sides(box)[0] * sides(box)[1]


def common(a: Box, b: Box) -> tuple[float, float]:
    """Extent of the common part along x and y; negative is a gap."""
    return min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])


def covered(a: Box, b: Box) -> float:
    """The share of `a` that lies in `b`."""
    across, along = common(a, b)
    return max(across, 0.0) * max(along, 0.0) / area(a)


def hull(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def left_of(a: Box, b: Box) -> bool:
    """Further left than it is higher or lower, and hardly overlapping."""
    (ax, ay), (bx, by) = middle(a), middle(b)
    return bx - ax >= abs(by - ay) - SLACK and common(a, b)[0] <= max(0.2 * min(sides(a)[0], sides(b)[0]), 1e-6)


def above(a: Box, b: Box) -> bool:
    """Higher than it is to the side, and hardly overlapping."""
    return left_of(_transposed(a), _transposed(b))


def _transposed(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return y0, x0, y1, x1


def on(a: Box, b: Box) -> bool:
    """`a` stands, sits or lies on `b`: its lower edge is in `b` or at its top, most of it is over `b` and not lower."""
    x, y = middle(a)
    over = common(a, b)[0] >= 0.5 * min(sides(a)[0], sides(b)[0]) and b[0] - SLACK <= x <= b[2] + SLACK
    return over and b[1] - SLACK <= a[3] <= b[3] + SLACK and y <= middle(b)[1] + SLACK


def under(a: Box, b: Box) -> bool:
    """`a` is below `b` or in its lower part, as a dog is between the legs of a table."""
    return (
        middle(a)[1] > middle(b)[1] and a[3] >= b[3] - SLACK and common(a, b)[0] >= 0.3 * min(sides(a)[0], sides(b)[0])
    )


def inside(a: Box, b: Box) -> bool:
    """`a` is the smaller one, has its middle in `b` and most of its area."""
    x, y = middle(a)
    return area(a) < area(b) and covered(a, b) >= 0.5 and b[0] <= x <= b[2] and b[1] <= y <= b[3]


def in_front_of(a: Box, b: Box) -> bool:
    """`a` covers a part of `b`, but not all, and stands nearer, that is lower."""
    return a[3] >= b[3] - 1e-6 and 0 < covered(b, a) <= 0.9


def next_to(a: Box, b: Box) -> bool:
    """Side by side: apart or overlapping a little, with a narrow gap, and with heights in common."""
    across, along = common(a, b)
    (ax, _), (bx, _) = middle(a), middle(b)
    apart = abs(ax - bx) >= 0.25 * max(sides(a)[0], sides(b)[0])
    return apart and -NEAR <= across <= 0.6 * min(sides(a)[0], sides(b)[0]) and along > 0


def near(a: Box, b: Box) -> bool:
    """No wide gap in any direction, and neither hides the other."""
    return min(common(a, b)) >= -NEAR and covered(a, b) <= 0.7 and covered(b, a) <= 0.7


def wearing(a: Box, b: Box) -> bool:
    """`b` is worn by `a`: within its width and height, a little more at the top of the head."""
    x, y = middle(b)
    wide = sides(b)[0] <= 1.15 * sides(a)[0]
    return wide and a[0] <= x <= a[2] and a[1] - SLACK <= y <= a[3] and (covered(b, a) >= 0.4 and area(b) < area(a))


def riding(a: Box, b: Box) -> bool:
    """`a` sits above what it rides, with its lower part in it, and is neither a dwarf nor a giant there."""
    x, y = middle(a)
    fits = 0.3 <= sides(a)[1] / sides(b)[1] <= 2.5
    return fits and y < middle(b)[1] and a[1] < b[1] and b[1] - SLACK <= a[3] <= b[3] + SLACK and b[0] <= x <= b[2]


def holding(a: Box, b: Box) -> bool:
    """`b` is at the hands of `a`: touching it, between its head and feet, not before its face, not larger."""
    width, height = sides(a)
    face = a[0] + width / 3, a[1], a[2] - width / 3, a[1] + height / 6
    at_hand = a[1] + 0.1 * height <= middle(b)[1] <= a[1] + 0.95 * height
    return (
        min(common(a, b)) >= -SLACK
        and at_hand
        and area(b) <= 1.2 * area(a)
        and max(covered(a, b), covered(face, b)) <= 0.8
    )


def holding_up(a: Box, b: Box) -> bool:
    """`b` is touched by `a`, or nearly, at its upper half or over its head."""
    return min(common(a, b)) >= -0.1 and middle(b)[1] <= middle(a)[1] + SLACK and covered(a, b) <= 0.8


def part_of(a: Box, b: Box) -> bool:
    """`a` is within `b`, as hair and eyes are within a person."""
    return covered(a, b) >= 0.6 and area(a) < area(b)


def between(a: Box, b: Box, c: Box) -> bool:
    """The middle of `a` is between the middles of the others, along the axis on which those are further apart."""
    middles = [middle(box) for box in (a, b, c)]
    axis = max((0, 1), key=lambda axis: abs(middles[1][axis] - middles[2][axis]))
    here, one, other = (point[axis] for point in middles)
    along = sorted((one, other))
    off = abs(middles[0][1 - axis] - (middles[1][1 - axis] + middles[2][1 - axis]) / 2)
    return along[0] < here < along[1] and off <= NEAR


def surrounded_by(a: Box, boxes: Sequence[Box]) -> bool:
    """`a` is within the only one that surrounds it, or within the hull of several that are on both sides of it."""
    if len(boxes) == 1:
        return inside(a, boxes[0])
    x, y = middle(a)
    xs, ys = zip(*map(middle, boxes), strict=True)
    return min(xs) < x < max(xs) or min(ys) < y < max(ys)


Pair = Callable[[Box, Box], bool]

DIRECTIONS: dict[str, Pair] = {  # of all that the two references mean, taken together
    "left_of": left_of,
    "right_of": lambda a, b: left_of(b, a),
    "above": above,
    "below": lambda a, b: above(b, a),
    "higher_than": lambda a, b: middle(a)[1] < middle(b)[1],
    "lower_than": lambda a, b: middle(a)[1] > middle(b)[1],
}
CONTACTS: dict[str, Pair] = {  # of each of the first with one of the second
    "on": on,
    "under": under,
    "inside": inside,
    "in_front_of": in_front_of,
    "behind": lambda a, b: in_front_of(b, a),
    "next_to": next_to,
    "near": near,
    "riding": riding,
    "part_of": part_of,
}
OF_THINGS = {"wearing", "holding"}  # each of the second has one of the first that wears or holds it
PLACES: dict[str, Callable[[Box], bool]] = {
    "at_left": lambda a: middle(a)[0] < 0.48,
    "at_right": lambda a: middle(a)[0] > 0.52,
    "at_top": lambda a: middle(a)[1] < 0.48,
    "at_bottom": lambda a: middle(a)[1] > 0.52,
    "at_middle": lambda a: abs(middle(a)[0] - 0.5) < 0.2 and abs(middle(a)[1] - 0.5) < 0.25,
}
RELATIONS = {*DIRECTIONS, *CONTACTS, *OF_THINGS, *PLACES, "between", "surrounded_by"}
MEETING = {"on", "under", "inside", "in_front_of", "behind", "riding", "part_of", "wearing", "holding", "surrounded_by"}


def _worn(a: LayoutObject, b: LayoutObject) -> bool:
    """`wearing`, and what belongs to head, neck or feet is there."""
    if not wearing(a.box, b.box):
        return False
    height = sides(a.box)[1]
    at = (middle(b.box)[1] - a.box[1]) / height
    small = sides(b.box)[1] <= 0.5 * height
    if _head_in(b, UPPER_WEAR):
        return small and at <= 0.35
    if _head_in(b, NECK_WEAR):
        return small and at <= 0.55
    return at >= 0.55 if _head_in(b, LOWER_WEAR) else True


def _held(a: LayoutObject, b: LayoutObject) -> bool:
    """`holding`, or `holding_up` for what is carried over the head."""
    return (holding_up if _head_in(b, OVERHEAD) else holding)(a.box, b.box)


def _head_in(item: LayoutObject, nouns: Iterable[str]) -> bool:
    words = noun_words(item.phrase)
    return bool(words) and any(same_noun(words[-1], noun) for noun in nouns)


def holds(relation: Sequence[str], layout: Layout, compounds: bool = False) -> bool:
    """Whether the layout has the relation [reference, name, reference…]; of several names "a|b" one is enough.

    Directions compare all objects that the references mean, taken together. Otherwise each object of the first
    reference needs one of the second; for wearing and holding each of the second needs one of the first. With
    "some " before the first reference one pair is enough, and it may be of two objects of one noun. A relation about
    objects that the layout lacks does not hold.
    """
    first, names, *others = relation
    groups = [meant(reference, layout, compounds) for reference in (first, *others)]
    if not all(groups):
        return False
    return any(_holds(name, first.startswith("some "), *groups) for name in names.split("|"))


def _holds(name: str, some: bool, subjects: list[LayoutObject], *others: list[LayoutObject]) -> bool:
    if name in PLACES:
        return (any if some else all)(PLACES[name](item.box) for item in subjects)
    if name == "between":
        pairs = list(product(*others) if len(others) == 2 else combinations(others[0], 2))
        return all(any(between(item.box, b.box, c.box) for b, c in pairs) for item in subjects)
    if name == "surrounded_by":
        around = [item.box for group in others for item in group]
        return all(surrounded_by(item.box, around) for item in subjects)
    if name in DIRECTIONS and not some:
        a, b = (hull([item.box for item in group]) for group in (subjects, others[0]))
        return DIRECTIONS[name](a, b)
    if name in OF_THINGS:
        test = _worn if name == "wearing" else _held
        related = [[test(a, b) and a is not b for a in subjects] for b in others[0]]
    else:
        pair = DIRECTIONS.get(name) or CONTACTS[name]
        related = [[pair(a.box, b.box) and a is not b for b in others[0]] for a in subjects]
    return (any if some else all)(any(row) for row in related)


# What may be wrong


def count_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """Objects that are missing, too many, or not asked for. Phrases that the references mean are told by head noun."""
    found = []
    for reference, wanted in expected.objects.items():
        number = len(meant(reference, layout, expected.compounds))
        if not counts(wanted, number):
            found.append(Problem("count", f"{wanted} × {reference!r} expected, got {number}"))
    if expected.nothing_else:
        known = [*expected.objects, *expected.may]
        extra = [item for item in layout.objects if not any(is_meant(reference, item) for reference in known)]
        if extra:
            found.append(Problem("extra", f"{_listing(extra)} not asked for"))
    return found


def comparison_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """Of [reference, "more" | "fewer" | "equal", reference]: numbers of objects that compare otherwise."""
    compares = {"more": int.__gt__, "fewer": int.__lt__, "equal": int.__eq__}
    found = []
    for one, how, other in expected.comparisons:
        a, b = len(meant(one, layout)), len(meant(other, layout))
        if not compares[how](a, b):
            found.append(Problem("comparison", f"{how} {one!r} than {other!r} expected, got {a} and {b}"))
    return found


def relation_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """Relations that do not hold. Those about an optional object that is not there are not asked for."""
    found = []
    for relation in expected.relations:
        references = [reference for i, reference in enumerate(relation) if i != 1]
        missing = [reference for reference in references if not meant(reference, layout, expected.compounds)]
        optional = [reference for reference in missing if reference.removeprefix("some ") in expected.may]
        if optional or holds(relation, layout, expected.compounds):
            continue
        places = [item for item in layout.objects if any(is_meant(reference, item) for reference in references)]
        found.append(Problem("relation", f"{' '.join(relation)} does not hold: {_listing(places, boxes=True)}"))
    return found


def attribute_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """Words that the phrases of an object lack."""
    found = []
    for reference, wanted in expected.attributes.items():
        number = len(meant(reference, layout))
        if not counts(wanted, number):
            heads = meant("|".join(choice.split()[-1] for choice in reference.split("|")), layout)
            found.append(Problem("attribute", f"{wanted} × {reference!r} expected among {_listing(heads)}"))
    return found


def size_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """Of [reference, "smaller" | "much_smaller", reference]: roots of areas above 0.85 or 0.5 of the other's."""
    most = {"smaller": 0.85, "much_smaller": 0.5}
    found = []
    for one, how, other in expected.sizes:
        a, b = ([area(item.box) ** 0.5 for item in meant(reference, layout)] for reference in (one, other))
        if not a or not b or max(a) > most[how] * min(b):
            rounded = [[round(side, 2) for side in group] for group in (a, b)]
            found.append(Problem("size", f"{one} {how} than {other} expected, sides are {rounded[0]} and {rounded[1]}"))
    return found


def absence_problems(expected: Expected, layout: Layout) -> list[Problem]:
    """What must be absent and is an object, or is not named in the layout's negative phrase."""
    found = []
    for reference in expected.absent:
        if meant(reference, layout):
            found.append(Problem("absent", f"{reference!r} must be absent and is an object"))
        negative = words_of(layout.negative)
        if not any(same_noun(choice.split()[-1], word) for choice in reference.split("|") for word in negative):
            found.append(Problem("absent", f"{reference!r} is not in the negative phrase {layout.negative!r}"))
    return found


def warning_problems(expected: Expected, layout: Layout) -> list[Problem]:
    if any(expected.warns_about.lower() in warning.lower() for warning in layout.warnings) or not expected.warns_about:
        return []
    return [Problem("warning", f"no warning quotes {expected.warns_about!r}: {list(layout.warnings)}")]


def phrase_problems(prompt: str, layout: Layout) -> list[Problem]:
    """Phrases that are no span of the prompt, and heads that name nothing: a verb, an adjective, an article, a tag.

    The words of a phrase, after an article or a number, have to follow each other in the prompt, in either number: "a
    red cat" is in "three red cats". Marks and weights between words do not count.
    """
    words = words_of(prompt)
    found = []
    for phrase in dict.fromkeys(item.phrase for item in layout.objects):
        wanted = words_of(phrase)
        while len(wanted) > 1 and _counts_or_points(wanted[0]):
            wanted = wanted[1:]
        starts = range(len(words) - len(wanted) + 1)
        if not any(all(map(same_noun, wanted, words[start : start + len(wanted)])) for start in starts):
            found.append(Problem("phrase", f"{phrase!r} is no span of the prompt"))
        named = noun_words(phrase)
        if not CLAUSE.isdisjoint(words_of(phrase)) or not {"a", "an", "the"}.isdisjoint(named):
            found.append(Problem("phrase", f"{phrase!r} holds a verb or a second noun phrase"))
        if not named or named[-1] in NEVER_HEADS | ARTICLES or not re.search(r"[^\W\d_]", named[-1]):
            found.append(Problem("phrase", f"{phrase!r} has no noun as its head"))
    return found


def absurdities(expected: Expected, layout: Layout) -> list[Problem]:
    """What no person would draw: boxes too small or too thin to fill, a nearly empty picture, two objects in one
    place, strangers that hide each other.

    Objects may cover each other if the expectation's relations connect them, directly or through others, and where the
    expectation does not claim to know all objects.
    """
    found = []
    clusters = _clusters(expected, layout)
    for item in layout.objects:
        if min(sides(item.box)) < SMALLEST:
            found.append(Problem("absurd", f"the box of {item.phrase!r} is tiny: {_rounded(item.box)}"))
        if max(sides(item.box)) > THINNEST * min(sides(item.box)):
            found.append(Problem("absurd", f"the box of {item.phrase!r} is a line: {_rounded(item.box)}"))
    if layout.objects and area(hull([item.box for item in layout.objects])) < EMPTIEST:
        found.append(Problem("absurd", f"the picture is nearly empty: {_listing(layout.objects, boxes=True)}"))
    for a, b in combinations(range(len(layout.objects)), 2):
        one, other = layout.objects[a], layout.objects[b]
        hidden = max(covered(one.box, other.box), covered(other.box, one.box))
        alike = noun_words(one.phrase)[-1:] == noun_words(other.phrase)[-1:]
        if min(covered(one.box, other.box), covered(other.box, one.box)) > 0.8:
            found.append(Problem("absurd", f"{_listing([one, other], boxes=True)} are in one place"))
        elif expected.nothing_else and hidden > 0.6 and (alike or clusters[a] != clusters[b]):
            found.append(Problem("absurd", f"{_listing([one, other], boxes=True)}: one hides the other"))
    return found


def _clusters(expected: Expected, layout: Layout) -> list[int]:
    """For each object the number of the cluster that relations of touching objects make it part of."""
    cluster = list(range(len(layout.objects)))
    for first, names, *others in expected.relations:
        if MEETING.isdisjoint(names.split("|")):
            continue
        joined = [
            i
            for i, item in enumerate(layout.objects)
            if any(is_meant(reference, item) for reference in (first, *others))
        ]
        for i in joined[1:]:
            old, new = cluster[i], cluster[joined[0]]
            cluster = [new if number == old else number for number in cluster]
    return cluster


def _rounded(box: Box) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in box)


def _listing(items: Iterable[LayoutObject], boxes: bool = False) -> str:
    return ", ".join(repr(item.phrase) + (f" {_rounded(item.box)}" if boxes else "") for item in items) or "nothing"
