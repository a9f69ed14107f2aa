"""Whether two pipelines can denoise the same latent."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline

from ..errors import BranchMismatchError
from .denoisers import denoiser_of, network_of
from .schedule import NoiseSchedule, schedule_of


def check_match(fidelity: DiffusionPipeline, spatial: DiffusionPipeline) -> None:
    """Raises BranchMismatchError for two pipelines that cannot; the message names both sides."""

    def differ(what: str, a: Any, b: Any, advice: str) -> None:
        if a != b:
            raise BranchMismatchError(f"{what} differ: {a} in the fidelity pipeline, {b} in the spatial one. {advice}")

    pipelines = fidelity, spatial
    differ("families", *(denoiser_of(network_of(p)).family for p in pipelines), "Use two models of one family.")
    same_family = "Use two models of one family (both SD1.x, both SDXL, both SD3, ...)."
    differ("latent channels", *(denoiser_of(network_of(p)).channels for p in pipelines), same_family)
    differ("latent scaling factors", *(p.vae.config.scaling_factor for p in pipelines), same_family)
    differ("text widths", *(_text_width(p) for p in pipelines), same_family)
    ends = []
    for pipeline in pipelines:
        schedule = schedule_of(pipeline)
        if isinstance(schedule, NoiseSchedule):
            ends.append(f"{len(schedule.alphas)} levels, last signal share {schedule.alphas[-1]:.6f}")
        else:
            ends.append("flow matching")
    differ("noise schedules", *ends, "Use models trained on the same schedule.")
    for pipeline in pipelines:
        expected, given = pipeline.vae.config.latent_channels, denoiser_of(network_of(pipeline)).channels
        if given != expected:
            raise BranchMismatchError(
                f"the network of {type(pipeline).__name__} takes {given} channels, its autoencoder gives {expected}: "
                "inpainting and editing models are not supported, use the text-to-image model of the family"
            )


def _text_width(pipeline: DiffusionPipeline) -> int:
    config = network_of(pipeline).config
    return config.get("cross_attention_dim") or config.get("joint_attention_dim")


def is_sdxl_file(path: str) -> bool:
    """Whether a `.safetensors` checkpoint holds SDXL's second text encoder."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return any(key.startswith("conditioner.embedders.1.") for key in file.keys())
