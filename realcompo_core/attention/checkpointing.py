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
    first = _FirstPass(forward)
    try:
        result = checkpoint(
            first,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), modes()),
            **kwargs,
        )
        if first.error is not None:
            raise first.error
        return result
    finally:
        first.error = None  # it holds this call, and all that the pass had computed


class _FirstPass:
    """`forward`, which in its first call keeps an error instead of raising it.

    `checkpoint` of torch 2.11 and older leaves its hooks in force when the first pass raises, until the error is thrown
    away; meanwhile they take what other networks save for their backward passes.
    """

    def __init__(self, forward: Callable[..., Tensor]):
        self._forward, self._called = forward, False
        self.error: BaseException | None = None

    def __call__(self, *args, **kwargs) -> Tensor | None:
        if self._called:
            return self._forward(*args, **kwargs)
        self._called = True
        try:
            return self._forward(*args, **kwargs)
        except BaseException as error:
            self.error = error
            return None


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
