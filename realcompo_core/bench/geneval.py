"""GenEval: objects, counts, colours and positions by an object detector (Ghosh et al. 2023, sections 3.2 and 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from .benchmark import Benchmark
from .prompts import Prompt, record_of, text_of
from .scores import Picture, Scores, mean
from .seen import Box, Detection, Seen, Wanted

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
POSITIONS = ("left of", "right of", "above", "below")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COLOUR_TEXTS = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
MOST_OBJECTS = 16  # of a class in a picture
COUNTING = "counting"
APART = 0.1  # share of both boxes' sides that centres must be apart, to be in a position at all


class GenEval(Benchmark):
    """The share of right pictures of each of six tasks; the overall score is the mean of the tasks."""

    name = "geneval"
    title = "GenEval"
    source = "Ghosh et al. 2023 (GenEval)"
    pictures = 4
    folders = "geneval"
    models = MappingProxyType(
        {"detector": "facebook/mask2former-swin-small-coco-instance", "clip": "openai/clip-vit-large-patch14"}
    )
    threshold = 0.3
    counting_threshold = 0.9
    stored_above = 0.3

    def parse(self, index: int, record: Any) -> Prompt:
        known = record_of(record)
        if known["tag"] not in TASKS:
            raise ValueError(f"tag is {known['tag']!r}: expected one of {', '.join(TASKS)}")
        names = []
        for key in ("include", "exclude"):
            for place, clause in enumerate(known.get(key, [])):
                _check(clause, key, place)
                names.append(clause["class"])
        if not names:
            raise ValueError("include is empty: there is nothing to look for")
        return Prompt(index, text_of(known["prompt"], "prompt"), tuple(dict.fromkeys(names)), known)

    def wanted(self, prompt: Prompt) -> Wanted:
        coloured = [clause["class"] for clause in prompt.record.get("include", []) if "color" in clause]
        return Wanted(prompt.names, coloured=tuple(dict.fromkeys(coloured)))

    def score(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> Scores:
        coloured = {p: self.wanted(prompts[p.index]).coloured for p in seen}
        without = [
            p for p, one in seen.items() if any(not d.colour for n in coloured[p] for d in one.above(self.threshold, n))
        ]
        missing = (
            ("the tasks colors and color_attr, and overall: no classifier of colours was there (--clip)",)
            if without
            else ()
        )
        scored = {p: one for p, one in seen.items() if not (missing and coloured[p])}
        right = {p: float(self.is_right(prompts[p.index].record, one)) for p, one in scored.items()}
        tasks = {tag: [v for p, v in right.items() if prompts[p.index].record["tag"] == tag] for tag in TASKS}
        by_task = tuple(mean(tag.replace("_", " "), values) for tag, values in tasks.items())
        known = [] if missing else [metric.value for metric in by_task if metric.count]
        overall = replace(mean("overall", known, scale=1.0), digits=2)
        prompts_right: dict[int, float] = {}
        for p, value in right.items():
            prompts_right[p.index] = max(prompts_right.get(p.index, 0.0), value)
        rates = (mean("right pictures", list(right.values())), mean("right prompts", list(prompts_right.values())))
        return Scores((overall, *by_task), {"All tasks together": rates}, right, missing)

    def is_right(self, record: Mapping[str, Any], seen: Seen) -> bool:
        """Whether the picture has what the record includes, and not what it excludes.

        The surest objects of a class, as many as are asked for, have to have its colour and its position; every one of
        them in that position to every one of the other clause's.
        """
        threshold = self.counting_threshold if record["tag"] == COUNTING else self.threshold
        matched: list[list[Detection]] = []
        for clause in record.get("include", []):
            found = seen.above(threshold, clause["class"])[: min(clause["count"], MOST_OBJECTS)]
            if len(found) < clause["count"]:
                return False
            if "color" in clause and any(d.colour != clause["color"] for d in found):
                return False
            if "position" in clause:
                position, other = clause["position"]
                if not all(position in positions(a.box, b.box) for a in found for b in matched[other]):
                    return False
            matched.append(found)
        counts = {c["class"]: len(seen.above(threshold, c["class"])[:MOST_OBJECTS]) for c in record.get("exclude", [])}
        return all(counts[clause["class"]] < clause["count"] for clause in record.get("exclude", []))

    def official(self, prompts: Mapping[int, Prompt], seen: Mapping[Picture, Seen]) -> dict[str, str]:
        lines = []
        for picture, one in seen.items():
            record = prompts[picture.index].record
            lines.append(
                {
                    "filename": f"{picture.index:05}/samples/{picture.number:04}.png",
                    "tag": record["tag"],
                    "prompt": record["prompt"],
                    "correct": self.is_right(record, one),
                    "metadata": json.dumps(record),
                }
            )
        return {"results.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}


def positions(box: Box, other: Box) -> set[str]:
    """Where `box` is, seen from `other`: up to two of POSITIONS.

    Centres have to be further apart than APART of the boxes' sides together; what is beyond that, by the distance of
    the centres, has to be more than a half.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = box, other
    offset = np.array([(ax0 + ax1 - bx0 - bx1) / 2, (ay0 + ay1 - by0 - by1) / 2])
    sides = np.abs([ax1 - ax0, ay1 - ay0]) + np.abs([bx1 - bx0, by1 - by0])
    beyond = np.maximum(np.abs(offset) - APART * sides, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return set()
    dx, dy = beyond / np.linalg.norm(offset)
    sides_of = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, there in sides_of.items() if there}


def colour_texts(name: str) -> dict[str, tuple[str, ...]]:
    """What a picture of an object of each colour is compared with; the colour whose texts are nearest is its colour."""
    return {c: tuple(text.format(colour=c, name=name) for text in COLOUR_TEXTS) for c in COLOURS}


def _check(clause: Mapping[str, Any], key: str, place: int) -> None:
    """Raises ValueError for a clause that cannot be scored. `place`: of the clause among its kind."""
    text_of(clause["class"], f"{key}: class")
    if not isinstance(clause["count"], int) or clause["count"] < 1:
        raise ValueError(f"{key}: count is {clause['count']!r}, expected a number from 1 up")
    if "color" in clause and clause["color"] not in COLOURS:
        raise ValueError(f"{key}: color is {clause['color']!r}, expected one of {', '.join(COLOURS)}")
    if "position" in clause:
        position: Sequence = clause["position"]
        known = len(position) == 2 and position[0] in POSITIONS and isinstance(position[1], int)
        if not known or position[1] not in range(place):
            raise ValueError(
                f"{key}: position is {position!r}, expected one of {', '.join(POSITIONS)} and the number of a clause "
                "before"
            )
