"""The demo: the bundled ShapeScenes models under their own settings."""

from __future__ import annotations

import re

import numpy as np
import torch
from PIL import Image

from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
from shapescenes.judge import Detection, detect, load_judge
from shapescenes.models import pipelines
from shapescenes.world import COLOURS, RELATIONS, SHAPES, SIZE, vocabulary

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


def load_demo() -> RealCompoPipeline:
    return RealCompoPipeline(*pipelines())


def judge_notes(layout: Layout, images: dict[str, Image.Image]) -> dict[str, str]:
    """What the judge sees in each picture, in a line: the layout's objects it finds in their boxes, and all others."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images.values()])
    found = detect(load_judge(), torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1)
    return {name: _note(layout, detections) for name, detections in zip(images, found, strict=True)}


def _note(layout: Layout, detections: list[Detection]) -> str:
    others, marks = list(detections), []
    for item in layout.objects:
        match = next((d for d in others if _shows(d, item)), None)
        if match:
            others.remove(match)
        marks.append(f"{'✓' if match else '✗'} {item.phrase}".replace(" ", NO_BREAK))
    if others:
        marks.append("also " + ", ".join(f"a {d.colour} {d.shape}" for d in others))
    return "Judge: " + (", ".join(marks) or "sees no shape")


def _shows(detection: Detection, item: LayoutObject) -> bool:
    x0, y0, x1, y1 = (edge * SIZE for edge in item.box)
    named = detection.colour in item.phrase and detection.shape in item.phrase
    return named and x0 <= detection.x <= x1 and y0 <= detection.y <= y1
