"""From a picture back to the noise that DDIM draws it from (docs/method.md, R16).

Noise levels and estimates as in `samplers.py`: x = signal + sigma · noise, `sigmas` falls, D is the denoised estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RealCompoError

Estimate = Callable[[Tensor, float], Tensor]
"""D at x and sigma."""
RATE = 1e-2  # of Adam, falling to half over the steps (Mokady et al.)
CLOSE, CLOSE_AT_END = 1e-5, 1e-3  # mean squared distance at which a step is left, rising over the steps (theirs)
LOSS_SCALE = 1024  # gradients of a network in fp16 would underflow


def ddim_inversion(
    estimate: Estimate,
    x: Tensor,
    sigmas: Sequence[float],
    refinements: int = 0,
    callback: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """The latents at all of `sigmas`, in their order, on a path whose DDIM steps end in x, the latent at the last.

    Each step is undone with the noise that is seen at the end of it (Mokady et al. 2023, section 3.1), and then,
    `refinements` times, with the noise that is seen at the beginning so found: a fixed point is undone exactly. A step
    costs 1 + refinements evaluations. `callback` is called after each step with how many are done.
    """
    path = [x]
    steps = len(sigmas) - 1
    for done, i in enumerate(reversed(range(steps)), start=1):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        end = path[-1]
        start = end * ((sigma**2 + 1) / (sigma_next**2 + 1)) ** 0.5  # of the same variance at the higher level
        for _ in range(1 + refinements):
            noise = (start - estimate(start, sigma)) / sigma
            start = end + (sigma - sigma_next) * noise
        path.append(start)
        if callback:
            callback(done)
    if not path[-1].isfinite().all():
        raise RealCompoError(
            "inversion went away from the picture: its noise has values that are not finite. Take fewer refinements, "
            "more steps, or a model in full precision"
        )
    return path[::-1]


def null_text_inversion(
    positive: Estimate,
    negative: Callable[[Tensor, float, Tensor], Tensor],
    path: Sequence[Tensor],
    sigmas: Sequence[float],
    null: Tensor,
    guidance_scale: float,
    iterations: int = 10,
    callback: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Encodings of the unconditional text, one a step, with which guided DDIM stays on `path` (Mokady et al. 2023).

    path: what `ddim_inversion` found without guidance. negative: D at x and sigma for an unconditional encoding, in
    which it is differentiable; null: (1, T, d), the first of them. At each step it is moved by Adam, `iterations` times
    at most, until the step ends where the path goes on (their equation 3). Called in inference mode or not: autograd
    is on inside.
    """
    steps, nulls, x = len(sigmas) - 1, [], path[0]
    with torch.inference_mode(False), torch.enable_grad():
        null = null.detach().clone().float()
        for i in range(steps):
            sigma, sigma_next = sigmas[i], sigmas[i + 1]
            unit = (sigma_next**2 + 1) ** -0.5  # to the scale in which latents have unit variance
            with torch.no_grad():
                x, wanted, conditional = x.clone(), path[i + 1].clone(), positive(x, sigma).clone()
            null = null.detach().clone().requires_grad_(True)
            adam = torch.optim.Adam([null], lr=RATE * (1 - i / steps / 2))

            def end(unconditional: Tensor, x=x, conditional=conditional, ratio=sigma_next / sigma) -> Tensor:
                guided = unconditional + guidance_scale * (conditional - unconditional)
                return x * ratio + (1 - ratio) * guided

            for _ in range(iterations):
                loss = F.mse_loss(unit * end(negative(x, sigma, null)), unit * wanted)
                if loss < CLOSE + (CLOSE_AT_END - CLOSE) * i / steps:
                    break
                (gradient,) = torch.autograd.grad(LOSS_SCALE * loss, null)
                null.grad = gradient / LOSS_SCALE
                adam.step()
            with torch.no_grad():
                x = end(negative(x, sigma, null))
            nulls.append(null.detach())
            if callback:
                callback(i + 1)
    return nulls


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels of two pictures with values in 0..1; infinite where they are the same."""
    error = F.mse_loss(one.double(), other.double())
    return float(-10 * error.log10())
