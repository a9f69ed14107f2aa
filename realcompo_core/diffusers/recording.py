"""Recording the attention of a diffusers UNet, in any pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..attention.maps import AttentionMaps, Keep, PromptWords
from ..attention.recorder import Recorder
from ..attention.source import AttentionEvent, NetworkPass
from ..errors import RealCompoError
from ..text.tokens import CHUNK, word_tokens
from .unet_attention import UNetAttention


@contextmanager
def record(
    unet: nn.Module,
    prompt: str | None = None,
    tokenizer: Callable | None = None,
    negative_prompt: str = "",
    *,
    conditionings: Sequence[str] = ("negative", "positive"),
    keep: Keep | None = None,
    steps: int = 0,
    name: str = "model",
) -> Iterator[AttentionMaps]:
    """Inside, the cross-attention of a diffusers UNet is recorded; each of its passes is a step.

        with record(pipe.unet, "a cat and a dog", pipe.tokenizer) as maps:
            image = pipe("a cat and a dog").images[0]
        maps.branch().word_maps([maps.branch().find("cat")])  # (1, 1, 64, 64)

    conditionings: in the order in which the pipeline joins them in a batch, ("positive",) without guidance. Tokens have
    numbers instead of words without a prompt and its tokenizer. steps: how many passes there will be; where it is not
    given, the limit of `keep` holds for each alone. Raises RealCompoError for a network without such layers.
    """
    texts = {"positive": prompt, "negative": negative_prompt if prompt is not None else None}
    prompts = {
        kind: None if texts[kind] is None or tokenizer is None else prompt_words(tokenizer, texts[kind])
        for kind in conditionings
    }
    recorder = Recorder(name, keep or Keep(), prompts)
    source = UNetAttention(unet)
    layers = recorder.kept(source.layers)
    running = NetworkPass((0, 0), tuple(conditionings))
    step, timestep = -1, 0.0

    def begin_pass(unet: nn.Module, args: tuple, kwargs: dict) -> None:
        nonlocal step, timestep
        given = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        sample, parts = given["sample"], len(conditionings)
        if len(sample) % parts:
            raise RealCompoError(
                f"a batch of {len(sample)} is not {' and '.join(conditionings)}: name the conditionings that the "
                'pipeline joins, ("positive",) without guidance'
            )
        step += 1
        timestep = float(torch.as_tensor(given["timestep"]).flatten()[0])
        size = tuple(sample.shape[-2:])
        if running.latent_size != size:
            running.latent_size = size
            recorder.begin(layers, size, given["encoder_hidden_states"].shape[1], len(sample) // parts, steps)

    def read(event: AttentionEvent) -> None:
        if recorder.wants(step):
            recorder.read(event)

    def end_pass(*_) -> None:
        recorder.end_pass(step, timestep)

    hooks = [
        unet.register_forward_pre_hook(begin_pass, with_kwargs=True),
        unet.register_forward_hook(end_pass),
    ]
    try:
        with source.emitting(read, running, layers):
            yield AttentionMaps([recorder.branch])
    finally:
        for hook in hooks:
            hook.remove()


def prompt_words(tokenizer: Callable, text: str) -> PromptWords:
    """The words that a pipeline's text encoder reads: the first sequence of its tokens, brackets as they are."""
    length = getattr(tokenizer, "model_max_length", CHUNK)
    words = word_tokens(tokenizer, text, weights=False, chunk=length)
    return PromptWords([(word, tokens) for word, tokens in words if tokens and tokens[-1] < length], length)
