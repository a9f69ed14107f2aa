"""Balancing SD3, Flux, Qwen-Image and Wan, run by the host's own Python: `test_host_families.py`.

The networks have the real architectures at a small width, and random weights. No text encoder is run.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import os
import sys
import zlib
from contextlib import contextmanager, nullcontext
from itertools import permutations, product
from unittest.mock import patch

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.cldm.mmdit  # noqa: E402
import comfy.controlnet  # noqa: E402
import comfy.latent_formats  # noqa: E402
import comfy.ldm.flux.controlnet  # noqa: E402
import comfy.ldm.flux.layers  # noqa: E402
import comfy.ldm.flux.math as flux_math  # noqa: E402
import comfy.ldm.modules.attention  # noqa: E402
import comfy.ldm.modules.diffusionmodules.mmdit as mmdit  # noqa: E402
import comfy.ldm.qwen_image.controlnet  # noqa: E402
import comfy.ldm.qwen_image.model as qwen_image  # noqa: E402
import comfy.ldm.wan.model as wan  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.text_encoders.flux  # noqa: E402
import comfy.text_encoders.qwen_image  # noqa: E402
import comfy.text_encoders.sd3_clip  # noqa: E402
import torch  # noqa: E402
from joint_models import FLUX, QWEN_IMAGE, SD3, WAN21_T2V, random_model  # noqa: E402
from nodes import ControlNetApplyAdvanced as ControlNetApply  # noqa: E402
from pack import load_nodes  # noqa: E402

asyncio.run(load_nodes())
guiders = importlib.import_module("realcompo_pack.nodes.host.guider")
composition = importlib.import_module("realcompo_pack.nodes.host.composed")
edits = importlib.import_module("realcompo_pack.nodes.host.edited")
branches = importlib.import_module("realcompo_pack.nodes.host.branch")
memory = importlib.import_module("realcompo_pack.nodes.host.memory")
shapes = importlib.import_module("realcompo_pack.nodes.host.shapescenes")

from realcompo_core.attention.saved_tensors import keep_saved_tensors  # noqa: E402
from realcompo_core.errors import RealCompoError  # noqa: E402
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff  # noqa: E402
from realcompo_core.guidance.layout_guidance import LayoutGuidance  # noqa: E402
from realcompo_core.guidance.settings import BalanceSettings  # noqa: E402
from realcompo_core.layout import Layout, LayoutObject  # noqa: E402
from realcompo_core.layout.regions import region_map  # noqa: E402
from realcompo_core.text.composition import Part  # noqa: E402

torch.set_num_threads(1)
PROMPT = "a corgi to the left of a teddy bear"
LAYOUT = Layout(
    (LayoutObject("a corgi", (0.06, 0.25, 0.44, 0.88)), LayoutObject("a teddy bear", (0.55, 0.2, 0.9, 0.9))),
    prompt=PROMPT,
)
SIZE = (8, 14)  # latent pixels
WIDTH, POOLED, STEPS = 48, 24, 3
JOINT = {"SD3": SD3 | {"num_blocks": 5}, "Flux": FLUX, "QwenImage": QWEN_IMAGE}
VIDEO = {"WAN21_T2V": WAN21_T2V}
CONFIGS = JOINT | VIDEO
FRAMES = 3  # of a video's latent


class VideoTokenizer:
    """Wan's, whose vocabulary is in its checkpoint; T5's here."""

    def __init__(self):
        self.umt5xxl = comfy.text_encoders.sd3_clip.T5XXLTokenizer(min_length=64)

    def tokenize_with_weights(self, text, return_word_ids=False, **options):
        return {"umt5xxl": self.umt5xxl.tokenize_with_weights(text, return_word_ids)}


TOKENIZERS = {
    "SD3": comfy.text_encoders.sd3_clip.SD3Tokenizer(),
    "Flux": comfy.text_encoders.flux.FluxTokenizer(),
    "QwenImage": comfy.text_encoders.qwen_image.QwenImageTokenizer(),
    "WAN21_T2V": VideoTokenizer(),
}
LENGTHS = {"SD3": 77 + 77, "Flux": 256, "WAN21_T2V": 64}
CFG = {"SD3": 3.0, "Flux": 1.0, "QwenImage": 2.0, "WAN21_T2V": 2.0}
BLOCKS = {"SD3": 5, "Flux": 4, "QwenImage": 4, "WAN21_T2V": 4}
TEMPLATE = 34  # tokens before the prompt, which Qwen-Image's text encoder leaves out


class Clip:
    """The host's tokenizer of a family, and seeded numbers instead of its text encoders."""

    def __init__(self, family: str):
        self.tokenizer, self._length = TOKENIZERS[family], LENGTHS.get(family)
        self.cond_stage_model = type("Encoders", (), {})()

    def tokenize(self, text, return_word_ids=False, **options):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **options)

    def encode_from_tokens_scheduled(self, tokens):
        generator = torch.Generator().manual_seed(zlib.crc32(str(tokens).encode()))
        length = self._length or len(tokens["qwen25_7b"][0]) - TEMPLATE
        text = 2 * torch.randn(1, length, WIDTH, generator=generator)
        return [[text, {"pooled_output": torch.randn(1, POOLED, generator=generator), "guidance": 3.5}]]

    def encode_from_tokens(self, tokens):
        return self.encode_from_tokens_scheduled(tokens)[0][0]


CLIPS = {family: Clip(family) for family in CONFIGS}


def load(family: str, seed: int, dtype: torch.dtype = torch.float32):
    return random_model(family, CONFIGS[family], dtype, seed)


with torch.inference_mode():  # as the host runs nodes
    MODELS = {family: (load(family, 1), load(family, 2)) for family in CONFIGS}


def load_control(family: str) -> comfy.controlnet.ControlNet:
    operations = comfy.ops.disable_weight_init
    if family == "SD3":
        network = comfy.cldm.mmdit.ControlNet(num_blocks=2, control_latent_channels=16, operations=operations, **SD3)
        latent_format = comfy.latent_formats.SD3()
    elif family == "QwenImage":
        network = comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel(operations=operations, **QWEN_IMAGE)
        latent_format = comfy.latent_formats.Wan21()
    else:
        config = {key: value for key, value in FLUX.items() if key != "image_model"}
        network = comfy.ldm.flux.controlnet.ControlNetFlux(
            latent_input=True, control_latent_channels=16, operations=operations, image_model="flux", **config
        )
        latent_format = comfy.latent_formats.Flux()
    generator = torch.Generator().manual_seed(7)
    for tensor in (*network.parameters(), *network.buffers()):
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
        tensor.data = torch.randn(tensor.shape, generator=generator) * scale
    return comfy.controlnet.ControlNet(
        network.eval(),
        compression_ratio=1,
        latent_format=latent_format,
        load_device=torch.device("cpu"),
        extra_conds={"SD3": ["y"], "Flux": ["y", "guidance"], "QwenImage": []}[family],
    )


class Vae:
    """What a ControlNet of latents asks of an autoencoder; Qwen-Image's has frames."""

    def __init__(self, family: str):
        self._family = family

    def encode(self, pixels):
        small = torch.nn.functional.interpolate(pixels.movedim(-1, 1), scale_factor=1 / 8)
        latent = small.repeat(1, 6, 1, 1)[:, :16]
        return latent.unsqueeze(2) if self._family == "QwenImage" else latent

    def spacial_compression_encode(self):
        return 8


def texts(family: str) -> list:
    clip = CLIPS[family]
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, "")]


def texts_of(family: str, text: str) -> torch.Tensor:
    clip = CLIPS[family]
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]


def empty(model, batch: int, size=SIZE) -> torch.Tensor:
    latent = comfy.sample.fix_empty_latent_channels(model, torch.zeros(batch, 16, *size))
    return latent.expand(-1, -1, FRAMES, -1, -1).clone() if is_video(model) else latent


def is_video(model) -> bool:
    return isinstance(model.model.diffusion_model, wan.WanModel)


def sampling(models, sampler="euler", batch=1, steps=STEPS, size=SIZE, scheduler="simple", denoise=1.0, mask=None):
    """What any guider's `sample` is given."""
    latent = empty(models[0], batch, size) + (denoise < 1.0)
    noise = comfy.sample.prepare_noise(latent, 1)
    sigmas = comfy.samplers.calculate_sigmas(models[0].get_model_object("model_sampling"), scheduler, steps)
    start = len(sigmas) - 1 - round(denoise * (len(sigmas) - 1))
    return noise, latent, comfy.samplers.sampler_object(sampler), sigmas[start:], mask


def balanced(family, spatial=None, models=None, guidance=None, alone=False, layers=0, run=None, **settings):
    models, detach = models or MODELS[family], settings.pop("detach", False)
    with torch.inference_mode():
        found = [
            guiders.BranchInput(models[0], *texts(family), CFG[family]),
            guiders.BranchInput(models[1], *(spatial or texts(family)), CFG[family], guidance),
        ]
        guider = guiders.BalancedGuider(
            found[1:] if alone else found,
            LAYOUT,
            CLIPS[family],
            BalanceSettings(**settings),
            layers,
            detach_control=detach,
        )
        samples = guider.sample(*sampling(models, **(run or {})), seed=1)
    assert samples.isfinite().all()
    return samples, guider.trace


def own(family, conditionings=None, model=None, run=None):
    """The host's own sampling of one model."""
    model = model or MODELS[family][0]
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*(conditionings or texts(family)))
        guider.set_cfg(CFG[family])
        return guider.sample(*sampling([model], **(run or {})), seed=1)


with torch.inference_mode():
    CONTROLS = {family: load_control(family) for family in JOINT}


@contextmanager
def seen_attention(found: list):
    """Queries and keys of each joint attention, as the networks compute them."""
    flux_attention, joint_attention = comfy.ldm.flux.layers.attention, mmdit.optimized_attention
    qwen_attention, video_attention = qwen_image.optimized_attention_masked, wan.optimized_attention

    def see_flux(q, k, v, pe, *args, **kwargs):
        found.append(rotated(q, k, pe))
        return flux_attention(q, k, v, pe, *args, **kwargs)

    def see_joint(q, k, v, heads, *args, **kwargs):
        if q.shape[1] > SIZE[0] * SIZE[1] // 4:
            found.append([t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)])
        return joint_attention(q, k, v, heads, *args, **kwargs)

    def see_qwen(q, k, v, *args, **kwargs):
        found.append((q, k))
        return qwen_attention(q, k, v, *args, **kwargs)

    def see_video(q, k, v, heads, *args, **kwargs):
        if k.shape[1] == LENGTHS["WAN21_T2V"]:
            found.append([t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)])
        return video_attention(q, k, v, heads, *args, **kwargs)

    with (
        patch.object(wan, "optimized_attention", see_video),
        patch.object(qwen_image, "optimized_attention_masked", see_qwen),
        patch.object(comfy.ldm.flux.layers, "attention", see_flux),
        patch.object(mmdit, "optimized_attention", see_joint),
    ):
        yield


@contextmanager
def kernels_for(dtype: torch.dtype):
    """The host's fused kernels have no fp64."""
    with plain_positions() if dtype == torch.float64 else nullcontext():
        yield


@contextmanager
def plain_positions():
    with (
        patch.object(flux_math, "apply_rope", rotated),
        patch.object(qwen_image, "apply_rope1", lambda x, turns: rotated(x, x, turns)[0]),
        patch.object(wan, "apply_rope1", lambda x, turns: rotated(x, x, turns)[0]),
    ):
        yield


def rotated(q, k, turns):
    """Rotary positions: each pair of channels is turned by a matrix of its own, (..., d / 2, 2, 2)."""
    pairs = (t.to(turns.dtype).unflatten(-1, (-1, 2)) for t in (q, k))
    return [torch.einsum("...ij,...j->...i", turns, pair).flatten(-2).type_as(q) for pair in pairs]


def plain_gradient(branch, x, sigma, layers: list[int], targets, allowed=None):
    """Autograd through the host's own pass, and a softmax over the whole joint sequence, or over what is allowed."""
    positive, found = branch._guider.conds["positive"], []
    length = positive[0]["model_conds"]["c_crossattn"].cond.shape[1]
    grid = (FRAMES if is_video(branch._guider.model_patcher) else 1) * SIZE[0] // 2, SIZE[1] // 2
    with torch.inference_mode(False), torch.enable_grad(), seen_attention(found), branches.UsableTensors():
        plain = plain_positions()
        with branches.usable_weights([branch.network]), plain, keep_saved_tensors():  # Flux writes into what is kept
            x = x.clone().requires_grad_(True)
            given = branch._frames.unfolded(x)
            comfy.samplers.calc_cond_batch(
                branch._guider.inner_model, [positive], given, torch.full((len(x),), sigma), branch.model_options
            )
            maps, hidden = [], 0.0 if allowed is None else torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)
            for q, k in (found[i] for i in layers):
                scores = q @ k.mT * q.shape[-1] ** -0.5 + hidden
                p = torch.softmax(scores, -1)[:, :, -grid[0] * grid[1] :]  # the picture follows the text, or is alone
                maps.append(p[..., :length].mean(1).mT.unflatten(-1, grid))
            tokens = sum(maps) / len(maps)
            tokens = tokens / tokens.sum((-2, -1), keepdim=True)
            losses = []
            for members, region in zip(targets.members[0], targets.regions(*grid)[0], strict=True):
                own = tokens[:, [int(c) for c, is_own in zip(targets.columns[0], members, strict=True) if is_own]]
                losses.append(1 - (own.mean(1) * region).sum((-2, -1)))
            (gradient,) = torch.autograd.grad(sum(losses).sum(), x)
    return gradient, torch.stack(losses, 1).detach()


def compared_reading(wanted: list[int], tolerance: float, stages: list, masks: dict | None = None):
    """A reading that is compared with plain autograd. wanted: the blocks that are read. stages: gets what was read.

    masks: what may attend to what, by the length of the text.
    """
    read = branches.HostBranch._read

    def compare(self, x, sigma, stage, objective):
        output, gradient = read(self, x, sigma, stage, objective)
        assert [layer.number for layer in objective.layers] == wanted
        text = self._guider.conds["positive"][0]["model_conds"]["c_crossattn"].cond
        allowed = (masks or {}).get(text.shape[1])
        reference, losses = plain_gradient(self, x, sigma, wanted, objective.targets, allowed)
        error = (gradient.g - reference).abs().max() / reference.abs().max()
        assert error < tolerance, (type(self.network), stage, error)
        assert (gradient.losses - losses).abs().max() < 1e-6
        stages.append(stage)
        return output, gradient

    return patch.object(branches.HostBranch, "_read", compare)


def check_gradients_are_plain_autograds():
    """In fp64 (Flux's positions are in fp32) and fp32, at a step and a look-ahead, from one block and from several."""
    for family, (dtype, tolerance) in product(CONFIGS, {torch.float64: 1e-5, torch.float32: 1e-3}.items()):
        with torch.inference_mode():
            models = load(family, 1, dtype), load(family, 2, dtype)
        for layers, wanted in ((0, [1]), (2, list(range(BLOCKS[family])))):
            stages: list = []
            for mode in ("lookahead", "one_pass"):
                with compared_reading(wanted, tolerance, stages), kernels_for(dtype):
                    balanced(family, models=models, layers=layers, run={"batch": 2}, t1=1.0, mode=mode)
            assert {"step", "lookahead"} <= set(stages), stages


def read(trace):
    """The branches' attention was read, and it moved the coefficients."""
    assert trace.read_steps
    for step in trace.read_steps:
        assert (step.gradient > 0).all() and step.gradient.isfinite().all()


def check_weight_1_is_the_hosts_own_sampling():
    """Of either branch, for every kind of sampling; and else something in between."""
    runs = (
        {"batch": 3},
        {"sampler": "dpmpp_2m", "scheduler": "beta", "size": (10, 6)},
        {"sampler": "heun", "scheduler": "sgm_uniform"},
        {"sampler": "dpmpp_2m_sde", "steps": 4},
        {"sampler": "lcm"},
        {"steps": 5, "denoise": 0.6},
        {"mask": torch.ones(1, 1, *SIZE).index_fill(3, torch.arange(6), 0.0), "denoise": 0.7, "steps": 4},
    )
    for family, run in product(CONFIGS, runs):
        for k, model in enumerate(MODELS[family]):
            fixed = torch.eye(2)[k]
            alone, _ = balanced(family, fixed=fixed, run=run)
            assert torch.equal(alone, own(family, model=model, run=run)), (family, run, k)
        mixed, trace = balanced(family, run=run, t1=1.0)
        read(trace)
        assert all((mixed - own(family, model=model, run=run)).abs().max() > 1e-3 for model in MODELS[family])


def check_the_sampler_node_gives_both_branches_attention():
    """Maps of all blocks and steps beside the balancer's readings, which give what they give without the maps."""
    sampling_nodes = importlib.import_module("realcompo_pack.nodes.sampling_nodes")
    for family, (fidelity, spatial) in MODELS.items():
        positive, negative = texts(family)
        found = []
        for wanted in (False, True):
            with torch.inference_mode(), patch.object(sampling_nodes, "output_is_used", lambda _, on=wanted: on):
                output = sampling_nodes.DualUNetBalancerSampler.execute(
                    *(fidelity, positive, negative, spatial, positive, negative),
                    LAYOUT,
                    CLIPS[family],
                    {"samples": empty(fidelity, 2)},
                    *(1, STEPS, CFG[family], "euler", "simple", 1.0),
                )
            found.append(output.result)
        (plain, trace, _), (same, _, maps) = found
        assert torch.equal(plain["samples"], same["samples"])
        assert trace.read_steps and all((step.gradient[:, 1] > 0).all() for step in trace.read_steps)
        for branch in maps.branches:
            assert branch.steps == list(range(STEPS))[: len(branch.steps)] and len(branch.steps) >= 2  # the last alone
            assert len(branch.kept_layers) == len(branch.layers) >= 4
            words = {word.text for word in branch.words["positive"]}
            assert {"corgi", "bear"} <= words, words


def check_both_branches_on_one_checkpoint():
    """Only the conditionings differ, and there is one network."""
    for family in CONFIGS:
        spatial = texts(family)
        spatial[0] = [[spatial[0][0][0] * 1.2, spatial[0][0][1]]]
        models = (MODELS[family][0],) * 2
        _, trace = balanced(family, spatial, models, t1=1.0)
        read(trace)


def check_precisions():
    """bf16, fp16 and the host's fp8: layers stay as they are, and the gradient is about that of fp32."""
    for family, dtype in product(CONFIGS, (torch.bfloat16, torch.float16, torch.float8_e4m3fn)):
        with torch.inference_mode():
            models = load(family, 1, dtype), load(family, 2, dtype)
        before = [p.clone() for p in models[0].model.diffusion_model.parameters()]
        _, trace = balanced(family, models=models, t1=1.0)
        _, exact = balanced(family, t1=1.0)
        for step, reference in zip(trace.read_steps, exact.read_steps, strict=True):
            assert step.gradient.isfinite().all() and (step.gradient > 0).all()
            assert (step.losses - reference.losses).abs().max() < 0.1, (family, dtype)
        after = models[0].model.diffusion_model.parameters()
        assert all(p.dtype == q.dtype and torch.equal(p.float(), q.float()) for p, q in zip(after, before, strict=True))


class Quantised(torch.nn.Module):
    """A linear layer as GGUF files have it: whole numbers with a scale for each row, dequantised while it runs."""

    def __init__(self, layer: torch.nn.Linear):
        super().__init__()
        weight = layer.weight.detach()
        self.scale = weight.abs().amax(1, keepdim=True) / 127
        self.weight = torch.nn.Parameter((weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias

    def dequantised(self) -> torch.Tensor:
        return self.weight.float() * self.scale

    def forward(self, x):
        return torch.nn.functional.linear(x, self.dequantised().to(x), self.bias)


def check_quantised_layers():
    """Layers whose weights are whole numbers stay so; what is read through them is what their values give."""
    for family in CONFIGS:
        with torch.inference_mode():
            quantised, plain = ((load(family, 1), load(family, 2)) for _ in range(2))
            for model, reference in zip(quantised, plain, strict=True):
                network = model.model.diffusion_model
                layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}
                for name, layer in layers.items():
                    if "block" in name:
                        network.set_submodule(name, Quantised(layer))
                        values = network.get_submodule(name).dequantised()
                        reference.model.diffusion_model.get_submodule(name).weight.data.copy_(values)
        samples, trace = balanced(family, models=quantised, t1=1.0)
        expected, exact = balanced(family, models=plain, t1=1.0)
        torch.testing.assert_close(samples, expected, rtol=1e-3, atol=1e-4)
        for step, reference in zip(trace.read_steps, exact.read_steps, strict=True):
            assert (step.gradient > 0).all()
            torch.testing.assert_close(step.gradient, reference.gradient, rtol=1e-3, atol=1e-7)
        found = [m for m in quantised[0].model.diffusion_model.modules() if isinstance(m, Quantised)]
        assert len(found) > 10 and all(m.weight.dtype == torch.int8 and m.weight.grad is None for m in found)


def check_short_memory():
    """More is computed again, then one picture at a time; the result is the same, and one picture may be too much."""
    error = comfy.model_management.OOM_EXCEPTION
    read_once = branches.HostBranch._read_once

    def short(most):
        def run(self, x, *args):
            if len(x) > most:
                raise error("no memory")
            return read_once(self, x, *args)

        return patch.object(branches.HostBranch, "_read_once", run)

    for family in CONFIGS:
        whole, _ = balanced(family, t1=1.0, run={"batch": 2})
        with short(1):
            apart, _ = balanced(family, t1=1.0, run={"batch": 2})
        assert (whole - apart).abs().max() < 1e-3 * whole.abs().max(), family
        with short(0):
            refused(family, "memory", "picture")


def check_an_interruption_leaves_the_model_as_it_was():
    for family in CONFIGS:
        before = own(family)
        blocks = memory.joint_blocks(MODELS[family][0].model.diffusion_model)
        management = comfy.model_management
        with patch.object(management, "throw_exception_if_processing_interrupted", stop_at_third()):
            try:
                balanced(family, t1=1.0)
                raise AssertionError("was not interrupted")
            except management.InterruptProcessingException:
                pass
        assert not any("forward" in vars(block) for block in blocks)
        assert not getattr(management, "in_training", False)
        assert torch.equal(own(family), before)


def stop_at_third():
    calls = iter((False, False, True))

    def check():
        if next(calls, False):
            raise comfy.model_management.InterruptProcessingException

    return check


def check_guidance_descends():
    """The loss on the maps falls from move to move."""
    gradient_of, losses = branches.HostBranch.gradient, []

    def watch(self, x, sigma, objective=None):
        found = gradient_of(self, x, sigma, objective)
        losses.append((sigma, float(found.losses.sum())))
        return found

    for family in CONFIGS:
        scale = 5000.0 if family in VIDEO else 20.0  # at this size its attention hardly depends on the latent
        excited = 1e7 if family in VIDEO else 1e6
        every_step = {"scale": excited, "until": 1.0, "refinements": ((0.0, 1.0), (0.5, 1.0)), "most": 4}
        for guidance in (
            LayoutGuidance(scale=scale, threshold=0.0, iterations=5, until=1.0),
            AttendAndExcite(**every_step, words=("a corgi",)),
            BoxDiff(**every_step),
        ):
            losses.clear()
            with patch.object(branches.HostBranch, "gradient", watch):
                moved, _ = balanced(family, guidance=guidance, alone=True, run={"steps": 2})
            assert not torch.equal(moved, own(family, model=MODELS[family][1], run={"steps": 2}))
            for sigma in {sigma for sigma, _ in losses}:
                of_step = [loss for level, loss in losses if level == sigma]
                assert len(of_step) == 5 and of_step == sorted(of_step, reverse=True), (family, guidance, losses)
                assert of_step[0] > of_step[-1], (family, guidance, losses)


def check_controlnets():
    """SD3's and Flux's own, whose outputs the host adds in place."""
    hint = torch.rand(1, SIZE[0] * 8, SIZE[1] * 8, 3, generator=torch.Generator().manual_seed(5))
    for family, control in CONTROLS.items():
        positive, negative = texts(family)
        spatial = ControlNetApply().apply_controlnet(positive, negative, control, hint, 1.0, 0.0, 1.0, vae=Vae(family))
        alone, _ = balanced(family, spatial, fixed=torch.tensor([0.0, 1.0]))
        assert torch.equal(alone, own(family, spatial, MODELS[family][1]))
        assert not torch.equal(alone, own(family, model=MODELS[family][1]))
        for detach in (False, True):
            _, trace = balanced(family, spatial, t1=1.0, detach=detach)
            read(trace)


def check_no_model_is_held_after_its_run():
    """Clones that the host has loaded are gone by reference count, so it tells no leak and falls back on parents."""
    sampling_nodes = importlib.import_module("realcompo_pack.nodes.sampling_nodes")
    gc.collect()
    gc.disable()
    try:
        for family, (fidelity, spatial) in MODELS.items():
            positive, negative = texts(family)
            with torch.inference_mode(), patch.object(sampling_nodes, "output_is_used", lambda _: True):
                sampling_nodes.DualUNetBalancerSampler.execute(
                    *(fidelity, positive, negative, spatial, positive, negative),
                    LAYOUT,
                    CLIPS[family],
                    {"samples": empty(fidelity, 1)},
                    *(1, STEPS, CFG[family], "euler", "simple", 1.0),
                )
            loaded = comfy.model_management.current_loaded_models
            held = [m.model for m in loaded if any(m.model.is_clone(model) for model in (fidelity, spatial))]
            assert held and all(model in (fidelity, spatial) for model in held), held
    finally:
        gc.enable()


GRID = SIZE[0] // 2, SIZE[1] // 2
WHOLE = Layout((LayoutObject("a corgi", (0.0, 0.0, 1.0, 1.0)),), prompt=PROMPT)


def regional(family, layout=LAYOUT, strength=1.0):
    """The conditionings of `texts`, with the layout's phrases in their regions."""
    nodes = importlib.import_module("realcompo_pack.nodes.conditioning_nodes")
    positive, negative = texts(family)
    return [nodes.ApplyLayoutRegionalAttention.execute(positive, layout, CLIPS[family], strength).result[0], negative]


def region_mask(family, layout=LAYOUT) -> torch.Tensor:
    """Which tokens may attend to which, token by token: all texts, then the cells."""
    encoded = [texts_of(family, text) for text in (layout.prompt, *(item.phrase for item in layout.objects))]
    regions = [torch.ones(GRID), *(region_map(item, *GRID) for item in layout.objects)]
    cells = [{int(cell) for cell in (region >= 0.5).flatten().nonzero()} for region in regions]
    tokens = [(found, None) for text, found in zip(encoded, cells, strict=True) for _ in range(text.shape[1])]
    tokens += [(None, cell) for cell in range(GRID[0] * GRID[1])]

    def may(one, other) -> bool:
        (a, cell), (b, other_cell) = one, other
        if a is None or b is None:
            return (a is None and b is None) or (cell in b if a is None else other_cell in a)
        return a == b

    return torch.tensor([[may(one, other) for other in tokens] for one in tokens])


def check_regional_attention_of_the_whole_picture_is_ordinary_attention():
    for family in JOINT:
        positive, negative = texts(family)
        both = [[torch.cat([positive[0][0], texts_of(family, "a corgi")], 1), positive[0][1]]]
        found, wanted = own(family, regional(family, WHOLE)), own(family, [both, negative])
        assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max(), family
        assert (own(family, regional(family)) - wanted).abs().max() > 1e-3


def check_each_phrase_and_its_region_attend_to_each_other_alone():
    """Each joint attention's output is that of a softmax under the mask, in batches, too, and of the positive alone."""
    for family in JOINT:
        mask = region_mask(family)
        hidden = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        seen = {"masked": 0, "plain": 0}
        kernel = comfy.ldm.modules.attention.attention_pytorch

        def attend(q, k, v, heads, *args, hidden=hidden, seen=seen, kernel=kernel, **given):
            output = kernel(q, k, v, heads, *args, **given)
            if not given.get("skip_reshape"):
                q, k, v = (t.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            is_regional = q.shape[2] == len(hidden)
            wanted = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5 + (hidden if is_regional else 0.0), -1) @ v
            assert (output - wanted.transpose(1, 2).flatten(2)).abs().max() < 1e-5
            seen["masked" if is_regional else "plain"] += 1
            return output

        def override(function, *args, attend=attend, **given):
            return attend(*args, **given)

        with torch.inference_mode():
            model = MODELS[family][0].clone()
            model.model_options["transformer_options"]["optimized_attention_override"] = override
        own(family, regional(family), model, {"batch": 2})
        assert seen["masked"] > 0 and (seen["plain"] > 0 or CFG[family] == 1.0), (family, seen)


def check_phrases_have_the_positions_that_they_would_have_alone():
    """In Qwen-Image, where a text's tokens have positions; older hosts offer no place to change them."""
    if "post_input" not in inspect.getsource(qwen_image):
        return
    spatial, seen = regional("QwenImage"), []
    embed = qwen_image.EmbedND.forward

    def watch(self, ids):
        seen.append(ids)
        return embed(self, ids)

    with patch.object(qwen_image.EmbedND, "forward", watch):
        own("QwenImage", spatial)
    prompt, *phrases = (texts_of("QwenImage", t).shape[1] for t in (PROMPT, *(o.phrase for o in LAYOUT.objects)))
    first = prompt
    (ids,) = (ids for ids in seen[:2] if ids.shape[1] == spatial[0][0][0].shape[1] + GRID[0] * GRID[1])
    for length in phrases:
        assert torch.equal(ids[:, first : first + length], ids[:, :length])
        first += length


def check_regional_attention_as_a_branch_on_one_checkpoint():
    """Beside text to image on the same network; maps and gradients are those under the regions' mask."""
    for family in JOINT:
        masks = {regional(family)[0][0][0].shape[1]: region_mask(family)}
        models, stages, networks = (MODELS[family][0],) * 2, [], set()
        read_once = branches.HostBranch._read_once

        def watch(self, *args, networks=networks, read_once=read_once):
            networks.add(id(self.network))
            return read_once(self, *args)

        for mode in ("lookahead", "one_pass"):
            with compared_reading([1], 1e-3, stages, masks), patch.object(branches.HostBranch, "_read_once", watch):
                _, trace = balanced(family, regional(family), models, t1=1.0, mode=mode, run={"batch": 2})
            read(trace)
        assert len(networks) == 1 and {"step", "lookahead"} <= set(stages)
        fixed, _ = balanced(family, regional(family), models, fixed=torch.tensor([0.0, 1.0]))
        assert torch.equal(fixed, own(family, regional(family)))


def check_regional_attention_ends_where_strength_says():
    for family in JOINT:
        ended, whole = (own(family, regional(family, strength=share)) for share in (0.5, 1.0))
        plain = own(family)
        assert torch.equal(own(family, regional(family, strength=0.0)), plain)
        assert not torch.equal(ended, whole) and not torch.equal(ended, plain)


def check_regional_attention_is_refused_where_it_means_nothing():
    with torch.inference_mode():
        unet = shapes.load_model()
        text = [[torch.zeros(1, 8, WIDTH), {}]]
    regions = importlib.import_module("realcompo_pack.nodes.host.regional")
    for run, words in (
        (lambda: regions.regional(text, LAYOUT, OtherClip()), ("width 24", "has 48")),
        (lambda: regions.regional(regional("SD3")[0], LAYOUT, CLIPS["SD3"]), ("already",)),
        (lambda: regions.regional([[text[0][0], {"area": (1, 1, 0, 0)}]], LAYOUT, CLIPS["SD3"]), ("whole picture",)),
        (lambda: sample_unet(unet), ("Regional Attention", "UNetModel")),
    ):
        try:
            run()
        except RealCompoError as error:
            assert all(word in str(error) for word in words), error
        else:
            raise AssertionError(f"not refused: {words}")


class OtherClip:
    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.zeros(1, 8, 24), {}]]


def sample_unet(unet):
    regions = importlib.import_module("realcompo_pack.nodes.host.regional")
    clip = OtherClip()
    clip.encode_from_tokens_scheduled = lambda tokens: [[torch.zeros(1, 32, 128), {}]]
    with torch.inference_mode():
        positive = regions.regional([[torch.zeros(1, 32, 128), {}]], LAYOUT, clip)
        guider = comfy.samplers.CFGGuider(unet)
        guider.set_conds(positive, [[torch.zeros(1, 32, 128), {}]])
        latent = torch.zeros(1, 8, 16, 16)
        sigmas = comfy.samplers.calculate_sigmas(unet.get_model_object("model_sampling"), "simple", 2)
        guider.sample(latent, latent, comfy.samplers.sampler_object("euler"), sigmas, seed=1)


def refused(family, *words, **settings):
    try:
        balanced(family, t1=1.0, **settings)
    except RealCompoError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"{family} with {settings} was not refused")


def check_composable_diffusion():
    """One part that is the prompt changes nothing, with a ControlNet too; the parts' predictions are added up."""
    for family in CONFIGS:
        model, clip, hint = MODELS[family][0], CLIPS[family], torch.rand(1, 64, 112, 3)
        conditionings = texts(family)
        if family in CONTROLS:
            control, vae = CONTROLS[family], Vae(family)
            conditionings = ControlNetApply().apply_controlnet(*conditionings, control, hint, 1.0, 0.0, 1.0, vae=vae)
        with torch.inference_mode():
            same = composition.composed(model, clip, [Part(PROMPT)])
            halves = composition.composed(model, clip, [Part(PROMPT, 0.5), Part(PROMPT, 0.5)])
            parts = composition.composed(model, clip, [Part("a corgi"), Part("a teddy bear on a mat", 0.5)])
        plain, *found = (own(family, conditionings, each, {"batch": 2}) for each in (model, same, halves, parts))
        torch.testing.assert_close(found[0], plain, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found[1], plain, rtol=1e-3, atol=1e-3)
        assert found[2].isfinite().all() and (found[2] - plain).abs().max() > 0.01


def check_a_part_of_composable_diffusion_has_its_own_mask():
    """In Qwen-Image, whose text encoder masks some tokens, and not those of a part."""
    model, clip, positive = MODELS["QwenImage"][0], CLIPS["QwenImage"], texts("QwenImage")
    length = positive[0][0][0].shape[1]
    mask = torch.arange(length)[None] < length - 2
    masked = [[positive[0][0][0], positive[0][0][1] | {"attention_mask": mask}]]
    with torch.inference_mode():
        parts = composition.composed(model, clip, [Part("a corgi"), Part("a teddy bear on a mat and a red sofa")])
    found, expected = (own("QwenImage", (text, positive[1]), parts) for text in (masked, positive[0]))
    assert torch.equal(found, expected)
    older = "post_input" not in inspect.getsource(qwen_image)  # it leaves the mask unread
    assert older or not torch.equal(own("QwenImage", (masked, positive[1])), own("QwenImage"))


def check_composable_diffusion_is_refused_on_regional_attention():
    for family in JOINT:
        with torch.inference_mode():
            parts = composition.composed(MODELS[family][0], CLIPS[family], [Part("a corgi"), Part("a bear")])
        try:
            own(family, regional(family), parts)
        except RealCompoError as error:
            assert "Composable Diffusion" in str(error) and "Regional Attention" in str(error)
        else:
            raise AssertionError(f"{family}: the parts' texts were sampled under the regions of others")


def check_wrong_pairs_are_refused_by_both_names():
    with torch.inference_mode():
        unet = shapes.load_model()
    for family, other in (*permutations(JOINT, 2), *product(("SD3", "Flux"), VIDEO)):
        refused(family, family, other, models=(MODELS[family][0], MODELS[other][0]))
    for family in JOINT:
        refused(family, family, "ShapeScenes", models=(MODELS[family][0], unet))
        refused(family, family, "ShapeScenes", models=(unet, MODELS[family][0]))
    hint = torch.rand(1, 64, 112, 3)
    for family, other in permutations(JOINT, 2):
        positive, negative = texts(family)
        control = CONTROLS[other]
        spatial = ControlNetApply().apply_controlnet(positive, negative, control, hint, 1.0, 0.0, 1.0, vae=Vae(other))
        name = {"QwenImage": "Qwen-Image"}.get(other, other)
        refused(family, "ControlNet", family, name, spatial=spatial)


def check_what_acts_on_unets_is_refused_on_transformers():
    """GLIGEN and a ControlNet of the same text width, on the bundled transformer."""
    with torch.inference_mode():
        model, clip, gligen = shapes.load_model("DiT"), shapes.load_clip(), shapes.load_layout_branch()
        control = shapes.load_control_net()
        text = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
    hint = torch.rand(1, 128, 128, 3)
    controlled, _ = ControlNetApply().apply_controlnet(text, text, control, hint, 1.0, 0.0, 1.0)
    grounded = [[text[0][0], {**text[0][1], "gligen": ("position", gligen, [])}]]
    layout = Layout((LayoutObject("a red circle", (0.1, 0.1, 0.5, 0.5)),), prompt="a red circle")
    for spatial, words in ((controlled, ("ControlNet", "UNets", "ShapeScenesDiT")), (grounded, ("GLIGEN", "UNets"))):
        found = [guiders.BranchInput(model, text, text, 3.0), guiders.BranchInput(model, spatial, text, 3.0)]
        try:
            guiders.BalancedGuider(found, layout, clip)
        except RealCompoError as error:
            assert all(word in str(error) for word in words), error
        else:
            raise AssertionError(f"not refused: {words}")


def check_methods_for_unets_are_refused_by_name():
    refused("Flux", "superdiff", rule="superdiff", mode="one_pass")
    refused("Flux", "1/4", "1/2", layers=4)
    for family, (model, _) in MODELS.items():
        for change in (
            lambda: composition.structured(model, CLIPS[family], PROMPT, ["a corgi"]),  # noqa: B023
            lambda: edits.edited(model, None, None, None),  # noqa: B023
        ):
            try:
                change()
                raise AssertionError(f"{family} was changed in vain")
            except RealCompoError as error:
                assert "cross-attention" in str(error)


for check_name, run in list(globals().items()):
    if check_name.startswith("check_"):
        run()
        print("ok", check_name, flush=True)
