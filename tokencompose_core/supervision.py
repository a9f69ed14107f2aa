"""The attention of noun tokens, kept with gradient while a network trains: a subscriber of an attention source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from realcompo_core.attention.columns import attention_columns
from realcompo_core.attention.projections import ProjectionSource
from realcompo_core.attention.source import AttentionEvent, Layer, NetworkPass


class SupervisedAttention:
    """The attention columns of some layers in a training step.

    Layers keep their own attention, however fused; beside it, the softmax columns of the wanted tokens are computed.

        supervised = SupervisedAttention(source, source.layers)
        with supervised.recording(targets.columns, latent_size) as maps:
            output = unet(...)
            loss_of(output, maps).backward()  # maps[layer.name]: (B, heads, C, h, w)

    The backward pass belongs inside: with gradient checkpointing (torch's non-reentrant form) it repeats parts of the
    forward pass, in which nothing is recorded again.
    """

    def __init__(self, source: ProjectionSource, layers: Sequence[Layer]):
        self._source, self.layers = source, list(layers)

    @contextmanager
    def recording(self, columns: Tensor, latent_size: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        """columns: (B, C) token indices; latent_size: (height, width). Yields the dictionary that the maps go to."""
        maps: dict[str, Tensor] = {}

        def read(event: AttentionEvent) -> None:
            again = event.layer.name in maps  # a checkpoint's repetition: only what autograd keeps of it is wanted
            found = attention_columns(event.q, event.k[:, :, event.text], columns, event.scale, compute=not again)
            if not again:
                maps[event.layer.name] = found.unflatten(-1, event.grid)

        with self._source.emitting(read, NetworkPass(latent_size), self.layers):
            yield maps
