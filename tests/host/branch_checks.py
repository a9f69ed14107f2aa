"""What `nodes/host/branch.py` does with the host's models, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import (
    CLIP,
    LAYERS,
    LAYOUT,
    MODEL,
    NEGATIVE,
    POSITIVE,
    PROMPT,
    UNET,
    branch,
    control_net,
    guiders,
    memory,
    noise_levels,
    run_checks,
    sampled,
    sources,
)

import comfy.latent_formats
import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.ldm.modules.attention import optimized_attention
from realcompo_core.attention.losses import grounding_loss
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
# isort: on


def reference_gradient(x, sigma, targets, context):
    """The gradient of the grounding loss by plain autograd: ordinary copies of the weights, attention written out."""
    plain = {name: p.clone() for name, p in UNET.state_dict().items()}
    maps = {}
    x = x.clone().requires_grad_(True)

    def read(name):
        def hook(module, args, kwargs):
            q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
            q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
            probabilities = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
            side = round(probabilities.shape[2] ** 0.5)
            maps[name] = probabilities[..., targets.columns[0].tolist()].transpose(-1, -2).unflatten(-1, (side, side))

        return hook

    modules = dict(UNET.named_modules())
    names = [n for n in modules if n.endswith("attn2") and read_at(n)]
    hooks = [modules[name].register_forward_pre_hook(read(name), with_kwargs=True) for name in names]
    sampling = MODEL.model.model_sampling
    with torch.inference_mode(False), torch.enable_grad():
        t = sampling.timestep(torch.tensor([sigma] * len(x))).float().clone()
        scaled = x / (sigma**2 + 1) ** 0.5
        torch.func.functional_call(UNET, plain, (scaled, t), {"context": context.clone().repeat(len(x), 1, 1)})
        with branch.UsableTensors():  # the targets were made in inference mode
            losses = grounding_loss(maps, targets)
        (g,) = torch.autograd.grad(losses.sum(), x)
    for hook in hooks:
        hook.remove()
    return g


def read_at(name: str) -> bool:
    part, number = name.split(".")[:2]
    wanted = [".".join(layer.name.split(".")[:2]) for layer in LAYERS]
    return f"{part}.{number}" in wanted


def check_gradient_is_autograds():
    found = []

    def watch(b):
        gradient = b.gradient

        def compared(x, sigma, objective=None):
            result = gradient(x, sigma, objective)
            with torch.inference_mode(False):
                g = reference_gradient(x.clone(), sigma, b._objective.targets, POSITIVE[0][0])
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
        return optimized_attention(q, k, v, options["n_heads"])

    model = MODEL.clone()
    model.set_model_attn2_replace(fail, *sources.patch_key(LAYERS[0])[:2])
    try:
        sampled(model)
        raise AssertionError("the patch was not called with gradient")
    except ZeroDivisionError:
        pass
    assert all(dict(UNET.named_parameters())[name] is p for name, p in before.items())
    assert not any("forward" in vars(module) for module in UNET.modules())
    assert sampled().isfinite().all()


def check_error_inside_a_layer_leaves_the_next_run_as_it_was():
    """Also while the error is still held, as the host holds it, and what it left is thrown away in the next run."""
    expected = sampled()
    layer = memory.feed_forward(UNET)[0].net[0]

    def fail(*_):
        if torch.is_grad_enabled():
            raise RuntimeError("inside a layer")

    hook = layer.register_forward_pre_hook(fail)
    try:
        sampled()
    except RuntimeError as error:
        held = error
    hook.remove()
    assert "inside a layer" in str(held)
    assert torch.equal(sampled(), expected)


def check_other_packs_patches_are_called():
    called = []

    def other(q, k, v, options):
        called.append(torch.is_grad_enabled())
        return optimized_attention(q, k, v, options["n_heads"])

    model = MODEL.clone()
    model.set_model_attn2_replace(other, *sources.patch_key(LAYERS[0])[:2])
    sampled(model)
    assert True in called and False in called


def check_short_memory_falls_back_to_the_same_picture():
    expected, seen = sampled(), []
    checkpointed = memory._checkpointed

    def short(networks, everything, read=()):
        seen.append(everything)
        if len(seen) <= 2:
            raise comfy.model_management.OOM_EXCEPTION("simulated")
        return checkpointed(networks, everything, read)

    memory._checkpointed = short
    try:
        found = sampled()
    finally:
        memory._checkpointed = checkpointed
    assert seen[:3] == [False, True, True]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def check_item_by_item_each_has_its_own_conditioning():
    """Two prompts and two ControlNet hints in one batch: the fallback of short memory gives each item its own."""
    texts = [CLIP.encode_from_tokens(CLIP.tokenize(text)) for text in (PROMPT, "a blue circle above a red square")]
    both = [[torch.cat(texts), {"control": control_net(torch.rand(2, 3, 128, 128)), "control_apply_to_uncond": True}]]
    expected = sampled(mode="lookahead", positive=both)
    checkpointed, calls = memory._checkpointed, []

    def short(networks, everything, read=()):
        calls.append(everything)
        if len(calls) % 3:  # twice in vain, then item by item
            raise comfy.model_management.OOM_EXCEPTION("simulated")
        return checkpointed(networks, everything, read)

    memory._checkpointed = short
    try:
        found = sampled(mode="lookahead", positive=both)
    finally:
        memory._checkpointed = checkpointed
    assert calls and len(calls) % 3 == 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


CFG_PP = [name for name in comfy.samplers.KSampler.SAMPLERS if name.endswith("_cfg_pp")]


def alone(sampler, cfg, model=MODEL):
    """The host's own sampling of one model."""
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(POSITIVE, NEGATIVE)
        guider.set_cfg(cfg)
        noise = comfy.sample.prepare_noise(torch.zeros(2, 8, 16, 16), 1)
        sampler = comfy.samplers.sampler_object(sampler)
        return guider.sample(noise, torch.zeros_like(noise), sampler, noise_levels(3, model), seed=1)


def check_cfg_pp_samplers_get_the_balanced_unconditional():
    """Of equal branches it is each branch's own, whatever the weights, and whichever of them are run in a step."""
    assert len(CFG_PP) == 7, CFG_PP
    for sampler in CFG_PP:
        for cfg in (3.0, 1.0):  # at 1 the host leaves the unconditional out unless a sampler asks for it
            expected = alone(sampler, cfg)
            for settings in ({"t0": 0.5, "t1": 1.0}, {"t1": 0.6}, {"mode": "lookahead", "t1": 1.0}):
                found = sampled(sampler=sampler, cfg=cfg, **settings)
                error = (found - expected).abs().max()
                assert error < 2e-3 * expected.abs().max(), (sampler, cfg, settings, error)


def check_cfg_pp_samplers_follow_the_weights():
    """With weight 1 on a branch of another model, its unconditional alone counts."""
    other = MODEL.clone()
    other.add_patches({"diffusion_model.out.2.weight": (torch.full_like(UNET.out[2].weight, 0.01),)})
    for sampler in ("euler_cfg_pp", "dpmpp_2s_ancestral_cfg_pp"):
        expected = alone(sampler, 3.0, other.clone())
        weights = torch.tensor([0.0, 1.0])
        found = sampled(sampler=sampler, other=other, fixed=weights)
        assert (found - alone(sampler, 3.0)).abs().max() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def check_an_unconditional_that_somebody_asked_for_at_cfg_1_is_there():
    """Also where the branches' passes are joined: a zero would be taken for a prediction."""
    seen = []

    def look(args):
        seen.append(args["uncond_denoised"].abs().max().item())
        return args["denoised"]

    model = MODEL.clone()
    model.set_model_sampler_post_cfg_function(look, disable_cfg1_optimization=True)
    for mode in ("one_pass", "lookahead"):
        seen.clear()
        _, rows = rows_of_passes(model=model, cfg=1.0, mode=mode, t1=1.0, batch=1)
        assert len(seen) == 6 and min(seen) > 0, (mode, seen)
        assert 4 in rows, rows  # positive and negative of both branches together


def rows_of_passes(**settings):
    """The latents of a run, and how many samples each pass through the network had."""
    rows = []
    hook = UNET.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        return sampled(**settings), rows
    finally:
        hook.remove()


def check_clones_run_as_one_batch():
    """Positive and negative of both branches together where nothing is differentiated, both negatives elsewhere."""
    joined, rows = rows_of_passes(batch=1, t1=1.0)
    assert rows == [4, 1, 2, 1, 1, 2, 1], rows
    _, rows = rows_of_passes(batch=1, mode="lookahead", t1=1.0)
    assert rows == [4, 1, 1, 4, 1, 1, 4], rows
    _, rows = rows_of_passes(batch=1, mode="one_pass", t1=0.0)
    assert rows == [2, 2, 2], rows

    def passed(apply, args):
        return apply(args["input"], args["timestep"], **args["c"])

    wrapped = MODEL.clone()
    wrapped.set_model_unet_function_wrapper(passed)
    alone, rows = rows_of_passes(model=wrapped, batch=1, t1=1.0)
    assert rows == [2, 2, 1, 1, 1, 1, 1, 1, 1, 1], rows
    torch.testing.assert_close(joined, alone, rtol=1e-4, atol=1e-4)


def check_controlnet_on_a_branch():
    """The host adds its output in place to what autograd has kept."""
    control = control_net(torch.rand(1, 3, 128, 128))
    network = control.control_model
    before = dict(network.named_parameters())
    plain = sampled(mode="lookahead")
    controlled = [[POSITIVE[0][0], {"control": control, "control_apply_to_uncond": True}]]
    gradients = []

    def watch(b):
        gradient = b.gradient
        b.gradient = lambda x, sigma, objective=None: (gradients.append(gradient(x, sigma)), gradients[-1])[1]

    found = sampled(mode="lookahead", positive=controlled, watch=watch)
    assert (found - plain).abs().max() > 1e-3
    assert all(gradient.g.isfinite().all() and gradient.g.abs().max() > 0 for gradient in gradients)
    assert all(dict(network.named_parameters())[name] is p for name, p in before.items())


def refused(*words, branches=None, layout=LAYOUT):
    """Making the guider must fail with a message that holds all `words`."""
    entry = guiders.BranchInput(MODEL, POSITIVE, NEGATIVE, 3.0)
    try:
        guiders.BalancedGuider(branches or [entry, entry], layout, CLIP)
    except RealCompoError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"not refused: {words}")


def check_what_does_not_fit_is_refused_before_sampling():
    good = guiders.BranchInput(MODEL, POSITIVE, NEGATIVE, 3.0)
    wide = [[torch.zeros(1, 32, 768), {}]]
    refused("spatial branch", "128", "768", branches=[good, guiders.BranchInput(MODEL, wide, NEGATIVE, 3.0)])
    short = [[torch.zeros(1, 8, 128), {}]]
    refused("8 tokens", "token 10", branches=[guiders.BranchInput(MODEL, short, NEGATIVE, 3.0), good])
    refused("1 branch", branches=[good])

    other = MODEL.clone()
    sampling = type(MODEL.model.model_sampling)(MODEL.model.model_config)
    sampling.set_sigmas(MODEL.model.model_sampling.sigmas * 2)
    other.add_object_patch("model_sampling", sampling)
    refused("noise levels", branches=[good, guiders.BranchInput(other, POSITIVE, NEGATIVE, 3.0)])
    other = MODEL.clone()
    other.add_object_patch("latent_format", comfy.latent_formats.SD15())
    refused("8 latent channels", "4", branches=[good, guiders.BranchInput(other, POSITIVE, NEGATIVE, 3.0)])

    box = (0.1, 0.1, 0.5, 0.5)
    refused("a green star", "red", layout=Layout((LayoutObject("a green star", box),), prompt=PROMPT))
    refused("no prompt", layout=Layout((LayoutObject("a red circle", box),)))


def check_layers_that_do_not_exist_are_named():
    try:
        sources.UNetAttention(UNET).choose(8)
    except RealCompoError as error:
        assert "1/8" in str(error) and "1/2" in str(error), error
    else:
        raise AssertionError("no error")


run_checks(globals())
