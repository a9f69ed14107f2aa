"""A diffusers pipeline (SD1.x, SD2.x, SDXL) as a model that can be trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from realcompo_core.diffusers.latents import encode
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.diffusers.text_conditioning import text_conditioning
from realcompo_core.diffusers.unet_attention import UNetAttention

from .identity import model_fingerprint


class DiffusersModel:
    """`TrainableModel` of a pipeline. Its UNet is trained in place; autoencoder and text encoders are frozen.

    The supervised layers are the cross-attention of the middle block and the decoder. Captions are cut off after one
    sequence of the text encoder. `checkpointing` recomputes activations in the backward pass.
    """

    def __init__(self, pipeline: DiffusionPipeline, checkpointing: bool = True):
        self.pipeline, self.network = pipeline, pipeline.unet
        frozen = [pipeline.vae, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
        for module in filter(None, frozen):
            module.requires_grad_(False).eval()
        if checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        schedule = NoiseSchedule(pipeline.scheduler)
        self.alphas, self.parametrisation = torch.from_numpy(schedule.alphas).float(), schedule.parametrisation
        self.text_length = pipeline.tokenizer.model_max_length
        self.attention = UNetAttention(pipeline.unet)

    def encode(self, images: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        return encode(self.pipeline, images)

    def embed(self, captions: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
        return text_conditioning(self.pipeline, captions, 1, size)

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        return network(noisy, timesteps, **conditioning, return_dict=False)[0]


def pipeline_fingerprint(pipeline: DiffusionPipeline) -> str:
    """`model_fingerprint` of UNet, autoencoder and text encoders, which must be as they were loaded (no LoRA)."""

    def weights() -> Iterator[tuple[str, Tensor]]:
        for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            module = getattr(pipeline, name, None)
            if module is not None:
                yield from ((f"{name}.{weight}", value) for weight, value in module.named_parameters())
        yield "vae.scaling_factor", torch.tensor([pipeline.vae.config.scaling_factor])

    return model_fingerprint(weights())
