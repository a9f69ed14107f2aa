"""Whether two pipelines can denoise the same latent."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline

from ..errors import BranchMismatchError
from .schedule import NoiseSchedule


def check_match(fidelity: DiffusionPipeline, spatial: DiffusionPipeline) -> None:
    """Raises BranchMismatchError for two pipelines that cannot; the message names both sides."""

    def differ(what: str, a: Any, b: Any, advice: str) -> None:
        if a != b:
            raise BranchMismatchError(f"{what} differ: {a} in the fidelity pipeline, {b} in the spatial one. {advice}")

    same_family = "Use two models of one family (both SD1.x, both SD2.x, or both SDXL)."
    differ("latent channels", *(p.unet.config.in_channels for p in (fidelity, spatial)), same_family)
    differ("latent scaling factors", *(p.vae.config.scaling_factor for p in (fidelity, spatial)), same_family)
    differ("text widths", *(p.unet.config.cross_attention_dim for p in (fidelity, spatial)), same_family)
    ends = []
    for pipeline in (fidelity, spatial):
        alphas = NoiseSchedule(pipeline.scheduler).alphas
        ends.append(f"{len(alphas)} levels, last signal share {alphas[-1]:.6f}")
    differ("noise schedules", *ends, "Use models trained on the same schedule.")
    for pipeline in (fidelity, spatial):
        expected, given = pipeline.vae.config.latent_channels, pipeline.unet.config.in_channels
        if given != expected:
            raise BranchMismatchError(
                f"the UNet of {type(pipeline).__name__} takes {given} channels, its autoencoder gives {expected}: "
                "inpainting and editing models are not supported, use the text-to-image model of the family"
            )


def is_sdxl_file(path: str) -> bool:
    """Whether a `.safetensors` checkpoint holds SDXL's second text encoder."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return any(key.startswith("conditioner.embedders.1.") for key in file.keys())
