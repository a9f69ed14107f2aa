"""The balancer: K branches denoise one latent, and per-pixel coefficients that attention maps drive mix them.

The maths is in five small functions; `Balancer` is the state around them. Letters as in the method: c coefficients,
w weights, D denoised estimates, g gradient of the loss in x, β the gain of D in the sampler's step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..attention.reading import Gradient
from ..errors import RealCompoError
from ..sampling.samplers import Step
from .trace import Trace, TraceStep

FIDELITY = 0  # index of the fidelity branch; all others are spatial
OFFICIAL_RATE = 1e6
COEFFICIENT_SEED = 0xC0EFF
START_ON_OBJECTS, START_ELSEWHERE = 1.0, -0.5  # a spatial branch's coefficient at the start; the fidelity branch's is 0


def branch_names(count: int) -> list[str]:
    """What the branches are called in traces, reports and messages."""
    return ["fidelity", *("spatial" if count == 2 else f"spatial {k}" for k in range(1, count))]


class Branch(Protocol):
    """One diffusion model with its conditioning. D is guided: classifier-free guidance is the branch's own."""

    name: str

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D of x (B, C, h, w) at noise level sigma."""

    def gradient(self, x: Tensor, sigma: float) -> Gradient:
        """The maps at x and their loss's gradient in x; the network is run no further than it must."""

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        """Both, in the passes that `denoise` needs anyway."""


def mix(w: Tensor, D: Tensor) -> Tensor:
    """Σ_k w_k ⊙ D_k. w: (B, K, h, w), sums to 1 over K; D: (B, K, C, h, w). Returns (B, C, h, w)."""
    return (w.unsqueeze(2) * D).sum(1)


def coefficient_gradient(g: Tensor, w: Tensor, D: Tensor, beta: float | Tensor) -> Tensor:
    """∂L/∂c_k = β Σ_C g ⊙ w_k ⊙ (D_k − D) (method, point 6): the derivative through softmax, mixing and step.

    g: (B, C, h, w) = ∂L/∂x'; w: (B, K, h, w); D: (B, K, C, h, w); beta: a number, or (B, 1, h, w).
    Returns (B, K, h, w); it sums to 0 over K.
    """
    return beta * w * (g.unsqueeze(1) * (D - mix(w, D).unsqueeze(1))).sum(2)


def normalise_max(grad: Tensor) -> Tensor:
    """Each sample of (B, K, h, w) divided by its largest magnitude: a step of known size for any model and size."""
    return grad / grad.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(grad.dtype).tiny)


def normalise_rms(grad: Tensor) -> Tensor:
    """Each sample of (B, K, h, w) divided by its root mean square."""
    return grad / grad.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(torch.finfo(grad.dtype).tiny)


def official_rate(progress: float) -> float:
    """ρ_t of the official code, 1e6 · sqrt(linspace(1, 0.5)), at a share `progress` of the steps."""
    return OFFICIAL_RATE * (1 - 0.5 * progress) ** 0.5


@dataclass(frozen=True)
class BalanceSettings:
    """How coefficients start and move.

    mode: `one_pass` reads the maps of the pass that the step needs anyway and credits the previous mixing; `lookahead`
        (the paper) reads them at a tentative next x and corrects this mixing.
    rule: the gradient is divided per sample by its maximum (`max`) or RMS (`rms`) and multiplied by `rate`, or taken
        raw times the official ρ_t times `rate` (`official`).
    initial: coefficients start in favour of the spatial branches on the objects and of the fidelity branch elsewhere
        (`layout`), at 0 (`zero`: equal weights) or from N(0, 1) (`random`, the paper).
    t0: share of the steps, from the start, that use the spatial branches alone.
    t1: share of the steps after which the fidelity branch finishes alone: by then objects stand where they stand.
    update_every, update_until: update at every n-th step, over the first share of the steps.
    sources: indices of the branches whose loss drives the coefficients; None for all.
    fixed: instead of dynamic weights, a (K,) or (K, h, w) tensor, or a function from progress 0..1 to one (a schedule).
    """

    mode: Literal["one_pass", "lookahead"] = "one_pass"
    rule: Literal["max", "rms", "official"] = "rms"
    rate: float = 0.4
    initial: Literal["layout", "zero", "random"] = "layout"
    t0: float = 0.0
    t1: float = 0.6
    update_every: int = 1
    update_until: float = 1.0
    sources: tuple[int, ...] | None = None
    fixed: Tensor | Callable[[float], Tensor] | None = None

    def __post_init__(self):
        for name, allowed in (
            ("mode", ("one_pass", "lookahead")),
            ("rule", ("max", "rms", "official")),
            ("initial", ("layout", "zero", "random")),
        ):
            if getattr(self, name) not in allowed:
                raise RealCompoError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}")
        for name in ("t0", "t1", "update_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise RealCompoError(f"{name} is {getattr(self, name)}: it is a share of the steps, from 0 to 1")
        if self.update_every < 1:
            raise RealCompoError(f"update_every is {self.update_every}: it counts steps, from 1 up")


class Balancer:
    """A model for the samplers (`denoised = model(x, sigma, step)`) made of K branches, the fidelity branch first.

    `sigmas` is the schedule that will be sampled. `seeds` has one seed an item of the batch, for random coefficients.
    `objects`, (B, h, w) in the latent's size, is the share of each pixel that objects cover. An item without any has
    nothing to balance: the fidelity branch works alone there. `together(branches, reading)` makes a context in which
    these branches are run at one x, those in `reading` with gradient: a host may join their passes in it.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        sigmas: Sequence[float],
        seeds: Sequence[int],
        objects: Tensor,
        settings: BalanceSettings | None = None,
        together: Callable[[Sequence[Branch], Sequence[Branch]], AbstractContextManager] = lambda *_: nullcontext(),
    ):
        self.branches, self.settings, self._together = tuple(branches), settings or BalanceSettings(), together
        self.trace = Trace(tuple(branch.name for branch in branches))
        self._sigmas, self._seeds, self._objects = list(sigmas), list(seeds), objects
        self._empty = [b for b, covered in enumerate(objects) if not covered.any()]
        self._c: Tensor | None = None
        self._previous: tuple | None = None  # w, D and β of the last balanced evaluation
        self._updated_at = -1  # samplers that evaluate the model several times a step move c once
        sources, K = self._sources(), len(self.branches)
        if not sources or not set(sources) <= set(range(K)):
            raise RealCompoError(f"sources is {sources}: choose branches from 0 to {K - 1}, or None for all")
        if self._empty:
            which = "The layout has" if len(self._seeds) == 1 else f"The layouts of items {self._empty} have"
            self.trace.note = f"{which} no objects: the fidelity branch worked alone."

    def __call__(self, x: Tensor, sigma: float, step: Step) -> Tensor:
        index = sum(s > sigma * (1 + 1e-6) for s in self._sigmas[:-1])
        progress = index / (len(self._sigmas) - 1)
        weights = self._given_weights(x, progress)
        if weights is not None:
            self._record(index, sigma, weights)
            return self._denoise_weighted(x, sigma, weights)
        if self._c is None:
            self._c = self._initial_coefficients(x)
        due = index % self.settings.update_every == 0 and progress < self.settings.update_until
        updates = due and index > self._updated_at
        balance = self._one_pass if self.settings.mode == "one_pass" else self._lookahead
        D, gradients = balance(x, sigma, step, progress, updates)
        if gradients:
            self._updated_at = index
        w = self._weights()
        self._previous = (w, D, step.gain)
        self._record(index, sigma, w, self._c, gradients)
        return mix(w, D)

    def _one_pass(self, x, sigma, step, progress, updates) -> tuple[Tensor, dict[int, Gradient]]:
        """x depends on the previous mixing through the previous step, so that ∂L/∂x here tells how to move c."""
        if not updates or self._previous is None:
            return self._denoise_all(x, sigma)
        D, gradients = self._denoise_all(x, sigma, self._sources())
        self._update(gradients, *self._previous, progress)
        return D, gradients

    def _lookahead(self, x, sigma, step, progress, updates) -> tuple[Tensor, dict[int, Gradient]]:
        """The paper: a tentative step, the maps there, and c is moved before the real step."""
        D, _ = self._denoise_all(x, sigma)
        if not updates or step.sigma_next == 0:
            return D, {}
        w = self._weights()
        ahead = step(mix(w, D))
        gradients = {k: self.branches[k].gradient(ahead, step.sigma_next) for k in self._sources()}
        self._update(gradients, w, D, step.gain, progress)
        return D, gradients

    def _denoise_all(self, x, sigma, sources: tuple[int, ...] = ()) -> tuple[Tensor, dict[int, Gradient]]:
        """D (B, K, C, h, w) of all branches, and the gradients of those in `sources`."""
        estimates, gradients = [], {}
        with self._together(self.branches, [self.branches[k] for k in sources]):
            for k, branch in enumerate(self.branches):
                if k in sources:
                    D_k, gradients[k] = branch.denoise_with_gradient(x, sigma)
                else:
                    D_k = branch.denoise(x, sigma)
                estimates.append(D_k)
        return torch.stack(estimates, 1), gradients

    def _update(self, gradients: dict[int, Gradient], w: Tensor, D: Tensor, beta, progress: float) -> None:
        g = sum(gradient.g for gradient in gradients.values())
        grad = coefficient_gradient(g, w, D, beta)
        if self.settings.rule == "official":
            self._c = self._c - self.settings.rate * official_rate(progress) * grad
        else:
            normalise = normalise_max if self.settings.rule == "max" else normalise_rms
            self._c = self._c - self.settings.rate * normalise(grad)

    def _sources(self) -> tuple[int, ...]:
        return tuple(range(len(self.branches))) if self.settings.sources is None else self.settings.sources

    def _initial_coefficients(self, x: Tensor) -> Tensor:
        shape = (len(self.branches), *x.shape[-2:])
        if self.settings.initial == "zero":
            return x.new_zeros(len(x), *shape)
        if self.settings.initial == "layout":
            start = START_ELSEWHERE + (START_ON_OBJECTS - START_ELSEWHERE) * self._objects.to(x)
            spatial = 1 - torch.eye(len(self.branches))[FIDELITY].to(x)
            return start[:, None] * spatial[:, None, None]
        # The latent's noise comes from these very seeds: the coefficients must not repeat it.
        generators = [torch.Generator().manual_seed(seed ^ COEFFICIENT_SEED) for seed in self._seeds]
        drawn = [torch.randn(shape, generator=generator) for generator in generators]
        return torch.stack(drawn).to(x)

    def _given_weights(self, x: Tensor, progress: float) -> Tensor | None:
        """(B, K, h, w) where weights are not the coefficients' business: fixed, before t0, without objects."""
        K = len(self.branches)
        if len(self._empty) == len(x):
            weights = torch.eye(K)[FIDELITY]
        elif self.settings.fixed is not None:
            weights = self.settings.fixed(progress) if callable(self.settings.fixed) else self.settings.fixed
        elif progress < self.settings.t0:
            weights = (1 - torch.eye(K)[FIDELITY]) / (K - 1)
        elif progress >= self.settings.t1:
            weights = torch.eye(K)[FIDELITY]
        else:
            return None
        weights = weights.to(x)
        if weights.dim() == 1:
            weights = weights[:, None, None]
        if weights.shape[0] != K or weights.shape[1:] not in ((1, 1), x.shape[-2:]):
            shape, full = tuple(weights.shape), (K, *x.shape[-2:])
            raise RealCompoError(f"fixed has shape {shape}: {K} branches need ({K},) or {full}")
        return self._fidelity_where_empty(weights.expand(len(x), K, *x.shape[-2:]))

    def _weights(self) -> Tensor:
        return self._fidelity_where_empty(self._c.softmax(1))

    def _fidelity_where_empty(self, weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[self._empty] = 0
        weights[self._empty, FIDELITY] = 1
        return weights

    def _denoise_weighted(self, x: Tensor, sigma: float, weights: Tensor) -> Tensor:
        """Σ_k w_k ⊙ D_k, running only the branches that have any weight."""
        used = {k: branch for k, branch in enumerate(self.branches) if weights[:, k].any()}
        with self._together(list(used.values()), ()):
            return sum(weights[:, k, None] * branch.denoise(x, sigma) for k, branch in used.items())

    def _record(self, index, sigma, w, c=None, gradients: dict[int, Gradient] | None = None) -> None:
        step = TraceStep(index, sigma, w.detach().cpu(), None if c is None else c.cpu())
        if gradients:
            known = next(iter(gradients.values()))

            def over_branches(pick: Callable[[Gradient], Tensor]) -> Tensor:
                missing = torch.full_like(pick(known), torch.nan)
                found = [pick(gradients[k]) if k in gradients else missing for k in range(len(self.branches))]
                return torch.stack(found, 1).float().cpu()

            step = replace(
                step,
                losses=over_branches(lambda gradient: gradient.losses),
                gradient=over_branches(lambda gradient: gradient.g.abs().amax((1, 2, 3))),
                maps=over_branches(lambda gradient: gradient.maps),
            )
        self.trace.steps.append(step)


def fixed_by_region(regions: Tensor, inside: float, outside: float) -> Tensor:
    """(2, h, w) weights of two branches: the spatial branch gets `inside` on the objects and `outside` elsewhere.

    regions: (G, h, w) coverage of the objects at latent resolution.
    """
    spatial = outside + (inside - outside) * regions.amax(0)
    return torch.stack([1 - spatial, spatial])
