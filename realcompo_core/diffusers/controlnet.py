"""ControlNets of a diffusers pipeline (Zhang et al. 2023): pictures that a branch follows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from torch import Tensor, nn

from ..errors import BranchMismatchError, RealCompoError
from ..guidance.schedule import Schedule
from .request import Control, Request, UNetPass

ASPECT_TOLERANCE = 0.02
FAMILY = {  # of a ControlNet's and a UNet's configuration, as messages call it
    "cross_attention_dim": "text of width",
    "in_channels": "latents with channels",
    "block_out_channels": "blocks with channels",
    "addition_embed_type": "additional conditionings of type",
}


class ControlNets:
    """All ControlNets of a pipeline, in all passes; beta multiplies each one's strength (docs/method.md, R11)."""

    def __init__(self, pipeline: DiffusionPipeline, request: Request, controls: Sequence[Control]):
        self.networks = control_networks(pipeline)
        for network in self.networks:
            check_control(network, pipeline.unet)
        self._controls, self._beta = list(controls), request.beta
        self._schedule = Schedule(request.sigmas)
        steps = self._schedule.steps
        for control in controls:
            if not any(control.start <= i / steps < control.end for i in range(steps)):
                raise RealCompoError(
                    f"a ControlNet acts from {control.start:g} to {control.end:g}, and none of the {steps} steps "
                    "begins there: widen it, or take more steps"
                )
        self._pictures = [
            _prepared(control, pipeline, request).to(network.device, network.dtype)
            for control, network in zip(controls, self.networks, strict=True)
        ]

    @staticmethod
    def fits(pipeline: DiffusionPipeline) -> bool:
        return bool(control_networks(pipeline))

    def __call__(self, run: UNetPass) -> dict[str, Any]:
        progress = self._schedule.moment(run.sigma).progress
        found = [
            _residuals(network, run, picture, control.strength * self._beta, control.detached)
            for control, network, picture in zip(self._controls, self.networks, self._pictures, strict=True)
            if control.start <= progress < control.end and control.strength * self._beta != 0
        ]
        if not found:
            return {}
        down, middle = zip(*found, strict=True)
        return {
            "down_block_additional_residuals": [sum(level) for level in zip(*down, strict=True)],
            "mid_block_additional_residual": sum(middle),
        }


def with_controlnets(pipeline: DiffusionPipeline, *networks: ControlNetModel) -> DiffusionPipeline:
    """A pipeline of the same models with these ControlNets; nothing is copied.

    Raises BranchMismatchError for a ControlNet of another family.
    """
    for network in networks:
        check_control(network, pipeline.unet)
    is_sdxl = hasattr(pipeline, "text_encoder_2")
    kind = StableDiffusionXLControlNetPipeline if is_sdxl else StableDiffusionControlNetPipeline
    own = {"add_watermarker": False} if is_sdxl else {"requires_safety_checker": False}
    wanted = signature(kind).parameters
    parts = {name: part for name, part in pipeline.components.items() if name in wanted}
    return kind(**parts, **own, controlnet=networks[0] if len(networks) == 1 else list(networks))


def control_networks(pipeline: DiffusionPipeline) -> list[nn.Module]:
    """The pipeline's ControlNets, none for a pipeline without. Raises RealCompoError for a kind that is not read."""
    network = getattr(pipeline, "controlnet", None)
    networks = list(network.nets) if isinstance(network, MultiControlNetModel) else [network] if network else []
    for network in networks:
        if not isinstance(network, ControlNetModel):
            raise RealCompoError(
                f"{type(network).__name__} is not supported: load one ControlNetModel, or several of them"
            )
    return networks


def check_control(network: ControlNetModel, unet: nn.Module) -> None:
    """Raises BranchMismatchError for a ControlNet of another family than the UNet's."""
    for name, what in FAMILY.items():
        own, wanted = (_comparable(model.config.get(name)) for model in (network, unet))
        if own != wanted:
            raise BranchMismatchError(
                f"the ControlNet is made for {what} {own}, the UNet of its pipeline for {wanted}: load a ControlNet of "
                "the model's family (SD1.x, SD2.x and SDXL have each their own)"
            )


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _residuals(
    network: nn.Module, run: UNetPass, picture: Tensor, strength: float, detached: bool
) -> tuple[list[Tensor], Tensor]:
    """What the ControlNet adds to the UNet's skip connections, and to its middle block."""
    repeated = picture.repeat(len(run.sample) // len(picture), 1, 1, 1)
    text = run.text["encoder_hidden_states"].to(network.dtype)
    added = {key: run.text[key] for key in ("added_cond_kwargs",) if key in run.text}  # SDXL's
    with torch.no_grad() if detached else nullcontext():
        sample = run.sample.to(network.dtype)
        return network(sample, run.timestep, text, repeated, strength, **added, return_dict=False)


def _prepared(control: Control, pipeline: DiffusionPipeline, request: Request) -> Tensor:
    """(B, 3, height, width) in 0..1."""
    height, width = request.size
    picture, count = control.picture, len(request.prompts)
    if callable(picture):
        pictures = [picture(layout, (width, height)) for layout in request.layouts]
    else:
        pictures = [picture] * count if isinstance(picture, Image.Image) else list(picture)
    if len(pictures) != count:
        raise RealCompoError(f"{len(pictures)} control pictures for {count} prompts: give one, or one a prompt")
    for found in pictures:
        aspect = (found.width / found.height) / (width / height)
        if not 1 / (1 + ASPECT_TOLERANCE) < aspect < 1 + ASPECT_TOLERANCE:
            raise RealCompoError(
                f"the control picture has {found.width}x{found.height} pixels, and {width}x{height} are sampled: it "
                "would be distorted. Crop it to the same aspect, or sample another size"
            )
    process = pipeline.control_image_processor.preprocess
    return torch.cat([process(found.convert("RGB"), height=height, width=width) for found in pictures])
