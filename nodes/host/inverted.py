"""Pictures inverted by a model of the host (docs/method.md, R16)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from realcompo_core.attention.input_gradients import InputGradientsOnly
from realcompo_core.errors import RealCompoError
from realcompo_core.sampling.inversion import ddim_inversion, null_text_inversion

from .branch import fused_attention
from .inference_tensors import UsableTensors, usable_weights
from .joined_passes import calculate
from .memory import every_layer_checkpointed

TEXT = "c_crossattn"  # in what the host has prepared of a conditioning
HALVINGS = 40  # of the interval in which a share of the steps is looked for


class Inverted(NamedTuple):
    """A picture's noise, as an ordinary LATENT of the host that is sampled without adding noise.

    negative: conditioning, with an unconditional text of its own for each step where there is guidance.
    """

    latent: Tensor
    negative: list
    sigmas: Tensor


def inverted(
    model: Any,
    latent: Tensor,
    positive: list,
    negative: list,
    sigmas: Tensor,
    cfg: float,
    iterations: int,
    refinements: int,
    tell: Callable[[int], None],
) -> Inverted:
    """A latent (1, C, h, w) of a picture inverted along these noise levels. tell: gets how many steps are done.

    Raises RealCompoError for a model that is no SD1.x, SD2.x or SDXL.
    """
    network = model.get_model_object("diffusion_model")
    if not isinstance(network, UNetModel):
        raise RealCompoError(f"{type(network).__name__}: pictures are inverted by SD1.x, SD2.x and SDXL models")
    if len(negative) != 1:
        raise RealCompoError(
            f"the CLIP makes {len(negative)} conditionings of the negative prompt, as one with scheduled hooks does: "
            "take the hooks off it"
        )
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(1.0)
    inverter = _Inverter(cfg, iterations, refinements, tell)
    noise = guider.sample(torch.zeros_like(latent), latent, inverter, sigmas, seed=0)
    if inverter.nulls:
        negative = each_at_its_step(negative, inverter.nulls, sigmas.tolist(), model.get_model_object("model_sampling"))
    return Inverted(noise, negative, sigmas)


def steps_of(sigmas: Tensor, cfg: float) -> int:
    """How many steps `inverted` tells of."""
    return (len(sigmas) - 1) * (1 if math.isclose(cfg, 1.0) else 2)


def drawn_again(model: Any, positive: list, found: Inverted, cfg: float) -> Tensor:
    """The latent that the host's Euler makes of the noise."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, found.negative)
    guider.set_cfg(cfg)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(torch.zeros_like(found.latent), found.latent, sampler, found.sigmas, seed=0)


def each_at_its_step(negative: list, texts: Sequence[Tensor], sigmas: Sequence[float], model_sampling: Any) -> list:
    """Conditioning of one entry as one entry a step, which acts at that step's noise level alone."""
    ((_, options),) = negative
    borders = [0.0]
    for sigma, sigma_next in pairwise(sigmas[:-1]):
        borders.append(_share_at((sigma * sigma_next) ** 0.5, model_sampling))
    borders.append(1.0)
    return [
        [text, {**options, "start_percent": start, "end_percent": end}]
        for text, (start, end) in zip(texts, pairwise(borders), strict=True)
    ]


def _share_at(sigma: float, model_sampling: Any) -> float:
    """The share of the steps, as the host's ranges count them, at which this noise level is."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if model_sampling.percent_to_sigma(middle) > sigma else (low, middle)
    return low


class _Inverter(comfy.samplers.Sampler):
    """A sampler that goes from the picture to noise. nulls: (1, T, d) of each step, once it has run with guidance."""

    def __init__(self, cfg: float, iterations: int, refinements: int, tell: Callable[[int], None]):
        self._cfg, self._iterations, self._refinements, self._tell = cfg, iterations, refinements, tell
        self.nulls: list[Tensor] = []

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        levels, guider = sigmas.tolist(), model_wrap

        def positive(x: Tensor, sigma: float) -> Tensor:
            return guider(x, _timestep(x, sigma), **extra_args)

        path = ddim_inversion(positive, latent_image, levels, self._refinements, self._told(0))
        if math.isclose(self._cfg, 1.0):
            return path[0]
        (entry,) = guider.conds["negative"]
        null = entry["model_conds"][TEXT].cond
        options = _for_gradients(extra_args["model_options"], null.device)

        def negative(x: Tensor, sigma: float, null: Tensor) -> Tensor:
            own = {**entry, "model_conds": {**entry["model_conds"], TEXT: comfy.conds.CONDCrossAttn(null.to(dtype))}}
            args = {"model": guider.inner_model, "conds": [[own]], "input": x, "sigma": _timestep(x, sigma)}
            other = options.get("sampler_calc_cond_batch_function", calculate)
            return other({**args, "model_options": options})[0]

        dtype = null.dtype
        networks = [guider.inner_model.diffusion_model]
        with (
            torch.inference_mode(False),
            usable_weights(networks),
            UsableTensors(),
            InputGradientsOnly(),
            every_layer_checkpointed(networks),
        ):
            null = null.clone()
            path = [x.clone() for x in path]
            self.nulls = [
                found.to("cpu", dtype)
                for found in null_text_inversion(
                    positive, negative, path, levels, null, self._cfg, self._iterations, self._told(len(levels) - 1)
                )
            ]
        return path[0]

    def _told(self, before: int) -> Callable[[int], None]:
        def told(done: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._tell(before + done)

        return told


def _for_gradients(model_options: dict, device: torch.device) -> dict:
    """Options of passes with gradient: on the CPU the host's own attention keeps 50 times the memory."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    if device.type == "cpu":
        transformer = options["transformer_options"] = {**options.get("transformer_options", {})}
        transformer.setdefault("optimized_attention_override", fused_attention)
    return options


def _timestep(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, device=x.device)
