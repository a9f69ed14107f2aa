"""Where a diffusers model looks in a picture that it did not draw: its noise, and the maps of drawing it again.

See docs/method.md, R16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from ..attention.input_gradients import frozen
from ..attention.maps import AttentionMaps, Keep
from ..errors import RealCompoError
from ..sampling.inversion import ddim_inversion, null_text_inversion, psnr
from ..sampling.samplers import Step, euler
from .branch import joined
from .latents import decode, encode, picture_size
from .recording import record
from .schedule import NoiseSchedule
from .text_conditioning import count_chunks, text_conditioning

REFINEMENTS = 2  # of DDIM's inversion: see benchmarks/RESULTS.md


@dataclass(frozen=True)
class Inversion:
    """A picture as noise, and what came of drawing it again.

    latents: (1, C, h, w), noise of about unit variance, from which DDIM or Euler draws `reconstruction` in as many
    steps. nulls: (1, T, d) of each step, encodings of the unconditional text; None without guidance. picture: what was
    inverted, in the reconstruction's size. maps: of the reconstruction. psnr: decibels between the two pictures;
    psnr_of_autoencoder: between the picture and its latent decoded, which no inversion exceeds by much.
    """

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    latents: Tensor
    nulls: list[Tensor] | None
    picture: Image.Image
    reconstruction: Image.Image
    maps: AttentionMaps
    psnr: float
    psnr_of_autoencoder: float


def invert(
    pipeline: DiffusionPipeline,
    picture: Image.Image,
    prompt: str,
    *,
    negative_prompt: str = "",
    steps: int = 50,
    guidance_scale: float = 7.5,
    iterations: int = 10,
    refinements: int = REFINEMENTS,
    height: int | None = None,
    width: int | None = None,
    keep: Keep | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Inversion:
    """A picture inverted by an SD1.x, SD2.x or SDXL pipeline, and the attention with which the pipeline draws it again.

    The picture is cut to the middle where its shape is not that of height and width, which are the model's own where
    they are not given. guidance_scale: at which the picture is drawn again; null-text inversion keeps it the same,
    with `iterations` at most a step. At 1 there is nothing to keep, and none is needed. refinements: as in
    `ddim_inversion`. `progress(what, done, steps)` is called after each step of inverting and of optimising.
    """
    if steps < 1 or iterations < 0 or refinements < 0:
        raise RealCompoError(
            f"steps {steps}, iterations {iterations}, refinements {refinements}: at least 1 step, and no less than 0"
        )
    size = picture_size(pipeline, height, width)
    picture = cut_to_fit(picture, size)
    network = _Network(pipeline, prompt, negative_prompt, size)
    schedule = network.schedule
    sigmas = schedule.sigmas(steps)
    tell = progress or (lambda *_: None)
    with torch.no_grad():
        signal = encode(pipeline, _pixels(picture) * 2 - 1)[0].to(pipeline.device)
        x = signal * (sigmas[-1] ** 2 + 1) ** 0.5
        path = ddim_inversion(network.positive, x, sigmas, refinements, lambda done: tell("inverting", done, steps))
    guided, nulls = guidance_scale != 1, None
    if guided:
        with frozen([pipeline.unet]), _checkpointed(pipeline.unet):
            nulls = null_text_inversion(
                network.positive,
                network.negative,
                path,
                sigmas,
                network.null,
                guidance_scale,
                iterations,
                lambda done: tell("optimising", done, steps),
            )
    latents = schedule.parametrisation.scale_input(path[0], sigmas[0])
    unet, tokenizer = pipeline.unet, pipeline.tokenizer
    kinds = ("negative", "positive") if guided else ("positive",)
    with (
        record(unet, prompt, tokenizer, negative_prompt, conditionings=kinds, keep=keep, steps=steps) as maps,
        torch.no_grad(),
    ):
        waiting = iter(nulls or [])

        def model(x: Tensor, sigma: float, step: Step) -> Tensor:
            if not guided:
                return network.positive(x, sigma)
            unconditional, conditional = network.both(x, sigma, next(waiting))
            return unconditional + guidance_scale * (conditional - unconditional)

        x = euler(model, path[0], sigmas)
        (reconstruction,) = decode(pipeline, schedule.parametrisation.scale_input(x, sigmas[-1]))
        (best,) = decode(pipeline, signal)
    return Inversion(
        prompt,
        negative_prompt,
        steps,
        guidance_scale,
        latents,
        nulls,
        picture,
        reconstruction,
        maps,
        psnr(_pixels(picture), _pixels(reconstruction)),
        psnr(_pixels(picture), _pixels(best)),
    )


class _Network:
    """A pipeline's UNet with one prompt: estimates D in fp32."""

    def __init__(self, pipeline: DiffusionPipeline, prompt: str, negative_prompt: str, size: tuple[int, int]):
        self._unet, self.schedule = pipeline.unet, NoiseSchedule(pipeline.scheduler)
        chunks = max(count_chunks(pipeline, text) for text in (prompt, negative_prompt))
        with torch.no_grad():
            self._positive = text_conditioning(pipeline, [prompt], chunks, size)
            self._negative = text_conditioning(pipeline, [negative_prompt or None], chunks, size)

    @property
    def null(self) -> Tensor:
        return self._negative["encoder_hidden_states"]

    def positive(self, x: Tensor, sigma: float) -> Tensor:
        return self._estimate(x, sigma, self._positive)

    def negative(self, x: Tensor, sigma: float, null: Tensor) -> Tensor:
        return self._estimate(x, sigma, self._with(null))

    def both(self, x: Tensor, sigma: float, null: Tensor) -> tuple[Tensor, Tensor]:
        """The unconditional and the conditional estimate, from one pass."""
        return self._estimate(torch.cat([x, x]), sigma, joined([self._with(null), self._positive])).chunk(2)

    def _with(self, null: Tensor) -> dict:
        return self._negative | {"encoder_hidden_states": null.to(self.null.dtype)}

    def _estimate(self, x: Tensor, sigma: float, text: dict) -> Tensor:
        scaled = self.schedule.parametrisation.scale_input(x, sigma).to(self._unet.dtype)
        t = torch.full((), self.schedule.timestep(sigma), device=x.device)
        output = self._unet(scaled, t, **text, return_dict=False)[0].to(x.dtype)
        return self.schedule.parametrisation.denoised(x, output, sigma)


@contextmanager
def _checkpointed(unet: nn.Module) -> Iterator[None]:
    """Inside, gradients through the UNet keep the inputs of its blocks, which run again."""
    was = unet.is_gradient_checkpointing
    unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if not was:
            unet.disable_gradient_checkpointing()


def cut_to_fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of the picture in the shape of `size` (height, width), resized to it."""
    height, width = size
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box)


def _pixels(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).permute(2, 0, 1)[None]
