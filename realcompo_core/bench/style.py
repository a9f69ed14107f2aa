"""How far pictures are from a style: Gram matrices of features, or one feature of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """(C, H, W) to (C, C): the channels' inner products by the number of places (Gatys et al. 2016, eq. 3)."""
    flat = features.flatten(1)
    return flat @ flat.T / flat.shape[1]


def gram_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The mean over layers of |G1 - G2| / |G2|, Frobenius norms of Gram matrices; 0 for the same style.

    one, other: a matrix a layer, (C, C) each. `other` is what the distance is measured by.
    """
    tiny = torch.finfo(torch.float32).tiny
    ratios = [
        (torch.linalg.norm(a - b) / torch.linalg.norm(b).clamp_min(tiny)).item()
        for a, b in zip(one, other, strict=True)
    ]
    return sum(ratios) / len(ratios)


def cosine_distance(one: Tensor, other: Tensor) -> float:
    """1 - cosine of two feature vectors, (D,)."""
    return 1 - torch.nn.functional.cosine_similarity(one, other, dim=-1).item()
