from copy import deepcopy

import pytest
import torch

from realcompo_core.attention.reading import (
    MapReader,
    Objective,
    attention_columns,
    grounding_loss,
    map_size,
    token_maps,
)
from realcompo_core.diffusers.pipeline import NoiseSchedule, UNetBranch, attention_layers

LATENT = (16, 24)
TOKENS = 12
GROUPS = [[[1, 2], [7]], [[4]]]
REGIONS = torch.rand(3, *LATENT, generator=torch.Generator().manual_seed(3))


def shrunk(regions):
    return lambda height, width: torch.nn.functional.adaptive_avg_pool2d(regions, (height, width))


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("scale", [None, 0.2])
def test_columns_are_those_of_the_softmax(scale):
    q, k = random(2, 3, 35, 8, dtype=torch.float64), random(2, 3, 11, 8, dtype=torch.float64, seed=1)
    whole = torch.softmax(q @ k.transpose(2, 3) * (scale or 8**-0.5), -1).mean(1)
    found = attention_columns(q, k, [4, 0, 10], scale)
    torch.testing.assert_close(found, whole[:, :, [4, 0, 10]].transpose(1, 2))


def test_columns_of_half_precision_queries_do_not_overflow():
    q, k = (40 * random(1, 1, 6, 64, seed=s).half() for s in (0, 1))
    exact = torch.softmax(q.double() @ k.double().mT / 8, -1)[..., [2]].mean(1).mT
    found = attention_columns(q, k, [2])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize(
    "pixels, size", [(16 * 24, (16, 24)), (8 * 12, (8, 12)), (4 * 6, (4, 6)), (2 * 3, (2, 3)), (1 * 2, (1, 2))]
)
def test_map_size_halves_upwards(pixels, size):
    assert map_size(pixels, LATENT) == size


def test_map_size_of_an_odd_latent_is_that_of_a_strided_convolution():
    down = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
    once = down(torch.zeros(1, 1, 13, 22))
    twice = down(once)
    assert map_size(once.numel(), (13, 22)) == once.shape[-2:]
    assert map_size(twice.numel(), (13, 22)) == twice.shape[-2:]


def test_map_that_fits_no_level_is_refused():
    with pytest.raises(ValueError, match=r"77 cells.*\(16, 24\)"):
        map_size(77, LATENT)


def test_token_maps_average_layers_and_sum_to_1():
    fine, coarse = torch.rand(1, 2, 8, 8), torch.full((1, 2, 4, 4), 0.5)
    maps = token_maps([fine, coarse])
    expected = (fine + 0.5) / (fine + 0.5).sum((2, 3), keepdim=True)
    torch.testing.assert_close(maps, expected)


def test_grounding_loss_is_the_share_outside():
    maps = torch.tensor([[[[0.1, 0.4], [0.3, 0.2]]]])
    left = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert grounding_loss(maps, left).item() == pytest.approx(0.6)
    assert grounding_loss(7 * maps, left).item() == pytest.approx(0.6)


def test_objective_of_a_batch_is_each_items_own():
    """Items with other numbers of objects, and one without any, do not touch each other."""
    groups = [*GROUPS, []]
    regions = [shrunk(REGIONS[:2]), shrunk(REGIONS[2:]), shrunk(REGIONS[:0])]
    together = Objective(groups, regions)
    assert together.columns == [1, 2, 4, 7]
    attention = torch.rand(3, 12, 8, 12)
    losses, maps = together([attention[:, together.columns]])
    assert losses.shape == (3, 2) and maps.shape == (3, 2, 8, 12)
    for b in (0, 1):
        alone = Objective([groups[b]], [regions[b]])
        loss, own = alone([attention[b : b + 1, alone.columns]])
        torch.testing.assert_close(losses[b, : len(groups[b])], loss[0])
        torch.testing.assert_close(maps[b, : len(groups[b])], own[0])
    assert losses[1, 1] == 0 and not losses[2].any()


def test_gradient_stays_finite_for_items_without_objects():
    objective = Objective([GROUPS[0], []], [shrunk(REGIONS[:2]), shrunk(REGIONS[:0])])
    attention = torch.rand(2, 3, 8, 12, requires_grad=True)
    (g,) = torch.autograd.grad(objective([attention])[0].sum(), attention)
    assert g[0].any() and not g[1].any()


class EagerProcessor:
    """Plain attention that keeps its probabilities, with gradient."""

    def __init__(self):
        self.probabilities = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **kwargs):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            projection(source).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection, source in ((attn.to_q, hidden_states), (attn.to_k, text), (attn.to_v, text))
        )
        self.probabilities = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, -1)
        return attn.to_out[0]((self.probabilities @ v).transpose(1, 2).flatten(2))


@pytest.fixture(params=["fidelity", "gligen"])
def branch(request, tiny_pipelines):
    pipeline = getattr(tiny_pipelines, request.param)
    cond, uncond = ({"encoder_hidden_states": random(2, TOKENS, 128, seed=s)} for s in (1, 2))
    if request.param == "gligen":
        inputs = {
            "boxes": torch.tensor([[[0.1, 0.1, 0.5, 0.6]] * 30] * 2),
            "masks": torch.ones(2, 30),
            "positive_embeddings": random(2, 30, 128),
        }
        cond["cross_attention_kwargs"] = {"gligen": inputs}
        uncond["cross_attention_kwargs"] = {"gligen": inputs | {"masks": torch.zeros(2, 30)}}
    layers = attention_layers(pipeline.unet, 2)
    objective = Objective(GROUPS, [shrunk(REGIONS[:2]), shrunk(REGIONS[2:])])
    schedule = NoiseSchedule(pipeline.scheduler)
    return UNetBranch("branch", pipeline.unet, schedule, cond, uncond, 4.0, layers, objective)


def reference(branch, x, sigma):
    """Losses, object maps and gradient from plain attention and the whole network's graph."""
    unet = branch._unet
    chosen = {f"{name}.processor": EagerProcessor() for name in attention_layers(unet, 2)}
    before = dict(unet.attn_processors)
    x = x.clone().requires_grad_()
    try:
        unet.set_attn_processor({name: chosen.get(name, processor) for name, processor in before.items()})
        output = branch._run(x, sigma, branch._cond)
    finally:
        unet.set_attn_processor(before)
    height, width = LATENT[0] // 2, LATENT[1] // 2
    mean = sum(processor.probabilities.mean(1) for processor in chosen.values())
    tokens = (mean / mean.sum(1, keepdim=True)).mT.unflatten(2, (height, width))
    losses, maps, i = [], [], 0
    for b, groups in enumerate(GROUPS):
        for group in groups:
            maps.append(sum(tokens[b, t] for t in group) / len(group))
            region = shrunk(REGIONS[i : i + 1])(height, width)[0]
            losses.append(1 - (maps[-1] * region).sum() / maps[-1].sum())
            i += 1
    (g,) = torch.autograd.grad(sum(losses) + 0 * output.sum(), x)
    return torch.stack(losses), torch.stack(maps), g


def test_maps_and_gradient_are_those_of_the_whole_network_with_plain_attention(branch):
    x, sigma = 3 * random(2, 4, *LATENT, seed=5), 2.5
    losses, maps, g = reference(branch, x, sigma)
    assert g.abs().max() > 0
    D, gradient = branch.denoise_with_gradient(x, sigma)
    for found in (branch.gradient(x, sigma), gradient):
        torch.testing.assert_close(torch.stack([*found.maps[0], found.maps[1, 0]]), maps, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(torch.stack([*found.losses[0], found.losses[1, 0]]), losses)
        torch.testing.assert_close(found.g, g, rtol=1e-3, atol=1e-4 * g.abs().max().item())
    torch.testing.assert_close(D, branch.denoise(x, sigma), rtol=1e-4, atol=1e-4)
    assert not D.requires_grad


def test_fp16_gradient_does_not_underflow(branch):
    x = 3 * random(2, 4, *LATENT, seed=5)
    exact = branch.gradient(x, 2.5).g
    half = deepcopy(branch)
    half._unet.half()
    half._cond = halved(half._cond)
    error = (half.gradient(x, 2.5).g - exact).abs().max()
    assert error < 0.005 * exact.abs().max()


def halved(inputs):
    return {k: halved(v) for k, v in inputs.items()} if isinstance(inputs, dict) else inputs.half()


def test_nothing_after_the_last_map_is_run_or_keeps_a_graph(branch):
    passes = []
    hook = branch._unet.conv_out.register_forward_hook(lambda *args: passes.append(args[2].requires_grad))
    try:
        branch.gradient(random(2, 4, *LATENT), 1.0)
        assert passes == []
        branch.denoise_with_gradient(random(2, 4, *LATENT), 1.0)
        assert passes == [False, False]  # conditional and unconditional
    finally:
        hook.remove()


def state(unet):
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) + ("forward" in vars(m)) for m in unet.modules()]
    return hooks, [parameter.requires_grad for parameter in unet.parameters()]


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_network_is_left_as_it_was_found(branch, grad_enabled):
    unet = branch._unet
    parameters = list(unet.parameters())
    for parameter in parameters[::3]:
        parameter.requires_grad_(False)
    before, x = state(unet), random(2, 4, *LATENT)
    try:
        with torch.set_grad_enabled(grad_enabled):
            branch.gradient(x, 1.0)
            assert state(unet) == before and torch.is_grad_enabled() == grad_enabled
            branch.denoise_with_gradient(x, 1.0)
            assert state(unet) == before and torch.is_grad_enabled() == grad_enabled

            def fail(*_):
                raise RuntimeError("out of memory")

            for module in (unet.conv_in, unet.conv_out):  # before the maps are read, and after
                hook = module.register_forward_hook(fail)
                with pytest.raises(RuntimeError, match="out of memory"):
                    branch.denoise_with_gradient(x, 1.0)
                hook.remove()
                assert state(unet) == before and torch.is_grad_enabled() == grad_enabled
        assert all(parameter.grad is None for parameter in parameters)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def test_reader_lets_other_errors_through_and_swallows_only_its_own_stop():
    objective = Objective([[[0]]], [lambda height, width: torch.ones(1, height, width)])
    with pytest.raises(KeyError), MapReader(random(1, 1, 2, 2), objective, 1, stop=True):
        raise KeyError
    reader = MapReader(random(1, 1, 2, 2), objective, 1, stop=True)
    with reader:
        q = reader.x.flatten(2).mT[:, None]
        reader.read(q, random(1, 1, 3, 1))
        pytest.fail("the pass went on")
    assert reader.gradient.g.shape == (1, 1, 2, 2)
