"""Pictures from latents."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor


def decode(pipeline: DiffusionPipeline, latents: Tensor) -> list[Image.Image]:
    """Latents (B, C, h, w) to pictures; in fp32 where the autoencoder asks for it."""
    vae = pipeline.vae
    dtype = torch.float32 if getattr(vae.config, "force_upcast", False) else vae.dtype
    latents = (latents / vae.config.scaling_factor).to(vae.device, dtype)
    before = vae.dtype
    try:
        if dtype != before:
            vae.to(dtype)
        pictures = vae.decode(latents, return_dict=False)[0]
    finally:
        if dtype != before:
            vae.to(before)
    return pipeline.image_processor.postprocess(pictures.float())
