"""Samplers for use without a host.

A model here is `denoised = model(x, sigma, step)`, after k-diffusion: x = signal + sigma * noise. Every sampler tells
the model what it will do with the answer, `x' = step.base + step.gain * denoised`, so that a balancer can look ahead
with the very rule of the real step. `sigmas` has n + 1 entries for n steps, falling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

from torch import Tensor


class Step(NamedTuple):
    """The affine rule x' = base + gain * denoised, which lands at noise level `sigma_next` (docs/method.md, R3).

    gain: a number, or (B, 1, h, w) where it differs between pixels (inpainting).
    """

    base: Tensor
    gain: float | Tensor
    sigma_next: float

    def __call__(self, denoised: Tensor) -> Tensor:
        return self.base + self.gain * denoised


class Model(Protocol):
    def __call__(self, x: Tensor, sigma: float, step: Step) -> Tensor: ...


Callback = Callable[[int, float, Tensor, Tensor], None]
"""Called after each step with its index, sigma, the new x and the denoised estimate. It may raise Cancelled."""


def euler(model: Model, x: Tensor, sigmas: list[float], callback: Callback | None = None) -> Tensor:
    """Euler's method on dx/dσ = (x − D)/σ (Karras et al. 2022, algorithm 1 without churn)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        step = Step(x * (sigma_next / sigma), 1 - sigma_next / sigma, sigma_next)
        denoised = model(x, sigma, step)
        x = step(denoised)
        if callback:
            callback(i, sigma, x, denoised)
    return x


def ddim(
    model: Model,
    x: Tensor,
    sigmas: list[float],
    callback: Callback | None = None,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, their equations 12 and 16). With eta = 0 it is Euler's method in this parametrisation.

    `noise` draws standard normal noise shaped like x; it is needed when eta > 0.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        up = eta * sigma_next / sigma * max(sigma**2 - sigma_next**2, 0.0) ** 0.5
        down = (sigma_next**2 - up**2) ** 0.5
        base = x * (down / sigma)
        step = Step(base + up * noise() if up else base, 1 - down / sigma, sigma_next)
        denoised = model(x, sigma, step)
        x = step(denoised)
        if callback:
            callback(i, sigma, x, denoised)
    return x


def plms(model: Model, x: Tensor, sigmas: list[float], callback: Callback | None = None) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022): Adams–Bashforth up to order 4, its first step by the trapezoid rule.

    The first step evaluates the model twice, so n steps cost n + 1 evaluations.
    """
    weights = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
    slopes: list[Tensor] = []  # (x − D)/σ of past steps, newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        dt = sigma_next - sigma
        if slopes:
            ab = weights[min(len(slopes) + 1, 4)]
            past = sum(w * slope for w, slope in zip(ab[1:], slopes, strict=False))
            step = Step(x + dt * (ab[0] / sigma * x + past), -dt * ab[0] / sigma, sigma_next)
            denoised = model(x, sigma, step)
            slopes.insert(0, (x - denoised) / sigma)
        else:
            step = Step(x + dt / sigma * x, -dt / sigma, sigma_next)
            denoised = model(x, sigma, step)
            slopes.insert(0, (x - denoised) / sigma)
            if sigma_next > 0:
                ahead = step(denoised)
                step = Step(x + dt / 2 * (slopes[0] + ahead / sigma_next), -dt / 2 / sigma_next, sigma_next)
                denoised = model(ahead, sigma_next, step)
        x = step(denoised)
        del slopes[3:]
        if callback:
            callback(i, sigma, x, denoised)
    return x


def dpmpp_2m(model: Model, x: Tensor, sigmas: list[float], callback: Callback | None = None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), in λ = −log σ; the last step to σ = 0 is of first order."""
    previous, h_previous = None, None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        ratio = sigma_next / sigma
        base, gain, h = x * ratio, 1 - ratio, None
        if sigma_next > 0:
            h = math.log(sigma / sigma_next)
            if previous is not None:
                r = h_previous / h
                base, gain = base - (1 - ratio) / (2 * r) * previous, gain * (1 + 1 / (2 * r))
        step = Step(base, gain, sigma_next)
        denoised = model(x, sigma, step)
        x = step(denoised)
        previous, h_previous = denoised, h
        if callback:
            callback(i, sigma, x, denoised)
    return x


def ddpm(
    model: Model, x: Tensor, sigmas: list[float], callback: Callback | None = None, *, noise: Callable[[], Tensor]
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020): DDIM with eta = 1. `noise` draws standard normal noise shaped like x."""
    return ddim(model, x, sigmas, callback, eta=1.0, noise=noise)


SAMPLERS = {"euler": euler, "ddim": ddim, "plms": plms, "dpmpp_2m": dpmpp_2m}
STOCHASTIC = {"ddpm": ddpm}
"""Those that add noise in each step, and are given it."""
