"""Prompt-to-Prompt on a model of the host (docs/method.md, R17)."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from functools import partial
from inspect import signature
from typing import Any

import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from realcompo_core.attention.maps import PromptWords
from realcompo_core.attention.prompt_to_prompt import Blend, Edit, PromptToPrompt, source_of_pairs
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.layout import Layout
from realcompo_core.layout.regions import covered_by_objects
from realcompo_core.text.prompt_edit import tokens_of

from .messages import warn_on_node
from .sources import cross_attention
from .unet_attention import patch_key

KEY = "realcompo_prompt_to_prompt"  # of the wrapper, and in the options of the conditioning
NOT_WIRED = (
    "Prompt-to-Prompt changes nothing: the sampler's positive conditioning is not the one that it gives out. Wire its "
    "outputs `positive` and `latent` to the sampler"
)


def pairs_of_texts(clip: Any, prompt: str, edited: str) -> list:
    """Conditioning of two rows, the source prompt's and the edited one's."""
    both = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, edited))
    return [_pair(*entries) for entries in zip(*both, strict=True)]  # one, but for a CLIP that changes over the steps


def _pair(entry: tuple[Tensor, dict], edited: tuple[Tensor, dict]) -> list:
    (first, options), (second, other) = entry, edited
    length = math.lcm(first.shape[1], second.shape[1])  # as the host itself brings texts to one length
    rows = torch.cat([text.repeat(1, length // text.shape[1], 1) for text in (first, second)])
    pooled = [found.get("pooled_output") for found in (options, other)]
    own = {**options, KEY: True}
    if None not in pooled:
        own["pooled_output"] = torch.cat(pooled)
    return [rows, own]


def pairs_of_latents(latent: dict) -> dict:
    """A LATENT with each of its items twice, which the host draws the same noise for."""
    samples = latent["samples"]
    own = {**latent, "samples": samples.repeat_interleave(2, 0)}
    known = latent.get("batch_index", range(len(samples)))
    own["batch_index"] = [index for index in known for _ in range(2)]
    if latent.get("noise_mask") is not None:
        mask = latent["noise_mask"].reshape(-1, 1, *latent["noise_mask"].shape[-2:])
        rows = [i % len(mask) for i in range(len(samples))]
        own["noise_mask"] = mask[rows].repeat_interleave(2, 0)
    return own


def edited(
    model: Any, settings: PromptToPrompt, source: PromptWords, target: PromptWords, layout: Layout | None = None
) -> Any:
    """A clone of the model whose pairs of pictures are a source and its edit. layout: where the edit may differ.

    Raises RealCompoError for a model that is no SD1.x, SD2.x or SDXL, and for one that is edited already.
    """
    if model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        raise RealCompoError("the model already has a Prompt-to-Prompt: make each edit on the model itself")
    layers = cross_attention(model, "Prompt-to-Prompt").layers
    edit = Edit(settings, source.words, target.words, (source.length, target.length))
    columns = None
    if settings.blend is not None:
        first, second = (tokens_of(*pair) for pair in zip(settings.blend, (source.words, target.words), strict=True))
        columns = first, second
    sampling = _Sampling(edit, settings, columns, layout, layers)
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, sampling.sample)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, sampling.apply_model)
    if columns is not None or layout is not None:
        model.set_model_sampler_post_cfg_function(sampling.blended)
    return model


class _Sampling:
    """What the wrappers around one model's sampling and passes do."""

    def __init__(self, edit: Edit, settings: PromptToPrompt, columns, layout: Layout | None, layers: tuple[Layer, ...]):
        self._edit, self._settings, self._columns, self._layout = edit, settings, columns, layout
        self._layers = layers
        self._read = set(Blend(settings, columns).read_layers(layers))
        self._schedule: Schedule | None = None
        self._ours: set = set()  # identities of the conditionings that are pairs
        self._blend: Blend | None = None
        self._size = (0, 0)

    def sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        conds = getattr(executor.class_obj, "conds", {}).get("positive") or []
        self._ours = {entry.get("uuid") for entry in conds if KEY in entry}
        self._schedule, self._size = Schedule(sigmas.tolist()), tuple(noise.shape[-2:])
        if not self._ours:
            warn_on_node([NOT_WIRED])
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        if len(noise) % 2:
            raise RealCompoError(
                f"Prompt-to-Prompt draws pairs, and the latent has {len(noise)} picture{'s' * (len(noise) > 1)}: wire "
                "its output `latent` to the sampler"
            )
        regions = self._layout and covered_by_objects(self._layout, *self._size)[None]
        self._blend = Blend(self._settings, self._columns, regions)
        seed = kwargs.get("seed", args[3] if len(args) > 3 else None)
        x = noise[::2].to(executor.class_obj.model_patcher.load_device)
        try:
            return executor(noise, latent_image, _same_noise(sampler, x, sigmas, seed), sigmas, *args, **kwargs)
        finally:
            self._ours, self._blend = set(), None

    def apply_model(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        options = transformer_options
        pairs = [i for i, uuid in enumerate(options.get("uuids", [])) if uuid in self._ours]
        if pairs:
            progress = self._schedule.moment(float(t[0])).progress
            options = self._patched(options, pairs, len(options["uuids"]), progress)
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def blended(self, args: dict) -> Tensor:
        if self._blend is None:
            return args["denoised"]
        return self._blend.blended(args["denoised"], self._schedule.moment(float(args["sigma"][0])).progress)

    def _patched(self, options: dict, pairs: list[int], parts: int, progress: float) -> dict:
        """The options of a pass in which attention is edited. Patches of others on these layers stay in force."""
        replacements = {**options.get("patches_replace", {})}
        for kind, change in (("attn1", self._self_attention), ("attn2", self._cross_attention)):
            patches = replacements[kind] = {**replacements.get(kind, {})}
            for layer in self._layers:
                block = patch_key(layer)
                attend = partial(_attend, patches.get(block, patches.get(block[:2])))
                patches[block] = partial(change, layer, attend, pairs, parts, progress)
        return {**options, "patches_replace": replacements}

    def _self_attention(self, layer, attend, pairs, parts, progress, q: Tensor, k: Tensor, v: Tensor, options, **given):
        if self._edit.keeps_self(progress, layer.downsampling):
            q, k = q.clone(), k.clone()
            for rows in _rows(pairs, parts, len(q)):
                q[rows], k[rows] = source_of_pairs(q[rows]), source_of_pairs(k[rows])
        return attend(q, k, v, options, **given)

    def _cross_attention(
        self, layer, attend, pairs, parts, progress, q: Tensor, k: Tensor, v: Tensor, options, **given
    ):
        if layer in self._read:
            for rows in _rows(pairs, parts, len(q)):
                self._blend.read(self._event(layer, q[rows], k[rows], options["n_heads"]))
        if not self._edit.keeps_cross(progress):
            return attend(q, k, v, options, **given)
        own, of_edits = v.clone(), []
        for rows in _rows(pairs, parts, len(q)):
            taken, own[rows][1::2] = self._edit.cross_values(v[rows][1::2])
            of_edits.append((rows, taken))
        out = attend(q, k, own, options, **given)
        for rows, taken in of_edits:
            heads = options["n_heads"]
            out[rows][1::2] += optimized_attention(
                q[rows][::2], k[rows][::2], taken, heads, attn_precision=options["attn_precision"]
            )
        return out

    def _event(self, layer: Layer, q: Tensor, k: Tensor, heads: int) -> AttentionEvent:
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        grid, text = layer.grid(self._size, q.shape[2]), slice(0, k.shape[2])
        return AttentionEvent(layer, "positive", q, k, q.shape[-1] ** -0.5, text, grid, "step")


def _attend(other: Callable | None, q: Tensor, k: Tensor, v: Tensor, options: dict, **given: Any) -> Tensor:
    """What the layer would do without an edit: another pack's patch, or the host's attention."""
    if other is not None:
        return other(q, k, v, options, **given)
    precision, heads = options["attn_precision"], options["n_heads"]
    return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=options, **given)


def _rows(pairs: list[int], parts: int, batch: int) -> list[slice]:
    """The rows of the parts of a batch that are pairs."""
    size = batch // parts
    return [slice(part * size, (part + 1) * size) for part in pairs]


def _same_noise(sampler: Any, x: Tensor, sigmas: Tensor, seed: int | None) -> Any:
    """The sampler; one that adds noise adds the same to both pictures of a pair. x: shaped as the source's latents."""
    function = getattr(sampler, "sampler_function", None)
    known = function is not None and "noise_sampler" in signature(function).parameters
    if not known or "noise_sampler" in sampler.extra_options:
        return sampler
    levels = sigmas[sigmas > 0].to(x.device)
    name = function.__name__
    if "dpmpp" in name and "sde" in name:  # as the host does: these ask for the noise between any two levels
        drawn = BrownianTreeNoiseSampler(x, levels.min(), levels.max(), seed=seed, cpu=not name.endswith("gpu"))
    else:
        drawn = default_noise_sampler(x, seed=seed)
    own = copy(sampler)
    own.extra_options = {**sampler.extra_options, "noise_sampler": lambda *at: drawn(*at).repeat_interleave(2, 0)}
    return own
