"""Branches: the diffusion models that are balanced."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..attention.reading import Gradient
from .guide import Guide
from .schedule import Schedule


def branch_names(count: int) -> list[str]:
    """What the branches are called in traces, reports and messages."""
    return ["fidelity", *("spatial" if count == 2 else f"spatial {k}" for k in range(1, count))]


class Branch(Protocol):
    """One diffusion model with its conditioning.

    D is guided: classifier-free guidance is the branch's own (docs/method.md, R8).
    """

    name: str

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D of x (B, C, h, w) at noise level sigma."""

    def gradient(self, x: Tensor, sigma: float) -> Gradient:
        """The maps at x and their loss's gradient in x; the network is run no further than it must."""

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        """What `denoise` and `gradient` give at x, in the network passes that `denoise` needs anyway."""


class GuidedBranch:
    """A branch with a guide of its own, which moves the latent that its network is shown.

    While the guide is due, the branch's maps are read at x and x is moved; D is that of the moved latent. The balancer
    and the other branches see x as it was, and so does the sampler (docs/method.md, R9).
    """

    def __init__(self, branch: Branch, guide: Guide, schedule: Schedule):
        self.name = branch.name
        self._branch, self._guide, self._schedule = branch, guide, schedule

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        return self._branch.denoise(self._moved(x, sigma), sigma)

    def gradient(self, x: Tensor, sigma: float) -> Gradient:
        return self._branch.gradient(x, sigma)

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        return self._branch.denoise_with_gradient(self._moved(x, sigma), sigma)

    def _moved(self, x: Tensor, sigma: float) -> Tensor:
        moment, answers = self._schedule.moment(sigma), []
        while self._guide.due(moment, answers):
            answers.append(self._branch.gradient(x, sigma))
            x = self._guide.move(x, answers[-1].g, moment)
        return x
