"""The joint attention of diffusers' SD3 and Flux, as a source of attention events (docs/method.md, R18)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..attention.source import AttentionEvent, Layer, NetworkPass, Subscriber
from ..errors import RealCompoError

USUAL_DEPTH = 1 / 3  # of the blocks, where the one that is read by default lies
DOT_PRODUCT = F.scaled_dot_product_attention
BLOCKS = {"transformer_blocks": "joint", "single_transformer_blocks": "single"}


class JointAttention:
    """A transformer's blocks, in the order in which they run. patch: side in latent pixels.

    text_first: whether the text's tokens stand before the picture's in the joint sequence. starts: how many of the
    text's first tokens stand for no word. What a block attends with is seen where it calls torch's scaled dot product,
    whatever its attention processor is.
    """

    def __init__(self, network: nn.Module, patch: int, text_first: bool, starts: int):
        self._text_first, self._starts = text_first, starts
        blocks = [
            (f"{kind} {i}", block)
            for name, kind in BLOCKS.items()
            for i, block in enumerate(getattr(network, name, ()))
        ]
        self._blocks = {
            Layer(name, name, "joint", number, 0, patch, block.attn.heads): block
            for number, (name, block) in enumerate(blocks)
        }
        self.layers = tuple(self._blocks)

    def choose(self, layers: int | str) -> list[Layer]:
        """Layers for balancing: one at a third of the depth for any number, or those whose names a pattern is found in.

        The gradient goes through all blocks up to the last one that is read. Raises RealCompoError if none matches.
        """
        if not isinstance(layers, str):
            return [self.layers[round(USUAL_DEPTH * (len(self.layers) - 1))]]
        chosen = [layer for layer in self.layers if re.search(layers, layer.name)]
        if not chosen:
            names = ", ".join(layer.name for layer in self.layers)
            raise RealCompoError(f"layers={layers!r} matches none of this transformer's blocks: {names}")
        return chosen

    def before(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """The blocks that run before the last of these layers and are none of them."""
        read = set(layers)
        last = max((layer.number for layer in read), default=0)
        return [block for layer, block in self._blocks.items() if layer.number < last and layer not in read]

    @contextmanager
    def emitting(self, read: Subscriber, running: NetworkPass, layers: Iterable[Layer] | None = None) -> Iterator[None]:
        """Inside, `layers` (None for all) emit to `read`. `running` may be changed between two passes.

        Raises RealCompoError for an attention backend that does not use torch's scaled dot product.
        """
        seen = _Seen(read, running, self._text_first, self._starts)
        hooks = []
        for layer in self.layers if layers is None else layers:
            attention = self._blocks[layer].attn
            hooks.append(attention.register_forward_pre_hook(partial(seen.begin, layer)))
            hooks.append(attention.register_forward_hook(seen.end))
        try:
            with seen:
                yield
        finally:
            for hook in hooks:
                hook.remove()


def queries_and_keys(args: tuple, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Of a call of DOT_PRODUCT."""
    named = dict(zip(("query", "key"), args, strict=False)) | given
    return named["query"], named["key"]


class _Seen(TorchFunctionMode):
    """Emits what the attention of a block that has begun computes with."""

    def __init__(self, read: Subscriber, running: NetworkPass, text_first: bool, starts: int):
        super().__init__()
        self._read, self._running, self._text_first, self._starts = read, running, text_first, starts
        self._layer: Layer | None = None

    def begin(self, layer: Layer, module: nn.Module, inputs: tuple) -> None:
        self._layer = layer

    def end(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        if self._layer is not None:
            layer, self._layer = self._layer, None
            raise RealCompoError(
                f"the attention of block {layer.name} cannot be read: its backend is not torch's scaled dot product. "
                "Call set_attention_backend('native') on the transformer"
            )

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), given: dict | None = None) -> Any:
        given = given or {}
        if function is DOT_PRODUCT and self._layer is not None:
            layer, self._layer = self._layer, None
            q, k = queries_and_keys(args, given)
            self._emit(layer, q, k, given.get("attn_mask"))
        return function(*args, **given)

    def _emit(self, layer: Layer, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
        running, grid = self._running, layer.grid(self._running.latent_size)
        picture = grid[0] * grid[1]
        text = k.shape[2] - picture
        cells = slice(text, None) if self._text_first else slice(0, picture)
        tokens = slice(0, text) if self._text_first else slice(picture, None)
        if mask is not None:
            mask = mask.expand(*mask.shape[:-2], q.shape[2], k.shape[2])[..., cells, :]
        scale = q.shape[-1] ** -0.5
        size = len(q) // len(running.conditionings)
        for i, name in enumerate(running.conditionings):
            if name is not None:
                rows = slice(i * size, (i + 1) * size)
                own = mask if mask is None or mask.ndim < 4 or len(mask) == 1 else mask[rows]
                event = layer, name, q[rows, :, cells], k[rows], scale, tokens, grid, running.stage, own
                self._read(AttentionEvent(*event, self._starts))
