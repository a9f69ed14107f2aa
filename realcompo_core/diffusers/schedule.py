"""A diffusers scheduler's noise levels."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from ..errors import BranchMismatchError
from ..sampling.parametrisation import Flow, Parametrisation, parametrisation
from .denoisers import denoiser_of, network_of

LEAST_ALPHA = 2**-24  # of schedules with zero terminal SNR, whose last sigma would be infinite; diffusers' own choice


class FlowSchedule:
    """A flow matching scheduler's noise levels, 1 to 0, for latents of so many tokens (docs/method.md, R18).

    always_shifts: the pipeline gives the levels themselves, as Flux's does.
    """

    def __init__(self, scheduler: Any, always_shifts: bool = False):
        self.parametrisation: Parametrisation = Flow()
        self._scheduler, self._always_shifts = scheduler, always_shifts

    def sigmas(self, steps: int, tokens: int) -> list[float]:
        """n + 1 levels, falling to 0: those that diffusers' pipelines sample at this size."""
        scheduler, config = deepcopy(self._scheduler), self._scheduler.config
        given: dict[str, Any] = {}
        if self._always_shifts and not config.get("use_flow_sigmas"):
            given["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        if config.get("use_dynamic_shifting"):
            least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
            low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
            given["mu"] = low + (high - low) * (tokens - least) / (most - least)
        scheduler.set_timesteps(steps, **given)
        return scheduler.sigmas.tolist()

    def timestep(self, sigma: float) -> float:
        return sigma * self._scheduler.config.num_train_timesteps


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

    def sigmas(self, steps: int, tokens: int = 0) -> list[float]:
        """n + 1 levels, falling: those of the scheduler's own timesteps, then where it ends, at any size."""
        scheduler = deepcopy(self._scheduler)
        scheduler.set_timesteps(steps)
        timesteps = sorted({float(t) for t in scheduler.timesteps}, reverse=True)
        levels = np.exp(np.interp(timesteps, np.arange(len(self._log_sigmas)), self._log_sigmas))
        end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        return [*levels.tolist(), ((1 - end) / end) ** 0.5]

    def timestep(self, sigma: float) -> float:
        return round(float(np.interp(np.log(sigma), self._log_sigmas, np.arange(len(self._log_sigmas)))), 4)


def schedule_of(pipeline: DiffusionPipeline) -> NoiseSchedule | FlowSchedule:
    """Raises BranchMismatchError for a scheduler that is not of the network's kind."""
    family = denoiser_of(network_of(pipeline)).family
    if family == "UNet":
        return NoiseSchedule(pipeline.scheduler)
    if not isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
        raise BranchMismatchError(
            f"{type(pipeline.scheduler).__name__} is no scheduler for {family}: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler"
        )
    return FlowSchedule(pipeline.scheduler, family == "Flux")
