"""Settings of the balancer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..errors import RealCompoError
from .latent_guidance import LatentGuidance
from .mixing import RegionWeights
from .schedule import Schedule

Weights = Tensor | RegionWeights


@dataclass(frozen=True)
class BalanceSettings:
    """How coefficients start and move (docs/method.md, R6 and R7).

    mode: `one_pass` reads the maps of the pass that the step needs anyway and credits the previous mixing; `lookahead`
        (the paper) reads them at a tentative next x and corrects this mixing.
    rule: the gradient is divided per sample by its maximum (`max`) or RMS (`rms`) and multiplied by `rate`, or taken
        raw times the official ρ_t times `rate` (`official`). `superdiff` reads no attention: two branches have one
        weight an item, which keeps their densities equal (R15); it needs a sampler that adds noise, and leaves `rate`,
        `initial`, `update_every`, `update_until` and `sources` unused.
    initial: coefficients start in favour of the spatial branches on the objects and of the fidelity branch elsewhere
        (`layout`), at 0 (`zero`: equal weights) or from N(0, 1) (`random`, the paper).
    t0: share of the steps, from the start, that use the spatial branches alone.
    t1: share of the steps after which the fidelity branch finishes alone: by then objects stand where they stand.
    update_every, update_until: update at every n-th step, over the first share of the steps.
    sources: indices of the branches whose loss drives the coefficients, or `spatial` for all but the fidelity branch;
        None for all.
    guided_until: share of the steps after which no branch is guided, so that unconditional estimates are left out
        (Kynkäänniemi et al. 2024). Where nothing is balanced (a single branch, no objects), all steps are guided.
    layout_guidance: Layout Guidance (R9), or another method that moves latents (R12), of each spatial branch that has
        none of its own; None: of none.
    fixed: instead of dynamic weights, a (K,) or (K, h, w) tensor, RegionWeights (one value on the objects, one
        elsewhere), or a function from progress 0..1 to one of these, such as WeightSchedule. It takes precedence over
        t0 and t1; a WeightSchedule has its own.
    """

    mode: Literal["one_pass", "lookahead"] = "one_pass"
    rule: Literal["max", "rms", "official", "superdiff"] = "rms"
    rate: float = 0.4
    initial: Literal["layout", "zero", "random"] = "layout"
    t0: float = 0.0
    t1: float = 0.6
    update_every: int = 1
    update_until: float = 1.0
    sources: tuple[int, ...] | Literal["spatial"] | None = None
    fixed: Weights | Callable[[float], Weights] | None = None
    guided_until: float = 1.0
    layout_guidance: LatentGuidance | None = None

    def __post_init__(self):
        for name, allowed in (
            ("mode", ("one_pass", "lookahead")),
            ("rule", ("max", "rms", "official", "superdiff")),
            ("initial", ("layout", "zero", "random")),
        ):
            if getattr(self, name) not in allowed:
                raise RealCompoError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        for name in ("t0", "t1", "update_until", "guided_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise RealCompoError(f"{name} is {getattr(self, name)}: it is a share of the steps, from 0 to 1")
        if self.rule == "superdiff" and self.mode == "lookahead":
            raise RealCompoError("rule superdiff is in closed form and looks at nothing ahead: set mode one_pass")
        if self.update_every < 1:
            raise RealCompoError(f"update_every is {self.update_every}: it counts steps, from 1 up")
        if isinstance(self.fixed, RegionWeights) and not all(0 <= share <= 1 for share in self.fixed):
            raise RealCompoError(f"fixed is {self.fixed}: the weights inside and outside are shares, from 0 to 1")

    def layout_guidance_of(self, branch: int, own: LatentGuidance | None) -> LatentGuidance | None:
        """What moves the latent of this branch, by its index; own: what it has been given itself."""
        return self.layout_guidance if own is None and branch > 0 else own

    def unguided_below(self, schedule: Schedule, branches: int, has_objects: bool) -> float:
        """The noise level below which no branch is guided; 0 where all steps are."""
        return schedule.level(self.guided_until) if branches > 1 and has_objects else 0.0
