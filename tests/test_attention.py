from copy import deepcopy

import pytest
import torch

from realcompo_core.attention.columns import attention_columns
from realcompo_core.attention.losses import Objective, grounding_loss, object_maps, share_inside, token_maps
from realcompo_core.attention.reading import GradientReader
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.attention.targets import object_targets
from realcompo_core.diffusers.branch import DenoiserBranch
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.errors import RealCompoError

LATENT = (16, 24)
TOKENS = 12
GROUPS = [[[1, 2], [7]], [[4]]]
REGIONS = torch.rand(3, *LATENT, generator=torch.Generator().manual_seed(3))


def shrunk(regions):
    return lambda height, width: torch.nn.functional.adaptive_avg_pool2d(regions, (height, width))


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(q, k, columns, scale=None):
    """The columns of a softmax written out; columns: (B, C)."""
    p = torch.softmax(q @ k.mT * (scale or q.shape[-1] ** -0.5), -1)
    return torch.stack([item[..., chosen].mT for item, chosen in zip(p, columns, strict=True)])


@pytest.mark.parametrize("scale", [None, 0.2])
def test_columns_and_their_gradients_are_those_of_the_softmax(scale):
    q, k = (random(2, 3, n, 8, dtype=torch.float64, seed=n).requires_grad_() for n in (35, 11))
    for columns in ([4, 0, 10], torch.tensor([[4, 0, 10], [1, 0, 0]])):
        wanted = torch.as_tensor(columns).expand(2, 3)
        found = attention_columns(q, k, columns, scale)
        assert found.shape == (2, 3, 3, 35)
        torch.testing.assert_close(found, plain(q, k, wanted, scale))
        weights = random(2, 3, 3, 35, dtype=torch.float64, seed=7)
        for ours, autograds in zip(
            torch.autograd.grad((found * weights).sum(), (q, k)),
            torch.autograd.grad((plain(q, k, wanted, scale) * weights).sum(), (q, k)),
            strict=True,
        ):
            torch.testing.assert_close(ours, autograds)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_columns_of_half_precision_are_computed_in_fp32(dtype):
    q, k = (40 * random(1, 1, 6, 64, seed=s).to(dtype) for s in (0, 1))
    found = attention_columns(q, k, [2])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plain(q.double(), k.double(), torch.tensor([[2]])), atol=1e-5, rtol=1e-2)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(attention_columns(q, k, [2]), found, rtol=0, atol=0)


def test_a_layers_grid_is_that_of_strided_convolutions():
    down = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
    once = down(torch.zeros(1, 1, 13, 22))
    twice = down(once)
    for downsampling, maps in ((2, once), (4, twice)):
        layer = Layer("", "", "decoder", 0, 0, downsampling, 1)
        assert layer.grid((13, 22)) == maps.shape[-2:] == layer.grid((13, 22), maps.shape[-2] * maps.shape[-1])


def test_token_maps_average_layers_and_sum_to_1():
    fine, coarse = torch.rand(1, 2, 8, 8), torch.full((1, 2, 4, 4), 0.5)
    maps = token_maps([fine, coarse])
    expected = (fine + 0.5) / (fine + 0.5).sum((2, 3), keepdim=True)
    torch.testing.assert_close(maps, expected)


def test_share_inside_is_0_for_a_map_that_is_0_everywhere():
    maps = torch.zeros(2, 3, 3, requires_grad=True)
    share = share_inside(maps, torch.ones(2, 3, 3))
    assert share.tolist() == [0, 0]
    assert torch.autograd.grad(share.sum(), maps)[0].isfinite().all()
    assert token_maps([torch.zeros(1, 2, 3, 3)]).tolist() == torch.zeros(1, 2, 3, 3).tolist()


def test_grounding_loss_is_the_share_outside():
    """Of one object with two tokens, in two heads of two layers: heads, layers and tokens are averaged first."""
    even, left = torch.full((2, 2), 0.25), torch.tensor([[0.5, 0.0], [0.5, 0.0]])
    layer = torch.stack([torch.stack([even, left]), torch.stack([left, left])])[None]  # (1, heads, C, 2, 2)
    region = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    for scale in (1, 7):
        losses = grounding_loss(
            {"a": scale * layer, "b": scale * layer}, object_targets([[[0, 1]]], [lambda h, w: region])
        )
        # token 0: (0.5 + 1) / 2 inside, token 1: 1
        assert losses.item() == pytest.approx(1 - (0.75 + 1) / 2)


def test_objects_of_a_batch_are_each_items_own():
    """Items with other numbers of objects, and one without any, do not touch each other."""
    groups = [*GROUPS, []]
    regions = [shrunk(REGIONS[:2]), shrunk(REGIONS[2:]), shrunk(REGIONS[:0])]
    together = object_targets(groups, regions)
    assert together.columns.tolist() == [[1, 2, 4, 7]] * 3
    attention = torch.rand(3, 2, 12, 8, 12)
    maps = {"layer": attention[:, :, together.columns[0]]}
    losses, found = grounding_loss(maps, together), object_maps(maps, together)
    assert losses.shape == (3, 2) and found.shape == (3, 2, 8, 12)
    for b in (0, 1):
        alone = object_targets([groups[b]], [regions[b]])
        maps = {"layer": attention[b : b + 1, :, alone.columns[0]]}
        torch.testing.assert_close(losses[b, : len(groups[b])], grounding_loss(maps, alone)[0])
        torch.testing.assert_close(found[b, : len(groups[b])], object_maps(maps, alone)[0])
    assert losses[1, 1] == 0 and not losses[2].any()


def test_gradient_stays_finite_for_items_without_objects():
    targets = object_targets([GROUPS[0], []], [shrunk(REGIONS[:2]), shrunk(REGIONS[:0])])
    attention = torch.rand(2, 2, 3, 8, 12, requires_grad=True)
    (g,) = torch.autograd.grad(grounding_loss({"layer": attention}, targets).sum(), attention)
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
    positive, negative = ({"encoder_hidden_states": random(2, TOKENS, 128, seed=s)} for s in (1, 2))
    if request.param == "gligen":
        inputs = {
            "boxes": torch.tensor([[[0.1, 0.1, 0.5, 0.6]] * 30] * 2),
            "masks": torch.ones(2, 30),
            "positive_embeddings": random(2, 30, 128),
        }
        positive["cross_attention_kwargs"] = {"gligen": inputs}
        negative["cross_attention_kwargs"] = {"gligen": inputs | {"masks": torch.zeros(2, 30)}}
    targets = object_targets(GROUPS, [shrunk(REGIONS[:2]), shrunk(REGIONS[2:])])
    objective = Objective(UNetAttention(pipeline.unet).choose(2), targets)
    schedule = NoiseSchedule(pipeline.scheduler)
    return DenoiserBranch("branch", pipeline.unet, schedule, positive, negative, 4.0, objective=objective)


def reference(branch, x, sigma):
    """Losses, object maps and gradient from plain attention and the whole network's graph."""
    unet = branch._denoiser.network
    chosen = {f"{layer.name}.processor": EagerProcessor() for layer in UNetAttention(unet).choose(2)}
    before = dict(unet.attn_processors)
    x = x.clone().requires_grad_()
    try:
        unet.set_attn_processor({name: chosen.get(name, processor) for name, processor in before.items()})
        output = branch._run(x, sigma, ("positive",))
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
    half._denoiser.network.half()
    half._arguments = halved(half._arguments)
    half._source = UNetAttention(half._denoiser.network)
    error = (half.gradient(x, 2.5).g - exact).abs().max()
    assert error < 0.005 * exact.abs().max()


def halved(inputs):
    return {k: halved(v) for k, v in inputs.items()} if isinstance(inputs, dict) else inputs.half()


def test_nothing_after_the_last_map_is_run_or_keeps_a_graph(branch):
    passes = []
    hook = branch._denoiser.network.conv_out.register_forward_hook(lambda *args: passes.append(args[2].requires_grad))
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
    unet = branch._denoiser.network
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
    targets = object_targets([[[0]]], [lambda height, width: torch.ones(1, height, width)])
    layer = Layer("only", "only", "decoder", 0, 0, 1, 1)
    asked = Objective([layer], targets)
    with pytest.raises(KeyError), GradientReader(random(1, 1, 2, 2), asked, stop=True):
        raise KeyError
    reader = GradientReader(random(1, 1, 2, 2), asked, stop=True)
    with reader:
        q, k = reader.x.flatten(2).mT[:, None], random(1, 1, 3, 1)
        reader.read(AttentionEvent(layer, "positive", q, k, 1.0, slice(0, 3), (2, 2), "lookahead"))
        pytest.fail("the pass went on")
    assert reader.gradient.g.shape == (1, 1, 2, 2)


def test_a_branch_may_have_another_loss(branch):
    """The averaging belongs to the loss: here it takes the first head alone, and asks for all of the attention."""
    seen = []

    def loss(maps, targets):
        seen.append({name: tuple(layer.shape) for name, layer in maps.items()})
        first = sum(layer[:, 0] for layer in maps.values())
        return torch.einsum("bgc,bchw->bg", targets.members.to(first), first)

    targets, layers = branch._objective.targets, branch._objective.layers
    x = random(2, 4, *LATENT)
    own = branch.gradient(x, 2.5)
    branch._objective = Objective(layers, targets, loss)
    other = branch.gradient(x, 2.5)
    assert not torch.allclose(own.g, other.g) and torch.equal(own.maps, other.maps)
    heads, columns = layers[0].heads, len(targets.columns[0])
    assert seen == [{layer.name: (2, heads, columns, *layer.grid(LATENT)) for layer in layers}]


def test_layers_that_are_not_there_are_refused(branch):
    source = UNetAttention(branch._denoiser.network)
    with pytest.raises(RealCompoError, match="layers=8 matches none.*up_blocks.0"):
        source.choose(8)
    names = [layer.name for layer in source.choose("mid_block")]
    assert names == ["mid_block.attentions.0.transformer_blocks.0.attn2"]


def test_fused_projections_are_refused(tiny_pipelines):
    unet = deepcopy(tiny_pipelines.fidelity.unet)
    unet.fuse_qkv_projections()
    with pytest.raises(RealCompoError, match="unfuse_qkv_projections"):
        UNetAttention(unet)


@pytest.mark.parametrize(("queries", "grid"), [(32 * 48, (32, 48)), (16 * 24, (16, 24)), (11 * 16, (11, 16))])
def test_grid_of_maps_that_something_has_made_smaller(queries, grid):
    layer = Layer("only", "only", "decoder", 0, 0, 2, 1)
    assert layer.grid((64, 96), queries) == grid
