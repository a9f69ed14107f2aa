"""How branches are mixed, and what the mixing's coefficients have to do with the loss (docs/method.md, R2, R6, R7).

Letters: c coefficients, w weights, D denoised estimates, g gradient of the loss in the next latent x', `gain` the gain
of D in the sampler's step. Shapes: B batch, K branches, C channels, h×w latent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FIDELITY = 0  # index of the fidelity branch; all others are spatial
COEFFICIENT_SEED = 0xC0EFF
START_ON_OBJECTS, START_ELSEWHERE = 1.0, -0.5  # a spatial branch's coefficient at the start; the fidelity branch's is 0


def mix(w: Tensor, D: Tensor) -> Tensor:
    """Σ_k w_k ⊙ D_k (R2). w: (B, K, h, w), sums to 1 over K; D: (B, K, C, h, w). Returns (B, C, h, w)."""
    return (w.unsqueeze(2) * D).sum(1)


def coefficient_gradient(g: Tensor, w: Tensor, D: Tensor, gain: float | Tensor) -> Tensor:
    """∂L/∂c_k = gain · Σ_C g ⊙ w_k ⊙ (D_k − D) (R6): the derivative through softmax, mixing and step.

    g: (B, C, h, w) = ∂L/∂x'; w: (B, K, h, w); D: (B, K, C, h, w); gain: a number, or (B, 1, h, w).
    Returns (B, K, h, w); it sums to 0 over K.
    """
    return gain * w * (g.unsqueeze(1) * (D - mix(w, D).unsqueeze(1))).sum(2)


class Estimates(NamedTuple):
    """What K branches say about one latent x.

    D: (B, K, C, h, w), each branch's estimate at the latent it goes on from. moves: how far from x that is, in the
    same shape; None where no branch has moved it (docs/method.md, R9).
    """

    D: Tensor
    moves: Tensor | None = None

    def restated(self, gain: float | Tensor) -> Tensor:
        """(B, K, C, h, w): the D_k for which a step from x ends where the branch's own step, from its own latent, ends.

        gain: of the sampler's step, whose base holds (1 − gain) x (R3).
        """
        if self.moves is None:
            return self.D
        if isinstance(gain, Tensor):  # where it is 0 the latent is kept, and nothing moves
            gain = gain.unsqueeze(1).clamp_min(torch.finfo(gain.dtype).eps)
        return self.D + (1 - gain) / gain * self.moves

    def mixed(self, w: Tensor) -> tuple[Tensor, Tensor | float]:
        """(B, C, h, w) each: the estimate and the move that weights w (B, K, h, w) mix; 0.0 where nothing moves."""
        return mix(w, self.D), 0.0 if self.moves is None else mix(w, self.moves)


class RegionWeights(NamedTuple):
    """Fixed weights of all spatial branches together: `inside` on the objects and `outside` elsewhere, each 0 to 1."""

    inside: float
    outside: float

    def over(self, objects: Tensor, branches: int) -> Tensor:
        """(B, K, h, w) weights. objects: (B, h, w), the share of each pixel that objects cover."""
        spatial = self.outside + (self.inside - self.outside) * objects
        return torch.stack([1 - spatial, *[spatial / (branches - 1)] * (branches - 1)], 1)


def layout_coefficients(objects: Tensor, branches: int) -> Tensor:
    """(B, K, h, w) coefficients that favour the spatial branches on the objects and the fidelity branch elsewhere.

    objects: (B, h, w), the share of each pixel that objects cover.
    """
    start = START_ELSEWHERE + (START_ON_OBJECTS - START_ELSEWHERE) * objects
    coefficients = start[:, None].repeat(1, branches, 1, 1)
    coefficients[:, FIDELITY].zero_()
    return coefficients


def random_coefficients(seeds: list[int], shape: tuple[int, int, int]) -> Tensor:
    """(B, K, h, w) from N(0, 1), one seed an item, as the paper starts."""
    # The latent's noise comes from these very seeds: the coefficients must not repeat it.
    generators = [torch.Generator().manual_seed(seed ^ COEFFICIENT_SEED) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])
