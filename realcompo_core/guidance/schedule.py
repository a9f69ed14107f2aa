"""Where a sampler is in its schedule of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Moment(NamedTuple):
    """One evaluation of the model. index: of its step, from 0. progress: the share of the steps that are done.

    variance: of the latent at this level, where the signal's is 1.
    """

    index: int
    sigma: float
    progress: float
    variance: float


class Schedule:
    """The noise levels of one sampling: n + 1 for n steps, falling.

    is_flow: latents are (1 − σ) · signal + σ · noise (docs/method.md, R18), and not signal + σ · noise.
    """

    def __init__(self, sigmas: Sequence[float], is_flow: bool = False):
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.is_flow = is_flow
        self.steps = len(self.sigmas) - 1

    def moment(self, sigma: float) -> Moment:
        """An evaluation between two levels counts for the lower one; one below the last step's level for the last."""
        index = min(sum(level > sigma * (1 + 1e-6) for level in self.sigmas[:-1]), self.steps - 1)
        return Moment(index, sigma, index / self.steps, (1 - sigma if self.is_flow else 1) ** 2 + sigma**2)

    def level(self, share: float) -> float:
        """A noise level between that of the last step before this share of the steps is done, and the next one."""
        done = math.ceil(share * self.steps)
        return 0.0 if done >= self.steps else self.sigmas[done] * (1 + 1e-6)

    def following(self, sigma: float) -> float:
        """The next lower level; 0 below the last."""
        return next((level for level in self.sigmas if level < sigma * (1 - 1e-6)), 0.0)


def named_steps(indices: Sequence[int]) -> str:
    """Rising numbers of steps in words: "step 3", "steps 0 to 4, 6"."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"step{'s' if len(indices) > 1 else ''} {', '.join(parts)}"
