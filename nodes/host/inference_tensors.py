"""Autograd over what the host made in inference mode.

Nodes run under `torch.inference_mode`, and autograd refuses the tensors that were made there: weights, conditionings.
Each is replaced by a normal tensor on the same memory for the time of a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


@contextmanager
def usable_weights(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, autograd may use the networks' weights and buffers. They are put back whatever happens."""
    replaced = []
    try:
        for network in networks:
            for module in network.modules():
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        if tensor is not None and tensor.is_inference():
                            replaced.append((tensors, name, tensor))
                            tensors[name] = usable(tensor)
        yield
    finally:
        for tensors, name, tensor in replaced:
            tensors[name] = tensor


class UsableTensors(TorchFunctionMode):
    """Inside, the arguments of every torch call are usable: conditionings, weights that are in no module."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*tree_map(usable, args), **tree_map(usable, kwargs or {}))


def usable(value):
    """A normal tensor on the memory of an inference tensor; any other value as it is."""
    if not isinstance(value, Tensor) or not value.is_inference():
        return value
    alias = torch.empty(0, dtype=value.dtype, device=value.device)
    alias.set_(value.untyped_storage(), value.storage_offset(), value.size(), value.stride())
    return nn.Parameter(alias, requires_grad=False) if isinstance(value, nn.Parameter) else alias
