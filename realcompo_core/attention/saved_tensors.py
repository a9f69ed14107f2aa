"""Backward passes through networks that write into what autograd has kept for them.

PyTorch has `torch.autograd.graph.allow_mutation_on_saved_tensors` for this. It tells tensors by addresses, which are
given to others once a tensor is gone, and does not see a write into the memory of a view that begins elsewhere: up to
torch 2.13 it gives wrong gradients in both cases, mostly without an error. Here memory is told by its storage, which
lives for as long as a tensor in it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def keep_saved_tensors() -> Iterator[None]:
    """Inside, what autograd keeps stays as it was: before anything is written into its memory, it is copied.

    The forward and the backward pass belong inside. Every call of torch is watched, which takes time.
    """
    writes = _Writes()
    with saved_tensors_hooks(writes.keep, lambda kept: kept.tensor), writes:
        yield


class _Kept:
    """A tensor that autograd keeps, for as long as its graph lives."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class _Writes(TorchDispatchMode):
    """Copies what is kept in a storage before a call writes into that storage."""

    def __init__(self):
        super().__init__()
        self.kept_by_storage: dict[int, WeakSet[_Kept]] = {}

    def keep(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        self.kept_by_storage.setdefault(_storage(tensor), WeakSet()).add(kept)
        return kept

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in written if isinstance(written, (list, tuple)) else [written]:
                    if tensor is not None:
                        self._copy_kept_in(_storage(tensor))
        return func(*args, **kwargs)

    def _copy_kept_in(self, storage: int) -> None:
        for kept in self.kept_by_storage.pop(storage, ()):
            kept.tensor = kept.tensor.detach().clone()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
