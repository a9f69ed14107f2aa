"""Composable and Structured Diffusion in the host, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import CLIP, LAYOUT, MODEL, NEGATIVE, NODES, POSITIVE, PROMPT, UNET, control_net, guiders, noise_levels
from bundled import run_checks

import importlib
import logging

import comfy.sample
import comfy.samplers
import torch
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout, LayoutObject
# isort: on

CFG = 3.0
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "ddim"]
SAMPLERS += ["euler_cfg_pp", "dpmpp_2m_cfg_pp", "lcm", "res_multistep"]


calculate = importlib.import_module("realcompo_pack.nodes.host.joined_passes").calculate


def encode(text):
    with torch.inference_mode():
        return [[CLIP.encode_from_tokens(CLIP.tokenize(text)), {}]]


def composable(prompt, model=MODEL, layout=None):
    with torch.inference_mode():
        return NODES["RealCompoComposableDiffusion"].execute(model, CLIP, prompt, layout).args[0]


def structured(layout=LAYOUT, model=MODEL):
    with torch.inference_mode():
        return NODES["RealCompoStructuredDiffusion"].execute(model, CLIP, layout).args[0]


def sampled(model=MODEL, positive=POSITIVE, cfg=CFG, steps=1, sampler="euler", batch=2):
    """The host's own sampling. One step of Euler's method is linear in the guided prediction."""
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, NEGATIVE)
        guider.set_cfg(cfg)
        noise = comfy.sample.prepare_noise(torch.zeros(batch, 8, 16, 16), 1)
        sampler = comfy.samplers.sampler_object(sampler)
        return guider.sample(noise, torch.zeros_like(noise), sampler, noise_levels(max(steps, 3))[: steps + 1], seed=1)


def near(found, wanted):
    torch.testing.assert_close(found, wanted, **CLOSE)


def composition(parts, positive_of=encode):
    empty = sampled(positive=NEGATIVE, cfg=1.0)
    return empty + sum(CFG * weight * (sampled(positive=positive_of(text), cfg=1.0) - empty) for text, weight in parts)


def check_a_step_is_the_composable_equation():
    """Also where the host leaves the unconditional prediction out, at CFG 1; and with a ControlNet on both."""
    parts = [("a red circle", 1.0), ("a blue square", 0.5), ("a green star", -1.0)]
    model = composable("a red circle | a blue square :0.5 | a green star :-1")
    near(sampled(model), composition(parts))
    near(sampled(model, encode("something else")), composition(parts))
    empty = sampled(positive=NEGATIVE, cfg=1.0)
    near((sampled(model, cfg=1.0) - empty) * CFG, composition(parts) - empty)
    hint = control_net(torch.rand(1, 3, 128, 128))

    def controlled(text):
        return [[encode(text)[0][0], {"control": hint, "control_apply_to_uncond": False}]]

    near(sampled(model, controlled(PROMPT)), composition(parts, controlled))
    near(sampled(composable("", layout=LAYOUT)), composition([("a red circle", 1.0), ("a blue square", 1.0)]))


def check_another_packs_function_still_sees_pairs():
    seen = []

    def halved(args):
        seen.append(len(args["conds"]))
        positive, negative = calculate(args)
        return [positive / 2, negative]

    model = MODEL.clone()
    model.set_model_sampler_calc_cond_batch_function(halved)
    sampled(composable("a red circle | a blue square", model))
    assert seen == [2, 2]


def check_one_part_that_is_the_prompt_is_the_plain_sampler():
    whole = Layout((LayoutObject(PROMPT, (0.0, 0.0, 1.0, 1.0)),), prompt=PROMPT)
    for steps, sampler in ((3, "euler"), (3, "dpmpp_2m")):
        near(sampled(composable("", layout=whole), steps=steps, sampler=sampler), sampled(steps=steps, sampler=sampler))


def check_every_sampler():
    for sampler in SAMPLERS:
        plain = sampled(steps=3, sampler=sampler)
        for model in (composable("a red circle and a green star"), structured()):
            found = sampled(model, steps=3, sampler=sampler)
            assert found.isfinite().all() and found.abs().max() < 100, sampler
            assert (found - plain).abs().max() > 1e-2, sampler


def check_structured_values_are_means_over_copies():
    """Against the network with the values' projections replaced by the mean of those of each copy."""
    whole, phrases = POSITIVE[0][0], {"red circle": (2, 4), "blue square": (9, 11)}
    copies = [whole.clone() for _ in range(3)]
    for copy, (text, (first, last)) in zip(copies[1:], phrases.items(), strict=True):
        copy[0, first:last] = encode(text)[0][0][0, 1 : 1 + last - first]
    layers = [module for name, module in UNET.named_modules() if name.endswith("attn2")]

    def mean(module, args, output):
        return (
            sum(
                torch.nn.functional.linear(copy.expand(len(output), -1, -1), module.weight, module.bias)
                for copy in copies
            )
            / 3
        )

    hooks = [layer.to_v.register_forward_hook(mean) for layer in layers]
    wanted = sampled(cfg=1.0)
    for hook in hooks:
        hook.remove()
    near(sampled(structured(), cfg=1.0), wanted)
    assert (sampled(cfg=1.0) - wanted).abs().max() > 1e-3
    empty = sampled(positive=NEGATIVE, cfg=1.0)
    near(sampled(structured()), empty + CFG * (wanted - empty))  # the unconditional prediction stays


def check_both_in_a_balanced_picture():
    """As fidelity and as spatial branch: maps are read, and with all the weight it is the host's own sampling."""
    for model in (composable("a red circle and a blue square"), structured()):
        for models in ((model, MODEL), (MODEL, model)):
            for settings in (
                {"t1": 1.0},
                {"mode": "lookahead", "t1": 1.0},
                {"sources": "spatial", "guided_until": 0.4},
            ):
                branches = [guiders.BranchInput(each, POSITIVE, NEGATIVE, CFG) for each in models]
                with torch.inference_mode():
                    guider = guiders.BalancedGuider(branches, LAYOUT, CLIP, BalanceSettings(**settings))
                    noise = comfy.sample.prepare_noise(torch.zeros(2, 8, 16, 16), 1)
                    euler = comfy.samplers.sampler_object("euler")
                    found = guider.sample(noise, torch.zeros_like(noise), euler, noise_levels(3), seed=1)
                assert found.isfinite().all() and guider.trace.read_steps
        with torch.inference_mode():
            alone = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
            branches = [guiders.BranchInput(each, POSITIVE, NEGATIVE, CFG) for each in (model, MODEL)]
            guider = guiders.BalancedGuider(branches, LAYOUT, CLIP, alone)
            found = guider.sample(noise, torch.zeros_like(noise), euler, noise_levels(3), seed=1)
        near(found, sampled(model, steps=3))


def check_what_does_not_fit_is_refused_or_told():
    for prompt, layout, named in (("a cat", None, "neither"), ("a | ", None, "part 2"), ("", Layout(()), "no objects")):
        try:
            composable(prompt, layout=layout)
            raise AssertionError("was not refused")
        except RealCompoError as error:
            assert named in str(error)
    try:
        composable("a cat | a dog", composable("a cat | a dog"))
        raise AssertionError("was not refused")
    except RealCompoError as error:
        assert "already" in str(error)
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    model = structured()
    sampled(model, steps=3)
    assert not told
    for _ in range(2):
        sampled(model, encode("a green star"), steps=3)
    sampled(model, [[encode(PROMPT)[0][0][:, :20], {}]], steps=1)  # a text of another length
    sampled(model, steps=1)
    assert sum("Structured Diffusion changes nothing" in text for text in told) == 3, told
    words = Layout((LayoutObject("a circle", (0.1, 0.1, 0.4, 0.4)),), prompt="the circle")
    assert structured(words) is MODEL and "more than one word" in told[-1]


def check_weights_and_loras_stay_in_force():
    name = next(key for key in MODEL.model.state_dict() if key.endswith("attn2.to_v.weight"))
    model = MODEL.clone()
    shape = MODEL.model.state_dict()[name].shape
    model.add_patches({name: ("diff", (torch.full(shape, 0.05),))})
    both = (lambda given: composable("a circle and a star", given), lambda given: structured(LAYOUT, given))
    for make in both:
        assert (sampled(make(model)) - sampled(make(MODEL))).abs().max() > 1e-3


run_checks(globals())
