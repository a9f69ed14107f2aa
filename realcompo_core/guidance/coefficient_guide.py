"""The balancer's guide: how the gradient of the losses moves the coefficients (docs/method.md, R6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..attention.reading import Gradient
from .schedule import Moment
from .settings import BalanceSettings

OFFICIAL_RATE = 1e6


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
