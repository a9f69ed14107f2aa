"""An attention source for modules with `to_q` and `to_k`, such as those of diffusers and of ComfyUI's UNets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from .source import AttentionEvent, Layer, NetworkPass, Subscriber


class ProjectionSource:
    """Emits the queries and keys of attention modules, by forward hooks on their projections.

    modules: with `to_q`, `to_k`, `heads` and optionally `scale`, by layer. Nothing is replaced, so that attention
    processors, LoRA layers and compilation stay as they are. Events come once a layer's keys are there, before it
    attends. A layer that gradient checkpointing runs again emits again.
    """

    def __init__(self, modules: Mapping[Layer, nn.Module]):
        self._modules = dict(modules)
        self.layers = tuple(self._modules)

    @contextmanager
    def emitting(self, read: Subscriber, running: NetworkPass, layers: Iterable[Layer] | None = None) -> Iterator[None]:
        """Inside, `layers` (None for all) emit to `read`. `running` may be changed between two passes."""
        hooks, queries = [], {}

        def keep_query(layer: Layer, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            queries[layer] = output

        def emit(layer: Layer, attention: nn.Module, module: nn.Module, inputs: tuple, output: Tensor) -> None:
            split = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (queries.pop(layer), output))
            q, k = (t.chunk(len(running.conditionings)) for t in split)
            scale = getattr(attention, "scale", k[0].shape[-1] ** -0.5)
            for conditioning, own_q, own_k in zip(running.conditionings, q, k, strict=True):
                if conditioning is not None:
                    text, grid = slice(0, own_k.shape[2]), layer.grid(running.latent_size, own_q.shape[2])
                    read(AttentionEvent(layer, conditioning, own_q, own_k, scale, text, grid, running.stage))

        for layer in self.layers if layers is None else layers:
            attention = self._modules[layer]
            hooks.append(attention.to_q.register_forward_hook(partial(keep_query, layer)))
            hooks.append(attention.to_k.register_forward_hook(partial(emit, layer, attention)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
