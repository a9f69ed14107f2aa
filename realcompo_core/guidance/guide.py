"""Guides: the rules by which a loss on attention maps moves a variable of sampling.

A loss on a branch's maps has a gradient. A guide is the rule by which that gradient moves one variable of sampling: the
balancer's coefficients (`CoefficientGuide`), or the latent of a single branch before its network runs (see
`layout_guidance.py`). See docs/method.md, R6 and R9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..attention.reading import Gradient
from .schedule import Moment
from .settings import BalanceSettings

OFFICIAL_RATE = 1e6


class Guide(Protocol):
    """Moves one variable down the gradient of a loss on attention maps."""

    def due(self, moment: Moment, answers: Sequence[Gradient]) -> bool:
        """Whether maps are to be read (again) at this moment. `answers`: the gradients read in this step so far."""

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        """The variable's next value. gradient: of the loss in the variable, in its shape."""


class Answers:
    """The gradients read in the present step so far: samplers may evaluate the model several times in a step."""

    def __init__(self):
        self._index, self._read = -1, []

    def at(self, moment: Moment) -> list[Gradient]:
        """The step's list, to be added to; a new one for a later step."""
        if moment.index > self._index:
            self._index, self._read = moment.index, []
        return self._read


class CoefficientGuide:
    """The balancer's rule: c ← c − ρ ∂L/∂c, once a step (R6)."""

    def __init__(self, settings: BalanceSettings):
        self._settings = settings

    def due(self, moment: Moment, answers: Sequence[Gradient]) -> bool:
        on_turn = moment.index % self._settings.update_every == 0
        return not answers and on_turn and moment.progress < self._settings.update_until

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        if self._settings.rule == "official":
            return variable - self._settings.rate * official_rate(moment.progress) * gradient
        return variable - self._settings.rate * NORMALISE[self._settings.rule](gradient)


def normalise_max(gradient: Tensor) -> Tensor:
    """Each sample of (B, K, h, w) divided by its largest magnitude: a step of known size for any model and size."""
    return gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)


def normalise_rms(gradient: Tensor) -> Tensor:
    """Each sample of (B, K, h, w) divided by its root mean square."""
    rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / rms.clamp_min(torch.finfo(gradient.dtype).tiny)


NORMALISE: dict[str, Callable[[Tensor], Tensor]] = {"max": normalise_max, "rms": normalise_rms}


def official_rate(progress: float) -> float:
    """ρ_t of the official code, 1e6 · sqrt(linspace(1, 0.5)), at a share `progress` of the steps."""
    return OFFICIAL_RATE * (1 - 0.5 * progress) ** 0.5
