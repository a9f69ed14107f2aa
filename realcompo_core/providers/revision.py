"""Layouts changed by rules: "move the red cat to the left", in a closed form of English.

An instruction is one clause or several, joined by "and", "then", commas, full stops or new lines. `FORMS` lists what a
clause can say, `references.find` which objects it can speak of. Lengths are shares of the picture's width or height.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from ..errors import ProviderError
from ..layout import MAX_OBJECTS, Box, Layout, LayoutObject
from ..layout.changes import MARGIN, Axes, at_sides, covered, free_box, in_box, inside, mirrored
from ..text.words import NUMBERS, head_noun, noun_words, singular
from .continuation import follow_up, lost_masks
from .profiles import usable_profiles
from .references import NO_NAMES, find, listed, number_of

FORMS = (
    "move X (a little, far, 10 %) left, right, up or down",
    "move X to the left side, the top right corner, the middle",
    "move X next to, left of, right of, above, below, on, inside, in front of or behind Y",
    "make X (a little, much) bigger, smaller, wider, narrower, taller or shorter, or twice as big",
    "swap X and Y",
    "remove X",
    "add X (on the left, next to Y)",
    "mirror X",
)

GAP = 0.03  # between objects that are moved beside each other
SUNK = 0.1  # how far an object sinks into what it is put on, as a share of its height
FILLED = 0.9  # the share of a container's sides that its content takes at most
LEAST = 0.05  # the least side of an object that is fitted into the room that there is
SMALLEST = 0.02  # the least side of an object that is made smaller
STEPS = {"little": 0.1, "": 0.2, "much": 0.35, "far": 1.0}  # of a move, which ends at the border
FACTORS = {"little": 1.1, "": 1.25, "much": 1.6, "far": 1.6}  # of the sides of what is made bigger
NEW_LEAST, NEW, NEW_MOST = 0.15, 0.25, 0.4  # sides of an added object, in shorter sides of the picture
NEW_ON = 0.4  # the share of the width of what it is added on that an object takes at most
CROWDED = 0.15  # the share of an added object that others may cover without a warning
EVEN = 1e-6
MAX_CLAUSE = 300  # characters

Amount = tuple[str, float | None]  # "little", "", "much" or "far"; or "%" or "px" with a number


def revise(layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
    """`layout` changed as `instruction` says, for a picture of `size` = (width, height) pixels.

    Objects that the instruction does not speak of stay as they are. Masks and keypoints go with their boxes, which stay
    in the picture. What was added is named in the prompt, see `follow_up`. Raises ProviderError for a clause that is
    none of `FORMS`, that speaks of no object or of one of several, or for which there is no room.
    """
    clauses = [clause for text in CLAUSES.split(instruction) if (clause := POLITE.sub("", text).strip(" \t\"',.!?"))]
    if not clauses:
        raise ProviderError(f"instruction {instruction!r} is empty, say what to change: {'; '.join(FORMS)}")
    draft = Draft(dict(enumerate(layout.objects)), size)
    for clause in clauses:
        _apply(draft, clause)
    kept = [(old, draft.objects[i]) for i, old in enumerate(layout.objects) if i in draft.objects]
    removed = [old.phrase for i, old in enumerate(layout.objects) if i not in draft.objects]
    return follow_up(
        replace(layout, objects=tuple(draft.objects.values())),
        layout,
        added=draft.added,
        removed=removed,
        kept=[after.phrase for _, after in kept],
        warnings=[*draft.warnings, *lost_masks(kept)],
    )


@dataclass
class Draft:
    """The objects on the way to the new layout, each under a number that stays its own."""

    objects: dict[int, LayoutObject]
    size: tuple[int, int]  # of the picture, in pixels
    last: list[int] = field(default_factory=list)  # whom "it" means
    added: list[str] = field(default_factory=list)  # phrases for the prompt
    warnings: list[str] = field(default_factory=list)

    def find(self, text: str) -> list[int]:
        """The numbers of the objects that `text` means; they are spoken of last then."""
        self.last = find(text, self.objects, self.last)
        return self.last

    def named(self, numbers: Sequence[int]) -> str:
        return " and ".join(repr(self.objects[i].phrase) for i in numbers)

    def around(self, numbers: Sequence[int]) -> Box:
        """The box around these objects."""
        lefts, tops, rights, bottoms = zip(*(self.objects[i].box for i in numbers), strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    def fit(self, numbers: Sequence[int], target: Box) -> None:
        """Moves and stretches the objects, as they stand to each other, from the box around them to `target`."""
        old = self.around(numbers)
        for i in numbers:
            edges = []
            for at, edge in enumerate(self.objects[i].box):
                low, high = at % 2, at % 2 + 2
                share = (edge - old[low]) / (old[high] - old[low])
                edges.append(target[low] + share * (target[high] - target[low]))
            self.place(i, edges)

    def place(self, number: int, edges: Sequence[float]) -> None:
        """Puts one object into the box with these edges. One that is there already stays as it is."""
        item, box = self.objects[number], inside(edges)
        if max(abs(new - old) for new, old in zip(box, item.box, strict=True)) > EVEN:
            self.objects[number] = in_box(item, box)


def _apply(draft: Draft, clause: str) -> None:
    if len(clause) > MAX_CLAUSE:
        raise ProviderError(
            f"instruction: {clause[:MAX_CLAUSE]!r}… has no end within {MAX_CLAUSE} characters, split it"
        )
    before, warned = list(draft.objects.values()), len(draft.warnings)
    for pattern, change in CHANGES:
        if match := re.fullmatch(pattern, clause, flags=re.IGNORECASE | re.DOTALL):
            change(draft, match)
            if list(draft.objects.values()) == before and len(draft.warnings) == warned:
                draft.warnings.append(f"{clause!r} changes nothing, it is so already")
            return
    raise _unreadable(clause)


def _unreadable(clause: str) -> ProviderError:
    names = ", ".join(repr(profile.name) for profile in usable_profiles())
    models = f"a language model, here {names}" if names else "a language model (see `realcompo providers`)"
    return ProviderError(
        f"the rules cannot read the instruction {clause!r}. They read: {'; '.join(FORMS)}. For anything else "
        f"choose {models} as provider"
    )


# Moving.


def _move(draft: Draft, match: re.Match) -> None:
    text, amount = _amount(match["rest"])
    error = None
    for whom_text, relation, other_text in _related(text):
        try:
            whom, other = draft.find(whom_text), draft.find(other_text)
        except ProviderError as problem:  # perhaps another word is the relation: "the dog on the left above the cat"
            error = problem
            continue
        if set(whom) & set(other):
            raise ProviderError(f"{match.string!r}: {draft.named(whom)} cannot be moved to where it is itself")
        _put(draft, whom, relation, other)
        draft.last = whom
        return
    place = PLACE.fullmatch(text)
    if place is None:
        raise error or _unreadable(match.string)
    whom = draft.find(place["what"])
    axes, is_direction = _sides(place)
    if is_direction:
        _shift(draft, whom, axes, amount)
    else:
        _go(draft, whom, axes, amount)


def _shift(draft: Draft, whom: list[int], axes: Axes, amount: Amount) -> None:
    """Moves objects in a direction by an amount, up to the picture's border."""
    box = list(draft.around(whom))
    for axis, sign in axes.items():
        step = _step(draft, amount, axis)
        room = max((box[axis] if sign < 0 else 1 - box[axis + 2]) - MARGIN, 0.0)
        moved = min(step, room)
        if moved < EVEN or (amount[1] is not None and moved < step - EVEN):
            side = {(0, -1): "left", (0, 1): "right", (1, -1): "upper", (1, 1): "lower"}[axis, sign]
            draft.warnings.append(f"{draft.named(whom)} moved by {moved:.0%} only: the {side} border is there")
        box[axis] += sign * moved
        box[axis + 2] += sign * moved
    draft.fit(whom, tuple(box))


def _go(draft: Draft, whom: list[int], axes: Axes, amount: Amount) -> None:
    """Moves objects to a place in the picture, or towards it by an amount."""
    box = draft.around(whom)
    target = list(at_sides(box, axes))
    if amount != ("", None):
        for axis in axes:
            step = _step(draft, amount, axis)
            moved = min(max(target[axis] - box[axis], -step), step)
            target[axis], target[axis + 2] = box[axis] + moved, box[axis + 2] + moved
    draft.fit(whom, tuple(target))


def _step(draft: Draft, amount: Amount, axis: int) -> float:
    kind, number = amount
    return STEPS[kind] if number is None else number / (100 if kind == "%" else draft.size[axis])


def _raise_or_lower(draft: Draft, match: re.Match) -> None:
    text, amount = _amount(match["rest"])
    _shift(draft, draft.find(text), {1: 1 if match["verb"].lower() == "lower" else -1}, amount)


def _centre(draft: Draft, match: re.Match) -> None:
    _go(draft, draft.find(match["rest"]), {0: 0, 1: 0}, ("", None))


def _put(draft: Draft, whom: list[int], relation: str, other: list[int]) -> None:
    """Moves objects into a relation to others.

    Across the direction of the relation they stay where they are, if they are beside the others there. Where the room
    is short, the others move aside, then the objects become smaller; both with a warning.
    """
    box, target = draft.around(whom), draft.around(other)
    if relation == "next_to":
        relation = "left_of" if target[0] > 1 - target[2] else "right_of"
    sides = [box[2] - box[0], box[3] - box[1]]
    room = [1.0, 1.0]
    if relation in SIDES_OF:
        axis, sign = SIDES_OF[relation]
        target = _aside(draft, other, axis, -sign, sides[axis] + GAP + MARGIN)
        room[axis] = _room(target, axis, sign) - GAP - MARGIN
    elif relation == "inside":
        room = [FILLED * (target[2] - target[0]), FILLED * (target[3] - target[1])]
    if min(room) < LEAST:
        raise ProviderError(
            f"no room for {draft.named(whom)} {relation.replace('_', ' ')} {draft.named(other)}: make "
            f"{draft.named(other)} {'bigger' if relation == 'inside' else 'smaller'} first"
        )
    share = min(1.0, *(most / side for most, side in zip(room, sides, strict=True)))
    if share < 1 - EVEN:
        draft.warnings.append(f"{draft.named(whom)} made smaller, to {share:.0%}, as there is no more room")
    sides = [side * share for side in sides]
    centres = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    middles = [(target[0] + target[2]) / 2, (target[1] + target[3]) / 2]
    reach = [target[2] - target[0], target[3] - target[1]]
    if relation in SIDES_OF:
        centres[axis] = (target[axis] if sign < 0 else target[axis + 2]) + sign * (GAP + sides[axis] / 2)
        across = 1 - axis
        if abs(centres[across] - middles[across]) >= (sides[across] + reach[across]) / 2 - EVEN:
            centres[across] = middles[across]
    elif relation == "inside":
        centres = [_near(centres[i], middles[i], (reach[i] - sides[i]) / 2) for i in (0, 1)]
    elif relation == "on":  # on the upper edge; lower, where the picture ends above it
        centres = [_near(centres[0], middles[0], abs(reach[0] - sides[0]) / 2), target[1] + (SUNK - 0.5) * sides[1]]
    elif relation == "in_front_of":  # what is lower in the picture is nearer
        centres = [middles[0], target[3] - sides[1] / 4]
    else:  # the upper half of what is behind is seen
        centres = [middles[0], target[1]]
    draft.fit(whom, inside([centres[i % 2] + (i // 2 - 0.5) * sides[i % 2] for i in range(4)]))


def _aside(draft: Draft, whom: list[int], axis: int, sign: int, needed: float) -> Box:
    """Moves objects away, along the axis, until `needed` is free behind them; the box around them then."""
    box = draft.around(whom)
    lacking = needed - _room(box, axis, -sign)
    moved = min(lacking, _room(box, axis, sign) - MARGIN)
    if moved > EVEN:
        edges = list(box)
        edges[axis] += sign * moved
        edges[axis + 2] += sign * moved
        draft.warnings.append(f"{draft.named(whom)} moved aside by {moved:.0%}, to make room")
        draft.fit(whom, tuple(edges))
    return draft.around(whom)


def _room(box: Box, axis: int, sign: int) -> float:
    """From the box to the picture's border."""
    return box[axis] if sign < 0 else 1 - box[axis + 2]


def _near(value: float, middle: float, slack: float) -> float:
    """The value nearest to `value` that is at most `slack` from the middle."""
    return min(max(value, middle - slack), middle + slack)


def _swap(draft: Draft, match: re.Match) -> None:
    """Two change their places: their middles, and the lines on which they stand. Their sizes stay."""
    one, other = _pair(draft, match["rest"])
    if set(one) & set(other):
        raise ProviderError(f"{match.string!r}: {draft.named(one)} cannot be swapped with itself")
    boxes = draft.around(one), draft.around(other)
    for whom, own, target in ((one, *boxes), (other, *boxes[::-1])):
        half, height = (own[2] - own[0]) / 2, own[3] - own[1]
        middle = (target[0] + target[2]) / 2
        draft.fit(whom, inside([middle - half, target[3] - height, middle + half, target[3]]))
    draft.last = [*one, *other]


def _pair(draft: Draft, text: str) -> tuple[list[int], list[int]]:
    """Both sides of "X and Y", or of "both dogs"."""
    error = None
    for cut in re.finditer(r"\s+(?:and|with|for)\s+", text):
        try:
            return draft.find(text[: cut.start()]), draft.find(text[cut.end() :])
        except ProviderError as problem:
            error = problem
    if error:
        raise error
    both = draft.find(text)
    if len(both) != 2:
        raise ProviderError(f"{text!r}: two can be swapped, but here are {len(both)}. {listed(draft.objects)}")
    return [both[0]], [both[1]]


def _mirror(draft: Draft, match: re.Match) -> None:
    axis = 1 if (match["axis"] or "").lower() in ("vertically", "upside down") else 0
    for i in draft.find(match["rest"] or "everything"):
        draft.objects[i] = mirrored(draft.objects[i], axis)


# Sizes.


def _make(draft: Draft, match: re.Match) -> None:
    text, amount = _amount(match["rest"])
    compared = COMPARED.fullmatch(text)
    if compared is None:
        raise _unreadable(match.string)
    _compare(draft, compared["what"], compared["change"], amount)


def _enlarge(draft: Draft, match: re.Match) -> None:
    text, amount = _amount(match["rest"])
    _compare(draft, text, VERBS_OF_SIZE[match["verb"].lower()], amount)


def _compare(draft: Draft, what: str, change: str, amount: Amount) -> None:
    """ "Bigger" by an amount: "smaller" takes it back, unless it is a percentage."""
    (kind, number), (axes, sign) = amount, SIZES[change.lower()]
    if kind == "px":
        raise ProviderError(f"{what!r} {change} by {number:g} pixels: sizes change by per cent, as in 'by 20 %'")
    factor = FACTORS[kind] ** sign if number is None else 1 + sign * number / 100
    _resize(draft, what, axes, factor)


def _make_times(draft: Draft, match: re.Match) -> None:
    times = match["times"].lower()
    if times not in TIMES and not times[0].isdecimal():
        raise _unreadable(match.string)
    factor = TIMES[times] if times in TIMES else float(times.rstrip(" xtimes"))
    axes, sign = SIZES[(match["change"] or "size").lower()]
    _resize(draft, match["what"], axes, factor**sign if factor else 0.0)


def _scale(draft: Draft, match: re.Match) -> None:
    _resize(draft, match["what"], (0, 1), float(match["number"]) / (100 if match["unit"] else 1))


def _resize(draft: Draft, what: str, axes: Sequence[int], factor: float) -> None:
    """Each object grows or shrinks about its middle, as far as the picture allows."""
    if factor <= 0:
        raise ProviderError(f"{what!r} cannot be made {factor:g} times as big: remove it, or take a number above 0")
    for i in draft.find(what):
        box = list(draft.objects[i].box)
        sides = [box[axis + 2] - box[axis] for axis in axes]
        possible = min(factor, 1 / max(sides)) if factor > 1 else max(factor, min(SMALLEST / min(sides), 1.0))
        if abs(possible - factor) > EVEN:
            draft.warnings.append(
                f"{draft.named([i])} became {possible:.2f} times as big, not {factor:.2f}: that is the limit"
            )
        for axis, side in zip(axes, sides, strict=True):
            middle = (box[axis] + box[axis + 2]) / 2
            box[axis], box[axis + 2] = middle - possible * side / 2, middle + possible * side / 2
        draft.place(i, box)


# Adding and removing.


def _remove(draft: Draft, match: re.Match) -> None:
    for i in draft.find(match["rest"]):
        del draft.objects[i]


def _add(draft: Draft, match: re.Match) -> None:
    text = match["rest"]
    for what, relation, other_text in _related(text):
        try:
            other = draft.find(other_text)
        except ProviderError:
            if DEFINITE.match(other_text) and relation != "inside" and not PLACE.fullmatch(text):
                raise
            continue  # part of the phrase: "a man in a suit", "a bird in the sky"
        new = _new(draft, what)
        _line_up(draft, new, relation, other)
        _put(draft, new, relation, other)
        return
    place = PLACE.fullmatch(text)
    new = _new(draft, place["what"], _sides(place)[0]) if place else _new(draft, text)
    for i in new:
        share = covered(draft.objects[i].box, [item.box for j, item in draft.objects.items() if j != i])
        if share > CROWDED:
            draft.warnings.append(f"{draft.named([i])} and others cover each other: there is no free place of its size")


def _new(draft: Draft, text: str, axes: Axes | None = None) -> list[int]:
    """Adds the objects that `text` names, in free places at the sides `axes` of the picture; their numbers."""
    new = []
    for part in SEVERAL.split(text.strip()):
        if not set(noun_words(part)) - NO_NAMES:
            raise ProviderError(f"cannot add {text.strip()!r}: name what to add, as in 'add a red ball'")
        count, phrase = _counted(part)
        if count > MAX_OBJECTS:
            raise ProviderError(f"cannot add {part!r}: a layout has up to {MAX_OBJECTS} objects")
        draft.added.append(part)
        for _ in range(count):
            new.append(max(draft.objects, default=-1) + 1)
            draft.objects[new[-1]] = LayoutObject(phrase, _free(draft, axes or {}))
    draft.last = new
    return new


def _line_up(draft: Draft, new: list[int], relation: str, other: list[int]) -> None:
    """Makes new objects a row, where the others stand; it is to be put into a relation to them.

    On or inside something the new objects are smaller than that, and where nothing else is yet.
    """
    target = draft.around(other)
    sides = [(item.box[2] - item.box[0], item.box[3] - item.box[1]) for item in map(draft.objects.get, new)]
    width, height = sum(side for side, _ in sides) + GAP * (len(new) - 1), max(side for _, side in sides)
    room, left, share = target[2] - target[0], (target[0] + target[2] - width) / 2, 1.0
    if relation in ("on", "inside"):
        share = min(1.0, FILLED * room / width, NEW_ON * room / max(side for side, _ in sides))
        bottom = target[1] + SUNK * height if relation == "on" else target[3]
        around = [item.box for i, item in draft.objects.items() if i not in (*new, *other)]
        slack = (room - share * width) / 2
        lefts = [target[0] + slack + at * slack for at in (0, 0.5, -0.5, 1, -1)]  # from the middle outwards
        left = min(lefts, key=lambda x: covered((x, bottom - share * height, x + share * width, bottom), around))
    for i, (wide, high) in zip(new, sides, strict=True):
        box = (left, target[3] - share * high, left + share * wide, target[3])
        draft.objects[i] = replace(draft.objects[i], box=box)
        left += share * (wide + GAP)


def _free(draft: Draft, axes: Axes) -> Box:
    """A box as large as the others are, or smaller, in a free place at the sides `axes` of the picture."""
    width, height = draft.size
    others = [item.box for item in draft.objects.values()]
    areas = [(box[2] - box[0]) * width * (box[3] - box[1]) * height for box in others]
    side = min(max(median(areas) ** 0.5 / min(width, height), NEW_LEAST), NEW_MOST) if areas else NEW
    boxes = []
    while side >= NEW_LEAST - EVEN:
        sides = (side * min(width, height) / width, side * min(width, height) / height)
        boxes.append(free_box(sides, others, axes))
        if covered(boxes[-1], others) < EVEN:
            return boxes[-1]
        side *= 0.8
    return boxes[0]


def _counted(text: str) -> tuple[int, str]:
    """How many objects a phrase names, and the phrase of one: "two red balls" -> 2, "a red ball"."""
    first, *rest = text.split()
    count = number_of(first)
    if not rest or (count is None and first.casefold() != "another"):
        return 1, text
    if count and count > 1:
        at = head_noun(rest)
        rest[at] = singular(rest[at])
    return count or 1, " ".join(["an" if rest[0][0].casefold() in "aeiou" else "a", *rest])


# Reading.


def _amount(text: str) -> tuple[str, Amount]:
    """`text` without its first amount ("a little", "far", "by 10 %"), and that amount."""
    match = AMOUNT.search(text)
    if match is None:
        return text, ("", None)
    rest = " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())
    if match["number"]:
        return rest, ("px" if match["unit"].lower() in PIXELS else "%", float(match["number"]))
    return rest, (match.lastgroup, None)


def _related(text: str) -> Iterator[tuple[str, str, str]]:
    """All ways to read `text` as "X relation Y"."""
    for match in RELATION.finditer(text):
        yield text[: match.start()], match.lastgroup, text[match.end() :].strip()


def _sides(place: re.Match) -> tuple[Axes, bool]:
    """The sides that a place names, and whether it is a direction ("to the left") and no place ("on the left")."""
    words = re.split(r"[ -]+", place["words"].lower())
    axes = {SIDES[word][0]: SIDES[word][1] for word in words if word in SIDES}
    if PLACES.intersection(words) - {"top", "bottom", "far"}:
        axes = {axis: axes.get(axis, 0) for axis in (0, 1)}
    is_corner = len(axes) > 1 and "and" not in words and not DIRECTIONS.intersection(words)
    is_place = PLACES.intersection(words) or place["part"] or (place["how"] or "").lower() in ("at", "on", "in")
    return axes, not (is_corner or is_place)


SIDES = dict.fromkeys(("left", "leftward", "leftwards"), (0, -1))
SIDES |= dict.fromkeys(("right", "rightward", "rightwards"), (0, 1))
SIDES |= dict.fromkeys(("up", "top", "upper", "higher", "upward", "upwards"), (1, -1))
SIDES |= dict.fromkeys(("down", "bottom", "lower", "downward", "downwards"), (1, 1))
PLACES = {"top", "bottom", "far", "center", "centre", "middle"}  # "far left" is no direction
DIRECTIONS = SIDES.keys() - PLACES - {"left", "right", "upper", "lower"}
SIDES_OF = {"left_of": (0, -1), "right_of": (0, 1), "above": (1, -1), "below": (1, 1)}

SIZES = dict.fromkeys(("bigger", "larger", "big", "large", "size"), ((0, 1), 1))  # axes; 1 to grow, -1 to shrink
SIZES |= dict.fromkeys(("smaller", "small"), ((0, 1), -1))
SIZES |= dict.fromkeys(("wider", "broader", "wide", "width"), ((0,), 1))
SIZES |= dict.fromkeys(("narrower", "thinner", "narrow"), ((0,), -1))
SIZES |= dict.fromkeys(("taller", "higher", "tall", "high", "height"), ((1,), 1))
SIZES |= dict.fromkeys(("shorter", "short"), ((1,), -1))
VERBS_OF_SIZE = {"enlarge": "bigger", "grow": "bigger", "shrink": "smaller", "reduce": "smaller", "widen": "wider"}
TIMES = {"twice": 2.0, "double": 2.0, "half": 0.5, "halve": 0.5}
TIMES |= {f"{word} times": float(number) for word, number in NUMBERS.items()}
PIXELS = ("px", "pixel", "pixels")

_VERBS = "|".join(
    "move put place shift bring push pull slide drag set position make enlarge grow shrink reduce widen scale resize "
    "double halve swap exchange switch remove delete erase drop add insert include flip mirror raise lift lower center "
    "centre take get".split()
)
CLAUSES = re.compile(
    rf"[\n;]+|\.(?!\d)|,?\s+(?:and\s+)?then\s+|,?\s+and\s+(?=(?:{_VERBS})\b)|,\s*(?=(?:{_VERBS})\b)", re.IGNORECASE
)
POLITE = re.compile(
    r"^\s*(?:(?:please|now|also|then|and|could you|can you)\b[\s,]*)+|[\s,]*\bplease\s*$", re.IGNORECASE
)
_CHANGE = "|".join(sorted(SIZES, key=len, reverse=True))
_SIDE = "|".join(sorted(SIDES.keys() | PLACES, key=len, reverse=True))
AMOUNT = re.compile(
    r"\b(?:by\s+)?(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|per ?cent|pixels?|px)"
    r"|\b(?:(?P<little>(?:just )?(?:a (?:little|tiny|small)(?: bit)?|a bit|a tad|a touch)|slightly|somewhat)"
    r"|(?P<far>all the way|as far as possible|far(?!\s+(?:left|right|top|bottom)))"
    r"|(?P<much>(?:much |a lot )?further|much|a lot|way|considerably|significantly))"
    rf"(?=\s*$|\s+(?:more|to|towards?|{_SIDE}|{_CHANGE})\b)",  # "a little red ball" is no amount
    re.IGNORECASE,
)
RELATION = re.compile(
    r"\s(?:(?:(?:to|on|at)\s+)?(?:the\s+)?(?P<left_of>left)(?:[ -]hand)?(?:\s+side)?\s+of"
    r"|(?:(?:to|on|at)\s+)?(?:the\s+)?(?P<right_of>right)(?:[ -]hand)?(?:\s+side)?\s+of"
    r"|(?P<in_front_of>in front of)|(?P<behind>behind)|(?:directly\s+)?(?P<above>above|over)"
    r"|(?:directly\s+)?(?P<below>below|under|underneath|beneath)"
    r"|(?P<next_to>next to|close to|closer to|beside|near|by|alongside)"
    r"|(?P<on>on top of|on to|onto|on|upon)|(?P<inside>inside of|inside|into|within|in))(?=\s)",
    re.IGNORECASE,
)
PLACE = re.compile(
    r"(?P<what>.+?)\s+(?:(?P<how>to|towards?|into|in|at|on|onto)\s+)?(?:the\s+)?"
    rf"(?P<words>(?:{_SIDE})(?:(?:[ -]| and )(?:{_SIDE}))*)(?:[ -]hand)?"
    r"(?P<part>[ -](?:side|edge|border|half|corner|part|third)|\s+of\s+the\s+(?:picture|image|canvas|frame|scene))*",
    re.IGNORECASE,
)
COMPARED = re.compile(rf"(?P<what>.+?)\s+(?P<change>{_CHANGE})", re.IGNORECASE)
DEFINITE = re.compile(r"(?:the|it|them|him|her|both|all|everything)\b", re.IGNORECASE)
SEVERAL = re.compile(
    rf"\s+and\s+(?=(?:an?|the|another|some|\d+|{'|'.join(NUMBERS)})\b)|\s*,\s*(?:and\s+)?", re.IGNORECASE
)

_NUMBER = r"\d+(?:\.\d+)?"
CHANGES: tuple[tuple[str, Callable[[Draft, re.Match], None]], ...] = (
    (r"(?:move|put|place|shift|bring|push|pull|slide|drag|set|position)\s+(?P<rest>.+)", _move),
    (r"(?P<verb>raise|lift|lower)\s+(?P<rest>.+)", _raise_or_lower),
    (r"cent(?:er|re)\s+(?P<rest>.+)", _centre),
    (
        rf"make\s+(?P<what>.+?)\s+(?P<times>twice|double|half|[a-z]+ times|{_NUMBER}\s*(?:x|times))\s+"
        rf"(?:as\s+|the\s+|its\s+)?(?P<change>{_CHANGE})",
        _make_times,
    ),
    (r"make\s+(?P<rest>.+)", _make),
    (r"(?P<verb>enlarge|grow|shrink|reduce|widen)\s+(?P<rest>.+)", _enlarge),
    (
        rf"(?:scale|resize)\s+(?P<what>.+?)\s+(?:by|to)\s+(?P<number>{_NUMBER})\s*(?:(?P<unit>%|per ?cent)|x|times)?",
        _scale,
    ),
    (r"(?P<times>double|halve)\s+(?:the\s+(?P<change>size|width|height)\s+of\s+)?(?P<what>.+)", _make_times),
    (r"(?:swap|exchange|switch)\s+(?:the\s+(?:places|positions)\s+of\s+)?(?P<rest>.+)", _swap),
    (r"(?:remove|delete|erase|drop|get rid of|take away)\s+(?P<rest>.+)", _remove),
    (r"take\s+(?P<rest>.+?)\s+(?:away|out)", _remove),
    (r"(?:add|insert|include)\s+(?P<rest>.+?)(?:\s+to\s+the\s+(?:picture|layout|scene))?", _add),
    (
        r"(?:mirror|flip)(?:\s+the\s+(?:whole\s+)?(?:picture|image|layout|scene)|\s+(?P<rest>.+?))??"
        r"(?:\s+(?P<axis>horizontally|vertically|upside down))?",
        _mirror,
    ),
)
