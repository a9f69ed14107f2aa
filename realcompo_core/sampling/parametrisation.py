"""Parametrisations: what a network predicts, how its input is scaled, and what its target is in training.

Noise levels are sigma in x = signal + sigma · noise. The three of variance-preserving models (SD1.x, SD2.x, SDXL) share
the scaling and differ in what the network's output means (docs/method.md, R1). Flow matching (SD3, Flux) has a latent
of its own, and the same Euler step (R18).
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..errors import RealCompoError


class Parametrisation(Protocol):
    name: str

    def initial_latent(self, noise: Tensor, sigma: float) -> Tensor:
        """The latent that sampling starts from at noise level sigma, from standard normal noise."""

    def scale_input(self, x: Tensor, sigma: float) -> Tensor:
        """The network's input for x; at the last noise level also the latent that the autoencoder decodes."""

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        """The denoised estimate D from the network's output at x."""

    def target(self, latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        """The network's target in training, at the noisy latent √alpha · latent + √(1 − alpha) · noise."""


class _VariancePreserving:
    """x / √(σ² + 1) has unit variance at every noise level."""

    def initial_latent(self, noise: Tensor, sigma: float) -> Tensor:
        return noise * (sigma**2 + 1) ** 0.5

    def scale_input(self, x: Tensor, sigma: float) -> Tensor:
        return x / (sigma**2 + 1) ** 0.5


class Epsilon(_VariancePreserving):
    """The network predicts the noise (Ho et al. 2020)."""

    name = "epsilon"

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        return x - sigma * output

    def target(self, latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        return noise


class Velocity(_VariancePreserving):
    """The network predicts v = √ᾱ · noise − √(1 − ᾱ) · signal (Salimans and Ho 2022)."""

    name = "v_prediction"

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        return x / (sigma**2 + 1) - sigma / (sigma**2 + 1) ** 0.5 * output

    def target(self, latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latent


class Sample(_VariancePreserving):
    """The network predicts the signal, x0."""

    name = "sample"

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        return output

    def target(self, latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        return latent


class Flow:
    """x = (1 − σ) · signal + σ · noise, and the network predicts v = noise − signal (Liu et al. 2023)."""

    name = "flow"

    def initial_latent(self, noise: Tensor, sigma: float) -> Tensor:
        return noise * sigma

    def scale_input(self, x: Tensor, sigma: float) -> Tensor:
        return x

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        return x - sigma * output

    def target(self, latent: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        return noise - latent


PARAMETRISATIONS: dict[str, Parametrisation] = {kind.name: kind() for kind in (Epsilon, Velocity, Sample)}
"""By the names of diffusers' `prediction_type`."""


def parametrisation(name: str) -> Parametrisation:
    """Raises RealCompoError for a prediction type that is not known."""
    if name not in PARAMETRISATIONS:
        raise RealCompoError(
            f"prediction type {name!r}: this is for SD1.x, SD2.x and SDXL, which have {', '.join(PARAMETRISATIONS)}"
        )
    return PARAMETRISATIONS[name]
