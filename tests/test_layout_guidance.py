"""Layout Guidance: its loss, its moves, and a guided branch in the balancer."""

import math

import pytest
import torch

from realcompo_core.attention.losses import Objective, layout_guidance_loss
from realcompo_core.attention.reading import Gradient
from realcompo_core.attention.source import Layer
from realcompo_core.attention.targets import object_targets
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.branch import GuidedBranch
from realcompo_core.guidance.layout_guidance import LayoutGuidance, LayoutGuide, guidance_layers
from realcompo_core.guidance.schedule import Moment, Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.sampling.samplers import Step, ddim, dpmpp_2m, euler, plms
from tests.test_balancer import LAYER, REGIONS, SIGMAS, SIZE, TinyBranch, start

SETTINGS = LayoutGuidance(scale=4.0, threshold=0.2, iterations=3, until=0.7)


def slow_loss(maps, groups, regions):
    """The loss of one item as the paper's code has it, loop by loop. maps: by layer, (heads, T, h, w)."""
    total = 0.0
    for found in maps.values():
        for group, region in zip(groups, regions(*found.shape[-2:]), strict=True):
            per_object = 0.0
            for token in group:
                shares = [(head[token] * region).sum() / head[token].sum() for head in found]
                per_object += sum((1 - share) ** 2 for share in shares) / len(shares)
            total += per_object / len(group)
    return total / (len(groups) * len(maps))


def test_loss_of_a_batch_against_loops():
    generator = torch.Generator().manual_seed(1)
    groups = [[[0], [2, 3]], [[1, 3]]]
    regions = [lambda h, w: torch.ones(2, h, w).tril() * torch.tensor([1.0, 0.5])[:, None, None]]
    regions.append(lambda h, w: torch.eye(h, w)[None])
    maps = {name: torch.rand(2, 3, 4, size, size, generator=generator) for name, size in (("mid", 4), ("up", 8))}
    found = layout_guidance_loss(maps, object_targets(groups, regions))
    assert found.shape == (2, 2) and found[1, 1] == 0
    for b in range(2):
        wanted = slow_loss({name: m[b] for name, m in maps.items()}, groups[b], regions[b])
        torch.testing.assert_close(found[b].sum(), wanted)


def test_loss_by_hand():
    """One object of one token, two heads with a quarter and all of the attention inside: (0.75² + 0²) / 2."""
    maps = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 0.0]]]])[None]
    targets = object_targets([[[0]]], [lambda h, w: torch.tensor([[[1.0, 0.0]]])])
    assert layout_guidance_loss({"mid": maps}, targets).tolist() == [[pytest.approx(0.75**2 / 2)]]


def guided(branch, settings=SETTINGS, sigmas=SIGMAS):
    objective = Objective([LAYER], branch.targets, layout_guidance_loss)
    return GuidedBranch(branch, LayoutGuide(settings), objective, Schedule(sigmas))


def loss_at(branch, x, sigma):
    q, k = branch.queries_keys(x, sigma)
    maps = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mT.unflatten(-1, SIZE)
    return slow_loss({"only": maps[0]}, [[1], [3, 4]], lambda h, w: REGIONS)


def move(branch, x, sigma, progress, settings=SETTINGS):
    loss, times = math.inf, 0
    while loss > settings.threshold and times < settings.iterations and progress < settings.until:
        at = x.clone().requires_grad_(True)
        loss = loss_at(branch, at, sigma)
        x = x - sigma**2 * torch.autograd.grad(settings.scale * loss, at)[0]
        times += 1
    return x


def alone(branch, x, sigmas=SIGMAS):
    """Layout Guidance with Euler's method, written out: the sampler goes on from the moved latent."""
    for i, (sigma, sigma_next) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        x = move(branch, x, sigma, i / (len(sigmas) - 1))
        D = branch.denoise(x, sigma)
        x = x + (sigma_next - sigma) * (x - D) / sigma
    return x


def balanced(branches, x, sampler=euler, **settings):
    balancer = Balancer(branches, SIGMAS, [0] * len(x), torch.ones(len(x), *SIZE), BalanceSettings(**settings))
    return sampler(balancer, x, SIGMAS) + balancer.moves, balancer.trace


@pytest.mark.parametrize("sampler", [euler, ddim])
def test_with_all_the_weight_a_guided_branch_is_layout_guidance_alone(sampler):
    wanted = alone(TinyBranch(1), start())
    found, trace = balanced([TinyBranch(0), guided(TinyBranch(1))], start(), sampler, fixed=torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    by_itself, _ = balanced([guided(TinyBranch(1))], start(), sampler)
    torch.testing.assert_close(by_itself, wanted, rtol=1e-9, atol=1e-9)
    assert all(step.moves[0, 1] > 0 for step in trace.steps[:4]) and not trace.steps[-1].moves
    assert (alone(TinyBranch(1), start()) - euler(plain(TinyBranch(1)), start(), SIGMAS)).abs().max() > 0.1


def plain(branch):
    return lambda x, sigma, step: branch.denoise(x, sigma)


def plms_alone(branch, x, settings):
    """Layout Guidance with PLMS, written out; the second evaluation of the first step moves the latent, too."""
    weights = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
    slopes, steps = [], len(SIGMAS) - 1
    for i in range(steps):
        sigma, sigma_next = SIGMAS[i], SIGMAS[i + 1]
        x = x if i == 1 else move(branch, x, sigma, i / steps, settings)
        slopes.insert(0, (x - branch.denoise(x, sigma)) / sigma)
        if i == 0:
            ahead = x + (sigma_next - sigma) * slopes[0]
            there = move(branch, ahead, sigma_next, 1 / steps, settings)
            slope = (slopes[0] + (there - branch.denoise(there, sigma_next)) / sigma_next) / 2
            x = x + there - ahead
        else:
            slope = sum(w * s for w, s in zip(weights[min(i + 1, 4)], slopes, strict=False))
        x = x + (sigma_next - sigma) * slope
    return x


def test_with_all_the_weight_it_is_layout_guidance_alone_under_a_multistep_sampler():
    settings = LayoutGuidance(scale=4.0, threshold=0.0, iterations=1, until=0.7)
    wanted = plms_alone(TinyBranch(1), start(), settings)
    branches = [TinyBranch(0), guided(TinyBranch(1), settings)]
    found, _ = balanced(branches, start(), plms, fixed=torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_dpmpp_2m_keeps_the_moves():
    """Its memory holds one older estimate as it was before the latest move, so it is near and not equal."""
    moves = LayoutGuidance(scale=4.0, threshold=0.0, iterations=1, until=0.1)  # of the first step only: then equal
    first = move(TinyBranch(1), start(), SIGMAS[0], 0.0, moves)
    wanted = dpmpp_2m(plain(TinyBranch(1)), first, SIGMAS)
    found, _ = balanced([guided(TinyBranch(1), moves)], start(), dpmpp_2m)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_each_branch_goes_on_from_its_own_latent_and_x_from_the_mixture():
    """A step of Euler with constant weights: a mixture of where guidance alone and the other branch would go."""
    other, branch, x = TinyBranch(0), TinyBranch(1), start(2)
    sigmas = SIGMAS[:2]
    balancer = Balancer(
        [other, guided(branch, sigmas=sigmas)],
        sigmas,
        [0, 1],
        torch.ones(2, *SIZE),
        BalanceSettings(fixed=torch.tensor([0.25, 0.75])),
    )
    found = euler(balancer, x, sigmas) + balancer.moves
    parts = [euler(plain(other), x, sigmas)]
    parts.append(torch.cat([alone(branch, item, sigmas) for item in x.split(1)]))
    torch.testing.assert_close(found, 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-9, atol=1e-9)


def test_coefficients_of_a_guided_branch_move_by_the_gradient_that_autograd_finds():
    """x' = Σ w_k (where branch k alone would go), its loss differentiated in c."""
    branches = [TinyBranch(0), TinyBranch(1)]
    x, (sigma, sigma_next) = start(), SIGMAS[:2]
    with torch.enable_grad():
        c = torch.zeros(1, 2, *SIZE, dtype=torch.float64, requires_grad=True)
        starts = [x, move(branches[1], x, sigma, 0.0)]
        ends = [
            s + (sigma_next - sigma) * (s - b.denoise(s, sigma)) / sigma for b, s in zip(branches, starts, strict=True)
        ]
        ahead = sum(w.unsqueeze(1) * end for w, end in zip(c.softmax(1).unbind(1), ends, strict=True))
        grounding = sum(share_outside(branch, ahead, sigma_next) for branch in branches)
        (wanted,) = torch.autograd.grad(grounding, c)
    settings = BalanceSettings(mode="lookahead", initial="zero", t1=1.0, rule="official", rate=1e-6)
    balancer = Balancer([branches[0], guided(branches[1])], SIGMAS, [0], torch.ones(1, *SIZE), settings)
    balancer(x, sigma, Step(x * sigma_next / sigma, 1 - sigma_next / sigma, sigma_next))
    found = -balancer.trace.steps[0].coefficients  # before they move they are 0
    assert balancer.trace.steps[0].coefficients is not None
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-12)


def share_outside(branch, x, sigma):
    q, k = branch.queries_keys(x, sigma)
    maps = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mT.unflatten(-1, SIZE).mean(1)[0]
    maps = maps / maps.sum((-2, -1), keepdim=True)
    groups = [maps[[1]].mean(0), maps[[3, 4]].mean(0)]
    return sum(1 - (m * r).sum() / m.sum() for m, r in zip(groups, REGIONS, strict=True))


def answer(*losses):
    return Gradient(torch.zeros(0), torch.tensor(losses)[:, None], torch.zeros(0))


def readings(guide, losses_of_steps, steps=10):
    """How often maps are read in each step, if the losses that are read are these."""
    counts = []
    for index, losses in enumerate(losses_of_steps):
        moment, answers = Moment(index, 1.0, index / steps, 2.0), []
        while guide.due(moment, answers):
            answers.append(answer(losses[len(answers)]))
        counts.append(len(answers))
    return counts


def test_when_the_latent_moves():
    high, low = [0.5] * 5, [0.5, 0.1]
    every = LayoutGuidance(threshold=0.2, iterations=5, until=0.4)
    assert readings(LayoutGuide(every), [high, low, high, [0.1], high]) == [5, 2, 5, 1, 0]
    for_good = LayoutGuidance(threshold=0.2, iterations=5, until=0.4, reset=False)
    assert readings(LayoutGuide(for_good), [high, low, high, high]) == [5, 2, 0, 0]
    assert readings(LayoutGuide(LayoutGuidance(scale=0.0)), [high]) == [0]
    ten_of_51 = [Moment(i, 1.0, i / 51, 2.0) for i in range(51)]
    assert sum(LayoutGuide(LayoutGuidance()).due(moment, []) for moment in ten_of_51) == 10


def test_items_stop_one_by_one():
    guide, moment = LayoutGuide(LayoutGuidance(scale=2.0, threshold=0.2)), Moment(0, 3.0, 0.0, 10.0)
    x = g = torch.ones(2, 1, 1, 1)
    assert guide.due(moment, [])
    assert guide.move(x, g, moment).flatten().tolist() == [1 - 2 * 9, 1 - 2 * 9]
    assert guide.due(moment, [answer(0.1, 0.5)])
    assert guide.move(x, g, moment).flatten().tolist() == [1, 1 - 2 * 9]
    assert not guide.due(moment, [answer(0.1, 0.5), answer(0.5, 0.1)])


def test_what_may_not_move_does_not():
    guide = LayoutGuide(LayoutGuidance(scale=1.0), movable=torch.tensor([[[[1.0, 0.0]]]]))
    moved = guide.move(torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, 2), Moment(0, 1.0, 0.0, 2.0))
    assert moved[..., 0].eq(-1).all() and moved[..., 1].eq(0).all()


def test_layers_of_the_paper():
    """SD1.5's: the middle block, and three decoder layers at twice its side."""
    parts = [("encoder", n, 4) for n in (1, 2)] + [("middle", 0, 8)]
    parts += [("decoder", n, 4) for n in (3, 4, 5)] + [("decoder", n, 2) for n in (6, 7, 8)]
    layers = [Layer(f"{part} {n}", part, part, n, 0, down, 8) for part, n, down in parts]
    chosen = [layer.name for layer in guidance_layers(layers)]
    assert chosen == ["middle 0", "decoder 3", "decoder 4", "decoder 5"]


@pytest.mark.parametrize("wrong", [{"until": 1.5}, {"iterations": 0}, {"scale": -1.0}, {"threshold": float("nan")}])
def test_wrong_setting_is_named_with_its_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(RealCompoError, match=f"{name} is {value}"):
        LayoutGuidance(**wrong)
