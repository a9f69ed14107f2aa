"""Composable and Structured Diffusion: how prompts are taken apart, and what is made of the parts."""

from copy import copy

import pytest
import torch

from realcompo_core.diffusers import Guided, RealCompoPipeline
from realcompo_core.diffusers.pipeline import build_branch
from realcompo_core.diffusers.request import Request
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.attend_and_excite import AttendAndExcite
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.text.composition import Part, layout_parts, split_prompt
from realcompo_core.text.structured import structured_values
from realcompo_core.text.tokens import TokenSpan, prompt_spans
from tests.test_diffusers_adapter import BOXES, LAYOUT, PROMPT, assert_same_latents, generate, with_scheduler

COMPOSED = "a red circle | a blue square :0.5 | a green star :-1"
SCALE = 5.0


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat and a dog", [("a cat", 1), ("a dog", 1)]),
        ("A cat And a dog, and a bird.", [("A cat", 1), ("a dog", 1), ("a bird.", 1)]),
        ("a black and white cat AND a dog :1.5", [("a black and white cat", 1), ("a dog", 1.5)]),
        ("salt and pepper | a beach: .5|a hand :-1.", [("salt and pepper", 1), ("a beach", 0.5), ("a hand", -1)]),
        ("a clock: noon | a bird", [("a clock: noon", 1), ("a bird", 1)]),
    ],
)
def test_prompts_are_taken_apart_at_signs_before_words(prompt, parts):
    assert split_prompt(prompt) == [Part(*part) for part in parts]


@pytest.mark.parametrize(
    ("prompt", "named"), [("a sandy hand", "neither"), ("", "neither"), ("a cat | , | b", "part 2")]
)
def test_prompts_that_cannot_be_taken_apart(prompt, named):
    with pytest.raises(RealCompoError, match=named):
        split_prompt(prompt)


def test_a_layouts_phrases_are_parts_once_each():
    objects = tuple(LayoutObject(phrase, BOXES[0]) for phrase in ("a cat", "a dog", "a cat"))
    assert layout_parts(Layout(objects)) == [Part("a cat"), Part("a dog")]
    with pytest.raises(RealCompoError, match="no objects"):
        layout_parts(Layout(()))


def test_spans_of_phrases_are_from_the_first_adjective_to_the_noun(tiny_pipelines):
    """As the prompt has them: in its own words, and none of a single word."""
    prompt = "Two large Red circles near the square, and a very small blue star"
    spans = prompt_spans(
        tiny_pipelines.fidelity.tokenizer, prompt, ["a large red circle", "a square", "a small blue star"]
    )
    assert [span.text for span in spans] == ["large Red circles", "small blue star"]
    ids = tiny_pipelines.fidelity.tokenizer(prompt).input_ids
    for span in spans:
        own = tiny_pipelines.fidelity.tokenizer(span.text, add_special_tokens=False).input_ids
        assert [ids[token] for token in span.tokens] == own


def test_structured_values_are_the_mean_of_the_copies():
    whole, phrases = torch.randn(6, 3), torch.randn(2, 6, 3)
    spans = [TokenSpan("", [1, 2]), TokenSpan("", [2, 3, 4])]
    copies = [whole.clone() for _ in range(3)]
    copies[1][[1, 2]] = phrases[0][[1, 2]]
    copies[2][[2, 3, 4]] = phrases[1][[1, 2, 3]]
    torch.testing.assert_close(structured_values(whole, phrases, spans), sum(copies) / 3)


def doubled(pipeline):
    """In float64, with its own modules: the others are shared by all tests."""
    double = copy(pipeline)
    for name in ("unet", "text_encoder"):
        part = getattr(double, name)
        twin = type(part).from_config(part.config) if name == "unet" else type(part)(part.config)
        twin.load_state_dict(part.state_dict())
        setattr(double, name, twin.double().eval().requires_grad_(False))
    return double


def branch(pipeline, prompts, layouts=(LAYOUT,), **guided):
    schedule = NoiseSchedule(pipeline.scheduler)
    request = Request(prompts, [None] * len(prompts), list(layouts), (128, 128), schedule.sigmas(4), 1.0, 2, False)
    return build_branch("only", Guided(pipeline, **guided), schedule, request, SCALE), schedule.sigmas(4)[1]


def noise_of(pipeline, x, sigma, text, network=None):
    t = NoiseSchedule(pipeline.scheduler).timestep(sigma)
    return (network or pipeline.unet)(x / (sigma**2 + 1) ** 0.5, t, encoder_hidden_states=text).sample


def latent(batch=1):
    return torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5


def encoded(pipeline, text):
    return pipeline.encode_prompt(text, "cpu", 1, False)[0]


@torch.no_grad()
def test_a_step_is_the_composable_equation(tiny_pipelines):
    """Two items with parts of their own, one of them fewer; the second by its layout alone."""
    pipeline = doubled(with_scheduler(tiny_pipelines.fidelity, "ddim"))
    prompts = [COMPOSED, "a red circle and a blue square"]
    found, sigma = branch(pipeline, prompts, [LAYOUT] * 2, composed="prompt")
    x, wanted = latent(2), []
    for item, prompt in zip(x.split(1), prompts, strict=True):
        empty = noise_of(pipeline, item, sigma, encoded(pipeline, ""))
        total = empty.clone()
        for text, weight in split_prompt(prompt):
            total += SCALE * weight * (noise_of(pipeline, item, sigma, encoded(pipeline, text)) - empty)
        wanted.append(item - sigma * total)
    torch.testing.assert_close(found.denoise(x, sigma), torch.cat(wanted), rtol=1e-9, atol=1e-9)
    by_layout, _ = branch(pipeline, ["a picture of a blue square with a red circle"], composed="layout")
    torch.testing.assert_close(by_layout.denoise(x[1:], sigma), wanted[1], rtol=1e-9, atol=1e-9)
    together, gradient = found.denoise_with_gradient(x, sigma)
    torch.testing.assert_close(together, torch.cat(wanted), rtol=1e-9, atol=1e-9)
    plain, _ = branch(pipeline, prompts, [LAYOUT] * 2)
    torch.testing.assert_close(gradient.g, plain.gradient(x, sigma).g)


class MeanOverCopies:
    """Attention whose output is the mean over copies of the text, with the keys of the first: written out."""

    def __init__(self, copies):
        self.copies = copies

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        if encoder_hidden_states is None:
            texts = [hidden_states]
        else:
            texts = self.copies
        q, k = attn.to_q(hidden_states), attn.to_k(texts[0])

        def heads(t):
            return t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        p = (heads(q) @ heads(k).mT * attn.scale).softmax(-1)
        outputs = [(p @ heads(attn.to_v(text))).transpose(1, 2).flatten(2) for text in texts]
        return attn.to_out[0](sum(outputs) / len(outputs))


@torch.no_grad()
def test_a_step_is_structured_diffusion_written_out(tiny_pipelines):
    pipeline = doubled(with_scheduler(tiny_pipelines.fidelity, "ddim"))
    found, sigma = branch(pipeline, [PROMPT], structured=True)
    x, whole = latent(), encoded(pipeline, PROMPT)
    copies = [whole.clone() for _ in range(3)]
    for copy_, text, span in ((copies[1], "red circle", (2, 4)), (copies[2], "blue square", (9, 11))):
        copy_[0, span[0] : span[1]] = encoded(pipeline, text)[0, 1:3]
    empty = noise_of(pipeline, x, sigma, encoded(pipeline, ""))
    plain = noise_of(pipeline, x, sigma, whole)
    before = pipeline.unet.attn_processors
    pipeline.unet.set_attn_processor(MeanOverCopies(copies))
    structured = noise_of(pipeline, x, sigma, whole)
    pipeline.unet.set_attn_processor(before)
    wanted = x - sigma * (empty + SCALE * (structured - empty))
    torch.testing.assert_close(found.denoise(x, sigma), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.denoise_with_gradient(x, sigma)[0], wanted, rtol=1e-9, atol=1e-9)
    assert (structured - plain).abs().max() > 1e-3
    torch.testing.assert_close(noise_of(pipeline, x, sigma, whole), plain)  # nothing is left in the network


def run(pipeline, prompt=PROMPT, layout=LAYOUT, **guided):
    told = {"seed": 3, "steps": 3, "sampler": "ddim", "guidance_scale": SCALE, "layers": 2}
    return RealCompoPipeline(Guided(pipeline, **guided))(prompt, layout, **told).latents


@pytest.mark.parametrize("kind", ["fidelity", "sdxl"])
def test_what_changes_nothing_is_the_plain_sampler(tiny_pipelines, kind):
    """One part that is the whole prompt; phrases of one word. And what changes something does, in SDXL too."""
    plain = with_scheduler(getattr(tiny_pipelines, kind), "ddim")
    fixed = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
    told = {"steps": 3, "sampler": "ddim", "balance": fixed, "guidance_scale": SCALE}
    whole = Layout((LayoutObject(PROMPT, (0.0, 0.0, 1.0, 1.0)),))
    expected = generate(plain, plain, **told).latents
    assert_same_latents(run(plain, layout=whole, composed="layout"), expected)
    short = Layout((LayoutObject("circle", BOXES[0]), LayoutObject("a square", BOXES[1])), prompt="a circle, a square")
    unchanged = run(plain, "a circle, a square", short, structured=True)
    assert torch.equal(unchanged, generate(plain, plain, prompt="a circle, a square", layout=short, **told).latents)
    for given in ({"composed": "layout"}, {"structured": True}):
        assert (run(plain, **given) - expected).abs().max() > 1e-2
    assert torch.equal(run(plain, structured=True), run(plain, structured=True))


@pytest.mark.parametrize("given", [{"composed": "layout"}, {"structured": True}], ids=["composable", "structured"])
def test_balanced_as_fidelity_and_as_spatial_branch(tiny_pipelines, given):
    plain, gligen = (with_scheduler(p, "ddim") for p in (tiny_pipelines.fidelity, tiny_pipelines.gligen))
    for branches in ((Guided(plain, **given), gligen), (plain, Guided(gligen, **given))):
        output = generate(*branches, prompt=[PROMPT] * 2, steps=3, balance=BalanceSettings(t1=1.0))
        assert output.latents.isfinite().all()
        assert all((step.gradient > 0).all() for step in output.trace.read_steps)
        assert (output.latents - generate(plain, gligen, prompt=[PROMPT] * 2, steps=3).latents).abs().max() > 1e-2


def test_the_provider_is_not_asked_for_a_layout_that_nothing_reads(tiny_pipelines):
    class Refusing:
        def propose(self, prompt, size):
            raise AssertionError("was asked")

    plain = with_scheduler(tiny_pipelines.fidelity, "ddim")
    told = {"seed": 3, "steps": 3, "sampler": "ddim", "guidance_scale": SCALE, "provider": Refusing(), "layers": 2}
    found = RealCompoPipeline(Guided(plain, composed="prompt"))(COMPOSED, **told).latents
    assert torch.equal(found, run(plain, COMPOSED, Layout(()), composed="prompt"))
    words = AttendAndExcite(words=("a red circle",))
    assert RealCompoPipeline(Guided(plain, layout_guidance=words))(PROMPT, **told).latents.isfinite().all()
    for given in ({"layout_guidance": AttendAndExcite()}, {"composed": "layout"}, {"structured": True}):
        with pytest.raises(AssertionError, match="was asked"):
            RealCompoPipeline(Guided(plain, **given))(PROMPT, **told)


def test_guided_says_what_does_not_go_together(tiny_pipelines):
    for given, named in (
        ({"composed": "words"}, "'words'"),
        ({"composed": "prompt", "structured": True}, "composed runs"),
        ({"composed": "prompt", "phrase_strength": 1.0}, "composed and phrase_strength"),
    ):
        with pytest.raises(RealCompoError, match=named):
            Guided(tiny_pipelines.fidelity, **given)
    with pytest.raises(RealCompoError, match="neither"):
        run(tiny_pipelines.fidelity, "a red circle above a blue square", composed="prompt")
