"""TokenCompose's grounding losses: each noun token's cross-attention should fall on that noun's pixels.

Two conventions. `official` is what the authors' code computes, from which their published weights come; `paper` is the
equations of the paper (Wang et al. 2024) to the letter (docs/method.md, T1 and T2). Both take the attention columns of
the noun tokens only (see `supervision.py`), and are computed in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from realcompo_core.attention.losses import share_inside
from realcompo_core.attention.targets import Targets

Convention = Literal["official", "paper"]

LOG_OF_ZERO = -100.0  # as in torch's binary cross-entropy, which the official code uses


class MaskRegions:
    """The regions of masks (B, N, H, W) in 0..1, at the size of any map."""

    def __init__(self, masks: Tensor):
        self.masks = masks

    def __call__(self, height: int, width: int) -> Tensor:
        """(B, N, height, width), as the official code resizes masks."""
        return layer_masks(self.masks, (height, width))

    def to(self, device: torch.device | str) -> MaskRegions:
        return MaskRegions(self.masks.to(device))


class GroundingLosses(NamedTuple):
    """`token` and `pixel`: (B,) each, summed over the layers; 0 for an item without nouns."""

    token: Tensor
    pixel: Tensor


def noun_targets(tokens: Sequence[Sequence[Sequence[int]]], masks: Sequence[Tensor]) -> Targets:
    """The targets of one batch, whose regions are MaskRegions.

    tokens: for each item, each noun's token indices; masks: each item's (nouns, H, W).
    """
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
    return Targets(indices, members, MaskRegions(joined))


def grounding_losses(
    maps: Mapping[str, Tensor],
    targets: Targets,
    convention: Convention = "official",
    text_length: int = 77,
) -> GroundingLosses:
    """The token loss and the pixel loss of the total loss (docs/method.md, T3), of each item: sums over its nouns."""
    if not targets.members.any():
        zero = targets.members.new_zeros(len(targets.members))
        return GroundingLosses(zero, zero.clone())
    return GroundingLosses(
        token_loss(maps, targets, convention).sum(-1), pixel_loss(maps, targets, convention, text_length).sum(-1)
    )


def token_loss(maps: Mapping[str, Tensor], targets: Targets, convention: Convention = "official") -> Tensor:
    """(B, N): each noun's part of the token loss (T1), summed over the layers. A loss on maps, see `MapLoss`.

    maps: each layer's attention columns, (B, heads, C, h, w), as softmax over all text tokens gives them. A noun whose
    mask vanishes at a layer's resolution is left out there. official: 1/N Σ_nouns mean_tokens (1 − mean_heads share)²;
    paper: N counts tokens, and heads are averaged before the share is taken.
    """
    total = _zeros(targets)
    for size, layers in _by_size(maps):
        masks, members = _visible(targets, size, convention)
        nouns, tokens = members.any(-1), members.sum(-1)
        for layer in layers:
            if convention == "official":
                share = _shares(layer, masks).mean(1)
                per_noun = _ratio((members * (1 - share) ** 2).sum(-1), tokens)
                total = total + _ratio(per_noun, nouns.sum(-1, keepdim=True))
            else:
                share = _shares(layer.mean(1, keepdim=True), masks)[:, 0]
                per_noun = (members * (1 - share) ** 2).sum(-1)
                total = total + _ratio(per_noun, tokens.sum(-1, keepdim=True))
    return total


def pixel_loss(
    maps: Mapping[str, Tensor], targets: Targets, convention: Convention = "official", text_length: int = 77
) -> Tensor:
    """(B, N): each noun's part of the pixel loss (T2), a cross-entropy of its map with its mask. See `MapLoss`.

    official: a noun's map is the sum of its tokens' columns, averaged over the heads and over the layers of one
    resolution, and the loss the mean over nouns. paper: each noun token's map on its own, divided by all `text_length`
    tokens of the text; those without a mask have no term (docs/method.md, T2, says why).
    """
    total = _zeros(targets)
    for size, layers in _by_size(maps):
        masks, members = _visible(targets, size, convention)
        if convention == "official":
            mean = sum(layer.mean(1) for layer in layers) / len(layers)
            noun_maps = torch.einsum("bnc,bchw->bnhw", members, mean)
            entropy, nouns = -_cross_terms(noun_maps, masks).mean((-2, -1)), members.any(-1)
            total = total + _ratio(entropy * nouns, nouns.sum(-1, keepdim=True))
        else:
            for layer in layers:
                terms = _cross_terms(layer.mean(1)[:, None], masks[:, :, None]).mean((-2, -1))
                total = total - (members * terms).sum(-1) / text_length
    return total


@torch.no_grad()
def attention_share(maps: Mapping[str, Tensor], targets: Targets) -> tuple[Tensor, float]:
    """How much of the noun tokens' attention falls inside their masks: the sum of the items' means, and their number.

    A metric: heads are averaged first, then layers, tokens and nouns.
    """
    shares = []
    for size, layers in _by_size(maps):
        masks, members = _visible(targets, size, "official")
        for layer in layers:
            inside = (members * _shares(layer.mean(1, keepdim=True), masks)[:, 0]).sum((-2, -1))
            shares.append(_ratio(inside, members.sum((-2, -1))))
    if not shares:
        return targets.members.new_zeros(()), 0.0
    grounded = targets.present.any(-1)
    return (sum(shares) / len(shares))[grounded].sum(), float(grounded.sum())


def layer_masks(masks: Tensor, size: tuple[int, int], convention: Convention = "official") -> Tensor:
    """(B, N, H, W) masks at a layer's `size` (T4): bilinear, not antialiased; then > 0 (official) or >= 0.5 (paper)."""
    small = F.interpolate(masks.float(), size, mode="bilinear")
    return (small > 0 if convention == "official" else small >= 0.5).float()


def _by_size(maps: Mapping[str, Tensor]) -> list[tuple[tuple[int, int], list[Tensor]]]:
    """The layers' maps in fp32, those of one size together."""
    found: dict[tuple[int, int], list[Tensor]] = {}
    for layer in maps.values():
        found.setdefault(tuple(layer.shape[-2:]), []).append(layer.float())
    return list(found.items())


def _visible(targets: Targets, size: tuple[int, int], convention: Convention) -> tuple[Tensor, Tensor]:
    """Masks (B, N, h, w) at a layer's size, and the members of the nouns that are there."""
    masks = layer_masks(targets.regions.masks, size, convention)
    return masks, targets.members * masks.any(-1).any(-1)[..., None]


def _shares(maps: Tensor, masks: Tensor) -> Tensor:
    """(B, heads, N, C): how much of each column's attention falls inside each noun's mask."""
    return torch.stack([share_inside(maps, masks[:, n, None, None]) for n in range(masks.shape[1])], 2)


def _zeros(targets: Targets) -> Tensor:
    return targets.members.new_zeros(targets.members.shape[:2])


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
