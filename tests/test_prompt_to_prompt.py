import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from test_diffusers_adapter import with_scheduler
from test_inversion import photo

from realcompo_core.attention.prompt_to_prompt import Blend, Edit, PromptToPrompt
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.diffusers.inversion import invert
from realcompo_core.diffusers.prompt_to_prompt import edit
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.text.prompt_edit import token_mapping
from realcompo_core.text.tokens import word_tokens

SOURCE, SWAPPED, REFINED = "a red circle and a square", "a blue circle and a square", "a large red circle and a square"
OPTIONS = {"steps": 4, "guidance_scale": 4.0, "seed": 3}


def words(text, pieces=None):
    """Words with their tokens, after a start token; `pieces` says how many tokens a word has, 1 by default."""
    found, token = [], 1
    for word in text.split():
        count = (pieces or {}).get(word, 1)
        found.append((word, list(range(token, token + count))))
        token += count
    return found


def taken(source, edited, pieces=None, length=10, weights=None):
    """By edited token, the source tokens that it takes attention of."""
    mapping = token_mapping(words(source, pieces), words(edited, pieces), (length, length), weights)
    return [{i: round(float(v), 3) for i, v in enumerate(row) if v} for row in mapping.source], mapping


def test_a_word_takes_the_attention_of_the_word_in_its_place():
    rows, mapping = taken("a red circle", "a blue circle")
    assert rows == [{i: 1} for i in range(10)] and not mapping.own.any()


def test_pieces_of_a_word_share_the_whole_words_attention():
    rows, _ = taken("a cat sits", "a corgi sits", {"corgi": 2})
    assert rows[1:5] == [{1: 1}, {2: 0.5}, {2: 0.5}, {3: 1}]
    rows, _ = taken("a corgi sits", "a cat sits", {"corgi": 2})
    assert rows[1:4] == [{1: 1}, {2: 1, 3: 1}, {4: 1}]


def test_new_words_have_their_own_and_the_end_is_aligned():
    rows, mapping = taken("a circle", "a very large circle")
    assert rows[:5] == [{0: 1}, {1: 1}, {}, {}, {2: 1}] and rows[5] == {3: 1}
    assert mapping.own.tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert rows[-1] == {7: 1}  # padding: what follows the words, in order
    rows, _ = taken("a very large circle", "a circle")
    assert rows[:4] == [{0: 1}, {1: 1}, {4: 1}, {5: 1}] and rows[-1] == {9: 1}


def test_weights_are_of_phrases():
    _, mapping = taken("a red circle", "a red circle", weights={"red circle": 2.0, "a": -1.0})
    assert mapping.factors.tolist() == [1, -1, 2, 2, 1, 1, 1, 1, 1, 1]
    with pytest.raises(RealCompoError, match="'green' is not in the prompt, whose words are a, red, circle"):
        taken("a red circle", "a red circle", weights={"green": 2.0})


def attention(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


@pytest.mark.parametrize("repeats", [1, 2])
def test_edited_attention_is_that_of_edited_probabilities(repeats):
    """The authors' way: probabilities computed, columns exchanged, then multiplied by the values."""
    generator = torch.Generator().manual_seed(1)
    settings = PromptToPrompt(weights={"large": 1.7, "a": 0.5})
    source, edited = words("a red circle", {"circle": 2}), words("a large red cat", {"large": 2})
    own = Edit(settings, source, edited, (9, 9))
    q, k, v = (torch.randn(4, n, 6, generator=generator, dtype=torch.float64) for n in (5, 9, 9))
    long_k, long_v = k.repeat(1, repeats, 1), v.repeat(1, repeats, 1)
    taken, of_new_words = own.cross_values(long_v[1::2])
    found = attention(q[::2], long_k[::2], taken) + attention(q[1::2], long_k[1::2], of_new_words)
    probabilities = (q @ k.mT / math.sqrt(6)).softmax(-1)
    mapping = token_mapping(source, edited, (9, 9), settings.weights)
    for pair in range(2):
        wanted = torch.zeros(5, 9, dtype=torch.float64)
        for token in range(9):
            row = mapping.source[token]
            column = sum(row[s] * probabilities[2 * pair, :, s] for s in range(9) if row[s])
            wanted[:, token] = probabilities[2 * pair + 1, :, token] if not row.any() else column
            wanted[:, token] *= mapping.factors[token]
        torch.testing.assert_close(found[pair], wanted @ v[2 * pair + 1])


class Exchanged(AttnProcessor2_0):
    """The authors' attention control, for a batch of (negative, negative, source, edited)."""

    def __init__(self, edit, is_cross, keeps):
        super().__init__()
        self.edit, self.is_cross, self.keeps = edit, is_cross, keeps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (f(x) for f, x in ((attn.to_q, hidden_states), (attn.to_k, text), (attn.to_v, text)))
        q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (q, k, v))
        probabilities = (q @ k.mT * attn.scale).softmax(-1)
        if self.keeps and not self.is_cross:
            probabilities[3] = probabilities[2]
        if self.keeps and self.is_cross:
            mapping = self.edit._mapping
            from_source = probabilities[2] @ mapping.source.T
            probabilities[3] = (from_source + probabilities[3] * mapping.own) * mapping.factors
        return attn.to_out[0]((probabilities @ v).transpose(1, 2).flatten(-2))


@pytest.mark.parametrize("name", ["fidelity", "sdxl"])
@pytest.mark.parametrize("edited", [SWAPPED, REFINED])
def test_a_pass_is_the_authors(tiny_pipelines, name, edited):
    pipeline = with_scheduler(getattr(tiny_pipelines, name), "ddim")
    settings = PromptToPrompt(cross=1.0, self_attention=1.0, weights={"square": 2.0})
    options = OPTIONS | {"steps": 2}
    found = edit(pipeline, SOURCE, edited, settings, **options)
    tokenizer = pipeline.tokenizer
    chunk = tokenizer.model_max_length
    both = [word_tokens(tokenizer, text, weights=False, chunk=chunk) for text in (SOURCE, edited)]
    own, before = Edit(settings, *both, (chunk, chunk)), dict(pipeline.unet.attn_processors)
    try:
        kept = {name for name in before if "attn2" in name or _is_coarse(pipeline, name)}
        control = {name: Exchanged(own, "attn2" in name, name in kept) for name in before}
        pipeline.unet.set_attn_processor(control)
        wanted = edit(pipeline, SOURCE, edited, PromptToPrompt(cross=0.0, self_attention=0.0), **options)
    finally:
        pipeline.unet.set_attn_processor(before)
    torch.testing.assert_close(found.latents, wanted.latents, rtol=1e-3, atol=1e-3)


def _is_coarse(pipeline, name):
    """Whether a self-attention processor is of a layer at half of the latent's resolution or less."""
    sizes = {layer.name.removesuffix(".attn2"): layer.downsampling for layer in UNetAttention(pipeline.unet).layers}
    return sizes[name.split(".attn1")[0]] >= 2


@pytest.mark.parametrize("sampler", ["ddim", "plms", "ddpm"])
def test_no_edit_draws_both_prompts_as_they_are(tiny_pipelines, sampler):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    options = OPTIONS | {"sampler": sampler}
    apart = edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(cross=0, self_attention=0), **options)
    for prompt, row in ((SOURCE, 0), (SWAPPED, 1)):
        same = edit(pipeline, prompt, prompt, PromptToPrompt(cross=1, self_attention=1), **options).latents
        torch.testing.assert_close(same[0], same[1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(same[0], apart.latents[row], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(apart.latents[0], apart.latents[1], atol=1e-2)


def test_outside_of_the_layout_the_picture_is_kept(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    layout = Layout((LayoutObject("a blue circle", (0.0, 0.0, 0.5, 1.0)),))
    found = edit(pipeline, SOURCE, SWAPPED, layout=layout, **OPTIONS).latents
    half = found.shape[-1] // 2
    assert torch.equal(found[0, ..., half:], found[1, ..., half:])
    assert not torch.allclose(found[0, ..., :half], found[1, ..., :half], atol=1e-3)


def test_blend_follows_the_words_attention():
    """Maps that are 1 on one quarter each: the union may change."""
    layer = Layer("only", "only", "decoder", 0, 0, 1, 1)
    blend = Blend(PromptToPrompt(blend=("cat", "dog"), threshold=0.5, blend_from=0.5), columns=([1], [2]))
    q = torch.zeros(2, 1, 64, 4)
    places = torch.arange(64).reshape(8, 8)
    for row, corner in ((0, places[:3, :3]), (1, places[5:, 5:])):
        q[row, 0, corner.flatten(), row] = 20.0
    k = torch.zeros(2, 1, 4, 4)
    k[0, 0, 1, 0] = k[1, 0, 2, 1] = 1.0
    blend.read(AttentionEvent(layer, "positive", q, k, 1.0, slice(0, 4), (8, 8), "step"))
    assert blend.mask((8, 8), 0.4) is None  # not yet
    mask = blend.mask((8, 8), 0.5)[0, 0]
    assert mask[:3, :3].all() and mask[5:, 5:].all() and not mask[:3, 5:].any() and not mask[5:, :3].any()
    D = torch.arange(2.0)[:, None, None, None].expand(2, 1, 8, 8)
    assert torch.equal(blend.blended(D, 0.9)[1, 0], mask) and not blend.blended(D, 0.9)[0].any()


def test_words_of_the_blend_are_looked_up(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    found = edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(blend=("circle", "circle")), **OPTIONS).latents
    assert not torch.equal(found[0], found[1])
    with pytest.raises(RealCompoError, match="'triangle' is not in the prompt"):
        edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(blend=("triangle", "circle")), **OPTIONS)


def test_an_inverted_picture_is_edited(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    inverted = invert(pipeline, photo(), SOURCE, steps=4, guidance_scale=4.0, iterations=2)
    found = edit(pipeline, SOURCE, SWAPPED, inversion=inverted)  # it knows its size, steps and guidance
    assert np.abs(np.asarray(found.source, int) - np.asarray(inverted.reconstruction, int)).max() <= 2
    assert found.picture.size == found.source.size and found.picture != found.source
    for given, told in (
        ({"steps": 5}, "steps is 5: the picture was inverted with 4"),
        ({"guidance_scale": 1.0}, "inverted with 4.0"),
        ({"height": 64}, "height is 64"),
        ({"negative_prompt": "blurry"}, "negative_prompt is 'blurry'"),
        ({"sampler": "plms"}, "ddim or euler"),
    ):
        with pytest.raises(RealCompoError, match=told):
            edit(pipeline, SOURCE, SWAPPED, inversion=inverted, **given)
    with pytest.raises(RealCompoError, match="prompt is"):
        edit(pipeline, REFINED, SWAPPED, inversion=inverted)


def test_long_prompts_are_edited_in_chunks(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    long = " and ".join(["a red circle"] * 30)
    found = edit(pipeline, long, long + " and a blue square", PromptToPrompt(cross=1), **(OPTIONS | {"steps": 2}))
    assert found.latents.isfinite().all()


def test_hooks_are_gone_afterwards(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(pipeline, SOURCE, SWAPPED, cancelled=stop, **OPTIONS)
    edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(blend=("circle", "circle")), **OPTIONS)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipeline.unet.modules())


def test_bad_settings_are_named(tiny_pipelines):
    for given, told in (
        ({"cross": 1.5}, "cross is 1.5"),
        ({"threshold": -1}, "threshold is -1"),
        ({"blend": "cat"}, "two phrases"),
        ({"weights": {"cat": float("nan")}}, "weight of 'cat'"),
    ):
        with pytest.raises(RealCompoError, match=told):
            PromptToPrompt(**given)
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    layout = Layout((LayoutObject("a circle", (0.0, 0.0, 0.5, 1.0)),))
    with pytest.raises(RealCompoError, match="give one of them"):
        edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(blend=("circle", "circle")), layout=layout)
    with pytest.raises(RealCompoError, match="no objects"):
        edit(pipeline, SOURCE, SWAPPED, layout=Layout(()))
    with pytest.raises(RealCompoError, match="choose one of"):
        edit(pipeline, SOURCE, SWAPPED, sampler="unknown")


def test_more_is_kept_the_longer_self_attention_is(tiny_pipelines):
    pipeline = with_scheduler(tiny_pipelines.fidelity, "ddim")
    apart = [
        float((o.latents[0] - o.latents[1]).square().mean())
        for o in (
            edit(pipeline, SOURCE, SWAPPED, PromptToPrompt(cross=share, self_attention=share), **OPTIONS)
            for share in (0.0, 0.5, 1.0)
        )
    ]
    assert all(b < a for a, b in pairwise(apart)), apart
