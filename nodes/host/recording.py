"""Recording the attention of a MODEL of the host, whatever samples it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch

from realcompo_core.attention.recorder import Recorder
from realcompo_core.attention.source import AttentionEvent, NetworkPass
from realcompo_core.text.tokens import CHUNK

from .chunks import KINDS, whole_picture
from .frames import Frames
from .sources import attention_source, is_lookahead

KEY = "realcompo_record"
SAME_SIGMA = 1e-3  # relative difference of noise levels that are one


def recorded(model: Any, recorder: Recorder, length: int = CHUNK, tell: Callable[[str], None] = logging.info) -> Any:
    """A clone of a MODEL whose sampling `recorder` follows. The newest sampling replaces what was recorded before.

    length: of a conditioning whose words are not known. tell: gets the size of the recording before it begins. What
    other packs have put around attention stays around it. Raises RealCompoError for a model whose attention is unknown.
    """
    sampling = _Sampling(recorder, attention_source(model), length, tell)
    model = model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, sampling.sample)
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, sampling.apply_model)
    return model


class _Sampling:
    """What the wrappers around one model's sampling and passes do."""

    def __init__(self, recorder: Recorder, source, length: int, tell: Callable):
        self._recorder, self._source, self._length, self._tell = recorder, source, length, tell
        self._layers = recorder.kept(source.layers)
        self._sigmas: list[float] = []
        self._kept: dict[int, bool] = {}
        self._size, self._frames = (0, 0), 1
        self._guider: Any = None

    def sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        self._sigmas, self._kept, self._size = sigmas.tolist()[:-1], {}, tuple(noise.shape[-2:])
        self._frames = Frames.of(noise).count or 1
        self._guider = executor.class_obj
        if self._sigmas:
            steps = len(self._sigmas)
            height, width = self._size
            whole = self._frames * height, width
            size = self._recorder.begin(self._layers, whole, self._length, len(noise), steps)
            kept = sum(self._recorder.wants(step) for step in range(steps))
            maps = len(self._recorder.branch.layers)
            self._tell(f"Attention: {kept} of {steps} steps, {maps} maps each, at most {size / 1e6:.0f} MB")
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            self._guider = None

    def apply_model(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        options, sigma = transformer_options, float(t[0])
        wanted = tuple(x.shape[-2:]) == self._size and c_crossattn is not None and not is_lookahead(options)
        step = self._step(sigma) if wanted else None
        if step is None:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        names = self._names(options, sigma)
        running = NetworkPass(self._size, tuple(names), "step", c_crossattn.shape[1], self._frames)
        options = self._source.patched(options, self._read, running, lambda _: names, self._layers)
        try:
            result = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        except BaseException:
            self._recorder.drop_pass()
            raise
        self._recorder.end_pass(step, self._sigmas[step])
        return result

    def _read(self, event: AttentionEvent) -> None:
        with torch.inference_mode(False), torch.no_grad():  # what is kept must be of use outside of the host's nodes
            self._recorder.read(event)

    def _names(self, options: dict, sigma: float) -> list[str | None]:
        """Which conditioning each part of the batch is.

        Of a guider's positive conditioning it is the entry that acts on the whole picture: regions have prompts of
        their own. Where a guider keeps conditionings in another way, the host's order tells positive from negative.
        """
        conds = getattr(self._guider, "conds", {})
        wanted = {}
        for name in KINDS:
            entry = whole_picture(conds.get(name) or (), sigma)
            if entry is not None:
                wanted.setdefault(entry["uuid"], name)
        names = [wanted.get(uuid) for uuid in options["uuids"]]
        known = {entry.get("uuid") for found in conds.values() for entry in found or ()}
        if not known.isdisjoint(options["uuids"]):
            return names
        return [KINDS[kind] if kind < len(KINDS) else None for kind in options["cond_or_uncond"]]

    def _step(self, sigma: float) -> int | None:
        """The step that a pass at this noise level belongs to, if it is wanted.

        A pass right at a level of the schedule replaces what was read between levels, which some samplers do.
        """
        if not self._sigmas:
            return None
        step = min(range(len(self._sigmas)), key=lambda i: abs(self._sigmas[i] - sigma))
        exact = abs(self._sigmas[step] - sigma) <= SAME_SIGMA * sigma
        if not self._recorder.wants(step) or (self._kept.get(step) and not exact):
            return None
        self._kept[step] = exact
        return step
