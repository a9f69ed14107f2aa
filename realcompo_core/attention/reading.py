"""The gradient of a loss on attention maps in the latent, from one network pass (docs/method.md, R5)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from ..text.tokens import text_columns
from .columns import attention_columns
from .input_gradients import InputGradientsOnly
from .losses import Objective, object_maps
from .source import AttentionEvent

LOSS_SCALE = 1024  # the gradient is about 1e-6: in fp16 it would underflow on its way


class StopForward(Exception):
    """Raised out of a network pass once its last wanted map has been read."""


class Gradient(NamedTuple):
    """One branch's maps, their losses, and the gradient of the losses in the latent.

    `g`: (B, C, h, w), the gradient of the summed losses in x. `losses`: (B, G), or (B, n·G) of a loss with n parts.
    `maps`: (B, G, H, W), one an object.
    """

    g: Tensor
    losses: Tensor
    maps: Tensor


class GradientReader:
    """Subscribes to one network pass and differentiates the objective's loss once its last layer has been read.

    The graph is freed at that moment: what follows in the network runs without gradient, or not at all (`stop`).
    Use it as a context manager around the pass, which must start from `reader.x`.
    """

    def __init__(self, x: Tensor, objective: Objective, stop: bool):
        self.x = x.detach().requires_grad_(True)
        self.gradient: Gradient | None = None
        self._objective, self._stop = objective, stop
        self._targets = objective.targets
        self._maps: dict[str, Tensor] = {}

    def __enter__(self) -> GradientReader:
        self._modes = ExitStack()
        self._modes.enter_context(torch.enable_grad())
        self._modes.enter_context(InputGradientsOnly())
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._modes.close()
        self._maps.clear()
        return kind is StopForward

    def read(self, event: AttentionEvent) -> None:
        if self.gradient is not None or event.layer.name in self._maps:  # gradient checkpointing runs a layer again
            return
        asked, k, mask = self._objective, event.k, event.mask
        first, last, _ = event.text.indices(k.shape[2])
        if asked.whole_text:  # its words compete with each other, not with the picture
            k, mask = k[:, :, first:last], mask if mask is None else mask[..., first:last]
            if not self._maps:
                self._targets = asked.targets.among(_words(event, last - first))
            first = 0
        columns = attention_columns(event.q, k, self._targets.columns + first, event.scale, mask=mask)
        self._maps[event.layer.name] = columns.unflatten(-1, event.grid)
        if len(self._maps) < len(asked.layers):
            return
        losses = asked.loss(self._maps, self._targets)
        (g,) = torch.autograd.grad(LOSS_SCALE * losses.sum(), self.x)
        with torch.no_grad():
            maps = object_maps(self._maps, self._targets)
        self.gradient = Gradient(g / LOSS_SCALE, losses.detach(), maps)
        self._maps.clear()
        if self._stop:
            raise StopForward
        torch.set_grad_enabled(False)


def _words(event: AttentionEvent, tokens: int) -> list[int]:
    """Which of so many tokens of the text compete in losses of the whole text: all but those that stand for no word."""
    return text_columns(tokens) if event.starts is None else list(range(event.starts, tokens))
