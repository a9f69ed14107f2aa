"""The cross-attention layers of the host's UNets."""

from __future__ import annotations

from typing import NamedTuple

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch import nn


class CrossAttention(NamedTuple):
    """Where a layer is, as the host numbers it for patches: `part` is "input", "middle" or "output".

    name: of its module in the UNet. factor: how many times smaller than the latent its maps are.
    """

    part: str
    number: int
    depth: int
    name: str
    factor: int
    heads: int

    @property
    def block(self) -> tuple[str, int, int]:
        """The key of its patches."""
        return self.part, self.number, self.depth


def cross_attention(unet: UNetModel) -> list[CrossAttention]:
    """In the order in which they run."""
    found: list[CrossAttention] = []
    factor = 1
    middle = unet.middle_block or nn.Module()  # some have none
    for part, blocks in (("input", unet.input_blocks), ("middle", [middle]), ("output", unet.output_blocks)):
        for number, block in enumerate(blocks):
            path = f"{part}_block" if part == "middle" else f"{part}_blocks.{number}"
            for name, layer in block.named_modules(prefix=path):
                if isinstance(layer, Downsample) or (isinstance(layer, ResBlock) and layer.updown and part == "input"):
                    factor *= 2
                elif isinstance(layer, Upsample):
                    factor //= 2
                elif isinstance(layer, SpatialTransformer):
                    found += [
                        CrossAttention(
                            part, number, depth, f"{name}.transformer_blocks.{depth}.attn2", factor, transformer.n_heads
                        )
                        for depth, transformer in enumerate(layer.transformer_blocks)
                    ]
    return found
