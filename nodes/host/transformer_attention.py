"""The attention of transformers to the text, as a source of events: SD3, Flux, Qwen-Image, and Wan's video models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel
from torch import Tensor, nn

from realcompo_core.attention.regional import padded
from realcompo_core.attention.source import AttentionEvent, Layer, NetworkPass, Subscriber
from realcompo_core.errors import RealCompoError

from .chunks import conditioning_rows

REGIONS = "realcompo_regions"  # in the transformer options of a pass: which tokens may attend to which
USUAL_DEPTH = 1 / 3  # of the blocks, where the one that is read by default lies


class _Emission:
    """The patches of one pass through joint attention."""

    def __init__(self, read: Subscriber, running: NetworkPass, names: Callable[[dict], list[str | None]], starts: int):
        self._read, self._running, self._names_of, self._starts = read, running, names, starts
        self._text = slice(0, running.text_length)
        self._names: list[str | None] = []
        self._layer: Layer | None = None  # the block that runs and has not attended to the text yet
        self._mask: Tensor | None = None

    def run_block(self, layer: Layer, other: Callable | None, args: dict, extra: dict) -> dict:
        options = args["transformer_options"]
        self._layer, self._names, self._mask = layer, self._names_of(options), options.get(REGIONS)
        try:
            return extra["original_block"](args) if other is None else other(args, extra)
        finally:
            self._layer = None

    def attend(
        self, other: Callable | None, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **given
    ) -> Tensor:
        if self._layer is not None:
            split = given.get("skip_reshape", False)
            self._see(*(t if split else t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)))
        if other is not None:
            return other(function, q, k, v, heads, *args, **given)
        return function(q, k, v, heads, *args, **given)

    def _see(self, q: Tensor, k: Tensor) -> None:
        """q, k: (B, heads, n, d) of an attention; in some layers of SD3.5 the picture also looks at itself alone."""
        grid, first = self._grid(), self._text.stop
        last = first + math.prod(grid)
        if k.shape[2] >= last:
            mask = None if self._mask is None else padded(self._mask, k.shape[2])[first:last]
            self._emit(q[:, :, first:last], k, self._text, grid, mask)

    def _grid(self) -> tuple[int, int]:
        height, width = self._layer.grid(self._running.latent_size)
        return self._running.frames * height, width

    def _emit(self, q: Tensor, k: Tensor, text: slice, grid: tuple[int, int], mask: Tensor | None) -> None:
        layer, self._layer = self._layer, None
        of_all = q.shape[-1] ** -0.5, text, grid, self._running.stage, mask, self._starts
        for name, rows in conditioning_rows(self._names, len(q)):
            self._read(AttentionEvent(layer, name, q[rows], k[rows], *of_all))


class _VideoEmission(_Emission):
    """The patches of one pass through blocks in which the picture looks at itself, then at the text."""

    def run_block(self, layer: Layer, other: Callable | None, args: dict, extra: dict) -> dict:
        self._looked_at_itself = False
        return super().run_block(layer, other, args, extra)

    def _see(self, q: Tensor, k: Tensor) -> None:
        """Of models that start from a picture, there are keys of that picture before those of the text."""
        grid = self._grid()
        if self._looked_at_itself and k.shape[2] == self._text.stop:
            if q.shape[2] != math.prod(grid):
                raise RealCompoError(
                    "the attention of Wan with reference pictures cannot be read: take them off its conditioning"
                )
            self._emit(q, k, self._text, grid, None)
        self._looked_at_itself = True


class TransformerAttention:
    """One event for each block that runs."""

    _emission: type[_Emission]

    def __init__(self, network: nn.Module):
        self._starts = int(isinstance(network, MMDiT))  # the text's first tokens that stand for no word: CLIP's start
        blocks, heads, patch = self._parts(network)
        places = [(kind, i) for kind, found in blocks.items() for i in range(len(found))]
        self.layers = tuple(
            Layer(f"{kind} {i}", f"{kind} {i}", "joint", number, 0, patch, heads)
            for number, (kind, i) in enumerate(places)
        )
        parts = list(zip(self.layers, places, strict=True))
        self._blocks = {layer: blocks[kind][i] for layer, (kind, i) in parts}
        self._keys = {  # how the host numbers the blocks for patches: those of one kind are double blocks to it
            layer: (f"{'single' if kind == 'single' else 'double'}_block", i) for layer, (kind, i) in parts
        }

    def _parts(self, network: nn.Module) -> tuple[dict[str, Any], int, int]:
        """Blocks by their kind, in the order in which they run, heads, and the side of a patch in latent pixels."""
        raise NotImplementedError

    def choose(self, downsampling: int = 0) -> list[Layer]:
        """Blocks for balancing, in the order in which they run: one at a third of the depth for 0, else all.

        The gradient goes through all blocks up to the last one that is read. downsampling: how many times smaller than
        the latent the maps are to be, per side. Raises RealCompoError for a size that the network does not have.
        """
        size = self.layers[0].downsampling
        if downsampling not in (0, size):
            raise RealCompoError(
                f"attention layers at 1/{downsampling} of the latent's side: all maps of this network have 1/{size}. "
                f"Take 0 (one block) or {size} (all {len(self.layers)} blocks)"
            )
        return [self.layers[round(USUAL_DEPTH * (len(self.layers) - 1))]] if downsampling == 0 else list(self.layers)

    def read_blocks(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """The blocks of these layers: the gradient is taken while they run, so that they cannot be checkpointed."""
        return [self._blocks[layer] for layer in layers]

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
        emission = self._emission(read, running, names, self._starts)
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


class JointAttention(TransformerAttention):
    """SD3, Flux, Qwen-Image: the picture's queries, all keys, and which of them are the text's."""

    _emission = _Emission

    def _parts(self, network: Flux | MMDiT | QwenImageTransformer2DModel) -> tuple[dict[str, Any], int, int]:
        if isinstance(network, Flux):
            blocks = {"double": network.double_blocks, "single": network.single_blocks}
            return blocks, network.num_heads, network.patch_size
        if isinstance(network, QwenImageTransformer2DModel):
            found = network.transformer_blocks
            return {"joint": found}, found[0].num_attention_heads, network.patch_size
        return {"joint": network.joint_blocks}, network.joint_blocks[0].x_block.attn.num_heads, network.patch_size


class VideoAttention(TransformerAttention):
    """Wan: the video's queries, and the text's keys alone, as of a UNet."""

    _emission = _VideoEmission

    def _parts(self, network: WanModel) -> tuple[dict[str, Any], int, int]:
        return {"block": network.blocks}, network.num_heads, network.patch_size[-1]
