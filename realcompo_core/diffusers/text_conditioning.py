"""Prompts as a UNet's text arguments, and where a layout's objects are in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ..layout import Layout
from ..text.tokens import TokenGroup, phrase_tokens, token_groups


def phrase_groups(
    pipeline: DiffusionPipeline, prompt: str, layout: Layout, include_adjectives: bool
) -> tuple[list[TokenGroup], list[str]]:
    """The layout's token groups in this pipeline's tokens, and a phrase for each."""
    phrases = [item.phrase for item in layout.objects]
    chunk = pipeline.tokenizer.model_max_length
    tokens = phrase_tokens(
        pipeline.tokenizer, prompt, phrases, include_adjectives=include_adjectives, weights=False, chunk=chunk
    )
    groups = token_groups(tokens)
    return groups, [phrases[group.objects[0]] for group in groups]


def text_encoders(pipeline: DiffusionPipeline) -> list[tuple[Any, nn.Module]]:
    """Each text encoder with its tokenizer: one for SD1.x and SD2.x, two for SDXL."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]


def count_chunks(pipeline: DiffusionPipeline, text: str) -> int:
    """How many sequences of the text encoder's length the text fills."""
    tokenizer = text_encoders(pipeline)[0][0]
    length = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return max(1, -(-length // (tokenizer.model_max_length - 2)))


def text_conditioning(
    pipeline: DiffusionPipeline, texts: Sequence[str | None], chunks: int, size: tuple[int, int]
) -> dict[str, Any]:
    """The UNet's text arguments for B texts; long ones are encoded in `chunks` sequences, one after the other.

    None is an absent negative prompt: the empty text, or zeros for models (SDXL) that were trained so. size: height and
    width of the picture.
    """
    parts, pooled = [], None
    encoders = text_encoders(pipeline)
    is_sdxl = hasattr(pipeline, "text_encoder_2")
    for tokenizer, encoder in encoders:
        ids = torch.tensor([_chunk_ids(tokenizer, text or "", chunks) for text in texts], device=encoder.device)
        output = encoder(ids.flatten(0, 1), output_hidden_states=is_sdxl)
        hidden = output.hidden_states[-2] if is_sdxl else output[0]
        parts.append(hidden.reshape(len(texts), -1, hidden.shape[-1]))
        if is_sdxl:
            pooled = output[0].unflatten(0, (len(texts), chunks))[:, 0]
    result: dict[str, Any] = {"encoder_hidden_states": torch.cat(parts, -1).to(pipeline.unet.dtype)}
    if is_sdxl:
        pooled = pooled.to(pipeline.unet.dtype)
        if pipeline.config.force_zeros_for_empty_prompt:
            absent = [b for b, text in enumerate(texts) if text is None]
            result["encoder_hidden_states"][absent] = 0
            pooled[absent] = 0
        time_ids = torch.tensor([[*size, 0, 0, *size]] * len(texts)).to(pooled)
        result["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": time_ids}
    return result


def _chunk_ids(tokenizer: Any, text: str, chunks: int) -> list[list[int]]:
    """`chunks` rows of token ids, each BOS, text, EOS, padding."""
    length = tokenizer.model_max_length
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = []
    for i in range(chunks):
        row = [tokenizer.bos_token_id, *ids[i * (length - 2) : (i + 1) * (length - 2)], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return rows
