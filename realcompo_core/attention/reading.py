"""The gradient of a loss on attention maps in the latent, from one network pass (docs/method.md, R5)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from .columns import attention_columns
from .input_gradients import InputGradientsOnly
from .losses import MapLoss, grounding_loss, object_maps
from .source import AttentionEvent
from .targets import Targets

LOSS_SCALE = 1024  # the gradient is about 1e-6: in fp16 it would underflow on its way


class StopForward(Exception):
    """Raised out of a network pass once its last wanted map has been read."""


class Gradient(NamedTuple):
    """One branch's maps, their losses, and the gradient of the losses in the latent.

    `g`: (B, C, h, w), the gradient of the summed losses in x. `losses`: (B, G). `maps`: (B, G, H, W), one an object.
    """

    g: Tensor
    losses: Tensor
    maps: Tensor


class GradientReader:
    """Subscribes to one network pass and differentiates the loss once the last of `layers` maps has been read.

    The graph is freed at that moment: what follows in the network runs without gradient, or not at all (`stop`).
    Use it as a context manager around the pass, which must start from `reader.x`.
    """

    def __init__(self, x: Tensor, targets: Targets, layers: int, stop: bool, loss: MapLoss = grounding_loss):
        self.x = x.detach().requires_grad_(True)
        self.gradient: Gradient | None = None
        self._targets, self._layers, self._stop, self._loss = targets, layers, stop, loss
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
        columns = attention_columns(event.q, event.k[:, :, event.text], self._targets.columns, event.scale)
        self._maps[event.layer.name] = columns.unflatten(-1, event.grid)
        if len(self._maps) < self._layers:
            return
        losses, maps = self._loss(self._maps, self._targets), object_maps(self._maps, self._targets)
        (g,) = torch.autograd.grad(LOSS_SCALE * losses.sum(), self.x)
        self.gradient = Gradient(g / LOSS_SCALE, losses.detach(), maps.detach())
        self._maps.clear()
        if self._stop:
            raise StopForward
        torch.set_grad_enabled(False)
