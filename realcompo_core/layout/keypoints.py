"""Layouts from poses: who is in a picture, and which phrase each person belongs to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from reprlib import repr as short

from ..errors import BoxOutsideError, EmptyBoxError, LayoutFormatError, NotFiniteError, PhraseCountError
from ..text.words import count_of
from .formats import number, parsed_json
from .layout import Box, Layout, LayoutObject
from .pose import BODY_25, MARGIN, MIN_CONFIDENCE, OF_BODY_25

FARTHEST = 10  # sides of the picture: a joint farther away than this is a mistake in its size
CHOICE = re.compile(r"\d+(?:\s*\+\s*\d+)*")  # "0" or "0+1"

Keypoint = tuple[float, float, float]  # x, y, confidence


def from_pose_keypoints(
    keypoints: dict | list[dict] | str,
    phrases: str | Sequence[str],
    *,
    image: int = 0,
    min_confidence: float = MIN_CONFIDENCE,
    people: Sequence[Sequence[int]] | None = None,
    region: str = "pose",
    width: int = 0,
    height: int = 0,
    **scene: str,
) -> Layout:
    """A layout from poses, one object per person of image `image`. `scene` is as in `formats`.

    `keypoints` is POSE_KEYPOINT, a list of `{canvas_width, canvas_height, people: [{pose_keypoints_2d: [x, y,
    confidence, …]}]}` or one of them; or what the OpenPose program writes, which has no canvas; or either as JSON text.
    Coordinates are pixels or shares of the canvas. Pixels without a canvas need `width` and `height` of the picture.
    Of BODY_25's joints those are kept that are among OpenPose's 18.

    Joints above `min_confidence` count as seen. Their extent, padded by a tenth of its longer side, is the person's
    box, cut at the border. Its region is their neighbourhood (`regions.KeypointRegion`), or with `region` "box" the
    box. The layout counts joints above `MIN_CONFIDENCE` as seen: where `min_confidence` decides otherwise about a
    joint, its confidence becomes 1 or 0.

    Which phrase a person gets: see `assign_people`. Raises a LayoutError that names the person or joint at fault.
    """
    if region not in ("pose", "box"):
        raise LayoutFormatError(f"region: {short(region)}, expected 'pose' or 'box'")
    frame, path = _frame(keypoints, image)
    found = _people(frame, path)
    phrases = [phrases] if isinstance(phrases, str) else list(phrases)
    assigned = assign_people(len(found), phrases, people)
    poses = {i: _joints(found[i], f"{path}.people[{i}]", min_confidence) for i, _ in assigned}
    canvas = _canvas(frame, path, width, height)
    seen = [abs(v) for pose in poses.values() for x, y, c in pose if c > MIN_CONFIDENCE for v in (x, y)]
    # Some nodes write shares of the canvas. No pose in pixels lies within 2 pixels of the corner; a share may pass 1.
    in_pixels = max(seen, default=0) > 2
    if in_pixels and canvas is None:
        raise LayoutFormatError(
            f"{path}: coordinates in pixels (up to {max(seen):g}), and no canvas_width and canvas_height: give the "
            "picture's width and height"
        )
    scale = canvas if in_pixels else (1, 1)
    objects = []
    for i, phrase in assigned:
        pose = tuple((x / scale[0], y / scale[1], c) for x, y, c in poses[i])
        box = _box(pose, f"{path}.people[{i}] ({phrase})", canvas or (1, 1))
        objects.append(LayoutObject(phrase, box, keypoints=pose, region="box" if region == "box" else "shape"))
    return Layout(tuple(objects), **scene).validate()


def assign_people(
    count: int, phrases: Sequence[str], people: Sequence[Sequence[int]] | None = None
) -> list[tuple[int, str]]:
    """Pairs of a person, from 0 to `count` - 1, and its phrase, in the order of the phrases.

    - A single phrase names all people.
    - Otherwise people are taken in their order: each phrase gets as many as its number says ("two dancers": 2, "a
      boy": 1; a phrase that is given as often as its number says: 1 each). A plural without a number ("friends") gets
      those that are left; several such plurals get one each.
    - `people` chooses instead: for each phrase the people it names; or for a single phrase, whom it names. People that
      are not chosen are left out.

    Raises PhraseCountError where that does not come out even.
    """
    if people is not None:
        return _chosen(count, phrases, people)
    if len(phrases) == 1:
        return [(i, phrases[0]) for i in range(count)]
    numbers = {phrase: count_of(phrase) for phrase in phrases}
    wanted = [1 if numbers[phrase] == phrases.count(phrase) else numbers[phrase] for phrase in phrases]
    if wanted.count(None) == 1:
        left = count - sum(filter(None, wanted))
        wanted = [max(left, 1) if each is None else each for each in wanted]
    wanted = [1 if each is None else each for each in wanted]
    if sum(wanted) != count:
        named = ", ".join(f"{phrase!r} ({each})" for phrase, each in zip(phrases, wanted, strict=True))
        raise PhraseCountError(
            f"{count} people but {len(phrases)} phrases for {sum(wanted)}: {named or 'none'}. Change the phrases, or "
            "choose people by their numbers from 0, one entry a phrase: '0+1, 2'"
        )
    names = [phrase for phrase, each in zip(phrases, wanted, strict=True) for _ in range(each)]
    return list(enumerate(names))


def parse_people(text: str) -> list[list[int]] | None:
    """The choice of people in "2, 0" or "0+1, 2": numbers from 0, one entry a phrase; None for an empty text."""
    entries = [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]
    for entry in entries:
        if not CHOICE.fullmatch(entry):
            raise LayoutFormatError(
                f"people: {short(entry)}, expected numbers from 0, one entry a phrase, several people with +: '0+1, 2'"
            )
    return [[int(person) for person in entry.split("+")] for entry in entries] or None


def _chosen(count: int, phrases: Sequence[str], people: Sequence[Sequence[int]]) -> list[tuple[int, str]]:
    if len(phrases) == 1:
        people = [[person for entry in people for person in entry]]
    if len(people) != len(phrases):
        raise PhraseCountError(
            f"people: {len(people)} entries but {len(phrases)} phrases {list(phrases)}: give one each, as in '0+1, 2'"
        )
    chosen = Counter(person for entry in people for person in entry)
    for person, times in chosen.items():
        if not 0 <= person < count:
            raise PhraseCountError(f"people: no person {person}, there are {count}, counted from 0")
        if times > 1:
            raise PhraseCountError(f"people: person {person} is chosen {times} times, a person has one phrase")
    return [(person, phrase) for entry, phrase in zip(people, phrases, strict=True) for person in entry]


def _frame(keypoints: dict | list[dict] | str, image: int) -> tuple[dict, str]:
    """The poses of one image, and what messages call them."""
    if isinstance(keypoints, str):
        keypoints = parsed_json(keypoints, "keypoints")
    frames = [keypoints] if isinstance(keypoints, dict) else keypoints
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise LayoutFormatError(f"keypoints: {short(keypoints)}, expected {{people: […]}} or a list of these")
    if not 0 <= image < len(frames):
        raise LayoutFormatError(f"keypoints: no image {image} among {len(frames)}")
    return frames[image], f"keypoints[{image}]"


def _people(frame: dict, path: str) -> list[dict]:
    people = frame.get("people")
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise LayoutFormatError(f"{path}.people: {short(people)}, expected a list of {{pose_keypoints_2d: […]}}")
    if not people:
        raise PhraseCountError(f"{path} has no people: take a picture in which the pose detector finds some")
    return people


def _joints(person: dict, path: str, min_confidence: float) -> list[Keypoint]:
    """Coordinates as they are given, of the 18 joints if there are BODY_25's; unseen ones that are no number are 0."""
    values = person.get("pose_keypoints_2d") or []
    path = f"{path}.pose_keypoints_2d"
    if not isinstance(values, list | tuple) or len(values) % 3:
        raise LayoutFormatError(f"{path}: {_size(values)}, expected x, y, confidence in turn")
    numbers = [number(values, i, path) for i in range(len(values))]
    joints = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    if len(joints) == BODY_25:
        joints = [joints[i] for i in OF_BODY_25]
    return list(_with_confidence(joints, path, min_confidence))


def _size(values) -> str:
    return f"{len(values)} numbers" if isinstance(values, list | tuple) else short(values)


def _with_confidence(joints: list[Keypoint], path: str, threshold: float) -> Iterator[Keypoint]:
    """A joint's confidence becomes 1 or 0 if it is above only one of `threshold` and `MIN_CONFIDENCE`."""
    for i, (x, y, c) in enumerate(joints):
        finite = math.isfinite(x) and math.isfinite(y)
        seen = c > threshold
        if not math.isfinite(c) or (seen and not finite):
            raise NotFiniteError(f"{path}: joint {i} is ({x}, {y}, {c}), expected finite numbers")
        yield (x if finite else 0.0, y if finite else 0.0, c if seen == (c > MIN_CONFIDENCE) else float(seen))


def _canvas(frame: dict, path: str, width: int, height: int) -> tuple[float, float] | None:
    """The size of the picture: as the frame says, or as given; None if neither says."""
    own = tuple(number(frame, key, path) if frame.get(key) else 0 for key in ("canvas_width", "canvas_height"))
    given = (width, height)
    for name, size in (("canvas_width, canvas_height", own), ("width, height", given)):
        if any(size) and not all(side > 0 and math.isfinite(side) for side in size):
            raise LayoutFormatError(f"{path}: {name} are {size[0]:g}, {size[1]:g}, expected two numbers above 0")
    if any(own) and any(given) and own != given:
        raise LayoutFormatError(
            f"width, height: {width}, {height}, but {path} has the canvas {own[0]:g}, {own[1]:g}: leave them at 0"
        )
    return own if any(own) else given if any(given) else None


def _box(pose: Sequence[Keypoint], name: str, canvas: tuple[float, float]) -> Box:
    """The box around a pose in shares of the canvas: padded by the same number of pixels on all sides, then cut."""
    seen = [(x, y) for x, y, c in pose if c > MIN_CONFIDENCE]
    if len(set(seen)) < 2:
        raise EmptyBoxError(
            f"{name}: {len(set(seen))} keypoints are seen, a box needs 2: lower min_confidence, or choose other people"
        )
    for x, y in seen:
        if max(abs(x), abs(y)) > FARTHEST:
            raise BoxOutsideError(
                f"{name}: a joint at {x:g} times the width and {y:g} times the height of the picture: "
                f"is its size really {canvas[0]:g} x {canvas[1]:g}?"
            )
    lows, highs = zip(*((min(axis), max(axis)) for axis in zip(*seen, strict=True)), strict=True)
    padding = MARGIN * max((high - low) * side for low, high, side in zip(lows, highs, canvas, strict=True))
    x0, y0 = (max(low - padding / side, 0.0) for low, side in zip(lows, canvas, strict=True))
    x1, y1 = (min(high + padding / side, 1.0) for high, side in zip(highs, canvas, strict=True))
    if x0 >= x1 or y0 >= y1:
        raise BoxOutsideError(f"{name} lies outside of the picture {canvas[0]:g} x {canvas[1]:g}: choose other people")
    return x0, y0, x1, y1
