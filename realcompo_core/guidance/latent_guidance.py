"""Methods that move a branch's latent before its network runs (docs/method.md, R9 and R12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..attention.losses import Objective
from ..attention.source import Layer
from ..attention.targets import Targets
from ..layout import Layout
from .branch import Branch, GuidedBranch
from .guide import Guide
from .schedule import Schedule


class LatentGuidance(Protocol):
    """Settings of a method that moves the latent down the gradient of a loss on attention maps.

    name: what it is called in messages. scale: what the loss is multiplied by; 0 moves nothing.
    """

    name: str
    scale: float

    def seen(self, layout: Layout) -> Layout:
        """The layout with those objects at whose words the method looks."""

    def objective(self, layers: Sequence[Layer], chosen: Sequence[Layer], targets: Targets) -> Objective:
        """What is asked of the maps. layers: all of the branch. chosen: those that the balancer reads."""

    def guide(self, steps: int, movable: Tensor | None = None) -> Guide:
        """The rule of one run of so many steps. movable: (B or 1, 1, h, w), how much each pixel may move; None: all."""

    def told(self, whose: str) -> str:
        """The settings in words, for reports. whose: the latent's owner, such as "the spatial branch's"."""


def with_guidance(
    branch: Branch,
    guidance: LatentGuidance | None,
    layers: Sequence[Layer],
    chosen: Sequence[Layer],
    targets: Targets | None,
    schedule: Schedule,
    movable: Tensor | None = None,
) -> Branch:
    """The branch with this guidance; as it is where there is none, or nothing to look at. Arguments as above."""
    if guidance is None or targets is None:
        return branch
    guide = guidance.guide(schedule.steps, movable)
    return GuidedBranch(branch, guide, guidance.objective(layers, chosen, targets), schedule, guidance.name)
