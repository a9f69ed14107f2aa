"""Layers of the host's UNets that keep only their input for the backward pass, and are computed again in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn
from torch.utils.checkpoint import checkpoint


def feed_forward(network: nn.Module) -> list[nn.Module]:
    return [block.ff for block in _transformers(network)]


def residual_and_self_attention(network: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = [layer for layer in network.modules() if isinstance(layer, ResBlock)]
    return found + [block.attn1 for block in _transformers(network)]


@contextmanager
def recomputed(modules: Sequence[nn.Module], modes: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """Inside, `modules` are recomputed, in `modes()`: those of the first pass are not in force then."""
    own = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = partial(_checkpointed, modes, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _transformers(network: nn.Module) -> list[nn.Module]:
    layers = [layer for layer in network.modules() if isinstance(layer, SpatialTransformer)]
    return [block for layer in layers for block in layer.transformer_blocks]


def _checkpointed(modes: Callable[[], AbstractContextManager], forward: Callable, *args, **kwargs):
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), modes()),
        **kwargs,
    )
