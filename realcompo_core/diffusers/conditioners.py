"""Conditioners, which make a branch follow a layout: each adds to the arguments of its UNet.

GLIGEN is here, ControlNets are in `controlnet.py`. A new one is a class with `fits`, a constructor and a call (see
`request.Conditioner`), and a place in CONDITIONERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention import GatedSelfAttentionDense
from torch import Tensor, nn

from ..layout import MAX_OBJECTS, Layout
from .controlnet import ControlNets
from .denoisers import network_of
from .request import Conditioner, Control, Request, UNetPass


class Gligen:
    """GLIGEN's gated layers (Li et al. 2023): phrases and boxes for the positive conditioning, and for its parts.

    beta is the share of the steps, from the start, in which the gates are open.
    """

    networks = ()

    def __init__(self, pipeline: DiffusionPipeline, request: Request, controls: Sequence[Control]):
        open_gates(pipeline.unet)
        unet = pipeline.unet
        tokens = gligen_tokens(pipeline.tokenizer, pipeline.text_encoder, request.layouts)
        self._objects = {key: value.to(unet.device, unet.dtype) for key, value in tokens.items()}
        self._nothing = self._objects | {"masks": torch.zeros_like(self._objects["masks"])}
        self._closed_below = request.sigmas[int(request.beta * (len(request.sigmas) - 1))]

    @staticmethod
    def fits(pipeline: DiffusionPipeline) -> bool:
        return hasattr(network_of(pipeline), "position_net")

    def __call__(self, run: UNetPass) -> dict[str, Any]:
        if run.sigma <= self._closed_below:
            return {}
        parts = [
            self._objects if name.startswith(("positive", "part")) else self._nothing for name in run.conditionings
        ]
        return {"cross_attention_kwargs": {"gligen": {key: torch.cat([p[key] for p in parts]) for key in parts[0]}}}


CONDITIONERS = (Gligen, ControlNets)


def conditioners(pipeline: DiffusionPipeline, request: Request, controls: Sequence[Control]) -> list[Conditioner]:
    """The conditioners that fit the pipeline; none for a text-to-image model. controls: one for each ControlNet."""
    return [kind(pipeline, request, controls) for kind in CONDITIONERS if kind.fits(pipeline)]


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
