"""Cross-attention maps of a running network, and the gradient of a loss on them.

Only the columns of the wanted tokens are kept; the network's own attention stays as fused as it was. Nothing here knows
a host: an adapter calls `MapReader.read(q, k)` from wherever its network computes queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .input_gradients import FrozenNetwork

LOSS_SCALE = 1024  # the gradient is about 1e-6: in fp16 it would underflow on its way


class StopForward(Exception):
    """Raised out of a network pass once its last wanted map has been read."""


class Gradient(NamedTuple):
    """What one branch's maps say.

    `g`: (B, C, h, w) gradient of the summed loss in x. `losses`: (B, G). `maps`: (B, G, H, W).
    """

    g: Tensor
    losses: Tensor
    maps: Tensor


def attention_columns(q: Tensor, k: Tensor, columns: Sequence[int], scale: float | None = None) -> Tensor:
    """The wanted columns of softmax(q kᵀ · scale), averaged over heads, in fp32.

    q: (B, heads, n, d); k: (B, heads, T, d); columns: token indices. `scale` defaults to 1/sqrt(d).
    Returns (B, len(columns), n): for each token, how much each of the n pixels attends to it.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) * scale @ k.to(wide).mT
    picked = scores[..., list(columns)] - scores.logsumexp(-1, keepdim=True)
    return picked.exp().mean(1).mT


def map_size(pixels: int, latent_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a map of `pixels` cells; `latent_size` (height, width) is halved level by level."""
    height, width = latent_size
    while height * width > pixels:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != pixels:
        raise ValueError(f"an attention map of {pixels} cells does not belong to a latent of {latent_size}")
    return height, width


def token_maps(layers: Sequence[Tensor]) -> Tensor:
    """The mean of several layers' maps, each token's renormalised to sum to 1 over the pixels.

    layers: (B, T, H, W) each. Maps of unlike resolution are brought to the finest one.
    """
    size = max((layer.shape[-2:] for layer in layers), key=lambda s: s[0] * s[1])
    mean = sum(m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in layers) / len(layers)
    return mean / mean.sum((-2, -1), keepdim=True)


def grounding_loss(maps: Tensor, regions: Tensor) -> Tensor:
    """1 − the share of each object's attention inside its region (method equation 5, one branch).

    maps: (B, G, H, W); regions: (B or 1, G, H, W) in 0..1. Returns (B, G) in 0..1.
    """
    return 1 - (maps * regions).sum((-2, -1)) / maps.sum((-2, -1))


class Objective:
    """Equation 5 for one branch: which token columns to read, which of them make up an object, where each should be.

    Each item of the batch has its own objects: `groups[b]` lists the token indices of each of its G_b token groups and
    `regions[b](height, width)` gives their (G_b, height, width) region maps. One item alone serves a whole batch.
    """

    def __init__(self, groups: Sequence[Sequence[Sequence[int]]], regions: Sequence[Callable[[int, int], Tensor]]):
        self.columns = sorted({token for item in groups for group in item for token in group})
        size = max(len(item) for item in groups)
        self._mean = torch.zeros(len(groups), size, len(self.columns))
        for b, item in enumerate(groups):
            for g, group in enumerate(item):
                self._mean[b, g, [self.columns.index(token) for token in group]] = 1 / len(group)
        self._present = self._mean.sum(-1) > 0
        self._regions = cache(lambda height, width: _stack([region(height, width) for region in regions]))

    def __call__(self, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """layers: (B, len(columns), H, W) each. Returns losses (B, G) and object maps (B, G, H, W); 0 for no object."""
        tokens = token_maps(layers)
        maps = torch.einsum("bgt,bthw->bghw", self._mean.to(tokens).expand(len(tokens), -1, -1), tokens)
        present = self._present.to(tokens.device)
        filled = maps + (~present)[..., None, None]  # an absent object's map must not divide by zero
        return grounding_loss(filled, self._regions(*maps.shape[-2:]).to(maps)) * present, maps


def _stack(items: Sequence[Tensor]) -> Tensor:
    """(B, G, H, W) from (G_b, H, W) each, filled up with zeros."""
    stacked = items[0].new_zeros(len(items), max(len(item) for item in items), *items[0].shape[1:])
    for b, item in enumerate(items):
        stacked[b, : len(item)] = item
    return stacked


class MapReader:
    """Reads the maps of one network pass and differentiates `objective` once the last of `layers` maps has been read.

    The graph is freed at that moment: what follows in the network runs without gradient, or not at all (`stop`).
    Use it as a context manager around the pass, which must start from `reader.x`.
    """

    def __init__(self, x: Tensor, objective: Objective, layers: int, stop: bool):
        self.x = x.detach().requires_grad_(True)
        self.gradient: Gradient | None = None
        self._objective, self._layers, self._stop = objective, layers, stop
        self._maps: list[Tensor] = []

    def __enter__(self) -> MapReader:
        self._modes = ExitStack()
        self._modes.enter_context(torch.enable_grad())
        self._modes.enter_context(FrozenNetwork())
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._modes.close()
        self._maps.clear()
        return kind is StopForward

    def read(self, q: Tensor, k: Tensor, scale: float | None = None) -> None:
        """Take one layer's queries (B, heads, n, d) and keys (B, heads, T, d)."""
        if self.gradient is not None:
            return
        columns = attention_columns(q, k, self._objective.columns, scale)
        self._maps.append(columns.unflatten(-1, map_size(columns.shape[-1], tuple(self.x.shape[-2:]))))
        if len(self._maps) < self._layers:
            return
        losses, maps = self._objective(self._maps)
        (g,) = torch.autograd.grad(LOSS_SCALE * losses.sum(), self.x)
        self.gradient = Gradient(g / LOSS_SCALE, losses.detach(), maps.detach())
        self._maps.clear()
        if self._stop:
            raise StopForward
        torch.set_grad_enabled(False)
