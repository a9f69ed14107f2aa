"""Recording the attention of a diffusers UNet, in any pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ..attention.maps import AttentionMaps, BranchMaps, Keep, PromptWords
from ..attention.recorder import Recorder
from ..attention.source import AttentionEvent, NetworkPass
from ..errors import RealCompoError
from ..text.tokens import CHUNK, word_tokens
from .unet_attention import UNetAttention


@contextmanager
def record(
    model: DiffusionPipeline | nn.Module,
    prompt: str | None = None,
    tokenizer: Callable | None = None,
    negative_prompt: str = "",
    *,
    conditionings: Sequence[str] = ("negative", "positive"),
    keep: Keep | None = None,
    steps: int = 0,
    name: str = "model",
) -> Iterator[AttentionMaps]:
    """Inside, the cross-attention of a diffusers pipeline, or of a UNet in any pipeline, is recorded.

        with record(pipe) as maps:
            image = pipe("a cat and a dog").images[0]
        maps.word("cat")  # (1, 64, 64)

    A pipeline says itself what its prompt is, and each of its runs replaces the one before. With a UNet each pass is a
    step. Its prompts, its tokenizer (tokens have numbers instead of words without them), the conditionings in the order
    in which they are joined in a batch (("positive",) without guidance) and how many passes there will be (where it is
    not given, the limit of `keep` holds for each alone) are arguments, which a pipeline does not need. Raises
    RealCompoError for a network without such layers, and for several prompts in one run of a pipeline.
    """
    if isinstance(model, DiffusionPipeline):
        if prompt is not None or tokenizer is not None:
            raise RealCompoError(
                "record was given a pipeline and a prompt: the pipeline is told its prompt when it runs"
            )
        if not hasattr(model, "unet"):
            raise RealCompoError(f"{type(model).__name__} has no UNet: attention is recorded in SD1.x, SD2.x and SDXL")
        recording = _Recording(model.unet, name, keep or Keep(), lambda: model.num_timesteps)
        with _prompts_of(model, recording), recording:
            yield AttentionMaps([recording.branch])
        return
    texts = {"positive": prompt, "negative": negative_prompt if prompt is not None else None}
    recording = _Recording(model, name, keep or Keep(), lambda: steps)
    recording.expect({kind: _words(tokenizer, texts[kind]) for kind in conditionings})
    with recording:
        yield AttentionMaps([recording.branch])


class _Recording:
    """Hooks on a UNet that record each of its passes. steps: tells how many there will be; 0 for not known."""

    def __init__(self, unet: nn.Module, name: str, keep: Keep, steps: Callable[[], int]):
        self._unet, self._steps = unet, steps
        self._recorder, self._source = Recorder(name, keep, {}), UNetAttention(unet)
        self._layers = self._recorder.kept(self._source.layers)
        self._running = NetworkPass((0, 0), ())
        self._step, self._timestep = -1, 0.0

    @property
    def branch(self) -> BranchMaps:
        return self._recorder.branch

    def expect(self, prompts: Mapping[str, PromptWords | None]) -> None:
        """A new run, of these prompts by the conditionings in their order in a batch; None for words not known."""
        self._recorder.expect(prompts)
        self._running.conditionings, self._running.latent_size = tuple(prompts), (0, 0)
        self._step = -1

    def __enter__(self) -> _Recording:
        self._stack = ExitStack()
        for hook in (
            self._unet.register_forward_pre_hook(self._begin_pass, with_kwargs=True),
            self._unet.register_forward_hook(self._end_pass),
        ):
            self._stack.callback(hook.remove)
        self._stack.enter_context(self._source.emitting(self._read, self._running, self._layers))
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def _begin_pass(self, unet: nn.Module, args: tuple, kwargs: dict) -> None:
        given = dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)) | kwargs
        sample, conditionings = given["sample"], self._running.conditionings
        if not conditionings:
            raise RealCompoError(
                "the network ran before the pipeline encoded a prompt: record the pipeline's whole call"
            )
        if len(sample) % len(conditionings):
            raise RealCompoError(
                f"a batch of {len(sample)} is not {' and '.join(conditionings)}: name the conditionings that the "
                'pipeline joins, ("positive",) without guidance'
            )
        self._step += 1
        self._timestep = float(torch.as_tensor(given["timestep"]).flatten()[0])
        size, length = tuple(sample.shape[-2:]), given["encoder_hidden_states"].shape[1]
        if self._running.latent_size != size:
            self._running.latent_size = size
            self._recorder.begin(self._layers, size, length, len(sample) // len(conditionings), self._steps())

    def _read(self, event: AttentionEvent) -> None:
        if self._recorder.wants(self._step):
            self._recorder.read(event)

    def _end_pass(self, *_) -> None:
        self._recorder.end_pass(self._step, self._timestep)


@contextmanager
def _prompts_of(pipeline: DiffusionPipeline, recording: _Recording) -> Iterator[None]:
    """Inside, the recording is told what the pipeline encodes; it asks the pipeline's own `encode_prompt`."""
    own, before = pipeline.encode_prompt, vars(pipeline).get("encode_prompt")

    def encode(*args, **kwargs):
        given = signature(own).bind(*args, **kwargs)
        given.apply_defaults()
        texts = given.arguments
        kinds = ("negative", "positive") if texts.get("do_classifier_free_guidance", True) else ("positive",)
        prompts = {"positive": _single(texts["prompt"]), "negative": _single(texts.get("negative_prompt") or "")}
        recording.expect({kind: _words(pipeline.tokenizer, prompts[kind]) for kind in kinds})
        return own(*args, **kwargs)

    pipeline.encode_prompt = encode
    try:
        yield
    finally:
        del pipeline.encode_prompt
        if before is not None:
            pipeline.encode_prompt = before


def _single(prompt: str | Sequence[str] | None) -> str | None:
    """The prompt of all items. Raises RealCompoError where they have different ones."""
    prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(dict.fromkeys(prompt))
    if len(prompts) > 1:
        raise RealCompoError(
            f"{len(prompts)} different prompts in one run: their words' maps are recorded one at a time"
        )
    return prompts[0] if prompts else None


def _words(tokenizer: Callable | None, text: str | None) -> PromptWords | None:
    return None if tokenizer is None or text is None else prompt_words(tokenizer, text)


def prompt_words(tokenizer: Callable, text: str) -> PromptWords:
    """The words that a pipeline's text encoder reads: the first sequence of its tokens, brackets as they are."""
    length = getattr(tokenizer, "model_max_length", CHUNK)
    words = word_tokens(tokenizer, text, weights=False, chunk=length)
    return PromptWords([(word, tokens) for word, tokens in words if tokens and tokens[-1] < length], length)
