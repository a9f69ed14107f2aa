"""SD3 and Flux in the library, with their real architectures at a small width and random weights."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from realcompo_core.attention.excitation import attend_and_excite_loss
from realcompo_core.attention.losses import Objective
from realcompo_core.attention.source import AttentionEvent, NetworkPass
from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.diffusers.branch import DenoiserBranch
from realcompo_core.diffusers.pipeline import Guided, build_branch, located, regional_texts
from realcompo_core.diffusers.request import Request
from realcompo_core.diffusers.schedule import schedule_of
from realcompo_core.diffusers.text_conditioning import phrase_groups, text_conditioning
from realcompo_core.errors import BranchMismatchError, PhrasePastLimitError, RealCompoError
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout, LayoutObject
from shapescenes.tokenizer import tokenizer
from shapescenes.world import vocabulary

PROMPT = "a red circle to the left of a blue square"
LAYOUT = Layout(
    (LayoutObject("a red circle", (0.1, 0.2, 0.4, 0.8)), LayoutObject("a blue square", (0.6, 0.1, 0.9, 0.9))),
    prompt=PROMPT,
)
WHOLE = Layout((LayoutObject("a red circle", (0.0, 0.0, 1.0, 1.0)),), prompt=PROMPT)
SIZE = (64, 96)  # height, width
WIDTH, STEPS = 32, 3


def word_tokenizer() -> PreTrainedTokenizerFast:
    """In the form of T5's: a token for each word, with the space before it, and an end."""
    words = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in sorted(vocabulary()))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Strip(), pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def clip(kind: type):
    tokens = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return kind(config).eval()


def t5():
    config = T5Config(vocab_size=64, d_model=WIDTH, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.06,
    ).eval()


def sd3(seed: int = 0) -> StableDiffusion3Pipeline:
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=16,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=_random(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=word_tokenizer(),
    )


def flux(seed: int = 0) -> FluxPipeline:
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        transformer=_random(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae(),
        text_encoder=clip(CLIPTextModel),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(),
    )


@torch.no_grad()
def _random(network):
    for parameter in network.parameters():
        parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return network.eval()


FAMILIES = {"SD3": sd3, "Flux": flux}
GUIDANCE = {"SD3": 4.0, "Flux": 3.5}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pair(family):
    return FAMILIES[family](1), FAMILIES[family](2)


def request_for(pipeline, layouts=(LAYOUT,), beta=1.0):
    sigmas = schedule_of(pipeline).sigmas(STEPS, 24)
    return Request([PROMPT] * len(layouts), [None] * len(layouts), list(layouts), SIZE, sigmas, beta, 4, False)


def branch_of(pipeline, layouts=(LAYOUT,), regional=False) -> tuple[DenoiserBranch, Request]:
    request = request_for(pipeline, layouts)
    positive, negative = (text_conditioning(pipeline, [text] * len(layouts), 1, SIZE) for text in (PROMPT, None))
    for text in (positive, negative) if isinstance(pipeline, FluxPipeline) else ():
        text["guidance"] = torch.full((len(layouts),), 3.5)
    targets, network = located(pipeline, request), pipeline.transformer
    regions = regional_texts(pipeline, request, positive) if regional else None
    branch = DenoiserBranch("spatial", network, schedule_of(pipeline), positive, negative, 1.0, regional=regions)
    branch._objective = Objective(branch._source.choose(4), targets)
    return branch, request


def drawn(models, **settings):
    return RealCompoPipeline(*models)(
        PROMPT,
        settings.pop("layout", LAYOUT),
        steps=STEPS,
        sampler="euler",
        height=SIZE[0],
        width=SIZE[1],
        seed=5,
        **settings,
    )


def own(family, pipeline):
    """The latents that diffusers' own pipeline ends with, in (B, C, h, w)."""
    noise = torch.randn(16, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(5))[None]
    size = {"height": SIZE[0], "width": SIZE[1], "num_inference_steps": STEPS, "output_type": "latent"}
    if family == "SD3":
        return pipeline(PROMPT, latents=noise, guidance_scale=GUIDANCE[family], **size).images
    packed = pipeline._pack_latents(noise, 1, 16, *noise.shape[-2:])
    found = pipeline(PROMPT, latents=packed, guidance_scale=GUIDANCE[family], **size).images
    return pipeline._unpack_latents(found, *SIZE, 8)


def test_weight_1_is_diffusers_own_pipeline(family, pair):
    for k, pipeline in enumerate(pair):
        fixed = BalanceSettings(fixed=torch.eye(2)[k])
        found = drawn(pair, balance=fixed, guidance_scale=GUIDANCE[family]).latents
        torch.testing.assert_close(found, own(family, pipeline), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
def test_balanced(family, pair, mode):
    models = (pair[0], Guided(pair[1], regional=True))
    output = drawn(models, balance=BalanceSettings(mode=mode, t1=1.0), guidance_scale=GUIDANCE[family])
    assert output.latents.isfinite().all() and output.images[0].size == SIZE[::-1]
    assert output.trace.read_steps and all((step.gradient > 0).all() for step in output.trace.read_steps)


def test_an_object_has_its_tokens_of_every_text(family, pair):
    groups, _ = phrase_groups(pair[0], PROMPT, LAYOUT, include_adjectives=False)
    words = PROMPT.split()
    circle = words.index("circle")
    assert groups[0].tokens == ([circle + 1, 32 + circle] if family == "SD3" else [circle])


def test_a_phrase_beyond_what_is_read_is_refused(family, pair):
    """Its tokens would be those of the picture."""
    prompt = "a red circle " + "and " * (510 if family == "Flux" else 30) + "a blue square"
    with pytest.raises(PhrasePastLimitError, match="a blue square"):
        phrase_groups(pair[0], prompt, LAYOUT, include_adjectives=False)


def plain(branch, pipeline, x, sigma, mask):
    """Losses and gradient from the whole network's graph and a plain softmax, for one item."""
    found = []
    dot_product = torch.nn.functional.scaled_dot_product_attention

    def watch(*args, **given):
        found.append(args[:2] or (given["query"], given["key"]))
        return dot_product(*args, **given)

    x = x.clone().requires_grad_(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
        branch._run(x, sigma, ("positive",))
    cells = (SIZE[0] // 16) * (SIZE[1] // 16)
    found = [(q, k) for q, k in found if k.shape[2] > cells]  # not SD3.5's attention of the picture alone
    q, k = found[branch._objective.layers[0].number]
    scores = q @ k.mT * q.shape[-1] ** -0.5
    text = k.shape[2] - cells
    if isinstance(pipeline, FluxPipeline):
        order = torch.arange(text + cells)
    else:
        order = torch.cat([torch.arange(cells, text + cells), torch.arange(cells)])
    scores = scores[:, :, order][..., order]  # texts, then the picture
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    maps = scores.softmax(-1)[:, :, text:, :text].mean(1).mT.unflatten(-1, (SIZE[0] // 16, SIZE[1] // 16))
    maps = maps / maps.sum((-2, -1), keepdim=True)
    groups, _ = phrase_groups(pipeline, PROMPT, LAYOUT, include_adjectives=False)
    regions = branch._objective.targets.regions(*maps.shape[-2:])[0]
    losses = [1 - (maps[:, g.tokens].mean(1) * r).sum((-2, -1)) for g, r in zip(groups, regions, strict=True)]
    (gradient,) = torch.autograd.grad(sum(losses).sum(), x)
    return torch.stack(losses, 1), gradient


@pytest.mark.parametrize("regional", [False, True])
def test_gradient_is_plain_autograds(family, regional):
    pipeline = FAMILIES[family](3)
    pipeline.transformer.double()
    branch, request = branch_of(pipeline, regional=regional)
    x = torch.randn(1, 16, SIZE[0] // 8, SIZE[1] // 8, dtype=torch.float64)
    sigma = request.sigmas[1]
    mask = branch._regional.mask[0] if regional else None
    losses, gradient = plain(branch, pipeline, x, sigma, mask)
    for found in (branch.gradient(x, sigma), branch.denoise_with_gradient(x, sigma)[1]):
        torch.testing.assert_close(found.losses, losses.detach(), atol=1e-9, rtol=1e-6)
        error = (found.g - gradient).abs().max() / gradient.abs().max()
        assert error < (1e-9 if family == "SD3" else 1e-5)  # Flux's positions are in fp32


def test_regional_attention_of_the_whole_picture_is_ordinary_attention(pair):
    regional, request = branch_of(pair[0], [WHOLE], regional=True)
    phrase = text_conditioning(pair[0], ["a red circle"], 1, SIZE)["encoder_hidden_states"]
    plain_branch, _ = branch_of(pair[0], [WHOLE])
    text = plain_branch._arguments["positive"]
    text["encoder_hidden_states"] = torch.cat([text["encoder_hidden_states"], phrase], 1)
    x = torch.randn(1, 16, SIZE[0] // 8, SIZE[1] // 8)
    torch.testing.assert_close(*(b.denoise(x, request.sigmas[1]) for b in (regional, plain_branch)))


def test_items_have_their_own_regions(pair):
    """A batch of layouts with two objects, one, and none gives what each gives alone."""
    layouts = [LAYOUT, WHOLE, replace(LAYOUT, objects=())]
    together, request = branch_of(pair[0], layouts, regional=True)
    x, sigma = torch.randn(3, 16, SIZE[0] // 8, SIZE[1] // 8), request.sigmas[1]
    found = together.denoise(x, sigma)
    for b, layout in enumerate(layouts[:2]):
        alone, _ = branch_of(pair[0], [layout], regional=True)
        torch.testing.assert_close(found[b : b + 1], alone.denoise(x[b : b + 1], sigma), atol=1e-4, rtol=1e-4)


def test_regions_act_in_the_first_share_of_the_steps(pair):
    def of(beta: float):
        branch, _ = branch_of(pair[0])
        request = request_for(pair[0], beta=beta)
        branch._regional = regional_texts(pair[0], request, branch._arguments["positive"])
        x = torch.randn(1, 16, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(1))
        return [branch.denoise(x, sigma) for sigma in request.sigmas[:-1]]

    whole, some, none = of(1.0), of(0.4), of(0.0)
    assert torch.equal(some[0], whole[0]) and torch.equal(some[2], none[2])
    assert not torch.equal(whole[0], none[0]) and not torch.equal(whole[2], none[2])


EVERY_STEP = tuple((index / STEPS, 1.0) for index in range(STEPS))


@pytest.mark.parametrize(
    "guidance",
    [
        LayoutGuidance(scale=1000.0, threshold=0.0, iterations=4, until=1.0),
        AttendAndExcite(scale=1e6, until=1.0, refinements=EVERY_STEP, most=3),
        BoxDiff(scale=1e6, until=1.0, refinements=EVERY_STEP, most=3),
    ],
    ids=lambda guidance: guidance.name,
)
def test_guidance_descends(family, pair, guidance):
    """On these networks' velocities, which have the sign opposite to a noise prediction's."""
    losses = []
    gradient = DenoiserBranch.gradient

    def watch(self, *args):
        found = gradient(self, *args)
        losses.append(float(found.losses.sum()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenoiserBranch, "gradient", watch)
        drawn([Guided(pair[0], layout_guidance=guidance)], guidance_scale=GUIDANCE[family])
    steps = [losses[i : i + 4] for i in range(0, len(losses), 4)]
    assert len(steps) == STEPS and all(step == sorted(step, reverse=True) for step in steps)
    assert all(step[0] > step[-1] for step in steps[:-1])  # at the last noise level, moves are as small as rounding


def test_what_does_not_go_together_is_refused(pair, family, tiny_pipelines):
    other = FAMILIES["Flux" if family == "SD3" else "SD3"]()
    for wrong in ((pair[0], other), (pair[0], tiny_pipelines.fidelity), (tiny_pipelines.fidelity, pair[0])):
        with pytest.raises(BranchMismatchError, match=family):
            RealCompoPipeline(*wrong)
    with pytest.raises(RealCompoError, match="ddpm.*mix both"):
        RealCompoPipeline(*pair)(PROMPT, LAYOUT, sampler="ddpm")
    with pytest.raises(RealCompoError, match="superdiff"):
        drawn(pair, balance=BalanceSettings(rule="superdiff", mode="one_pass"))
    with pytest.raises(RealCompoError, match="divisible by 16"):
        RealCompoPipeline(*pair)(PROMPT, LAYOUT, height=72, width=64)
    with pytest.raises(RealCompoError, match=f"structured.*{family}"):
        Guided(pair[0], structured=True)
    with pytest.raises(RealCompoError, match="composed and regional"):
        Guided(FAMILIES["SD3"](), composed="prompt", regional=True)
    with pytest.raises(RealCompoError, match="regional and phrase_strength"):
        Guided(pair[0], regional=True, phrase_strength=1.0)
    with pytest.raises(RealCompoError, match="UNet"):
        Guided(tiny_pipelines.fidelity, regional=True)
    with pytest.raises(RealCompoError, match="matches none of this transformer's blocks"):
        drawn(pair, layers="nothing")
    if family == "Flux":
        with pytest.raises(RealCompoError, match="composed.*Flux"):
            Guided(pair[0], composed="prompt")
        with pytest.raises(RealCompoError, match="negative_prompt"):
            drawn(pair, negative_prompt="blurry")


def test_the_text_that_words_compete_in(family, pair):
    """Attend-and-Excite's maps are a softmax over the text's own keys, of which SD3's first one is CLIP's start."""
    branch, request = branch_of(pair[0])
    x, sigma = torch.randn(1, 16, SIZE[0] // 8, SIZE[1] // 8), request.sigmas[0]
    events: list[AttentionEvent] = []
    with torch.no_grad(), branch._source.emitting(events.append, NetworkPass(tuple(x.shape[-2:]))):
        branch._run(x, sigma, ("positive",))
    event = next(event for event in events if event.layer == branch._objective.layers[0])
    shares = (event.q @ event.k[:, :, event.text].mT * event.scale).softmax(-1)  # (B, heads, n, tokens)
    words = shares[..., 1 if family == "SD3" else 0 :].mT.unflatten(-1, event.grid)
    first = event.starts
    group = located(pair[0], request)
    every = replace(group, columns=torch.arange(words.shape[2])[None], members=torch.zeros(1, 2, words.shape[2]))
    for g in range(2):
        every.members[0, g, group.columns[0, group.members[0, g].bool()] - first] = 1
    wanted = attend_and_excite_loss({"one": words}, every)
    found = branch.gradient(x, sigma, AttendAndExcite().objective([], branch._objective.layers, group))
    torch.testing.assert_close(found.losses, wanted, atol=1e-5, rtol=1e-5)


def test_composed_predictions():
    """Composable Diffusion's sum of the parts' own guided predictions."""
    pipeline = sd3(4)
    request = replace(request_for(pipeline), prompts=["a red circle | a blue square"], layouts=[Layout(())])
    branch = build_branch("fidelity", Guided(pipeline, composed="prompt"), schedule_of(pipeline), request, 3.0)
    x, sigma = torch.randn(1, 16, SIZE[0] // 8, SIZE[1] // 8), request.sigmas[1]
    texts = (None, "a red circle", "a blue square")
    with torch.no_grad():
        alone = [
            pipeline.transformer(x, timestep=torch.tensor([1000 * sigma]), **text_conditioning(pipeline, [t], 1, SIZE))
            for t in texts
        ]
        nothing, *parts = (x - sigma * found.sample for found in alone)
        wanted = nothing + sum(3.0 * (part - nothing) for part in parts)
    torch.testing.assert_close(branch.denoise(x, sigma), wanted, atol=1e-4, rtol=1e-4)
