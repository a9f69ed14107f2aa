"""The grounding losses of both conventions, against values by hand, a slow version, and the official function."""

import json
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from tokencompose_core.losses import grounding_losses, layer_masks, noun_targets, pixel_loss, token_loss

CASES = json.loads((Path(__file__).parent / "data" / "tokencompose_official_losses.json").read_text())


def named(layers):
    return {str(i): layer for i, layer in enumerate(layers)}


def one(maps, tokens, masks, **settings):
    """Losses of one item. maps: a list of layers (heads, T, h, w) of all tokens; masks: (nouns, H, W)."""
    wanted = noun_targets([tokens], [masks])
    found = grounding_losses(named([layer[:, wanted.columns[0]][None] for layer in maps]), wanted, **settings)
    return found.token.item(), found.pixel.item()


def left_half(h=2, w=2):
    mask = torch.zeros(1, h, w)
    mask[..., : w // 2] = 1
    return mask


class TestByHand:
    """One layer of 2x2 cells; the noun is in the left half."""

    maps = torch.tensor([[[[0.3, 0.1], [0.3, 0.1]]], [[[0.2, 0.2], [0.2, 0.2]]]])  # two heads, one token

    def test_official(self):
        token, pixel = one([self.maps], [[0]], left_half())
        assert token == pytest.approx((1 - (0.75 + 0.5) / 2) ** 2)
        assert pixel == pytest.approx(-(log(0.25) + log(1 - 0.15)) / 2)

    def test_paper(self):
        """Heads first: 0.5 of 0.8 inside; the cross-entropy is divided by all 77 tokens."""
        token, pixel = one([self.maps], [[0]], left_half(), convention="paper")
        assert token == pytest.approx((1 - 0.5 / 0.8) ** 2)
        assert pixel == pytest.approx(-(log(0.25) + log(1 - 0.15)) / 2 / 77)

    def test_tokens_without_a_mask_have_no_term_in_the_paper_s_pixel_loss(self):
        """Equation 6 does not say; docs/method.md, T2, says why they do not count as if their mask were 0."""
        maps = torch.cat([self.maps, torch.full((2, 1, 2, 2), 0.6)], 1)  # a second token, as a start token is
        _, pixel = one([maps], [[0]], left_half(), convention="paper")
        assert pixel == pytest.approx(-(log(0.25) + log(1 - 0.15)) / 2 / 77)

    def test_sub_tokens_are_averaged_by_the_code_and_counted_by_the_paper(self):
        maps = torch.tensor([[[[0.4, 0.0], [0.4, 0.0]], [[0.1, 0.1], [0.1, 0.1]], [[0.0, 0.2], [0.0, 0.2]]]])
        masks = torch.cat([left_half(), left_half()])
        token, pixel = one([maps], [[0, 1], [2]], masks)
        assert token == pytest.approx(((0 + 0.25) / 2 + 1) / 2)
        first = -(log(0.5) + log(1 - 0.1)) / 2  # the two columns summed
        second = (100 - log(1 - 0.2)) / 2  # a logarithm of 0 counts as -100
        assert pixel == pytest.approx((first + second) / 2)
        token, _ = one([maps], [[0, 1], [2]], masks, convention="paper")
        assert token == pytest.approx((0 + 0.25 + 1) / 3)

    def test_token_losses_of_one_resolution_are_summed_and_their_mean_map_gives_the_pixel_loss(self):
        other = 1 - self.maps
        token, pixel = one([self.maps, other], [[0]], left_half())
        assert token == pytest.approx((1 - 0.625) ** 2 + (1 - (1.4 / 3.2 + 0.5) / 2) ** 2)
        assert pixel == pytest.approx(log(2))
        finer = self.maps.repeat_interleave(2, -1).repeat_interleave(2, -2)
        token, _ = one([self.maps, finer], [[0]], left_half(4, 4))
        assert token == pytest.approx(2 * (1 - 0.625) ** 2)

    def test_perfect_attention_costs_nothing(self):
        maps = left_half()[None]
        assert one([maps], [[0]], left_half()) == (0, 0)
        assert one([maps], [[0]], left_half(), convention="paper") == (0, 0)


def test_small_object_vanishes_at_a_coarse_layer_and_is_left_out():
    masks = torch.zeros(2, 16, 16)
    masks[0, 9, 9] = 1
    masks[1, :, :8] = 1
    small = layer_masks(masks[None], (2, 2))
    assert small[0, 0].sum() == 0 and small[0, 1].tolist() == [[1, 0], [1, 0]]
    maps = torch.tensor([[[[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.0], [0.2, 0.0]]]])
    assert one([maps], [[0], [1]], masks)[0] == 0


def test_paper_masks_are_half_covered_and_official_ones_touched():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1
    assert layer_masks(mask, (2, 2), "official")[0, 0].tolist() == [[1, 0], [0, 0]]
    assert layer_masks(mask, (2, 2), "paper")[0, 0].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("convention", ["official", "paper"])
def test_captions_without_nouns_cost_nothing_and_do_not_disturb_the_others(convention):
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 2, 4, 4)
    masks = (torch.rand(1, 8, 8) > 0.5).float()
    both = grounding_losses(named([maps]), noun_targets([[], [[3, 4]]], [torch.zeros(0, 8, 8), masks]), convention)
    alone = grounding_losses(named([maps[1:]]), noun_targets([[[3, 4]]], [masks]), convention)
    assert both.token[0] == both.pixel[0] == 0
    torch.testing.assert_close(both.token[1], alone.token[0])
    torch.testing.assert_close(both.pixel[1], alone.pixel[0])
    nothing = grounding_losses(
        named([torch.rand(2, 3, 0, 4, 4)]), noun_targets([[], []], [torch.zeros(0, 8, 8)] * 2), convention
    )
    assert nothing.token.tolist() == nothing.pixel.tolist() == [0, 0]


def slow(layers, tokens, masks, convention):
    """The two losses of one item, cell by cell. layers: (heads, T, h, w) each."""
    token = pixel = 0.0
    for size in {tuple(layer.shape[-2:]) for layer in layers}:
        here = [layer.double() for layer in layers if tuple(layer.shape[-2:]) == size]
        small = layer_masks(masks[None], size, convention)[0].double()
        nouns = [(noun, mask) for noun, mask in zip(tokens, small, strict=True) if mask.any()]
        if not nouns:
            continue
        for layer in here:
            if convention == "official":
                for noun, mask in nouns:
                    for t in noun:
                        shares = [float((head[t] * mask).sum() / head[t].sum()) for head in layer]
                        token += (1 - sum(shares) / len(shares)) ** 2 / len(noun) / len(nouns)
            else:
                mean, count = layer.mean(0), sum(len(noun) for noun, _ in nouns)
                for noun, mask in nouns:
                    for t in noun:
                        token += float((1 - (mean[t] * mask).sum() / mean[t].sum()) ** 2) / count
                        for cell, m in zip(mean[t].flatten(), mask.flatten(), strict=True):
                            pixel -= log(cell if m else 1 - cell) / 77 / mask.numel()
        if convention == "official":
            mean = sum(layer.mean(0) for layer in here) / len(here)
            for noun, mask in nouns:
                for cell, m in zip(sum(mean[t] for t in noun).flatten(), mask.flatten(), strict=True):
                    pixel -= log(cell if m else 1 - cell) / mask.numel() / len(nouns)
    return token, pixel


@pytest.mark.parametrize("convention", ["official", "paper"])
@pytest.mark.parametrize("seed", range(4))
def test_losses_agree_with_a_slow_version(convention, seed):
    """Random layers of several resolutions, nouns of several tokens that may share one, several items in a batch."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 4, 4), (3, 8, 6), (3, 8, 6)]
    items = [([[1, 2], [4]], 2), ([[3]], 1), ([[1], [1, 6], [5]], 3)]
    layers = [[torch.randn(k, 9, h, w, generator=generator).softmax(1) for k, h, w in shapes] for _ in items]
    masks = [(torch.rand(n, 24, 18, generator=generator) > 0.7).float() for _, n in items]
    wanted = noun_targets([tokens for tokens, _ in items], masks)
    stacked = [
        torch.stack([item[m][:, columns] for item, columns in zip(layers, wanted.columns, strict=True)])
        for m in range(len(shapes))
    ]
    found = grounding_losses(named(stacked), wanted, convention)
    for b, (tokens, _) in enumerate(items):
        token, pixel = slow(layers[b], tokens, masks[b], convention)
        assert found.token[b].item() == pytest.approx(token, rel=1e-4)
        assert found.pixel[b].item() == pytest.approx(pixel, rel=1e-4)


@pytest.mark.parametrize("convention", ["official", "paper"])
def test_a_loss_has_a_part_for_each_noun(convention):
    """As every loss on maps: (B, G), 0 for what an item does not have, and the item's loss is the sum."""
    torch.manual_seed(0)
    maps = {"a": torch.rand(2, 3, 2, 4, 4)}
    left = left_half(8, 8)
    wanted = noun_targets([[[3], [4]], [[4]]], [torch.cat([left, 1 - left]), left])
    both = grounding_losses(maps, wanted, convention)
    for loss, total in ((token_loss, both.token), (pixel_loss, both.pixel)):
        parts = loss(maps, wanted, convention)
        assert parts.shape == (2, 2) and (parts[0] > 0).all() and parts[1, 0] > 0 and parts[1, 1] == 0
        torch.testing.assert_close(parts.sum(1), total)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_summed_in_fp32(dtype):
    """A share of thousands of tiny values: in fp16 their sum would lose them."""
    maps = torch.full((1, 1, 64, 64), 2e-4).to(dtype)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :16] = 1
    token, pixel = one([maps], [[0]], mask)
    value = maps.flatten()[0].item()
    assert token == pytest.approx(0.75**2, rel=1e-5)
    assert pixel == pytest.approx(-(0.25 * log(value) + 0.75 * log(1 - value)), rel=1e-5)


def test_gradient_is_finite_where_attention_is_0_or_1():
    for convention in ("official", "paper"):
        maps = torch.tensor([[[[[0.0, 1.0], [0.0, 0.0]]]]], requires_grad=True)
        losses = grounding_losses(named([maps]), noun_targets([[[0]]], [left_half()]), convention)
        (losses.token + losses.pixel).sum().backward()
        assert maps.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["seed"])
def test_official_functions_own_results(case):
    rng, size = np.random.default_rng(case["seed"]), case["res"]
    layers = []
    for _ in range(case["layers"]):
        scores = rng.standard_normal((case["heads"], size, size, case["tokens"])).astype(np.float32) * 2
        layers.append(torch.from_numpy(scores).softmax(-1).permute(0, 3, 1, 2))
    masks = torch.zeros(len(case["noun_tokens"]), case["image"], case["image"])
    for mask, (y0, y1, x0, x1) in zip(masks, case["boxes_yyxx"], strict=True):
        mask[y0:y1, x0:x1] = 1
    token, pixel = one(layers, case["noun_tokens"], masks)
    assert token == pytest.approx(case["token_loss"], rel=1e-4)
    assert pixel == pytest.approx(case["pixel_loss"], rel=1e-4)
