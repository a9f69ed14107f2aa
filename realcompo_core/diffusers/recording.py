"""Recording the attention of a diffusers UNet, in any pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attention.maps import AttentionMaps, Keep, MapLayer, PromptWords
from ..attention.recorder import Recorder
from ..errors import RealCompoError
from ..text.tokens import CHUNK, word_tokens

_PLACE = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2")
_ORDER = ("down", "mid", "up")


class CrossAttention(NamedTuple):
    """A cross-attention module of a diffusers UNet. `factor`: how many times smaller than the latent its maps are."""

    name: str
    module: nn.Module
    part: str
    block: str
    depth: int
    factor: int


def cross_attention(unet: nn.Module) -> list[CrossAttention]:
    """In the order in which they run; none for a network that is built in another way."""
    found = []
    for name, module in unet.named_modules():
        place = _PLACE.fullmatch(name)
        if place:
            part, level, number, depth = place.groups()
            deepest = len(unet.config.block_out_channels) - 1
            halvings = {"down": int(level or 0), "mid": deepest, "up": deepest - int(level or 0)}[part]
            block = part if part == "mid" else f"{part} {level}.{number}"
            found.append(CrossAttention(name, module, part, block, int(depth), 2**halvings))
    return sorted(found, key=lambda layer: _ORDER.index(layer.part))


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
    keep = keep or Keep()
    layers = [layer for layer in cross_attention(unet) if keep.layers != "decoder" or layer.part != "down"]
    if not layers:
        raise RealCompoError(f"{type(unet).__name__} has no cross-attention layers by the names of a diffusers UNet")
    names = {layer.name: f"{layer.block}.{layer.depth}" if keep.layers == "layers" else layer.block for layer in layers}
    texts = {"positive": prompt, "negative": negative_prompt if prompt is not None else None}
    prompts = {
        kind: None if texts[kind] is None or tokenizer is None else prompt_words(tokenizer, texts[kind])
        for kind in conditionings
    }
    recorder = Recorder(name, keep, prompts)
    taking = _Taking(recorder, tuple(conditionings), layers, names, steps)
    hooks = [
        unet.register_forward_pre_hook(taking.begin_pass, with_kwargs=True),
        unet.register_forward_hook(taking.end_pass),
    ]
    for layer in layers:
        hooks.append(layer.module.to_q.register_forward_hook(partial(taking.query, layer)))
        hooks.append(layer.module.to_k.register_forward_hook(partial(taking.key, layer)))
    try:
        yield AttentionMaps([recorder.branch])
    finally:
        for hook in hooks:
            hook.remove()


class _Taking:
    """What the hooks of one recording do."""

    def __init__(self, recorder: Recorder, conditionings: tuple[str, ...], layers, names: dict, steps: int):
        self._recorder, self._conditionings, self._layers, self._names = recorder, conditionings, layers, names
        self._step, self._level, self._size, self._steps = -1, 0.0, None, steps
        self._query: Tensor | None = None

    def begin_pass(self, unet: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        sample, parts = given["sample"], len(self._conditionings)
        if len(sample) % parts:
            raise RealCompoError(
                f"a batch of {len(sample)} is not {' and '.join(self._conditionings)}: name the conditionings that the "
                'pipeline joins, ("positive",) without guidance'
            )
        self._step += 1
        self._level = float(torch.as_tensor(given["timestep"]).flatten()[0])
        if self._size != tuple(sample.shape[-2:]):
            self._size = tuple(sample.shape[-2:])
            kept = {}
            for layer in self._layers:
                name = self._names[layer.name]
                kept[name] = MapLayer(name, _reduced(self._size, layer.factor)), layer.module.heads
            length = given["encoder_hidden_states"].shape[1]
            self._recorder.begin(list(kept.values()), length, len(sample) // parts, self._steps)

    def query(self, layer: CrossAttention, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._query = output

    def key(self, layer: CrossAttention, module: nn.Module, args: tuple, output: Tensor) -> None:
        if not self._recorder.wants(self._step):
            return
        heads, parts = layer.module.heads, len(self._conditionings)
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2).chunk(parts) for t in (self._query, output))
        for conditioning, own_q, own_k in zip(self._conditionings, q, k, strict=True):
            self._recorder.read(conditioning, self._names[layer.name], own_q, own_k)

    def end_pass(self, unet: nn.Module, args: tuple, output) -> None:
        self._recorder.end_pass(self._step, self._level)


def _reduced(size: tuple[int, int], factor: int) -> tuple[int, int]:
    return -(-size[0] // factor), -(-size[1] // factor)


def prompt_words(tokenizer: Callable, text: str) -> PromptWords:
    """The words that a pipeline's text encoder reads: the first sequence of its tokens, brackets as they are."""
    length = getattr(tokenizer, "model_max_length", CHUNK)
    words = word_tokens(tokenizer, text, weights=False, chunk=length)
    return PromptWords([(word, tokens) for word, tokens in words if tokens and tokens[-1] < length], length)
