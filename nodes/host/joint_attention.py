"""The joint attention of SD3 and Flux, as a source of attention events: how much the picture attends to the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from torch import Tensor

from realcompo_core.attention.source import AttentionEvent, Layer, NetworkPass, Subscriber

from .chunks import conditioning_rows


class JointAttention:
    """One event for each block that runs: the picture's queries, all keys, and which of them are the text's."""

    def __init__(self, network: Flux | MMDiT):
        if isinstance(network, Flux):
            kinds = {"double": len(network.double_blocks), "single": len(network.single_blocks)}
            heads = network.num_heads
        else:
            kinds = {"joint": len(network.joint_blocks)}
            heads = network.joint_blocks[0].x_block.attn.num_heads
        names = [(kind, i) for kind, count in kinds.items() for i in range(count)]
        self.layers = tuple(
            Layer(f"{kind} {i}", f"{kind} {i}", "joint", number, 0, network.patch_size, heads)
            for number, (kind, i) in enumerate(names)
        )
        self._keys = {  # how the host numbers the blocks for patches: SD3's are double blocks to it
            layer: (f"{'single' if kind == 'single' else 'double'}_block", i)
            for layer, (kind, i) in zip(self.layers, names, strict=True)
        }

    def patched(
        self,
        transformer_options: dict[str, Any],
        read: Subscriber,
        running: NetworkPass,
        names: Callable[[dict], list[str | None]],
        layers: Iterable[Layer],
    ) -> dict[str, Any]:
        """The options of a pass in which `layers` emit to `read`. What others have put around attention stays there.

        names: which conditioning each of the equal parts of a batch is, from the options of the pass.
        """
        emission = _Emission(read, running, names(transformer_options))
        replacements = {**transformer_options.get("patches_replace", {})}
        blocks = {**replacements.get("dit", {})}
        for layer in layers:
            blocks[self._keys[layer]] = partial(emission.run_block, layer, blocks.get(self._keys[layer]))
        other = transformer_options.get("optimized_attention_override")
        return {
            **transformer_options,
            "patches_replace": {**replacements, "dit": blocks},
            "optimized_attention_override": partial(emission.attend, other),
        }


class _Emission:
    """The patches of one pass."""

    def __init__(self, read: Subscriber, running: NetworkPass, names: list[str | None]):
        self._read, self._running, self._names, self._text = read, running, names, slice(0, running.text_length)
        self._layer: Layer | None = None  # the block that runs and has not attended yet

    def run_block(self, layer: Layer, other: Callable | None, args: dict, extra: dict) -> dict:
        self._layer = layer
        try:
            return extra["original_block"](args) if other is None else other(args, extra)
        finally:
            self._layer = None

    def attend(
        self, other: Callable | None, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **given
    ) -> Tensor:
        split = given.get("skip_reshape", False)
        wide_q, wide_k = (t if split else t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        layer, first = self._layer, self._text.stop
        if layer is not None:
            grid = layer.grid(self._running.latent_size)
            last = first + grid[0] * grid[1]
            if wide_k.shape[2] >= last:  # in some layers of SD3.5 the picture also looks at itself alone
                self._layer = None
                for name, rows in conditioning_rows(self._names, len(q)):
                    own_q, scale = wide_q[rows, :, first:last], wide_q.shape[-1] ** -0.5
                    self._read(
                        AttentionEvent(layer, name, own_q, wide_k[rows], scale, self._text, grid, self._running.stage)
                    )
        if other is not None:
            return other(function, q, k, v, heads, *args, **given)
        return function(q, k, v, heads, *args, **given)
