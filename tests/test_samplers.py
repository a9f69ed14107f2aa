import math

import pytest
import torch

from realcompo_core.sampling.samplers import SAMPLERS, ddim, euler, plms

SPREAD = 0.7  # data are N(0, SPREAD²): D and the ODE's solution are then known in closed form


def gaussian_model(x, sigma, step):
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def exact(x, sigma, sigma_next):
    return x * math.sqrt((SPREAD**2 + sigma_next**2) / (SPREAD**2 + sigma**2))


def even(n, start=4.0, end=0.5):
    return torch.linspace(start, end, n + 1, dtype=torch.float64).tolist()


def geometric(n, start=4.0, end=0.5):
    return [start * (end / start) ** (i / n) for i in range(n + 1)]


def error(sampler, sigmas):
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return abs(sampler(gaussian_model, x, sigmas) - exact(x, sigmas[0], sigmas[-1])).item()


@pytest.mark.parametrize(
    "name, grid, order", [("euler", even, 1), ("ddim", even, 1), ("dpmpp_2m", geometric, 2), ("plms", even, 3)]
)
def test_error_falls_with_the_order_of_the_sampler(name, grid, order):
    coarse, fine = (error(SAMPLERS[name], grid(n)) for n in (80, 160))
    assert coarse / fine > 0.85 * 2**order


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling_to_zero_reaches_the_data_distribution(name):
    """All of the way to σ = 0, on the spacing that models use (denser at low noise)."""
    sigmas = [*(14.6 * (0.03 / 14.6) ** (i / 99) for i in range(100)), 0.0]
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[None, None, None] * sigmas[0]
    torch.testing.assert_close(SAMPLERS[name](gaussian_model, x, sigmas), exact(x, sigmas[0], 0), rtol=0.06, atol=0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("end", [0.0, 0.03])
def test_step_is_the_rule_that_the_sampler_then_follows(name, end):
    torch.manual_seed(0)
    arrivals, visited, levels = [], [], []

    def model(x, sigma, step):
        visited.append(x)
        levels.append((sigma, step.sigma_next))
        denoised = torch.tanh(x) + sigma * x.roll(1)
        arrivals.append(step.base + step.gain * denoised)
        return denoised

    sigmas = [7.0, 3.0, 1.0, 0.4, 0.1, end]
    last = SAMPLERS[name](model, torch.randn(2, 3, 4, 5), sigmas)
    for arrived, (_, landed), following, (sigma, _) in zip(arrivals, levels, visited[1:], levels[1:], strict=False):
        assert torch.equal(arrived, following) and landed == sigma
    assert torch.equal(arrivals[-1], last) and levels[-1] == (0.1, end)


def test_plms_costs_one_evaluation_more_than_it_has_steps():
    levels = []
    plms(lambda x, sigma, step: levels.append(sigma) or 0 * x, torch.ones(1, 1, 1, 1), [4.0, 2.0, 1.0, 0.0])
    assert levels == [4.0, 2.0, 2.0, 1.0]


def test_ddim_without_noise_is_euler():
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ddim(gaussian_model, x, even(10)), euler(gaussian_model, x, even(10)))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_noise_keeps_the_variance(eta):
    generator = torch.Generator().manual_seed(2)
    sigmas = geometric(200, end=0.1)
    shape = (1, 1, 200, 200)
    x = torch.randn(shape, generator=generator) * math.sqrt(SPREAD**2 + sigmas[0] ** 2)
    out = ddim(gaussian_model, x, sigmas, eta=eta, noise=lambda: torch.randn(shape, generator=generator))
    assert out.std().item() == pytest.approx(math.sqrt(SPREAD**2 + sigmas[-1] ** 2), rel=0.03)
    corr = torch.corrcoef(torch.stack([x.flatten(), out.flatten()]))[0, 1]
    assert corr < 0.95  # the noise is not that of the start


@pytest.mark.parametrize("name", SAMPLERS)
def test_callback_sees_every_step_once_and_can_end_the_run(name):
    seen = []

    def callback(i, sigma, x, denoised):
        seen.append((i, sigma))
        if i == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        SAMPLERS[name](gaussian_model, torch.ones(1, 1, 1, 1), even(5), callback)
    assert seen == list(enumerate(even(5)))[:3]
