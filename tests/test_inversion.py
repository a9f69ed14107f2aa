import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_diffusers_adapter import PROMPT, generate, with_scheduler

from realcompo_core.diffusers.inversion import invert
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.sampling.inversion import ddim_inversion, null_text_inversion, psnr
from realcompo_core.sampling.samplers import euler

SIGMAS = [14.0, 6.0, 2.5, 1.0, 0.4, 0.1, 0.0]
SHAPE = (1, 2, 3, 4)


def nonlinear(x, sigma):
    """A smooth D in float64."""
    return torch.tanh(x / (1 + sigma**2) ** 0.5 + 0.3)


def some(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photo(size=(40, 56)):
    """Width and height; a gradient and a disc."""
    y, x = np.mgrid[: size[1], : size[0]] / size[1]
    disc = (x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.05
    return Image.fromarray((np.stack([x, y, disc], -1).clip(0, 1) * 255).astype(np.uint8))


def test_a_fixed_point_is_undone_exactly():
    x = nonlinear(some(1, *SHAPE), 0.0) * 0.9  # what it can draw
    path = ddim_inversion(nonlinear, x, SIGMAS, refinements=400)
    again = []
    last = euler(lambda x, sigma, step: nonlinear(x, sigma), path[0], SIGMAS, lambda i, s, x, D: again.append(x))
    torch.testing.assert_close(last, x, rtol=0, atol=1e-9)
    for found, wanted in zip(again, path[1:], strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_without_refinements_it_is_the_papers_step():
    """In their latents z = √ᾱ x: z' = √(ᾱ'/ᾱ) z + √ᾱ' (√(1/ᾱ' - 1) - √(1/ᾱ - 1)) ε(z, t')."""
    x, seen = some(2, *SHAPE), []

    def estimate(x, sigma):
        seen.append((x, sigma))
        return nonlinear(x, sigma)

    path = ddim_inversion(estimate, x, [2.0, 0.5])
    (z_fed, sigma), (alpha, alpha_next) = seen[0], (1 / (1 + 0.5**2), 1 / (1 + 2.0**2))
    z = math.sqrt(alpha) * x
    assert sigma == 2.0
    torch.testing.assert_close(math.sqrt(alpha_next) * z_fed, z)
    noise = (z_fed - nonlinear(z_fed, sigma)) / sigma
    wanted = math.sqrt(alpha_next / alpha) * z
    wanted = wanted + math.sqrt(alpha_next) * (math.sqrt(1 / alpha_next - 1) - math.sqrt(1 / alpha - 1)) * noise
    torch.testing.assert_close(math.sqrt(alpha_next) * path[0], wanted)


def test_null_text_keeps_a_guided_run_on_the_path():
    """Unconditional estimates that a null text shifts: without it guidance leaves the path, with it hardly."""
    x, shift = nonlinear(some(3, *SHAPE), 0.0) * 0.9, some(4, 30, math.prod(SHAPE))

    def negative(x, sigma, null):
        return nonlinear(x, sigma) - 0.4 + (null.flatten().double() @ shift).reshape(x.shape)

    path, start = ddim_inversion(nonlinear, x, SIGMAS, refinements=400), torch.zeros(1, 30, 1)

    def end(nulls):
        waiting = iter(nulls)

        def guided(x, sigma, step):
            unconditional = negative(x, sigma, next(waiting))
            return unconditional + 3 * (nonlinear(x, sigma) - unconditional)

        return euler(guided, path[0], SIGMAS)

    nulls = null_text_inversion(nonlinear, negative, path, SIGMAS, start, 3.0, iterations=300)
    plain = (end([start] * 6) - x).square().mean()
    kept = (end(nulls) - x).square().mean()
    assert len(nulls) == 6 and kept < plain / 10


def test_the_first_move_of_a_null_text_is_adams():
    """Adam's first move is the rate times the sign of the gradient, here found by finite differences."""
    path, sigmas = [some(5, *SHAPE), some(6, *SHAPE)], [2.0, 0.5]

    def negative(x, sigma, null):
        return torch.sin(null.double().sum((1, 2)) * x)

    null = torch.full((1, 2, 1), 0.2)
    (found,) = null_text_inversion(nonlinear, negative, path, sigmas, null, 3.0, iterations=1)

    def loss(value):
        D = negative(path[0], 2.0, torch.full((1, 2, 1), value, dtype=torch.float64))
        D = D + 3 * (nonlinear(path[0], 2.0) - D)
        return (path[0] * 0.25 + 0.75 * D - path[1]).square().mean() / (1 + 0.5**2)

    slope = (loss(0.2 + 1e-5) - loss(0.2 - 1e-5)).sign()
    torch.testing.assert_close(found, null - 1e-2 * slope.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["fidelity", "sdxl"])
def test_a_picture_is_drawn_again(tiny_pipelines, name):
    pipeline = with_scheduler(getattr(tiny_pipelines, name), "ddim")
    found = invert(pipeline, photo(), PROMPT, steps=6, guidance_scale=1, refinements=20, height=64, width=48)
    assert found.reconstruction.size == found.picture.size == (48, 64) and found.nulls is None
    assert found.psnr > found.psnr_of_autoencoder - 0.1
    assert found.maps.branch().steps == list(range(6)) and found.maps.word("circle").shape[0] == 1
    guided = invert(pipeline, photo(), PROMPT, steps=6, guidance_scale=4, iterations=3, height=64, width=48)
    assert len(guided.nulls) == 6 and guided.maps.branch().conditionings == ["negative", "positive"]
    assert not torch.equal(guided.nulls[0], guided.nulls[5])


def test_the_noise_draws_the_picture_in_other_pipelines(tiny_pipelines):
    """diffusers' own pipeline, and the balanced one with the fidelity branch alone."""
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    found = invert(pipeline, photo(), PROMPT, steps=6, guidance_scale=1, refinements=20)
    (own,) = pipeline(PROMPT, latents=found.latents, num_inference_steps=6, guidance_scale=1).images
    settings = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
    options = {"steps": 6, "guidance_scale": 1.0, "sampler": "ddim", "balance": settings, "latents": found.latents}
    balanced = generate(pipeline, with_scheduler(tiny_pipelines.gligen, "ddim"), prompt=PROMPT, **options)
    for picture in (own, balanced.images[0]):
        assert np.abs(np.asarray(picture, int) - np.asarray(found.reconstruction, int)).max() <= 2


def test_no_weight_of_the_network_is_touched(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    before = {name: weight.clone() for name, weight in pipeline.unet.state_dict().items()}
    invert(pipeline, photo(), PROMPT, steps=2, guidance_scale=4, iterations=1)
    assert all(torch.equal(weight, before[name]) for name, weight in pipeline.unet.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in pipeline.unet.parameters())


def test_bad_input_is_named(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    for given, told in (
        ({"steps": 0}, "at least 1 step"),
        ({"refinements": -1}, "refinements -1"),
        ({"height": 60}, "divisible by 8"),
    ):
        with pytest.raises(RealCompoError, match=told):
            invert(pipeline, photo(), PROMPT, **given)
    with pytest.raises(RealCompoError, match="not finite"):
        ddim_inversion(lambda x, sigma: x * float("inf"), torch.ones(1, 1, 1, 1), [2.0, 1.0])
    with pytest.raises(RealCompoError, match="latents has shape"):
        generate(pipeline, with_scheduler(tiny_pipelines.gligen, "ddim"), latents=torch.zeros(2, 4, 8, 8))


def test_psnr_by_hand():
    assert psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)) == pytest.approx(20, abs=1e-4)
    assert psnr(torch.ones(1), torch.ones(1)) == math.inf
