"""The attention source of a MODEL of the host."""

from __future__ import annotations

from typing import Any

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel
from torch import nn

from realcompo_core.errors import RealCompoError

from .transformer_attention import JointAttention, VideoAttention
from .unet_attention import UNetAttention

HostAttention = UNetAttention | JointAttention | VideoAttention
JOINT = (Flux, MMDiT, QwenImageTransformer2DModel)
SOURCES = {UNetModel: UNetAttention, WanModel: VideoAttention, **dict.fromkeys(JOINT, JointAttention)}
STAGE = "realcompo_stage"  # in the transformer options of a pass


def attention_source(model: Any) -> HostAttention:
    """Raises RealCompoError for a network whose attention is not known, or that has none to its text."""
    return attention_of(model.get_model_object("diffusion_model"))


def attention_of(network: nn.Module) -> HostAttention:
    """`attention_source` of a network."""
    for kind, source in SOURCES.items():
        if isinstance(network, kind):
            found = source(network)
            break
    else:
        raise RealCompoError(
            "model: attention is read in UNets (SD1.x, SD2.x, SDXL), SD3, Flux, Qwen-Image and Wan, and this model is "
            f"a {type(network).__name__}"
        )
    if not found.layers:
        raise RealCompoError("model: this network has no cross-attention, so that there is nothing to read")
    return found


def cross_attention(model: Any, method: str) -> UNetAttention:
    """The attention source of a UNet. Raises RealCompoError for other networks, where `method` has no meaning."""
    source = attention_source(model)
    if not isinstance(source, UNetAttention):
        network = type(model.get_model_object("diffusion_model")).__name__
        raise RealCompoError(
            f"{method} changes the cross-attention of a UNet (SD1.x, SD2.x, SDXL), and this model is a {network}: take "
            "a UNet checkpoint"
        )
    return source


def is_lookahead(transformer_options: dict) -> bool:
    """Whether a pass only reads maps for the balancer, and is no step's own."""
    return transformer_options.get(STAGE) == "lookahead"
