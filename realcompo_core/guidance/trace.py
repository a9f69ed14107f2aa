"""Trace: what the balancer saw and did, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class TraceStep:
    """One evaluation. B batch, K branches, G objects, h×w latent, H×W map. All tensors are on the CPU.

    `weights`: (B, K, h, w), sum to 1 over K. `coefficients`: the same before the softmax; None while weights are fixed.
    `losses`: (B, K, G), `gradient`: (B, K) largest |∂L/∂x| and `maps`: (B, K, G, H, W); None where no map was read.
    """

    index: int
    sigma: float
    weights: Tensor
    coefficients: Tensor | None = None
    losses: Tensor | None = None
    gradient: Tensor | None = None
    maps: Tensor | None = None


@dataclass
class Trace:
    """All steps of one run. `phrases`: one list of G phrases an item. `note`: what the user should know, or empty."""

    branches: tuple[str, ...]
    phrases: list[list[str]] = field(default_factory=list)
    steps: list[TraceStep] = field(default_factory=list)
    note: str = ""

    def clear(self) -> None:
        """As before the run."""
        self.phrases, self.steps, self.note = [], [], ""

    @property
    def read_steps(self) -> list[TraceStep]:
        """The steps at which maps were read."""
        return [step for step in self.steps if step.maps is not None]
