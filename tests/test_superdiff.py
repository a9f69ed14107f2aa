import math

import pytest
import torch
from test_diffusers_adapter import generate, with_scheduler

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.schedule import Moment
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.superdiff import EqualDensities
from realcompo_core.sampling.samplers import ddpm, euler

SHAPE = (1, 2, 2)


class Gaussian:
    """The model of N(mean, spread² I), whose log-density at each noise level is known."""

    def __init__(self, mean: float, spread: float):
        self.name, self.mean, self.variance = f"gaussian {mean}", mean, spread**2
        self.conditional = None

    def acts_at(self, sigma):
        return True

    def moved(self, x, sigma):
        return x

    def denoise(self, x, sigma):
        self.conditional = (self.variance * x + sigma**2 * self.mean) / (self.variance + sigma**2)
        return self.conditional

    def log_density(self, x):
        """(B,), at noise level 0, without the constant that all Gaussians of this spread share."""
        n = math.prod(SHAPE)
        return -(x - self.mean).square().flatten(1).sum(1) / 2 / self.variance - n / 2 * math.log(self.variance)


def run(sampler, batch=16, steps=400, **settings):
    """Final latents and the balancer of two Gaussians of unlike spread, so that equal weights favour one."""
    generator = torch.Generator().manual_seed(1)

    def noise():
        return torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)

    branches = [Gaussian(-1.0, 0.6), Gaussian(1.0, 1.2)]
    sigmas = [*torch.logspace(math.log10(60), -2, steps, dtype=torch.float64).tolist(), 0.0]
    objects, settings = torch.ones(batch, *SHAPE[1:]), BalanceSettings(t1=1, **settings)
    balancer = Balancer(branches, sigmas, range(batch), objects, settings)
    x = sampler(balancer, 60 * noise(), sigmas, **({"noise": noise} if sampler is ddpm else {}))
    notes = balancer.finish()
    return x, branches, balancer, notes


def test_the_picture_is_as_likely_under_both():
    x, (one, other), _, notes = run(ddpm, rule="superdiff")
    apart = (one.log_density(x) - other.log_density(x)).abs()
    x, _, _, _ = run(ddpm, fixed=torch.tensor([0.5, 0.5]))
    of_equal_weights = (one.log_density(x) - other.log_density(x)).abs()
    assert not notes
    assert apart.mean() < of_equal_weights.mean() / 3


def test_weights_are_the_papers_closed_form():
    """Their equation, in plain loops: one weight such that both log-densities change alike, from what is known."""
    generator = torch.Generator().manual_seed(3)

    def some(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    densities, path, seen = EqualDensities(), [], set()
    levels = torch.logspace(0.6, -0.6, 13).tolist()
    for index, (sigma, sigma_next) in enumerate(zip(levels, levels[1:], strict=False)):
        x, conditional = some(2, *SHAPE), some(2, 2, *SHAPE)
        D = conditional + 3 * (conditional - some(2, 1, *SHAPE))  # guided away from one unconditional estimate
        if index == 1:  # a sampler's tentative latent counts no more than the last one of its step
            densities.weights(some(2, *SHAPE), Moment(index, 2.8, 0.0, 8.84), sigma_next, D, conditional)
        found = densities.weights(x, Moment(index, sigma, 0.0, 1 + sigma**2), sigma_next, D, conditional)
        path.append((x, conditional, sigma, sigma_next))
        for b in range(2):
            lead = 0.0
            for (x_a, of_a, s_a, s_b), (x_b, *_) in zip(path, path[1:], strict=False):
                for k, sign in ((0, 1), (1, -1)):
                    score = ((of_a[b, k] - x_a[b]) / s_a**2).flatten().tolist()
                    dx = (x_b[b] - x_a[b]).flatten().tolist()
                    change = sum(p * q for p, q in zip(dx, score, strict=True))
                    lead += sign * (change - (s_a**2 - s_b**2) / 2 * sum(p * p for p in score))
            variance = sigma**2 - sigma_next**2
            scores = [((conditional[b, k] - x[b]) / sigma**2).flatten().tolist() for k in range(2)]
            guided = [((D[b, k] - x[b]) / sigma**2).flatten().tolist() for k in range(2)]
            kappa = float(found[b, 0])
            mean_step = [variance * (kappa * p + (1 - kappa) * q) for p, q in zip(*guided, strict=True)]
            ends = [
                sum(d * p for d, p in zip(mean_step, score, strict=True)) - variance / 2 * sum(p * p for p in score)
                for score in scores
            ]
            slope = sum((p - q) * (s - t) for p, q, s, t in zip(*guided, *scores, strict=True))
            left = lead + ends[0] - ends[1]  # it rises with kappa where slope is above 0
            seen.add(kappa if kappa in (0.0, 0.5, 1.0) else "between")
            if slope <= 0:
                assert kappa == 0.5
            elif kappa in (0.0, 1.0):  # there is no weight of 0..1 that does it: the nearest
                assert (left > 0) == (kappa == 0)
            else:
                assert left == pytest.approx(0, abs=1e-9)
    assert {"between", 0.0, 1.0} <= seen, seen


def test_branches_that_say_the_same_have_equal_weights():
    D = torch.randn(1, 1, *SHAPE).expand(1, 2, *SHAPE)
    weights = EqualDensities().weights(torch.randn(1, *SHAPE), Moment(0, 2.0, 0.0, 5.0), 1.0, D, D)
    assert weights.flatten().tolist() == [0.5, 0.5]


def test_a_sampler_without_noise_is_told():
    _, _, balancer, notes = run(euler, steps=20, rule="superdiff")
    assert "adds" in notes[0] and "ancestral" in balancer.trace.note


def test_what_it_is_not_for_is_refused(tiny_pipelines):
    with pytest.raises(RealCompoError, match="one_pass"):
        BalanceSettings(rule="superdiff", mode="lookahead")
    three = [Gaussian(k, 1.0) for k in range(3)]
    with pytest.raises(RealCompoError, match="there are 3"):
        Balancer(three, [1.0, 0.0], [0], torch.ones(1, 2, 2), BalanceSettings(rule="superdiff"))
    settings = BalanceSettings(rule="superdiff", layout_guidance=LayoutGuidance())
    fidelity = with_scheduler(tiny_pipelines.fidelity, "ddim")
    with pytest.raises(RealCompoError, match="Layout Guidance moves that of the spatial branch"):
        generate(fidelity, with_scheduler(tiny_pipelines.gligen, "ddim"), balance=settings, sampler="ddpm")


def test_items_of_a_batch_have_noise_and_weights_of_their_own(tiny_pipelines):
    fidelity, spatial = (with_scheduler(p, "ddim") for p in (tiny_pipelines.fidelity, tiny_pipelines.gligen))
    options = {"balance": BalanceSettings(rule="superdiff", t1=1.0), "sampler": "ddpm"}
    prompt = "a red circle to the left of a blue square"
    both = generate(fidelity, spatial, prompt=[prompt, prompt], seed=3, **options)
    second = generate(fidelity, spatial, prompt=prompt, seed=4, **options)
    assert both.trace.note == "" and not torch.equal(both.latents[0], both.latents[1])
    torch.testing.assert_close(both.latents[1], second.latents[0], rtol=1e-4, atol=1e-4)
    weights = both.trace.by_step[-1].weights
    assert weights.shape[1] == 2 and (weights.sum(1) - 1).abs().max() < 1e-5
