"""TokenCompose's grounding losses: each noun token's cross-attention should fall on that noun's pixels.

Two conventions. `official` is what the authors' code computes, from which their published weights come; `paper` is
equations 5 and 6 to the letter. Both take the attention columns of the noun tokens only (see `recording.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Convention = Literal["official", "paper"]

LOG_OF_ZERO = -100.0  # as in torch's binary cross-entropy, which the official code uses


class Targets(NamedTuple):
    """Where the attention of a batch's nouns should fall: B items, at most N nouns and C noun tokens each.

    `columns`: (B, C) token indices, 0 beyond an item's own. `members`: (B, N, C), 1 where a column is one of the noun's
    tokens. `masks`: (B, N, H, W) in 0..1. Where an item has fewer nouns, the rest of its rows are 0.
    """

    columns: Tensor
    members: Tensor
    masks: Tensor

    def to(self, device: torch.device | str) -> Targets:
        return Targets(*(tensor.to(device) for tensor in self))


class GroundingLosses(NamedTuple):
    """`token` and `pixel`: (B,) each, summed over the layers; 0 for an item without nouns."""

    token: Tensor
    pixel: Tensor


def targets(tokens: Sequence[Sequence[Sequence[int]]], masks: Sequence[Tensor]) -> Targets:
    """One batch. tokens: for each item, each noun's token indices; masks: each item's (nouns, H, W)."""
    columns = [sorted({t for noun in item for t in noun}) for item in tokens]
    B, N, C = len(tokens), max(map(len, tokens), default=0), max(map(len, columns), default=0)
    indices = torch.zeros(B, C, dtype=torch.long)
    members = torch.zeros(B, N, C)
    joined = torch.zeros(B, N, *masks[0].shape[-2:])
    for b, item in enumerate(tokens):
        indices[b, : len(columns[b])] = torch.tensor(columns[b], dtype=torch.long)
        joined[b, : len(item)] = masks[b].float()
        for n, noun in enumerate(item):
            members[b, n, [columns[b].index(t) for t in noun]] = 1
    return Targets(indices, members, joined)


def grounding_losses(
    maps: Mapping[str, Tensor] | Sequence[Tensor],
    targets: Targets,
    convention: Convention = "official",
    text_length: int = 77,
) -> GroundingLosses:
    """Both losses of equation 7, summed over the layers, for each item.

    maps: each layer's attention columns, (B, heads, C, h, w), as softmax over all text tokens gives them; `text_length`
    is the number of those. Everything is computed in fp32. A noun whose mask vanishes at a layer's resolution is left
    out there.
    """
    layers = [m.float() for m in (maps.values() if isinstance(maps, Mapping) else maps)]
    zero = targets.members.new_zeros(len(targets.members))
    if not targets.members.any():
        return GroundingLosses(zero, zero.clone())
    token, pixel = zero, zero
    for size in dict.fromkeys(layer.shape[-2:] for layer in layers):
        here = [layer for layer in layers if layer.shape[-2:] == size]
        masks = layer_masks(targets.masks, size, convention)
        members = targets.members * masks.any(-1).any(-1)[..., None]
        if convention == "official":
            token = token + sum(token_loss(layer, masks, members) for layer in here)
            pixel = pixel + pixel_loss(sum(layer.mean(1) for layer in here) / len(here), masks, members)
        else:
            token = token + sum(paper_token_loss(layer, masks, members) for layer in here)
            pixel = pixel + sum(paper_pixel_loss(layer, masks, members, text_length) for layer in here)
    return GroundingLosses(token, pixel)


@torch.no_grad()
def attention_share(maps: Mapping[str, Tensor], targets: Targets) -> tuple[Tensor, float]:
    """How much of the noun tokens' attention falls inside their masks: the sum of the items' means, and their number.

    A metric: heads are averaged first, then layers, tokens and nouns.
    """
    shares = []
    for layer in maps.values():
        masks = layer_masks(targets.masks, layer.shape[-2:])
        members = targets.members * masks.any(-1).any(-1)[..., None]
        inside = (members * _share_inside(layer.float().mean(1, keepdim=True), masks)[:, 0]).sum((-2, -1))
        shares.append(_ratio(inside, members.sum((-2, -1))))
    if not shares:
        return targets.members.new_zeros(()), 0.0
    grounded = targets.members.any(-1).any(-1)
    return (sum(shares) / len(shares))[grounded].sum(), float(grounded.sum())


def layer_masks(masks: Tensor, size: tuple[int, int], convention: Convention = "official") -> Tensor:
    """(B, N, H, W) masks at a layer's `size`: bilinear, not antialiased; then above 0 (official) or at least half."""
    small = F.interpolate(masks.float(), size, mode="bilinear")
    return (small > 0 if convention == "official" else small >= 0.5).float()


def token_loss(maps: Tensor, masks: Tensor, members: Tensor) -> Tensor:
    """The official token loss of one layer, (B,): 1/N Σ_nouns mean_tokens (1 − mean_heads share inside)².

    maps: (B, heads, C, h, w); masks: (B, N, h, w); members: (B, N, C), a noun that is left out having no columns.
    """
    share = _share_inside(maps, masks).mean(1)
    per_noun = _ratio((members * (1 - share) ** 2).sum(-1), members.sum(-1))
    return _ratio(per_noun.sum(-1), members.any(-1).sum(-1))


def pixel_loss(mean: Tensor, masks: Tensor, members: Tensor) -> Tensor:
    """The official pixel loss of one resolution, (B,): mean over nouns of the cross-entropy of the noun's map.

    mean: (B, C, h, w), the average over heads and over the layers of this resolution. A noun's map is the sum of its
    tokens' columns.
    """
    noun_maps = torch.einsum("bnc,bchw->bnhw", members, mean)
    entropy = -_cross_terms(noun_maps, masks).mean((-2, -1))
    used = members.any(-1)
    return _ratio((entropy * used).sum(-1), used.sum(-1))


def paper_token_loss(maps: Tensor, masks: Tensor, members: Tensor) -> Tensor:
    """Equation 5, (B,): N counts tokens, and heads are averaged before the share is taken."""
    share = _share_inside(maps.mean(1, keepdim=True), masks)[:, 0]
    return _ratio((members * (1 - share) ** 2).sum((-2, -1)), members.sum((-2, -1)))


def paper_pixel_loss(maps: Tensor, masks: Tensor, members: Tensor, text_length: int) -> Tensor:
    """Equation 6, (B,): each noun token's map on its own; only nouns have a mask, and all tokens are counted."""
    terms = _cross_terms(maps.mean(1)[:, None], masks[:, :, None]).mean((-2, -1))
    return -(members * terms).sum((-2, -1)) / text_length


def _share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """(B, heads, N, C): how much of each column's attention falls inside each noun's mask."""
    inside = torch.einsum("bkchw,bnhw->bknc", maps, masks)
    return inside / maps.sum((-2, -1))[:, :, None].clamp_min(torch.finfo(maps.dtype).tiny)


def _cross_terms(maps: Tensor, masks: Tensor) -> Tensor:
    """M log A + (1 − M) log(1 − A). A sum of columns may pass 1 by rounding."""
    maps = maps.clamp(0, 1)
    return masks * _log(maps) + (1 - masks) * _log(1 - maps)


def _log(x: Tensor) -> Tensor:
    """log x without a gradient where x is 0."""
    return torch.where(x > 0, x.clamp_min(torch.finfo(x.dtype).tiny).log(), LOG_OF_ZERO)


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """total / count, 0 where nothing was counted."""
    return total / count.clamp_min(1)
