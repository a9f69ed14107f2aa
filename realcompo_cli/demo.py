"""The demo: the bundled ShapeScenes models under their own settings."""

from __future__ import annotations

import re

from PIL import Image

from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from shapescenes.judge import Detection, detect, found_in_boxes, load_judge
from shapescenes.measuring import as_tensor
from shapescenes.systems import SYSTEMS, System, system
from shapescenes.world import COLOURS, RELATIONS, SHAPES, vocabulary

NO_BREAK = "\u00a0"


class VocabularyError(RealCompoError):
    """A prompt with a word that the demo's models have never seen."""


def check_words(prompt: str, layout: Layout) -> None:
    """Raises VocabularyError for a word outside the world. What must be absent may be called anything."""
    unknown = [word for word in re.findall(r"[^\s,.]+", prompt.lower()) if word not in vocabulary()]
    if unknown and layout.objects:
        raise VocabularyError(
            f"the demo's small models do not know {', '.join(map(repr, dict.fromkeys(unknown)))}. They know these "
            f"shapes: {', '.join(SHAPES)}; colours: {', '.join(COLOURS)}; sizes: small, large; numbers: one to four; "
            f"places: {', '.join(RELATIONS)}. For anything else, give `realcompo generate` your own models"
        )


def load_demo(name: str) -> System:
    """One of the bundled systems."""
    return system(*SYSTEMS[name])


def judge_notes(layout: Layout, images: dict[str, Image.Image]) -> dict[str, str]:
    """What the judge sees in each picture, in a line: the layout's objects it finds in their boxes, and all others."""
    found = detect(load_judge(), as_tensor(images.values()))
    return {name: _note(layout, detections) for name, detections in zip(images, found, strict=True)}


def _note(layout: Layout, detections: list[Detection]) -> str:
    hits, others = found_in_boxes(layout, detections)
    marks = [
        f"{'✓' if hit else '✗'} {item.phrase}".replace(" ", NO_BREAK)
        for hit, item in zip(hits, layout.objects, strict=True)
    ]
    if others:
        marks.append("also " + ", ".join(f"a {d.colour} {d.shape}" for d in others))
    return "Judge: " + (", ".join(marks) or "sees no shape")
