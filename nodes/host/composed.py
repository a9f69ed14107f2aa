"""Composable and Structured Diffusion on a model of the host (docs/method.md, R13 and R14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

import torch
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from realcompo_core.errors import RealCompoError
from realcompo_core.text.composition import Part
from realcompo_core.text.structured import structured_values
from realcompo_core.text.tokens import phrase_spans

from .joined_passes import calculate
from .messages import warn_on_node
from .prompt_tokens import prompt_pieces
from .regional import has_regions
from .sources import cross_attention

FUNCTION = "sampler_calc_cond_batch_function"  # in the host's model options: (conditionings) -> predictions
NOT_SAMPLED = (
    "Structured Diffusion changes nothing: none of the conditionings is the layout's prompt as the connected CLIP "
    "encodes it. Wire the output `prompt` of LLM Layout to the CLIP Text Encode of this model"
)
OF_TEXT = ("c_crossattn", "y", "attention_mask")  # what the host makes of a text for the network
SAME = 1e-2  # largest difference, by the largest value, of encodings that are one


def composed(model: Any, clip: Any, parts: Sequence[Part]) -> Any:
    """A clone of the model, whose positive prediction becomes D_∅ + Σ weight (D_i − D_∅) over the parts.

    So its guided prediction is D_∅ + Σ weight · cfg (D_i − D_∅), for any sampler. Each part takes the place of the
    text in all positive conditionings, whose areas, masks and ControlNets it keeps. Raises RealCompoError for a model
    that is composed already.
    """
    if composes(model.model_options):
        raise RealCompoError(
            "the model already has a Composable Diffusion: put all parts into one, or take one of them off"
        )
    texts = [(_encoded(clip, part.text), part.weight) for part in parts]
    model = model.clone()
    former = model.model_options.get(FUNCTION, calculate)

    def compose(args: dict) -> list[Tensor]:
        conds = args["conds"]
        if len(conds) != 2 or None in conds:  # one of them alone, for its attention
            return former(args)
        positive, negative = conds
        of_parts = [[_with_text(entry, text, args) for entry in positive] for text, _ in texts]
        if former is calculate:
            unconditional, *found = former({**args, "conds": [negative, *of_parts]})
        else:  # another pack's, which knows pairs
            pairs = [former({**args, "conds": [part, negative]}) for part in of_parts]
            unconditional, found = pairs[0][1], [part for part, _ in pairs]
        differences = (weight * (part - unconditional) for (_, weight), part in zip(texts, found, strict=True))
        return [unconditional + sum(differences), unconditional]

    compose.composes = True
    model.model_options = {**model.model_options, FUNCTION: compose, "disable_cfg1_optimization": True}
    return model


def composes(model_options: dict) -> bool:
    """Whether the guided prediction is made of other conditionings than the positive one."""
    return getattr(model_options.get(FUNCTION), "composes", False)


def structured(model: Any, clip: Any, prompt: str, phrases: Sequence[str]) -> Any:
    """A clone of the model, which takes the values of this prompt's cross-attention from its phrases, too.

    Other texts stay as they are. The node that runs says so if the prompt is none of those that are sampled, or if no
    phrase has more than one word there. Raises RealCompoError for a model without cross-attention.
    """
    cross_attention(model, "Structured Diffusion")
    pieces, _ = prompt_pieces(clip, prompt)
    spans = phrase_spans(pieces, phrases)
    if not spans:
        warn_on_node(["none of the layout's phrases has more than one word in the prompt, so that nothing changes"])
        return model
    whole, *alone = (_encoded(clip, text)[0][0] for text in (prompt, *(span.text for span in spans)))
    model = model.clone()
    model.set_model_attn2_patch(_structured_patch(whole, structured_values(whole, alone, spans), _Sampling(model)))
    return model


def _encoded(clip: Any, text: str) -> tuple[Tensor, dict]:
    """(1, T, d) and what else the host makes of the text."""
    tensor, options = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0]
    return tensor, options


def _with_text(entry: dict, text: tuple[Tensor, dict], args: dict) -> dict:
    """A conditioning that the host has prepared, with another text."""
    if has_regions(entry):
        raise RealCompoError(
            "Composable Diffusion puts its parts in place of the texts that Apply Layout (Regional Attention) has "
            "encoded: take one of them off"
        )
    tensor, options = text
    x = args["input"]
    known = {"width": x.shape[-1] * 8, "height": x.shape[-2] * 8, "prompt_type": "positive"} | entry
    known |= {"cross_attn": tensor, "pooled_output": options.get("pooled_output"), "noise": x, "device": x.device}
    known["attention_mask"] = options.get("attention_mask")
    made = args["model"].extra_conds(**known)
    of_text = {key: made[key] for key in OF_TEXT if key in made}
    kept = {key: cond for key, cond in entry["model_conds"].items() if key not in OF_TEXT}
    return {**entry, "model_conds": {**kept, **of_text}, "uuid": uuid4()}


def _structured_patch(whole: Tensor, values: Tensor, sampling: _Sampling) -> Callable:
    """For the host's cross-attention: items of a batch with the text `whole`, (T, d), take values from `values`."""

    @cache
    def both(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return whole.to(device, dtype), values.to(device, dtype)

    def patch(q: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        if context.shape[1] % len(whole) or context.shape[2] != whole.shape[1]:
            sampling.saw(torch.zeros(1, dtype=torch.bool, device=context.device))
            return q, context, value
        repeats = context.shape[1] // len(whole)  # the host repeats a text until it is as long as the others
        own, mean = (text.repeat(repeats, 1) for text in both(context.device, context.dtype))
        same = (context - own).abs().amax((1, 2), keepdim=True) <= SAME * own.abs().max()
        sampling.saw(same)
        return q, context, torch.where(same, mean, value)

    return patch


class _Sampling:
    """Whether the prompt was met in a sampling; told when that has ended, so that nothing waits for the device."""

    def __init__(self, model: Any):
        self._met: Tensor | None = None
        model.add_callback(CallbacksMP.ON_PRE_RUN, self._begin)
        model.add_callback(CallbacksMP.ON_CLEANUP, self._end)

    def saw(self, same: Tensor) -> None:
        """same: for each item of a batch, whether it is the prompt."""
        self._met = same.any() if self._met is None else self._met | same.any()

    def _begin(self, *_) -> None:
        self._met = None

    def _end(self, *_) -> None:
        if self._met is not None and not self._met:
            warn_on_node([NOT_SAMPLED])
        self._met = None
