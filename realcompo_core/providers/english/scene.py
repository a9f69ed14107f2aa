"""What a prompt states: groups of objects, relations between them, what is absent, and the setting."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from . import vocabulary as v

GROWTH = 0.3  # the power of a thing's size that it is drawn with
SMALLEST, LARGEST = 0.45, 1.7  # scales that sizes alone give
OF_PAIR = 0.7  # scale of one of two boots, which together take the room of one thing
ON_HELD = 0.35  # scale of what stands on or in something that is held


@dataclass(eq=False)
class Group:
    """`count` objects of one phrase.

    `noun` is the head noun in the singular, `attributes` are the words before it. `scale` is how large they are drawn
    among others, 1 by default. `exact` is False where the prompt gives no number: "cats", "several cats". `text` is the
    noun phrase as the prompt has it.
    """

    phrase: str
    count: int
    noun: str
    attributes: frozenset[str]
    scale: float
    exact: bool
    text: str


@dataclass(frozen=True, eq=False)
class GroupRelation:
    """A stated relation between groups; `text` is how the prompt words it.

    Of two groups: left_of, above, under, on, in_front_of, next_to, inside; held (the first at the second's hand) and
    worn, on_head, on_face, at_neck, on_feet (the first by the second). Of one and all those around it: between,
    surrounded_by. Of one: at_left, at_right, at_top, at_bottom, at_middle.
    """

    name: str
    groups: tuple[Group, ...]
    text: str


@dataclass
class SceneGraph:
    """What a prompt states. `absent` are the phrases of what must not be there, `background` those of the setting.

    `warnings` quote what was left out.
    """

    groups: list[Group] = field(default_factory=list)
    relations: list[GroupRelation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def merge_repeated_pairs(self) -> None:
        """Makes a second statement about two phrases that are related already one about the same two groups."""
        same: dict[Group, Group] = {}
        seen: dict[tuple, tuple[Group, ...]] = {}
        for relation in self.relations:
            if len(relation.groups) == 2:
                pair = sorted(relation.groups, key=lambda group: (group.phrase.lower(), group.count))
                key = tuple((group.phrase.lower(), group.count) for group in pair)
                known = seen.setdefault(key, tuple(pair))
                if not set(known) & set(pair) and not {*known, *pair} & {*same, *same.values()}:
                    same.update(zip(pair, known, strict=True))
        self.groups = [group for group in self.groups if group not in same]
        self.relations = [
            GroupRelation(relation.name, tuple(same.get(group, group) for group in relation.groups), relation.text)
            for relation in self.relations
        ]

    def _size(self, group: Group) -> float:
        """The size of what the noun means; of "its mother" that of the animal named before."""
        if group.text.lower().startswith("its ") and group.noun in v.PEOPLE:
            animals = [other for other in self.groups[: self.groups.index(group)] if other.noun in v.ANIMALS]
            if animals:
                return v.size_of(animals[-1].noun, animals[-1].attributes)
        return v.size_of(group.noun, group.attributes)

    def set_scales(self) -> None:
        """Draws things of known sizes by a root of their size, and what stands on held things small."""
        logs = {group: math.log(self._size(group)) for group in self.groups}
        if any(v.known_size(group.noun, group.attributes) for group in self.groups) and len(logs) > 1:
            middle = sum(logs.values()) / len(logs)
            for group, log in logs.items():
                group.scale *= min(max(math.exp(GROWTH * (log - middle)), SMALLEST), LARGEST)
        for group in self.groups:
            if group.count == 2 and group.noun in v.PAIRS:
                group.scale *= OF_PAIR
        held = {relation.groups[0] for relation in self.relations if relation.name == "held"}
        for relation in self.relations:
            if relation.name in ("on", "inside") and relation.groups[1] in held:
                relation.groups[0].scale *= ON_HELD
