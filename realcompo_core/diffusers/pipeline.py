"""RealCompo over diffusers: any two UNet pipelines that share a latent space become one balanced pipeline.

It needs nothing but the pipelines it is given: SD1.x, SD2.x, SDXL, and UNets with GLIGEN's gated layers, in fp32, bf16
or fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from ..attention.losses import Objective
from ..attention.targets import object_targets
from ..errors import Cancelled, RealCompoError
from ..guidance.balancer import Balancer
from ..guidance.branch import branch_names
from ..guidance.settings import BalanceSettings
from ..guidance.trace import Trace
from ..layout import Layout
from ..layout.regions import covered_by_objects, region_maps
from ..providers import LayoutProvider, get_provider
from ..sampling.samplers import SAMPLERS
from .branch import UNetBranch
from .conditioners import conditioners
from .latents import decode
from .matching import check_match, is_sdxl_file
from .schedule import NoiseSchedule
from .text_conditioning import count_chunks, phrase_groups, text_conditioning
from .unet_attention import UNetAttention


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
class Request:
    """What is to be drawn, for all branches: B prompts with their negative prompts and layouts.

    size: height and width in pixels. sigmas: the noise levels that will be sampled. beta, layers and include_adjectives
    as in `RealCompoPipeline.__call__`.
    """

    prompts: Sequence[str]
    negatives: Sequence[str | None]
    layouts: Sequence[Layout]
    size: tuple[int, int]
    sigmas: Sequence[float]
    beta: float
    layers: int | str
    include_adjectives: bool


class RealCompoPipeline:
    """A fidelity pipeline and one or more spatial ones, balanced. The UNets stay theirs: nothing is copied.

    Raises BranchMismatchError where the pipelines cannot denoise the same latent.
    """

    def __init__(self, fidelity: DiffusionPipeline, *spatial: DiffusionPipeline):
        if not spatial:
            raise RealCompoError("no spatial pipeline was given: RealCompoPipeline(fidelity, spatial)")
        self.pipelines = (fidelity, *spatial)
        for other in spatial:
            check_match(fidelity, other)
        self.schedules = [NoiseSchedule(pipeline.scheduler) for pipeline in self.pipelines]

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
        balance: BalanceSettings | None = None,
        beta: float = 1.0,
        layers: int | str = 4,
        include_adjectives: bool = False,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Output:
        """One picture a prompt.

        layout: one, or one a prompt; None asks `provider` (an object or a name). guidance_scale: one, or one a branch.
        Item b of the batch draws its noise from `seed + b` and does not depend on the other items (but for prompts over
        77 tokens: all are encoded in as many chunks as the longest needs). `beta` is the share of the steps, from the
        start, in which the layout conditions the spatial branch (GLIGEN's gates are open). `layers`: see
        `UNetAttention.choose`. `include_adjectives` lets an object's adjectives be attended to as well as its noun.
        `progress(done, steps)` is called after each step; `cancelled()` is asked before each, and makes this raise
        Cancelled.
        """
        _check_settings(sampler, steps, beta)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        size = self._size(height, width)
        layouts = self._layouts(prompts, layout, provider, size[::-1])
        negatives = [_joined_text(negative_prompt, item.negative) for item in layouts]
        sigmas = self.schedules[0].sigmas(steps)
        request = Request(prompts, negatives, layouts, size, sigmas, beta, layers, include_adjectives)
        branches = self._branches(request, guidance_scale)
        seeds = [seed + b for b in range(len(prompts))]
        x = self._initial_latent(size, seeds, sigmas[0])
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
        x = SAMPLERS[sampler](model, x, sigmas, callback)
        latents = self.schedules[0].parametrisation.scale_input(x, sigmas[-1])
        return Output(decode(self.pipelines[0], latents), layouts, balancer.trace, latents)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels, the fidelity model's own where they are not given."""
        fidelity = self.pipelines[0]
        height, width = (n or fidelity.unet.config.sample_size * fidelity.vae_scale_factor for n in (height, width))
        if height % 8 or width % 8:
            raise RealCompoError(f"the picture's size {width}x{height} is not divisible by 8")
        return height, width

    def _layouts(self, prompts, layout, provider, size: tuple[int, int]) -> list[Layout]:
        """One a prompt. size: width and height."""
        if layout is None:
            provider = get_provider(provider) if isinstance(provider, str) else provider
            return [provider.propose(prompt, size) for prompt in prompts]
        layouts = [layout] * len(prompts) if isinstance(layout, Layout) else list(layout)
        if len(layouts) != len(prompts):
            raise RealCompoError(f"{len(layouts)} layouts for {len(prompts)} prompts: give one, or one a prompt")
        return [item.validate() for item in layouts]

    def _branches(self, request: Request, guidance_scale: float | Sequence[float]) -> list[UNetBranch]:
        count = len(self.pipelines)
        guidance = [guidance_scale] * count if isinstance(guidance_scale, (int, float)) else guidance_scale
        if len(guidance) != count:
            raise RealCompoError(f"guidance_scale is {guidance}: give one, or one for each of the {count} branches")
        parts = zip(branch_names(count), self.pipelines, self.schedules, guidance, strict=True)
        return [build_branch(name, pipeline, schedule, request, scale) for name, pipeline, schedule, scale in parts]

    def _initial_latent(self, size: tuple[int, int], seeds: Sequence[int], sigma: float) -> Tensor:
        """Each item's noise comes from its own seed, drawn on the CPU, so that it is the same on every device."""
        fidelity = self.pipelines[0]
        scale = fidelity.vae_scale_factor
        shape = (fidelity.unet.config.in_channels, size[0] // scale, size[1] // scale)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return self.schedules[0].parametrisation.initial_latent(noise.to(fidelity.device), sigma)


def build_branch(
    name: str, pipeline: DiffusionPipeline, schedule: NoiseSchedule, request: Request, guidance_scale: float
) -> UNetBranch:
    """One pipeline as a branch: its text encoded, its conditioners made, its objects located in its tokens."""
    chunks = max(count_chunks(pipeline, text or "") for text in [*request.prompts, *request.negatives])
    positive, negative = (
        text_conditioning(pipeline, texts, chunks, request.size) for texts in (request.prompts, request.negatives)
    )
    return UNetBranch(
        name,
        pipeline.unet,
        schedule,
        positive,
        negative,
        guidance_scale,
        conditioners(pipeline, request.layouts, request.beta, request.sigmas),
        objective(pipeline, request),
    )


def objective(pipeline: DiffusionPipeline, request: Request) -> Objective | None:
    """The grounding loss of the request's layouts in this pipeline's tokens; None where no layout has an object."""
    if not any(layout.objects for layout in request.layouts):
        return None
    groups, regions = [], []
    for prompt, layout in zip(request.prompts, request.layouts, strict=True):
        found, _ = phrase_groups(pipeline, prompt, layout, request.include_adjectives)
        groups.append([group.tokens for group in found])
        regions.append(partial(region_maps, layout, [group.objects for group in found]))
    return Objective(UNetAttention(pipeline.unet).choose(request.layers), object_targets(groups, regions))


def _check_settings(sampler: str, steps: int, beta: float) -> None:
    if sampler not in SAMPLERS:
        raise RealCompoError(f"sampler is {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    if steps < 1:
        raise RealCompoError(f"steps is {steps}: at least 1 is needed")
    if not 0 <= beta <= 1:
        raise RealCompoError(f"beta is {beta}: it is a share of the steps, from 0 to 1")


def _joined_text(*texts: str | None) -> str | None:
    return ", ".join(text for text in texts if text) or None
