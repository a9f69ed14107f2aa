"""The attention source of a MODEL of the host."""

from __future__ import annotations

from typing import Any

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from realcompo_core.errors import RealCompoError

from .joint_attention import JointAttention
from .unet_attention import UNetAttention

SOURCES = {UNetModel: UNetAttention, Flux: JointAttention, MMDiT: JointAttention}
STAGE = "realcompo_stage"  # in the transformer options of a pass


def attention_source(model: Any) -> UNetAttention | JointAttention:
    """Raises RealCompoError for a network whose attention is not known, or that has none to its text."""
    network = model.get_model_object("diffusion_model")
    for kind, source in SOURCES.items():
        if isinstance(network, kind):
            found = source(network)
            break
    else:
        raise RealCompoError(
            f"model: attention is read in UNets (SD1.x, SD2.x, SDXL), SD3 and Flux, and this model is a "
            f"{type(network).__name__}"
        )
    if not found.layers:
        raise RealCompoError("model: this network has no cross-attention, so that there is nothing to read")
    return found


def is_lookahead(transformer_options: dict) -> bool:
    """Whether a pass only reads maps for the balancer, and is no step's own."""
    return transformer_options.get(STAGE) == "lookahead"
