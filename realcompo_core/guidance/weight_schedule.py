"""Weights of the spatial branches that fall over a run: what one could set by hand in place of the balancer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import RealCompoError
from .mixing import RegionWeights

Shape = Literal["step", "linear", "cosine"]
SHAPES: tuple[str, ...] = get_args(Shape)


@dataclass(frozen=True)
class WeightSchedule:
    """Weights from `start` to `end` over the run, for `BalanceSettings(fixed=...)` (docs/method.md, R7).

    start, end: weights of the spatial branches on the objects and elsewhere. With the default `end` the fidelity branch
        finishes alone.
    until: share of the steps from which on the weights are `end`.
    shape: the way there. `step` keeps `start` until then; `linear` is a straight line; `cosine` half a wave, slow at
        both ends.
    t0: share of the steps, from the first, that the spatial branches make alone; the way begins after it. It comes
        before `until` where it is larger.
    """

    start: RegionWeights
    end: RegionWeights = RegionWeights(0.0, 0.0)
    until: float = 0.6
    shape: Shape = "step"
    t0: float = 0.0

    def __post_init__(self):
        for name in ("start", "end"):
            weights = getattr(self, name)
            if not isinstance(weights, RegionWeights):
                raise RealCompoError(f"{name} is {weights!r}: give RegionWeights(inside, outside)")
            if not all(0 <= share <= 1 for share in weights):
                raise RealCompoError(f"{name} is {weights}: the weights inside and outside are shares, from 0 to 1")
        for name in ("until", "t0"):
            if not 0 <= getattr(self, name) <= 1:
                raise RealCompoError(f"{name} is {getattr(self, name)}: it is a share of the steps, from 0 to 1")
        if self.shape not in SHAPES:
            raise RealCompoError(f"shape is {self.shape!r}: choose one of {', '.join(SHAPES)}")

    def __call__(self, progress: float) -> RegionWeights:
        """The weights when a share `progress` of the steps is done."""
        if progress < self.t0:
            return RegionWeights(1.0, 1.0)
        if progress >= self.until:
            return self.end
        way = self._way((progress - self.t0) / (self.until - self.t0))
        return RegionWeights(*(a + way * (b - a) for a, b in zip(self.start, self.end, strict=True)))

    def _way(self, share: float) -> float:
        """How far from `start` to `end`, 0 to 1, after a share of the time between."""
        if self.shape == "step":
            return 0.0
        return share if self.shape == "linear" else (1 - math.cos(math.pi * share)) / 2
