"""Recording the attention of a MODEL of the host, whatever samples it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.patcher_extension
import torch
from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from realcompo_core.attention.maps import MapLayer
from realcompo_core.attention.recorder import Recorder
from realcompo_core.errors import RealCompoError
from realcompo_core.text.tokens import CHUNK

from .unet_attention import cross_attention

CONDITIONINGS = ("positive", "negative")  # by the host's `cond_or_uncond`
KEY = "realcompo_record"
SAME_LEVEL = 1e-3  # relative difference of noise levels that are one


def recorded(model: Any, recorder: Recorder, length: int = CHUNK, tell: Callable[[str], None] = logging.info) -> Any:
    """A clone of a MODEL whose sampling `recorder` follows. The newest sampling replaces what was recorded before.

    length: of a conditioning whose words are not known. tell: gets the size of the recording before it begins. What
    other packs have put around attention stays around it. Raises RealCompoError for a model whose attention is unknown.
    """
    network = model.get_model_object("diffusion_model")
    for known, kind in ((UNetModel, UNetAttention), (Flux, JointAttention), (MMDiT, JointAttention)):
        if isinstance(network, known):
            reading = kind(network, recorder)
            break
    else:
        raise RealCompoError(
            f"model: attention is recorded in UNets (SD1.x, SD2.x, SDXL), SD3 and Flux, and this model is a "
            f"{type(network).__name__}"
        )
    sampling = _Sampling(recorder, reading, length, tell)
    model = model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, sampling.sample)
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, sampling.apply_model)
    return model


class _Sampling:
    """What the wrappers around one model's sampling and passes do."""

    def __init__(self, recorder: Recorder, reading: UNetAttention | JointAttention, length: int, tell: Callable):
        self._recorder, self._reading, self._length, self._tell = recorder, reading, length, tell
        self._levels: list[float] = []
        self._kept: dict[int, bool] = {}
        self._size = (0, 0)

    def sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        self._levels, self._kept, self._size = sigmas.tolist()[:-1], {}, tuple(noise.shape[-2:])
        if self._levels:
            layers = self._reading.layers(self._size)
            steps = len(self._levels)
            size = self._recorder.begin(layers, self._length, len(noise), steps)
            kept = sum(self._recorder.wants(step) for step in range(steps))
            self._tell(f"Attention: {kept} of {steps} steps, {len(layers)} maps each, at most {size / 1e6:.0f} MB")
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

    def apply_model(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        step = self._step(float(t[0])) if tuple(x.shape[-2:]) == self._size and c_crossattn is not None else None
        if step is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        options = self._reading.options(transformer_options, c_crossattn.shape[1], self._size)
        try:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        finally:
            if self._reading.complete:
                self._recorder.end_pass(step, self._levels[step])
            else:
                self._recorder.drop_pass()

    def _step(self, level: float) -> int | None:
        """The step that a pass at this noise level belongs to, if it is wanted.

        A pass right at a level of the schedule replaces what was read between levels, which some samplers do.
        """
        step = min(range(len(self._levels)), key=lambda i: abs(self._levels[i] - level))
        exact = abs(self._levels[step] - level) <= SAME_LEVEL * level
        if not self._recorder.wants(step) or (self._kept.get(step) and not exact):
            return None
        self._kept[step] = exact
        return step


class UNetAttention:
    """The cross-attention of a UNet, read by the host's own patches."""

    complete = True  # layers are known by their names

    def __init__(self, network: UNetModel, recorder: Recorder):
        self._recorder = recorder
        keep = recorder.keep.layers
        found = [layer for layer in cross_attention(network) if keep != "decoder" or layer.part != "input"]
        if not found:
            raise RealCompoError("model: this UNet has no cross-attention, so that there is nothing to record")
        self._found = {layer.block: layer for layer in found}
        self._names = {
            layer.block: f"{layer.part} {layer.number}" + (f".{layer.depth}" if keep == "layers" else "")
            for layer in found
        }

    def layers(self, size: tuple[int, int]) -> list[tuple[MapLayer, int]]:
        """What is kept for a latent of this size, with the number of heads."""
        kept = {}
        for block, layer in self._found.items():
            reduced = -(-size[0] // layer.factor), -(-size[1] // layer.factor)
            kept[self._names[block]] = MapLayer(self._names[block], reduced), layer.heads
        return list(kept.values())

    def options(self, transformer: dict, length: int, size: tuple[int, int]) -> dict:
        replacements = {**transformer.get("patches_replace", {})}
        attention = {**replacements.get("attn2", {})}
        for block, name in self._names.items():
            other = attention.get(block, attention.get(block[:2]))
            attention[block] = partial(self._attend, name, other)
        return {**transformer, "patches_replace": {**replacements, "attn2": attention}}

    def _attend(self, layer: str, other: Callable | None, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        """q, k, v: (chunks · B, n, heads · d)."""
        heads = options["n_heads"]
        split_q, split_k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        _read_chunks(self._recorder, layer, split_q, split_k, options["cond_or_uncond"])
        if other is not None:
            return other(q, k, v, options)
        return optimized_attention(
            q, k, v, heads, attn_precision=options["attn_precision"], transformer_options=options
        )


class JointAttention:
    """The joint attention of SD3 and Flux: how much each part of the picture looks at each token of the text.

    Attention to the picture itself is left out, so that the maps add up to 1 over the text's tokens. SD3 does not say
    which block it runs: blocks are counted, and a pass in which one was skipped (skip-layer guidance) is not complete.
    """

    def __init__(self, network: Flux | MMDiT, recorder: Recorder):
        self._recorder = recorder
        if isinstance(network, Flux):
            blocks = {"double": network.double_blocks, "single": network.single_blocks}
            self._names = [f"{kind} {i}" for kind, found in blocks.items() for i in range(len(found))]
            self._heads, self._patch = network.num_heads, network.patch_size
        else:
            self._names = [f"joint {i}" for i in range(len(network.joint_blocks))]
            self._heads, self._patch = network.joint_blocks[0].x_block.attn.num_heads, network.patch_size

    def layers(self, size: tuple[int, int]) -> list[tuple[MapLayer, int]]:
        return [(MapLayer(name, self._grid(size)), self._heads) for name in self._names]

    def options(self, transformer: dict, length: int, size: tuple[int, int]) -> dict:
        rows, columns = self._grid(size)
        self._left = list(reversed(self._names))
        other = transformer.get("optimized_attention_override")
        attend = partial(self._attend, other, transformer["cond_or_uncond"], length, rows * columns)
        return {**transformer, "optimized_attention_override": attend}

    @property
    def complete(self) -> bool:
        return not self._left

    def _attend(self, other, chunks: list[int], length: int, cells: int, function, q, k, v, heads, *args, **kw):
        split = kw.get("skip_reshape", False)
        wide_q, wide_k = (t if split else t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        if wide_k.shape[2] >= length + cells:  # SD3.5 has layers in which the picture looks at itself alone
            text = wide_k[:, :, :length]
            _read_chunks(self._recorder, self._left.pop(), wide_q[:, :, length : length + cells], text, chunks)
        if other is not None:
            return other(function, q, k, v, heads, *args, **kw)
        return function(q, k, v, heads, *args, **kw)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return -(-size[0] // self._patch), -(-size[1] // self._patch)


def _read_chunks(recorder: Recorder, layer: str, q: Tensor, k: Tensor, chunks: list[int]) -> None:
    """Of several conditionings of one kind (regions, for instance) the first is read."""
    with torch.inference_mode(False), torch.no_grad():
        for kind, conditioning in enumerate(CONDITIONINGS):
            if kind in chunks:
                place, rows = chunks.index(kind), len(q) // len(chunks)
                own = slice(place * rows, (place + 1) * rows)
                recorder.read(conditioning, layer, q[own], k[own])
