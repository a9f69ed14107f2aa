"""A diffusers scheduler's noise levels."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from ..errors import BranchMismatchError
from ..sampling.parametrisation import Parametrisation, parametrisation

LEAST_ALPHA = 2**-24  # of schedules with zero terminal SNR, whose last sigma would be infinite; diffusers' own choice


class NoiseSchedule:
    """A scheduler's noise levels as sigma in x = signal + sigma · noise, and its parametrisation (docs/method.md, R1).

    alphas: cumulative products ᾱ_t, (timesteps,) float64. Raises BranchMismatchError for a scheduler without them.
    """

    def __init__(self, scheduler: Any):
        if not hasattr(scheduler, "alphas_cumprod"):
            raise BranchMismatchError(
                f"{type(scheduler).__name__} has no alphas_cumprod: use an SD1.x, SD2.x or SDXL model"
            )
        self.alphas = scheduler.alphas_cumprod.double().cpu().numpy()
        self.parametrisation: Parametrisation = parametrisation(scheduler.config.prediction_type)
        self._scheduler = scheduler
        alphas = np.maximum(self.alphas, LEAST_ALPHA)
        self._log_sigmas = np.log((1 - alphas) / alphas) / 2

    def sigmas(self, steps: int) -> list[float]:
        """n + 1 levels, falling: those of the scheduler's own timesteps, then where it ends."""
        scheduler = deepcopy(self._scheduler)
        scheduler.set_timesteps(steps)
        timesteps = sorted({float(t) for t in scheduler.timesteps}, reverse=True)
        levels = np.exp(np.interp(timesteps, np.arange(len(self._log_sigmas)), self._log_sigmas))
        end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        return [*levels.tolist(), ((1 - end) / end) ** 0.5]

    def timestep(self, sigma: float) -> float:
        return round(float(np.interp(np.log(sigma), self._log_sigmas, np.arange(len(self._log_sigmas)))), 4)
