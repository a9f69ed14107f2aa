"""RealCompo over diffusers: any two UNet pipelines that share a latent space become one balanced pipeline.

This is the only module that knows diffusers, and it needs nothing but the pipelines it is given: SD1.x, SD2.x, SDXL,
and UNets with GLIGEN's gated layers, in fp32, bf16 or fp16.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention import BasicTransformerBlock, GatedSelfAttentionDense
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..attention.reading import Gradient, MapReader, Objective
from ..errors import BranchMismatchError, Cancelled, RealCompoError
from ..guidance.balancer import Balancer, BalanceSettings, branch_names
from ..guidance.trace import Trace
from ..layout import MAX_OBJECTS, Layout
from ..layout.regions import covered_by_objects, region_maps
from ..providers import LayoutProvider, get_provider
from ..sampling.samplers import SAMPLERS
from ..text.tokens import phrase_tokens, token_groups
from .recording import cross_attention


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


class NoiseSchedule:
    """A diffusers scheduler's noise levels, as x = signal + sigma * noise."""

    def __init__(self, scheduler: Any):
        if not hasattr(scheduler, "alphas_cumprod"):
            raise BranchMismatchError(
                f"{type(scheduler).__name__} has no alphas_cumprod: use an SD1.x, SD2.x or SDXL model"
            )
        self.alphas = scheduler.alphas_cumprod.double().cpu().numpy()
        self.prediction = scheduler.config.prediction_type
        self._scheduler = scheduler
        self._log_sigmas = np.log((1 - self.alphas) / self.alphas) / 2

    def sigmas(self, steps: int) -> list[float]:
        """n + 1 levels, falling: those of the scheduler's own timesteps, then where it ends."""
        scheduler = deepcopy(self._scheduler)
        scheduler.set_timesteps(steps)
        timesteps = sorted({float(t) for t in scheduler.timesteps}, reverse=True)
        levels = np.exp(np.interp(timesteps, np.arange(len(self._log_sigmas)), self._log_sigmas))
        end = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        return [*levels.tolist(), ((1 - end) / end) ** 0.5]

    def timestep(self, sigma: float) -> float:
        return round(float(np.interp(np.log(sigma), self._log_sigmas, np.arange(len(self._log_sigmas)))), 4)

    def denoised(self, x: Tensor, output: Tensor, sigma: float) -> Tensor:
        """D from the network's output, by its prediction type."""
        if self.prediction == "epsilon":
            return x - sigma * output
        if self.prediction == "v_prediction":
            return x / (sigma**2 + 1) - sigma / (sigma**2 + 1) ** 0.5 * output
        return output


class UNetBranch:
    """One diffusers UNet with its conditioning, as the balancer wants it.

    `cond` and `uncond` are keyword arguments of the UNet for B items each; those under `cross_attention_kwargs`
    (GLIGEN's grounding) are dropped at noise level `grounded_above` and below. `layers` are the names of the attention
    modules whose maps `objective` judges; None where nothing is read.
    """

    def __init__(
        self,
        name: str,
        unet: nn.Module,
        schedule: NoiseSchedule,
        cond: dict[str, Any],
        uncond: dict[str, Any],
        guidance_scale: float,
        layers: Sequence[str] = (),
        objective: Objective | None = None,
        grounded_above: float = 0.0,
    ):
        self.name = name
        self._unet, self._schedule, self._guidance = unet, schedule, guidance_scale
        self._cond, self._uncond = cond, uncond
        self._attentions = [unet.get_submodule(layer) for layer in layers]
        self._blocks = [block for block in unet.modules() if isinstance(block, BasicTransformerBlock)]
        self._objective = objective
        self._grounded_above = grounded_above

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            if self._guidance == 1:
                return self._schedule.denoised(x, self._run(x, sigma, self._cond), sigma)
            uncond, cond = self._run(torch.cat([x, x]), sigma, _joined(self._uncond, self._cond)).chunk(2)
            return self._schedule.denoised(x, self._guided(cond, uncond), sigma)

    def gradient(self, x: Tensor, sigma: float) -> Gradient:
        with self._reading(x, stop=True) as reader:
            self._run(reader.x, sigma, self._cond)
        return reader.gradient

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        with self._reading(x, stop=False) as reader:
            output = self._run(reader.x, sigma, self._cond).detach()
        with torch.no_grad():
            if self._guidance != 1:
                output = self._guided(output, self._run(x, sigma, self._uncond))
            return self._schedule.denoised(x, output, sigma), reader.gradient

    def _guided(self, cond: Tensor, uncond: Tensor) -> Tensor:
        return uncond + self._guidance * (cond - uncond)

    def _run(self, x: Tensor, sigma: float, kwargs: dict[str, Any]) -> Tensor:
        """The UNet's raw output in x's precision."""
        if sigma <= self._grounded_above:
            kwargs = {key: value for key, value in kwargs.items() if key != "cross_attention_kwargs"}
        t = torch.tensor(self._schedule.timestep(sigma), device=x.device)
        scaled = (x / (sigma**2 + 1) ** 0.5).to(self._unet.dtype)
        return self._unet(scaled, t, **kwargs, return_dict=False)[0].to(x.dtype)

    @contextmanager
    def _reading(self, x: Tensor, stop: bool) -> Iterator[MapReader]:
        """A pass whose attention is read by hooks. Weights take no part in the gradient.

        Feed-forward layers with their norms, and gated layers, are recomputed in the backward pass: they hold most of
        the activations and take little of the time.
        """
        reader = MapReader(x, self._objective, len(self._attentions), stop)
        hooks = [
            attention.register_forward_pre_hook(partial(_read_attention, reader), with_kwargs=True)
            for attention in self._attentions
        ]
        trainable = [parameter for parameter in self._unet.parameters() if parameter.requires_grad]
        recomputed = {}
        for block in self._blocks:
            if block.norm_type == "layer_norm" and block.norm3 is not None:
                recomputed[block.norm3] = _identity
                recomputed[block.ff] = _recomputed(lambda x, norm=block.norm3.forward, ff=block.ff.forward: ff(norm(x)))
            if hasattr(block, "fuser"):
                recomputed[block.fuser] = _recomputed(block.fuser.forward)
        own_forwards = {module: vars(module).get("forward") for module in recomputed}  # set by offloading hooks
        for parameter in trainable:
            parameter.requires_grad_(False)
        for module, forward in recomputed.items():
            module.forward = forward
        try:
            with reader:
                yield reader
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module, forward in own_forwards.items():
                del module.forward
                if forward is not None:
                    module.forward = forward
            for hook in hooks:
                hook.remove()


def _identity(x: Tensor) -> Tensor:
    return x


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)


def _read_attention(reader: MapReader, attention: nn.Module, args: tuple, kwargs: dict) -> None:
    text = kwargs["encoder_hidden_states"]
    if attention.norm_cross:
        text = attention.norm_encoder_hidden_states(text)
    q, k = (
        projection(source).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for projection, source in ((attention.to_q, args[0]), (attention.to_k, text))
    )
    reader.read(q, k, attention.scale)


def _joined(uncond: Any, cond: Any) -> Any:
    """Two (nested) dictionaries of tensors as one, along the batch."""
    if isinstance(cond, dict):
        return {key: _joined(uncond[key], cond[key]) for key in cond}
    return torch.cat([uncond, cond])


def attention_layers(unet: nn.Module, layers: int | str) -> list[str]:
    """Names of cross-attention modules in the order in which they run.

    layers: a factor (all encoder and decoder blocks whose maps are that many times smaller than the latent: 4 is the
    method's choice) or a regular expression that is searched in the names.
    """
    known = cross_attention(unet)
    if isinstance(layers, str):
        chosen = [layer.name for layer in known if re.search(layers, layer.name)]
    else:
        chosen = [layer.name for layer in known if layer.part != "mid" and layer.factor == layers]
    if not chosen:
        raise RealCompoError(
            f"layers={layers!r} matches none of this UNet's cross-attention layers: "
            f"{', '.join(layer.name for layer in known)}"
        )
    return chosen


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
        77 tokens: all are encoded in as many chunks as the longest needs). `beta` is the share
        of the steps, from the start, in which GLIGEN's gates are open. `layers`: see `attention_layers`.
        `include_adjectives` lets an object's adjectives be attended to as well as its noun. `progress(done, steps)` is
        called after each step; `cancelled()` is asked before each, and makes this raise Cancelled.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        fidelity = self.pipelines[0]
        if sampler not in SAMPLERS:
            raise RealCompoError(f"sampler is {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if steps < 1:
            raise RealCompoError(f"steps is {steps}: at least 1 is needed")
        if not 0 <= beta <= 1:
            raise RealCompoError(f"beta is {beta}: it is a share of the steps, from 0 to 1")
        scale = fidelity.vae_scale_factor
        height, width = (n or fidelity.unet.config.sample_size * scale for n in (height, width))
        if height % 8 or width % 8:
            raise RealCompoError(f"the picture's size {width}x{height} is not divisible by 8")
        layouts = self._layouts(prompts, layout, provider, (width, height))
        negatives = [_joined_text(negative_prompt, item.negative) for item in layouts]
        sigmas = self.schedules[0].sigmas(steps)
        guidance = (
            [guidance_scale] * len(self.pipelines) if isinstance(guidance_scale, (int, float)) else guidance_scale
        )
        if len(guidance) != len(self.pipelines):
            raise RealCompoError(
                f"guidance_scale is {guidance}: give one, or one for each of the {len(self.pipelines)} branches"
            )
        names = branch_names(len(self.pipelines))
        branches = [
            build_branch(
                pipeline,
                schedule,
                prompts,
                negatives,
                layouts,
                size=(height, width),
                guidance_scale=guidance[k],
                layers=layers,
                include_adjectives=include_adjectives,
                grounded_above=sigmas[int(beta * steps)],
                name=names[k],
            )
            for k, (pipeline, schedule) in enumerate(zip(self.pipelines, self.schedules, strict=True))
        ]
        seeds = [seed + b for b in range(len(prompts))]
        shape = (fidelity.unet.config.in_channels, height // scale, width // scale)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        x = noise.to(fidelity.device) * (sigmas[0] ** 2 + 1) ** 0.5
        objects = torch.stack([covered_by_objects(item, *shape[1:]) for item in layouts])
        balancer = Balancer(branches, sigmas, seeds, objects, balance)
        balancer.trace.phrases = [
            phrase_groups(fidelity, p, item, include_adjectives)[1] for p, item in zip(prompts, layouts, strict=True)
        ]

        def model(x: Tensor, sigma: float, step) -> Tensor:
            if cancelled and cancelled():
                raise Cancelled
            return balancer(x, sigma, step)

        callback = (lambda i, *_: progress(i + 1, steps)) if progress else None
        x = SAMPLERS[sampler](model, x, sigmas, callback) / (sigmas[-1] ** 2 + 1) ** 0.5
        return Output(decode(fidelity, x), layouts, balancer.trace, x)

    def _layouts(self, prompts, layout, provider, size) -> list[Layout]:
        if layout is None:
            provider = get_provider(provider) if isinstance(provider, str) else provider
            return [provider.propose(prompt, size) for prompt in prompts]
        layouts = [layout] * len(prompts) if isinstance(layout, Layout) else list(layout)
        if len(layouts) != len(prompts):
            raise RealCompoError(f"{len(layouts)} layouts for {len(prompts)} prompts: give one, or one a prompt")
        return [item.validate() for item in layouts]


def build_branch(
    pipeline: DiffusionPipeline,
    schedule: NoiseSchedule,
    prompts: Sequence[str],
    negatives: Sequence[str | None],
    layouts: Sequence[Layout],
    size: tuple[int, int],
    guidance_scale: float,
    layers: int | str,
    include_adjectives: bool,
    grounded_above: float,
    name: str,
) -> UNetBranch:
    """One pipeline as a branch: its text encoded, its objects located in its tokens, its GLIGEN tokens made."""
    chunks = max(count_chunks(pipeline, text) for text in [*prompts, *(text or "" for text in negatives)])
    cond, uncond = (conditioning(pipeline, texts, chunks, size) for texts in (prompts, negatives))
    grounded = any(layout.objects for layout in layouts)
    if hasattr(pipeline.unet, "position_net"):
        open_gates(pipeline.unet)
        tokens = gligen_tokens(pipeline.tokenizer, pipeline.text_encoder, layouts)
        objects = {key: value.to(pipeline.unet.device, pipeline.unet.dtype) for key, value in tokens.items()}
        cond["cross_attention_kwargs"] = {"gligen": objects}
        uncond["cross_attention_kwargs"] = {"gligen": objects | {"masks": torch.zeros_like(objects["masks"])}}
    objective = None
    if grounded:
        groups, regions = [], []
        for prompt, layout in zip(prompts, layouts, strict=True):
            found, _ = phrase_groups(pipeline, prompt, layout, include_adjectives)
            groups.append([group.tokens for group in found])
            regions.append(partial(region_maps, layout, [group.objects for group in found]))
        objective = Objective(groups, regions)
    return UNetBranch(
        name,
        pipeline.unet,
        schedule,
        cond,
        uncond,
        guidance_scale,
        attention_layers(pipeline.unet, layers) if grounded else (),
        objective,
        grounded_above,
    )


def phrase_groups(pipeline: DiffusionPipeline, prompt: str, layout: Layout, include_adjectives: bool):
    """The layout's token groups in this pipeline's tokens, and a phrase for each."""
    phrases = [item.phrase for item in layout.objects]
    chunk = pipeline.tokenizer.model_max_length
    tokens = phrase_tokens(
        pipeline.tokenizer, prompt, phrases, include_adjectives=include_adjectives, weights=False, chunk=chunk
    )
    groups = token_groups(tokens)
    return groups, [phrases[group.objects[0]] for group in groups]


def text_encoders(pipeline: DiffusionPipeline) -> list[tuple[Any, nn.Module]]:
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    return [(tokenizer, encoder) for tokenizer, encoder in pairs if encoder is not None]


def count_chunks(pipeline: DiffusionPipeline, text: str) -> int:
    """How many sequences of the text encoder's length the text fills."""
    tokenizer = text_encoders(pipeline)[0][0]
    length = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return max(1, -(-length // (tokenizer.model_max_length - 2)))


def conditioning(
    pipeline: DiffusionPipeline, texts: Sequence[str | None], chunks: int, size: tuple[int, int]
) -> dict[str, Any]:
    """The UNet's text arguments for B texts; long ones are encoded in `chunks` sequences, one after the other.

    None is an absent negative prompt: the empty text, or zeros for models (SDXL) that were trained so.
    """
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
    result: dict[str, Any] = {"encoder_hidden_states": torch.cat(parts, -1).to(pipeline.unet.dtype)}
    if is_sdxl:
        pooled = pooled.to(pipeline.unet.dtype)
        if pipeline.config.force_zeros_for_empty_prompt:
            absent = [b for b, text in enumerate(texts) if text is None]
            result["encoder_hidden_states"][absent] = 0
            pooled[absent] = 0
        time_ids = torch.tensor([[*size, 0, 0, *size]] * len(texts)).to(pooled)
        result["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": time_ids}
    return result


def _chunk_ids(tokenizer: Any, text: str, chunks: int) -> list[list[int]]:
    """`chunks` rows of token ids, each BOS, text, EOS, padding."""
    length = tokenizer.model_max_length
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = []
    for i in range(chunks):
        row = [tokenizer.bos_token_id, *ids[i * (length - 2) : (i + 1) * (length - 2)], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return rows


def _joined_text(*texts: str | None) -> str | None:
    return ", ".join(text for text in texts if text) or None


def open_gates(unet: nn.Module) -> None:
    """diffusers' own GLIGEN pipeline closes the gates after its β and leaves them closed."""
    for module in unet.modules():
        if isinstance(module, GatedSelfAttentionDense):
            module.enabled = True


def gligen_tokens(tokenizer: Any, text_encoder: nn.Module, layouts: Sequence[Layout]) -> dict[str, Tensor]:
    """Inputs of GLIGEN's position net: boxes (B, 30, 4), masks (B, 30), positive_embeddings (B, 30, width)."""
    width = text_encoder.config.hidden_size
    boxes = torch.zeros(len(layouts), MAX_OBJECTS, 4)
    masks, embeddings = torch.zeros(len(layouts), MAX_OBJECTS), torch.zeros(len(layouts), MAX_OBJECTS, width)
    for b, layout in enumerate(layouts):
        if n := len(layout.objects):
            phrases = [item.phrase for item in layout.objects]
            ids = tokenizer(phrases, padding=True, truncation=True, return_tensors="pt").input_ids
            embeddings[b, :n] = text_encoder(ids.to(text_encoder.device)).pooler_output.float().cpu()
            boxes[b, :n] = torch.tensor([item.box for item in layout.objects])
            masks[b, :n] = 1
    return {"boxes": boxes, "masks": masks, "positive_embeddings": embeddings}


def decode(pipeline: DiffusionPipeline, latents: Tensor) -> list[Image.Image]:
    """Latents (B, C, h, w) to pictures; in fp32 where the autoencoder asks for it."""
    vae = pipeline.vae
    dtype = torch.float32 if getattr(vae.config, "force_upcast", False) else vae.dtype
    latents = (latents / vae.config.scaling_factor).to(vae.device, dtype)
    before = vae.dtype
    try:
        if dtype != before:
            vae.to(dtype)
        pictures = vae.decode(latents, return_dict=False)[0]
    finally:
        if dtype != before:
            vae.to(before)
    return pipeline.image_processor.postprocess(pictures.float())


def is_sdxl_file(path: str) -> bool:
    """Whether a `.safetensors` checkpoint holds SDXL's second text encoder."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return any(key.startswith("conditioner.embedders.1.") for key in file.keys())


def check_match(fidelity: DiffusionPipeline, spatial: DiffusionPipeline) -> None:
    """Refuse two pipelines that cannot denoise the same latent; the message names both sides."""

    def differ(what: str, a: Any, b: Any, advice: str) -> None:
        if a != b:
            raise BranchMismatchError(f"{what} differ: {a} in the fidelity pipeline, {b} in the spatial one. {advice}")

    same_family = "Use two models of one family (both SD1.x, both SD2.x, or both SDXL)."
    differ("latent channels", *(p.unet.config.in_channels for p in (fidelity, spatial)), same_family)
    differ("latent scaling factors", *(p.vae.config.scaling_factor for p in (fidelity, spatial)), same_family)
    differ("text widths", *(p.unet.config.cross_attention_dim for p in (fidelity, spatial)), same_family)
    ends = []
    for pipeline in (fidelity, spatial):
        alphas = NoiseSchedule(pipeline.scheduler).alphas
        ends.append(f"{len(alphas)} levels, last signal share {alphas[-1]:.6f}")
    differ("noise schedules", *ends, "Use models trained on the same schedule.")
    for pipeline in (fidelity, spatial):
        expected, given = pipeline.vae.config.latent_channels, pipeline.unet.config.in_channels
        if given != expected:
            raise BranchMismatchError(
                f"the UNet of {type(pipeline).__name__} takes {given} channels, its autoencoder gives {expected}: "
                "inpainting and editing models are not supported, use the text-to-image model of the family"
            )
