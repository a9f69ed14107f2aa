"""Branches: the diffusion models that are balanced."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..attention.losses import Objective
from ..attention.reading import Gradient
from .guide import Answers, Guide
from .schedule import Schedule


def branch_names(count: int) -> list[str]:
    """What the branches are called in traces, reports and messages."""
    if count == 1:
        return ["guided"]
    return ["fidelity", *("spatial" if count == 2 else f"spatial {k}" for k in range(1, count))]


class Branch(Protocol):
    """One diffusion model with its conditioning.

    D is guided: classifier-free guidance is the branch's own (docs/method.md, R8).
    """

    name: str
    conditional: Tensor | None
    """Its estimate without guidance, (B, C, h, w), of the newest `denoise`; None where that is not known."""

    def acts_at(self, sigma: float) -> bool:
        """Whether the branch has anything to say at noise level sigma. Where it has not, it is not run."""

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        """The latent that the branch goes on from instead of x: x itself, unless the branch has a guide (R9)."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D of x (B, C, h, w) at noise level sigma."""

    def gradient(self, x: Tensor, sigma: float, objective: Objective | None = None) -> Gradient | None:
        """The maps at x and their loss's gradient in x; the network is run no further than it must.

        objective: the branch's own where None is given. None where there is nothing to read: no conditioning of the
        whole picture acts at this noise level, or a step cache had the network skipped.
        """

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient | None]:
        """What `denoise` and `gradient` give at x, in the network passes that `denoise` needs anyway."""


class GuidedBranch:
    """A branch with a guide of its own, which moves the latent down the gradient of an objective of its own (R9).

    While the guide is due, maps are read and the latent moves; what is denoised is the moved latent. guided_by: what
    the guide is called in reports.
    """

    def __init__(
        self,
        branch: Branch,
        guide: Guide,
        objective: Objective,
        schedule: Schedule,
        guided_by: str = "Layout Guidance",
    ):
        self.name, self.guided_by, self._branch = branch.name, guided_by, branch
        self.acts_at, self.denoise, self.gradient = branch.acts_at, branch.denoise, branch.gradient
        self.denoise_with_gradient = branch.denoise_with_gradient
        self._guide, self._objective, self._schedule = guide, objective, schedule
        self._answers = Answers()

    @property
    def conditional(self) -> Tensor | None:
        return self._branch.conditional

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        moment = self._schedule.moment(sigma)
        answers = self._answers.at(moment)
        while self._guide.due(moment, answers):
            found = self.gradient(x, sigma, self._objective)
            if found is None:
                break
            answers.append(found)
            x = self._guide.move(x, found.g, moment)
        return x
