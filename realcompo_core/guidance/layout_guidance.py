"""Layout Guidance (Chen et al. 2024): a model follows a layout because its latent is moved until its attention does.

See docs/method.md, R9. The loss is `attention.losses.layout_guidance_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..attention.losses import Objective, layout_guidance_loss
from ..attention.reading import Gradient
from ..attention.source import Layer
from ..attention.targets import Targets
from ..errors import RealCompoError
from ..layout import Layout
from .schedule import Moment


@dataclass(frozen=True)
class LayoutGuidance:
    """Settings of Layout Guidance; the defaults are the authors'.

    scale: what the loss is multiplied by. threshold: a step's moves end once the loss, as it was before the last of
    them, is not above it. iterations: the most moves in a step. until: share of the steps, from the start, in which the
    latent moves. reset: each step starts as if the loss were above the threshold. Without it, as in the authors' code,
    the first loss that is not above the threshold ends guidance for good. scale_steps: the number of steps that `scale`
    is for; in n steps each move is scale_steps / n times as far, so that few moves go as far as many. None: `scale` is
    for any number.
    """

    scale: float = 30.0
    threshold: float = 0.2
    iterations: int = 5
    until: float = 10 / 51
    reset: bool = True
    scale_steps: int | None = None

    name: ClassVar[str] = "Layout Guidance"

    def __post_init__(self):
        if not 0 <= self.until <= 1:
            raise RealCompoError(f"until is {self.until}: it is a share of the steps, from 0 to 1")
        if self.iterations < 1:
            raise RealCompoError(f"iterations is {self.iterations}: it counts moves of the latent, from 1 up")
        for name in ("scale", "threshold"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise RealCompoError(f"{name} is {getattr(self, name)}: it is a number from 0 up")

    def over(self, steps: int) -> LayoutGuidance:
        """The same for a run of so many steps, whose scale is for any number."""
        if self.scale_steps is None:
            return self
        return replace(self, scale=self.scale * self.scale_steps / steps, scale_steps=None)

    def seen(self, layout: Layout) -> Layout:
        return layout

    def objective(self, layers: Sequence[Layer], chosen: Sequence[Layer], targets: Targets) -> Objective:
        return Objective(guidance_layers(layers) or chosen, targets, layout_guidance_loss)

    def guide(self, steps: int, movable: Tensor | None = None) -> LayoutGuide:
        return LayoutGuide(self.over(steps), movable)

    def told(self, whose: str) -> str:
        moves = "one move" if self.iterations == 1 else f"up to {self.iterations} moves"
        scale = f"scale {self.scale:g}" + (f" for {self.scale_steps} steps" if self.scale_steps else "")
        return f"{moves} of {whose} latent a step until {self.until:.0%} of them, {scale}"


class LayoutGuide:
    """Moves the latent of one run: x ← x − scale · σ² · ∂L/∂x, each item of the batch by its own loss.

    The rule is the same for x = signal + σ · noise and for flow matching's x (docs/method.md, R18).
    movable: (B or 1, 1, h, w), how much of each pixel may move; None for all.
    """

    def __init__(self, settings: LayoutGuidance, movable: Tensor | None = None):
        self._settings, self._movable = settings, movable
        self._above: Tensor | None = None  # (B,): the items whose loss is above the threshold; None: not known yet

    def due(self, moment: Moment, answers: Sequence[Gradient]) -> bool:
        if answers:
            above = answers[-1].losses.sum(1) > self._settings.threshold
            self._above = above if self._above is None else self._above & above
        elif self._settings.reset:
            self._above = None
        early = moment.progress < self._settings.until and self._settings.scale > 0
        return early and len(answers) < self._settings.iterations and (self._above is None or bool(self._above.any()))

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        step = self._settings.scale * moment.sigma**2 * gradient
        if self._above is not None:
            step = step * self._above.to(step)[:, None, None, None]
        if self._movable is not None:
            step = step * self._movable.to(step)
        return variable - step


def guidance_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Those whose maps Layout Guidance reads, in their order: the middle and the first decoder level with attention.

    In SD1.5 these are 8×8 and three times 16×16 for a 64×64 latent. Networks of joint attention have none of them.
    """
    first = next((layer.downsampling for layer in layers if layer.part == "decoder"), None)
    return [
        layer for layer in layers if layer.part == "middle" or (layer.part == "decoder" and layer.downsampling == first)
    ]
