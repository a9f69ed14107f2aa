"""The world: scenes of coloured shapes whose truth (objects, boxes, masks, caption) is known exactly.

`shapescenes.drawing` makes pictures of it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject

SIZE = 128  # pixels, both sides
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "yellow": (240, 200, 30),
    "green": (40, 160, 60),
    "cyan": (40, 190, 210),
    "blue": (40, 70, 210),
    "purple": (150, 50, 190),
}
RADII = {"small": (12.0, 14.0), "": (16.0, 20.0), "large": (21.0, 25.0)}  # pixels
CATEGORIES = ("attribute", "spatial", "count", "complex")
NUMBERS = ("zero", "one", "two", "three", "four")
RELATIONS = {
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


class NoRoomError(RealCompoError):
    """A prompt whose objects do not fit into one picture."""


@dataclass(frozen=True)
class Kind:
    """What an object is: a size word (may be empty), a colour and a shape."""

    size: str
    colour: str
    shape: str

    @property
    def noun_phrase(self) -> str:
        return f"{self.size} {self.colour} {self.shape}".strip()

    @property
    def phrase(self) -> str:
        return f"a {self.noun_phrase}"


@dataclass(frozen=True)
class SceneObject:
    """A kind at a place. `x`, `y` is the centre and `radius` the extent, in pixels."""

    kind: Kind
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Relation:
    """`objects[subject]` stands in direction `word` (a key of RELATIONS) seen from `objects[other]`."""

    subject: int
    word: str
    other: int


@dataclass(frozen=True)
class Prompt:
    """A caption and what it states: the kinds that must be there (one entry an object) and their relations."""

    caption: str
    category: str
    kinds: tuple[Kind, ...]
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class Scene:
    prompt: Prompt
    objects: tuple[SceneObject, ...]

    @property
    def layout(self) -> Layout:
        """The true layout: tight boxes, normalised."""
        objects = []
        for item in self.objects:
            ys, xs = np.nonzero(distance(item) <= 0)
            box = (xs.min() / SIZE, ys.min() / SIZE, (xs.max() + 1) / SIZE, (ys.max() + 1) / SIZE)
            objects.append(LayoutObject(item.kind.phrase, tuple(float(v) for v in box)))
        return Layout(tuple(objects), prompt=self.prompt.caption)

    @property
    def layout_with_masks(self) -> Layout:
        """The true layout with each object's pixels as its mask."""
        layout, masks = self.layout, self.masks()
        objects = (replace(item, mask=mask) for item, mask in zip(layout.objects, masks, strict=True))
        return replace(layout, objects=tuple(objects))

    def masks(self) -> np.ndarray:
        """(N, 128, 128) bool: the pixels of each object."""
        return np.stack([distance(item) <= 0 for item in self.objects])


def is_held_out(caption: str) -> bool:
    """One caption in five is never trained on. The choice depends on the text alone."""
    return zlib.crc32(caption.encode()) % 5 == 0


def sample_prompt(rng: np.random.Generator, category: str, count: int) -> Prompt:
    """A random prompt of `category` about `count` objects (1 to 4).

    Kinds are distinct, but for the instances that a number word counts. A category that needs two objects is read as
    `attribute` when there is one.
    """
    if category == "count" or (category == "complex" and count > 1):
        group = count if category == "count" else int(rng.integers(2, count + 1)) if count > 2 else 1
    else:
        group = 1
    kinds = _distinct_kinds(rng, 1 + count - group)
    relations: list[Relation] = []
    if category == "spatial" and count > 1:
        clauses = []
        for first in range(0, count - 1, 2):
            word = str(rng.choice(list(RELATIONS)))
            relations.append(Relation(first, word, first + 1))
            clauses.append(f"{kinds[first].phrase} {word} {kinds[first + 1].phrase}")
        if count % 2:
            clauses.append(kinds[-1].phrase)
        return Prompt(_listing(clauses), category, tuple(kinds), tuple(relations))
    if category == "complex" and count > 1:
        instances = [kinds[0]] * group + kinds[1:]
        head = _counted(kinds[0], group)
        if group > 1 and count == group:
            return Prompt(head, category, tuple(instances))
        word = str(rng.choice(list(RELATIONS)))
        relations = [Relation(i, word, group) for i in range(group)]
        text = _listing([f"{head} {word} {kinds[1].phrase}", *(kind.phrase for kind in kinds[2:])])
        return Prompt(text, category, tuple(instances), tuple(relations))
    if group > 1:
        return Prompt(_counted(kinds[0], group), category, tuple(kinds * group))
    return Prompt(_listing([kind.phrase for kind in kinds]), category, tuple(kinds))


def sample_scene(rng: np.random.Generator, prompt: Prompt) -> Scene:
    """Place the prompt's objects at random: apart from each other, inside the picture, as its relations say.

    Raises NoRoomError where a thousand tries find no place for them all.
    """
    for _ in range(1000):
        radii = [rng.uniform(*RADII[kind.size]) for kind in prompt.kinds]
        centres: list[tuple[float, float]] = []
        for _ in range(60):
            i = len(centres)
            if i == len(radii):
                break
            x, y = rng.uniform(radii[i] + 3, SIZE - radii[i] - 3, 2)
            apart = all(max(abs(x - cx), abs(y - cy)) > radii[i] + radii[j] + 3 for j, (cx, cy) in enumerate(centres))
            if apart:
                centres.append((float(x), float(y)))
        if len(centres) == len(radii) and all(
            holds(r.word, centres[r.subject], centres[r.other]) for r in prompt.relations
        ):
            objects = zip(prompt.kinds, centres, radii, strict=True)
            return Scene(prompt, tuple(SceneObject(kind, x, y, radius) for kind, (x, y), radius in objects))
    raise NoRoomError(f"no room for {prompt.caption!r}")


def holds(word: str, subject: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether centre `subject` lies in direction `word` from `other`: further along that axis than across it."""
    dx, dy = RELATIONS[word]
    along = (subject[0] - other[0]) * dx + (subject[1] - other[1]) * dy
    across = abs((subject[0] - other[0]) * dy) + abs((subject[1] - other[1]) * dx)
    return along > 0 and along >= across


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """`count` scenes of different prompts that no training run sees, cycling through 1 to 4 objects and categories."""
    rng = np.random.default_rng([seed, 77])
    scenes: dict[str, Scene] = {}
    cells = [("attribute", 1)] + [(category, n) for n in (2, 3, 4) for category in CATEGORIES]
    while len(scenes) < count:
        for category, n in cells:
            for _ in range(200):  # small cells run dry
                prompt = sample_prompt(rng, category, n)
                if is_held_out(prompt.caption) and prompt.caption not in scenes:
                    with suppress(NoRoomError):
                        scenes[prompt.caption] = sample_scene(rng, prompt)
                        break
    return list(scenes.values())[:count]


def training_scene(seed: int, index: int, counts: tuple[float, ...] = (0.3, 0.4, 0.2, 0.1)) -> Scene:
    """Scene number `index` of the endless training set `seed`. `counts` are the shares of 1 to 4 objects."""
    rng = np.random.default_rng([seed, index])
    while True:
        prompt = sample_prompt(rng, str(rng.choice(CATEGORIES)), 1 + int(rng.choice(4, p=counts)))
        if not is_held_out(prompt.caption):
            with suppress(NoRoomError):
                return sample_scene(rng, prompt)


def _distinct_kinds(rng: np.random.Generator, count: int) -> list[Kind]:
    kinds: list[Kind] = []
    while len(kinds) < count:
        size = str(rng.choice(["", "small", "large"], p=[0.8, 0.1, 0.1])) if count < 4 else ""
        kind = Kind(size, str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)))
        if all((kind.colour, kind.shape) != (other.colour, other.shape) for other in kinds):
            kinds.append(kind)
    return kinds


def _counted(kind: Kind, count: int) -> str:
    if count == 1:
        return kind.phrase
    plural = kind.noun_phrase + ("es" if kind.shape == "cross" else "s")
    return f"{NUMBERS[count]} {plural}"


def _listing(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def distance(item: SceneObject) -> np.ndarray:
    """(128, 128) signed distance in pixels to the object's outline, negative inside."""
    field = np.full((SIZE, SIZE), float(SIZE))
    reach = item.radius + 8  # further away only the sign matters
    x0, y0 = max(0, int(item.x - reach)), max(0, int(item.y - reach))
    window = np.s_[y0 : int(item.y + reach) + 1, x0 : int(item.x + reach) + 1]
    ys, xs = (np.mgrid[0:SIZE, 0:SIZE] + 0.5)[(slice(None), *window)]
    field[window] = _OUTLINES[item.kind.shape]((xs - item.x) / item.radius, (ys - item.y) / item.radius) * item.radius
    return field


def _box(x, y, half_width, half_height):
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(dx.clip(0), dy.clip(0)) + np.maximum(dx, dy).clip(None, 0)


def _polygon(x, y, corners):
    """Signed distance to a closed polygon given as (M, 2) corners, by winding parity and nearest edge."""
    nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        ex, ey = bx - ax, by - ay
        t = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clip(0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - t * ex, y - ay - t * ey))
        crosses = (ay > y) != (by > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (x < ax + ex * (y - ay) / ey)
    return np.where(inside, -nearest, nearest)


def _ring_of_points(radii, start):
    angles = start + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], -1) * np.asarray(radii)[:, None]


def _heart_points():
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y + 2.5], -1) / 16.0


_STAR = _ring_of_points([1.08, 0.46] * 5, -np.pi / 2)
_TRIANGLE = _ring_of_points([1.12] * 3, -np.pi / 2) + np.array([0, 0.2])
_HEART = _heart_points()
_OUTLINES = {
    "circle": lambda x, y: np.hypot(x, y) - 0.98,
    "square": lambda x, y: _box(x, y, 0.86, 0.86),
    "triangle": lambda x, y: _polygon(x, y, _TRIANGLE),
    "star": lambda x, y: _polygon(x, y, _STAR),
    "heart": lambda x, y: _polygon(x, y, _HEART),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.33, 1.0), _box(x, y, 1.0, 0.33)),
}


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = Counter(["a", "and", ",", "left", "right", "above", "below", "to", "the", "of", *NUMBERS[1:], *SHAPES])
    words.update([*COLOURS, "small", "large", "crosses", *(shape + "s" for shape in SHAPES if shape != "cross")])
    return sorted(words)
