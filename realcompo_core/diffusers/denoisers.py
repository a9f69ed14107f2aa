"""The networks of diffusers, each called in one way whatever its family: UNets, SD3's transformer and Flux's."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

from ..attention.source import AttentionSource
from .joint_attention import JointAttention
from .unet_attention import UNetAttention


class Denoiser(Protocol):
    """A network. channels: of its latents. patch: side in latent pixels, of which a latent's sides are multiples.

    has_guidance: whether the guidance scale is an input of the network.
    """

    family: str
    has_guidance: bool
    network: nn.Module
    channels: int
    patch: int

    def __call__(self, x: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        """The raw output at latents x, (B, C, h, w), and a timestep without dimensions, with text arguments."""

    def source(self) -> AttentionSource:
        """Where its attention to the text is read."""

    def text_behind(self, arguments: dict[str, Any]) -> int | None:
        """The number of text tokens, if joint attention has them behind the picture's (see `masked_attention`)."""


class UNetDenoiser:
    """SD1.x, SD2.x, SDXL."""

    family, patch, has_guidance = "UNet", 1, False

    def __init__(self, network: nn.Module):
        self.network, self.channels = network, network.config.in_channels

    def __call__(self, x: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        return self.network(x, timestep, **arguments, return_dict=False)[0]

    def source(self) -> UNetAttention:
        return UNetAttention(self.network)

    def text_behind(self, arguments: dict[str, Any]) -> int | None:
        return None


class SD3Denoiser:
    """Stable Diffusion 3's MMDiT."""

    family, has_guidance = "SD3", False

    def __init__(self, network: SD3Transformer2DModel):
        self.network = network
        self.channels, self.patch = network.config.in_channels, network.config.patch_size

    def __call__(self, x: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        return self.network(x, timestep=timestep.expand(len(x)), **arguments, return_dict=False)[0]

    def source(self) -> JointAttention:
        return JointAttention(self.network, self.patch, text_first=False, starts=1)  # of CLIP

    def text_behind(self, arguments: dict[str, Any]) -> int | None:
        return arguments["encoder_hidden_states"].shape[1]


class FluxDenoiser:
    """Flux.1, whose latents are packed in patches of 2x2, and whose guidance is an input."""

    family, patch = "Flux", 2

    def __init__(self, network: FluxTransformer2DModel):
        self.network, self.channels = network, network.config.in_channels // 4
        self.has_guidance = network.config.guidance_embeds

    def __call__(self, x: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Tensor:
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        packed = x.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        places = torch.zeros(rows, columns, 3, device=x.device)
        places[..., 1] += torch.arange(rows, device=x.device)[:, None]
        places[..., 2] += torch.arange(columns, device=x.device)
        text = arguments["encoder_hidden_states"]
        output = self.network(
            packed,
            timestep=timestep.expand(len(x)) / 1000,
            img_ids=places.flatten(0, 1).to(x.dtype),
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            **arguments,
            return_dict=False,
        )[0]
        patches = output.unflatten(1, (rows, columns)).unflatten(3, (self.channels, 2, 2))
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def source(self) -> JointAttention:
        return JointAttention(self.network, self.patch, text_first=True, starts=0)

    def text_behind(self, arguments: dict[str, Any]) -> int | None:
        return None


KINDS = {SD3Transformer2DModel: SD3Denoiser, FluxTransformer2DModel: FluxDenoiser}


def network_of(pipeline: DiffusionPipeline) -> nn.Module:
    """A pipeline's UNet or transformer."""
    return pipeline.unet if getattr(pipeline, "unet", None) is not None else pipeline.transformer


def denoiser_of(network: nn.Module) -> Denoiser:
    return next((kind(network) for known, kind in KINDS.items() if isinstance(network, known)), UNetDenoiser(network))
