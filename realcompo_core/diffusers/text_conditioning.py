"""Prompts as a UNet's text arguments, and where a layout's objects are in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxPipeline, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn

from ..layout import Layout
from ..text.tokens import TokenGroup, phrase_tokens, token_groups
from .denoisers import network_of

JOINT = (StableDiffusion3Pipeline, FluxPipeline)
FLUX_TOKENS, SD3_TOKENS = 512, 256  # that T5 reads, its end included


def phrase_groups(
    pipeline: DiffusionPipeline, prompt: str, layout: Layout, include_adjectives: bool
) -> tuple[list[TokenGroup], list[str]]:
    """The layout's token groups in this pipeline's tokens, and a phrase for each.

    Of SD3's text, which is that of CLIP and then that of T5, an object has the tokens of both; of Flux's, T5's.
    """
    phrases = [item.phrase for item in layout.objects]
    found: list[list[list[int]]] = []
    for tokenizer, chunk, start, chunked in _streams(pipeline):
        own = phrase_tokens(
            tokenizer,
            prompt,
            phrases,
            include_adjectives=include_adjectives,
            weights=False,
            chunk=chunk,
            chunked=chunked,
        )
        found.append([[start + token for token in tokens] for tokens in own])
    groups = token_groups([sorted(chain.from_iterable(tokens)) for tokens in zip(*found, strict=True)])
    return groups, [phrases[group.objects[0]] for group in groups]


def _streams(pipeline: DiffusionPipeline) -> list[tuple[Any, int, int, bool]]:
    """Tokenizers of the texts that a network reads one behind the other.

    With each: the length of its sequence, what is to be added to its token indices, and whether a long prompt is
    encoded in several sequences.
    """
    if isinstance(pipeline, FluxPipeline):
        return [(pipeline.tokenizer_2, FLUX_TOKENS + 1, -1, False)]  # no token stands before T5's first
    if isinstance(pipeline, StableDiffusion3Pipeline):
        clip = pipeline.tokenizer_max_length
        streams = [(pipeline.tokenizer, clip, 0, False)]
        return streams + ([(pipeline.tokenizer_3, SD3_TOKENS + 1, clip - 1, False)] if pipeline.text_encoder_3 else [])
    return [(pipeline.tokenizer, pipeline.tokenizer.model_max_length, 0, True)]


def text_encoders(pipeline: DiffusionPipeline) -> list[tuple[Any, nn.Module]]:
    """Each text encoder with its tokenizer: one for SD1.x and SD2.x, two for SDXL."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]


def count_chunks(pipeline: DiffusionPipeline, text: str) -> int:
    """How many sequences of the text encoder's length the text fills; SD3 and Flux read one of each encoder."""
    if isinstance(pipeline, JOINT):
        return 1
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
    if isinstance(pipeline, JOINT):
        embeds, pooled = _joint_text(pipeline, [text or "" for text in texts])
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}
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
    network = network_of(pipeline)
    result: dict[str, Any] = {"encoder_hidden_states": torch.cat(parts, -1).to(network.dtype)}
    if isinstance(network, SD3Transformer2DModel):  # with one text encoder of its own
        result["pooled_projections"] = output[1].unflatten(0, (len(texts), chunks))[:, 0].to(network.dtype)
    if is_sdxl:
        pooled = pooled.to(network.dtype)
        if pipeline.config.force_zeros_for_empty_prompt:
            absent = [b for b, text in enumerate(texts) if text is None]
            result["encoder_hidden_states"][absent] = 0
            pooled[absent] = 0
        time_ids = torch.tensor([[*size, 0, 0, *size]] * len(texts)).to(pooled)
        result["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": time_ids}
    return result


def _joint_text(pipeline: DiffusionPipeline, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, d) and pooled (B, width), as the pipeline itself encodes texts."""
    if isinstance(pipeline, FluxPipeline):
        embeds, pooled, _ = pipeline.encode_prompt(texts, None, max_sequence_length=FLUX_TOKENS)
    else:
        given = {"do_classifier_free_guidance": False, "max_sequence_length": SD3_TOKENS}
        embeds, _, pooled, _ = pipeline.encode_prompt(texts, None, None, **given)
    dtype = pipeline.transformer.dtype
    return embeds.to(dtype), pooled.to(dtype)


def _chunk_ids(tokenizer: Any, text: str, chunks: int) -> list[list[int]]:
    """`chunks` rows of token ids, each BOS, text, EOS, padding."""
    length = tokenizer.model_max_length
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = []
    for i in range(chunks):
        row = [tokenizer.bos_token_id, *ids[i * (length - 2) : (i + 1) * (length - 2)], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return rows
