import math

import pytest
import torch

from realcompo_core.attention.losses import Objective
from realcompo_core.attention.reading import Gradient, GradientReader
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.attention.targets import object_targets
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.presets import DEFAULT, PRESETS, preset
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.sampling.samplers import SAMPLERS, Step, euler

CHANNELS, WIDTH, TOKENS, HEADS = 3, 8, 5, 2
SIZE = (4, 6)
SIGMAS = [5.0, 3.0, 1.8, 1.0, 0.4, 0.0]
GROUPS = [[1], [3, 4]]
LAYER = Layer("only", "only", "decoder", 0, 0, 1, HEADS)
REGIONS = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class TinyBranch:
    """A float64 network with one cross-attention layer, as the balancer's protocol wants it."""

    def __init__(self, seed: int):
        generator = torch.Generator().manual_seed(seed)

        def matrix(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.name = f"tiny {seed}"
        self.enter, self.leave = matrix(CHANNELS, WIDTH), matrix(WIDTH, CHANNELS)
        self.to_q, self.text, self.values = matrix(WIDTH, WIDTH), matrix(TOKENS, WIDTH), matrix(TOKENS, WIDTH)
        self.targets = object_targets([GROUPS], [lambda height, width: REGIONS])
        self.calls = []

    def queries_keys(self, x, sigma):
        hidden = torch.tanh(x.flatten(2).mT @ self.enter / (1 + sigma))
        return tuple(m.unflatten(-1, (HEADS, -1)).transpose(1, 2) for m in (hidden @ self.to_q, self.text[None]))

    def network(self, x, sigma, q, k):
        attention = (q @ k.mT / math.sqrt(WIDTH // HEADS)).softmax(-1).mean(1)
        return (torch.tanh(attention @ self.values) @ self.leave).mT.unflatten(-1, x.shape[-2:])

    def D(self, x, sigma):
        return x / (1 + sigma**2) + self.network(x, sigma, *self.queries_keys(x, sigma))

    def acts_at(self, sigma):
        return True

    def moved(self, x, sigma):
        return x

    def denoise(self, x, sigma):
        self.calls.append("denoise")
        with torch.no_grad():
            return self.D(x, sigma)

    def gradient(self, x, sigma, objective=None):
        self.calls.append("gradient")
        with GradientReader(x, objective or Objective([LAYER], self.targets), stop=True) as reader:
            q, k = self.queries_keys(reader.x, sigma)
            scale, text = q.shape[-1] ** -0.5, slice(0, TOKENS)
            reader.read(AttentionEvent(LAYER, "positive", q, k, scale, text, SIZE, "lookahead"))
        return reader.gradient

    def denoise_with_gradient(self, x, sigma):
        return self.denoise(x, sigma), self.gradient(x, sigma)


def loss(branch, x, sigma):
    """The grounding loss (docs/method.md, R5), written out."""
    q, k = branch.queries_keys(x, sigma)
    probabilities = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), -1).mean(1)
    total = 0
    for group, region in zip(GROUPS, REGIONS, strict=True):
        tokens = [probabilities[:, :, t] / probabilities[:, :, t].sum(1, keepdim=True) for t in group]
        mean = sum(tokens) / len(tokens)
        total = total + (1 - (mean * region.flatten()).sum(1) / mean.sum(1)).sum()
    return total


def start(batch=1):
    return torch.randn(batch, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 5


def run(branches, x, sampler=euler, sigmas=SIGMAS, objects=None, seeds=None, **settings):
    """Balances at every step, from equal weights, if `settings` do not say otherwise."""
    settings = {"initial": "zero", "t1": 1.0} | settings
    objects = torch.ones(len(x), *SIZE) if objects is None else objects
    balancer = Balancer(branches, sigmas, seeds or range(len(x)), objects, BalanceSettings(**settings))
    return sampler(balancer, x, sigmas), balancer.trace


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("mode", ["lookahead", "one_pass"])
@pytest.mark.parametrize("sources", [None, (1,)])
def test_coefficients_move_by_the_gradient_that_autograd_finds(mode, K, sources):
    """A reference run in which autograd goes through softmax, mixing, Euler's step and the networks."""
    branches = [TinyBranch(seed) for seed in range(K)]
    rate = 1e-4  # times the official 1e6
    _, trace = run(branches, start(2), mode=mode, rule="official", rate=rate, update_until=1, sources=sources)
    driving = [branches[k] for k in sources or range(K)]

    def moved(c, x_later, sigma_later, i):
        (grad,) = torch.autograd.grad(sum(loss(branch, x_later, sigma_later) for branch in driving), c)
        return (c - rate * 1e6 * math.sqrt(1 - 0.5 * i / (len(SIGMAS) - 1)) * grad).detach()

    def mixed(c, x, sigma):
        return sum(
            w[:, None] * branch.D(x, sigma).detach() for w, branch in zip(c.softmax(1).unbind(1), branches, strict=True)
        )

    def stepped(c, x, sigma, sigma_next):
        return x + (sigma_next - sigma) * (x - mixed(c, x, sigma)) / sigma

    x, c = start(2), torch.zeros(2, K, *SIZE, dtype=torch.float64)
    previous = None
    for i, (sigma, sigma_next) in enumerate(zip(SIGMAS, SIGMAS[1:], strict=False)):
        c = c.requires_grad_()
        if mode == "lookahead" and sigma_next > 0:
            c = moved(c, stepped(c, x, sigma, sigma_next), sigma_next, i)
        if mode == "one_pass" and previous is not None:
            c = moved(c, stepped(c, *previous), sigma, i)
        torch.testing.assert_close(trace.steps[i].coefficients, c.detach(), rtol=1e-9, atol=1e-11)
        previous = (x, sigma, sigma_next)
        x = stepped(c, *previous).detach()
    assert trace.steps[-1].coefficients.abs().max() > 0.1  # it moved far enough for the comparison to mean something


def test_presets_drive_by_the_spatial_branches_alone_however_many():
    assert set(PRESETS) == {"fast", "balanced", "best"} and DEFAULT in PRESETS
    for K in (2, 3):
        _, trace = run([TinyBranch(k) for k in range(K)], start(), sources="spatial")
        assert trace.sources == tuple(range(1, K))
        losses = trace.read_steps[0].losses
        assert losses[:, 0].isnan().all() and losses[:, 1:].isfinite().all()
    with pytest.raises(RealCompoError, match="fast, balanced, best"):
        preset("fastest")


class Ending(TinyBranch):
    """A branch that has nothing to say below a noise level."""

    def acts_at(self, sigma):
        return sigma > 1.5


@pytest.mark.parametrize("settings", [{"mode": "one_pass"}, {"mode": "lookahead"}, {"fixed": torch.tensor([0.3, 0.7])}])
def test_a_branch_that_says_nothing_has_no_weight_and_is_not_run(settings):
    branches = [TinyBranch(0), Ending(1)]
    _, trace = run(branches, start(), **settings)
    for step in trace.steps:
        assert (step.weights[:, 1].max() > 0) == (step.sigma > 1.5)
        torch.testing.assert_close(step.weights.sum(1), torch.ones(1, *SIZE, dtype=torch.float64))
    assert branches[1].calls.count("denoise") == 3
    first = [TinyBranch(0), TinyBranch(1)]
    _, whole = run(first, start(), **settings)
    torch.testing.assert_close(whole.steps[1].weights, trace.steps[1].weights)
    _, swapped = run([Ending(1), TinyBranch(0)], start(), **settings)
    assert swapped.steps[-1].weights[:, 0].max() == 0


def test_a_noise_level_at_which_no_branch_acts_is_refused():
    with pytest.raises(RealCompoError, match="no branch"):
        run([Ending(0), Ending(1)], start())


class Unread(TinyBranch):
    """A branch whose maps cannot be read."""

    def gradient(self, x, sigma, objective=None):
        return None


@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
def test_maps_that_cannot_be_read_leave_the_coefficients_to_the_others(mode):
    _, nobody = run([Unread(0), Unread(1)], start(), mode=mode)
    assert not any(step.coefficients.any() for step in nobody.steps) and not nobody.read_steps
    _, one = run([TinyBranch(0), Unread(1)], start(), mode=mode)
    _, chosen = run([TinyBranch(0), TinyBranch(1)], start(), mode=mode, sources=(0,))
    torch.testing.assert_close(one.steps[-1].coefficients, chosen.steps[-1].coefficients)
    assert one.read_steps[0].losses[:, 1].isnan().all()


class Broken(TinyBranch):
    """A branch that gives NaN from the third step on, for the given part of what it says."""

    def __init__(self, seed, part):
        super().__init__(seed)
        self.part = part

    def D(self, x, sigma):
        return super().D(x, sigma) * (math.nan if self.part == "prediction" and sigma < 2 else 1)

    def gradient(self, x, sigma, objective=None):
        found = super().gradient(x, sigma, objective)
        return found._replace(g=found.g * math.inf) if self.part == "gradient" and sigma < 2 else found


@pytest.mark.parametrize("part", ["prediction", "gradient"])
def test_values_that_are_not_finite_name_branch_and_step(part):
    for settings in ({"mode": "one_pass"}, {"fixed": torch.tensor([0.5, 0.5])})[: 1 + (part == "prediction")]:
        with pytest.raises(RealCompoError, match=f"branch tiny 1, step 2 of 5.*{part}.*not finite"):
            run([TinyBranch(0), Broken(1, part)], start(), **settings)


@pytest.mark.parametrize("name", SAMPLERS)
def test_lookahead_gradient_goes_through_each_samplers_own_step(name):
    branches = [TinyBranch(seed) for seed in range(2)]
    steps = []

    class Watched(Balancer):
        def __call__(self, x, sigma, step):
            before = torch.zeros(1, 2, *SIZE, dtype=torch.float64) if self._c is None else self._c
            denoised = super().__call__(x, sigma, step)
            steps.append((x, sigma, step, before, self._c))
            return denoised

    settings = BalanceSettings(mode="lookahead", rule="official", rate=1e-4, initial="zero", t1=1)
    SAMPLERS[name](Watched(branches, SIGMAS, [0], torch.ones(1, *SIZE), settings), start(), SIGMAS)
    moved = set()
    for x, sigma, step, before, after in steps:
        if step.sigma_next == 0:
            continue
        index = SIGMAS.index(sigma)
        if index in moved:  # plms evaluates the second level twice
            assert torch.equal(after, before)
            continue
        moved.add(index)
        c = before.clone().requires_grad_()
        D = torch.stack([branch.D(x, sigma).detach() for branch in branches])
        ahead = step.base + step.gain * (c.softmax(1)[0, :, None] * D[:, 0]).sum(0)
        (grad,) = torch.autograd.grad(sum(loss(branch, ahead, step.sigma_next) for branch in branches), c)
        expected = before - 100 * math.sqrt(1 - 0.5 * index / 5) * grad
        torch.testing.assert_close(after, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("alone", [0, 1, 2])
def test_branch_of_weight_1_samples_as_if_alone(name, alone):
    branches = [TinyBranch(seed) for seed in range(3)]
    own = SAMPLERS[name](lambda x, sigma, step: branches[alone].denoise(x, sigma), start(2), SIGMAS)
    mixed, _ = run(branches, start(2), SAMPLERS[name], fixed=torch.eye(3)[alone])
    assert torch.equal(mixed, own)


@pytest.mark.parametrize("mode", ["lookahead", "one_pass"])
def test_order_of_the_branches_does_not_matter(mode):
    branches, order = [TinyBranch(seed) for seed in range(3)], [2, 0, 1]
    x, trace = run(branches, start(2), mode=mode)
    permuted, permuted_trace = run([branches[k] for k in order], start(2), mode=mode)
    torch.testing.assert_close(permuted, x)
    for step, permuted_step in zip(trace.steps, permuted_trace.steps, strict=True):
        torch.testing.assert_close(permuted_step.coefficients, step.coefficients[:, order])
    assert trace.steps[-1].coefficients.abs().max() > 0.1


@pytest.mark.parametrize("mode", ["lookahead", "one_pass"])
@pytest.mark.parametrize("initial", ["zero", "random"])
def test_item_of_a_batch_is_that_item_alone(mode, initial):
    branches = [TinyBranch(0), TinyBranch(1)]
    x = start(3)
    together, trace = run(branches, x, mode=mode, initial=initial, seeds=[5, 6, 7])
    for b in range(3):
        alone, trace_alone = run(branches, x[b : b + 1], mode=mode, initial=initial, seeds=[5 + b])
        torch.testing.assert_close(together[b : b + 1], alone)
        torch.testing.assert_close(trace.steps[-1].coefficients[b], trace_alone.steps[-1].coefficients[0])


def test_random_coefficients_are_drawn_per_seed():
    def first(seeds, initial="random"):
        return run([TinyBranch(0), TinyBranch(1)], start(2), initial=initial, seeds=seeds)[1].steps[0].coefficients

    assert torch.equal(first([1, 2]), first([1, 2]))
    assert not torch.equal(first([1, 2])[0], first([1, 2])[1])
    assert torch.equal(first([1, 2])[1], first([2, 1])[0])
    assert not first([1, 2], "zero").any()


def test_random_coefficients_are_not_the_latent_noise_of_the_same_seed():
    coefficients = run([TinyBranch(0), TinyBranch(1)], start(), initial="random", seeds=[3])[1].steps[0].coefficients[0]
    noise = torch.randn(CHANNELS, *SIZE, generator=torch.Generator().manual_seed(3)).double()
    assert not torch.allclose(coefficients, noise[:2])


class Stub:
    """D is a constant; the gradient is given."""

    def __init__(self, value=0.0, g=0.0):
        self.name, self.value, self.g = f"stub {value}", value, g
        self.denoised, self.read = [], []

    def acts_at(self, sigma):
        return True

    def moved(self, x, sigma):
        return x

    def denoise(self, x, sigma):
        self.denoised.append(sigma)
        return torch.full_like(x, self.value)

    def gradient(self, x, sigma, objective=None):
        self.read.append(sigma)
        return Gradient(self.g + torch.zeros_like(x), torch.zeros(len(x), 1), torch.zeros(len(x), 1, *x.shape[-2:]))

    def denoise_with_gradient(self, x, sigma):
        return self.denoise(x, sigma), self.gradient(x, sigma)


TEN = [float(s) for s in range(10, -1, -1)]


def run_stubs(*branches, batch=1, **settings):
    return run(branches, torch.ones(batch, CHANNELS, *SIZE), sigmas=TEN, **settings)


def test_spatial_branches_work_alone_before_t0():
    fidelity, *spatial = branches = Stub(1), Stub(2), Stub(4)
    _, trace = run_stubs(*branches, t0=0.4)
    assert fidelity.denoised == [6, 5, 4, 3, 2, 1]
    assert all(branch.denoised == TEN[:-1] for branch in spatial)
    assert trace.steps[3].weights[0, :, 0, 0].tolist() == [0, 0.5, 0.5]
    assert trace.steps[3].coefficients is None and trace.steps[4].coefficients is not None


def test_fidelity_branch_finishes_alone_after_t1():
    fidelity, spatial = branches = Stub(1), Stub(2)
    _, trace = run_stubs(*branches, t1=0.6)
    assert fidelity.denoised == TEN[:-1] and spatial.denoised == TEN[:6]
    assert trace.steps[6].weights[0, :, 0, 0].tolist() == [1, 0]


def test_layout_start_favours_the_spatial_branches_on_the_objects():
    objects = torch.zeros(2, *SIZE)
    objects[0, 1, 2], objects[1, 0, 0] = 1, 0.5
    _, trace = run_stubs(Stub(1), Stub(2), Stub(3), batch=2, objects=objects, initial="layout")
    start = trace.steps[0].coefficients
    assert not start[:, 0].any() and torch.equal(start[:, 1], start[:, 2])
    assert start[0, 1, 1, 2] == 1 and start[0, 1, 0, 0] == -0.5 and start[1, 1, 0, 0] == 0.25


@pytest.mark.parametrize(
    "mode, settings, levels",
    [
        ("lookahead", {"update_every": 1}, [9, 8, 7, 6, 5, 4, 3, 2, 1]),  # no look ahead to σ = 0
        ("lookahead", {"update_every": 3}, [9, 6, 3]),
        ("lookahead", {"update_until": 0.3}, [9, 8, 7]),
        ("lookahead", {"update_until": 0}, []),
        ("lookahead", {"t0": 0.8}, [1]),
        ("one_pass", {"update_every": 1}, [9, 8, 7, 6, 5, 4, 3, 2, 1]),  # nothing to credit at first
        ("one_pass", {"update_every": 3}, [7, 4, 1]),
        ("one_pass", {"update_until": 0.3}, [9, 8]),
        ("one_pass", {"t0": 0.8}, [1]),
    ],
)
def test_maps_are_read_at_these_noise_levels(mode, settings, levels):
    branches = Stub(1), Stub(2)
    _, trace = run_stubs(*branches, mode=mode, **settings)
    assert branches[0].read == branches[1].read == levels
    assert len(trace.read_steps) == len(levels)


@pytest.mark.parametrize("mode", ["lookahead", "one_pass"])
def test_only_the_sources_are_read(mode):
    branches = Stub(1), Stub(2, g=1.0)
    _, trace = run_stubs(*branches, mode=mode, sources=(1,))
    assert branches[0].read == [] and len(branches[1].read) > 3
    assert trace.read_steps[0].gradient[0, 0].isnan() and trace.read_steps[0].gradient[0, 1] == 1


def test_no_branch_is_run_more_often_than_the_method_needs():
    branches = Stub(1), Stub(2)
    run_stubs(*branches, mode="one_pass")
    assert branches[0].denoised == branches[1].denoised == TEN[:-1]


@pytest.mark.parametrize(
    "rule, size", [("max", lambda c: c.abs().amax((1, 2, 3))), ("rms", lambda c: c.std((1, 2, 3)))]
)
def test_normalised_step_has_the_size_of_the_rate_whatever_the_scale_of_the_loss(rule, size):
    g = torch.randn(2, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(0))
    g[1] *= 1e-7  # sample by sample

    def first_move(scale):
        branches = Stub(1), Stub(3, g=scale * g)
        steps = run_stubs(*branches, batch=2, mode="lookahead", rule=rule, rate=0.3)[1].steps
        return steps[0].coefficients

    torch.testing.assert_close(size(first_move(1.0)), torch.full((2,), 0.3), rtol=0.03, atol=0)
    torch.testing.assert_close(first_move(1.0), first_move(1e-6))


@pytest.mark.parametrize("rule", ["max", "rms", "official"])
def test_coefficients_stay_where_the_loss_has_no_gradient(rule):
    _, trace = run_stubs(Stub(1), Stub(2), rule=rule)
    assert all(not step.coefficients.any() for step in trace.steps)


def test_weight_goes_to_the_branch_that_lowers_the_loss():
    """Where ∂L/∂x is positive a lower D is better, so the branch of the lower D must gain."""
    _, trace = run_stubs(Stub(1, g=1.0), Stub(2), mode="lookahead")
    weights = trace.steps[0].weights[0, :, 0, 0]
    assert weights[0] > 0.6 and weights.sum() == pytest.approx(1)


def test_fixed_weights_may_be_a_constant_a_map_or_a_schedule():
    def denoised(fixed):
        branches = Stub(1), Stub(3)
        balancer = Balancer(branches, TEN, [0], torch.ones(1, *SIZE), BalanceSettings(fixed=fixed))
        x = torch.ones(1, CHANNELS, *SIZE)
        results = [balancer(x, sigma, Step(x, 1.0, sigma - 1)) for sigma in TEN[:-1]]
        assert not any(branch.read for branch in branches)
        return results

    assert torch.equal(denoised(torch.tensor([0.25, 0.75]))[0], torch.full((1, CHANNELS, *SIZE), 2.5))
    left = torch.zeros(*SIZE)
    left[:, :3] = 1
    by_map = denoised(torch.stack([left, 1 - left]))[0]
    assert (by_map[..., :3] == 1).all() and (by_map[..., 3:] == 3).all()
    scheduled = denoised(lambda progress: torch.tensor([progress, 1 - progress]))
    assert [d[0, 0, 0, 0].item() for d in scheduled] == pytest.approx([3 - 2 * i / 10 for i in range(10)])


@pytest.mark.parametrize("schedule", [False, True])
def test_weights_by_region_are_each_items_own(schedule):
    objects = torch.zeros(2, *SIZE)
    objects[0, 0, 0], objects[1, 0, 0] = 1, 0.5
    fixed = RegionWeights(0.8, 0.2)
    _, trace = run_stubs(
        Stub(1), Stub(2), Stub(3), batch=2, objects=objects, fixed=(lambda progress: fixed) if schedule else fixed
    )
    weights = trace.steps[0].weights
    torch.testing.assert_close(weights[0, :, 0, 0], torch.tensor([0.2, 0.4, 0.4]))
    torch.testing.assert_close(weights[1, :, 0, 0], torch.tensor([0.5, 0.25, 0.25]))
    torch.testing.assert_close(weights[:, :, 1, 1], torch.tensor([0.8, 0.1, 0.1]).expand(2, 3))


def test_weights_by_region_are_shares():
    with pytest.raises(RealCompoError, match=r"inside=1.5.*from 0 to 1"):
        BalanceSettings(fixed=RegionWeights(1.5, 0.0))


def test_an_evaluation_below_the_last_level_belongs_to_the_last_step():
    balancer = Balancer([Stub(1), Stub(2)], TEN, [0], torch.ones(1, *SIZE))
    x = torch.ones(1, CHANNELS, *SIZE)
    balancer(x, 0.5, Step(x, 1.0, 0.0))
    assert balancer.trace.steps[0].index == 9


def test_layout_without_objects_leaves_the_fidelity_branch_alone_and_says_so():
    branches = Stub(1), Stub(2)
    _, trace = run_stubs(*branches, objects=torch.zeros(1, *SIZE))
    assert branches[0].denoised == TEN[:-1] and branches[1].denoised == []
    assert "no objects" in trace.note and "fidelity" in trace.note
    assert run_stubs(*branches)[1].note == ""


@pytest.mark.parametrize("settings", [{}, {"mode": "lookahead"}, {"t0": 0.5}, {"fixed": torch.tensor([0.2, 0.8])}])
def test_item_without_objects_in_a_batch_is_the_fidelity_branchs(settings):
    branches = Stub(1), Stub(3, g=1.0)
    objects = torch.stack([torch.ones(SIZE), torch.zeros(SIZE)])
    _, trace = run_stubs(*branches, batch=2, objects=objects, **settings)
    assert all((step.weights[1, 0] == 1).all() and not step.weights[1, 1].any() for step in trace.steps)
    assert all((step.weights[0, 1] > 0).all() for step in trace.steps)
    assert "[1]" in trace.note


def test_trace_holds_what_happened():
    branches = [TinyBranch(0), TinyBranch(1)]
    _, trace = run(branches, start(2))
    assert trace.branches == ("tiny 0", "tiny 1")
    assert [(step.index, step.sigma) for step in trace.steps] == list(enumerate(SIGMAS[:-1]))
    read = trace.read_steps[0]
    assert read.losses.shape == (2, 2, 2) and read.gradient.shape == (2, 2) and read.maps.shape == (2, 2, 2, *SIZE)
    for step in trace.steps:
        torch.testing.assert_close(step.weights, step.coefficients.softmax(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "both"},
        {"rule": "adam"},
        {"initial": "ones"},
        {"t0": 1.5},
        {"t1": 2},
        {"update_until": -0.1},
        {"update_every": 0},
    ],
)
def test_wrong_setting_is_named_with_its_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(RealCompoError, match=f"{name} is {value!r}"):
        BalanceSettings(**wrong)


def test_source_that_is_no_branch_is_refused():
    with pytest.raises(RealCompoError, match=r"sources"):
        Balancer([Stub(), Stub()], TEN, [0], torch.ones(1, *SIZE), BalanceSettings(sources=(0, 2)))


def test_fixed_weights_of_another_number_of_branches_are_refused():
    with pytest.raises(RealCompoError, match=r"fixed"):
        run_stubs(Stub(), Stub(), fixed=torch.tensor([0.2, 0.3, 0.5]))


@pytest.mark.parametrize(("share", "guided"), [(1.0, 5), (0.75, 4), (0.6, 3), (0.5, 3), (0.0, 0)])
def test_level_of_a_share_of_the_steps_parts_its_steps_from_the_others(share, guided):
    schedule = Schedule(SIGMAS)
    assert sum(sigma >= schedule.level(share) for sigma in SIGMAS[:-1]) == guided
    assert sum(i / 5 < share for i in range(5)) == guided
