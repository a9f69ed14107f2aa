"""What is to be drawn, and what conditioners are shown of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from PIL import Image
from torch import Tensor, nn

from ..errors import RealCompoError
from ..layout import Layout

Drawn = Callable[[Layout, tuple[int, int]], Image.Image]
"""A layout and (width, height) in pixels to a picture."""


@dataclass(frozen=True)
class Control:
    """What one ControlNet is shown, and how much it counts.

    picture: one for all items of the batch, one for each, or a function that draws an item's layout. Pictures are
    resized to the size that is sampled. strength: what the ControlNet's output is multiplied by. start, end: the share
    of the steps from which and up to which it acts. detached: the balancer's gradient does not flow through the
    ControlNet, which is faster and less exact.
    """

    picture: Image.Image | Sequence[Image.Image] | Drawn
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    detached: bool = False

    def __post_init__(self):
        if not 0 <= self.start < self.end <= 1:
            raise RealCompoError(
                f"a ControlNet acts from {self.start:g} to {self.end:g}: start and end are shares of the steps, "
                "0 <= start < end <= 1"
            )
        if not 0 <= self.strength < float("inf"):
            raise RealCompoError(f"a ControlNet's strength is {self.strength}: it is a number from 0 up")


@dataclass(frozen=True)
class Request:
    """What is to be drawn, for all branches: B prompts with their negative prompts and layouts.

    size: height and width in pixels. sigmas: the noise levels that will be sampled. beta, layers and include_adjectives
    as in `RealCompoPipeline.__call__`.
    """

    prompts: Sequence[str]
    negatives: Sequence[str | None]
    layouts: Sequence[Layout]
    size: tuple[int, int]
    sigmas: Sequence[float]
    beta: float
    layers: int | str
    include_adjectives: bool


class UNetPass(NamedTuple):
    """One pass of a UNet: B items of each of `conditionings` in a batch.

    "positive", "negative", "phrase N" and "part N" are what a branch runs. sample: all their latents, scaled for the
    network. text: the text arguments that the UNet gets.
    """

    conditionings: Sequence[str]
    sigma: float
    sample: Tensor
    timestep: Tensor
    text: dict[str, Any]


class Conditioner(Protocol):
    """Makes a branch follow the layouts of one run. networks: those that it runs beside the UNet."""

    networks: Sequence[nn.Module]

    def __call__(self, run: UNetPass) -> dict[str, Any]:
        """Keyword arguments of the UNet in this pass."""
