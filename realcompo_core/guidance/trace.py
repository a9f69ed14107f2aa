"""Trace: weights, losses and maps of a balanced run, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class TraceStep:
    """One evaluation. B batch, K branches, G objects, h×w latent, H×W map. When the run has ended, all are on the CPU.

    `index` is the step's number, from 0; `sigma` the noise level of this evaluation.
    `weights`: (B, K, h, w), sum to 1 over K. `coefficients`: (B, K, h, w), whose softmax the weights are; None while
    weights are fixed.
    `losses`: (B, K, G), `gradient`: (B, K) largest |∂L/∂x| and `maps`: (B, K, G, H, W); None where no map was read.
    All three are NaN for a branch whose maps were not read.
    `moves`: (B, K), the root mean square of what each branch's guide moved the latent by; None where no guide did.
    """

    index: int
    sigma: float
    weights: Tensor
    coefficients: Tensor | None = None
    losses: Tensor | None = None
    gradient: Tensor | None = None
    maps: Tensor | None = None
    moves: Tensor | None = None

    def on_cpu(self) -> TraceStep:
        tensors = {name: value.cpu() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


@dataclass
class Trace:
    """One run. `steps` has every evaluation, in the order in which they happened; `by_step` has one for each step.

    phrases: for each item of the batch, a phrase for each of its G maps. note: what the user should know, or empty.
    objects: for each item, the indices of the layout's objects that share each map; without it, map g is object g's.
    sources: the branches whose maps are to be read; None for all. guides: by the branch, what moves its latent.
    """

    branches: tuple[str, ...]
    phrases: list[list[str]] = field(default_factory=list)
    steps: list[TraceStep] = field(default_factory=list)
    note: str = ""
    objects: list[list[list[int]]] = field(default_factory=list)
    sources: tuple[int, ...] | None = None
    guides: dict[str, str] = field(default_factory=dict)

    @property
    def by_step(self) -> list[TraceStep]:
        """One entry for each step, in their order: the last evaluation of a step counts.

        Heun and PLMS evaluate the level of the next step before they are there, DPM-2 a level between the two; the last
        evaluation is the one from which the step is made. Maps are read once a step: where an earlier evaluation read
        them, its losses, gradient and maps are the step's; so are its moves where the last one has none.
        """
        last: dict[int, TraceStep] = {}
        for step in self.steps:
            before = last.get(step.index)
            if step.maps is None and before is not None:
                step = replace(step, losses=before.losses, gradient=before.gradient, maps=before.maps)
            if step.moves is None and before is not None:
                step = replace(step, moves=before.moves)
            last[step.index] = step
        return [last[index] for index in sorted(last)]

    def clear(self) -> None:
        """Forget a run: everything but the branches' names is emptied."""
        self.phrases, self.steps, self.note, self.objects = [], [], "", []

    @property
    def read_steps(self) -> list[TraceStep]:
        """The entries of `by_step` at which maps were read."""
        return [step for step in self.by_step if step.maps is not None]
