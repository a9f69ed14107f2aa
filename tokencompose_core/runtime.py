"""The process and device of a training run: precision, gradients, checkpoints. For many processes: `distributed.py`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Runtime:
    """One process on one device. `precision` is that of the network's computations; weights keep their own."""

    rank, processes, is_main = 0, 1, True

    def __init__(self, precision: str = "fp32", device: torch.device | str = "cpu"):
        self.device, self._dtype = torch.device(device), DTYPES[precision]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return network, optimizer

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager:
        """Around each batch of a step; gradients are exchanged in the last one."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()

    def clip(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, most: float) -> float:
        """Scale gradients to a norm of at most `most`; returns the norm before, without the scale of fp16's scaler."""
        self._scaler.unscale_(optimizer)
        return float(nn.utils.clip_grad_norm_(parameters, most))

    @property
    def skips_step(self) -> bool:
        """Whether `step` leaves out a step whose gradient is not finite: fp16's scaler does, and lowers its scale.

        At a scale of 1 or less it is not the scale that makes gradients overflow.
        """
        return self._scaler.is_enabled() and self._scaler.get_scale() > 1

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.step(optimizer)
        self._scaler.update()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def any(self, value: bool) -> bool:
        """Whether `value` holds in at least one process."""
        return value

    def state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """What a checkpoint needs of trained weights, optimizer and gradient scaler."""
        weights = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        return {"network": weights, "optimizer": optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        network.load_state_dict(state["network"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
