"""Cross-attention of noun tokens, recorded with gradient while a network trains.

Layers keep their own attention, however fused. Beside it, the queries and keys that their projections give make the
softmax columns of the wanted tokens, and nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from realcompo_core.attention.reading import map_size


class MapRecorder:
    """Records the attention columns of some cross-attention modules in a training step.

    layers: modules with `to_q`, `to_k` and `heads` (diffusers' Attention, ComfyUI's CrossAttention), by name. Nothing
    is replaced, so that attention processors, LoRA layers and compilation stay as they are.

        recorder = MapRecorder({"mid": unet.mid_block.attentions[0].transformer_blocks[0].attn2})
        with recorder.recording(targets.columns, latent_size) as maps:
            output = unet(...)
            loss_of(output, maps).backward()  # maps["mid"]: (B, heads, C, h, w)

    The backward pass belongs inside: with gradient checkpointing (torch's non-reentrant form) it repeats parts of the
    forward pass, in which nothing is recorded again.
    """

    def __init__(self, layers: Mapping[str, nn.Module]):
        self._layers = dict(layers)

    @contextmanager
    def recording(self, columns: Tensor, latent_size: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        """columns: (B, C) token indices; latent_size: (height, width). Yields the dictionary that the maps go to."""
        maps: dict[str, Tensor] = {}
        queries: dict[str, Tensor] = {}

        def keep_query(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            queries[name] = output

        def read(name: str, heads: int, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (queries.pop(name), output))
            again = name in maps  # a checkpoint's repetition: only what autograd keeps of it is wanted
            found = token_columns(q, k, columns, compute=not again)
            if not again:
                maps[name] = found.unflatten(-1, map_size(found.shape[-1], latent_size))

        hooks = []
        for name, layer in self._layers.items():
            hooks.append(layer.to_q.register_forward_hook(partial(keep_query, name)))
            hooks.append(layer.to_k.register_forward_hook(partial(read, name, layer.heads)))
        try:
            yield maps
        finally:
            for hook in hooks:
                hook.remove()


def token_columns(q: Tensor, k: Tensor, columns: Tensor, compute: bool = True) -> Tensor:
    """Columns of softmax(q kᵀ / √d), those of each item's own tokens, in fp32.

    q: (B, heads, n, d); k: (B, heads, T, d); columns: (B, C) token indices. Returns (B, heads, C, n), left empty
    without `compute`.
    """
    return _Columns.apply(q, k, columns, compute)


class _Columns(torch.autograd.Function):
    """Plain autograd would keep the scores of all tokens; here they are computed again in the backward pass."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, columns: Tensor, compute: bool) -> Tensor:
        ctx.save_for_backward(q, k, columns)
        if not compute:
            return q.new_empty(len(q), q.shape[1], columns.shape[1], q.shape[2], dtype=torch.float32)
        return _softmax(q, k).gather(-1, _index(columns, q)).mT.contiguous()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        q, k, columns = ctx.saved_tensors
        p, index = _softmax(q, k), _index(columns, q)
        weighted = p.gather(-1, index) * grad.mT
        scores = p.mul_(-weighted.sum(-1, keepdim=True)).scatter_add_(-1, index, weighted)  # p ⊙ (g − Σ g p)
        scores = scores.mul_(q.shape[-1] ** -0.5).to(q.dtype)
        return scores @ k, scores.mT @ q, None, None


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """(B, heads, n, T) in fp32, also under autocast."""
    with torch.autocast(q.device.type, enabled=False):
        return (q.float() @ k.float().mT).mul_(q.shape[-1] ** -0.5).softmax(-1)


def _index(columns: Tensor, q: Tensor) -> Tensor:
    return columns[:, None, None].expand(-1, *q.shape[1:3], -1)
