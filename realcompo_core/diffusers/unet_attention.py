"""The cross-attention layers of diffusers' UNets, as a source of attention events."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from torch import nn

from ..attention.projections import ProjectionSource
from ..attention.source import Layer
from ..errors import RealCompoError

_PLACE = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2")
_PARTS = {"down": "encoder", "mid": "middle", "up": "decoder"}


class UNetAttention(ProjectionSource):
    """A UNet2DConditionModel's layers. Raises RealCompoError for a network that is built in another way."""

    def __init__(self, unet: nn.Module):
        modules = dict(unet.named_modules())
        layers = _walk(unet)
        if not layers:
            raise RealCompoError(
                f"{type(unet).__name__} has no cross-attention layers by the names of a diffusers UNet"
            )
        fused = [layer.name for layer in layers if getattr(modules[layer.name], "fused_projections", False)]
        if fused:
            raise RealCompoError(
                f"{type(unet).__name__} has fused projections ({fused[0]}), whose queries and keys cannot be read: "
                "call unfuse_qkv_projections() on the pipeline first"
            )
        super().__init__({layer: modules[layer.name] for layer in layers})

    def choose(self, layers: int | str) -> list[Layer]:
        """Layers for balancing, in the order in which they run.

        layers: a number (all encoder and decoder layers whose maps are that many times smaller than the latent, per
        side; the default is 4, see docs/method.md, R4) or a regular expression that is searched in their names. Raises
        RealCompoError if it matches none.
        """
        if isinstance(layers, str):
            chosen = [layer for layer in self.layers if re.search(layers, layer.name)]
        else:
            chosen = [layer for layer in self.layers if layer.part != "middle" and layer.downsampling == layers]
        if not chosen:
            raise RealCompoError(
                f"layers={layers!r} matches none of this UNet's cross-attention layers: "
                f"{', '.join(layer.name for layer in self.layers)}"
            )
        return chosen


def _walk(unet: nn.Module) -> Sequence[Layer]:
    """The UNet's cross-attention layers, in the order in which they run."""
    by_part: dict[str, list[Layer]] = defaultdict(list)
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for name, module in unet.named_modules():
        place = _PLACE.fullmatch(name)
        if place:
            part, level, number, depth = place.groups()
            deepest = len(unet.config.block_out_channels) - 1
            halvings = {"down": int(level or 0), "mid": deepest, "up": deepest - int(level or 0)}[part]
            block = part if part == "mid" else f"{part} {level}.{number}"
            order = numbers[part].setdefault(block, len(numbers[part]))
            by_part[part].append(Layer(name, block, _PARTS[part], order, int(depth), 2**halvings, module.heads))
    return [layer for part in _PARTS for layer in by_part[part]]
