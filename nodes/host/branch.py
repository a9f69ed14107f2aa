"""One branch in the host: a guider, whose model's attention to the text can be read with gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.flux import math as flux_math
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.qwen_image import model as qwen_image
from comfy.ldm.wan import model as wan
from comfy.model_base import BaseModel
from torch import Tensor, nn

from realcompo_core.attention.losses import Objective
from realcompo_core.attention.reading import Gradient, GradientReader
from realcompo_core.attention.saved_tensors import keep_saved_tensors
from realcompo_core.attention.source import NetworkPass, Stage

from .chunks import PLACE, acts_at, by_uuid, whole_picture
from .composed import composes
from .controls import chain, detached
from .frames import Frames
from .inference_tensors import UsableTensors, usable_weights
from .joined_passes import JoinedPasses, calculate
from .memory import within_memory
from .sources import STAGE, HostAttention

SKIPPED = (
    "branch {}: another pack's wrapper did not run the model, and this sampler needs its unconditional estimate. Take "
    "that node (a step cache, for instance) off this branch's model, or choose another sampler"
)
OF_RESULTS = {  # model options that see guided results, and no pass through the network
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
    "denoise_mask_function",
}
HOSTS_OWN = {"transformer_options", "to_load_options", "sample_sigmas"}  # options that are there in any sampling
COMPILED = {"apply_model": ("torch.compile",)}  # wrappers by kind and key: gradients take the network as it is
STEP_CACHES = {"calc_cond_batch": ("easycache",), "diffusion_model": ("easycache",)}  # look-aheads are no steps


class HostBranch:
    """A guider of the host as a branch of the balancer (see `realcompo_core.guidance.branch.Branch`).

    predict: the guider's own guided prediction, (x, timestep, model_options, seed) -> D. Whatever other packs have put
    around it stays around it. objective: what is asked of the maps of `source`; None where nothing is read.
    detach_control: no gradient flows through the ControlNets of a reading. estimates: while the branch is watched, the
    conditional and the unconditional estimate behind the newest D. unread: how often a map was wanted and another
    pack's wrapper had the network skipped. frames: of the latent. The balancer sees them one below the other, and so
    are all latents here; the host's functions get them with their time axis.
    """

    def __init__(
        self,
        name: str,
        guider: comfy.samplers.CFGGuider,
        predict: Callable,
        model_options: dict,
        seed: int | None,
        source: HostAttention,
        objective: Objective | None,
        detach_control: bool = False,
        frames: Frames | None = None,
    ):
        self.name = name
        self.model_options = model_options
        self.joined: JoinedPasses | None = None
        self.estimates: tuple[Tensor, Tensor] | None = None
        self.unread = 0
        self._is_watched = False
        self._guider, self._predict, self._seed = guider, predict, seed
        self._source, self._objective, self._detach_control = source, objective, detach_control
        self._frames = frames or Frames()

    def watch(self, wanted: bool) -> None:
        """From now on (or no longer) keep `estimates`, and run the negative conditioning also at CFG 1."""
        self._is_watched, self.estimates = wanted, None

    def acts_at(self, sigma: float) -> bool:
        return any(acts_at(entry, sigma) for entry in self._guider.conds["positive"])

    def can_be_read_at(self, sigma: float) -> bool:
        """Whether a positive conditioning of the whole picture acts at this noise level."""
        return whole_picture(self._guider.conds["positive"], sigma) is not None

    @property
    def conditional(self) -> Tensor | None:
        """Known while the branch is watched."""
        return self.estimates and self.estimates[0]

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        return x

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        options = self._options()
        if self.joined is not None:
            options["sampler_calc_cond_batch_function"] = self._calculate
        return self._predicted(x, sigma, options)

    def gradient(self, x: Tensor, sigma: float, objective: Objective | None = None) -> Gradient | None:
        if not self.can_be_read_at(sigma):
            return None
        self._make_current()
        return self._read(x, sigma, "lookahead", objective or self._objective)[1]

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient | None]:
        """The guided prediction, its conditional pass taken with gradient up to the last map that is read.

        A prediction that is composed of other conditionings has no such pass: the maps are then read in one of their
        own.
        """
        if not self.can_be_read_at(sigma):
            return self._predicted(x, sigma, self._options()), None
        if composes(self.model_options):
            return self.denoise(x, sigma), self.gradient(x, sigma)
        found: list[Gradient | None] = []

        def calculate(args: dict) -> list[Tensor]:
            positive, negative = args["conds"]
            conditional, gradient = self._read(x, sigma, "step", self._objective)
            found.append(gradient)
            conditional = self._frames.unfolded(conditional)
            if negative is None:
                return [conditional, torch.zeros_like(conditional)]
            rest = {**args, "conds": [None, negative]}  # at its place: other packs ask which of the two it is
            return [conditional, self._calculate(rest)[1]]

        options = {**self._options(), "sampler_calc_cond_batch_function": calculate}
        denoised = self._predicted(x, sigma, options)
        if not found:  # the whole prediction was taken from a cache
            self.unread += 1
        return denoised, found[0] if found else None

    def conditionings(self, positive: bool) -> list:
        """The conditionings of a guided prediction: positive (None unless asked for), and negative.

        The host leaves the negative out at CFG 1, unless somebody asked for it.
        """
        conds = self._guider.conds
        unguided = math.isclose(self._guider.cfg, 1.0) and not self._options().get("disable_cfg1_optimization")
        return [conds["positive"] if positive else None, None if unguided else conds["negative"]]

    def is_plain(self) -> bool:
        """Whether nothing of another pack sees the passes: such a one may ask which conditioning is run."""
        options = {**self.model_options, **self.model_options.get("transformer_options", {})}
        return not any(_holds_any(value) for key, value in options.items() if key not in HOSTS_OWN | OF_RESULTS)

    @property
    def network(self) -> nn.Module:
        return self._guider.inner_model.diffusion_model

    def _predicted(self, x: Tensor, sigma: float, options: dict) -> Tensor:
        self._make_current()
        found = self._predict(self._frames.unfolded(x), _timestep(x, sigma), options, self._seed)
        return self._frames.folded(found)

    def _make_current(self) -> None:
        """Branches may share a model: from now on it is this branch's patcher whose hooks and callbacks it asks."""
        self._guider.inner_model.current_patcher = self._guider.model_patcher

    def _options(self) -> dict:
        """The branch's options. While it is watched, they have a function that keeps `estimates`."""
        if not self._is_watched:
            return {**self.model_options}

        def keep(args: dict) -> Tensor:
            self.estimates = tuple(self._frames.folded(args[key]) for key in ("cond_denoised", "uncond_denoised"))
            return args["denoised"]

        options = {**self.model_options}
        return comfy.model_patcher.set_model_options_post_cfg_function(options, keep, disable_cfg1_optimization=True)

    def _networks(self) -> list[nn.Module]:
        """The UNet, and the GLIGEN and ControlNet models of this branch."""
        models = [patcher.model for patcher in self._guider.loaded_models]
        for entry in self._guider.conds["positive"]:  # a control LoRA's is none that the host has loaded
            models += [getattr(control, "control_model", None) for control in chain(entry.get("control"))]
        others = [model for model in models if isinstance(model, nn.Module) and not isinstance(model, BaseModel)]
        return list(dict.fromkeys([self.network, *others]))

    def _read(self, x: Tensor, sigma: float, stage: Stage, objective: Objective) -> tuple[Tensor, Gradient | None]:
        """The conditional prediction at x (x itself on a look-ahead), and the gradient of the loss on its maps.

        The gradient is None where a step cache had the network skipped.
        """
        positive = self._guider.conds["positive"]
        entry = whole_picture(positive, sigma)
        objective = replace(objective, targets=objective.targets.shifted(entry.get(PLACE, 0)))

        def run(x: Tensor, of_items: Callable) -> tuple[Tensor, Gradient | None]:
            return self._read_once(x, sigma, stage, objective, of_items(positive), entry)

        found = within_memory(run, x, self._networks(), self._source.read_blocks(objective.layers))
        self.unread += found[1] is None
        return found

    def _read_once(
        self, x: Tensor, sigma: float, stage: Stage, objective: Objective, positive: list, wanted: dict
    ) -> tuple[Tensor, Gradient | None]:
        """`_read`, of the conditionings `positive`, in one pass. wanted: the one that is read."""
        output = x
        if self._detach_control:
            positive = detached(positive)
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode(False):
            reader = GradientReader(x.clone(), objective, stage == "lookahead")
            args = {
                "conds": [positive],
                "input": self._frames.unfolded(reader.x),
                "sigma": _timestep(reader.x, sigma),
                "model": self._guider.inner_model,
                "model_options": self._reading_options(reader, wanted, stage, objective),
            }
            with usable_weights(self._networks()), UsableTensors(), self._mutations(), _differentiable(), reader:
                output = self._frames.folded(self._calculate_alone(args)[0]).detach()
        comfy.model_management.throw_exception_if_processing_interrupted()
        return output, reader.gradient

    def _mutations(self) -> AbstractContextManager:
        """Patches inside the network may write into what autograd has kept, as FreeU's do. Watching takes time."""
        transformer = self.model_options.get("transformer_options", {})
        patched = any(_holds_any(transformer.get(key)) for key in ("patches", "patches_replace"))
        return keep_saved_tensors() if patched else nullcontext()

    def _calculate(self, args: dict) -> list[Tensor]:
        """The host's predictions; where passes are joined, in one call with the other branches on the model."""
        return self._calculate_alone(args) if self.joined is None else self.joined.calculate(self, args)

    def _calculate_alone(self, args: dict) -> list[Tensor]:
        other = self.model_options.get("sampler_calc_cond_batch_function")
        return calculate(args) if other is None else other(args)

    def _reading_options(self, reader: GradientReader, wanted: dict, stage: Stage, objective: Objective) -> dict:
        """The branch's options, in which the layers emit to the reader."""
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        transformer = {**options.get("transformer_options", {})}
        if reader.x.device.type == "cpu":  # the host's choice there keeps 50 times the memory
            transformer.setdefault("optimized_attention_override", fused_attention)
        text = wanted["model_conds"]["c_crossattn"].cond
        size = self._frames.of_one(tuple(reader.x.shape[-2:]))
        running = NetworkPass(size, ("positive",), stage, text.shape[1], self._frames.count or 1)
        names, layers = by_uuid({wanted["uuid"]: "positive"}), objective.layers
        transformer = self._source.patched(transformer, reader.read, running, names, layers)
        patches = {**transformer.get("patches", {})}
        # The host adds a ControlNet's output in place to what autograd has kept: give it a copy.
        patches["input_block_patch_after_skip"] = [*patches.get("input_block_patch_after_skip", []), _copied]
        unseen = [COMPILED, STEP_CACHES] if stage == "lookahead" else [COMPILED]
        wrappers = _without(transformer.get("wrappers", {}), unseen)
        transformer |= {"patches": patches, "wrappers": wrappers, STAGE: stage}
        options["transformer_options"] = transformer
        return options


@contextmanager
def _differentiable() -> Iterator[None]:
    """Inside, rotary positions are computed by operations that have a gradient. The host's fused kernels have none."""
    own: dict = {(flux_math, "apply_rope"): _both_rotated}
    own |= {(module, "apply_rope1"): _rotated for module in (qwen_image, wan)}
    if hasattr(comfy.model_management, "in_training"):  # a newer host has such operations for training
        own = {(comfy.model_management, "in_training"): True}
    before = {(place, name): getattr(place, name) for place, name in own}
    _set(own)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[tuple[Any, str], Any]) -> None:
    for (place, name), value in values.items():
        setattr(place, name, value)


def _rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021). x: (B, heads, n, d); turns: (..., n, d / 2, 2, 2) rotation matrices."""
    pairs = x.to(turns.dtype).unflatten(-1, (-1, 1, 2))
    return (turns * pairs).sum(-1).flatten(-2).type_as(x)


def _both_rotated(q: Tensor, k: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    return _rotated(q, turns), _rotated(k, turns)


def _timestep(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, device=x.device)


def _holds_any(found: Any) -> bool:
    """Whether there is anything but nothing, empty lists and dicts of these."""
    if isinstance(found, dict):
        return any(map(_holds_any, found.values()))
    return len(found) > 0 if isinstance(found, list) else found is not None


def _without(wrappers: dict[str, dict], unseen: list[dict[str, tuple[str, ...]]]) -> dict[str, dict]:
    """The wrappers, by kind and key, without those that `unseen` names."""
    dropped = {(kind, key) for names in unseen for kind, keys in names.items() for key in keys}
    return {
        kind: {key: found for key, found in by_key.items() if (kind, key) not in dropped}
        for kind, by_key in wrappers.items()
    }


def _copied(h: Tensor, options: dict) -> Tensor:
    return h.clone()


def fused_attention(_, *args, **kwargs) -> Tensor:
    return attention_pytorch(*args, **kwargs)
