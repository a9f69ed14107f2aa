"""One branch in the host: a guider, whose model's cross-attention can be read with gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_base import BaseModel
from torch import Tensor, nn

from realcompo_core.attention.losses import Objective
from realcompo_core.attention.reading import Gradient, GradientReader
from realcompo_core.attention.source import NetworkPass, Stage
from realcompo_core.errors import RealCompoError

from .chunks import by_uuid, whole_picture
from .controls import chain, detached
from .inference_tensors import UsableTensors, usable_weights
from .joined_passes import JoinedPasses, calculate
from .memory import within_memory
from .sources import STAGE
from .unet_attention import UNetAttention

SKIPPED = (
    "branch {}: another pack's wrapper did not run the model, so that no attention could be read. Take that node (a "
    "step cache, for instance) off this branch's model"
)
SEES_PASSES = {"sampler_calc_cond_batch_function", "model_function_wrapper", "multigpu_clones"}


class HostBranch:
    """A guider of the host as a branch of the balancer (see `realcompo_core.guidance.branch.Branch`).

    predict: the guider's own guided prediction, (x, timestep, model_options, seed) -> D. Whatever other packs have put
    around it stays around it. objective: what is asked of the maps of `source`; None where nothing is read.
    detach_control: no gradient flows through the ControlNets of a reading. estimates: while the branch is watched, the
    conditional and the unconditional estimate behind the newest D.
    """

    def __init__(
        self,
        name: str,
        guider: comfy.samplers.CFGGuider,
        predict: Callable,
        model_options: dict,
        seed: int | None,
        source: UNetAttention,
        objective: Objective | None,
        detach_control: bool = False,
    ):
        self.name = name
        self.model_options = model_options
        self.joined: JoinedPasses | None = None
        self.estimates: tuple[Tensor, Tensor] | None = None
        self._is_watched = False
        self._guider, self._predict, self._seed = guider, predict, seed
        self._source, self._objective, self._detach_control = source, objective, detach_control

    def watch(self, wanted: bool) -> None:
        """From now on (or no longer) keep `estimates`, and run the negative conditioning also at CFG 1."""
        self._is_watched, self.estimates = wanted, None

    def moved(self, x: Tensor, sigma: float) -> Tensor:
        return x

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        options = self._options()
        if self.joined is not None:
            options["sampler_calc_cond_batch_function"] = self._calculate
        return self._predict(x, _timestep(x, sigma), options, self._seed)

    def gradient(self, x: Tensor, sigma: float, objective: Objective | None = None) -> Gradient:
        return self._read(x, sigma, "lookahead", objective or self._objective)[1]

    def denoise_with_gradient(self, x: Tensor, sigma: float) -> tuple[Tensor, Gradient]:
        """The guided prediction, its conditional pass taken with gradient up to the last map that is read."""
        found: list[Gradient] = []

        def calculate(args: dict) -> list[Tensor]:
            positive, negative = args["conds"]
            conditional, gradient = self._read(x, sigma, "step", self._objective)
            found.append(gradient)
            if negative is None:
                return [conditional, torch.zeros_like(conditional)]
            rest = {**args, "conds": [None, negative]}  # at its place: other packs ask which of the two it is
            return [conditional, self._calculate(rest)[1]]

        options = {**self._options(), "sampler_calc_cond_batch_function": calculate}
        denoised = self._predict(x, _timestep(x, sigma), options, self._seed)
        if not found:
            raise RealCompoError(SKIPPED.format(self.name))
        return denoised, found[0]

    def conditionings(self, positive: bool) -> list:
        """The conditionings of a guided prediction: positive (None unless asked for), and negative.

        The host leaves the negative out at CFG 1, unless somebody asked for it.
        """
        conds = self._guider.conds
        unguided = math.isclose(self._guider.cfg, 1.0) and not self._options().get("disable_cfg1_optimization")
        return [conds["positive"] if positive else None, None if unguided else conds["negative"]]

    def is_plain(self) -> bool:
        """Whether no patch or wrapper of another pack sees the passes: such a one may ask which conditioning is run."""
        transformer = self.model_options.get("transformer_options", {})
        wrapped = any(found for kind in transformer.get("wrappers", {}).values() for found in kind.values())
        patched = any(transformer.get(key) for key in ("patches", "patches_replace", "optimized_attention_override"))
        return not (wrapped or patched or self.model_options.keys() & SEES_PASSES)

    @property
    def network(self) -> nn.Module:
        return self._guider.inner_model.diffusion_model

    def _options(self) -> dict:
        """The branch's options. While it is watched, they have a function that keeps `estimates`."""
        if not self._is_watched:
            return {**self.model_options}

        def keep(args: dict) -> Tensor:
            self.estimates = args["cond_denoised"], args["uncond_denoised"]
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

    def _read(self, x: Tensor, sigma: float, stage: Stage, objective: Objective) -> tuple[Tensor, Gradient]:
        """The conditional prediction at x (x itself on a look-ahead), and the gradient of the loss on its maps."""
        positive = self._guider.conds["positive"]
        wanted = whole_picture(positive, sigma)
        if wanted is None:
            raise RealCompoError(
                f"branch {self.name}: no positive conditioning covers the whole picture at noise level {sigma:.3g}, so "
                "no attention can be read: keep one of the layout's prompt without area or mask, for all of sampling"
            )

        def run(x: Tensor, of_items: Callable) -> tuple[Tensor, Gradient]:
            return self._read_once(x, sigma, stage, objective, of_items(positive), wanted)

        return within_memory(run, x, self._networks())

    def _read_once(
        self, x: Tensor, sigma: float, stage: Stage, objective: Objective, positive: list, wanted
    ) -> tuple[Tensor, Gradient]:
        """`_read`, of the conditionings `positive`, in one pass. wanted: the identity of the one that is read."""
        output = x
        if self._detach_control:
            positive = detached(positive)
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode(False):
            reader = GradientReader(x.clone(), objective, stage == "lookahead")
            args = {
                "conds": [positive],
                "input": reader.x,
                "sigma": _timestep(reader.x, sigma),
                "model": self._guider.inner_model,
                "model_options": self._reading_options(reader, wanted, stage, objective),
            }
            with usable_weights(self._networks()), UsableTensors(), reader:
                output = self._calculate_alone(args)[0].detach()
        comfy.model_management.throw_exception_if_processing_interrupted()
        if reader.gradient is None:
            raise RealCompoError(SKIPPED.format(self.name))
        return output, reader.gradient

    def _calculate(self, args: dict) -> list[Tensor]:
        """The host's predictions; where passes are joined, in one call with the other branches on the model."""
        return self._calculate_alone(args) if self.joined is None else self.joined.calculate(self, args)

    def _calculate_alone(self, args: dict) -> list[Tensor]:
        other = self.model_options.get("sampler_calc_cond_batch_function")
        return calculate(args) if other is None else other(args)

    def _reading_options(self, reader: GradientReader, wanted, stage: Stage, objective: Objective) -> dict:
        """The branch's options, in which the layers emit to the reader."""
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        running = NetworkPass(tuple(reader.x.shape[-2:]), stage=stage)
        names, layers = by_uuid({wanted: "positive"}), objective.layers
        transformer = self._source.patched(options.get("transformer_options", {}), reader.read, running, names, layers)
        patches = {**transformer.get("patches", {})}
        # The host adds a ControlNet's output in place to what autograd has kept: give it a copy.
        patches["input_block_patch_after_skip"] = [*patches.get("input_block_patch_after_skip", []), _copied]
        transformer |= {"patches": patches, STAGE: stage}
        if reader.x.device.type == "cpu":  # the host's choice there keeps 50 times the memory
            transformer.setdefault("optimized_attention_override", _fused_attention)
        options["transformer_options"] = transformer
        return options


def _timestep(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, device=x.device)


def _copied(h: Tensor, options: dict) -> Tensor:
    return h.clone()


def _fused_attention(_, *args, **kwargs) -> Tensor:
    return attention_pytorch(*args, **kwargs)
