"""Prompt-to-Prompt with a diffusers pipeline (docs/method.md, R17)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.models.attention import BasicTransformerBlock
from PIL import Image
from torch import Tensor, nn

from ..attention.prompt_to_prompt import Blend, Edit, PromptToPrompt, source_of_pairs
from ..attention.source import Layer, NetworkPass
from ..errors import Cancelled, RealCompoError
from ..guidance.schedule import Schedule
from ..layout import Layout
from ..layout.regions import covered_by_objects
from ..text.prompt_edit import tokens_of
from ..text.tokens import word_tokens
from .branch import joined
from .inversion import Inversion
from .latents import decode, picture_size
from .pipeline import check_sampling, noise_of, sampler_of
from .schedule import NoiseSchedule
from .text_conditioning import count_chunks, text_conditioning
from .unet_attention import UNetAttention

STEPS, GUIDANCE = 50, 7.5  # where neither is given


@dataclass(frozen=True)
class Edited:
    """The picture of the source prompt, that of the edited one, and the latents of both, (2, C, h, w)."""

    source: Image.Image
    picture: Image.Image
    latents: Tensor


@torch.no_grad()
def edit(
    pipeline: DiffusionPipeline,
    prompt: str,
    edited_prompt: str,
    settings: PromptToPrompt | None = None,
    *,
    layout: Layout | None = None,
    inversion: Inversion | None = None,
    negative_prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    sampler: str = "ddim",
    guidance_scale: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Edited:
    """The picture that an SD1.x, SD2.x or SDXL pipeline draws of a prompt, and what the edited prompt makes of it.

    layout: objects outside of whose regions the picture is kept. steps: 50, and guidance_scale: 7.5, where nothing else
    is said. inversion: of a picture of yours by this pipeline and this prompt, which is edited then; it brings its own
    size, steps, guidance and unconditional texts, and no seed is needed. The rest is as in
    `RealCompoPipeline.__call__`. Raises RealCompoError for what does not fit to the inversion.
    """
    settings = settings or PromptToPrompt()
    if layout is not None and settings.blend is not None:
        raise RealCompoError("layout and blend both say where the picture may change: give one of them")
    if inversion is not None:
        given = {"prompt": prompt, "steps": steps, "guidance_scale": guidance_scale, "negative_prompt": negative_prompt}
        _check_inversion(inversion, sampler, given | {"height": height, "width": width})
        steps, guidance_scale = inversion.steps, inversion.guidance_scale
        negative_prompt = inversion.negative_prompt or None
        height, width = inversion.picture.size[::-1]
    steps, guidance_scale = steps or STEPS, GUIDANCE if guidance_scale is None else guidance_scale
    check_sampling(sampler, steps)
    schedule = NoiseSchedule(pipeline.scheduler)
    sigmas = schedule.sigmas(steps)
    size = picture_size(pipeline, height, width)
    texts = _Texts(pipeline, prompt, edited_prompt, negative_prompt, size)
    own = Edit(settings, *texts.words, texts.lengths)
    noise = noise_of(pipeline, size, [seed])[0] if inversion is None else inversion.latents[0]
    x = schedule.parametrisation.initial_latent(noise.to(pipeline.device, torch.float32).repeat(2, 1, 1, 1), sigmas[0])
    blend = _blend(settings, texts, layout, x.shape[-2:])
    network = _EditedNetwork(pipeline.unet, own, blend)
    levels, nulls = Schedule(sigmas), inversion and inversion.nulls

    def model(x: Tensor, sigma: float, step) -> Tensor:
        if cancelled and cancelled():
            raise Cancelled
        moment = levels.moment(sigma)
        text = texts.joined(nulls[moment.index] if nulls else None, guided=guidance_scale != 1)
        rows = x if guidance_scale == 1 else torch.cat([x, x])
        t = torch.full((), schedule.timestep(sigma), device=x.device)
        scaled = schedule.parametrisation.scale_input(rows, sigma).to(pipeline.unet.dtype)
        with network.running(moment.progress, guidance_scale != 1, tuple(x.shape[-2:])):
            output = pipeline.unet(scaled, t, **text, return_dict=False)[0].to(x.dtype)
        if guidance_scale != 1:
            negative, positive = output.chunk(2)
            output = negative + guidance_scale * (positive - negative)
        D = schedule.parametrisation.denoised(x, output, sigma)
        return D if blend is None else blend.blended(D, moment.progress)

    callback = (lambda i, *_: progress(i + 1, steps)) if progress else None
    x = sampler_of(sampler, [seed, seed], x)(model, x, sigmas, callback)
    latents = schedule.parametrisation.scale_input(x, sigmas[-1])
    source, picture = decode(pipeline, latents)
    return Edited(source, picture, latents)


def _check_inversion(inversion: Inversion, sampler: str, given: dict) -> None:
    """given: what was said of what the inversion knows itself; None where nothing was."""
    height, width = inversion.picture.size[::-1]
    known = {"height": height, "width": width} | {
        name: getattr(inversion, name) for name in ("prompt", "steps", "guidance_scale", "negative_prompt")
    }
    for name, value in given.items():
        if value is not None and value != known[name]:
            raise RealCompoError(
                f"{name} is {value!r}: the picture was inverted with {known[name]!r}; leave it, or invert anew"
            )
    if sampler not in ("ddim", "euler"):
        raise RealCompoError(f"sampler is {sampler!r}: an inverted picture is drawn again by ddim or euler")


class _Texts:
    """Both prompts as text arguments of the UNet. words: of each, with their tokens; lengths: of both sequences."""

    def __init__(
        self, pipeline: DiffusionPipeline, prompt: str, edited: str, negative: str | None, size: tuple[int, int]
    ):
        chunks = max(count_chunks(pipeline, text or "") for text in (prompt, edited, negative))
        length = pipeline.tokenizer.model_max_length
        self.words = [word_tokens(pipeline.tokenizer, text, weights=False, chunk=length) for text in (prompt, edited)]
        self.lengths = length * chunks, length * chunks
        self._positive = text_conditioning(pipeline, [prompt, edited], chunks, size)
        self._negative = text_conditioning(pipeline, [negative, negative], chunks, size)

    def joined(self, null: Tensor | None, guided: bool) -> dict:
        """The arguments of one pass: of the unconditional text, `null` (1, T, d) where it is given, and the prompts."""
        if not guided:
            return self._positive
        negative = self._negative
        if null is not None:
            given = null.to(negative["encoder_hidden_states"]).expand(2, -1, -1)
            negative = negative | {"encoder_hidden_states": given}
        return joined([negative, self._positive])


def _blend(settings: PromptToPrompt, texts: _Texts, layout: Layout | None, size: tuple[int, int]) -> Blend | None:
    if layout is not None:
        if not layout.objects:
            raise RealCompoError("the layout has no objects, in whose regions the picture would change: leave it out")
        return Blend(settings, regions=covered_by_objects(layout.validate(), *size)[None])
    if settings.blend is None:
        return None
    found = [tokens_of(*pair) for pair in zip(settings.blend, texts.words, strict=True)]
    return Blend(settings, columns=(found[0], found[1]))


class _EditedNetwork:
    """A UNet whose attention is edited by hooks on its projections; its attention processors stay as they are."""

    def __init__(self, unet: nn.Module, edit: Edit, blend: Blend | None):
        self._edit, self._source = edit, UNetAttention(unet)
        self._blend, self._read = blend, blend.read_layers(self._source.layers) if blend is not None else []
        layers = {layer.name.removesuffix(".attn2"): layer for layer in self._source.layers}
        blocks = [(name, block) for name, block in unet.named_modules() if isinstance(block, BasicTransformerBlock)]
        self._blocks = [(layers[name], block) for name, block in blocks if name in layers]

    @contextmanager
    def running(self, progress: float, guided: bool, size: tuple[int, int]) -> Iterator[None]:
        """Inside, the network runs pairs at this share of the steps; guided: behind as many unconditional rows."""
        hooks = []
        conditionings = (None, "positive") if guided else ("positive",)
        for layer, block in self._blocks:
            if self._edit.keeps_self(progress, layer.downsampling):
                kept = partial(_with_source, guided=guided)
                hooks += [p.register_forward_hook(kept) for p in (block.attn1.to_q, block.attn1.to_k)]
            if self._edit.keeps_cross(progress):
                hooks += _CrossAttention(block.attn2, layer, self._edit, guided).hooks()
        try:
            if not self._read:
                yield
            else:
                with self._source.emitting(self._blend.read, NetworkPass(size, conditionings), self._read):
                    yield
        finally:
            for hook in hooks:
                hook.remove()


def _pairs(rows: Tensor, guided: bool) -> slice:
    """The rows of a batch that are pairs."""
    return slice(len(rows) // 2 if guided else 0, None)


def _with_source(module: nn.Module, inputs: tuple, output: Tensor, guided: bool) -> Tensor:
    output, rows = output.clone(), _pairs(output, guided)
    output[rows] = source_of_pairs(output[rows])
    return output


class _CrossAttention:
    """One layer's cross-attention: the edited rows attend to their own new words, and take the rest from the source."""

    def __init__(self, attention: nn.Module, layer: Layer, edit: Edit, guided: bool):
        self._attention, self._heads, self._edit, self._guided = attention, layer.heads, edit, guided
        self._q = self._k = self._taken = None

    def hooks(self) -> list:
        attention = self._attention
        return [
            attention.to_q.register_forward_hook(self._keep_queries),
            attention.to_k.register_forward_hook(self._keep_keys),
            attention.to_v.register_forward_hook(self._edit_values),
            attention.to_out[0].register_forward_pre_hook(self._add_taken),
        ]

    def _keep_queries(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._q = output[_pairs(output, self._guided)][::2]

    def _keep_keys(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._k = output[_pairs(output, self._guided)][::2]

    def _edit_values(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        output, rows = output.clone(), _pairs(output, self._guided)
        self._taken, own = self._edit.cross_values(output[rows][1::2])
        output[rows][1::2] = own
        return output

    def _add_taken(self, module: nn.Module, inputs: tuple) -> tuple:
        hidden, *rest = inputs
        q, k, v = (t.unflatten(-1, (self._heads, -1)).transpose(1, 2) for t in (self._q, self._k, self._taken))
        scale = getattr(self._attention, "scale", q.shape[-1] ** -0.5)
        taken = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(-2)
        hidden = hidden.clone()
        hidden[_pairs(hidden, self._guided)][1::2] += taken.to(hidden)
        return hidden, *rest
