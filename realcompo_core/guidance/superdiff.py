"""SuperDiff's AND (Skreta et al. 2024): two branches are mixed so that the picture becomes as likely under both.

There is no attention in it: one weight an item, in closed form. See docs/method.md, R15.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Moment

LEAST_NOISE = 0.5  # of DDPM's, from which on a sampler is one that adds noise


@dataclass(frozen=True)
class _Evaluation:
    """One evaluation. lead: (B,), log q_0 − log q_1 at x. noise: what came to x since the step before, by DDPM's.

    deterministic: where the step ends without noise. difference, total: s_0 − s_1 and s_0 + s_1, (B, C, h, w).
    """

    index: int
    x: Tensor
    lead: Tensor | float
    noise: Tensor | None
    deterministic: Tensor
    difference: Tensor
    total: Tensor
    sigma: float
    sigma_next: float


class EqualDensities:
    """The weights of one run of two branches.

    The log-densities are followed along what the sampler really does (their theorem 1), and the weights are such that
    the next step, in expectation over its noise, ends where both are equal (their proposition 6).
    """

    def __init__(self):
        self._step_before: _Evaluation | None = None  # of a step the last evaluation counts
        self._newest: _Evaluation | None = None
        self._noise: list[Tensor] = []

    def weights(self, x: Tensor, moment: Moment, sigma_next: float, D: Tensor, conditional: Tensor) -> Tensor:
        """(B, 2, 1, 1): the weights at x, from 0 to 1 (the nearest where only others would do).

        D: (B, 2, C, h, w), the guided estimates that are mixed. conditional: those without guidance, whose densities
        are followed.
        """
        self._begin(moment.index)
        lead, noise = self._followed(x)
        s, guided = ((estimates - x.unsqueeze(1)) / moment.sigma**2 for estimates in (conditional, D))
        difference, total = s[:, 0] - s[:, 1], s.sum(1)
        variance = moment.sigma**2 - sigma_next**2
        wanted = _dot(total / 2 - guided[:, 1], difference) - lead / variance
        slope = _dot(guided[:, 0] - guided[:, 1], difference)
        # Where both say the same, or guidance turns their difference round, no weight brings the densities together.
        known = slope > torch.finfo(slope.dtype).eps * _dot(total, total)
        first = torch.where(known, wanted / torch.where(known, slope, 1), 0.5).clamp(0, 1)
        w = torch.stack([first, 1 - first], 1)[:, :, None, None]
        ahead = x + (1 - sigma_next / moment.sigma) * ((w.unsqueeze(2) * D).sum(1) - x)
        self._newest = _Evaluation(moment.index, x, lead, noise, ahead, difference, total, moment.sigma, sigma_next)
        return w

    def met_noise(self) -> bool:
        """Whether the sampler adds noise, as the method needs; True where no step is known.

        Only the first third of the steps is asked: there a step without noise is nearly Euler's for any sampler.
        """
        asked = self._noise[: max(1, len(self._noise) // 3)]
        return not asked or bool(torch.stack(asked).amax() > LEAST_NOISE)

    def _begin(self, index: int) -> None:
        if self._newest is not None and index > self._newest.index:
            self._step_before = self._newest
            if self._newest.noise is not None:
                self._noise.append(self._newest.noise)

    def _followed(self, x: Tensor) -> tuple[Tensor | float, Tensor | None]:
        """What `_Evaluation` calls lead and noise."""
        before = self._step_before
        if before is None:
            return 0.0, None
        variance = before.sigma**2 - before.sigma_next**2
        along = _dot(x - before.x, before.difference) - variance / 2 * _dot(before.total, before.difference)
        usual = before.sigma_next / before.sigma * variance**0.5
        noise = (x - before.deterministic).square().mean().sqrt() / usual if usual > 0 else None
        return before.lead + along, noise


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B,) inner products of (B, C, h, w) tensors."""
    return (a * b).flatten(1).sum(1)
