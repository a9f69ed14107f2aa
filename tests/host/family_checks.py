"""SD1.5 and SDXL with ControlNets, GLIGEN and Layout Guidance, run by the host's own Python: `test_host_families.py`.

The weights are random, and the networks as small as the host's own loaders accept: every level has the first one's
width, and the SDXL is as shallow as Segmind's Vega. Names are those of real files. No text encoder is run.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from unittest.mock import patch

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.controlnet  # noqa: E402
import comfy.gligen  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.sdxl_clip  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.t2i_adapter.adapter  # noqa: E402
import comfy_extras.nodes_freelunch as freelunch  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from comfy.cldm.cldm import ControlNet as ControlNetwork  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

import nodes as host  # noqa: E402

from pack import load_nodes  # noqa: E402
from random_weights import gated_layers, randomise  # noqa: E402

NODES = asyncio.run(load_nodes())
guiders = importlib.import_module("realcompo_pack.nodes.host.guider")
composition = importlib.import_module("realcompo_pack.nodes.host.composed")
edits = importlib.import_module("realcompo_pack.nodes.host.edited")
inversion = importlib.import_module("realcompo_pack.nodes.host.inverted")
prompt_words = importlib.import_module("realcompo_pack.nodes.host.prompt_tokens").prompt_words

from realcompo_core.attention.prompt_to_prompt import PromptToPrompt  # noqa: E402
from realcompo_core.errors import BranchMismatchError  # noqa: E402
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff  # noqa: E402
from realcompo_core.guidance.layout_guidance import LayoutGuidance  # noqa: E402
from realcompo_core.guidance.mixing import layout_coefficients  # noqa: E402
from realcompo_core.guidance.settings import BalanceSettings  # noqa: E402
from realcompo_core.layout import Layout, LayoutObject  # noqa: E402
from realcompo_core.layout.regions import covered_by_objects  # noqa: E402
from realcompo_core.text.composition import Part  # noqa: E402

torch.set_num_threads(1)
PROMPT = "a corgi to the left of a teddy bear"
SIZE = (8, 16)  # latent pixels
STEPS = 2
COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
    "operations": comfy.ops.disable_weight_init,
}
SD15 = COMMON | {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 1, 1, 1],
    "num_heads": 8,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
}
SDXL = COMMON | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 1, 1],
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
DECODERS = {"SD15": [1] * 9 + [0] * 3, "SDXL": [0] * 3 + [1] * 3 + [2] * 3}
CONFIGS = {"SD15": SD15, "SDXL": SDXL}
SD20 = SD15 | {"context_dim": 1024, "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True}
GUIDANCE = LayoutGuidance(scale=3.0, threshold=0.1, iterations=1, until=0.5)
MASK = np.zeros((8, 16))
MASK[2:7, 1:7] = 1
POSE = ((0.6, 0.2, 1.0), (0.8, 0.3, 1.0), (0.7, 0.8, 1.0))
LAYOUT = Layout(
    (LayoutObject("a corgi", (0.06, 0.25, 0.44, 0.88)), LayoutObject("a teddy bear", (0.55, 0.2, 0.9, 0.9))),
    prompt=PROMPT,
)
SEGMENTED = Layout((LayoutObject("a corgi", LAYOUT.objects[0].box, mask=MASK), LAYOUT.objects[1]), prompt=PROMPT)
POSED = Layout((LAYOUT.objects[0], LayoutObject("a teddy bear", (0.55, 0.2, 0.9, 0.9), keypoints=POSE)), prompt=PROMPT)
FULL = torch.float32


class Clip:
    """The host's tokenizer of a family, and seeded numbers instead of its text encoders."""

    def __init__(self, tokenizer, width):
        self.tokenizer, self._width = tokenizer, width

    def tokenize(self, text, return_word_ids=False, **options):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **options)

    def encode_from_tokens_scheduled(self, tokens):
        generator = torch.Generator().manual_seed(hash(str(tokens)) % 2**31)
        text, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 77, self._width), (1, 1280)))
        return [[text, {"pooled_output": pooled}]]

    def encode_from_tokens(self, tokens):
        return self.encode_from_tokens_scheduled(tokens)[0][0]


CLIPS = {
    "SD15": Clip(comfy.sd1_clip.SD1Tokenizer(), 768),
    "SDXL": Clip(comfy.sdxl_clip.SDXLTokenizer(), 2048),
}


def shapes_of(network: type, **config) -> dict:
    with torch.device("meta"):
        return network(**config).state_dict()


def load_model(name: str, seed: int, dtype: torch.dtype = FULL) -> ModelPatcher:
    shapes = shapes_of(UNetModel, out_channels=4, transformer_depth_output=list(DECODERS[name]), **CONFIGS[name])
    model = comfy.sd.load_diffusion_model_state_dict(randomise(shapes, seed), model_options={"dtype": dtype})
    assert isinstance(model.model.model_config, getattr(comfy.supported_models, name))
    if dtype != FULL:  # the host would compute in fp32 on a CPU
        model.model.manual_cast_dtype = None
        assert model.model.get_dtype() == dtype
    return model


def load_control(config: dict, seed: int, dtype: torch.dtype = FULL) -> comfy.controlnet.ControlNet:
    weights = randomise(shapes_of(ControlNetwork, hint_channels=3, **config), seed)
    control = comfy.controlnet.load_controlnet_state_dict(weights, model_options={"dtype": dtype})
    if dtype != FULL:
        control.manual_cast_dtype = None
    return control


with torch.inference_mode():  # as the host runs nodes
    MODELS = {name: (load_model(name, 1), load_model(name, 2)) for name in CONFIGS}
    CONTROLS = {name: load_control(config, 3) for name, config in CONFIGS.items()}


def texts(name: str) -> tuple[list, list]:
    clip = CLIPS[name]
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    return positive, negative


def controlled(name: str, *controls, strength=1.0, conditionings=None) -> tuple[list, list]:
    """The conditionings with these ControlNets, one after the other, each with a picture of its own."""
    positive, negative = conditionings or texts(name)
    for seed, control in enumerate(controls):
        picture = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(seed))
        positive, negative = host.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, control, picture, strength, 0.0, 1.0
        )
    return positive, negative


def sampling(models, sampler="euler", batch=1):
    """What any guider's `sample` is given."""
    noise = comfy.sample.prepare_noise(torch.zeros(batch, 4, *SIZE), 1)
    sigmas = comfy.samplers.calculate_sigmas(models[0].get_model_object("model_sampling"), "normal", STEPS)
    return noise, torch.zeros_like(noise), comfy.samplers.sampler_object(sampler), sigmas


def balanced(name, spatial=None, layout=LAYOUT, guidance=None, alone=False, models=None, batch=1, **settings):
    """Latents and trace of the fidelity branch and one with `spatial` conditionings and `guidance`; or the latter."""
    models, detach = models or MODELS[name], settings.pop("detach", False)
    with torch.inference_mode():
        branches = [
            guiders.BranchInput(models[0], *texts(name), 3.0),
            guiders.BranchInput(models[1], *(spatial or texts(name)), 3.0, guidance),
        ]
        guider = guiders.BalancedGuider(
            branches[1:] if alone else branches,
            layout,
            CLIPS[name],
            BalanceSettings(**settings),
            include_adjectives=False,
            detach_control=detach,
        )
        found = guider.sample(*sampling(models, batch=batch), seed=1)
    assert found.isfinite().all() and found.abs().max() < 1e3
    return found, guider.trace


def own(name, spatial, models=None, batch=1):
    """The host's own sampling of the spatial branch."""
    models = models or MODELS[name]
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(models[1])
        guider.set_conds(*spatial)
        guider.set_cfg(3.0)
        return guider.sample(*sampling(models, batch=batch), seed=1)


def check(name, spatial, layout=LAYOUT, batch=1, **settings):
    """Weight 1 is the host's own sampling; else both branches' attention is read, and it moves the coefficients."""
    alone, _ = balanced(name, spatial, layout, fixed=torch.tensor([0.0, 1.0]), batch=batch)
    assert torch.equal(alone, own(name, spatial, batch=batch))
    return moved(name, spatial, layout, batch=batch, **settings)


def moved(name, spatial, layout=LAYOUT, batch=1, **settings):
    found, trace = balanced(name, spatial, layout, t1=1.0, batch=batch, **settings)
    assert different(trace.steps[-1].coefficients, layout_coefficients(covered_by_objects(layout, *SIZE)[None], 2))
    for step in trace.read_steps:
        assert step.losses.shape == (batch, 2, 2) and (step.gradient > 0).all() and step.gradient.isfinite().all()
    return found


def different(found, other):
    return (found - other).abs().max() > 1e-3


def check_keypoints_in_sdxl():
    spatial = controlled("SDXL", CONTROLS["SDXL"])
    found = check("SDXL", spatial, POSED)
    assert different(found, moved("SDXL", spatial, POSED, detach=True))


def check_segmentation_in_sd15_with_a_batch():
    check("SD15", controlled("SD15", CONTROLS["SD15"]), SEGMENTED, batch=2)


def check_controlnets_in_a_chain():
    """The gradient comes through both, and each counts."""
    with torch.inference_mode():
        other = load_control(SD15, 4)
    one, both = (controlled("SD15", *nets) for nets in ([CONTROLS["SD15"]], [CONTROLS["SD15"], other]))
    assert both[0][0][1]["control"].previous_controlnet is not None
    assert different(check("SD15", both), moved("SD15", one))


def check_freeu_with_a_controlnet():
    """FreeU writes into the hidden states that autograd has kept, in blocks 4 times as wide as the first."""

    def with_freeu(node, model):
        with torch.inference_mode(), patch.dict(model.model.model_config.unet_config, model_channels=80):
            return node.execute(model, 1.3, 1.4, 0.9, 0.2).result[0]

    for node in (freelunch.FreeU, freelunch.FreeU_V2):
        models = [with_freeu(node, model) for model in MODELS["SD15"]]
        spatial = controlled("SD15", CONTROLS["SD15"])
        for mode in ("one_pass", "lookahead"):
            found, trace = balanced("SD15", spatial, models=models, mode=mode, t1=1.0)
            assert trace.read_steps and different(found, balanced("SD15", spatial, mode=mode, t1=1.0)[0])


def check_gligen_with_a_controlnet():
    with torch.inference_mode():
        with torch.device("meta"):
            unet = UNetModel(out_channels=4, transformer_depth_output=list(DECODERS["SD15"]), **SD15)
            shapes = gated_layers(unet, width=768)
        gligen = comfy.gligen.load_gligen(randomise(shapes, 5)).float()
        patcher = ModelPatcher(gligen, torch.device("cpu"), torch.device("cpu"))
    pooled = torch.randn(1, 768, generator=torch.Generator().manual_seed(7))
    grounded = {"gligen": ("position", patcher, [(pooled, 5.0, 6.0, 2.0, 1.0), (pooled, 5.0, 6.0, 2.0, 9.0)])}
    positive, negative = texts("SD15")
    spatial = controlled("SD15", CONTROLS["SD15"], conditionings=([[positive[0][0], grounded]], negative))
    assert different(check("SD15", spatial), moved("SD15", controlled("SD15", CONTROLS["SD15"])))


def check_a_phrase_for_each_box():
    """Apply Layout (Regions) makes the spatial branch; masks of the objects where they have one."""
    for name in CONFIGS:
        positive, negative = texts(name)
        apply = NODES["RealCompoApplyLayoutRegions"]
        (regional,) = apply.execute(conditioning=positive, layout=SEGMENTED, clip=CLIPS[name], strength=1.0).args
        assert len(regional) == 3
        assert different(check(name, (regional, negative), SEGMENTED), moved(name, (positive, negative), SEGMENTED))


def check_layout_guidance_alone_and_balanced():
    """On a plain model, and on one that already has a ControlNet."""
    for name, spatial, mode in (
        ("SD15", controlled("SD15", CONTROLS["SD15"]), "lookahead"),
        ("SDXL", texts("SDXL"), "one_pass"),
    ):
        alone, trace = balanced(name, spatial, guidance=GUIDANCE, alone=True)
        assert (trace.steps[0].moves > 0).all() and different(alone, own(name, spatial))
        found, _ = balanced(name, spatial, guidance=GUIDANCE, fixed=torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(found, alone)
        found, trace = balanced(name, guidance=GUIDANCE, mode=mode, t1=1.0)
        assert trace.steps[0].moves[0, 1] > 0 and trace.read_steps[0].losses.isfinite().all()
        assert different(found, alone)


def check_attend_and_excite_and_boxdiff_with_a_controlnet_and_a_batch():
    for kind in (AttendAndExcite, BoxDiff):
        for name in ("SD15", "SDXL"):
            spatial = controlled(name, CONTROLS[name])
            found, trace = balanced(name, spatial, guidance=kind(scale=3.0, most=1), alone=True)
            assert (trace.steps[0].moves > 0).all() and different(found, own(name, spatial))


def check_composable_and_structured_diffusion():
    """One part that is the prompt changes nothing, with a ControlNet too; parts and phrases of their own do."""
    for name in ("SD15", "SDXL"):
        model, clip, spatial = MODELS[name][1], CLIPS[name], controlled(name, CONTROLS[name])

        def sampled(model, spatial=spatial, name=name):
            return own(name, spatial, models=(model, model), batch=2)

        with torch.inference_mode():
            same = composition.composed(model, clip, [Part(PROMPT)])
            parts = composition.composed(model, clip, [Part("a corgi"), Part("a teddy bear", 0.5)])
            phrases = composition.structured(model, clip, PROMPT, ["a corgi", "a teddy bear"])
        torch.testing.assert_close(sampled(same), sampled(model), rtol=1e-3, atol=1e-3)
        assert different(sampled(parts), sampled(model)) and different(sampled(phrases), sampled(model))


def check_prompts_are_edited_with_a_controlnet():
    """An edited prompt that is the prompt changes nothing; another does, and the source stays."""
    other, options = PROMPT.replace("corgi", "cat"), PromptToPrompt()
    for name in ("SD15", "SDXL"):
        model, clip = MODELS[name][0], CLIPS[name]

        def pair(prompt, name=name, model=model, clip=clip):
            with torch.inference_mode():
                words = [prompt_words(clip, text) for text in (PROMPT, prompt)]
                patched = edits.edited(model, options, *words)
                positive = edits.pairs_of_texts(clip, PROMPT, prompt)
                conditionings = controlled(name, CONTROLS[name], conditionings=(positive, texts(name)[1]))
                noise, empty, *rest = sampling((model,))
                guider = comfy.samplers.CFGGuider(patched)
                guider.set_conds(*conditionings)
                guider.set_cfg(3.0)
                return guider.sample(noise.repeat(2, 1, 1, 1), empty.repeat(2, 1, 1, 1), *rest, seed=1)

        source, edited = pair(other)
        alone = own(name, controlled(name, CONTROLS[name]), models=(model, model))[0]
        torch.testing.assert_close(source, alone, rtol=1e-3, atol=1e-3)
        assert different(edited, source)
        source, edited = pair(PROMPT)
        torch.testing.assert_close(source, edited, rtol=1e-3, atol=1e-3)


def check_pictures_are_inverted():
    """Null texts bring the latent nearer than none. These networks' noise is too wild for more."""
    for name in ("SD15", "SDXL"):
        model, conditionings = MODELS[name][0], texts(name)
        latent = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(1)) * 0.3
        with torch.inference_mode():
            sigmas = sampling((model,))[-1]

            def error(cfg, iterations, model=model, conditionings=conditionings, latent=latent, sigmas=sigmas):
                found = inversion.inverted(model, latent, *conditionings, sigmas, cfg, iterations, 0, lambda _: None)
                again = inversion.drawn_again(model, conditionings[0], found, cfg)
                return float((again - latent).square().mean())

            assert error(3.0, 5) < error(3.0, 0), name


def check_half_precision():
    """Networks that compute in fp16 and bf16: gradients come through, and nothing is NaN."""
    for name, dtype in (("SDXL", torch.float16), ("SD15", torch.bfloat16)):
        with torch.inference_mode():
            models = (load_model(name, 1, dtype),) * 2
            spatial = controlled(name, load_control(CONFIGS[name], 3, dtype))
        _, trace = balanced(name, spatial, guidance=GUIDANCE, models=models, t1=1.0)
        assert trace.read_steps and trace.steps[0].moves[0, 1] > 0
        for step in trace.read_steps:
            assert step.losses.isfinite().all() and (step.gradient > 0).all()


def check_adapters_and_control_loras():
    """Kinds without a network of their own: a T2I adapter is a constant, a control LoRA has the UNet's weights."""
    with torch.inference_mode():
        network = comfy.t2i_adapter.adapter.Adapter_light(cin=192, channels=[320] * 4, nums_rb=1)
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        adapter = comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")
        whole = randomise(shapes_of(ControlNetwork, hint_channels=3, **SD15), 6)
        weights = {k: w.float() for k, w in whole.items() if k.startswith(("zero", "input_hint", "middle_block_out"))}
        for key, weight in whole.items():
            if key.endswith("attn2.to_k.weight"):
                layer, (outputs, inputs) = key.removesuffix(".weight"), weight.shape
                weights |= {f"{layer}.up": torch.randn(outputs, 2) / 2, f"{layer}.down": torch.randn(2, inputs) / 28}
        lora = comfy.controlnet.ControlLora(weights)
    without = own("SD15", texts("SD15"))
    for control in (adapter, lora):
        spatial = controlled("SD15", control)
        assert different(own("SD15", spatial), without)
        moved("SD15", spatial)
    with torch.inference_mode():
        wrong = dict(weights)
        wrong |= {k: torch.randn(2, 2048) for k in weights if k.endswith("attn2.to_k.down")}
    refused("SD15", controlled("SD15", comfy.controlnet.ControlLora(wrong)), "2048", "SDXL")


def refused(name, spatial, *words):
    try:
        guiders.BalancedGuider(
            [guiders.BranchInput(MODELS[name][0], *texts(name), 3.0)]
            + [guiders.BranchInput(MODELS[name][1], *spatial, 3.0)],
            LAYOUT,
            CLIPS[name],
        )
        raise AssertionError("not refused")
    except BranchMismatchError as error:
        assert all(word in str(error) for word in ("spatial branch", "ControlNet", *words)), error


def check_a_controlnet_of_another_family_is_refused_by_its_name():
    """Also one that another has been applied after."""
    refused("SD15", controlled("SD15", CONTROLS["SDXL"]), "768", "SDXL", "2048")
    refused("SDXL", controlled("SDXL", CONTROLS["SD15"]), "2048", "SD1.x", "768")
    refused("SDXL", controlled("SDXL", CONTROLS["SD15"], CONTROLS["SDXL"]), "SD1.x", "768")
    with torch.inference_mode():
        older = load_control(SD20, 8)
    refused("SD15", controlled("SD15", older, CONTROLS["SD15"]), "SD2.x", "1024")


for check_name, run in list(globals().items()):
    if check_name.startswith("check_"):
        run()
        print("ok", check_name, flush=True)
