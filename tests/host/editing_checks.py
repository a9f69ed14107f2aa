"""Prompt-to-Prompt in the host, run by the host's own Python: see `test_host_branch.py`."""

from __future__ import annotations

# isort: off
from bundled import CLIP, MODEL, NEGATIVE, NODES, noise_levels, run_checks

import importlib

import comfy.sample
import comfy.samplers
import torch
from comfy.ldm.modules.attention import optimized_attention
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.text.prompt_edit import token_mapping
# isort: on

host_edits = importlib.import_module("realcompo_pack.nodes.host.edited")
prompt_words = importlib.import_module("realcompo_pack.nodes.host.prompt_tokens").prompt_words

SOURCE, SWAPPED = "a red circle to the left of a blue square", "a red circle to the left of a green square"
REFINED = "a red circle to the left of a large blue square"
CFG, CLOSE = 3.0, {"rtol": 1e-3, "atol": 1e-3}


def edited(target=SWAPPED, cross=0.8, self_attention=0.4, weights="", blend="", layout=None, model=MODEL, batch=1):
    latent = {"samples": torch.zeros(batch, 8, 16, 16)}
    with torch.inference_mode():
        node = NODES["RealCompoPromptToPrompt"]
        options = (SOURCE, target, cross, self_attention, weights, blend, 0.3, layout)
        return node.execute(model, CLIP, latent, *options).args


def sampled(model, positive, latent, sampler="euler", steps=6, negative=NEGATIVE):
    with torch.inference_mode():
        samples = latent["samples"]
        noise = comfy.sample.prepare_noise(samples, 3, latent.get("batch_index"))
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(CFG)
        found = comfy.samplers.sampler_object(sampler)
        return guider.sample(noise, samples, found, noise_levels(steps), seed=3)


def alone(text, **options):
    """The host's own picture of a prompt from the same noise."""
    with torch.inference_mode():
        positive = CLIP.encode_from_tokens_scheduled(CLIP.tokenize(text))
    return sampled(MODEL, positive, {"samples": torch.zeros(1, 8, 16, 16)}, **options)


def check_without_an_edit_both_prompts_are_drawn_as_they_are():
    found = sampled(*edited(cross=0.0, self_attention=0.0))
    for row, text in zip(found, (SOURCE, SWAPPED), strict=True):
        torch.testing.assert_close(row, alone(text)[0], **CLOSE)


def check_the_source_is_drawn_as_it_is_and_the_edit_keeps_it():
    own = alone(SOURCE)[0]
    apart = alone(SWAPPED)[0]
    for target in (SWAPPED, REFINED):
        source, edit = sampled(*edited(target))
        torch.testing.assert_close(source, own, **CLOSE)
        assert (edit - source).abs().max() > 0.1
    source, edit = sampled(*edited(SWAPPED))
    assert (edit - source).square().mean() < (apart - own).square().mean()


def check_a_step_is_that_of_edited_probabilities():
    """The authors' way: all probabilities are computed, and columns are exchanged before values are attended to."""
    model, positive, latent = edited(REFINED, cross=1.0, self_attention=0.0, weights="large: 2")
    found = sampled(model, positive, latent, steps=3)
    words = [[(text, tokens) for text, tokens in prompt_words(CLIP, t).words] for t in (SOURCE, REFINED)]
    length = prompt_words(CLIP, SOURCE).length
    mapping = token_mapping(*words, (length, length), {"large": 2.0})

    def exchange(q, k, v, options, **given):
        heads = options["n_heads"]
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        p = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        kinds = options["cond_or_uncond"]
        size = len(p) // len(kinds)
        for part, kind in enumerate(kinds):
            if kind == 0:
                rows = p[part * size : (part + 1) * size]
                new = rows[0] @ mapping.source.T.to(p) + rows[1] * mapping.own.to(p)
                rows[1] = new * mapping.factors.to(p)
        return (p @ v).transpose(1, 2).flatten(-2)

    plain = MODEL.clone()
    for part, numbers in (("input", range(12)), ("middle", range(1)), ("output", range(12))):
        for number in numbers:
            plain.set_model_attn2_replace(exchange, part, number)
    wanted = sampled(plain, positive, latent, steps=3)
    torch.testing.assert_close(found, wanted, **CLOSE)


def check_every_sampler_adds_the_same_noise_to_both():
    """One prompt twice: whatever a sampler adds, both pictures stay the same."""
    for sampler in comfy.samplers.KSampler.SAMPLERS:
        source, edit = sampled(*edited(SOURCE, cross=1.0, self_attention=1.0), sampler=sampler, steps=4)
        assert source.isfinite().all(), sampler
        torch.testing.assert_close(source, edit, **CLOSE, msg=f"{sampler}: {(source - edit).abs().max()}")


def check_batches_are_pairs():
    two = sampled(*edited(batch=2))
    one = sampled(*edited())
    torch.testing.assert_close(two[:2], one, **CLOSE)
    assert len(two) == 4 and (two[2] - two[0]).abs().max() > 0.1


def check_what_lies_outside_of_the_layout_is_kept():
    layout = Layout((LayoutObject("a green square", (0.5, 0.0, 1.0, 1.0)),))
    source, edit = sampled(*edited(layout=layout))
    torch.testing.assert_close(source[..., :8], edit[..., :8], **CLOSE)
    assert (source[..., 8:] - edit[..., 8:]).abs().max() > 0.1


def check_blend_keeps_more():
    everywhere = sampled(*edited(self_attention=0.0, cross=0.2))
    blended = sampled(*edited(self_attention=0.0, cross=0.2, blend="square"))
    torch.testing.assert_close(everywhere[0], blended[0], **CLOSE)
    kept = [((found[0] - found[1]).abs().amax(0) < 0.05).float().mean() for found in (everywhere, blended)]
    assert kept[1] > kept[0], kept


def check_patches_of_others_stay():
    seen = []

    def watch(q, k, v, options, **given):
        seen.append(len(q))
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    model = MODEL.clone()
    for number in range(12):
        model.set_model_attn2_replace(watch, "output", number)
    patched = sampled(*edited(model=model))
    assert seen
    torch.testing.assert_close(patched, sampled(*edited()), **CLOSE)


def check_what_is_not_wired_is_told():
    told, before = [], host_edits.warn_on_node
    host_edits.warn_on_node = told.extend
    try:
        model, _, latent = edited()
        with torch.inference_mode():
            plain = CLIP.encode_from_tokens_scheduled(CLIP.tokenize(SOURCE))
        source, edit = sampled(model, plain, latent)
        torch.testing.assert_close(source, edit, **CLOSE)
        assert "positive" in told[0], told
    finally:
        host_edits.warn_on_node = before
    for run, word in (
        (lambda: sampled(*edited()[:2], {"samples": torch.zeros(3, 8, 16, 16)}), "3 pictures"),
        (lambda: edited(model=edited()[0]), "already"),
        (lambda: edited(weights="red"), "'red'"),
        (lambda: edited(weights="purple: 2"), "'purple'"),
        (lambda: edited(blend="a | b | c"), "3 phrases"),
        (lambda: edited(blend="square", layout=Layout((LayoutObject("a", (0, 0, 1, 1)),))), "blend and layout"),
    ):
        try:
            run()
        except RealCompoError as error:
            assert word in str(error), error
        else:
            raise AssertionError(f"not refused: {word}")


run_checks(globals())
