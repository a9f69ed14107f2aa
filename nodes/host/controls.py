"""ControlNets on conditionings, as the host chains them: each has the one before it in `previous_controlnet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def chain(control: Any) -> Iterator[Any]:
    """A conditioning's `control` and all before it; nothing for None."""
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)


def detached(conditioning: Sequence[dict]) -> list[dict]:
    """The conditionings of a pass with gradient, with ControlNets whose output is a constant to it."""
    proxies = {id(entry["control"]): Detached(entry["control"]) for entry in conditioning if entry.get("control")}
    return [
        {**entry, "control": proxies[id(entry["control"])]} if entry.get("control") else entry for entry in conditioning
    ]


class Detached:
    """A ControlNet of the host, run without gradient. All else is the ControlNet's own."""

    def __init__(self, control: Any):
        self._control = control

    def get_control(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self._control.get_control(x.detach(), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)
