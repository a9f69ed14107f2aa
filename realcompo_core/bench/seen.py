"""What models say about a picture: the boxes of a detector, answers to questions, likeness to texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Question = tuple[str, str]
"""What is asked, and the answer whose probability is wanted."""


class Detection(NamedTuple):
    """An object that a detector found. `score` is in 0..1; `colour` is what a classifier said of it, if one was asked.

    `box` is (left, top, right, bottom) in pixels.
    """

    name: str
    box: Box
    score: float
    colour: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


class Wanted(NamedTuple):
    """What a benchmark has to know about a picture.

    `names`: to be detected. `questions`: with the answers whose probabilities count. `texts`: to be compared with the
    picture. `coloured`: those of the names whose colour counts.
    """

    names: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    texts: tuple[str, ...] = ()
    coloured: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """One picture: its size in pixels, and what models said of it.

    `answers` are probabilities, `likeness` cosines, both by the text that was asked for. `detected`: whether there was
    a detector at all; other models that were not there have left nothing.
    """

    width: int
    height: int
    detections: tuple[Detection, ...] = ()
    answers: Mapping[Question, float] = field(default_factory=dict)
    likeness: Mapping[str, float] = field(default_factory=dict)
    detected: bool = True

    def above(self, threshold: float, name: str | None = None) -> list[Detection]:
        """The detections with a larger score than `threshold`, of all names or of one, the surest first."""
        found = [d for d in self.detections if d.score > threshold and name in (None, d.name)]
        return sorted(found, key=lambda d: -d.score)

    def names_above(self, threshold: float) -> set[str]:
        return {d.name for d in self.detections if d.score > threshold}

    def inside(self, box: Box) -> Box | None:
        """The part of a box that is in the picture, as shares of its size; None where there is none."""
        x0, x1 = (min(max(edge / self.width, 0.0), 1.0) for edge in (box[0], box[2]))
        y0, y1 = (min(max(edge / self.height, 0.0), 1.0) for edge in (box[1], box[3]))
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def to_json(self) -> dict[str, Any]:
        """Boxes with hundredths of a pixel, scores and probabilities with six digits."""
        return {
            "size": [self.width, self.height],
            "detected": self.detected,
            "detections": [
                {"name": d.name, "box": [round(v, 2) for v in d.box], "score": round(d.score, 6)}
                | ({"colour": d.colour} if d.colour else {})
                for d in self.detections
            ],
            "answers": [[*question, round(p, 6)] for question, p in self.answers.items()],
            "likeness": {text: round(value, 6) for text, value in self.likeness.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Seen:
        """Raises KeyError, TypeError or ValueError for what `to_json` has not written."""
        width, height = (int(_finite(side)) for side in data["size"])
        detections = []
        for item in data["detections"]:
            x0, y0, x1, y1 = map(_finite, item["box"])
            colour = str(item.get("colour", ""))
            detections.append(Detection(str(item["name"]), (x0, y0, x1, y1), _finite(item["score"]), colour))
        answers = {(str(question), str(answer)): _finite(p) for question, answer, p in data.get("answers", ())}
        likeness = {str(text): _finite(value) for text, value in dict(data.get("likeness", {})).items()}
        if not all(map(math.isfinite, (*answers.values(), *likeness.values()))):
            raise ValueError("an answer or a likeness is not a finite number")
        return cls(width, height, tuple(detections), answers, likeness, bool(data.get("detected", True)))


def _finite(value: Any) -> float:
    """Raises TypeError or ValueError for what is no finite number."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} is not finite")
    return found
