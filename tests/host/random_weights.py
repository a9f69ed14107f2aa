"""Random weights for networks of the host. Import it after the host's own `comfy.options`."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.gligen
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

OPEN_GATE = 0.5  # of GLIGEN's gated layers; their files are trained from 0, where boxes have no effect


def randomise(shapes: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Values for a state dict's shapes: layers keep the size of signals; norms are near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in shapes.items():
        value = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            value *= tensor[0].numel() ** -0.5
        elif name.endswith((".alpha_attn", ".alpha_dense")):
            value = value * 0.1 + OPEN_GATE
        elif name.endswith(".weight"):
            value = value * 0.1 + 1
        else:
            value *= 0.1
        weights[name] = value.half()
    return weights


def prefixed(prefix: str, state: Mapping) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def gated_layers(unet: UNetModel, width: int) -> dict:
    """Shapes of a GLIGEN file for all of the UNet's transformers; `width`: of the text that it reads."""
    shapes = prefixed("position_net.", comfy.gligen.PositionNet(width, width).state_dict())
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock):
            size = block.attn1.to_q.in_features
            layer = comfy.gligen.GatedSelfAttentionDense(size, width, n_heads=1, d_head=size)
            shapes |= prefixed(f"{name}.fuser.", layer.state_dict())
    return shapes
