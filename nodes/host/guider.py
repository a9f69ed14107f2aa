"""The balanced guider: the host samples it like any other, and K branches stay open around that one sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from realcompo_core.attention.losses import Objective
from realcompo_core.attention.targets import Targets, object_targets
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.branch import Branch, branch_names
from realcompo_core.guidance.latent_guidance import LatentGuidance, with_guidance
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.trace import Trace
from realcompo_core.layout import Layout
from realcompo_core.layout.regions import covered_by_objects, region_maps
from realcompo_core.sampling.samplers import Step
from realcompo_core.text.tokens import TokenGroup

from .branch import SKIPPED, HostBranch
from .branch_input import BranchInput
from .checks import check_branches, is_flow
from .composed import composes
from .coverage import check_coverage
from .frames import Frames
from .joined_passes import joined_passes
from .messages import warn_on_node
from .prompt_tokens import prompt_groups, with_places
from .shapescenes import unknown_to
from .sources import attention_source

CHANGES_GUIDANCE = {"sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function"}
"""Model options of nodes that make something of the unconditional estimate: their branch is guided to the end."""
BRANCHES = "realcompo_branches"  # key of the models that are loaded beside a branch's own
POST_CFG = "sampler_post_cfg_function"  # in the host's model options: functions of the guided result


class BalancedGuider(comfy.samplers.CFGGuider):
    """The fidelity branch's own guider, whose prediction is balanced with those of the other branches.

    Every branch goes through the host's whole life cycle for guiders: loading, hooks, wrappers, cleaning up. They are
    opened one inside the other, and the sampler runs in the innermost.

    A branch with Layout Guidance, Attend-and-Excite or BoxDiff moves the latent, which the sampler is not told: it
    samples the latent minus all moves so far, and whatever comes out of it has the moves added (docs/method.md, R9).
    Such a branch may be the only one.
    """

    def __init__(
        self,
        branches: Sequence[BranchInput],
        layout: Layout,
        clip: Any,
        settings: BalanceSettings | None = None,
        layers: int = 0,
        include_adjectives: bool = False,
        detach_control: bool = False,
    ):
        if len(branches) < 2 and not any(branch.layout_guidance for branch in branches):
            raise RealCompoError(
                f"{len(branches)} branch: the balancer needs a fidelity and a spatial one at least, or one that has "
                "layout_guidance"
            )
        check_branches(branches)
        self.settings = settings or BalanceSettings()
        self._layout_guidance = [
            self.settings.layout_guidance_of(k, branch.layout_guidance) for k, branch in enumerate(branches)
        ]
        self._groups: list[TokenGroup] = prompt_groups(clip, layout, include_adjectives)
        self._seen = [_Seen.by(guidance, layout, clip, include_adjectives) for guidance in self._layout_guidance]
        found = [group for groups in (self._groups, *(seen.groups for seen in self._seen)) for group in groups]
        branches, self.warnings = with_places(clip, layout, found, branches)
        self.warnings += unknown_to(clip, layout.prompt)
        models = _own_models(branches)
        super().__init__(models[0])
        self._others = [comfy.samplers.CFGGuider(model) for model in models[1:]]
        for guider, branch in zip((self, *self._others), branches, strict=True):
            guider.set_conds(branch.positive, branch.negative)
            guider.set_cfg(branch.cfg)
        self._beside = _loaded_beside(models, branches)
        self._cfg = [branch.cfg for branch in branches]
        self.trace = Trace(tuple(branch_names(len(branches))))
        self._layout = layout.validate()
        self._sources = [attention_source(model) for model in models]
        self._is_flow = is_flow(models[0])
        if self._is_flow and self.settings.rule == "superdiff":
            raise RealCompoError(
                "superdiff follows the densities of models that add noise to the signal, and this one is of flow "
                "matching: choose another rule"
            )
        self._layers = [source.choose(layers) for source in self._sources]
        self._detach_control = detach_control
        self._balancer: Balancer | None = None
        self._own_options: dict = {}
        self._of_steps: list[str] = []
        self._told: list[str] | None = None

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        self.trace.clear()
        self._told = None
        if len(sigmas) == 0:
            self.trace.note = "Nothing was sampled: there were no steps (denoise is 0)."
            warn_on_node([self.trace.note])
            return latent_image
        opening = _OpenBranches(self, self._others, sampler, (noise, latent_image, denoise_mask, seed))
        try:
            for guider, models in zip((self, *self._others), self._beside, strict=True):
                guider.model_patcher.set_additional_models(BRANCHES, models)
            samples = super().sample(noise, latent_image, opening, sigmas, denoise_mask, callback, disable_pbar, seed)
            of_run = self._balancer.finish()
            self._warn([*self.warnings, *self._of_steps, *self._skipped_networks(), *of_run])
            return samples
        finally:
            self._balancer, self._branches = None, []
            for guider, cfg in zip((self, *self._others), self._cfg, strict=True):
                guider.set_cfg(cfg)
                # Models that refer to each other would outlive this run, and the host would think that they leak.
                guider.model_patcher.remove_additional_models(BRANCHES)

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict = {}, seed: int | None = None) -> Tensor:  # noqa: B006
        sigma = float(timestep[0])
        for guider, cfg in zip((self, *self._others), self._cfg, strict=True):
            options = guider.model_options
            stays = sigma >= self._unguided_below or options.keys() & CHANGES_GUIDANCE or composes(options)
            guider.set_cfg(cfg if stays else 1.0)
        asked = self._asked_by_sampler(model_options)
        # Samplers may have put functions of their own into the options. Those that look at the guided result get the
        # balanced one (see `_balanced_result`); the others are the fidelity branch's.
        own = {**model_options, POST_CFG: model_options.get(POST_CFG, [])[: -len(asked)]} if asked else model_options
        self._branches[0].model_options = own
        for branch in self._branches:
            branch.watch(bool(asked) or self.settings.rule == "superdiff")
        mask = self._mask(timestep, model_options) if any(self._layout_guidance) else None
        denoised = self._denoised(self._frames.folded(x), sigma, mask)
        if asked:
            denoised = self._balanced_result(denoised, asked, x, timestep, model_options)
        return self._frames.unfolded(denoised if mask is None else self._before_blending(denoised, mask))

    def moved(self, latent: Tensor, sigma: Tensor | None = None) -> Tensor:
        """A latent of the sampler with the moves of the guided branches. sigma: the last, for the sampler's result."""
        moves = self._balancer.moves
        if not isinstance(moves, Tensor):
            return latent
        moves = self._frames.unfolded(moves)
        return latent + (moves if sigma is None else self._scaled_back(sigma, moves))

    def _scaled_back(self, sigma: Tensor, moves: Tensor) -> Tensor:
        return self.inner_model.model_sampling.inverse_noise_scaling(sigma, moves)

    def begin(self, model_options: list[dict], sigmas: Tensor, latent: _Latent, seed: int | None) -> None:
        """All branches are open: make the balancer. `model_options` has one entry a branch."""
        size = tuple(latent.noise.shape[-2:])
        frames = self._frames = Frames.of(latent.noise)
        device = self.model_patcher.load_device
        targets = _Seen(self._layout, self._groups).targets(device, frames)
        guiders = (self, *self._others)
        predictors = [super().predict_noise, *(guider.outer_predict_noise for guider in self._others)]
        objectives = [targets and Objective(layers, targets) for layers in self._layers]
        parts = zip(self.trace.branches, guiders, predictors, model_options, self._sources, objectives, strict=True)
        self._branches = [
            HostBranch(name, guider, predict, options, seed, source, objective, self._detach_control, frames)
            for name, guider, predict, options, source, objective in parts
        ]
        self._own_options = model_options[0]
        count = len(latent.noise)
        objects = frames.repeated(covered_by_objects(self._layout, *size)).expand(count, -1, -1)
        self._latent, self._sigmas, self._schedule = latent, sigmas, Schedule(sigmas.tolist(), self._is_flow)
        self._unguided_below = self.settings.unguided_below(self._schedule, len(guiders), bool(self._groups))
        seeds = [((seed or 0) + b) % 2**63 for b in range(count)]
        layout = self._layout
        self.trace.phrases = [[layout.objects[g.objects[0]].phrase for g in self._groups]] * count
        self.trace.objects = [[g.objects for g in self._groups]] * count
        parts = zip(self._branches, self._layout_guidance, self._sources, self._layers, self._seen, strict=True)
        mask = latent.mask if latent.mask is None else frames.folded(latent.mask)
        balanced = [
            with_guidance(branch, guidance, source.layers, layers, seen.targets(device, frames), self._schedule, mask)
            for branch, guidance, source, layers, seen in parts
        ]
        self._balancer = Balancer(
            balanced, self._schedule.sigmas, seeds, objects, self.settings, self._together, self.trace
        )
        if self.trace.note:
            self._of_steps = [self.trace.note]
        else:
            sources = self.trace.sources
            self._of_steps = check_coverage(self._branches, sources, self._schedule, self.settings)
        self._warn([*self.warnings, *self._of_steps])

    def _skipped_networks(self) -> list[str]:
        return [
            f"{branch.name} branch: another pack's wrapper (a step cache, for instance) had its network skipped when "
            f"its attention was wanted ({branch.unread} of the readings); the weights stayed as they were"
            for branch in self._branches
            if branch.unread
        ]

    def _warn(self, warnings: list[str]) -> None:
        if warnings != self._told:
            self.trace.note = " ".join(f"{warning.removesuffix('.')}." for warning in warnings)
            warn_on_node(warnings)
        self._told = warnings

    def _together(self, branches: Sequence[Branch], reading: Sequence[Branch]) -> AbstractContextManager:
        hosts = {branch.name: branch for branch in self._branches}  # without their guides
        return joined_passes([hosts[branch.name] for branch in branches], [hosts[branch.name] for branch in reading])

    def _denoised(self, x: Tensor, sigma: float, mask: Tensor | None) -> Tensor:
        """The balanced estimate minus all moves. mask: (B, C, h, w), by which the host has blended x and what is kept.

        The sampler's own latent has the moves whole, x has them blended; what is kept has none.
        """
        balancer, step = self._balancer, self._step(x, sigma)
        if mask is None:
            return balancer(x, sigma, step)
        before = balancer.moves * (mask > 0)
        balancer.moves = before * mask
        denoised = balancer(x, sigma, step) + balancer.moves
        balancer.moves = (balancer.moves + (1 - mask) * before) * (mask > 0)
        return denoised - balancer.moves

    def _mask(self, timestep: Tensor, model_options: dict) -> Tensor | None:
        """The noise mask that the host applies in this evaluation, (B, C, T · h, w); None without."""
        mask, of_step = self._latent.mask, model_options.get("denoise_mask_function")
        if mask is not None and of_step is not None:
            mask = of_step(timestep, mask, extra_options={"model": self, "sigmas": self._sigmas})
        return mask if mask is None else self._frames.folded(mask)

    def _before_blending(self, denoised: Tensor, mask: Tensor) -> Tensor:
        """`denoised`, an estimate minus moves, such that it is one after the host has blended it with what is kept."""
        return denoised - self._balancer.moves * (1 - mask) / mask.clamp_min(torch.finfo(mask.dtype).tiny)

    def _asked_by_sampler(self, model_options: dict) -> list[Callable]:
        """The functions of the guided result that the sampler has added to the fidelity branch's own."""
        functions, own = model_options.get(POST_CFG, []), self._own_options.get(POST_CFG, [])
        return functions[len(own) :]

    def _balanced_result(self, denoised: Tensor, asked: list[Callable], x, timestep, model_options: dict) -> Tensor:
        """The balanced result after the sampler's own functions of the guided result.

        Samplers of the CFG++ kind step along the unconditional estimate. The balanced one is mixed as D is, by the same
        weights (docs/method.md, R8), and like D, x and all that a sampler sees it is without the moves.
        """
        weights = self._balancer.weights.to(x)
        used = [(k, branch) for k, branch in enumerate(self._branches) if weights[:, k].any()]
        for _, branch in used:
            if branch.estimates is None:
                raise RealCompoError(SKIPPED.format(branch.name))
        conditional, unconditional = (
            sum(weights[:, k, None] * branch.estimates[i] for k, branch in used) - self._balancer.moves
            for i in range(2)
        )
        denoised, conditional, unconditional = map(self._frames.unfolded, (denoised, conditional, unconditional))
        for function in asked:
            denoised = function(
                {
                    "denoised": denoised,
                    "cond": self.conds.get("positive"),
                    "uncond": self.conds.get("negative"),
                    "cond_scale": self.cfg,
                    "model": self.inner_model,
                    "uncond_denoised": unconditional,
                    "cond_denoised": conditional,
                    "sigma": timestep,
                    "model_options": model_options,
                    "input": x,
                }
            )
        return self._frames.folded(denoised)

    def _step(self, x: Tensor, sigma: float) -> Step:
        """Euler's step to the schedule's next level, whatever the sampler is (docs/method.md, R3).

        With a noise mask, what is kept of the latent is the same at the end of the step as the host will make it.
        """
        sigma_next = self._schedule.following(sigma)
        base, gain = x * (sigma_next / sigma), 1 - sigma_next / sigma
        mask = self._latent.mask
        if mask is None or sigma_next == 0:
            return Step(base, gain, sigma_next)
        level = torch.full((len(x),), sigma_next, device=x.device)
        kept = self.inner_model.scale_latent_inpaint(
            x=self._frames.unfolded(x),
            sigma=level,
            noise=self._latent.noise,
            latent_image=self._latent.image,
            denoise_mask=mask,
        )
        kept, mask = self._frames.folded(kept), self._frames.folded(mask)
        return Step(base * mask + kept * (1 - mask), gain * mask[:, :1], sigma_next)


@dataclass(frozen=True)
class _Seen:
    """The objects of a layout that something looks at, by the groups of their tokens."""

    layout: Layout
    groups: list[TokenGroup]

    @classmethod
    def by(cls, guidance: LatentGuidance | None, layout: Layout, clip: Any, include_adjectives: bool) -> _Seen:
        seen = guidance.seen(layout) if guidance else replace(layout, objects=())
        return cls(seen, prompt_groups(clip, seen, include_adjectives))

    def targets(self, device: torch.device, frames: Frames) -> Targets | None:
        """None where there is nothing to look at."""
        if not self.groups:
            return None

        def regions(height: int, width: int) -> Tensor:
            size = frames.of_one((height, width))
            return frames.repeated(region_maps(self.layout, [group.objects for group in self.groups], *size))

        return object_targets([[group.tokens for group in self.groups]], [regions]).to(device)


@dataclass
class _Latent:
    """What the innermost sampler was given: noise, the latent to start from, and the noise mask (1: may change)."""

    noise: Tensor
    image: Tensor
    mask: Tensor | None


class _OpenBranches(comfy.samplers.Sampler):
    """A sampler that opens the next branch's guider instead of sampling, until all are open; then it samples."""

    def __init__(self, guider: BalancedGuider, others, sampler, inputs: tuple):
        self._guider, self._waiting, self._sampler, self._inputs = guider, list(others), sampler, inputs
        self._options: list[dict] = []
        self._outermost: tuple | None = None

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        self._options.append(extra_args["model_options"])
        if self._outermost is None:
            self._outermost = extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        if self._waiting:
            raw_noise, raw_latent, raw_mask, seed = self._inputs
            self._waiting.pop(0).sample(raw_noise, raw_latent, self, sigmas, raw_mask, None, True, seed)
        else:
            extra_args, callback, noise, latent_image, denoise_mask, disable_pbar = self._outermost
            latent = _Latent(noise, latent_image, denoise_mask)
            self._guider.begin(self._options, sigmas, latent, extra_args["seed"])
            samples = self._sampler.sample(
                self._guider, sigmas, extra_args, self._shown(callback), noise, latent_image, denoise_mask, disable_pbar
            )
            self._result = self._guider.moved(samples, sigmas[-1])
        return self._result

    def _shown(self, callback: Callable | None) -> Callable | None:
        """The callback for previews, which gets the estimate and the latent with the moves."""
        moved = self._guider.moved
        return callback and (lambda step, denoised, x, *rest: callback(step, moved(denoised), moved(x), *rest))


def _own_models(branches: Sequence[BranchInput]) -> list:
    """A clone of each branch's model.

    Clones of one checkpoint share its network; where they change it in different ways, only one change could be in
    place, so they get networks of their own.
    """
    models: list = []
    firsts: list[BranchInput] = []  # the first branch on each network
    for branch in branches:
        model = branch.model
        first = next((other for other in firsts if model.is_clone(other.model)), None)
        if first is None:
            firsts.append(branch)
        elif not _can_share(first, branch):
            model = _own_weights(model)
        models.append(model.clone())
    return models


def _loaded_beside(models: Sequence[Any], branches: Sequence[BranchInput]) -> list[list]:
    """What the host is to load together with each branch's model: the models of all other branches.

    Loaded one after the other, the last could push the first out of the GPU.
    """
    beside = []
    for model, branch in zip(models, branches, strict=True):
        others = [other for other in models if not other.is_clone(model)]
        for other in branches:
            if other is not branch:
                others += _models_of_conditionings(other)
        beside.append(list(dict.fromkeys(others)))
    return beside


def _can_share(one: BranchInput, other: BranchInput) -> bool:
    """Whether two clones of one checkpoint change its weights and parts in the same way, before and while they run."""
    a, b = one.model, other.model
    return (
        a.patches_uuid == b.patches_uuid
        and a.object_patches.keys() == b.object_patches.keys()
        and all(b.object_patches[name] is part for name, part in a.object_patches.items())
        and a.injections == b.injections
        and not (_has_hooks(one) or _has_hooks(other))
    )


def _has_hooks(branch: BranchInput) -> bool:
    """Whether the branch's conditionings change its model while they run. Hooks of the options leave it as it is."""
    found = comfy.hooks.HookGroup()
    entries = comfy.sampler_helpers.convert_cond([*branch.positive, *branch.negative])
    comfy.sampler_helpers.get_hooks_from_cond(entries, found)
    return len(found) > len(found.get_type(comfy.hooks.EnumHookType.TransformerOptions))


def _own_weights(model):
    """A model with the same patches on a copy of the weights."""
    try:
        return model.clone(force_deepcopy=True)
    except (TypeError, RuntimeError):  # an older host, or a model that no loader of the host made
        comfy.model_management.unload_all_models()  # leaves the shared weights without anyone's patches
        own = model.clone()
        own.model = copy(model.model)
        own.model._modules = {**model.model._modules, "diffusion_model": deepcopy(model.model.diffusion_model)}
        own.backup, own.object_patches_backup, own.pinned = {}, {}, type(model.pinned)()
        if hasattr(own, "backup_buffers"):
            own.backup_buffers = {}
        return own


def _models_of_conditionings(branch: BranchInput) -> list:
    conds = {"positive": [c[1] for c in branch.positive], "negative": [c[1] for c in branch.negative]}
    return comfy.sampler_helpers.get_additional_models(conds, branch.model.model_dtype())[0]
