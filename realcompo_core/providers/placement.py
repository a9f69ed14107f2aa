"""Scene graph -> boxes, as difference constraints.

Every relation is a choice between alternatives ("next to" is on the left or on the right), and every alternative
bounds differences of box edges ("a's right edge is at most b's left edge minus a gap"). For a given object size the
edges along an axis form a simple temporal network (Dechter, Meiri, Pearl 1991): it has solutions exactly when its
shortest paths hold no negative cycle, and the mean of its earliest and its latest solution is one, the centred one. So:
search the alternatives by backtracking, keep the largest object size that has a solution, and take the mean.

Lengths are in units of the picture's shorter side, y goes down; axis 0 is x, axis 1 is y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from ..errors import LayoutError
from ..layout import Box
from .english.scene import Group, GroupRelation, SceneGraph
from .english.vocabulary import PAIRS

# In units of the object size:
MARGIN = 0.12  # to the picture's border
GAP = 0.25  # between objects
WIDE_GAP = 0.35  # between objects in a stated direction
NARROW_GAP = 0.1  # between objects that stand together
TOUCH = 0.08  # how far an object sinks into what it stands on
SEEN = 0.35  # least share of what is behind something that shows above it
FLATTEST = 0.25  # height by width of what several things stand on
OVERLAP = 0.3  # least common extent of objects side by side

SIZES = np.geomspace(0.5, 0.01, 64)  # of objects
NEATNESS = 0.75  # the share of object size that is given up to have middles on one line
DECENT = 0.08  # the object size below which directions may be diagonal
CENTRED, ALIGNED, RELAXED = LEVELS = (0, 1, 2)  # how neat: middles on one line, side by side, just as stated
SHAPES = ("square", "row", "column")  # of the objects of a group
MAX_EXCLUDED = 5  # relations that are left out one by one, before whole conflicts are
MAX_TRIALS = 100  # alternatives tried for one object size

WORN = {
    "on_head": (0.05, 0.05),
    "on_face": (0.1, 0.4),
    "at_neck": (0.5, 0.9),
    "on_feet": (0.05, 0.05),
    "worn": (0.2, 2.0),
}
"""How far below the wearer's top it begins, from and to, in units of the object size; on the feet, above the bottom."""
MEETING = {"on", "inside", "in_front_of", "held", *WORN}  # relations whose boxes overlap
HALVES = {"at_left": (0, False), "at_right": (0, True), "at_top": (1, False), "at_bottom": (1, True)}

Constraint = tuple[int, int, int, float]  # axis, i, j, limit: edge j - edge i <= limit
Alternative = list[Constraint]


def place(scene: SceneGraph, aspect: float) -> tuple[list[tuple[str, Box]], list[str]]:
    """Phrase and box of every object, in the order of the groups, and the texts of relations that were left out.

    `aspect` is the picture's width / height. Objects are square in pixels unless they hold others. Of relations that
    exclude each other the last one is left out. Raises LayoutError if the objects find no room.
    """
    left_out: list[str] = []
    stated = list(scene.relations)
    while (boxes := _place(scene.groups, stated, aspect)) is None:
        conflict = _conflict(scene.groups, stated, aspect)
        excluded = conflict[-1:] if len(left_out) < MAX_EXCLUDED else conflict
        left_out += [relation.text for relation in excluded]
        stated = [relation for relation in stated if relation not in excluded]
    return boxes, list(dict.fromkeys(left_out))


def _place(stated_groups: list[Group], stated: list[GroupRelation], aspect: float) -> list[tuple[str, Box]] | None:
    """Phrase and box of every object, None if relations exclude each other."""
    if not stated_groups:
        return []
    groups, relations = _with_individuals(stated_groups, stated)
    blocks = _blocks(groups, relations)
    canvas = (max(aspect, 1.0), max(1 / aspect, 1.0))
    arrangements = dict.fromkeys(tuple(_columns(block, shape) for block in _unique(blocks)) for shape in SHAPES)

    def solution(step: int, level: int) -> list[tuple[str, Box]] | None:
        for columns in arrangements:
            geometry = _Geometry(blocks, columns, canvas, SIZES[step])
            edges = geometry.solve(relations, level)
            if edges is not None:
                return [(group.phrase, box) for group in groups for box in geometry.boxes(group, edges)]
        return None

    def largest(level: int) -> tuple[float, list[tuple[str, Box]]]:
        low, high, best = 0, len(SIZES), []
        while low < high:
            middle = (low + high) // 2
            if found := solution(middle, level):
                best, high = found, middle
            else:
                low = middle + 1
        return (SIZES[low] if best else 0.0), best

    centred, aligned = largest(CENTRED), largest(ALIGNED)
    neat = centred if centred[0] >= NEATNESS * aligned[0] else aligned
    if neat[0] >= DECENT:
        return neat[1]
    return max(neat, largest(RELAXED), key=lambda result: result[0])[1] or None


@dataclass(eq=False)
class _Block:
    """Objects that are placed as one grid: a group, or all groups that no relation speaks of.

    `least` is the extent of an object along x and y in units of the object size, `stretches` where it may be more.
    """

    index: int
    objects: list[Group]
    row: bool = False
    gap: float = GAP  # between its objects
    least: tuple[float, float] = (1.0, 1.0)
    stretches: tuple[bool, bool] = (False, False)

    def hold(self, least: tuple[float, float], stretches: tuple[bool, bool]) -> None:
        """Make room for what relations put on, into or in front of this block."""
        self.least = tuple(map(max, self.least, least))
        self.stretches = tuple(map(max, self.stretches, stretches))


class _Geometry:
    """The constraints at one object size. Edge 0 is the picture's left or top, then two edges per block."""

    def __init__(self, blocks: dict[Group, _Block], columns: tuple[int, ...], canvas: tuple[float, float], size: float):
        self.blocks = blocks
        self.columns = columns  # of every block's grid
        self.canvas = canvas
        self.size = size
        self.all = _unique(blocks)
        self.cells = [size * max(group.scale for group in block.objects) for block in self.all]
        self.extents = [self._extent(block) for block in self.all]

    def _grid(self, block: _Block) -> tuple[int, int]:
        columns = self.columns[block.index]
        return columns, math.ceil(len(block.objects) / columns)

    def _extent(self, block: _Block) -> tuple[float, float]:
        cell = self.cells[block.index]
        return tuple(
            cell * (n * least + (n - 1) * block.gap) for n, least in zip(self._grid(block), block.least, strict=True)
        )

    # Constraints between blocks. `low` and `high` are the edges of a block.

    def frame(self) -> Alternative:
        """Every block has its extent and is inside the picture."""
        constraints = []
        for axis, block in product((0, 1), self.all):
            low, high = _edges(block)
            extent = self.extents[block.index][axis]
            constraints.append((axis, low, 0, -MARGIN * self.size))
            constraints.append((axis, 0, high, self.canvas[axis] - MARGIN * self.size))
            constraints.append((axis, high, low, -extent))
            if not block.stretches[axis]:
                constraints.append((axis, low, high, extent))
        return constraints

    def before(self, axis: int, a: _Block, b: _Block, gap: float) -> Alternative:
        return [(axis, _edges(b)[0], _edges(a)[1], -gap * self.size)]

    def within(self, axis: int, a: _Block, b: _Block, padding: float) -> Alternative:
        (a_low, a_high), (b_low, b_high) = _edges(a), _edges(b)
        return [(axis, a_low, b_low, -padding * self.size), (axis, b_high, a_high, -padding * self.size)]

    def overlap(self, axis: int, a: _Block, b: _Block, share: float = OVERLAP) -> Alternative:
        (a_low, a_high), (b_low, b_high) = _edges(a), _edges(b)
        length = share * min(self.extents[a.index][axis], self.extents[b.index][axis])
        return [(axis, b_high, a_low, -length), (axis, a_high, b_low, -length)]

    def centred(self, axis: int, a: _Block, b: _Block) -> Alternative:
        """Middles at the same place, which blocks that stretch can only come near to."""
        if a.stretches[axis] or b.stretches[axis]:
            return self.overlap(axis, a, b, share=0.9)
        offset = (self.extents[b.index][axis] - self.extents[a.index][axis]) / 2
        return [(axis, _edges(b)[0], _edges(a)[0], offset), (axis, _edges(a)[0], _edges(b)[0], -offset)]

    def on_level(self, a: _Block, b: _Block) -> Alternative:
        """Lower edges at the same height."""
        return [(1, _edges(a)[1], _edges(b)[1], 0.0), (1, _edges(b)[1], _edges(a)[1], 0.0)]

    def close(self, left: _Block, right: _Block) -> Alternative:
        """`right` begins not far from where `left` ends."""
        return [(0, _edges(left)[1], _edges(right)[0], 2 * GAP * self.size)]

    # Relations as alternatives, best first.

    def alternatives(self, name: str, blocks: list[_Block], level: int) -> list[Alternative]:
        """What satisfies relation `name` of `blocks`, as loosely as `level` allows."""
        if name in HALVES:
            axis, far = HALVES[name]
            low, high = _edges(blocks[0])
            half = (self.canvas[axis] - GAP * self.size) / 2
            return [[(axis, low, 0, half - self.canvas[axis])]] if far else [[(axis, 0, high, half)]]
        if name == "at_middle":
            across, along = (self._straddles_middle(axis, blocks[0]) for axis in (0, 1))
            return [across + along, *([across, along] if level == RELAXED else [])]
        if name == "between":
            return self._between(*blocks, level)
        a, b = blocks
        if name in ("left_of", "above"):
            axis = 0 if name == "left_of" else 1
            return self._beside(axis, a, b, WIDE_GAP, level)
        if name == "under":
            return self._beside(1, b, a, NARROW_GAP, min(level, ALIGNED))
        if name == "on":
            (_, a_bottom), (b_top, _) = _edges(a), _edges(b)
            depth = TOUCH * self.size
            return [[(1, b_top, a_bottom, depth), (1, a_bottom, b_top, -depth), *self.within(0, a, b, 0.0)]]
        if name == "inside":
            return [self.within(0, a, b, GAP / 2) + self.within(1, a, b, GAP / 2)]
        if name in WORN:
            return [self.within(0, a, b, NARROW_GAP) + self._at_height(name, a, b)]
        if name == "held":  # it reaches over an edge
            overlap = OVERLAP * self.size * min(block_scale for block_scale in (self.cells[a.index] / self.size, 1.0))
            (a_low, a_high), (b_low, b_high) = _edges(a), _edges(b)
            right = [(0, b_high, a_low, -overlap), (0, a_high, b_high, 0.0), (0, a_low, b_low, 0.0)]
            left = [(0, a_high, b_low, -overlap), (0, b_low, a_low, 0.0), (0, b_high, a_high, 0.0)]
            return [side + self.within(1, a, b, GAP / 2) for side in (right, left)]
        if name == "in_front_of":  # lower in the picture is nearer
            (a_top, a_bottom), (b_top, b_bottom) = _edges(a), _edges(b)
            depth = NARROW_GAP * self.size
            seen = max(depth, SEEN * self.extents[b.index][1])
            lower = [(1, a_top, b_top, -seen), (1, a_bottom, b_bottom, -depth), *self.overlap(1, a, b)]
            centred = lower + self.within(0, a, b, -OVERLAP)
            return [centred] if len(a.objects) > 1 else [centred, lower + self.overlap(0, a, b)]
        return [  # next_to
            self.before(0, left, right, NARROW_GAP) + self.close(left, right) + upright
            for upright in [self.on_level(a, b), self.overlap(1, a, b)][: level + 1]
            for left, right in ((a, b), (b, a))
        ]

    def _at_height(self, name: str, a: _Block, b: _Block) -> Alternative:
        """Where on `b` the worn `a` is; all of it within."""
        (a_top, a_bottom), (b_top, b_bottom) = _edges(a), _edges(b)
        start, end = (value * self.size for value in WORN[name])
        if name == "on_feet":
            return [(1, b_bottom, a_bottom, -start), (1, a_bottom, b_bottom, end), (1, a_top, b_top, 0.0)]
        return [(1, a_top, b_top, -start), (1, b_top, a_top, end), (1, b_bottom, a_bottom, 0.0)]

    def _straddles_middle(self, axis: int, block: _Block) -> Alternative:
        low, high = _edges(block)
        middle = self.canvas[axis] / 2
        if not block.stretches[axis]:
            low_at = middle - self.extents[block.index][axis] / 2
            return [(axis, 0, low, low_at), (axis, low, 0, -low_at)]
        return [(axis, 0, low, middle), (axis, high, 0, -middle)]

    def _beside(self, axis: int, a: _Block, b: _Block, gap: float, level: int) -> list[Alternative]:
        across = 1 - axis
        # Even the outermost objects of a grid are seen further along the stated direction than across it.
        spread = sum(self.extents[block.index][across] for block in (a, b)) / 2
        reach = sum(self.cells[block.index] for block in (a, b))
        apart = self.before(axis, a, b, max(gap, (spread - reach) / self.size + NARROW_GAP))
        aligned = [apart + self.centred(across, a, b), apart + self.overlap(across, a, b)]
        return [*aligned, self.before(axis, a, b, gap)][: level + 1]

    def _between(self, a: _Block, b: _Block, c: _Block, level: int) -> list[Alternative]:
        return [
            one + other
            for axis in ((0, 1) if level == RELAXED else (0,))
            for first, last in ((b, c), (c, b))
            for one, other in zip(
                self._beside(axis, first, a, GAP, level), self._beside(axis, a, last, GAP, level), strict=True
            )
        ]

    def _around(self, i: int, a: _Block, other: _Block, level: int) -> list[Alternative]:
        """The i-th of those around `a`: left, right, above, below, and again. The first two hold it between them."""
        axis = i % 4 // 2
        pair = (other, a) if i % 2 == 0 else (a, other)
        if i > 1:
            return self._beside(axis, *pair, WIDE_GAP, level)
        apart = self.before(axis, *pair, WIDE_GAP)
        return [apart + self.centred(1, a, other), apart + self._covers_middle(1, a, other)][: level + 1]

    def _covers_middle(self, axis: int, a: _Block, cover: _Block) -> Alternative:
        if a.stretches[axis]:
            return self.overlap(axis, a, cover, share=0.6)
        (a_low, _), (low, high) = _edges(a), _edges(cover)
        middle = self.extents[a.index][axis] / 2
        return [(axis, a_low, low, middle), (axis, high, a_low, -middle)]

    # Solving.

    def relation_choices(self, relations: list[GroupRelation], level: int) -> list[list[Alternative]]:
        choices = []
        for relation in [*relations, *_implied(relations)]:
            blocks = [self.blocks[group] for group in relation.groups]
            if relation.name == "surrounded_by":
                for i, other in enumerate(blocks[1:]):
                    choices.append(self._around(i, blocks[0], other, level))
            else:
                choices.append(self.alternatives(relation.name, blocks, level))
        return choices

    def separations(self, relations: list[GroupRelation]) -> np.ndarray:
        """(pairs, 4 sides, 4) constraints: blocks keep apart where no relation says how they stand to each other."""
        everything = [*relations, *_implied(relations)]
        pairs = {(relation.groups[0], other) for relation in everything for other in relation.groups[1:]}
        related = {frozenset((self.blocks[a], self.blocks[b])) for a, b in pairs | _meeting_in_depth(everything)}
        apart = [(a, b) for a, b in combinations(self.all, 2) if frozenset((a, b)) not in related]
        apart.sort(key=lambda pair: -sum(sum(self.extents[block.index]) for block in pair))  # containers first
        constraints = [
            [self.before(axis, *pair, GAP)[0] for pair in ((a, b), (b, a)) for axis in (0, 1)] for a, b in apart
        ]
        return np.array(constraints).reshape(-1, 4, 4)

    def solve(self, relations: list[GroupRelation], level: int) -> np.ndarray | None:
        """(2, edges) positions that satisfy all relations, or None."""
        choices, separations = self.relation_choices(relations, level), self.separations(relations)
        count = 1 + 2 * len(self.all)
        bounds = np.full((2, count, count), np.inf)  # bounds[axis, i, j]: edge j - edge i is at most this
        bounds[:, range(count), range(count)] = 0
        if not _tighten(bounds, self.frame()):
            return None
        bounds = _search(bounds, choices, separations)
        if bounds is None:
            return None
        earliest, latest = -bounds[:, :, 0], bounds[:, 0, :]
        return (earliest + latest) / 2

    def boxes(self, group: Group, edges: np.ndarray) -> list[Box]:
        """Normalised boxes of the group's objects: cells of its block's grid, the last row centred."""
        block = self.blocks[group]
        low, high = _edges(block)
        columns, rows = self._grid(block)
        gap = block.gap * self.cells[block.index]
        width, height = (edges[:, high] - edges[:, low] - gap * (np.array([columns, rows]) - 1)) / (columns, rows)
        boxes = []
        for i, owner in enumerate(block.objects):
            if owner is not group:
                continue
            row, column = divmod(i, columns)
            in_row = min(columns, len(block.objects) - row * columns)
            x = edges[0, low] + (column + (columns - in_row) / 2) * (width + gap) + width / 2
            y = edges[1, low] + row * (height + gap) + height / 2
            share = group.scale * self.size / self.cells[block.index]
            half = np.array([width, height]) * share / 2
            corners = np.concatenate([(x, y) - half, (x, y) + half]) / np.tile(self.canvas, 2)
            boxes.append(tuple(round(float(value), 4) for value in corners))
        return boxes


def _search(bounds: np.ndarray, choices: list[list[Alternative]], separations: np.ndarray) -> np.ndarray | None:
    """Depth first: relations in order, best alternative first; then the tightest separation, roomiest side first."""
    axis, i, j = separations[..., :3].astype(int).transpose(2, 0, 1)
    limit = separations[..., 3]
    trials = 0

    def search(bounds: np.ndarray, start: int) -> np.ndarray | None:
        nonlocal trials
        slack = np.round(bounds[axis, j, i] + limit, 6)
        sides = (slack >= 0).sum(1)
        if not sides.all():
            return None
        if start < len(choices):
            alternatives = choices[start]
        else:
            undecided = np.flatnonzero((bounds[axis, i, j] > limit + 1e-9).all(1))
            if not len(undecided):
                return bounds
            tightest = undecided[sides[undecided].argmin()]
            order = np.argsort(-slack[tightest], kind="stable")
            alternatives = [[(axis[at], i[at], j[at], limit[at])] for at in ((tightest, side) for side in order)]
        for alternative in alternatives:
            trials += 1
            if trials > MAX_TRIALS + len(choices) + len(separations):
                return None
            tightened = bounds.copy()
            if _tighten(tightened, alternative):
                found = search(tightened, start + 1)
                if found is not None:
                    return found
        return None

    return search(bounds, 0)


def _tighten(bounds: np.ndarray, constraints: Alternative) -> bool:
    """Add constraints to shortest-path bounds in place; False if they contradict them."""
    for axis, i, j, limit in constraints:
        bound = bounds[axis]
        if bound[j, i] + limit < -1e-9:
            return False
        if limit < bound[i, j]:
            np.minimum(bound, bound[:, i, None] + (limit + bound[j]), out=bound)
    return True


def _unique(blocks: dict[Group, _Block]) -> list[_Block]:
    return list(dict.fromkeys(blocks.values()))


def _edges(block: _Block) -> tuple[int, int]:
    return 1 + 2 * block.index, 2 + 2 * block.index


def _columns(block: _Block, shape: str) -> int:
    count = len(block.objects)
    if block.row or shape == "row":
        return count
    if shape == "column":
        return 1
    return count if count <= 3 else math.ceil(math.sqrt(count))


def _blocks(groups: list[Group], relations: list[GroupRelation]) -> dict[Group, _Block]:
    """One block per group that relations speak of, and one for all other groups together."""
    related = {group for relation in relations for group in relation.groups}
    blocks = {}
    loose = [group for group in groups if group not in related]
    if loose:
        rest = _Block(0, [group for group in loose for _ in range(group.count)])
        blocks = dict.fromkeys(loose, rest)
    for group in groups:
        if group in related:
            blocks[group] = block = _Block(len(set(blocks.values())), [group] * group.count)
            if group.count == 2 and group.noun in PAIRS:
                block.row, block.gap = True, NARROW_GAP
    for relation in relations:
        if relation.name in ("on", "in_front_of"):
            for group in relation.groups:
                blocks[group].row = True
            one, base = relation.groups
            if relation.name == "on":  # no board, however many things are in a row on it
                least = (1.5, max(1.0, FLATTEST * one.count * (1 + GAP) * one.scale / base.scale))
            else:
                least = (1.3, 1.3)
            blocks[base].hold(least, (True, False))
        elif relation.name == "inside":
            blocks[relation.groups[1]].hold((1.8, 1.8), (True, True))
        elif relation.name in WORN or relation.name == "held":
            blocks[relation.groups[1]].hold((1.3, 2.2), (True, True))
    return blocks


def _with_individuals(groups: list[Group], stated: list[GroupRelation]) -> tuple[list[Group], list[GroupRelation]]:
    """Groups and relations with the groups split whose objects each have their own place.

    Those are what surrounds something, what something is between, and both sides of "two cats in two boxes".
    """
    split = set()
    for relation in stated:
        one, *others = relation.groups
        if relation.name == "surrounded_by" or (relation.name == "between" and len(others) == 1):
            split.update(others)
        elif relation.name in ("inside", "held", *WORN) and others[0].count > 1:
            split.update(relation.groups)
    parts = {
        group: [replace(group, count=1) for _ in range(group.count)] if group in split else [group] for group in groups
    }
    relations = []
    for relation in stated:
        firsts = parts[relation.groups[0]]
        others = [part for group in relation.groups[1:] for part in parts[group]]
        name = relation.name
        if name == "surrounded_by" and len(others) == 1:
            name = "inside"  # "a castle surrounded by a wall"
        if name in ("under", *MEETING):
            sides = [(first, others[i % len(others)]) for i, first in enumerate(firsts)]
        elif name == "next_to":
            sides = [(firsts[-1], others[0])]
        elif name == "between":
            sides = [(first, others[0], others[-1]) for first in firsts]
        elif name == "surrounded_by":
            sides = [(first, *others) for first in firsts]
        else:
            sides = list(product(firsts, others)) if others else [(first,) for first in firsts]
        relations += [GroupRelation(name, groups, relation.text) for groups in sides]
    return [part for group in groups for part in parts[group]], relations


def _implied(relations: list[GroupRelation]) -> list[GroupRelation]:
    """What stands on, in or in front of the content of a container is in the container too."""
    meeting = [relation for relation in relations if relation.name in MEETING]
    implied = []
    for relation in meeting:
        if relation.name != "inside":
            continue
        content, container = relation.groups
        inside = [content]
        for group in inside:
            for other in meeting:
                if group in other.groups and container not in other.groups:
                    inside += [neighbour for neighbour in other.groups if neighbour not in inside]
        implied += [GroupRelation("inside", (group, container), relation.text) for group in inside[1:]]
    return implied


def _meeting_in_depth(relations: list[GroupRelation]) -> set[tuple[Group, Group]]:
    """ "A dog on a sofa in front of a car on a hill": dog and sofa may both cover the car and the hill."""
    rests = [relation.groups for relation in relations if relation.name in ("on", "inside")]

    def reach(group: Group, up: bool) -> list[Group]:
        found = [group]
        for one in found:
            for carried, base in rests:
                origin, target = (base, carried) if up else (carried, base)
                if origin is one and target not in found:
                    found.append(target)
        return found

    return {
        pair
        for relation in relations
        if relation.name == "in_front_of"
        for pair in product(reach(relation.groups[0], up=True), reach(relation.groups[1], up=False))
        if pair[0] is not pair[1]
    }


def _conflict(stated_groups: list[Group], stated: list[GroupRelation], aspect: float) -> list[GroupRelation]:
    """A smallest part of the relations that exclude each other. Raises LayoutError if none do: there is no room."""
    canvas = (max(aspect, 1.0), max(1 / aspect, 1.0))

    def possible(kept: list[GroupRelation]) -> bool:
        groups, relations = _with_individuals(stated_groups, kept)
        blocks = _blocks(groups, relations)
        columns = tuple(_columns(block, "row") for block in _unique(blocks))
        return _Geometry(blocks, columns, canvas, SIZES[-1]).solve(relations, RELAXED) is not None

    if possible(stated):
        raise LayoutError(f"no room for {sum(group.count for group in stated_groups)} objects: name fewer")
    conflict = list(stated)
    for relation in stated:
        without = [kept for kept in conflict if kept is not relation]
        if not possible(without):
            conflict = without
    return conflict
