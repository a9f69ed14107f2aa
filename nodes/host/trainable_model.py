"""The host's MODEL, CLIP and VAE as a model that can be trained."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from realcompo_core.errors import Cancelled, RealCompoError
from realcompo_core.sampling.parametrisation import parametrisation
from realcompo_core.sampling.samplers import euler
from tokencompose_core.identity import model_fingerprint
from tokencompose_core.lora import add_lora, lora_state, remove_lora

from .inference_tensors import UsableTensors, usable_weights
from .memory import feed_forward, gradient_checkpointing, residual_and_self_attention
from .unet_attention import UNetAttention

ALL_MEMORY = 1e20  # bytes: the host unloads every other model


class HostModel:
    """`TrainableModel` of the host's objects.

    Images and captions are encoded once, before the training (`cache_latent`, `cache_text`), so that VAE and CLIP take
    no memory during it. The supervised layers are the cross-attention of the middle block and the decoder. Captions are
    cut off after one sequence of the text encoder. Raises RealCompoError for a MODEL that is no UNet with a discrete
    noise schedule.
    """

    def __init__(self, model: Any, clip: Any, vae: Any):
        unet, sampling = (model.get_model_object(name) for name in ("diffusion_model", "model_sampling"))
        family = type(model.model.model_config).__name__
        if not isinstance(unet, UNetModel) or model.model.concat_keys:
            raise RealCompoError(
                f"model: a {family} cannot be trained, whose network is a {type(unet).__name__}: TokenCompose needs a "
                "UNet that makes images from text (SD1.x, SD2.x, SDXL; no inpainting)"
            )
        if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
            raise RealCompoError(
                f"model: its noise schedule is a {type(sampling).__name__}: TokenCompose needs a discrete one. Take "
                "away the node that has changed it"
            )
        is_dynamic = getattr(model, "is_dynamic", None)
        if is_dynamic and is_dynamic():  # keeps weights outside of its modules: load them once more, as modules
            model = model.clone(disable_dynamic=True)
        self.clip, self.vae, self._model, self._sampling = clip, vae, model, sampling
        self.device = model.load_device
        self.tokenizer, self.text_length = caption_tokenizer(clip)
        self.alphas = 1 / (sampling.sigmas.cpu() ** 2 + 1)
        is_v = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
        self.parametrisation = parametrisation("v_prediction" if is_v else "epsilon")
        self._latents: dict[str, Tensor] = {}
        self._texts: dict[str, dict[str, Tensor]] = {}

    @property
    def network(self) -> nn.Module:
        return self._model.get_model_object("diffusion_model")

    @property
    def attention(self) -> UNetAttention:
        return UNetAttention(self.network)

    def cache_latent(self, key: str, image: Tensor) -> None:
        """Keep the latent of an image (3, H, W), -1 to 1, for `encode`."""
        pixels = (image.movedim(0, -1)[None] + 1) / 2
        self._latents[key] = self._model.model.process_latent_in(self.vae.encode(pixels)).float().cpu()

    def cache_text(self, caption: str, size: tuple[int, int]) -> None:
        """Keep the conditioning of a caption for images of this size (height, width), for `embed`."""
        tokens = self.clip.tokenize(without_emphasis(caption))
        cross, options = self.clip.encode_from_tokens_scheduled(tokens)[0]
        cross = cross[:, : self.text_length]
        found = self._model.model.extra_conds(
            **options, cross_attn=cross, height=size[0], width=size[1], device=self.device, prompt_type="positive"
        )
        text = {"context": cross} | ({"y": found["y"].cond} if "y" in found else {})
        self._texts[caption] = {name: tensor.float().cpu() for name, tensor in text.items()}

    def encode(self, images: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        latents = torch.cat([self._latents[key] for key in keys]).to(self.device)
        return latents, torch.zeros_like(latents)  # the host's autoencoders give the mean

    def embed(self, captions: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
        texts = [self._texts[caption] for caption in captions]
        return {name: torch.cat([text[name] for text in texts]).to(self.device) for name in texts[0]}

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        options = {**self._model.model_options.get("transformer_options", {})}
        # What the host tells patches of other packs about a pass of one conditioning.
        options |= {"cond_or_uncond": [0], "uuids": [uuid4()], "sigmas": self._sampling.sigma(timesteps)}
        options.setdefault("optimized_attention_override", _fused_attention)  # others may have no gradient
        with UsableTensors():
            return network(noisy, timesteps.float(), **conditioning, transformer_options=options)

    @contextmanager
    def training(self, rank: int, checkpointing: bool, seed: int) -> Iterator[None]:
        """Inside, `network` may be trained: adapters of `rank`, or with 0 its weights. Afterwards it is as before.

        `checkpointing` recomputes activations in the backward pass.
        """
        comfy.model_management.load_models_gpu([self._model], memory_required=ALL_MEMORY, force_full_load=True)
        network = self.network
        was_training = network.training
        with ExitStack() as stack:
            stack.callback(network.train, was_training)
            stack.enter_context(_kept_in_place(self._model))
            stack.enter_context(_uninterrupted_passes())
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(usable_weights([network]))
            self._own = dict(network.named_parameters())
            if rank:
                stack.callback(remove_lora, network)
                add_lora(network, rank, seed=seed)
                stack.enter_context(_cast_to_input(network))
            else:
                stack.enter_context(_copied_weights(network))
            if checkpointing:
                layers = feed_forward(network) + residual_and_self_attention(network)
                stack.enter_context(gradient_checkpointing(layers, UsableTensors))
            yield

    def learnt(self) -> dict[str, Tensor]:
        """Within `training`: the adapters, or what was added to each weight, as the host's LoRA loaders take it."""
        state = lora_state(self.network, "diffusion_model")
        if not state:
            for name, weight in self.network.named_parameters():
                layer, _, kind = name.rpartition(".")
                key = f"diffusion_model.{layer}.{'diff_b' if kind == 'bias' else 'diff'}"
                state[key] = weight.detach() - self._own[name].float()
        return {key: tensor.clone().cpu() for key, tensor in state.items()}

    def fingerprint(self) -> str:
        """Within `training`, before it begins: `model_fingerprint` of the UNet."""
        return model_fingerprint(self._own.items())

    @torch.no_grad()
    def sample(self, caption: str, size: tuple[int, int], seed: int, steps: int, cfg: float) -> Tensor:
        """(H, W, 3), 0 to 1: what the network draws now by Euler's method, as KSampler does with "euler" and "normal".

        `caption` and "" must be cached by `cache_text`, and a latent of this size (height, width) by `cache_latent`.
        Raises Cancelled at an interrupt.
        """
        self.network.eval()
        shape = next(iter(self._latents.values())).shape
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        times = torch.linspace(len(self.alphas) - 1, 0, steps, device=self.device)
        sigmas = [*self._sampling.sigma(times).tolist(), 0.0]
        conditioning = self.embed([caption, ""], size)

        def denoised(x: Tensor, sigma: float, step: Any) -> Tensor:
            if comfy.model_management.processing_interrupted():
                raise Cancelled
            sigma = torch.full((2,), sigma, device=x.device)
            both = x.expand(2, -1, -1, -1)
            output = self.predict(
                self.network,
                self._sampling.calculate_input(sigma, both),
                self._sampling.timestep(sigma),
                conditioning,
            )
            given, empty = self._sampling.calculate_denoised(sigma, output.float(), both).split(1)
            return empty + cfg * (given - empty)

        latent = euler(denoised, noise * (1 + sigmas[0] ** 2) ** 0.5, sigmas)
        with torch.inference_mode():  # as the host decodes: the autoencoder may be loaded only now
            return self.vae.decode(self._model.model.process_latent_out(latent).cpu())[0].clone()


def caption_tokenizer(clip: Any) -> tuple[Callable, int]:
    """A CLIP's tokenizer, as transformers call it, and the length of its sequence. Raises RealCompoError for others."""
    for name in ("clip_l", "clip_h", "clip_g"):
        found = getattr(clip.tokenizer, name, None)
        if found is not None:
            return found.tokenizer, found.max_length
    raise RealCompoError(
        f"clip: the tokens of a {type(clip.tokenizer).__name__} cannot be traced to words: take the CLIP of an SD1.x, "
        "SD2.x or SDXL checkpoint"
    )


def without_emphasis(caption: str) -> str:
    """The prompt that the host encodes as `caption` is written: brackets are escaped, so that they weight nothing."""
    return re.sub(r"([()])", r"\\\1", caption)


def _fused_attention(_, *args, **kwargs) -> Tensor:
    return attention_pytorch(*args, **kwargs)


@contextmanager
def _kept_in_place(model: Any) -> Iterator[None]:
    """Inside, the host does not move the model's weights to make room for another model."""
    loaded = comfy.model_management.current_loaded_models
    entries = [entry for entry in loaded if entry.model is model]
    for entry in entries:
        loaded.remove(entry)
    try:
        yield
    finally:
        loaded[:0] = entries


@contextmanager
def _uninterrupted_passes() -> Iterator[None]:
    """Inside, no layer looks for an interrupt: the step is completed, so that it is not lost."""
    look = comfy.ops.run_every_op
    comfy.ops.run_every_op = lambda: None
    try:
        yield
    finally:
        comfy.ops.run_every_op = look


@contextmanager
def _copied_weights(network: nn.Module) -> Iterator[None]:
    """Inside, the network has copies of its weights in fp32, with gradient."""
    own = []
    try:
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    own.append((module._parameters, name, weight))
                    module._parameters[name] = nn.Parameter(weight.detach().to(torch.float32, copy=True))
        yield
    finally:
        for weights, name, weight in own:
            weights[name] = weight


@contextmanager
def _cast_to_input(network: nn.Module) -> Iterator[None]:
    """Inside, layers whose weights are not in fp32 compute in their input's precision."""
    layers = [m for m in network.modules() if hasattr(m, "comfy_cast_weights")]
    layers = [m for m in layers if any(p is not None and p.dtype != torch.float32 for p in m._parameters.values())]
    own = [vars(layer).get("comfy_cast_weights") for layer in layers]
    for layer in layers:
        layer.comfy_cast_weights = True
    try:
        yield
    finally:
        for layer, value in zip(layers, own, strict=True):
            del layer.comfy_cast_weights
            if value is not None:
                layer.comfy_cast_weights = value
