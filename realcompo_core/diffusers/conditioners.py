"""Conditioners, which make a branch follow a layout: each adds the layout to the arguments of its UNet.

GLIGEN is here. A new one is a class with `fits`, a constructor and a call, and a place in CONDITIONERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention import GatedSelfAttentionDense
from torch import Tensor, nn

from ..layout import MAX_OBJECTS, Layout


class Conditioner(Protocol):
    """Made once for the B layouts of a run."""

    @staticmethod
    def fits(pipeline: DiffusionPipeline) -> bool:
        """Whether this pipeline takes this kind of conditioning."""

    def __init__(
        self, pipeline: DiffusionPipeline, layouts: Sequence[Layout], beta: float, sigmas: Sequence[float]
    ): ...

    def __call__(self, conditionings: Sequence[str], sigma: float) -> dict[str, Any]:
        """Keyword arguments of the UNet at noise level sigma, for B items of each of `conditionings` in a batch."""


class Gligen:
    """GLIGEN's gated layers (Li et al. 2023): phrases and boxes for the positive conditioning, none for the negative.

    beta: the share of the steps, from the start, in which the gates are open.
    """

    def __init__(self, pipeline: DiffusionPipeline, layouts: Sequence[Layout], beta: float, sigmas: Sequence[float]):
        open_gates(pipeline.unet)
        unet = pipeline.unet
        tokens = gligen_tokens(pipeline.tokenizer, pipeline.text_encoder, layouts)
        objects = {key: value.to(unet.device, unet.dtype) for key, value in tokens.items()}
        nothing = objects | {"masks": torch.zeros_like(objects["masks"])}
        self._objects = {"positive": objects, "negative": nothing}
        self._closed_below = sigmas[int(beta * (len(sigmas) - 1))]

    @staticmethod
    def fits(pipeline: DiffusionPipeline) -> bool:
        return hasattr(pipeline.unet, "position_net")

    def __call__(self, conditionings: Sequence[str], sigma: float) -> dict[str, Any]:
        if sigma <= self._closed_below:
            return {}
        parts = [self._objects[conditioning] for conditioning in conditionings]
        return {"cross_attention_kwargs": {"gligen": {key: torch.cat([p[key] for p in parts]) for key in parts[0]}}}


CONDITIONERS: tuple[type[Conditioner], ...] = (Gligen,)


def conditioners(
    pipeline: DiffusionPipeline, layouts: Sequence[Layout], beta: float, sigmas: Sequence[float]
) -> list[Conditioner]:
    """The conditioners that fit the pipeline; none for a text-to-image model."""
    return [kind(pipeline, layouts, beta, sigmas) for kind in CONDITIONERS if kind.fits(pipeline)]


def open_gates(unet: nn.Module) -> None:
    """diffusers' own GLIGEN pipeline closes the gates after its β and leaves them closed."""
    for module in unet.modules():
        if isinstance(module, GatedSelfAttentionDense):
            module.enabled = True


def gligen_tokens(tokenizer: Any, text_encoder: nn.Module, layouts: Sequence[Layout]) -> dict[str, Tensor]:
    """Inputs of GLIGEN's position net: boxes (B, 30, 4), masks (B, 30), positive_embeddings (B, 30, width)."""
    width = text_encoder.config.hidden_size
    boxes = torch.zeros(len(layouts), MAX_OBJECTS, 4)
    masks, embeddings = torch.zeros(len(layouts), MAX_OBJECTS), torch.zeros(len(layouts), MAX_OBJECTS, width)
    for b, layout in enumerate(layouts):
        if n := len(layout.objects):
            phrases = [item.phrase for item in layout.objects]
            ids = tokenizer(phrases, padding=True, truncation=True, return_tensors="pt").input_ids
            embeddings[b, :n] = text_encoder(ids.to(text_encoder.device)).pooler_output.float().cpu()
            boxes[b, :n] = torch.tensor([item.box for item in layout.objects])
            masks[b, :n] = 1
    return {"boxes": boxes, "masks": masks, "positive_embeddings": embeddings}
