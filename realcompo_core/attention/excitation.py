"""The losses of Attend-and-Excite (Chefer et al. 2023) and BoxDiff (Xie et al. 2023) on attention maps.

Both look at the same maps (`excited_maps`) and ask for strong attention somewhere, not for most of it; see
docs/method.md, R12. They need the columns of the whole text, over which the softmax goes (`Targets.among`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import mean_maps
from .targets import Targets

SHARPNESS = 100.0  # attention is multiplied by it before the softmax over the tokens
SIGMA = 0.5  # of the 3×3 Gaussian
TOP = 0.2  # share of the cells, inside or outside, whose mean counts in BoxDiff
EDGE = 1  # cells on either side of a box's edge in which BoxDiff compares projections


def excited_maps(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, G, h, w) in 0..1: where each object's words win over the text's other words, smoothed; 0 for no object.

    The mean over layers and heads, sharpened by a softmax over the columns of `targets`; an object's map is the mean
    over its tokens. Each map is smoothed by a 3×3 Gaussian exp(−((x − μ) / 2σ)²) with reflected borders.
    """
    won = (SHARPNESS * mean_maps([layer.mean(1) for layer in maps.values()])).softmax(1)
    weights = targets.members / targets.members.sum(-1, keepdim=True).clamp_min(1)
    words = torch.einsum("bgt,bthw->bghw", weights.to(won).expand(len(won), -1, -1), won)
    B, G = words.shape[:2]
    padded = F.pad(words, (1, 1, 1, 1), mode="reflect" if min(words.shape[-2:]) > 1 else "replicate")
    return F.conv2d(padded.reshape(B * G, 1, *padded.shape[-2:]), _gaussian().to(words)).unflatten(0, (B, G))[:, :, 0]


def attend_and_excite_loss(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, G): 1 − max A for the object that is attended to least, and 0 for the others. See `MapLoss`."""
    words = excited_maps(maps, targets)
    neglect = (1 - words.amax((-2, -1))) * targets.present.to(words)
    worst = F.one_hot(neglect.argmax(1), neglect.shape[1])
    return neglect * worst


def boxdiff_loss(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, 2·G): each object's inner term, then each one's outer and corner terms. See `MapLoss`.

    Inner: 1 − the mean of the largest fifth of the cells inside of the region. Outer: the mean of the largest fifth
    outside. Corner: for rows and columns the mean over all of |projection of the map − projection of the region|, where
    both are maxima, counted within one cell of the region's edges.
    """
    words = excited_maps(maps, targets)
    inside = _cells(targets.regions(*words.shape[-2:]).to(words)).expand_as(words)
    present = targets.present.to(words)
    inner = 1 - _mean_of_largest(words, inside)
    outer = _mean_of_largest(words, 1 - inside)
    corner = sum(_edge_difference(words.amax(side), inside.amax(side)) for side in (-2, -1))
    return torch.cat([inner * present, (outer + corner) * present], 1)


@cache
def _gaussian() -> Tensor:
    taps = torch.exp(-((torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / (2 * SIGMA)) ** 2))
    kernel = taps[:, None] * taps
    return (kernel / kernel.sum())[None, None]


def _cells(regions: Tensor) -> Tensor:
    """Regions as cells, 0 or 1: those at least half covered; for a small region the one that is covered most."""
    most = regions.amax((-2, -1), keepdim=True)
    return ((regions >= 0.5) | ((regions == most) & (most > 0))).to(regions)


def _mean_of_largest(words: Tensor, cells: Tensor) -> Tensor:
    """(B, G): the mean of the largest fifth of the values in `cells`, of one at least; 0 where there is no cell."""
    count = (TOP * cells.sum((-2, -1))).floor().clamp_min(1)
    ranked = words.masked_fill(cells == 0, 0).flatten(-2).sort(-1, descending=True).values
    counted = torch.arange(ranked.shape[-1], device=ranked.device) < count[..., None]
    return (ranked * counted).sum(-1) / count


def _edge_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """(B, G), of projections (B, G, n): the mean over n of their difference near the edges of `wanted`."""
    edges = F.pad(wanted, (1, 1)).diff(dim=-1).abs()
    near = F.max_pool1d(edges, 2 * EDGE + 1, stride=1, padding=EDGE)[..., : wanted.shape[-1]]
    return ((found - wanted).abs() * near).mean(-1)
