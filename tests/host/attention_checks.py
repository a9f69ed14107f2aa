"""What `nodes/host/recording.py` reads, run by the host's own Python: see `test_host_attention.py`."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.ldm.flux.layers  # noqa: E402
import comfy.ldm.modules.diffusionmodules.mmdit as mmdit  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.text_encoders.flux  # noqa: E402
import comfy.text_encoders.sd3_clip  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.flux.math import apply_rope  # noqa: E402
from joint_models import FLUX, SD3, random_model  # noqa: E402
from pack import load_nodes  # noqa: E402

asyncio.run(load_nodes())
recording = importlib.import_module("realcompo_pack.nodes.host.recording")
tokens = importlib.import_module("realcompo_pack.nodes.host.prompt_tokens")
guiders = importlib.import_module("realcompo_pack.nodes.host.guider")
shapes = importlib.import_module("realcompo_pack.nodes.host.shapescenes")

from realcompo_core.attention.grounding_metrics import layout_targets  # noqa: E402
from realcompo_core.attention.losses import share_inside  # noqa: E402
from realcompo_core.attention.maps import AttentionMaps, Keep, PromptWords  # noqa: E402
from realcompo_core.attention.panel import write_panel  # noqa: E402
from realcompo_core.attention.recorder import Recorder  # noqa: E402
from realcompo_core.errors import RealCompoError  # noqa: E402
from realcompo_core.guidance.settings import BalanceSettings  # noqa: E402
from realcompo_core.layout import Layout, LayoutObject  # noqa: E402

torch.set_num_threads(1)
PROMPT = "a red circle to the left of a blue square"
ROUNDING = 1e-3  # of maps in fp16
BATCH, STEPS = 2, 3
CONDITIONINGS = ("positive", "negative")
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2],
    "use_spatial_transformer": True,
    "legacy": False,
}
SD15 = UNET | {
    "num_heads": 2,
    "context_dim": 48,
    "transformer_depth": [1, 1, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 0, 0],
}
SDXL = UNET | {
    "num_head_channels": 16,
    "context_dim": 48,
    "transformer_depth": [0, 2, 3],
    "transformer_depth_middle": 3,
    "transformer_depth_output": [0, 0, 2, 2, 3, 3],
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 1536 + 24,
}


def conditioning(length: int, seed: int) -> list:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 24, generator=generator)
    return [[torch.randn(1, length, 48, generator=generator) * 2, {"pooled_output": pooled, "guidance": 3.5}]]


def sampled(model, positive, negative, size=(16, 24), sampler="euler", channels=4, steps=STEPS):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(3.0)
    noise = comfy.sample.prepare_noise(torch.zeros(BATCH, channels, *size), 1)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object(sampler), sigmas, seed=1)


def by_kind(probabilities: torch.Tensor, chunks: list[int]) -> dict[str, torch.Tensor]:
    parts = probabilities.chunk(len(chunks))
    return {CONDITIONINGS[kind]: part for kind, part in zip(chunks, parts, strict=True)}


@contextmanager
def unet_reference(model):
    """Plain softmax of every cross-attention module's inputs: {conditioning: {module: [a pass each]}}."""
    found = {kind: {} for kind in CONDITIONINGS}
    chunks = []

    def see_pass(module, args, kwargs):
        chunks[:] = kwargs["transformer_options"]["cond_or_uncond"]

    def read(name):
        def hook(module, args, kwargs):
            q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
            q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
            probabilities = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
            for kind, part in by_kind(probabilities, chunks).items():
                found[kind].setdefault(name, []).append(part)

        return hook

    network = model.model.diffusion_model
    hooks = [network.register_forward_pre_hook(see_pass, with_kwargs=True)]
    for name, module in network.named_modules():
        if name.endswith("attn2"):
            hooks.append(module.register_forward_pre_hook(read(name), with_kwargs=True))
    yield found
    for hook in hooks:
        hook.remove()


def check_unet(family: str, config: dict) -> None:
    model = random_model(family, config)
    positive, negative = conditioning(9, 1), conditioning(9, 2)
    with unet_reference(model) as found:
        plain = sampled(model, positive, negative)
    for keep in (Keep("all"), Keep("all", "layers", "apart"), Keep("all", "decoder")):
        recorder = Recorder("model", keep, {"positive": None, "negative": None})
        assert torch.equal(sampled(recording.recorded(model, recorder, 9), positive, negative), plain)
        branch = recorder.branch
        assert branch.steps == list(range(STEPS)) and branch.conditionings == list(CONDITIONINGS)
        blocks = {}
        for name in found["positive"]:
            part, number = name.split(".")[0].removesuffix("s").removesuffix("_block"), name.split(".")[1]
            label = f"{part} {0 if part == 'middle' else number}"
            if keep.layers == "layers":
                label += "." + name.split(".transformer_blocks.")[1].split(".")[0]
            if keep.layers != "decoder" or part != "input":
                blocks.setdefault(label, []).append(name)
        assert [layer.name for layer in branch.layers] == list(blocks)
        for kind in CONDITIONINGS:
            for layer in branch.layers:
                for step in range(STEPS):
                    wanted = torch.stack([found[kind][name][step] for name in blocks[layer.name]]).mean(0)
                    if keep.heads == "averaged":
                        wanted = wanted.mean(1, keepdim=True)
                    got = branch.maps[kind, layer.name, step].float()
                    assert (got - wanted.mT.unflatten(-1, layer.size)).abs().max() < ROUNDING, (family, layer, step)
        total = branch.token_maps().sum(1)
        assert (total - 1).abs().max() < ROUNDING * 9


def check_joint(family: str, config: dict, layers: list[str]) -> None:
    """SD3 and Flux: the softmax over text and picture, its part on the text brought to 1."""
    model = random_model(family, config)
    length, size = 7, (12, 20)
    positive, negative = conditioning(length, 1), conditioning(length, 2)
    found = {kind: [] for kind in CONDITIONINGS}
    chunks = []

    def keep_text(q, k):
        if k.shape[2] > size[0] * size[1] // 4:
            probabilities = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)[:, :, length:, :length]
            shares = (probabilities / probabilities.sum(-1, keepdim=True)).mean(1)
            for kind, part in by_kind(shares, chunks).items():
                found[kind].append(part.mT)

    flux_attention, joint_attention = comfy.ldm.flux.layers.attention, mmdit.optimized_attention

    def see_flux(q, k, v, pe, *args, **kwargs):
        keep_text(*apply_rope(q, k, pe))
        return flux_attention(q, k, v, pe, *args, **kwargs)

    def see_joint(q, k, v, heads, *args, **kwargs):
        keep_text(*(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)))
        return joint_attention(q, k, v, heads, *args, **kwargs)

    def see_pass(module, args, kwargs):
        chunks[:] = kwargs["transformer_options"]["cond_or_uncond"]

    hook = model.model.diffusion_model.register_forward_pre_hook(see_pass, with_kwargs=True)
    comfy.ldm.flux.layers.attention, mmdit.optimized_attention = see_flux, see_joint
    try:
        plain = sampled(model, positive, negative, size, channels=16)
    finally:
        comfy.ldm.flux.layers.attention, mmdit.optimized_attention = flux_attention, joint_attention
        hook.remove()

    recorder = Recorder("model", Keep("all"), {"positive": None, "negative": None})
    with_recording = sampled(recording.recorded(model, recorder, length), positive, negative, size, channels=16)
    assert torch.equal(with_recording, plain)
    branch = recorder.branch
    assert [layer.name for layer in branch.layers] == layers
    assert all(layer.size == (size[0] // 2, size[1] // 2) for layer in branch.layers)
    for kind in CONDITIONINGS:
        assert len(found[kind]) == STEPS * len(layers)
        for i, wanted in enumerate(found[kind]):
            got = branch.maps[kind, layers[i % len(layers)], i // len(layers)][:, 0].float().flatten(-2)
            assert (got - wanted).abs().max() < ROUNDING, (family, kind, i)
    assert (branch.token_maps("negative").sum(1) - 1).abs().max() < ROUNDING * length


def check_skipped_block() -> None:
    """Where a pass leaves out a block of SD3, the maps of others are not taken for its own."""
    model = random_model("SD3", SD3)
    model.set_model_patch_replace(
        lambda args, extra: {"img": args["img"], "txt": args["txt"]}, "dit", "double_block", 0
    )
    recorder = Recorder("model", Keep("all"), {"positive": None, "negative": None})
    sampled(recording.recorded(model, recorder, 7), conditioning(7, 1), conditioning(7, 2), (12, 20), channels=16)
    assert not recorder.branch.maps


def check_regions() -> None:
    """With regions it is the whole prompt's attention that is recorded, not that of the phrase that runs first."""
    model = random_model("SD15", SD15)
    whole, negative = conditioning(9, 1), conditioning(9, 2)
    mask = torch.zeros(1, 16, 24)
    mask[..., :12] = 1
    regions = [
        [conditioning(9, seed)[0][0], {"mask": m, "mask_strength": 1.0}] for seed, m in ((3, mask), (4, 1 - mask))
    ]
    for positive in ([*whole, *regions], [*regions, *whole]):
        alone, recorder = (Recorder("model", Keep("all"), {"positive": None, "negative": None}) for _ in range(2))
        sampled(recording.recorded(model, alone, 9), whole, negative, steps=1)
        sampled(recording.recorded(model, recorder, 9), positive, negative, steps=1)
        for conditioning_name in CONDITIONINGS:
            found, wanted = (r.branch.token_maps(conditioning_name) for r in (recorder, alone))
            assert (found - wanted).abs().max() < ROUNDING, conditioning_name


def check_lookahead_of_the_balancer() -> None:
    """At the default t1 the spatial branch ends early. Its look-ahead passes are no steps, and a panel can be made."""
    model, clip = shapes.load_model(), shapes.load_clip()
    layout = Layout((LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.7)),), prompt=PROMPT)
    positive, negative = ([[clip.encode_from_tokens(clip.tokenize(text)), {}]] for text in (PROMPT, ""))
    prompt = {"positive": tokens.prompt_words(clip, PROMPT), "negative": tokens.prompt_words(clip, "")}
    recorders = [Recorder(name, Keep(), prompt) for name in ("fidelity", "spatial")]
    branches = [
        guiders.BranchInput(recording.recorded(model.clone(), recorder), positive, negative, 3.0)
        for recorder in recorders
    ]
    guider = guiders.BalancedGuider(branches, layout, clip, BalanceSettings(mode="lookahead"))
    noise = comfy.sample.prepare_noise(torch.zeros(1, 8, 16, 16), 1)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 5)
    guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=1)
    fidelity, spatial = (recorder.branch for recorder in recorders)
    assert fidelity.steps == [0, 1, 2, 3, 4] and spatial.steps == [0, 1, 2], spatial.steps
    for branch in (fidelity, spatial):
        for kind in CONDITIONINGS:
            kept = {(layer, step) for name, layer, step in branch.maps if name == kind}
            assert len(kept) == len(branch.layers) * len(branch.steps), (branch.name, kind)
    with tempfile.TemporaryDirectory() as folder:
        write_panel(AttentionMaps([fidelity, spatial], layout, guider.trace), [], Path(folder), "maps")


def watched(recorder: Recorder) -> list[int]:
    """The steps that passes are kept for, in the order in which they come."""
    seen: list[int] = []
    end_pass = recorder.end_pass

    def watch(step, level):
        seen.append(step)
        end_pass(step, level)

    recorder.end_pass = watch
    return seen


def check_samplers() -> None:
    """Every step has maps, which are those at its own noise level, also where a sampler looks between levels."""
    model = random_model("SD15", SD15)
    positive, negative = conditioning(9, 1), conditioning(9, 2)
    for sampler in ("euler", "heun", "dpm_2", "dpmpp_sde", "uni_pc", "ddim"):
        recorder = Recorder("model", Keep("all"), {"positive": None, "negative": None})
        seen = watched(recorder)
        sampled(recording.recorded(model, recorder, 9), positive, negative, sampler=sampler)
        assert recorder.branch.steps == list(range(STEPS)), sampler
        assert seen == sorted(seen), sampler
    for every, kept in ((2, [0, 2, 4]), (5, [0])):
        recorder = Recorder("model", Keep("all", every=every), {"positive": None, "negative": None})
        sampled(recording.recorded(model, recorder, 9), positive, negative, steps=5)
        assert recorder.branch.steps == kept


def check_limit() -> None:
    """The size that is told before is that of the maps; fewer steps are kept within the limit."""
    model = random_model("SD15", SD15)
    positive, negative = conditioning(9, 1), conditioning(9, 2)
    told = []
    recorder = Recorder("model", Keep("all", heads="apart"), {"positive": None, "negative": None})
    begin = recorder.begin
    recorder.begin = lambda *args: told.append(begin(*args)) or told[-1]
    sampled(recording.recorded(model, recorder, 9), positive, negative)
    assert recorder.branch.nbytes == told[0]

    positive, negative = conditioning(900, 1), conditioning(900, 2)
    for limit, steps in ((43, [0, 1, 2, 3]), (22, [0, 2]), (11, [0])):  # a step takes 10.5 MB
        recorder = Recorder("model", Keep("all", limit=limit), {"positive": None, "negative": None})
        sampled(recording.recorded(model, recorder, 900), positive, negative, steps=4)
        assert recorder.branch.steps == steps and recorder.branch.nbytes < limit * 1e6, (limit, recorder.branch.steps)
    recorder = Recorder("model", Keep("all", limit=1), {"positive": None, "negative": None})
    try:
        sampled(recording.recorded(model, recorder, 900), positive, negative)
        raise AssertionError("a step above the limit was taken")
    except RealCompoError as error:
        assert "limit is 1 MB" in str(error)


def check_patches_of_others() -> None:
    """A patch that replaces the same attention still does, before and after the recording was added."""
    model = random_model("SD15", SD15)
    positive, negative = conditioning(9, 1), conditioning(9, 2)
    calls = []

    def other(q, k, v, options):
        calls.append(1)
        return v.mean(1, keepdim=True).expand_as(q)

    patched = model.clone()
    patched.set_model_attn2_replace(other, "output", 3)
    plain = sampled(patched, positive, negative)
    assert calls and not torch.equal(plain, sampled(model, positive, negative))
    recorder = Recorder("model", Keep(), {"positive": None, "negative": None})
    assert torch.equal(sampled(recording.recorded(patched, recorder), positive, negative), plain)
    later = recording.recorded(model, recorder)
    later.set_model_attn2_replace(other, "output", 3)
    assert torch.equal(sampled(later, positive, negative), plain)


def check_bundled() -> None:
    """Words of the bundled model, of a prompt in several chunks with a negative in one; another prompt is refused."""
    model, clip = shapes.load_model(), shapes.load_clip()

    def encoded(text):
        return [[clip.encode_from_tokens(clip.tokenize(text)), {}]]

    long = PROMPT + " and a green star" * 8 + " and a purple triangle"
    prompts = {"positive": tokens.prompt_words(clip, long), "negative": tokens.prompt_words(clip, "yellow")}
    assert prompts["positive"].length > prompts["negative"].length
    for keep in (Keep(), Keep("all")):
        recorder = Recorder("model", keep, prompts)
        sampled(recording.recorded(model, recorder), encoded(long), encoded("yellow"), (16, 16), channels=8)
        branch = recorder.branch
        for kind in CONDITIONINGS:
            assert (branch.token_maps(kind).sum(1) - 1).abs().max() < ROUNDING * 20
        word = branch.find("purple triangle")
        assert branch.word_maps([word]).min() >= 0 and branch.word_maps([word]).max() > 0
        assert branch.find("yellow", "negative").columns and branch.find("<start>").columns == (0,)
    wrong = Recorder("model", Keep(), {"positive": tokens.prompt_words(clip, long)})
    try:
        sampled(recording.recorded(model, wrong), encoded(PROMPT), encoded(""), (16, 16), channels=8)
        raise AssertionError("a recording with another prompt was made")
    except RealCompoError as error:
        assert "the positive prompt of the recording" in str(error)


def check_balanced() -> None:
    """Both branches of the balancer, in every mode, without a change of the picture; its words hit their objects."""
    model, clip = shapes.load_model(), shapes.load_clip()
    layout = Layout(
        (LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.7)), LayoutObject("a blue square", (0.6, 0.3, 0.9, 0.7))),
        prompt=PROMPT,
    )
    positive = [[clip.encode_from_tokens(clip.tokenize(PROMPT)), {}]]
    negative = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
    prompt = {"positive": tokens.prompt_words(clip, PROMPT)}

    def run(models, mode):
        branches = [guiders.BranchInput(m, positive, negative, 3.0) for m in models]
        guider = guiders.BalancedGuider(branches, layout, clip, BalanceSettings(mode=mode, t1=1.0))
        noise = comfy.sample.prepare_noise(torch.zeros(1, 8, 16, 16), 1)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=1)

    for mode in ("one_pass", "lookahead"):
        plain = run([model, model.clone()], mode)
        recorders = [Recorder(name, Keep(), prompt) for name in ("fidelity", "spatial")]
        found = run([recording.recorded(model.clone(), recorder) for recorder in recorders], mode)
        assert (found - plain).abs().max() < 1e-4, (mode, (found - plain).abs().max())
        for recorder in recorders:
            branch = recorder.branch
            assert branch.steps == list(range(4)) and len(branch.kept_layers) == len(branch.layers), mode
            assert (branch.token_maps().sum(1) - 1).abs().max() < ROUNDING * 20
            targets = layout_targets(branch, layout)
            assert [target.label for target in targets] == ["a red circle", "a blue square"]
            maps = branch.word_maps([target.word for target in targets])[0]
            assert share_inside(maps, torch.stack([t.region(*maps.shape[-2:]) for t in targets])).isfinite().all()


class TokenizerOnly:
    """A CLIP of which only the tokenizer is there."""

    def __init__(self, tokenizer, **encoders):
        self.tokenizer, self.cond_stage_model = tokenizer, type("Encoders", (), encoders)()
        self.tokenize = tokenizer.tokenize_with_weights


def check_words() -> None:
    """Words of SD1.x, SD3 and Flux: each has the tokens that spell it, in both of SD3's texts."""
    text = "A (red:1.2) armadillo, a corgi's t-shirt and 2 skateboards"
    kinds = {
        "sd1": (comfy.sd1_clip.SD1Tokenizer(), {}, ["l"]),
        "flux": (comfy.text_encoders.flux.FluxTokenizer(), {}, ["t5xxl"]),
        "sd3": (comfy.text_encoders.sd3_clip.SD3Tokenizer(), {}, ["g", "t5xxl"]),
        "sd3 without t5": (comfy.text_encoders.sd3_clip.SD3Tokenizer(), {"t5xxl": None}, ["g"]),
    }
    for kind, (tokenizer, encoders, streams) in kinds.items():
        prompt = tokens.prompt_words(TokenizerOnly(tokenizer, **encoders), text)
        assert isinstance(prompt, PromptWords)
        pieces = []
        for key in streams:
            own = getattr(tokenizer, key, getattr(tokenizer, f"clip_{key}", None))
            for chunk in tokenizer.tokenize_with_weights(text)[key]:
                pieces += [own.untokenize([pair])[0][1].replace("</w>", "").strip("▁").casefold() for pair in chunk]
        assert prompt.length == len(pieces), kind
        words = [word.casefold() for word, _ in prompt.words]
        for word in ("red", "armadillo", "corgi", "shirt", "skateboards"):
            (found,) = [own for name, own in prompt.words if name.casefold() == word]
            spelt = "".join(pieces[token] for token in found)
            assert spelt == word * len(streams), (kind, word, spelt)
        assert "<|endoftext|>" not in words and "1.2" not in words


def check_others_are_refused() -> None:
    class Network(torch.nn.Module):
        pass

    model = shapes.load_model().clone()
    model.add_object_patch("diffusion_model", Network())
    try:
        recording.recorded(model, Recorder("model", Keep(), {}))
        raise AssertionError("an unknown network was recorded")
    except RealCompoError as error:
        assert "Network" in str(error) and "Flux" in str(error)


with torch.inference_mode():
    check_words()
    check_unet("SD15", SD15)
    check_unet("SDXL", SDXL)
    check_joint("SD3", SD3, ["joint 0", "joint 1"])
    check_joint("Flux", FLUX, ["double 0", "double 1", "single 0", "single 1"])
    check_skipped_block()
    check_regions()
    check_lookahead_of_the_balancer()
    check_samplers()
    check_limit()
    check_patches_of_others()
    check_bundled()
    check_balanced()
    check_others_are_refused()
