"""RealCompo over diffusers: any two pipelines that share a latent space become one balanced pipeline.

It needs nothing but the pipelines it is given: SD1.x, SD2.x, SDXL, UNets with GLIGEN's gated layers, SD3 and Flux, in
fp32, bf16 or fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..attention.losses import Objective
from ..attention.regional import RegionalTexts as RegionLayout
from ..attention.regional import attention_mask
from ..attention.targets import Targets, object_targets
from ..errors import Cancelled, RealCompoError
from ..guidance.balancer import Balancer
from ..guidance.branch import Branch, branch_names
from ..guidance.latent_guidance import LatentGuidance, with_guidance
from ..guidance.presets import DEFAULT, preset
from ..guidance.schedule import Schedule
from ..guidance.settings import BalanceSettings
from ..guidance.trace import Trace
from ..layout import Layout
from ..layout.regions import covered_by_objects, region_maps, region_of
from ..providers import LayoutProvider, get_provider
from ..sampling.samplers import SAMPLERS, STOCHASTIC
from ..text.composition import Part, layout_parts, split_prompt
from ..text.structured import structured_values
from ..text.tokens import prompt_spans
from .branch import ComposedPart, DenoiserBranch, RegionalPhrase, RegionalTexts
from .conditioners import conditioners
from .controlnet import control_networks
from .denoisers import denoiser_of, network_of
from .latents import decode, picture_size
from .matching import check_match, is_sdxl_file
from .request import Control, Request
from .schedule import FlowSchedule, NoiseSchedule, schedule_of
from .text_conditioning import count_chunks, phrase_groups, text_conditioning

NOISE_SEED = 0xADD  # of the noise that samplers add: it must not repeat that of the initial latent


@dataclass(frozen=True)
class Output:
    """`images`: B pictures; `layouts`: B layouts; `trace`: what the balancer did; `latents`: (B, C, h, w)."""

    images: list[Image.Image]
    layouts: list[Layout]
    trace: Trace
    latents: Tensor

    @property
    def layout(self) -> Layout:
        return self.layouts[0]


@dataclass(frozen=True)
class Guided:
    """A pipeline, and what makes it follow a layout or its prompt besides its own network (docs/method.md, R9 to R14).

    layout_guidance: its latent is moved by Layout Guidance, or by another method: `AttendAndExcite` or `BoxDiff` (R12).
    phrase_strength: above 0, each object's phrase is a prompt of its own in the object's region; their predictions are
    averaged with the whole prompt's, which has weight 1 (R11). composed: Composable Diffusion (R13) of the prompt's
    parts (`text.composition.split_prompt`), or of the layout's phrases, guided in all steps. structured: Structured
    Diffusion (R14) with the layout's phrases of several words; others change nothing. regional: regional attention of
    the layout's phrases (R19), for SD3 and Flux; with EliGen's LoRA in the transformer it is EliGen.
    """

    pipeline: DiffusionPipeline
    layout_guidance: LatentGuidance | None = None
    phrase_strength: float = 0.0
    composed: Literal["prompt", "layout"] | None = None
    structured: bool = False
    regional: bool = False

    def __post_init__(self):
        self._check_family()
        if self.composed not in (None, "prompt", "layout"):
            raise RealCompoError(f"composed is {self.composed!r}: choose prompt, layout or None")
        if self.composed and self.phrase_strength:
            raise RealCompoError("composed and phrase_strength both say what becomes of phrases: give one of them")
        if self.composed and self.regional:
            raise RealCompoError("composed and regional both say what becomes of phrases: give one of them")
        if self.regional and self.phrase_strength:
            raise RealCompoError("regional and phrase_strength both say what becomes of phrases: give one of them")
        if self.composed and self.structured:
            raise RealCompoError("composed runs the prompt's parts, and structured the whole prompt: give one of them")
        if not 0 <= self.phrase_strength < float("inf"):
            raise RealCompoError(f"phrase_strength is {self.phrase_strength}: it is a number from 0 up")

    def _check_family(self) -> None:
        family = denoiser_of(network_of(self.pipeline)).family
        if family == "UNet" and self.regional:
            raise RealCompoError(
                "regional attention is for SD3 and Flux, and this pipeline has a UNet: give phrase_strength"
            )
        if family != "UNet" and getattr(self.pipeline, "controlnet", None) is not None:
            raise RealCompoError(f"ControlNets of {family} are for the nodes in ComfyUI: take regional attention here")
        if family != "UNet" and self.structured:
            raise RealCompoError(
                f"structured is for UNets (SD1.x, SD2.x, SDXL), and this pipeline is {family}: take regional attention"
            )
        if family == "Flux" and self.composed:
            raise RealCompoError(
                "composed needs an unconditional estimate, which Flux does not make: take regional attention"
            )

    @property
    def stands_alone(self) -> bool:
        """Whether the pipeline does anything of its own when it is sampled by itself."""
        return self.layout_guidance is not None or self.composed is not None or self.structured or self.regional

    @property
    def reads_layout(self) -> bool:
        """Whether anything that the pipeline does, sampled by itself, depends on a layout."""
        looks = self.layout_guidance is not None and not self.layout_guidance.seen(Layout(())).objects
        by_layout = self.composed == "layout" or self.structured or self.regional
        return looks or by_layout or self.phrase_strength > 0


class RealCompoPipeline:
    """A fidelity pipeline and one or more spatial ones, balanced. The networks stay theirs: nothing is copied.

    A spatial pipeline has GLIGEN's gated layers, or ControlNets, or is `Guided`. A single one that `stands_alone` is
    sampled by itself. Raises BranchMismatchError where the pipelines cannot denoise the same latent.
    """

    def __init__(self, *models: DiffusionPipeline | Guided):
        self._models = [model if isinstance(model, Guided) else Guided(model) for model in models]
        if len(models) < 2 and not any(model.stands_alone for model in self._models):
            raise RealCompoError("no spatial pipeline was given: RealCompoPipeline(fidelity, spatial)")
        self.pipelines = tuple(model.pipeline for model in self._models)
        for other in self.pipelines[1:]:
            check_match(self.pipelines[0], other)
        self.schedules = [schedule_of(pipeline) for pipeline in self.pipelines]

    @classmethod
    def from_single_files(cls, fidelity: str, *spatial: str, **kwargs: Any) -> RealCompoPipeline:
        """From `.safetensors` checkpoints. `kwargs` go to diffusers' `from_single_file` (torch_dtype, ...).

        Without network give `config`, a local diffusers folder of the same family, and `local_files_only=True`. A UNet
        with GLIGEN's layers cannot be loaded so: diffusers only reads it from a folder.
        """
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

        def load(path: str) -> DiffusionPipeline:
            kind = StableDiffusionXLPipeline if is_sdxl_file(path) else StableDiffusionPipeline
            return kind.from_single_file(path, **kwargs)

        return cls(*(load(path) for path in (fidelity, *spatial)))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        layout: Layout | Sequence[Layout] | None = None,
        *,
        provider: LayoutProvider | str = "rules",
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int = 50,
        sampler: str = "plms",
        guidance_scale: float | Sequence[float] = 7.5,
        seed: int = 0,
        balance: BalanceSettings | str | None = None,
        beta: float = 1.0,
        layers: int | str = 4,
        include_adjectives: bool = False,
        controls: Control | Sequence[Control] = (),
        latents: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Output:
        """One picture a prompt.

        layout: one, or one a prompt; None asks `provider` (an object or a name) where anything depends on it.
        guidance_scale: one, or one a branch; Flux's is distilled, and 3.5 is usual for it. Item b of the batch draws
        its noise from `seed + b` and does not depend on the other items (but for prompts over 77 tokens: all are
        encoded in as many chunks as the longest needs).
        `controls`: what the pipelines' ControlNets are shown, in the order of the pipelines. `beta`, 0 to 1, is how
        strongly the layout acts on the spatial branches: the share of the steps, from the start, in which GLIGEN's
        gates are open and regional attention acts; a factor of the strengths of ControlNets, of what moves latents and
        of regional phrases. `balance`: settings, or the name of a preset (fast, balanced, which is the default, or
        best). `layers`: see `UNetAttention.choose` and `JointAttention.choose`. `include_adjectives` lets an object's
        adjectives be attended to as well as its noun. `progress(done, steps)` is called after each step; `cancelled()`
        is asked before each, and makes this raise Cancelled. `latents`: (B, C, h, w), noise to start from instead of
        that of the seed, such as an `Inversion`'s.
        """
        check_sampling(sampler, steps)
        balance = preset(balance or DEFAULT) if balance is None or isinstance(balance, str) else balance
        if not 0 <= beta <= 1:
            raise RealCompoError(f"beta is {beta}: it is a share of the steps, from 0 to 1")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        size = picture_size(self.pipelines[0], height, width)
        layouts = self._layouts(prompts, layout, provider, size[::-1])
        negatives = [_joined_text(negative_prompt, item.negative) for item in layouts]
        first, patch = self.pipelines[0], denoiser_of(network_of(self.pipelines[0])).patch
        check_flow(self.schedules[0], sampler, balance)
        side = first.vae_scale_factor * patch
        sigmas = self.schedules[0].sigmas(steps, (size[0] // side) * (size[1] // side))
        request = Request(prompts, negatives, layouts, size, sigmas, beta, layers, include_adjectives)
        given = [controls] if isinstance(controls, Control) else controls
        branches = self._branches(request, guidance_scale, given, balance)
        seeds = [seed + b for b in range(len(prompts))]
        x = self._initial_latent(size, seeds, sigmas[0], latents)
        objects = torch.stack([covered_by_objects(item, *x.shape[-2:]) for item in layouts])
        balancer = Balancer(branches, sigmas, seeds, objects, balance)
        for p, item in zip(prompts, layouts, strict=True):
            groups, phrases = phrase_groups(self.pipelines[0], p, item, include_adjectives)
            balancer.trace.phrases.append(phrases)
            balancer.trace.objects.append([group.objects for group in groups])

        def model(x: Tensor, sigma: float, step) -> Tensor:
            if cancelled and cancelled():
                raise Cancelled
            return balancer(x, sigma, step)

        callback = (lambda i, *_: progress(i + 1, steps)) if progress else None
        x = sampler_of(sampler, seeds, x)(model, x, sigmas, callback) + balancer.moves
        balancer.finish()
        latents = self.schedules[0].parametrisation.scale_input(x, sigmas[-1])
        return Output(decode(self.pipelines[0], latents), layouts, balancer.trace, latents)

    def _layouts(self, prompts, layout, provider, size: tuple[int, int]) -> list[Layout]:
        """One a prompt. size: width and height."""
        if layout is None and len(self._models) == 1 and not self._models[0].reads_layout:
            return [Layout(())] * len(prompts)
        if layout is None:
            provider = get_provider(provider) if isinstance(provider, str) else provider
            return [provider.propose(prompt, size) for prompt in prompts]
        layouts = [layout] * len(prompts) if isinstance(layout, Layout) else list(layout)
        if len(layouts) != len(prompts):
            raise RealCompoError(f"{len(layouts)} layouts for {len(prompts)} prompts: give one, or one a prompt")
        return [item.validate() for item in layouts]

    def layout_guidance(self, balance: BalanceSettings) -> list[LatentGuidance | None]:
        """What moves each branch's latent in a run with these settings: its own, or else theirs; None for nothing."""
        return [balance.layout_guidance_of(k, model.layout_guidance) for k, model in enumerate(self._models)]

    def _branches(
        self,
        request: Request,
        guidance_scale: float | Sequence[float],
        controls: Sequence[Control],
        balance: BalanceSettings,
    ) -> list[Branch]:
        count = len(self.pipelines)
        guidance = [guidance_scale] * count if isinstance(guidance_scale, (int, float)) else guidance_scale
        if len(guidance) != count:
            raise RealCompoError(f"guidance_scale is {guidance}: give one, or one for each of the {count} branches")
        models = [
            replace(model, layout_guidance=guidance)
            for model, guidance in zip(self._models, self.layout_guidance(balance), strict=True)
        ]
        parts = zip(branch_names(count), models, self.schedules, guidance, self._controls(controls), strict=True)
        has_objects = any(layout.objects for layout in request.layouts)
        unguided_below = balance.unguided_below(Schedule(request.sigmas), count, has_objects)
        return [
            build_branch(name, model, schedule, request, scale, own, unguided_below)
            for name, model, schedule, scale, own in parts
        ]

    def _controls(self, controls: Sequence[Control]) -> list[list[Control]]:
        """Those of each pipeline's ControlNets."""
        counts = [len(control_networks(pipeline)) for pipeline in self.pipelines]
        if len(controls) != sum(counts):
            raise RealCompoError(
                f"{len(controls)} controls for {sum(counts)} ControlNets in the pipelines: give one Control for each"
            )
        waiting = iter(controls)
        return [list(islice(waiting, count)) for count in counts]

    def _initial_latent(
        self, size: tuple[int, int], seeds: Sequence[int], sigma: float, given: Tensor | None
    ) -> Tensor:
        """The latents given, or each item's own noise, at the first noise level."""
        noise = noise_of(self.pipelines[0], size, seeds)
        if given is not None and given.shape != noise.shape:
            raise RealCompoError(f"latents has shape {tuple(given.shape)}: this run has {tuple(noise.shape)}")
        noise = noise if given is None else given
        return self.schedules[0].parametrisation.initial_latent(noise.to(self.pipelines[0].device), sigma)


def noise_of(pipeline: DiffusionPipeline, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
    """(B, C, h, w): each item's noise from its own seed, drawn on the CPU, so that it is the same on every device."""
    scale = pipeline.vae_scale_factor
    shape = (denoiser_of(network_of(pipeline)).channels, size[0] // scale, size[1] // scale)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def build_branch(
    name: str,
    model: Guided,
    schedule: NoiseSchedule | FlowSchedule,
    request: Request,
    guidance_scale: float,
    controls: Sequence[Control] = (),
    unguided_below: float = 0.0,
) -> Branch:
    """One pipeline as a branch: its text encoded, its conditioners made, its objects located in its tokens."""
    pipeline = model.pipeline
    chunks = max(count_chunks(pipeline, text or "") for text in [*request.prompts, *request.negatives])
    positive, negative = (
        text_conditioning(pipeline, texts, chunks, request.size) for texts in (request.prompts, request.negatives)
    )
    targets, network = located(pipeline, request), network_of(pipeline)
    denoiser = denoiser_of(network)
    attention = targets and denoiser.source()
    if denoiser.has_guidance:
        guidance_scale = with_distilled_guidance((positive, negative), request, guidance_scale)
    branch = DenoiserBranch(
        name,
        network,
        schedule,
        positive,
        negative,
        guidance_scale,
        conditioners(pipeline, request, controls),
        targets and Objective(attention.choose(request.layers), targets),
        regional_phrases(pipeline, request, chunks, model.phrase_strength * request.beta),
        unguided_below,
        composed_parts(pipeline, request, chunks, model.composed) if model.composed else (),
        values_of_phrases(pipeline, request, chunks, positive) if model.structured else None,
        regional_texts(pipeline, request, positive) if model.regional else None,
    )
    guidance = model.layout_guidance
    if guidance is None:
        return branch
    guidance = replace(guidance, scale=guidance.scale * request.beta)
    seen = located(pipeline, replace(request, layouts=[guidance.seen(layout) for layout in request.layouts]))
    if seen is None:
        return branch
    attention = denoiser.source()
    chosen, levels = attention.choose(request.layers), Schedule(request.sigmas, isinstance(schedule, FlowSchedule))
    return with_guidance(branch, guidance, attention.layers, chosen, seen, levels)


def located(pipeline: DiffusionPipeline, request: Request) -> Targets | None:
    """The request's objects in this pipeline's tokens, with their regions; None where no layout has an object."""
    if not any(layout.objects for layout in request.layouts):
        return None
    groups, regions = [], []
    for prompt, layout in zip(request.prompts, request.layouts, strict=True):
        found, _ = phrase_groups(pipeline, prompt, layout, request.include_adjectives)
        groups.append([group.tokens for group in found])
        regions.append(partial(region_maps, layout, [group.objects for group in found]))
    return object_targets(groups, regions).to(pipeline.device)


def regional_phrases(
    pipeline: DiffusionPipeline, request: Request, chunks: int, strength: float
) -> list[RegionalPhrase]:
    """A prompt for the n-th object of each layout; where a layout has fewer, the whole prompt without weight."""
    if strength == 0:
        return []
    size = tuple(side // pipeline.vae_scale_factor for side in request.size)
    found = []
    for objects in zip_longest(*(layout.objects for layout in request.layouts)):
        texts = [item.phrase if item else prompt for item, prompt in zip(objects, request.prompts, strict=True)]
        weights = [strength * region_of(item).coverage(*size) if item else torch.zeros(size) for item in objects]
        weight = torch.stack([weight.float() for weight in weights])[:, None].to(pipeline.device)
        found.append(RegionalPhrase(text_conditioning(pipeline, texts, chunks, request.size), weight))
    return found


def regional_texts(pipeline: DiffusionPipeline, request: Request, positive: dict[str, Any]) -> RegionalTexts | None:
    """The positive texts with the phrases of their layouts behind them; None where no layout has any, or beta is 0."""
    most = max(len(layout.objects) for layout in request.layouts)
    if not most or request.beta == 0:
        return None
    phrases = sorted({item.phrase for layout in request.layouts for item in layout.objects})
    encoded = text_conditioning(pipeline, phrases, 1, request.size)["encoder_hidden_states"]
    prompt = positive["encoder_hidden_states"]
    cell = pipeline.vae_scale_factor * denoiser_of(network_of(pipeline)).patch
    grid = request.size[0] // cell, request.size[1] // cell
    texts, cells = [], torch.zeros(len(prompt), 1 + most, grid[0] * grid[1], dtype=torch.bool)
    for b, layout in enumerate(request.layouts):
        own = [phrases.index(item.phrase) for item in layout.objects]
        texts.append(encoded[own + [0] * (most - len(own))].flatten(0, 1))
        found = RegionLayout(layout, (1,) * (1 + len(own))).cells(grid)
        cells[b, : len(found)] = found
    lengths = prompt.shape[1], *[encoded.shape[1]] * most
    mask = attention_mask(cells, lengths).to(prompt.device)
    arguments = {**positive, "encoder_hidden_states": torch.cat([prompt, torch.stack(texts)], 1)}
    return RegionalTexts(arguments, mask, request.sigmas[round(request.beta * (len(request.sigmas) - 1))])


def with_distilled_guidance(texts: Sequence[dict[str, Any]], request: Request, guidance_scale: float) -> float:
    """Flux's guidance as an input of the network, as in diffusers' pipeline: what remains is no guidance, 1.

    Raises RealCompoError for a negative prompt, which nothing would read.
    """
    if any(request.negatives):
        raise RealCompoError(
            "negative_prompt, or a layout's: Flux's guidance is distilled, and reads none; leave it out"
        )
    for text in texts:
        pooled = text["pooled_projections"]
        text["guidance"] = torch.full((len(pooled),), guidance_scale, device=pooled.device)
    return 1.0


def composed_parts(
    pipeline: DiffusionPipeline, request: Request, chunks: int, of: Literal["prompt", "layout"]
) -> list[ComposedPart]:
    """The n-th part of each prompt; where a prompt has fewer, the whole prompt without weight."""
    each = [
        layout_parts(layout) if of == "layout" else split_prompt(prompt)
        for prompt, layout in zip(request.prompts, request.layouts, strict=True)
    ]
    found = []
    for parts in zip_longest(*each):
        known = [part or Part(prompt, 0.0) for part, prompt in zip(parts, request.prompts, strict=True)]
        arguments = text_conditioning(pipeline, [part.text for part in known], chunks, request.size)
        weight = torch.tensor([part.weight for part in known], device=pipeline.device)[:, None, None, None]
        found.append(ComposedPart(arguments, weight))
    return found


def values_of_phrases(pipeline: DiffusionPipeline, request: Request, chunks: int, positive: dict[str, Any]) -> Tensor:
    """(B, T, d): the values of Structured Diffusion for each prompt, by the phrases of its layout."""
    chunk, found = pipeline.tokenizer.model_max_length, []
    for prompt, layout, whole in zip(request.prompts, request.layouts, positive["encoder_hidden_states"], strict=True):
        spans = prompt_spans(pipeline.tokenizer, prompt, [item.phrase for item in layout.objects], chunk)
        texts = [span.text for span in spans]
        alone = text_conditioning(pipeline, texts, chunks, request.size)["encoder_hidden_states"] if texts else []
        found.append(structured_values(whole, alone, spans, chunk))
    return torch.stack(found)


def sampler_of(name: str, seeds: Sequence[int], x: Tensor) -> Callable:
    """The sampler of that name; the noise that it adds comes from each item's own seed."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    generators = [torch.Generator().manual_seed(seed ^ NOISE_SEED) for seed in seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators]).to(x)

    return partial(STOCHASTIC[name], noise=noise)


def check_sampling(sampler: str, steps: int) -> None:
    """Raises RealCompoError for a sampler that is not known, and for less than one step."""
    if sampler not in SAMPLERS | STOCHASTIC:
        raise RealCompoError(f"sampler is {sampler!r}: choose one of {', '.join(SAMPLERS | STOCHASTIC)}")
    if steps < 1:
        raise RealCompoError(f"steps is {steps}: at least 1 is needed")


def check_flow(schedule: NoiseSchedule | FlowSchedule, sampler: str, balance: BalanceSettings) -> None:
    """Raises RealCompoError for what has no meaning with flow matching."""
    if not isinstance(schedule, FlowSchedule):
        return
    if sampler in STOCHASTIC:
        raise RealCompoError(
            f"sampler {sampler!r} adds noise to the signal, and SD3 and Flux mix both: choose one of "
            f"{', '.join(SAMPLERS)}"
        )
    if balance.rule == "superdiff":
        raise RealCompoError(
            "superdiff follows the densities of models that add noise to the signal, and SD3 and Flux mix both: choose "
            "another rule"
        )


def _joined_text(*texts: str | None) -> str | None:
    return ", ".join(text for text in texts if text) or None
