"""The numbers of a sweep's cells: those that need no judge, and how each is named, explained and written down."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..guidance.trace import Trace

Numbers = Mapping[str, Any]
"""A cell's numbers by name. `lines` and `captions` know `found` (with `objects` and `others`), `attention_inside` and
`difference`; what else there is goes into tables alone."""

CAPTIONS = {
    "found": "found: objects that the ShapeScenes judge finds, in their shape and colour, in their boxes. more: other "
    "shapes that it finds.",
    "attention_inside": "attention inside: share of the objects' attention that was inside their regions when it was "
    "last read: 1 minus the loss, mean over objects and branches. It says what the balancer aims at, not what the "
    "picture shows.",
    "difference": "difference: RMS difference from the fidelity model's own picture with this seed, of values from 0 "
    "to 1. It says how much of that picture is lost, not how real the cell looks.",
}


def attention_inside(trace: Trace, item: int = 0) -> float | None:
    """1 - the loss when maps were last read, mean over the item's objects and the branches that were read.

    None where nothing was read, as with fixed weights.
    """
    for step in reversed(trace.read_steps):
        losses = step.losses[item]
        losses = losses[:, : len(trace.phrases[item])] if trace.phrases else losses  # beyond are other items' objects
        losses = losses[losses.isfinite()]
        if len(losses):
            return round(1 - float(losses.mean()), 4)
    return None


def rms_difference(picture: np.ndarray, other: np.ndarray) -> float:
    """The root of the mean squared difference of two pictures of one shape, with values from 0 to 1."""
    return round(float(np.sqrt(np.mean(np.square(picture.astype(np.float64) - other)))), 4)


def lines(numbers: Numbers) -> list[str]:
    """What is written below a cell's picture."""
    found = []
    if "found" in numbers:
        more = f", {numbers['others']} more" if numbers["others"] else ""
        found.append(f"found {numbers['found']} of {numbers['objects']}{more}")
    if "attention_inside" in numbers:
        inside = numbers["attention_inside"]
        found.append("attention not read" if inside is None else f"attention inside {inside:.2f}")
    if "difference" in numbers:
        found.append(f"difference {numbers['difference']:.3f}")
    return found


def captions(numbers: Numbers) -> list[str]:
    """What the lines mean."""
    return [caption for name, caption in CAPTIONS.items() if name in numbers]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows, all with the names of the first, as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
