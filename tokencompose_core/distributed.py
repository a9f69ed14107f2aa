"""Training in many processes by Hugging Face accelerate: each has the whole network (DDP)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from realcompo_core.errors import RealCompoError

from .runtime import Runtime

SHARDING = {  # what divides a network among processes, and how accelerate is told
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
}


class AccelerateRuntime(Runtime):
    """One of the processes. Their checkpoints have the form of a single process's.

    device: "cpu", or None for what accelerate chooses. Raises RealCompoError for another device, and where accelerate
    is configured to divide the network: averages of weights and files of the trained model need all of it.
    """

    def __init__(self, precision: str = "fp32", device: str | None = None):
        for name, variable in SHARDING.items():
            if os.environ.get(variable, "false").lower() in ("true", "1"):
                raise RealCompoError(
                    f"accelerate is configured for {name}, which divides the network among processes: not supported. "
                    "Take `accelerate launch --multi_gpu`, where each process has the whole network; "
                    "a LoRA, gradient checkpointing and bf16 save memory"
                )
        self._accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision), cpu=device == "cpu")
        super().__init__(precision, self._accelerator.device)
        if device not in (None, self.device.type):
            raise RealCompoError(
                f"device is {device!r}: of several processes each takes its own, here {self.device}. Leave it out, or "
                "choose 'cpu'"
            )
        self._scaler = self._accelerator.scaler or self._scaler
        self.rank, self.processes = self._accelerator.process_index, self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return self._accelerator.prepare(network, optimizer)

    def autocast(self) -> AbstractContextManager:
        return self._accelerator.autocast()

    def accumulating(self, network: nn.Module, last: bool) -> AbstractContextManager:
        return nullcontext() if last else self._accelerator.no_sync(network)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, most: float) -> float:
        return float(self._accelerator.clip_grad_norm_(parameters, most))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()  # accelerate's wrapper knows the gradient scaler

    def sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values.to(self.device), "sum").cpu()

    def any(self, value: bool) -> bool:
        return bool(self.sum(torch.tensor([float(value)])).item())

    def state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return super().state(self._accelerator.unwrap_model(network), optimizer.optimizer)

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        super().load(self._accelerator.unwrap_model(network), optimizer.optimizer, state)
