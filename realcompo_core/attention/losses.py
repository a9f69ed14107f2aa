"""Losses on attention maps.

A loss is a function of the maps of each layer and head and of the targets; the averaging over heads and layers is its
own. The grounding loss is RealCompo's (docs/method.md, R5). TokenCompose's are in `tokencompose_core/losses.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .source import Layer
from .targets import Targets


class MapLoss(Protocol):
    """A loss on attention maps."""

    def __call__(self, maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """maps: by the layer's name, (B, heads, C, h, w), the columns of `targets`.

        Returns (B, G), each object's part of the loss, or (B, n·G), n parts of each. An item's loss is their sum; 0 for
        an object that is not there.
        """


def share_inside(maps: Tensor, regions: Tensor) -> Tensor:
    """The share of each map's sum that lies in its region; (..., H, W) each, regions in 0..1. 0 for an empty map."""
    total = maps.sum((-2, -1))
    return (maps * regions).sum((-2, -1)) / total.clamp_min(torch.finfo(total.dtype).tiny)


def mean_maps(layers: Sequence[Tensor]) -> Tensor:
    """The mean of several layers' maps, (B, T, H, W) each. Those of unlike resolution are brought to the finest one."""
    size = max((layer.shape[-2:] for layer in layers), key=lambda s: s[0] * s[1])
    return sum(m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear") for m in layers) / len(layers)


def token_maps(layers: Sequence[Tensor]) -> Tensor:
    """`mean_maps`, each token's scaled to sum to 1 over the pixels; 0 where it is 0 everywhere."""
    mean = mean_maps(layers)
    return mean / mean.sum((-2, -1), keepdim=True).clamp_min(torch.finfo(mean.dtype).tiny)


def object_maps(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, G, H, W): each object's map (R4), the mean over heads, layers and its tokens; 0 for no object."""
    tokens = token_maps([layer.mean(1) for layer in maps.values()])
    weights = targets.members / targets.members.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("bgt,bthw->bghw", weights.to(tokens).expand(len(tokens), -1, -1), tokens)


def grounding_loss(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, G): the share of each object's attention outside its region (R5), in 0..1."""
    found = object_maps(maps, targets)
    regions = targets.regions(*found.shape[-2:]).to(found)
    return (1 - share_inside(found, regions)) * targets.present.to(found.device)


def layout_guidance_loss(maps: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B, G): Layout Guidance's loss (R9), in 0..1 for all objects of an item together.

    For each layer and each of an object's tokens the mean over the heads of (1 − share inside)²; the mean over the
    tokens; summed over layers and objects, divided by the number of both.
    """
    objects = targets.present.to(torch.float32).sum(-1, keepdim=True).clamp_min(1)
    tokens = targets.members / targets.members.sum(-1, keepdim=True).clamp_min(1)
    total: Tensor | float = 0.0
    for found in maps.values():
        regions = targets.regions(*found.shape[-2:]).to(found)[:, None, :, None]  # (B, 1, G, 1, h, w)
        outside = (1 - share_inside(found[:, :, None], regions)).square().mean(1)  # (B, G, C)
        total = total + (outside * tokens.to(found)).sum(-1)
    return total / (len(maps) * objects.to(total.device))


@dataclass(frozen=True)
class Objective:
    """What is asked of a branch's maps: which layers are read, which tokens should be where, and the loss on it.

    whole_text: the loss is given the maps of all of the text's tokens, as targets among them (`Targets.among`).
    """

    layers: Sequence[Layer]
    targets: Targets
    loss: MapLoss = grounding_loss
    whole_text: bool = False
