"""One branch in the host: a guider, whose model's cross-attention can be read with gradient."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from realcompo_core.attention.input_gradients import FrozenNetwork
from realcompo_core.attention.reading import Gradient, MapReader, Objective
from realcompo_core.errors import RealCompoError

from .checkpointing import feed_forward, recomputed, residual_and_self_attention
from .prompt_tokens import covers_picture
from .unet_attention import cross_attention

AttentionBlock = tuple[str, int, int]
"""A cross-attention block as the host numbers them: ("input", "middle" or "output", number, transformer)."""


USUAL_FACTOR = 4
SKIPPED = (
    "branch {}: another pack's wrapper did not run the model, so that no attention could be read. Take that node (a "
    "step cache, for instance) off this branch's model"
)


SEES_PASSES = {"sampler_calc_cond_batch_function", "model_function_wrapper", "multigpu_clones"}


def attention_blocks(unet: nn.Module, factor: int = 0) -> list[AttentionBlock]:
    """The encoder's and decoder's cross-attention blocks whose maps are `factor` times smaller than the latent.

    0 takes 4 where the network has it, else its coarsest. In the order in which they run. Raises RealCompoError for a
    network without such blocks.
    """
    if not isinstance(unet, UNetModel):
        raise RealCompoError(
            f"the balancer reads the cross-attention of a UNet (SD1.x, SD2.x, SDXL), and this model is a "
            f"{type(unet).__name__}: use it outside of the balancer, or take a UNet checkpoint"
        )
    found: dict[int, list[AttentionBlock]] = {}
    for layer in cross_attention(unet):
        if layer.part != "middle":
            found.setdefault(layer.factor, []).append(layer.block)
    if factor == 0 and found:
        factor = USUAL_FACTOR if USUAL_FACTOR in found else max(found)
    if factor not in found:
        raise RealCompoError(
            f"attention layers at 1/{factor} of the latent's side: this UNet has cross-attention at "
            f"{', '.join(f'1/{size}' for size in sorted(found)) or 'no size'}"
        )
    return found[factor]


class HostBranch:
    """A guider of the host as a branch of the balancer (see `realcompo_core.guidance.balancer.Branch`).

    predict: the guider's own guided prediction, (x, timestep, model_options, seed) -> D. Whatever other packs have put
    around it stays around it.
    """

    def __init__(
        self,
        name: str,
        guider: comfy.samplers.CFGGuider,
        predict: Callable,
        model_options: dict,
        seed: int | None,
        objective: Objective | None,
        blocks: Sequence[AttentionBlock],
    ):
        self.name = name
        self.model_options = model_options
        self._guider, self._predict, self._seed = guider, predict, seed
        self._objective, self._blocks = objective, list(blocks)
        self._joined: JoinedPasses | None = None

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        options = self.model_options
        if self._joined is not None:
            options = {**options, "sampler_calc_cond_batch_function": self._calculate}
        return self._predict(x, _timestep(x, sigma), options, self._seed)

    def gradient(self, x: Tensor, sigma: float) -> Gradient:
        def run(x: Tensor) -> Gradient:
            return self._read(x, sigma, stop=True)[1]

        return _within_memory(run, x, self._unet)

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        """The guided prediction, its conditional pass taken with gradient up to the last map that is read."""
        found: list[Gradient] = []

        def run(x: Tensor) -> tuple[Tensor, Gradient]:
            return self._read(x, sigma, stop=False)

        def calculate(args: dict) -> list[Tensor]:
            positive, negative = args["conds"]
            conditional, gradient = _within_memory(run, x, self._unet)
            found.append(gradient)
            if negative is None:
                return [conditional, torch.zeros_like(conditional)]
            rest = {**args, "conds": [None, negative]}  # at its place: other packs ask which of the two it is
            return [conditional, self._calculate(rest)[1]]

        options = {**self.model_options, "sampler_calc_cond_batch_function": calculate}
        denoised = self._predict(x, _timestep(x, sigma), options, self._seed)
        if not found:
            raise RealCompoError(SKIPPED.format(self.name))
        return denoised, found[0]

    def conditionings(self, positive: bool) -> list:
        """Those that a guided prediction needs: positive (None unless asked for) and negative (None at CFG 1)."""
        conds = self._guider.conds
        return [
            conds["positive"] if positive else None,
            None if math.isclose(self._guider.cfg, 1.0) else conds["negative"],
        ]

    def is_plain(self) -> bool:
        """Whether no patch or wrapper of another pack sees the passes: it may ask which of two conditionings is run."""
        transformer = self.model_options.get("transformer_options", {})
        wrapped = any(found for kind in transformer.get("wrappers", {}).values() for found in kind.values())
        patched = any(transformer.get(key) for key in ("patches", "patches_replace", "optimized_attention_override"))
        return not (wrapped or patched or self.model_options.keys() & SEES_PASSES)

    @property
    def _unet(self) -> nn.Module:
        return self._guider.inner_model.diffusion_model

    def _networks(self) -> list[nn.Module]:
        """The UNet, and the GLIGEN and ControlNet models that the host has loaded for this branch."""
        loaded = [patcher.model for patcher in self._guider.loaded_models]
        return [self._unet, *(m for m in loaded if isinstance(m, nn.Module) and not isinstance(m, BaseModel))]

    def _read(self, x: Tensor, sigma: float, stop: bool) -> tuple[Tensor | None, Gradient]:
        """The conditional prediction at x, None with `stop`, and the gradient of the loss on its maps."""
        positive = self._guider.conds["positive"]
        wanted = next((cond["uuid"] for cond in positive if _acts_everywhere(cond, sigma)), None)
        if wanted is None:
            raise RealCompoError(
                f"branch {self.name}: no positive conditioning covers the whole picture at noise level {sigma:.3g}, so "
                "no attention can be read: keep one of the layout's prompt without area or mask, for all of sampling"
            )
        output = None
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode(False):
            reader = MapReader(x.clone(), self._objective, len(self._blocks), stop)
            args = {
                "conds": [positive],
                "input": reader.x,
                "sigma": _timestep(reader.x, sigma),
                "model": self._guider.inner_model,
                "model_options": self._reading_options(reader, wanted),
            }
            with usable_weights(self._networks()), UsableTensors(), reader:
                output = self._calculate_alone(args)[0].detach()
        comfy.model_management.throw_exception_if_processing_interrupted()
        if reader.gradient is None:
            raise RealCompoError(SKIPPED.format(self.name))
        return output, reader.gradient

    def _calculate(self, args: dict) -> list[Tensor]:
        """The host's step from conditionings to predictions, with those of other branches on the model if it may be."""
        return self._calculate_alone(args) if self._joined is None else self._joined.calculate(self, args)

    def _calculate_alone(self, args: dict) -> list[Tensor]:
        other = self.model_options.get("sampler_calc_cond_batch_function")
        return calculate(args) if other is None else other(args)

    def _reading_options(self, reader: MapReader, wanted) -> dict:
        """The branch's options with a reading patch on each block, around whatever patch is already there."""
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        transformer = options["transformer_options"] = {**options.get("transformer_options", {})}
        replacements = {**transformer.get("patches_replace", {})}
        attention = {**replacements.get("attn2", {})}
        for block in self._blocks:
            other = attention.get(block, attention.get(block[:2]))
            attention[block] = partial(_read_attention, reader, wanted, other)
        replacements["attn2"] = attention
        transformer["patches_replace"] = replacements
        patches = {**transformer.get("patches", {})}
        # The host adds a ControlNet's output in place to what autograd has kept: give it a copy.
        patches["input_block_patch_after_skip"] = [*patches.get("input_block_patch_after_skip", []), _copied]
        transformer["patches"] = patches
        if reader.x.device.type == "cpu":  # the host's choice there keeps 50 times the memory
            transformer.setdefault("optimized_attention_override", _fused_attention)
        return options


class JoinedPasses:
    """Branches on one model at one x: all their conditionings go to the host at once, which batches what it can."""

    def __init__(self, branches: Sequence[HostBranch], reading: Sequence[HostBranch]):
        self._conds = {branch: branch.conditionings(branch not in reading) for branch in branches}
        self._found: dict[HostBranch, list[Tensor]] = {}

    def calculate(self, branch: HostBranch, args: dict) -> list[Tensor]:
        """What the host would give for `args` of this branch; computed with the others' when the first one asks."""
        if not self._found:
            self._conds[branch] = args["conds"]
            outputs = calculate({**args, "conds": [cond for conds in self._conds.values() for cond in conds]})
            self._found = dict(zip(self._conds, zip(outputs[::2], outputs[1::2], strict=True), strict=True))
        return list(self._found[branch])


@contextmanager
def joined_passes(branches: Sequence[HostBranch], reading: Sequence[HostBranch]) -> Iterator[None]:
    """Inside, these branches are run at one x, those in `reading` with gradient of their positive conditionings."""
    groups: dict[int, list[HostBranch]] = {}
    for branch in branches:
        if branch.is_plain():
            groups.setdefault(id(branch._unet), []).append(branch)
    try:
        for group in groups.values():
            if len(group) > 1:
                joined = JoinedPasses(group, reading)
                for branch in group:
                    branch._joined = joined
        yield
    finally:
        for branch in branches:
            branch._joined = None


def calculate(args: dict) -> list[Tensor]:
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


def _acts_everywhere(cond: dict, sigma: float) -> bool:
    """Whether a conditioning is without area and mask, and in its range of timesteps."""
    start, end = cond.get("timestep_start"), cond.get("timestep_end")
    in_time = (start is None or sigma <= start) and (end is None or sigma >= end)
    return in_time and covers_picture(cond)


def _timestep(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, device=x.device)


def _read_attention(reader: MapReader, wanted, other: Callable | None, q: Tensor, k: Tensor, v: Tensor, options: dict):
    """q, k, v: (chunks · B, n, heads · d). Reads the chunk of the conditioning `wanted`, then attends as before."""
    if wanted in options["uuids"]:
        chunk, heads = options["uuids"].index(wanted), options["n_heads"]
        size = len(q) // len(options["uuids"])
        rows = slice(chunk * size, (chunk + 1) * size)
        reader.read(*(t[rows].unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)))
    if other is not None:
        return other(q, k, v, options)
    return optimized_attention(
        q, k, v, options["n_heads"], attn_precision=options["attn_precision"], transformer_options=options
    )


def _copied(h: Tensor, options: dict) -> Tensor:
    return h.clone()


def _fused_attention(_, *args, **kwargs) -> Tensor:
    return attention_pytorch(*args, **kwargs)


@contextmanager
def usable_weights(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, autograd may use the networks' weights.

    The host makes them in inference mode, and autograd refuses such tensors. Each is replaced by one on the same
    memory, and put back whatever happens.
    """
    replaced = []
    try:
        for network in networks:
            for module in network.modules():
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        if tensor is not None and tensor.is_inference():
                            replaced.append((tensors, name, tensor))
                            tensors[name] = _usable(tensor)
        yield
    finally:
        for tensors, name, tensor in replaced:
            tensors[name] = tensor


class UsableTensors(TorchFunctionMode):
    """The same, call by call, for conditionings and for weights that the host keeps outside of its modules."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*tree_map(_usable, args), **tree_map(_usable, kwargs or {}))


def _usable(value):
    if not isinstance(value, Tensor) or not value.is_inference():
        return value
    alias = torch.empty(0, dtype=value.dtype, device=value.device)
    alias.set_(value.untyped_storage(), value.storage_offset(), value.size(), value.stride())
    return nn.Parameter(alias, requires_grad=False) if isinstance(value, nn.Parameter) else alias


def _within_memory(run: Callable, x: Tensor, unet: nn.Module):
    """`run(x)`; when memory is short, with more recomputed in the backward pass, and then item by item."""
    out_of_memory = comfy.model_management.OOM_EXCEPTION
    for everything, then in ((False, "recomputing more layers"), (True, "taking one picture at a time")):
        try:
            with _recomputed(unet, everything):
                return run(x)
        except out_of_memory:
            comfy.model_management.soft_empty_cache()
            logging.warning("RealCompo: memory is short for the gradient, %s", then)
    if len(x) == 1:
        raise RealCompoError(
            f"not enough memory for the gradient of one picture of {x.shape[-1]}x{x.shape[-2]} latent pixels: choose a "
            "smaller size, `fixed` weights, or start the host with --lowvram"
        )
    with _recomputed(unet, everything=True):
        return _joined([run(x[b : b + 1]) for b in range(len(x))])


def _joined(parts: list):
    """Batches of one as a batch: tensors, Gradients, or tuples of them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    joined = [_joined(list(part)) for part in zip(*parts, strict=True)]
    return Gradient(*joined) if isinstance(first, Gradient) else tuple(joined)


def _recomputed(unet: nn.Module, everything: bool) -> AbstractContextManager:
    """Inside, feed-forward layers (and self-attention and residual blocks, with `everything`) keep only their input."""
    modules = feed_forward(unet)
    if everything:
        modules += residual_and_self_attention(unet)
    return recomputed(modules, _modes)


@contextmanager
def _modes() -> Iterator[None]:
    with UsableTensors(), FrozenNetwork():
        yield
