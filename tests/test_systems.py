"""The systems of RealCompo over diffusers: ControlNets, Layout Guidance and regional phrases as spatial branches."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    MultiControlNetModel,
)
from PIL import Image

from realcompo_core.diffusers import Control, Guided, RealCompoPipeline
from realcompo_core.diffusers.controlnet import with_controlnets
from realcompo_core.diffusers.pipeline import Request, build_branch
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.errors import BranchMismatchError, RealCompoError
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
from realcompo_core.layout.segmentation import draw_segmentation
from tests.test_diffusers_adapter import LAYOUT, PROMPT, alone, assert_same_latents, diffusers_latents, generate
from tests.test_diffusers_adapter import with_scheduler as with_schedule

GUIDANCE = LayoutGuidance(scale=30.0, iterations=2, until=0.5)


def with_scheduler(pipeline, name="ddim"):
    return with_schedule(pipeline, name)


def controlnet(pipeline, seed=0, **config):
    """One of the pipeline's family, with random weights: zero convolutions would do nothing."""
    torch.manual_seed(seed)
    network = ControlNetModel.from_unet(pipeline.unet, **config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "controlnet_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def picture(seed, width=128, height=128):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_controlnet_with_weight_1_gives_what_diffusers_gives(tiny_pipelines, kind):
    plain = with_scheduler(getattr(tiny_pipelines, kind))
    pipeline = with_controlnets(plain, controlnet(plain))
    size = {"height": 96, "width": 128}
    shown = picture(0, 128, 96)
    expected = diffusers_latents(pipeline, image=shown, controlnet_conditioning_scale=0.7, **size)
    found = alone(1, plain, pipeline, sampler="ddim", controls=Control(shown, 0.7), **size)
    assert_same_latents(found, expected)
    assert (found - diffusers_latents(plain, **size)).abs().max() > 1e-2


def test_two_controlnets_each_in_its_steps_give_what_diffusers_gives(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity)
    pipeline = with_controlnets(plain, controlnet(plain, 1), controlnet(plain, 2))
    assert isinstance(pipeline.controlnet, MultiControlNetModel)
    shown, strengths, starts, ends = [picture(1), picture(2)], [0.5, 1.2], [0.0, 0.25], [0.5, 1.0]
    expected = diffusers_latents(
        pipeline,
        image=shown,
        controlnet_conditioning_scale=strengths,
        control_guidance_start=starts,
        control_guidance_end=ends,
    )
    controls = [Control(*of) for of in zip(shown, strengths, starts, ends, strict=True)]
    assert_same_latents(alone(1, plain, pipeline, sampler="ddim", controls=controls), expected)
    weaker = alone(
        1,
        plain,
        pipeline,
        sampler="ddim",
        controls=[Control(p, 2 * s, a, b) for p, s, a, b in zip(shown, strengths, starts, ends, strict=True)],
        beta=0.5,
    )
    assert_same_latents(weaker, expected)


def test_items_of_a_batch_have_control_pictures_of_their_own(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity)
    pipeline = with_controlnets(plain, controlnet(plain))
    pictures = [picture(1), picture(2)]
    both = generate(plain, pipeline, prompt=[PROMPT] * 2, seed=3, controls=[Control(pictures)]).latents
    for b, shown in enumerate(pictures):
        one = generate(plain, pipeline, seed=3 + b, controls=[Control(shown)]).latents
        torch.testing.assert_close(both[b], one[0], rtol=1e-4, atol=1e-4)


def test_layout_drawn_as_segmentation_is_what_the_controlnet_sees(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity)
    pipeline = with_controlnets(plain, controlnet(plain))
    palette = {"red circle": (255, 0, 0), "blue square": (0, 0, 255)}

    def drawn(layout, size):
        return draw_segmentation(layout, palette, size)

    found = alone(1, plain, pipeline, controls=Control(drawn))
    shown = Image.new("RGB", (128, 128))
    shown.paste((255, 0, 0), (13, 38, 51, 90))
    shown.paste((0, 0, 255), (77, 38, 115, 90))
    torch.testing.assert_close(found, alone(1, plain, pipeline, controls=Control(shown)), rtol=1e-5, atol=1e-5)


def branch_of(pipeline, controls=(), **guided):
    sigmas = NoiseSchedule(pipeline.scheduler).sigmas(4)
    request = Request([PROMPT], [None], [LAYOUT], (128, 128), sigmas, 1.0, "up_blocks.1", False)
    guided = Guided(pipeline, **guided)
    return build_branch("spatial", guided, NoiseSchedule(pipeline.scheduler), request, 5.0, controls), sigmas


def test_gradient_flows_through_the_controlnet_unless_it_is_detached(tiny_pipelines):
    """Against central differences of the loss in float64, at three places of the latent."""
    plain = with_scheduler(tiny_pipelines.fidelity)
    double = with_controlnets(copy(plain), controlnet(plain))
    before = double.unet.dtype
    try:
        for module in (double.unet, double.controlnet, double.text_encoder):
            module.double()
        branch, sigmas = branch_of(double, [Control(picture(0))])
        detached, _ = branch_of(double, [Control(picture(0), detached=True)])
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64) * sigmas[1]
        with torch.no_grad():
            found, without = branch.gradient(x, sigmas[1]), detached.gradient(x, sigmas[1])
            for place in ((0, 0, 3, 4), (0, 2, 8, 8), (0, 3, 12, 1)):
                h = torch.zeros_like(x)
                h[place] = 1e-4
                ends = [branch.gradient(x + sign * h, sigmas[1]).losses.sum() for sign in (1, -1)]
                slope = (ends[0] - ends[1]) / 2e-4
                torch.testing.assert_close(found.g[place], slope, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(without.losses, found.losses)
        assert (without.g - found.g).abs().max() > 0.01 * found.g.abs().max()
    finally:
        for module in (double.unet, double.text_encoder):
            module.to(before)


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
@pytest.mark.parametrize("system", ["controlnet", "layout_guidance", "phrases"])
@pytest.mark.parametrize("mode", ["one_pass", "lookahead"])
def test_every_system_balances_a_batch(tiny_pipelines, kind, system, mode):
    plain = getattr(tiny_pipelines, kind)
    controls = ()
    if system == "controlnet":
        spatial, controls = with_controlnets(plain, controlnet(plain)), Control(picture(0))
    elif system == "layout_guidance":
        spatial = Guided(plain, layout_guidance=GUIDANCE)
    else:
        spatial = Guided(plain, phrase_strength=1.0)
    output = generate(
        plain, spatial, prompt=[PROMPT] * 2, controls=controls, balance=BalanceSettings(mode=mode, t1=1.0)
    )
    assert output.latents.isfinite().all() and len(output.images) == 2
    read = output.trace.read_steps
    assert read and all((step.gradient > 0).all() for step in read)
    assert (output.trace.steps[-1].coefficients != output.trace.steps[0].coefficients).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_systems_in_half_precision(tiny_pipelines, kind, dtype):
    plain = getattr(tiny_pipelines, kind)
    spatial = with_controlnets(plain, controlnet(plain))
    modules = [m for m in spatial.components.values() if isinstance(m, torch.nn.Module)]
    try:
        for module in modules:
            module.to(dtype)
        for found in (
            generate(plain, spatial, controls=Control(picture(0))),
            generate(plain, Guided(plain, layout_guidance=GUIDANCE)),
        ):
            assert found.latents.isfinite().all()
            assert all((step.gradient > 0).all() for step in found.trace.read_steps)
    finally:
        for module in modules:
            module.float()


def test_layout_guidance_alone_is_its_branch_with_all_the_weight(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity)
    guided = Guided(plain, layout_guidance=GUIDANCE)
    for sampler in ("euler", "plms", "dpmpp_2m"):
        by_itself = RealCompoPipeline(guided)(
            PROMPT, LAYOUT, seed=3, steps=4, sampler=sampler, guidance_scale=5.0, layers=2, balance=BalanceSettings()
        )
        assert_same_latents(by_itself.latents, alone(1, plain, guided, sampler=sampler))
        assert [step.moves is not None for step in by_itself.trace.by_step] == [True, True, False, False]
    unguided = alone(0, plain, guided, sampler="dpmpp_2m")
    assert (by_itself.latents - unguided).abs().max() > 1e-2
    assert_same_latents(alone(1, plain, guided, sampler="dpmpp_2m", beta=0.0), unguided)


def test_layout_guidance_of_the_settings_is_that_of_each_spatial_branch_without_its_own(tiny_pipelines):
    """Never of the fidelity branch; and its scale is for `scale_steps` steps."""
    first, second = with_scheduler(tiny_pipelines.fidelity), with_scheduler(tiny_pipelines.gligen)
    settings = BalanceSettings(layout_guidance=replace(GUIDANCE, scale=GUIDANCE.scale / 2, scale_steps=8))
    expected = generate(
        first, Guided(second, layout_guidance=GUIDANCE), steps=4, sampler="ddim", balance=BalanceSettings()
    )
    found = generate(first, second, steps=4, sampler="ddim", balance=settings)
    assert_same_latents(found.latents, expected.latents)
    assert found.trace.steps[0].moves[0, 0] == 0 < found.trace.steps[0].moves[0, 1]
    own = generate(first, Guided(second, layout_guidance=GUIDANCE), steps=4, sampler="ddim", balance=settings)
    assert_same_latents(own.latents, expected.latents)
    without = generate(first, second, steps=4, sampler="ddim", balance=BalanceSettings())
    assert (without.latents - expected.latents).abs().max() > 1e-2


def test_phrases_are_averaged_with_the_prompt_in_their_regions(tiny_pipelines):
    """Against diffusers' UNet, prompt by prompt: (whole + Σ strength · region · phrase) / (1 + Σ strength · region)."""
    pipeline = with_scheduler(tiny_pipelines.fidelity)
    branch, sigmas = branch_of(pipeline, phrase_strength=2.0)
    schedule = NoiseSchedule(pipeline.scheduler)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * sigmas[1]

    @torch.no_grad()
    def noise(text):
        ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        scaled = x / (1 + sigmas[1] ** 2) ** 0.5
        return pipeline.unet(scaled, schedule.timestep(sigmas[1]), pipeline.text_encoder(ids)[0]).sample

    total, weights = noise(PROMPT), torch.ones(1, 1, 16, 16)
    for item in LAYOUT.objects:
        x0, y0, x1, y1 = item.box
        cells = torch.arange(16) / 16
        inside = [((b - cells).clamp(0, 1 / 16) - (a - cells).clamp(0, 1 / 16)) * 16 for a, b in ((y0, y1), (x0, x1))]
        weight = 2.0 * inside[0][:, None] * inside[1]
        total, weights = total + weight * noise(item.phrase), weights + weight
    guided = noise("") + 5.0 * (total / weights - noise(""))
    torch.testing.assert_close(branch.denoise(x, sigmas[1]), x - sigmas[1] * guided, rtol=1e-4, atol=1e-3)


def test_items_with_fewer_objects_have_fewer_phrases(tiny_pipelines):
    plain = with_scheduler(tiny_pipelines.fidelity)
    spatial = Guided(plain, phrase_strength=1.0)
    layouts = [LAYOUT, Layout(LAYOUT.objects[:1])]
    both = generate(plain, spatial, prompt=[PROMPT] * 2, layout=layouts).latents
    second = generate(plain, spatial, layout=layouts[1], seed=4).latents
    torch.testing.assert_close(both[1], second[0], rtol=1e-4, atol=1e-4)


def test_a_controlnet_of_another_family_is_refused(tiny_pipelines):
    other = controlnet(tiny_pipelines.sdxl)
    with pytest.raises(BranchMismatchError, match=r"ControlNet is made for text of width 256, the UNet .* 128"):
        with_controlnets(tiny_pipelines.fidelity, other)
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.controlnet = other  # as a pipeline of the user's own may have it
    with pytest.raises(BranchMismatchError, match=r"ControlNet is made for text of width 256"):
        generate(tiny_pipelines.fidelity, pipeline, controls=Control(picture(0)))


def test_a_union_controlnet_is_refused_by_name(tiny_pipelines):
    pipeline = copy(tiny_pipelines.fidelity)
    pipeline.controlnet = ControlNetUnionModel.__new__(ControlNetUnionModel)
    with pytest.raises(RealCompoError, match="ControlNetUnionModel is not supported"):
        generate(tiny_pipelines.fidelity, pipeline)


@pytest.mark.parametrize(
    "controls, message",
    [
        ((), "0 controls for 1 ControlNets"),
        ([Control(picture(0))] * 2, "2 controls for 1 ControlNets"),
        (Control([picture(0)] * 3), "3 control pictures for 1 prompts"),
        (Control(picture(0, 128, 64)), "128x64 pixels, and 128x128 are sampled"),
        (Control(picture(0), start=0.51, end=0.52), "from 0.51 to 0.52, and none of the 4 steps begins there"),
    ],
)
def test_controls_that_do_not_fit_are_named(tiny_pipelines, controls, message):
    pipeline = with_controlnets(tiny_pipelines.fidelity, controlnet(tiny_pipelines.fidelity))
    with pytest.raises(RealCompoError, match=message):
        generate(tiny_pipelines.fidelity, pipeline, controls=controls)


def test_a_control_without_any_step_is_refused():
    with pytest.raises(RealCompoError, match="from 0.5 to 0.5"):
        Control(picture(0), start=0.5, end=0.5)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_strength_below_zero_is_refused(tiny_pipelines, value):
    with pytest.raises(RealCompoError, match=f"strength is {value}"):
        Control(picture(0), strength=value)
    with pytest.raises(RealCompoError, match=f"phrase_strength is {value}"):
        Guided(tiny_pipelines.fidelity, phrase_strength=value)
