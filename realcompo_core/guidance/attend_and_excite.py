"""Attend-and-Excite (Chefer et al. 2023) and BoxDiff (Xie et al. 2023): a latent is moved until words are attended to.

See docs/method.md, R12. The losses are in `attention/excitation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..attention.excitation import attend_and_excite_loss, boxdiff_loss
from ..attention.losses import MapLoss, Objective
from ..attention.reading import Gradient
from ..attention.source import Layer
from ..attention.targets import Targets
from ..errors import RealCompoError
from ..layout import Layout, LayoutObject
from .schedule import Moment

EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Excitation:
    """Settings that both methods have; the defaults are the authors'.

    scale: what the loss is multiplied by; it falls to scale · √½ until the last step. until: share of the steps, from
    the start, in which the latent moves. refinements: (share of the steps, attention) pairs. At the step that is so far
    from the start the latent moves on until each object's attention is that high: the largest there is, or with BoxDiff
    the mean of the largest fifth inside of its region. In a run of few steps several may fall on one: the last holds.
    most: the most of these additional moves in a step.
    """

    scale: float = 20.0
    until: float = 0.5
    refinements: tuple[tuple[float, float], ...] = ((0.0, 0.05), (0.2, 0.5), (0.4, 0.8))
    most: int = 20

    name: ClassVar[str]
    loss: ClassVar[MapLoss]
    parts: ClassVar[int] = 1
    """Of each object's loss; the first of them decides on refinements."""

    def __post_init__(self):
        if not 0 <= self.until <= 1:
            raise RealCompoError(f"until is {self.until}: it is a share of the steps, from 0 to 1")
        if not 0 <= self.scale < float("inf"):
            raise RealCompoError(f"scale is {self.scale}: it is a number from 0 up")
        if self.most < 0:
            raise RealCompoError(f"most is {self.most}: it counts moves of the latent, from 0 up")
        for pair in self.refinements:
            if len(pair) != 2 or not all(0 <= number <= 1 for number in pair):
                raise RealCompoError(
                    f"refinements has {pair}: each is a share of the steps and an attention, both from 0 to 1"
                )

    def seen(self, layout: Layout) -> Layout:
        return layout

    def objective(self, layers: Sequence[Layer], chosen: Sequence[Layer], targets: Targets) -> Objective:
        return Objective(chosen, targets, self.loss, whole_text=True)

    def guide(self, steps: int, movable: Tensor | None = None) -> ExcitingGuide:
        return ExcitingGuide(self, steps, movable)

    def told(self, whose: str) -> str:
        wanted = ", ".join(f"{attention:g} at {share:.0%}" for share, attention in self.refinements)
        refined = f", refined to an attention of {wanted}" if wanted else ""
        return f"moves of {whose} latent until {self.until:.0%} of the steps, scale {self.scale:g}{refined}"


@dataclass(frozen=True)
class AttendAndExcite(Excitation):
    """Settings of Attend-and-Excite. words: what is looked at, phrases of the prompt; None: the layout's objects."""

    words: tuple[str, ...] | None = None

    name: ClassVar[str] = "Attend-and-Excite"
    loss: ClassVar[MapLoss] = staticmethod(attend_and_excite_loss)

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.words, str):
            raise RealCompoError(f"words is {self.words!r}: give a tuple of phrases, such as ('a cat', 'a frog')")

    def seen(self, layout: Layout) -> Layout:
        if self.words is None:
            return layout
        return replace(layout, objects=tuple(LayoutObject(phrase, EVERYWHERE) for phrase in self.words))


@dataclass(frozen=True)
class BoxDiff(Excitation):
    """Settings of BoxDiff, which looks at the layout's objects in their boxes or masks."""

    name: ClassVar[str] = "BoxDiff"
    loss: ClassVar[MapLoss] = staticmethod(boxdiff_loss)
    parts: ClassVar[int] = 2


class ExcitingGuide:
    """Moves the latent of one run: x ← x − scale · √s · v · ∂L/∂x, each item of the batch by its own loss.

    v is the latent's variance, 1 + σ², or (1 − σ)² + σ² of flow matching. s falls from 1 to ½ over the steps. In most
    steps there is one move. At a refinement an item whose loss is above 1 minus the wanted attention moves on; the move
    that was made from a loss at or below it is the last of these, and one more follows. movable: (B or 1, 1, h, w), how
    much of each pixel may move; None for all.
    """

    def __init__(self, settings: Excitation, steps: int, movable: Tensor | None = None):
        self._settings, self._steps, self._movable = settings, steps, movable
        self._limits = {round(share * steps): 1 - attention for share, attention in settings.refinements}
        self._moving: Tensor | None = None  # (B,): the items that the next move is for; None: all

    def due(self, moment: Moment, answers: Sequence[Gradient]) -> bool:
        if moment.progress >= self._settings.until or self._settings.scale == 0:
            return False
        if not answers:
            self._moving = None
            return True
        if moment.index not in self._limits or len(answers) > self._settings.most:
            return False
        parts = [gradient.losses.unflatten(1, (self._settings.parts, -1))[:, 0] for gradient in answers]
        above = torch.stack([part.amax(1) for part in parts]) > self._limits[moment.index]  # (moves, B)
        self._moving = above[: max(len(answers) - 1, 1)].all(0)  # and once more after it has come down
        return bool(self._moving.any())

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        fallen = 1 - 0.5 * moment.index / max(self._steps - 1, 1)
        step = self._settings.scale * fallen**0.5 * moment.variance * gradient
        if self._moving is not None:
            step = step * self._moving.to(step)[:, None, None, None]
        if self._movable is not None:
            step = step * self._movable.to(step)
        return variable - step
