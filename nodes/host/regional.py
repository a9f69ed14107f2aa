"""Regional attention in the host: what a conditioning brings along, and what it does to the passes that run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import comfy.hooks
import comfy.patcher_extension
import node_helpers
import torch
from torch import Tensor, nn

from realcompo_core.attention.regional import RegionalTexts, bias, padded
from realcompo_core.errors import BranchMismatchError, RealCompoError
from realcompo_core.layout import Layout

from .chunks import covers_picture
from .frames import Frames
from .sources import attention_of
from .transformer_attention import REGIONS, JointAttention

KEY = "realcompo_regions"
CONTROL_TEXT = "cross_attn_controlnet"  # in a conditioning's options: what ControlNets read in place of the text
TEXT_MASK = "attention_mask"


def regional(conditioning: Sequence[list], layout: Layout, clip: Any) -> list[list]:
    """A conditioning with the phrases of `layout` behind its text, each of which only its region's cells attend to.

    Only the passes of this conditioning are changed, in whatever sampler. Its ControlNets read the text without the
    phrases. Parts with an area or a mask stay as they are. Raises BranchMismatchError for texts of different widths, of
    another model's CLIP.
    """
    if not any(covers_picture(options) for _, options in conditioning):
        raise RealCompoError(
            "conditioning: every part of it has an area or a mask, and the regions are those of the whole picture: put "
            "Apply Layout (Regional Attention) on a prompt of the whole picture"
        )
    phrases = {item.phrase: _encoded(clip, item.phrase) for item in layout.objects}
    changed = []
    for part in conditioning:
        text, options = part
        if not covers_picture(options):
            changed.append(part)
            continue
        if has_regions(options):
            raise RealCompoError(
                "conditioning: it already has an Apply Layout (Regional Attention): put all objects into one layout"
            )
        found = [phrases[item.phrase] for item in layout.objects]
        for item, (phrase, _) in zip(layout.objects, found, strict=True):
            if phrase.shape[-1] != text.shape[-1]:
                raise BranchMismatchError(
                    f"clip: its text has width {phrase.shape[-1]} (for {item.phrase!r}), and the conditioning's has "
                    f"{text.shape[-1]}: connect the CLIP that encoded the prompt"
                )
        texts = [text, *(phrase.to(text).expand(len(text), -1, -1) for phrase, _ in found)]
        values = {CONTROL_TEXT: text} | _joined_masks(texts, [options, *(given for _, given in found)])
        entry = [torch.cat(texts, 1), {**options, **values}]
        changed.append(_hooked(entry, RegionalTexts(layout, tuple(part.shape[1] for part in texts))))
    return changed


def has_regions(options: dict) -> bool:
    """Whether this is of a conditioning that `regional` gave."""
    return any(hook.hook_id == KEY for hook in getattr(options.get("hooks"), "hooks", ()))


def _encoded(clip: Any, phrase: str) -> tuple[Tensor, dict]:
    text, options = clip.encode_from_tokens_scheduled(clip.tokenize(phrase))[0]
    return text, options


def _joined_masks(texts: Sequence[Tensor], options: Sequence[dict]) -> dict:
    """The masks of padding, where any of the texts has one."""
    masks = [given.get(TEXT_MASK) for given in options]
    if all(mask is None for mask in masks):
        return {}
    known = next(mask for mask in masks if mask is not None)
    parts = [
        torch.ones(len(text), text.shape[1], dtype=known.dtype) if mask is None else mask.expand(len(text), -1).cpu()
        for text, mask in zip(texts, masks, strict=True)
    ]
    return {TEXT_MASK: torch.cat(parts, 1)}


def _hooked(entry: list, texts: RegionalTexts) -> list:
    wrappers = {comfy.patcher_extension.WrappersMP.APPLY_MODEL: {KEY: [_RegionalPass(texts).apply_model]}}
    hook = comfy.hooks.TransformerOptionsHook({"wrappers": wrappers}, comfy.hooks.EnumHookScope.HookedOnly)
    hook.hook_id = KEY
    group = comfy.hooks.HookGroup()
    group.add(hook)
    found = entry[1].get("hooks")
    both = group if found is None else found.clone_and_combine(group)
    return node_helpers.conditioning_set_values([entry], {"hooks": both})[0]


class _RegionalPass:
    """What the wrapper around the passes of one conditioning does."""

    def __init__(self, texts: RegionalTexts):
        self._texts = texts
        self._known: tuple[Any, Tensor] | None = None  # the newest mask, and what it was made for
        self._apart: tuple[bool, ...] = ()

    def apply_model(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        network = executor.class_obj.diffusion_model
        if c_crossattn.shape[1] != self._texts.length:
            raise RealCompoError(
                f"Apply Layout (Regional Attention): it was given {self._texts.length} tokens of text and the model "
                f"reads {c_crossattn.shape[1]}: put nodes that lengthen the text before it"
            )
        mask = self._mask(network, Frames.of(x).count or 1, tuple(x.shape[-2:]), x.device)
        other = transformer_options.get("optimized_attention_override")
        patches = {**transformer_options.get("patches", {})}
        patches["post_input"] = [*patches.get("post_input", []), self._restart_positions]
        options = {**transformer_options, "patches": patches, REGIONS: mask}
        options["optimized_attention_override"] = partial(_attend, mask, other)
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _restart_positions(self, args: dict) -> dict:
        """Each phrase has the positions that it would have alone, as EliGen was trained; Flux's are all 0 anyway."""
        ids = args["txt_ids"].clone()
        first = 0
        for length, is_apart in zip(self._texts.lengths, self._apart, strict=True):
            if is_apart:
                ids[:, first : first + length] = args["txt_ids"][:, :length]
            first += length
        return {**args, "txt_ids": ids}

    def _mask(self, network: nn.Module, frames: int, size: tuple[int, int], device: torch.device) -> Tensor:
        asked = type(network), frames, size, device
        if self._known is None or self._known[0] != asked:
            source = attention_of(network)
            if not isinstance(source, JointAttention):
                raise RealCompoError(
                    "Apply Layout (Regional Attention) is for networks that attend to picture and text jointly (SD3, "
                    f"Flux, Qwen-Image), and this model is a {type(network).__name__}: take Apply Layout (Regions) or "
                    "Apply Layout (GLIGEN)"
                )
            grid = source.layers[0].grid(size)
            self._known = asked, self._texts.mask(grid, frames).to(device)
            self._apart = self._texts.apart(grid)
        return self._known[1]


def _attend(
    regions: Tensor, other: Callable | None, function: Callable, q: Tensor, k: Tensor, v: Tensor, heads, *args, **given
) -> Tensor:
    """One attention of the network; those of the picture alone (in layers of SD3.5) are left as they are."""
    length = q.shape[2] if given.get("skip_reshape") else q.shape[1]
    if length >= len(regions):
        mask, *args = args or (given.get("mask"),)
        given["mask"] = _added(mask, bias(padded(regions, length), q.dtype))
    if other is not None:
        return other(function, q, k, v, heads, *args, **given)
    return function(q, k, v, heads, *args, **given)


def _added(mask: Tensor | None, regions: Tensor) -> Tensor:
    """Both masks in one, to be added to the scores. mask: that of the network, which is bool or is added itself."""
    if mask is None:
        return regions
    return regions + (bias(mask, regions.dtype) if mask.dtype == torch.bool else mask)
