"""What `nodes/branch.py` does with the host's models, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from pathlib import Path

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).parents[2]
PROMPT = "a red circle to the left of a blue square"


def load_pack():
    spec = importlib.util.spec_from_file_location(
        "realcompo_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = sys.modules["realcompo_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    asyncio.run(pack.comfy_entrypoint())


load_pack()
branch = importlib.import_module("realcompo_pack.nodes.branch")
guiders = importlib.import_module("realcompo_pack.nodes.guider")
shapes = importlib.import_module("realcompo_pack.nodes.shapescenes_host")

from realcompo_core.balancer import BalanceSettings  # noqa: E402
from realcompo_core.layout import Layout, LayoutObject  # noqa: E402

LAYOUT = Layout(
    (LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.7)), LayoutObject("a blue square", (0.6, 0.3, 0.9, 0.7))),
    prompt=PROMPT,
)
torch.set_num_threads(1)
with torch.inference_mode():
    MODEL, CLIP = shapes.load_model(), shapes.load_clip()
    POSITIVE = [[CLIP.encode_from_tokens(CLIP.tokenize(PROMPT)), {}]]
    NEGATIVE = [[CLIP.encode_from_tokens(CLIP.tokenize("")), {}]]
UNET = MODEL.model.diffusion_model


def sampled(model=MODEL, steps=3, batch=2, watch=None, **settings):
    """Latents of a balanced run of two equal branches; `watch` is called with each branch as it is made."""
    with torch.inference_mode():
        entry = guiders.BranchInput(model, POSITIVE, NEGATIVE, 3.0)
        guider = guiders.BalancedGuider([entry, entry], LAYOUT, CLIP, BalanceSettings(**settings))
        if watch:
            begin = guider.begin
            guider.begin = lambda *args: (begin(*args), [watch(b) for b in guider._branches])
        noise = comfy.sample.prepare_noise(torch.zeros(batch, 8, 16, 16), 1)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=1)


def reference_gradient(x, sigma, objective, context):
    """The same gradient by plain autograd: ordinary copies of the weights, attention written out."""
    plain = {name: p.clone() for name, p in UNET.state_dict().items()}
    maps = []
    x = x.clone().requires_grad_(True)

    def read(module, args, kwargs):
        q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
        q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
        probabilities = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1).mean(1)
        side = round(probabilities.shape[1] ** 0.5)
        maps.append(probabilities[..., objective.columns].transpose(1, 2).unflatten(-1, (side, side)))

    modules = dict(UNET.named_modules())
    names = [n for n in modules if n.endswith("attn2") and read_at(n)]
    hooks = [modules[name].register_forward_pre_hook(read, with_kwargs=True) for name in names]
    sampling = MODEL.model.model_sampling
    with torch.inference_mode(False), torch.enable_grad():
        t = sampling.timestep(torch.tensor([sigma] * len(x))).float().clone()
        scaled = x / (sigma**2 + 1) ** 0.5
        torch.func.functional_call(UNET, plain, (scaled, t), {"context": context.clone().repeat(len(x), 1, 1)})
        with branch.UsableTensors():  # the objective was made in inference mode
            losses, _ = objective(maps)
        (g,) = torch.autograd.grad(losses.sum(), x)
    for hook in hooks:
        hook.remove()
    return g


def read_at(name: str) -> bool:
    part, number = name.split(".")[:2]
    wanted = [f"{p}_blocks.{n}" for p, n, _ in branch.attention_blocks(UNET)]
    return f"{part}.{number}" in wanted


def check_gradient_is_autograds():
    found = []

    def watch(b):
        gradient = b.gradient

        def compared(x, sigma):
            result = gradient(x, sigma)
            with torch.inference_mode(False):
                g = reference_gradient(x.clone(), sigma, b._objective, POSITIVE[0][0])
            found.append((result.g, g))
            return result

        b.gradient = compared

    sampled(mode="lookahead", watch=watch)
    assert len(found) == 4, len(found)
    for ours, plain in found:
        assert plain.abs().max() > 1e-5
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())


def check_weights_are_the_same_objects_afterwards():
    before = {name: p for name, p in UNET.named_parameters()}
    sampled()
    after = dict(UNET.named_parameters())
    assert all(after[name] is p and p.is_inference() for name, p in before.items())
    assert not any("forward" in vars(module) for module in UNET.modules())


def check_error_in_a_gradient_leaves_nothing_behind():
    before = {name: p for name, p in UNET.named_parameters()}

    def fail(q, k, v, options):
        if torch.is_grad_enabled():
            raise ZeroDivisionError
        return branch.optimized_attention(q, k, v, options["n_heads"])

    model = MODEL.clone()
    model.set_model_attn2_replace(fail, *branch.attention_blocks(UNET)[0][:2])
    try:
        sampled(model)
        raise AssertionError("the patch was not called with gradient")
    except ZeroDivisionError:
        pass
    assert all(dict(UNET.named_parameters())[name] is p for name, p in before.items())
    assert not any("forward" in vars(module) for module in UNET.modules())
    assert sampled().isfinite().all()


def check_other_packs_patches_are_called():
    called = []

    def other(q, k, v, options):
        called.append(torch.is_grad_enabled())
        return branch.optimized_attention(q, k, v, options["n_heads"])

    model = MODEL.clone()
    model.set_model_attn2_replace(other, *branch.attention_blocks(UNET)[0][:2])
    sampled(model)
    assert True in called and False in called


def check_short_memory_falls_back_to_the_same_picture():
    expected, seen = sampled(), []
    recomputed = branch._recomputed

    def short(unet, everything):
        seen.append(everything)
        if len(seen) <= 2:
            raise comfy.model_management.OOM_EXCEPTION("simulated")
        return recomputed(unet, everything)

    branch._recomputed = short
    try:
        found = sampled()
    finally:
        branch._recomputed = recomputed
    assert seen[:3] == [False, True, True]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def check_layers_that_do_not_exist_are_named():
    try:
        branch.attention_blocks(UNET, 8)
    except branch.RealCompoError as error:
        assert "1/8" in str(error) and "1/2" in str(error), error
    else:
        raise AssertionError("no error")


for check in [value for name, value in list(globals().items()) if name.startswith("check_")]:
    check()
    print(check.__name__)
