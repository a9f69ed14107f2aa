"""An exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class ExponentialMovingAverage:
    """The exponential moving average (EMA) of `parameters`, which `update` takes up after each optimizer step.

    It starts as the parameters are. The n-th update (n = 1, 2, ...) sets

        average = decay_n * average + (1 - decay_n) * parameter,  decay_n = min(decay, n / (n + 9))

    (docs/method.md, T5), so early averages follow the parameters closely (decay_1 = 0.1, decay_9 = 0.5), and `decay` is
    reached after 9 decay / (1 - decay) updates. `decay` is from 0 to below 1.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self._parameters, self._decay, self._updates = list(parameters), decay, 0
        self._values = [p.detach().clone() for p in parameters]

    def update(self) -> None:
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        torch._foreach_lerp_(self._values, [p.detach() for p in self._parameters], 1 - decay)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self._updates, "values": self._values}

    def load(self, state: dict[str, Any]) -> None:
        self._updates = state["steps"]
        torch._foreach_copy_(self._values, [v.to(p) for v, p in zip(state["values"], self._values, strict=True)])

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        torch._foreach_copy_(self._parameters, self._values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters are the average; afterwards they are what they were."""
        own = [p.detach().clone() for p in self._parameters]
        self.copy_to_parameters()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, own)
