"""Training in many processes by Hugging Face accelerate, whose configuration says how (DDP, FSDP)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as sharded

from .runtime import Runtime

WHOLE = sharded.StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
WHOLE_TO_ALL = sharded.StateDictOptions(
    full_state_dict=True, broadcast_from_rank0=True, ignore_frozen_params=True, strict=False
)


class AccelerateRuntime(Runtime):
    """One of the processes. Their checkpoints have the form of a single process's, but for FSDP's optimizer state."""

    def __init__(self, precision: str = "fp32", accelerator: Accelerator | None = None):
        self._accelerator = accelerator or Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision))
        super().__init__(precision, self._accelerator.device)
        self._scaler = self._accelerator.scaler or self._scaler
        self.rank, self.processes = self._accelerator.process_index, self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process
        self._is_sharded = self._accelerator.distributed_type == DistributedType.FSDP

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

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if not self._is_sharded:
            return super().state(self._accelerator.unwrap_model(network), optimizer.optimizer)
        weights, moments = sharded.get_state_dict(network, optimizer.optimizer, options=WHOLE)
        return {"network": weights, "optimizer": moments, "scaler": self._scaler.state_dict()}

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        if not self._is_sharded:
            return super().load(self._accelerator.unwrap_model(network), optimizer.optimizer, state)
        sharded.set_state_dict(
            network,
            optimizer.optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=WHOLE_TO_ALL,
        )
        self._scaler.load_state_dict(state["scaler"])
