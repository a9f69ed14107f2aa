"""Gradient checkpointing of single modules: they keep only their input, and run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(
    forward: Callable[..., Tensor], modes: Callable[[], AbstractContextManager] = nullcontext
) -> Callable[..., Tensor]:
    """`forward` with gradient checkpointing.

    Torch's function modes around the first pass are not in force in the second, which runs in `modes()`.
    """
    return partial(_run, modes, forward)


def _run(modes: Callable[[], AbstractContextManager], forward: Callable[..., Tensor], *args, **kwargs) -> Tensor:
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


@contextmanager
def swapped_forwards(forwards: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Inside, each module's `forward` is the one given; afterwards its former one, offloading hooks included."""
    own = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in own.items():
            del module.forward
            if forward is not None:
                module.forward = forward
