"""Guides: the rules by which a loss on attention maps moves a variable of sampling.

A loss on a branch's maps has a gradient. A guide is the rule by which that gradient moves one variable of sampling: the
balancer's coefficients (`coefficient_guide.py`), or the latent of a single branch before its network runs (see
`latent_guidance.py`). See docs/method.md, R6 and R9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..attention.reading import Gradient
from .schedule import Moment


class Guide(Protocol):
    """Moves one variable down the gradient of a loss on attention maps."""

    def due(self, moment: Moment, answers: Sequence[Gradient]) -> bool:
        """Whether maps are to be read (again) at this moment. `answers`: the gradients read in this step so far."""

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        """The variable's next value. gradient: of the loss in the variable, in its shape."""


class Answers:
    """The gradients read in the present step so far: samplers may evaluate the model several times in a step."""

    def __init__(self):
        self._index, self._read = -1, []

    def at(self, moment: Moment) -> list[Gradient]:
        """The step's list, to be added to; a new one for a later step."""
        if moment.index > self._index:
            self._index, self._read = moment.index, []
        return self._read
