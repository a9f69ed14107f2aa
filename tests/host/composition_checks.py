"""What the host's own nodes put on one branch or on several, run by the host's Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import CLIP, LAYOUT, MODEL, NEGATIVE, POSITIVE, PROMPT, UNET, guiders, noise_levels, run_checks

import comfy.hooks
import comfy.sample
import comfy.samplers
import comfy_extras.nodes_differential_diffusion as differential_diffusion
import comfy_extras.nodes_easycache as step_caches
import comfy_extras.nodes_model_advanced as model_advanced
import comfy_extras.nodes_model_downscale as model_downscale
import nodes as core_nodes
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout
# isort: on

FIDELITY, SPATIAL = (torch.tensor(weights) for weights in ((1.0, 0.0), (0.0, 1.0)))
OTHER_PROMPT = "a green star above a yellow heart and a red circle"
SAME = {"rtol": 1e-4, "atol": 1e-4}


def run_node(node, *inputs):
    """The first output of a node of the host, old or new."""
    with torch.inference_mode():
        found = node.execute(*inputs) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*inputs)
    return found.result[0] if hasattr(found, "result") else found[0]


def alone(model=MODEL, positive=POSITIVE, steps=3, mask=None, sampler="euler"):
    """The host's own sampling of one model."""
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, NEGATIVE)
        guider.set_cfg(3.0)
        noise = comfy.sample.prepare_noise(torch.zeros(2, 8, 16, 16), 1)
        sampler = comfy.samplers.sampler_object(sampler)
        return guider.sample(noise, torch.zeros_like(noise), sampler, noise_levels(steps, model), mask, seed=1)


def balanced(
    fidelity=(MODEL, POSITIVE),
    spatial=(MODEL, POSITIVE),
    steps=3,
    mask=None,
    layout=LAYOUT,
    sampler="euler",
    **settings,
):
    """Latents of a balanced run, and its guider."""
    with torch.inference_mode():
        branches = [guiders.BranchInput(model, positive, NEGATIVE, 3.0) for model, positive in (fidelity, spatial)]
        guider = guiders.BalancedGuider(branches, layout, CLIP, BalanceSettings(**settings))
        noise = comfy.sample.prepare_noise(torch.zeros(2, 8, 16, 16), 1)
        sampler = comfy.samplers.sampler_object(sampler)
        levels = noise_levels(steps, fidelity[0])
        return guider.sample(noise, torch.zeros_like(noise), sampler, levels, mask, seed=1), guider


def refused(*words, run):
    try:
        run()
    except RealCompoError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"not refused: {words}")


def encoded(prompt):
    with torch.inference_mode():
        return [[CLIP.encode_from_tokens(CLIP.tokenize(prompt)), {}]]


def check_an_object_patch_stays_on_its_branch():
    """Model Sampling Discrete (v_prediction) on one of two branches of one checkpoint."""
    velocity = run_node(model_advanced.ModelSamplingDiscrete, MODEL, "v_prediction", False)
    plain, other = alone(), alone(velocity)
    assert (plain - other).abs().max() > 0.1
    for models, wanted in (((velocity, MODEL), (other, plain)), ((MODEL, velocity), (plain, other))):
        fidelity, spatial = ((model, POSITIVE) for model in models)
        for weights, expected in zip((FIDELITY, SPATIAL), wanted, strict=True):
            torch.testing.assert_close(balanced(fidelity, spatial, fixed=weights)[0], expected, **SAME)
    torch.testing.assert_close(alone(), plain)  # nothing of it stays behind
    both = balanced((velocity, POSITIVE), (velocity, POSITIVE), fixed=FIDELITY)[0]
    torch.testing.assert_close(both, other, **SAME)


def check_a_hook_stays_on_its_branch():
    """A LoRA that a conditioning hooks in, on one of two branches of one checkpoint."""
    weights = {"diffusion_model.out.2.weight": (torch.full_like(UNET.out[2].weight, 0.01),)}
    hooks = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=1.0)
    hook.weights, hook.need_weight_init = weights, False
    hooks.add(hook)
    hooked = [[POSITIVE[0][0], {"hooks": hooks}]]
    plain, other = alone(), alone(positive=hooked)
    assert (plain - other).abs().max() > 1e-3
    for conds, wanted in (((hooked, POSITIVE), (other, plain)), ((POSITIVE, hooked), (plain, other))):
        fidelity, spatial = ((MODEL, positive) for positive in conds)
        for fixed, expected in zip((FIDELITY, SPATIAL), wanted, strict=True):
            torch.testing.assert_close(balanced(fidelity, spatial, fixed=fixed)[0], expected, **SAME)
    torch.testing.assert_close(alone(), plain)


def check_a_layout_of_another_prompt_is_told():
    def warnings(fidelity, spatial):
        return balanced((MODEL, fidelity), (MODEL, spatial), steps=1)[1].warnings

    right, longer = POSITIVE, encoded(PROMPT + " on a white background")
    assert warnings(right, right) == [] == warnings(longer, right)  # what follows the objects' words does not matter
    for wrong in (encoded(OTHER_PROMPT), encoded("masterpiece, " + PROMPT)):
        (warning,) = warnings(right, wrong)
        assert warning.startswith("spatial branch") and PROMPT in warning and "CLIP Text Encode" in warning
        (warning,) = warnings(wrong, right)
        assert warning.startswith("fidelity branch")
    _, guider = balanced((MODEL, right), (MODEL, encoded(OTHER_PROMPT)), steps=1)
    assert guider.warnings[0].removesuffix(".") in guider.trace.note


def check_a_clip_of_another_family_is_told():
    class Wide:
        tokenizer, tokenize = CLIP.tokenizer, CLIP.tokenize

        def encode_from_tokens(self, tokens):
            return torch.zeros(1, 32, 2048)

    entry = guiders.BranchInput(MODEL, POSITIVE, NEGATIVE, 3.0)
    warnings = guiders.BalancedGuider([entry, entry], LAYOUT, Wide()).warnings
    assert len(warnings) == 2 and all("connect that one to `clip`" in warning for warning in warnings)


def check_guidance_ends_only_where_nothing_else_needs_it():
    """Not where a node makes something of the unconditional estimate, nor where nothing is balanced."""
    rescaled = run_node(model_advanced.RescaleCFG, MODEL, 0.7)
    empty = Layout((), prompt=PROMPT)
    for model, layout, is_guided in ((rescaled, LAYOUT, True), (MODEL, empty, True), (MODEL, LAYOUT, False)):
        found, _ = balanced((model, POSITIVE), (model, POSITIVE), steps=8, layout=layout, guided_until=0.5)
        assert ((found - alone(model, steps=8)).abs().max() < 1e-3) == is_guided, (model is MODEL, layout)


def check_the_prompts_attention_is_read_wherever_it_stands():
    """Beside other conditionings (Combine), before and after other tokens (Concat)."""
    other = encoded(OTHER_PROMPT)
    before = [[torch.cat([other[0][0], POSITIVE[0][0]], 1), {}]]
    after = [[torch.cat([POSITIVE[0][0], other[0][0]], 1), {}]]
    _, found = balanced((MODEL, before), (MODEL, after), steps=2, t1=1.0)
    a, b = found.trace.read_steps[0].maps[:, 0], found.trace.read_steps[0].maps[:, 1]
    assert found.warnings == []
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)  # cross-attention does not know where a token stands
    _, combined = balanced((MODEL, [*other, *POSITIVE]), steps=2, t1=1.0)
    own = combined.trace.read_steps[0].maps[:, 0]
    assert combined.warnings == [] and (own - combined.trace.read_steps[0].maps[:, 1]).abs().max() < 0.3 * own.max()


def check_differential_diffusion_is_honoured_or_refused():
    def soft(strength=1.0):
        return run_node(differential_diffusion.DifferentialDiffusion, MODEL, strength)

    mask = torch.linspace(0, 1, 16).expand(2, 1, 16, 16)
    expected = alone(soft(), mask=mask, steps=4)
    assert (expected - alone(mask=mask, steps=4)).abs().max() > 1e-2
    for other in (MODEL, soft()):
        found, _ = balanced((soft(), POSITIVE), (other, POSITIVE), steps=4, mask=mask, fixed=FIDELITY)
        torch.testing.assert_close(found, expected, **SAME)
    refused("spatial branch", "Differential Diffusion", run=lambda: balanced(spatial=(soft(), POSITIVE)))
    refused("spatial branch", "another way", run=lambda: balanced((soft(0.5), POSITIVE), (soft(), POSITIVE), mask=mask))


def check_values_that_are_not_finite_are_named():
    for name, place in (("fidelity", 0), ("spatial", 1)):
        calls = []

        def broken(apply, args, calls=calls):
            calls.append(1)
            output = apply(args["input"], args["timestep"], **args["c"])
            return output * float("nan") if len(calls) > 2 else output

        model = MODEL.clone()
        model.set_model_unet_function_wrapper(broken)
        models = [(MODEL, POSITIVE), (MODEL, POSITIVE)]
        models[place] = (model, POSITIVE)
        for settings in ({}, {"fixed": torch.tensor([0.5, 0.5])}, {"mode": "lookahead"}):
            calls.clear()
            refused(
                f"branch {name}", "step ", "not finite", run=lambda m=models, s=settings: balanced(*m, steps=8, **s)
            )


def check_patches_that_write_into_the_networks_tensors():
    """FreeU writes into the hidden states that autograd has kept."""

    def wide(h, skip, options):
        h[:, : h.shape[1] // 2] = h[:, : h.shape[1] // 2] * 1.2
        return h, skip * 0.9

    model = MODEL.clone()
    model.set_model_output_block_patch(wide)
    wanted = alone(model)
    for mode in ("one_pass", "lookahead"):
        found, guider = balanced((model, POSITIVE), (model, POSITIVE), mode=mode)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)  # of equal branches it is each branch's own
        assert guider.trace.read_steps
        balanced((model, POSITIVE), mode=mode), balanced(spatial=(model, POSITIVE), mode=mode)


def check_maps_of_unlike_sizes():
    """Kohya Deep Shrink makes one branch's maps smaller, in the first steps."""
    for block, mode in ((1, "one_pass"), (3, "lookahead")):
        small = run_node(
            model_downscale.PatchModelAddDownscale, MODEL, block, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
        )
        for models in ((small, MODEL), (MODEL, small)):
            _, guider = balanced(*((model, POSITIVE) for model in models), mode=mode, t1=1.0)
            assert guider.trace.read_steps
            for step in guider.trace.read_steps:
                sums = step.maps.sum((-2, -1))
                torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-2, atol=1e-2)


def ranged(positive, start, end):
    return run_node(core_nodes.ConditioningSetTimestepRange, positive, start, end)


def check_conditionings_with_a_range_of_steps():
    """The layout in the first steps, as many people do with GLIGEN and ControlNets."""
    early, late = ranged(POSITIVE, 0.0, 0.4), ranged(POSITIVE, 0.4, 1.0)
    for mode in ("one_pass", "lookahead"):
        found, guider = balanced(spatial=(MODEL, early), steps=6, mode=mode, t1=1.0)
        weights = [step.weights[:, 1].max().item() for step in guider.trace.by_step]
        acting = [weight > 0 for weight in weights]
        assert acting[0] and not acting[-1] and acting == sorted(acting, reverse=True), weights
        assert "spatial branch" in guider.trace.note and "ConditioningSetTimestepRange" in guider.trace.note
        torch.testing.assert_close(found, alone(steps=6), rtol=1e-3, atol=1e-3)  # the branches are equal
    _, guider = balanced(spatial=(MODEL, [*early, *late]), steps=6, t1=1.0)
    assert guider.trace.note == ""
    refused("no branch", run=lambda: balanced((MODEL, early), (MODEL, early), steps=6))
    boxed = run_node(core_nodes.ConditioningSetArea, POSITIVE, 64, 64, 0, 0, 1.0)
    refused("whole picture", run=lambda: balanced((MODEL, boxed), (MODEL, boxed)))
    _, guider = balanced(spatial=(MODEL, boxed))
    assert "spatial branch: its attention is not read" in guider.trace.note
    _, guider = balanced((MODEL, boxed), sources="spatial")
    assert guider.trace.note == ""  # nobody asks for the fidelity branch's
    refused("spatial branch", run=lambda: balanced(spatial=(MODEL, boxed), sources="spatial"))


def check_step_caches():
    """Steps that a cache skips are not read, and the user is told how many."""
    for node in (step_caches.EasyCacheNode, step_caches.LazyCacheNode):
        cached = run_node(node, MODEL, 2.0, 0.0, 1.0, False)
        for models, mode in (((cached, MODEL), "one_pass"), ((cached, cached), "lookahead")):
            found, _ = balanced(*((model, POSITIVE) for model in models), steps=6, mode=mode, t1=1.0)
            assert found.isfinite().all()
    _, guider = balanced(spatial=(cached, POSITIVE), steps=6, t1=1.0)  # a Lazy Cache leaves out whole predictions
    assert "spatial branch" in guider.trace.note and "skipped" in guider.trace.note, guider.trace.note


def check_superdiff_with_samplers_that_add_noise():
    """Both branches say the same where they are the same; a sampler without noise is told of."""
    for sampler in ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "dpm_2_ancestral", "ddpm", "lcm"):
        found, guider = balanced(sampler=sampler, rule="superdiff", t1=1.0, steps=6)
        assert not guider.trace.note, (sampler, guider.trace.note)
        torch.testing.assert_close(found, alone(sampler=sampler, steps=6), rtol=1e-3, atol=1e-3)
    other = MODEL, encoded(OTHER_PROMPT)
    _, guider = balanced(spatial=other, sampler="euler_ancestral", rule="superdiff", t1=1.0, steps=6)
    weights = torch.stack([step.weights[:, 0].mean((1, 2)) for step in guider.trace.by_step])
    assert weights.std() > 1e-3, weights
    for sampler in ("euler", "heun", "uni_pc"):
        _, guider = balanced(spatial=other, sampler=sampler, rule="superdiff", t1=1.0, steps=6)
        assert "ancestral" in guider.trace.note, (sampler, guider.trace.note)


def check_a_compiled_model():
    """Steps run the compiled network, gradients the network as it is. Here one part of it is compiled, to save time."""
    model, seen = MODEL.clone(), []

    def backend(graph, inputs):
        seen.append(torch.is_grad_enabled())
        return graph.forward

    set_torch_compile_wrapper(model=model, backend=backend, keys=["diffusion_model.time_embed"])
    for mode in ("one_pass", "lookahead"):
        found, _ = balanced((model, POSITIVE), mode=mode)
        torch.testing.assert_close(found, alone(), rtol=1e-3, atol=1e-3)
    assert seen and not any(seen), seen


run_checks(globals())
