"""How well attention maps ground their words: share inside the mask, and mIoU of the thresholded map (DAAM)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from realcompo_core.attention.grounding_metrics import attention_iou
from realcompo_core.attention.targets import Targets

from .losses import attention_share


@torch.no_grad()
def grounding_metrics(maps: Mapping[str, Tensor], targets: Targets) -> dict[str, tuple[float, float]]:
    """`share` and `miou`, each also by the side of the maps (`miou/16`): sums over a batch, and the numbers of terms.

    maps: as `SupervisedAttention` gives them. Shares are means over an item's nouns, summed over items with nouns; IoUs
    are those of each noun's map (heads, tokens and layers of one size averaged; `miou`: all layers) with its mask.
    """
    by_side: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, layer in maps.items():
        by_side["/" + str(min(layer.shape[-2:]))][name] = layer
    found = {}
    for suffix, layers in {**by_side, "": dict(maps)}.items():
        total, count = attention_share(layers, targets)
        found["share" + suffix] = float(total), count
        ious = attention_iou(noun_maps(layers, targets), targets.regions.masks)[targets.present]
        found["miou" + suffix] = float(ious.sum()), float(len(ious))
    return found


def noun_maps(layers: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, N, H, W) at the masks' size: the mean over layers, heads and the noun's tokens; 0 beyond an item's nouns."""
    size = targets.regions.masks.shape[-2:]
    weights = targets.members / targets.members.sum(-1, keepdim=True).clamp_min(1)
    means = (torch.einsum("bnc,bchw->bnhw", weights, layer.float().mean(1)) for layer in layers.values())
    return sum(F.interpolate(mean, size, mode="bilinear") for mean in means) / max(len(layers), 1)
