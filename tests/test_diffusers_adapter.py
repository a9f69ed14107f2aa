from copy import copy, deepcopy

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.diffusers.latents import decode
from realcompo_core.diffusers.text_conditioning import count_chunks, phrase_groups, text_conditioning
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.errors import BranchMismatchError, Cancelled, RealCompoError
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout, LayoutObject

PROMPT = "a red circle to the left of a blue square"
BOXES = [(0.1, 0.3, 0.4, 0.7), (0.6, 0.3, 0.9, 0.7)]
LAYOUT = Layout((LayoutObject("a red circle", BOXES[0]), LayoutObject("a blue square", BOXES[1])))
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SAME_AS_SD = BETAS | {"steps_offset": 1}
SCHEDULERS = {
    "ddim": lambda: DDIMScheduler(**SAME_AS_SD, clip_sample=False, set_alpha_to_one=False),
    "plms": lambda: PNDMScheduler(**SAME_AS_SD, skip_prk_steps=True),
    "euler": lambda: EulerDiscreteScheduler(**SAME_AS_SD, timestep_spacing="leading"),
    "v_prediction": lambda: DDIMScheduler(
        **SAME_AS_SD, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
    ),
}


def with_scheduler(pipeline, name):
    pipeline = copy(pipeline)
    pipeline.scheduler = SCHEDULERS[name]()
    return pipeline


def generate(fidelity, spatial, *, prompt=PROMPT, layout=LAYOUT, seed=3, steps=4, sampler="euler", **kwargs):
    balance = kwargs.pop("balance", None) or BalanceSettings(update_until=1)
    kwargs = {"guidance_scale": 5.0, "layers": 2} | kwargs
    return RealCompoPipeline(fidelity, spatial)(
        prompt, layout, seed=seed, steps=steps, sampler=sampler, balance=balance, **kwargs
    )


def alone(branch, *pipelines, **kwargs):
    return generate(*pipelines, balance=BalanceSettings(fixed=torch.eye(2)[branch]), **kwargs).latents


def diffusers_latents(pipeline, steps=4, height=128, width=128, **kwargs):
    generator = torch.Generator().manual_seed(3)
    return pipeline(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=kwargs.pop("guidance_scale", 5.0),
        generator=generator,
        output_type="latent",
        height=height,
        width=width,
        **kwargs,
    )[0]


def assert_same_latents(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    "scheduler, sampler", [("ddim", "ddim"), ("plms", "plms"), ("euler", "euler"), ("v_prediction", "ddim")]
)
@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_weight_1_gives_what_diffusers_gives(tiny_pipelines, kind, scheduler, sampler):
    pipeline = with_scheduler(getattr(tiny_pipelines, kind), scheduler)
    size = {"height": 128, "width": 192}
    expected = diffusers_latents(pipeline, **size)
    assert_same_latents(alone(0, pipeline, pipeline, sampler=sampler, **size), expected)


def test_zero_terminal_snr_gives_what_diffusers_gives(tiny_pipelines):
    """Lin et al. 2024: no signal is left at the last timestep, whose sigma would be infinite."""
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        set_alpha_to_one=True,
    )
    assert float(pipeline.scheduler.alphas_cumprod[-1]) == 0
    expected = diffusers_latents(pipeline)
    found = alone(0, pipeline, pipeline, sampler="ddim")
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    balanced = generate(pipeline, pipeline, sampler="ddim", steps=4)
    assert balanced.latents.isfinite().all()


def test_a_prediction_type_that_is_not_known_is_refused(tiny_pipelines):
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.scheduler = deepcopy(pipeline.scheduler)
    pipeline.scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(RealCompoError, match="'flow_prediction'.*epsilon, v_prediction, sample"):
        RealCompoPipeline(pipeline, pipeline)


@pytest.mark.parametrize("scheduler", ["ddim", "plms"])
@pytest.mark.parametrize("height", [128, 96])
def test_weight_1_gives_what_diffusers_gligen_gives(tiny_pipelines, scheduler, height):
    fidelity, gligen = (with_scheduler(p, scheduler) for p in (tiny_pipelines.fidelity, tiny_pipelines.gligen))
    phrases = [item.phrase for item in LAYOUT.objects]
    grounded = {"gligen_phrases": phrases, "gligen_boxes": BOXES, "gligen_scheduled_sampling_beta": 1}
    expected = diffusers_latents(gligen, height=height, **grounded)
    found = alone(1, fidelity, gligen, sampler=scheduler, height=height)
    assert_same_latents(found, expected)
    elsewhere = Layout((LAYOUT.objects[0], LayoutObject("a blue square", (0.0, 0.0, 0.3, 0.3))))
    assert (alone(1, fidelity, gligen, sampler=scheduler, height=height, layout=elsewhere) - found).abs().max() > 1e-3


def test_gligen_gates_close_after_beta(tiny_pipelines):
    fidelity, gligen = (with_scheduler(p, "ddim") for p in (tiny_pipelines.fidelity, tiny_pipelines.gligen))
    phrases = [item.phrase for item in LAYOUT.objects]
    grounded = {"gligen_phrases": phrases, "gligen_boxes": BOXES, "gligen_scheduled_sampling_beta": 0.5}
    assert_same_latents(alone(1, fidelity, gligen, sampler="ddim", beta=0.5), diffusers_latents(gligen, **grounded))


def test_gates_that_diffusers_left_closed_are_opened(tiny_pipelines):
    """diffusers' own GLIGEN pipeline closes the gates after its β and leaves them closed."""
    tiny_pipelines.gligen.enable_fuser(True)
    before = alone(1, tiny_pipelines.fidelity, tiny_pipelines.gligen)
    tiny_pipelines.gligen.enable_fuser(False)
    assert torch.equal(alone(1, tiny_pipelines.fidelity, tiny_pipelines.gligen), before)


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_guidance_scale_of_1_and_negative_prompt_match_diffusers(tiny_pipelines, kind):
    pipeline = with_scheduler(getattr(tiny_pipelines, kind), "ddim")
    for settings in ({"guidance_scale": 1.0}, {"negative_prompt": "a green star"}):
        found = alone(0, pipeline, pipeline, sampler="ddim", **settings)
        assert_same_latents(found, diffusers_latents(pipeline, **settings))


@torch.no_grad()
def test_pictures_are_decoded_as_diffusers_does(tiny_pipelines):
    pipeline = tiny_pipelines.fidelity
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)[0]
    for found, image in zip(decode(pipeline, latents), pipeline.image_processor.postprocess(decoded), strict=True):
        assert found.size == (96, 64) and found.tobytes() == image.tobytes()


def test_autoencoder_that_needs_fp32_gets_it_for_the_decoding_only(tiny_pipelines):
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.vae = deepcopy(pipeline.vae).half()
    pipeline.vae.register_to_config(force_upcast=True)
    seen = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.no_grad():
        decode(pipeline, torch.zeros(1, 4, 8, 8))
    assert seen == [torch.float32] and pipeline.vae.dtype == torch.float16


def test_negative_phrase_of_the_layout_joins_the_negative_prompt(tiny_pipelines):
    pipeline = tiny_pipelines.fidelity
    layout = Layout(LAYOUT.objects, negative="a green star")
    assert torch.equal(
        alone(0, pipeline, pipeline, layout=layout, negative_prompt="a cube"),
        alone(0, pipeline, pipeline, negative_prompt="a cube, a green star"),
    )


@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
@pytest.mark.parametrize("spatial", ["gligen", "sdxl"])
def test_balanced_run_gives_pictures_layouts_and_a_trace(tiny_pipelines, mode, spatial):
    fidelity = tiny_pipelines.sdxl if spatial == "sdxl" else tiny_pipelines.fidelity
    settings = BalanceSettings(mode=mode, t1=1, initial="random")
    out = generate(fidelity, getattr(tiny_pipelines, spatial), balance=settings, sampler="plms", height=96)
    assert [image.size for image in out.images] == [(128, 96)]
    assert out.layout is LAYOUT and out.latents.shape == (1, 4, 12, 16) and out.latents.isfinite().all()
    assert out.trace.phrases == [["a red circle", "a blue square"]]
    assert out.trace.branches == ("fidelity", "spatial")
    read = out.trace.read_steps
    assert len(read) >= 3
    assert read[0].maps.shape == (1, 2, 2, 6, 8) and read[0].losses.shape == (1, 2, 2)
    assert (read[0].gradient > 0).all()
    assert not torch.equal(out.trace.steps[0].coefficients, out.trace.steps[-1].coefficients)


def test_seed_decides_the_picture(tiny_pipelines):
    pipelines = tiny_pipelines.fidelity, tiny_pipelines.gligen
    settings = BalanceSettings(initial="random", t1=1)
    first, again, other = (generate(*pipelines, seed=seed, balance=settings) for seed in (3, 3, 4))
    assert torch.equal(first.latents, again.latents)
    assert (first.latents - other.latents).abs().max() > 0.1
    coefficients = [out.trace.steps[-1].coefficients for out in (first, again, other)]
    assert torch.equal(coefficients[0], coefficients[1]) and not torch.equal(coefficients[0], coefficients[2])


BATCH = [
    (PROMPT, LAYOUT),
    ("a green star", Layout((LayoutObject("a green star", (0.2, 0.5, 0.9, 1.0)),))),
    ("two red circles", Layout(tuple(LayoutObject("a red circle", box) for box in BOXES))),
    ("a blue square", Layout(negative="a red circle")),  # nothing to place
]


@pytest.mark.parametrize("mode, initial", [("one_pass", "random"), ("lookahead", "zero")])
def test_item_of_a_batch_is_that_item_alone(tiny_pipelines, mode, initial):
    pipelines = tiny_pipelines.fidelity, tiny_pipelines.gligen
    settings = BalanceSettings(mode=mode, initial=initial, update_until=1)
    prompts, layouts = zip(*BATCH, strict=True)
    together = generate(*pipelines, prompt=prompts, layout=layouts, seed=10, balance=settings, steps=3)
    for b, (prompt, layout) in enumerate(BATCH):
        item = generate(*pipelines, prompt=prompt, layout=layout, seed=10 + b, balance=settings, steps=3)
        torch.testing.assert_close(together.latents[b : b + 1], item.latents, rtol=0, atol=1e-3)


def test_objects_of_one_phrase_share_a_token_group(tiny_pipelines):
    out = generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, prompt=BATCH[2][0], layout=BATCH[2][1])
    assert out.trace.phrases == [["a red circle"]]
    assert out.trace.read_steps[0].maps.shape[2] == 1


def test_without_a_layout_the_provider_proposes_one(tiny_pipelines):
    out = generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, layout=None)
    assert len(out.layout.objects) == 2 and len(out.trace.phrases[0]) == 2


def test_layout_without_objects_is_the_fidelity_pipeline_alone(tiny_pipelines):
    out = generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, layout=Layout())
    assert torch.equal(out.latents, alone(0, tiny_pipelines.fidelity, tiny_pipelines.gligen))
    assert "no objects" in out.trace.note


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_the_same_gradient(tiny_pipelines, dtype):
    fidelity, gligen = deepcopy(tiny_pipelines.fidelity), deepcopy(tiny_pipelines.gligen)
    for pipeline in (fidelity, gligen):
        pipeline.to(dtype=dtype)
    found = generate(fidelity, gligen, sampler="ddim", steps=2)
    exact = generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, sampler="ddim", steps=2)
    assert found.latents.isfinite().all()
    a, b = (out.trace.read_steps[0] for out in (found, exact))
    torch.testing.assert_close(a.losses, b.losses, rtol=0.02, atol=0)
    moves = torch.stack([step.coefficients.flatten() for step in (a, b)])
    assert torch.corrcoef(moves)[0, 1] > 0.95


FILLER = "a small picture with a plain gray background and a soft shadow " * 3


def test_long_prompt_is_encoded_chunk_by_chunk(tiny_pipelines):
    pipeline = tiny_pipelines.fidelity
    length = pipeline.tokenizer.model_max_length
    prompt = FILLER + PROMPT
    chunks = count_chunks(pipeline, prompt)
    assert chunks > 1
    with torch.no_grad():
        text = text_conditioning(pipeline, [prompt], chunks, (128, 128))["encoder_hidden_states"]
        assert text.shape[1] == chunks * length
        ids = pipeline.tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids[: length - 2]
        first = torch.tensor([[pipeline.tokenizer.bos_token_id, *ids, pipeline.tokenizer.eos_token_id]])
        torch.testing.assert_close(text[:, :length], pipeline.text_encoder(first)[0])

    groups, _ = phrase_groups(pipeline, prompt, LAYOUT, include_adjectives=False)
    everything = pipeline.tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    for group, word in zip(groups, ("circle", "square"), strict=True):
        position = group.tokens[0]
        assert position > length
        token = everything[position // length * (length - 2) + position % length - 1]
        assert pipeline.tokenizer.decode([token]).strip() == word

    out = generate(pipeline, tiny_pipelines.gligen, prompt=prompt, steps=2)
    assert out.trace.read_steps[0].maps.shape[2] == 2 and out.latents.isfinite().all()


def test_long_negative_prompt_works_too(tiny_pipelines):
    out = generate(tiny_pipelines.sdxl, tiny_pipelines.sdxl, negative_prompt=FILLER * 2, steps=2)
    assert out.latents.isfinite().all()


@pytest.mark.parametrize("sampler", ["euler", "plms"])
def test_progress_counts_the_steps(tiny_pipelines, sampler):
    seen = []
    pipelines = tiny_pipelines.fidelity, tiny_pipelines.gligen
    generate(*pipelines, steps=3, sampler=sampler, progress=lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_cancelling_raises_and_stops_at_once(tiny_pipelines):
    done = []
    with pytest.raises(Cancelled):
        generate(
            tiny_pipelines.fidelity,
            tiny_pipelines.gligen,
            progress=lambda i, _: done.append(i),
            cancelled=lambda: len(done) == 2,
        )
    assert done == [1, 2]


def test_layers_are_chosen_by_factor_or_name(tiny_pipelines):
    source = UNetAttention(tiny_pipelines.fidelity.unet)

    def names(layers):
        return [layer.name for layer in source.choose(layers)]

    coarse = names(2)
    assert coarse[0].startswith("down_blocks.1") and coarse[-1].startswith("up_blocks.0")
    assert {name.split(".")[0] for name in names(1)} == {"down_blocks", "up_blocks"}
    assert all(name.startswith("mid_block") for name in names("^mid"))
    out = generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, layers="^mid|^up_blocks.1", steps=2)
    assert out.trace.read_steps[0].maps.shape[-2:] == (16, 16)
    for layers in (16, "block_17"):
        with pytest.raises(RealCompoError, match=f"{layers}.*up_blocks.0.attentions.0.transformer_blocks.0.attn2"):
            names(layers)


def test_layers_run_in_the_order_of_their_list(tiny_pipelines):
    """A source lists its layers in the order of the forward pass."""
    unet, ran = tiny_pipelines.sdxl.unet, []
    names = [layer.name for layer in UNetAttention(unet).layers]
    hooks = [unet.get_submodule(n).register_forward_pre_hook(lambda *_, n=n: ran.append(n)) for n in names]
    try:
        generate(tiny_pipelines.sdxl, tiny_pipelines.sdxl, layout=Layout(), steps=1, guidance_scale=1.0)
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == names


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"unet.in_channels": 16}, r"latent channels.*4 in the fidelity.*16 in the spatial"),
        ({"vae.scaling_factor": 0.5}, r"latent scaling factors.*1\.0 in the fidelity.*0\.5 in the spatial"),
        ({"unet.cross_attention_dim": 768}, r"text widths.*\d+ in the fidelity.*768 in the spatial"),
        (
            {"scheduler": DDIMScheduler(beta_schedule="squaredcos_cap_v2")},
            r"noise schedules.*in the fidelity.*in the spatial",
        ),
    ],
)
def test_pipelines_that_share_no_latent_space_are_refused(tiny_pipelines, changes, message):
    spatial = copy(tiny_pipelines.gligen)
    for name, value in changes.items():
        if name == "scheduler":
            spatial.scheduler = value
            continue
        module, key = name.split(".")
        changed = copy(getattr(spatial, module))
        changed.register_to_config(**{key: value})
        setattr(spatial, module, changed)
    with pytest.raises(BranchMismatchError, match=message):
        RealCompoPipeline(tiny_pipelines.fidelity, spatial)


def test_inpainting_models_are_refused(tiny_pipelines):
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.unet = copy(pipeline.unet)
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(BranchMismatchError, match="takes 9 channels, its autoencoder gives 4"):
        RealCompoPipeline(pipeline, pipeline)


def test_sd_and_sdxl_do_not_mix(tiny_pipelines):
    with pytest.raises(BranchMismatchError, match="text widths"):
        RealCompoPipeline(tiny_pipelines.fidelity, tiny_pipelines.sdxl)


def test_flow_matching_scheduler_is_refused(tiny_pipelines):
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(BranchMismatchError, match="FlowMatchEulerDiscreteScheduler"):
        RealCompoPipeline(pipeline, tiny_pipelines.gligen)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"height": 100}, "128x100"),
        ({"layout": [LAYOUT, LAYOUT]}, "2 layouts for 1 prompts"),
        ({"sampler": "heun"}, "heun.*euler"),
        ({"guidance_scale": [5.0]}, "guidance_scale"),
        ({"beta": 1.5}, "beta is 1.5"),
        ({"steps": 0}, "steps is 0"),
        ({"layout": Layout((LayoutObject("an elephant", BOXES[0]),))}, "elephant"),
    ],
)
def test_wrong_argument_is_named(tiny_pipelines, wrong, message):
    with pytest.raises(RealCompoError, match=message):
        generate(tiny_pipelines.fidelity, tiny_pipelines.gligen, **wrong)


def test_at_least_one_spatial_pipeline_is_needed(tiny_pipelines):
    with pytest.raises(RealCompoError, match="spatial"):
        RealCompoPipeline(tiny_pipelines.fidelity)


def test_no_balance_is_the_default_preset(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    given = {"steps": 4, "sampler": "ddim", "layers": 2}
    pipe = RealCompoPipeline(pipeline, with_scheduler(tiny_pipelines.gligen, "ddim"))
    default, named = (pipe(PROMPT, LAYOUT, balance=balance, **given).latents for balance in (None, "balanced"))
    assert torch.equal(default, named)
    assert not torch.equal(default, pipe(PROMPT, LAYOUT, balance="fast", **given).latents)


def test_without_guidance_from_a_share_of_the_steps_on_it_is_what_ddim_gives(tiny_pipelines):
    """Half of the steps with guidance, half without, written out with the pipeline's own UNet."""
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    half = BalanceSettings(fixed=torch.eye(2)[0], guided_until=0.5)
    found = generate(pipeline, pipeline, balance=half, sampler="ddim").latents
    switched = []

    def unguided(pipe, step, timestep, given):
        if step == 1:
            pipe._guidance_scale = 1.0
            given["prompt_embeds"] = given["prompt_embeds"].chunk(2)[1]
            switched.append(step)
        return given

    inputs = ["latents", "prompt_embeds"]
    expected = diffusers_latents(pipeline, callback_on_step_end=unguided, callback_on_step_end_tensor_inputs=inputs)
    assert switched
    assert_same_latents(found, expected)
