"""Attend-and-Excite and BoxDiff: their losses, their moves, and what refuses or ignores them."""

import math
from dataclasses import replace

import pytest
import torch

from realcompo_core.attention.excitation import attend_and_excite_loss, boxdiff_loss
from realcompo_core.attention.reading import Gradient
from realcompo_core.attention.targets import object_targets
from realcompo_core.diffusers import Guided, RealCompoPipeline
from realcompo_core.errors import PhraseNotInPromptError, RealCompoError
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff, ExcitingGuide
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.latent_guidance import with_guidance
from realcompo_core.guidance.schedule import Moment, Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
from realcompo_core.sampling.samplers import euler
from tests import test_balancer
from tests.test_balancer import GROUPS, LAYER, SIZE, TinyBranch, start
from tests.test_diffusers_adapter import LAYOUT, PROMPT, generate, with_scheduler

STEPS = 10
SIGMAS = [5.0 * 0.6**i for i in range(STEPS)] + [0.0]
BOXES = [(0, 0, 3, 2), (2, 1, 6, 4)]  # of the two objects, in cells: x0, y0, x1, y1


def cells(boxes, height, width):
    found = torch.zeros(len(boxes), height, width, dtype=torch.float64)
    for mask, (x0, y0, x1, y1) in zip(found, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return found


def words_maps(attention, groups):
    """Each object's map, (h, w): attention is (T, h, w) of the text's words, the mean over heads and layers."""
    sharpened = torch.softmax(100 * attention, 0)
    taps = [math.exp(-1), 1.0, math.exp(-1)]
    total, height, width = sum(taps) ** 2, *attention.shape[1:]

    def reflected(i, n):
        return -i if i < 0 else 2 * (n - 1) - i if i >= n else i

    found = []
    for group in groups:
        raw = sum(sharpened[token] for token in group) / len(group)
        rows = []
        for y in range(height):
            for x in range(width):
                near = [
                    raw[reflected(y + v, height), reflected(x + u, width)] * taps[v + 1] * taps[u + 1] / total
                    for v in (-1, 0, 1)
                    for u in (-1, 0, 1)
                ]
                rows.append(sum(near))
        found.append(torch.stack(rows).view(height, width))
    return found


def slow_attend_and_excite(attention, groups, boxes=None):
    """The loss of one item, and what refinements are decided by."""
    worst = max(1 - found.max() for found in words_maps(attention, groups))
    return worst, worst


def slow_boxdiff(attention, groups, boxes):
    inner, outer, corner = [], [], []
    for found, (x0, y0, x1, y1) in zip(words_maps(attention, groups), boxes, strict=True):
        height, width = found.shape
        inside = cells([(x0, y0, x1, y1)], height, width)[0].bool()
        k = max(int(0.2 * inside.sum()), 1)
        inner.append(1 - found[inside].topk(k).values.mean())
        k = max(int(0.2 * (~inside).sum()), 1)
        outer.append(found[~inside].topk(k).values.mean())
        for projected, first, last in ((found.max(0).values, x0, x1), (found.max(1).values, y0, y1)):
            n = len(projected)
            near = {i for edge in (first, last) for i in range(max(edge - 1, 0), min(edge + 2, n))}
            corner.append(sum(abs(projected[i] - float(first <= i < last)) for i in near) / n)
    return sum(inner) + sum(outer) + sum(corner), max(inner)


METHODS = {"attend_and_excite": (AttendAndExcite, slow_attend_and_excite), "boxdiff": (BoxDiff, slow_boxdiff)}


@pytest.mark.parametrize("method", METHODS)
def test_losses_of_a_batch_and_their_gradients_against_loops(method):
    """Two items, the second with one object; two layers of one size, three heads; every column of the text."""
    kind, slow = METHODS[method]
    generator = torch.Generator().manual_seed(1)
    groups, boxes = [[[0], [2, 3]], [[1, 3]]], [BOXES, BOXES[1:]]
    regions = [lambda h, w, b=b: cells(b, h, w) for b in boxes]
    maps = {name: torch.rand(2, 3, 5, 5, 7, generator=generator, dtype=torch.float64) / 20 for name in ("a", "b")}
    maps = {name: found.requires_grad_(True) for name, found in maps.items()}
    found = kind.loss(maps, object_targets(groups, regions).among(range(5)))
    means = sum(m.mean(1) for m in maps.values()) / 2
    wanted = [slow(means[b], groups[b], boxes[b])[0] for b in range(2)]
    torch.testing.assert_close(found.sum(1), torch.stack(wanted))
    both = (found.sum(), sum(wanted))
    gradients = [torch.autograd.grad(total, list(maps.values()), retain_graph=True) for total in both]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-3


def test_attend_and_excite_by_hand():
    """Uniform attention of 4 words: each has a quarter everywhere, whatever is smoothed, so the loss is 3/4 for one."""
    targets = object_targets([[[1], [2]]], [lambda h, w: torch.ones(2, h, w)]).among(range(4))
    found = attend_and_excite_loss({"only": torch.full((1, 2, 4, 3, 3), 0.2)}, targets)
    assert sorted(found[0].tolist()) == [0, pytest.approx(0.75)]


def test_boxdiff_by_hand():
    """Uniform attention of 4 words, a box of the left half of 4×2 cells: 3/4 inside, 1/4 outside; and at the edges.

    The columns' projection is 1/4 everywhere and should be 1, 1, 0, 0, and all are within a cell of an edge: 2 of 3/4
    and 2 of 1/4, a mean of 1/2. Both rows should be 1: 3/4.
    """
    targets = object_targets([[[1]]], [lambda h, w: cells([(0, 0, 2, 2)], h, w)]).among(range(4))
    found = boxdiff_loss({"only": torch.full((1, 2, 4, 2, 4), 0.2, dtype=torch.float64)}, targets)
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25 + 0.5 + 0.75]], dtype=torch.float64))


def attention_of(branch, x, sigma):
    """(B, T − 2, h, w): all words but the first and the last."""
    q, k = branch.queries_keys(x, sigma)
    maps = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mT.mean(1)
    return maps[:, 1:-1].unflatten(-1, x.shape[-2:])


def moved_as_in_the_authors_loop(branch, z, sigma, index, settings, slow):
    """One item's variance-preserving latent after one step's moves, and their number."""
    scale = settings.scale * math.sqrt(torch.linspace(1, 0.5, STEPS, dtype=torch.float64)[index])
    groups = [[token - 1 for token in group] for group in GROUPS]

    def read(z):
        z = z.detach().requires_grad_(True)
        total, criterion = slow(attention_of(branch, z * math.sqrt(1 + sigma**2), sigma)[0], groups, BOXES)
        return float(criterion.detach()), z.detach() - scale * torch.autograd.grad(total, z)[0]

    moves, wanted = 0, {round(share * STEPS): attention for share, attention in settings.refinements}.get(index)
    loss, _ = read(z)
    if wanted is not None and loss > 1 - wanted:
        iteration = 0
        while loss > 1 - wanted and iteration < settings.most:
            loss, z = read(z)
            iteration, moves = iteration + 1, moves + 1
    _, z = read(z)
    return z, moves + 1


@pytest.mark.parametrize(  # with refinements that end at once, on the way and at the limit
    ("method", "seed", "refinements"),
    [
        ("attend_and_excite", 3, ((0.0, 0.4), (0.2, 0.6), (0.4, 0.8))),
        ("boxdiff", 7, ((0.0, 0.3), (0.2, 0.9), (0.4, 0.97))),
    ],
)
def test_a_run_is_the_authors_loop_item_by_item(monkeypatch, method, seed, refinements):
    monkeypatch.setattr(test_balancer, "TOKENS", 6)  # one behind those of the objects, for the end of the text
    kind, slow = METHODS[method]
    settings = kind(scale=0.6, most=4, refinements=refinements)
    branch = TinyBranch(seed)
    branch.targets = object_targets([GROUPS], [lambda h, w: cells(BOXES, h, w)])
    guided = with_guidance(branch, settings, [LAYER], [LAYER], branch.targets, Schedule(SIGMAS))
    balancer = Balancer([guided], SIGMAS, [0, 1], torch.ones(2, *SIZE), BalanceSettings())
    found = euler(balancer, start(2), SIGMAS) + balancer.moves
    counts = []
    for b in range(2):
        x = start(2)[b : b + 1]
        for i, (sigma, sigma_next) in enumerate(zip(SIGMAS, SIGMAS[1:], strict=False)):
            if i < STEPS / 2:
                z = x / math.sqrt(1 + sigma**2)
                z, moves = moved_as_in_the_authors_loop(branch, z, sigma, i, settings, slow)
                counts.append(moves)
                x = z * math.sqrt(1 + sigma**2)
            x = x + (sigma_next - sigma) * (x - branch.denoise(x, sigma)) / sigma
        torch.testing.assert_close(found[b : b + 1], x, rtol=1e-7, atol=1e-7)
    assert len(set(counts)) > 2, f"no run with several kinds of refinement: {counts}"
    assert [step.moves is not None for step in balancer.trace.by_step] == [True] * 5 + [False] * 5
    assert balancer.trace.guides == {branch.name: settings.name}


def readings(settings, losses, index=0):
    """How often each item moves in a step whose readings are `losses`, one list of items' after the other."""
    guide, answers = ExcitingGuide(settings, STEPS), []
    moment, moves = Moment(index, 2.0, index / STEPS, 5.0), torch.zeros(len(losses[0]), dtype=torch.int)
    while guide.due(moment, answers):
        losses_now = torch.tensor(losses[len(answers)])[:, None]
        answers.append(Gradient(torch.ones(len(losses_now), 1, 1, 1), losses_now, torch.empty(0)))
        x = torch.zeros(len(losses_now), 1, 1, 1)
        moves = moves + (guide.move(x, answers[-1].g, moment) != 0).flatten().int()
    return moves.tolist()


def test_refinements_end_for_each_item_by_its_own_loss():
    settings = AttendAndExcite(refinements=((0.0, 0.5),), most=3)
    high, low = 0.9, 0.1
    assert readings(settings, [[low, high], [high, low], [low, high], [high, high]]) == [1, 3]
    assert readings(settings, [[high, high]] * 9) == [4, 4]
    assert readings(settings, [[high, high]] * 9, index=1) == [1, 1]
    assert readings(replace(settings, most=0), [[high, high]] * 9) == [1, 1]
    assert readings(replace(settings, until=0.1), [[high, high]] * 9, index=1) == [0, 0]


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
@pytest.mark.parametrize("settings", [AttendAndExcite(most=1), BoxDiff(most=1)], ids=METHODS)
def test_alone_and_balanced_in_diffusers(tiny_pipelines, kind, settings):
    """By itself it is its branch with all the weight; as the fidelity branch's guide it moves that branch alone."""
    plain = with_scheduler(getattr(tiny_pipelines, kind), "ddim")
    guided = Guided(plain, layout_guidance=settings)
    told = {"seed": 3, "steps": 4, "sampler": "euler", "guidance_scale": 5.0, "layers": 2}
    by_itself = RealCompoPipeline(guided)([PROMPT] * 2, LAYOUT, balance=BalanceSettings(), **told)
    assert [step.moves is not None for step in by_itself.trace.by_step] == [True, True, False, False]
    weights = BalanceSettings(fixed=torch.tensor([0.0, 1.0]))
    all_of_it = RealCompoPipeline(plain, guided)([PROMPT] * 2, LAYOUT, balance=weights, **told)
    torch.testing.assert_close(by_itself.latents, all_of_it.latents, rtol=1e-3, atol=1e-3)
    mixed = generate(guided, plain, balance=BalanceSettings(t1=1.0), steps=4)
    assert mixed.trace.steps[0].moves[0, 0] > 0 == mixed.trace.steps[0].moves[0, 1]


def test_without_scale_or_words_it_is_the_plain_sampler_bit_for_bit(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity, "ddim")
    told = {"seed": 3, "steps": 4, "sampler": "plms", "guidance_scale": 5.0, "layers": 2}

    def latents(settings, **more):
        return RealCompoPipeline(Guided(plain, layout_guidance=settings))(PROMPT, LAYOUT, **told, **more).latents

    weights = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
    unmoved = RealCompoPipeline(plain, plain)(PROMPT, LAYOUT, balance=weights, **told).latents
    assert torch.equal(latents(AttendAndExcite(scale=0.0)), unmoved)
    assert torch.equal(latents(AttendAndExcite(words=())), unmoved)
    assert torch.equal(latents(BoxDiff(scale=0.0)), unmoved)
    assert torch.equal(latents(BoxDiff(), beta=0.0), unmoved)
    assert not torch.equal(latents(AttendAndExcite()), unmoved)


def test_words_take_the_place_of_the_layouts_objects(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity, "ddim")
    told = {"seed": 3, "steps": 2, "sampler": "euler", "layers": 2}

    def latents(settings, layout):
        return RealCompoPipeline(Guided(plain, layout_guidance=settings))(PROMPT, layout, **told).latents

    words = tuple(item.phrase for item in LAYOUT.objects)
    of_layout = latents(AttendAndExcite(), LAYOUT)
    assert torch.equal(latents(AttendAndExcite(words=words), LAYOUT), of_layout)
    assert torch.equal(latents(AttendAndExcite(words=words), Layout(())), of_layout)
    assert not torch.equal(latents(AttendAndExcite(words=words[:1]), LAYOUT), of_layout)
    with pytest.raises(PhraseNotInPromptError, match="zebra"):
        latents(AttendAndExcite(words=("a zebra",)), LAYOUT)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"scale": -1.0}, "scale is -1"),
        ({"scale": math.nan}, "scale is nan"),
        ({"until": 1.5}, "until is 1.5"),
        ({"most": -1}, "most is -1"),
        ({"refinements": ((0.5, 2.0),)}, r"refinements has \(0.5, 2.0\)"),
        ({"words": "a cat"}, "words is 'a cat'"),
    ],
)
def test_settings_that_cannot_be(wrong, named):
    with pytest.raises(RealCompoError, match=named):
        AttendAndExcite(**wrong)


def test_maps_of_a_single_cell(tiny_pipelines):
    """A picture so small that there is nothing to reflect at its border."""
    plain = with_scheduler(tiny_pipelines.fidelity, "ddim")
    told = {"steps": 2, "sampler": "euler", "layers": 2, "width": 16, "height": 16}
    assert RealCompoPipeline(Guided(plain, layout_guidance=BoxDiff()))(PROMPT, LAYOUT, **told).latents.isfinite().all()


def test_objects_among_all_columns():
    targets = object_targets([[[2], [4, 5]], [[3]]], [lambda h, w: torch.ones(2, h, w)] * 2).among(range(1, 8))
    assert targets.columns.tolist() == [list(range(1, 8))] * 2
    found = [[[c for c, own in zip(range(1, 8), row, strict=True) if own] for row in item] for item in targets.members]
    assert found == [[[2], [4, 5]], [[3], []]]
