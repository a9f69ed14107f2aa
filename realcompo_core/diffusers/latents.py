"""Pictures from latents, and latents from pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from ..errors import RealCompoError
from .denoisers import denoiser_of, network_of


def picture_size(pipeline: DiffusionPipeline, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in pixels, the model's own where they are not given. Raises RealCompoError for odd ones."""
    network = network_of(pipeline)
    cells = getattr(pipeline, "default_sample_size", None) or network.config.sample_size
    height, width = (side or cells * pipeline.vae_scale_factor for side in (height, width))
    unit = max(8, pipeline.vae_scale_factor * denoiser_of(network).patch)
    if height % unit or width % unit:
        raise RealCompoError(f"the picture's size {width}x{height} is not divisible by {unit}")
    return height, width


def encode(pipeline: DiffusionPipeline, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, (B, C, h, w) in fp32, of pictures (B, 3, H, W) in -1..1."""
    vae = pipeline.vae
    with _precise(vae) as dtype:
        output = vae.encode(pictures.to(vae.device, dtype))
    if hasattr(output, "latent_dist"):
        mean, std = output.latent_dist.mean.float(), output.latent_dist.std.float()
    else:
        mean = output.latents.float()
        std = torch.zeros_like(mean)
    return (mean - _shift(vae)) * vae.config.scaling_factor, std * vae.config.scaling_factor


def decode(pipeline: DiffusionPipeline, latents: Tensor) -> list[Image.Image]:
    """Latents (B, C, h, w) to pictures."""
    vae = pipeline.vae
    with _precise(vae) as dtype:
        latents = latents / vae.config.scaling_factor + _shift(vae)
        pictures = vae.decode(latents.to(vae.device, dtype), return_dict=False)[0]
    return pipeline.image_processor.postprocess(pictures.float())


def _shift(vae: nn.Module) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


@contextmanager
def _precise(vae: nn.Module) -> Iterator[torch.dtype]:
    """Inside, the autoencoder is in fp32 where it asks for it. Gives its precision."""
    before = vae.dtype
    dtype = torch.float32 if getattr(vae.config, "force_upcast", False) else before
    try:
        if dtype != before:
            vae.to(dtype)
        yield dtype
    finally:
        if dtype != before:
            vae.to(before)
