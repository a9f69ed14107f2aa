"""Scenes as training examples of TokenCompose, and the bundled model as one that can be trained on them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import nn

from realcompo_core.text.tokens import phrase_tokens, token_groups
from shapescenes.drawing import draw
from shapescenes.world import Scene
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.lora import add_lora

TEXT_LAYERS = r"(q_proj|k_proj|v_proj|out_proj|fc1|fc2)$"


class RememberedLatents(DiffusersModel):
    """Encodes a picture once."""

    def __init__(self, pipeline: DiffusionPipeline):
        super().__init__(pipeline, checkpointing=False)
        self._latents: dict[str, torch.Tensor] = {}

    def encode(self, images, keys):
        for b, key in enumerate(keys):
            if key not in self._latents:
                self._latents[key] = super().encode(images[b : b + 1], [key])[0]
        mean = torch.cat([self._latents[key] for key in keys])
        return mean, torch.zeros_like(mean)


class WithTextEncoder(RememberedLatents):
    """The text encoder is trained too, by a LoRA on its attention and feed-forward layers."""

    def __init__(self, pipeline: DiffusionPipeline, rank: int):
        super().__init__(pipeline)
        add_lora(pipeline.text_encoder, rank, TEXT_LAYERS)
        self.network = nn.ModuleDict({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})

    def embed(self, captions, size):
        return {"captions": captions, "size": size}

    def predict(self, network, noisy, timesteps, conditioning):
        text = super().embed(**conditioning)
        return super().predict(network["unet"], noisy, timesteps, text)


def example(scene: Scene, tokenizer, seed: int, adjectives: bool) -> dict:
    """A rendered scene; objects that share words ("two red circles") are one noun."""
    picture = torch.from_numpy(draw(scene, "rendered", seed)).permute(2, 0, 1).float() / 127.5 - 1
    caption, layout = scene.prompt.caption, scene.layout
    phrases = [item.phrase for item in layout.objects]
    chunk = tokenizer.model_max_length
    found = phrase_tokens(tokenizer, caption, phrases, include_adjectives=adjectives, weights=False, chunk=chunk)
    groups = token_groups(found)
    objects = scene.masks()
    masks = torch.from_numpy(np.stack([objects[group.objects].any(0) for group in groups]))
    tokens = [group.tokens for group in groups]
    return {"image": picture, "caption": caption, "tokens": tokens, "masks": masks, "key": f"{seed} {caption}"}
