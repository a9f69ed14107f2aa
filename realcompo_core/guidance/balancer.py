"""The balancer: K branches denoise one latent, and per-pixel coefficients that attention maps drive mix them.

The maths is in `mixing.py`, the rule by which coefficients move in `coefficient_guide.py`; `Balancer` is the state
around them, and has the two modes (docs/method.md, R7). Letters as in `mixing.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.reading import Gradient
from ..errors import RealCompoError
from ..sampling.samplers import Step
from .branch import Branch, GuidedBranch, branch_names
from .coefficient_guide import CoefficientGuide
from .guide import Answers, Guide
from .mixing import (
    FIDELITY,
    Estimates,
    RegionWeights,
    coefficient_gradient,
    layout_coefficients,
    mix,
    random_coefficients,
)
from .schedule import Moment, Schedule
from .settings import BalanceSettings
from .superdiff import EqualDensities
from .trace import Trace, TraceStep

NO_NOISE = (
    "Rule superdiff follows densities along the noise that a sampler adds, and this one added none, so that the "
    "weights are not those of the method: take an ancestral or SDE sampler (ddpm here, euler_ancestral or "
    "dpmpp_2m_sde in ComfyUI)."
)


class Balancer:
    """A model for the samplers (`denoised = model(x, sigma, step)`) made of K branches, the fidelity branch first.

    `sigmas` is the schedule that will be sampled. `seeds` has one seed an item of the batch, for random coefficients.
    `objects`, (B, h, w) in the latent's size, is the share of each pixel that objects cover. An item without any has
    nothing to balance: the fidelity branch works alone there. `together(branches, reading)` makes a context in which
    these branches are run at one x, those in `reading` with gradient: a host may join their passes in it. `trace` is an
    empty one to fill; None makes one. A single branch is not balanced; it is sampled as it is, with its guide.

    Branches with a guide move the latent. The sampler does not know: it samples x minus all moves so far, and whoever
    runs it adds `moves` to its latents in the end (docs/method.md, R9).

    Nothing waits for the device within a step, but for guides that count their moves by the loss. So `finish` must be
    called when sampling has ended.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        sigmas: Sequence[float],
        seeds: Sequence[int],
        objects: Tensor,
        settings: BalanceSettings | None = None,
        together: Callable[[Sequence[Branch], Sequence[Branch]], AbstractContextManager] = lambda *_: nullcontext(),
        trace: Trace | None = None,
    ):
        self.branches, self.settings, self._together = tuple(branches), settings or BalanceSettings(), together
        self.trace = trace or Trace(tuple(branch.name for branch in branches))
        self._guide: Guide = CoefficientGuide(self.settings)
        self._schedule, self._seeds, self._objects = Schedule(sigmas), list(seeds), objects
        self._empty = [b for b, covered in enumerate(objects) if not covered.any()]
        self.moves: Tensor | float = 0.0  # (B, C, h, w), of the latent, by guides of the branches, so far
        self._acting = tuple(range(len(self.branches)))  # those that have anything to say at the present noise level
        self._c: Tensor | None = None
        self._previous: tuple | None = None  # w, D and gain of the last balanced evaluation
        self._answers = Answers()
        self._doubts: list[_Doubt] = []
        self._densities = EqualDensities() if self.settings.rule == "superdiff" else None
        sources, K = self._sources(), len(self.branches)
        if not sources or not set(sources) <= set(range(K)):
            raise RealCompoError(f"sources is {sources}: choose branches from 0 to {K - 1}, or None for all")
        self.trace.sources = sources
        self.trace.guides = {b.name: b.guided_by for b in self.branches if isinstance(b, GuidedBranch)}
        if self._densities is not None and self.settings.fixed is None and K > 1:
            self._check_densities_known()
        if self._empty:
            which = "The layout has" if len(self._seeds) == 1 else f"The layouts of items {self._empty} have"
            alone = branch_names(K)[FIDELITY]
            self.trace.note = f"{which} no objects: the {alone} branch worked alone."

    def __call__(self, x: Tensor, sigma: float, step: Step) -> Tensor:
        before = self.moves
        step = Step(step.base + (1 - step.gain) * before, step.gain, step.sigma_next)  # of x as it has been moved
        D, move = self._balanced(x + before, sigma, step)
        self.moves = before + move
        return D - self.moves

    def _balanced(self, x: Tensor, sigma: float, step: Step) -> tuple[Tensor, Tensor | float]:
        """The mixed estimate, and the mixed move of the latent."""
        moment = self._schedule.moment(sigma)
        self._acting = tuple(k for k, branch in enumerate(self.branches) if branch.acts_at(sigma))
        if not self._acting:
            raise RealCompoError(f"noise level {sigma:.4g}: no branch has a conditioning that acts there")
        weights = self._given_weights(x, moment.progress)
        if weights is not None:
            return self._denoise_weighted(x, moment, weights)
        if self._densities is not None:
            return self._equally_dense(x, step, moment)
        if self._c is None:
            self._c = self._initial_coefficients(x)
        answers = self._answers.at(moment)
        updates = self._guide.due(moment, answers)
        balance = self._one_pass if self.settings.mode == "one_pass" else self._lookahead
        estimates, gradients = balance(x, step, moment, updates)
        answers.extend(gradients.values())
        w = self._weights()
        self._previous = (w, estimates.restated(step.gain), step.gain)
        self._record(moment, w, estimates.moves, self._c, gradients)
        return estimates.mixed(w)

    @property
    def weights(self) -> Tensor:
        """(B, K, h, w) of the newest evaluation, on the CPU."""
        return self.trace.steps[-1].weights.cpu()

    def finish(self) -> list[str]:
        """Brings the trace to the CPU. Returns what the run has shown and the user should know; the note has it too.

        Raises RealCompoError that names branch and step if one was not finite.

        On the CPU that is raised in the step itself.
        """
        self.trace.steps[:] = [step.on_cpu() for step in self.trace.steps]
        self._look_at_doubts()
        found = [NO_NOISE] if self._densities is not None and not self._densities.met_noise() else []
        self.trace.note = " ".join(filter(None, [self.trace.note, *found]))
        return found

    def _equally_dense(self, x: Tensor, step: Step, moment: Moment) -> tuple[Tensor, Tensor | float]:
        """The estimate mixed by SuperDiff's weights; there are no moves. One branch alone where the other is silent."""
        if len(self._acting) < 2:
            equal = torch.full((len(x), 2, *x.shape[-2:]), 0.5, dtype=x.dtype)
            return self._denoise_weighted(x, moment, self._possible(equal))
        estimates, _ = self._denoise_all(x, moment)
        conditional = [branch.conditional for branch in self.branches]
        for branch, found in zip(self.branches, conditional, strict=True):
            if found is None:
                raise RealCompoError(
                    f"branch {branch.name}: rule superdiff needs its estimate without guidance, and something has had "
                    "the network skipped (a step cache, for instance): take that off this branch"
                )
        w = self._densities.weights(x, moment, step.sigma_next, estimates.D, torch.stack(conditional, 1))
        w = self._possible(w.expand(-1, -1, *x.shape[-2:]))
        self._record(moment, w)
        return estimates.mixed(w)

    def _check_densities_known(self) -> None:
        """Raises RealCompoError for branches that SuperDiff's closed form is not for."""
        if len(self.branches) != 2:
            raise RealCompoError(f"rule superdiff mixes two branches, and there are {len(self.branches)}: take another")
        for name, guided_by in self.trace.guides.items():
            raise RealCompoError(
                f"rule superdiff compares the branches at one latent, and {guided_by} moves that of the {name} branch: "
                "take it off, or take another rule"
            )

    def _one_pass(self, x, step, moment: Moment, updates: bool) -> tuple[Estimates, dict[int, Gradient]]:
        """What all branches say. c is moved by ∂L/∂x at the present x, which came from the previous mixing."""
        if not updates or self._previous is None:
            return self._denoise_all(x, moment)
        estimates, gradients = self._denoise_all(x, moment, self._sources())
        self._update(gradients, *self._previous, moment)
        return estimates, gradients

    def _lookahead(self, x, step, moment: Moment, updates: bool) -> tuple[Estimates, dict[int, Gradient]]:
        """What all branches say. c is moved by ∂L/∂x' at a tentative next latent x' (the paper)."""
        estimates, _ = self._denoise_all(x, moment)
        if not updates or step.sigma_next == 0:
            return estimates, {}
        w, D = self._weights(), estimates.restated(step.gain)
        ahead = step(mix(w, D))
        found = {k: self.branches[k].gradient(ahead, step.sigma_next) for k in self._sources()}
        gradients = {k: gradient for k, gradient in found.items() if gradient is not None}
        self._update(gradients, w, D, step.gain, moment)
        return estimates, gradients

    def _denoise_all(self, x, moment: Moment, sources: tuple[int, ...] = ()) -> tuple[Estimates, dict[int, Gradient]]:
        """What all branches say, and the gradients of those in `sources` that were read.

        A branch that does not act has no weight; what stands for it is another's estimate.
        """
        acting = {k: self.branches[k] for k in self._acting}
        starts = {k: branch.moved(x, moment.sigma) for k, branch in acting.items()}
        estimates, gradients = {}, {}
        with self._joined(x, starts.values(), acting, sources):
            for k, branch in acting.items():
                if k in sources:
                    estimates[k], gradient = branch.denoise_with_gradient(starts[k], moment.sigma)
                    gradients |= {} if gradient is None else {k: gradient}
                else:
                    estimates[k] = branch.denoise(starts[k], moment.sigma)
        self._check_finite(estimates, moment, "prediction")
        every = [k if k in acting else self._acting[0] for k in range(len(self.branches))]
        D = torch.stack([estimates[k] for k in every], 1)
        return Estimates(D, _moves(x, [starts[k] for k in every])), gradients

    def _joined(
        self, x, starts: Iterable[Tensor], branches: dict[int, Branch], sources: Sequence[int]
    ) -> AbstractContextManager:
        """Inside, those of the branches that are still at x are run together."""
        here = {k: branch for (k, branch), start in zip(branches.items(), starts, strict=True) if start is x}
        return self._together(list(here.values()), [branch for k, branch in here.items() if k in sources])

    def _update(self, gradients: dict[int, Gradient], w: Tensor, D: Tensor, gain, moment: Moment) -> None:
        if not gradients:
            return
        self._check_finite({k: gradient.g for k, gradient in gradients.items()}, moment, "gradient")
        g = sum(gradient.g for gradient in gradients.values())
        self._c = self._guide.move(self._c, coefficient_gradient(g, w, D, gain), moment)

    def _sources(self) -> tuple[int, ...]:
        every = tuple(range(len(self.branches)))
        if self.settings.sources == "spatial":
            return tuple(k for k in every if k != FIDELITY) or every
        return every if self.settings.sources is None else self.settings.sources

    def _initial_coefficients(self, x: Tensor) -> Tensor:
        K, size = len(self.branches), x.shape[-2:]
        if self.settings.initial == "zero":
            return x.new_zeros(len(x), K, *size)
        if self.settings.initial == "layout":
            return layout_coefficients(self._objects, K).to(x.device, x.dtype, non_blocking=True)
        return random_coefficients(self._seeds, (K, *size)).to(x.device, x.dtype, non_blocking=True)

    def _given_weights(self, x: Tensor, progress: float) -> Tensor | None:
        """(B, K, h, w) weights without coefficients: fixed, before t0, from t1 on, without objects. None otherwise.

        They are on the CPU, where it is known at once which of them are 0.
        """
        K = len(self.branches)
        if K == 1 or len(self._empty) == len(x) or self._acting == (FIDELITY,):
            weights = torch.eye(K)[FIDELITY]
        elif self.settings.fixed is not None:
            weights = self.settings.fixed(progress) if callable(self.settings.fixed) else self.settings.fixed
        elif progress < self.settings.t0:
            weights = (1 - torch.eye(K)[FIDELITY]) / (K - 1)
        elif progress >= self.settings.t1:
            weights = torch.eye(K)[FIDELITY]
        else:
            return None
        if isinstance(weights, RegionWeights):
            return self._possible(weights.over(self._objects.to("cpu", x.dtype), K))
        weights = weights.to("cpu", x.dtype)
        if weights.dim() == 1:
            weights = weights[:, None, None]
        if weights.shape[0] != K or weights.shape[1:] not in ((1, 1), x.shape[-2:]):
            shape, full = tuple(weights.shape), (K, *x.shape[-2:])
            raise RealCompoError(f"fixed has shape {shape}: {K} branches need ({K},) or {full}")
        return self._possible(weights.expand(len(x), K, *x.shape[-2:]))

    def _weights(self) -> Tensor:
        return self._possible(self._c.softmax(1))

    def _possible(self, weights: Tensor) -> Tensor:
        """The weights of branches that do not act given to those that do; fidelity alone for items without objects."""
        weights = weights.clone()
        silent = set(range(weights.shape[1])) - set(self._acting)
        if silent:
            for k in silent:
                weights[:, k].zero_()
            alone = torch.zeros_like(weights)
            alone[:, self._acting[0]].fill_(1)
            total = weights.sum(1, keepdim=True)
            weights = torch.where(total > 0, weights / total, alone)
        for b in self._empty:
            weights[b].zero_()
            weights[b, FIDELITY].fill_(1)
        return weights

    def _denoise_weighted(self, x: Tensor, moment: Moment, weights: Tensor) -> tuple[Tensor, Tensor | float]:
        """The mixed estimate and move, running only the branches that have any weight. weights: on the CPU."""
        used = {k: branch for k, branch in enumerate(self.branches) if weights[:, k].any()}
        weights = weights.to(x.device, non_blocking=True)
        starts = [branch.moved(x, moment.sigma) for branch in used.values()]
        with self._joined(x, starts, used, ()):
            found = [branch.denoise(start, moment.sigma) for branch, start in zip(used.values(), starts, strict=True)]
        self._check_finite(dict(zip(used, found, strict=True)), moment, "prediction")
        moves, w = _moves(x, starts), torch.stack([weights[:, k] for k in used], 1)
        every = None
        if moves is not None:
            moved = dict(zip(used, moves.unbind(1), strict=True))
            every = torch.stack([moved.get(k, torch.zeros_like(x)) for k in range(len(self.branches))], 1)
        self._record(moment, weights, every)
        return Estimates(torch.stack(found, 1), moves).mixed(w)

    def _check_finite(self, found: Mapping[int, Tensor], moment: Moment, what: str) -> None:
        """Notes whether the branches' tensors are finite. Only where nothing has to be waited for, it looks at once."""
        for k, tensor in found.items():
            self._doubts.append(_Doubt(tensor.isfinite().all(), self.branches[k].name, moment, what))
        if all(tensor.device.type == "cpu" for tensor in found.values()):
            self._look_at_doubts()

    def _look_at_doubts(self) -> None:
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            if not doubt.finite:
                raise RealCompoError(
                    f"branch {doubt.branch}, step {doubt.moment.index} of {self._schedule.steps} (noise level "
                    f"{doubt.moment.sigma:.4g}): its {doubt.what} has values that are not finite, so that the picture "
                    "would be black. Try the model in full precision (fp32, or bf16 instead of fp16); if that does not "
                    "help, a file of this branch is damaged: its checkpoint, LoRA or ControlNet"
                )

    def _record(self, moment: Moment, w, moves=None, c=None, gradients: dict[int, Gradient] | None = None) -> None:
        step = TraceStep(moment.index, moment.sigma, w.detach(), c)
        if moves is not None:
            step = replace(step, moves=moves.square().mean((2, 3, 4)).sqrt())
        if gradients:
            known = next(iter(gradients.values()))

            def over_branches(pick: Callable[[Gradient], Tensor]) -> Tensor:
                missing = torch.full_like(pick(known), torch.nan)
                found = [pick(gradients[k]) if k in gradients else missing for k in range(len(self.branches))]
                return torch.stack(found, 1).float()

            finest = max((gradient.maps.shape[-2:] for gradient in gradients.values()), key=math.prod)

            step = replace(
                step,
                losses=over_branches(lambda gradient: gradient.losses),
                gradient=over_branches(lambda gradient: gradient.g.abs().amax((1, 2, 3))),
                maps=over_branches(lambda gradient: _resized(gradient.maps, finest)),
            )
        self.trace.steps.append(step)


class _Doubt(NamedTuple):
    """A result of a branch that may not be finite. finite: one truth value, on its device."""

    finite: Tensor
    branch: str
    moment: Moment
    what: str


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, G, *size) of (B, G, H, W) maps, each with the sum that it had."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear") * (maps.shape[-2] * maps.shape[-1] / math.prod(size))


def _moves(x: Tensor, starts: Sequence[Tensor]) -> Tensor | None:
    """(B, K, C, h, w): how far from x each branch starts; None where all start at x."""
    return None if all(start is x for start in starts) else torch.stack([start - x for start in starts], 1)
