"""Scores: named numbers with their spread and how many pictures they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

PERCENT = 100.0


class Picture(NamedTuple):
    """One picture of a run: the prompt's index and which of its pictures, both from 0."""

    index: int
    number: int


@dataclass(frozen=True)
class Metric:
    """`value` of `count` pictures (or prompts, as its name says); NaN where there is none.

    `std` is a population standard deviation, over what the benchmark says; None where it says nothing. `lower`: smaller
    is better. `digits`: after the point, in a table.
    """

    name: str
    value: float
    count: int
    std: float | None = None
    lower: bool = False
    digits: int = 2

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        value = round(self.value, self.digits) + 0.0  # no -0.00
        return f"{value:.{self.digits}f}" + ("" if self.std is None else f" ± {self.std:.{self.digits}f}")


@dataclass(frozen=True)
class Scores:
    """All of a run. `metrics` are the benchmark's own, `groups` are tables of detail by their titles.

    `success` is how well each picture does, in 0..1, by which a contact sheet is sorted. `missing` says which metrics
    could not be measured, and what would.
    """

    metrics: tuple[Metric, ...]
    groups: Mapping[str, tuple[Metric, ...]] = field(default_factory=dict)
    success: Mapping[Picture, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Without `success`, which is as long as the run. NaN becomes null."""

        def plain(metric: Metric) -> dict[str, Any]:
            return asdict(metric) | ({"value": None} if np.isnan(metric.value) else {})

        return {
            "metrics": [plain(m) for m in self.metrics],
            "groups": {title: [plain(m) for m in group] for title, group in self.groups.items()},
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        def read(items: Iterable[Mapping[str, Any]]) -> tuple[Metric, ...]:
            return tuple(Metric(**{**m, "value": np.nan if m["value"] is None else m["value"]}) for m in items)

        groups = {title: read(group) for title, group in data["groups"].items()}
        return cls(read(data["metrics"]), groups, missing=tuple(data["missing"]))


def mean(name: str, values: Sequence[float], scale: float = PERCENT, lower: bool = False) -> Metric:
    """The mean of `values`, times `scale`, without a spread; NaN of nothing."""
    return Metric(
        name, scale * float(np.mean(values)) if len(values) else np.nan, len(values), lower=lower, digits=_digits(scale)
    )


def mean_over_rounds(name: str, values: Mapping[Picture, float], scale: float = PERCENT) -> Metric:
    """The mean over all pictures, with the spread of the rounds' means; a round is one picture of each prompt.

    As in MultiGen: the population standard deviation over the picture numbers. One round has no spread.
    """
    rounds: dict[int, list[float]] = {}
    for picture, value in values.items():
        rounds.setdefault(picture.number, []).append(value)
    whole = mean(name, list(values.values()), scale)
    if len(rounds) < 2:
        return whole
    spread = scale * float(np.std([np.mean(r) for r in rounds.values()]))
    return Metric(name, whole.value, whole.count, spread, digits=_digits(scale))


def _digits(scale: float) -> int:
    """Two for percent; four for what is itself in 0..1, as papers have it."""
    return 2 if scale == PERCENT else 4
