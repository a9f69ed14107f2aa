"""Nodes that balance: Branch, Balance Preset, Balance Settings, Balanced Guider, Dual-UNet Balancer Sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import latent_preview
from comfy_api.latest import io

from realcompo_core.attention.maps import AttentionMaps, Keep
from realcompo_core.attention.recorder import Recorder
from realcompo_core.guidance.branch import branch_names
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.named_settings import CONSTANT
from realcompo_core.guidance.presets import DEFAULT, PRESETS
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule

from .host.branch_input import BranchInput
from .host.connections import output_is_used
from .host.guider import BalancedGuider
from .host.prompt_tokens import prompt_words
from .host.recording import recorded
from .schema import ADVANCED, schema
from .types import (
    AttentionMapsType,
    BalanceSettingsType,
    BalanceTraceType,
    BranchType,
    LayoutGuidanceType,
    LayoutType,
)

SETTINGS_TIP = "From Balance Preset or Balance Settings. Without it: the preset `balanced`."
LAYOUT_TIP = "What is where. Its phrases must occur in its prompt; without objects the fidelity branch works alone."
MAPS_SLOT = 2  # of the outputs of sampler and guider
SCHEDULES = {"until t1": "step", "linear until t1": "linear", "cosine until t1": "cosine"}  # to WeightSchedule's shapes
EVERYWHERE = -1.0  # a weight outside of the objects that is the one inside
MAPS_TIP = (
    "The branches' attention to the prompt's words, for the Attention Map Viewer. Nothing is recorded if this is not "
    "connected."
)
GUIDANCE_TIP = (
    "From Layout Guidance or BoxDiff: the branch follows the layout without GLIGEN or ControlNet, or beside them. From "
    "Attend-and-Excite: no object is left out."
)
CLIP_TIP = "The CLIP that encoded the positive conditionings: it tells which tokens are the layout's objects."


@dataclass(frozen=True)
class NodeSettings:
    """The value of a BALANCE_SETTINGS socket."""

    balance: BalanceSettings = PRESETS[DEFAULT]
    spatial_weights: RegionWeights | WeightSchedule | None = None  # where weights are fixed
    layers: int = 0
    include_adjectives: bool = False
    if_fixed: RegionWeights | WeightSchedule = RegionWeights(0.5, 0.5)  # for a Sweep that has mode fixed among others
    detach_control: bool = False


def share_input(name: str, default: float, tooltip: str, **settings) -> io.Input:
    """A widget from 0 to 1."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.05, tooltip=tooltip, **settings)


def cfg_input(tooltip: str) -> io.Input:
    return io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=tooltip)


class BranchNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBranch",
            display_name="Branch",
            description="One model with its conditionings, for the Balanced Guider. Chain several: fidelity first.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A UNet (SD1.x, SD2.x, SDXL), SD3, Flux, Qwen-Image or Wan. Branches share latents.",
                ),
                io.Conditioning.Input("positive", tooltip="The layout's prompt, encoded by this model's CLIP."),
                io.Conditioning.Input("negative", tooltip="What to avoid, encoded by this model's CLIP."),
                cfg_input("This branch's own classifier-free guidance; 1 turns it off."),
                BranchType.Input(
                    "branches",
                    optional=True,
                    tooltip="The branches before this one. The first of the chain is the fidelity branch.",
                ),
                LayoutGuidanceType.Input("layout_guidance", optional=True, tooltip=GUIDANCE_TIP),
            ],
            outputs=[BranchType.Output("branches", tooltip="All branches so far, this one last.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, cfg, branches=(), layout_guidance=None) -> io.NodeOutput:
        return io.NodeOutput([*branches, BranchInput(model, positive, negative, cfg, layout_guidance)])


def layers_input() -> io.Input:
    return io.Int.Input(
        "layers",
        default=0,
        min=0,
        max=8,
        extra_dict=ADVANCED,
        tooltip="Attention maps that are so many times smaller than the latent are read. 0 chooses: 4 where the model "
        "has it (SD1.x, SD2.x, SDXL), one block at a third of the depth of transformers, where 2 takes all blocks.",
    )


def adjectives_input() -> io.Input:
    return io.Boolean.Input(
        "include_adjectives",
        default=False,
        extra_dict=ADVANCED,
        tooltip="Read an object's adjectives as well as its noun. On for ShapeScenes.",
    )


def detach_input() -> io.Input:
    return io.Boolean.Input(
        "detach_control",
        default=False,
        optional=True,
        extra_dict=ADVANCED,
        tooltip="On: the gradient does not flow through ControlNets. Faster, with less memory, and less exact.",
    )


class BalancePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBalancePreset",
            display_name="Balance Preset",
            description="Settings of the balancer by what a run may cost.",
            search_aliases=["balance quality", "fast balance"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=DEFAULT,
                    tooltip="fast: about 1.5 times the time of one model. balanced: more exact, about 1.8 times. "
                    "best: the most exact, about 1.9 times.",
                ),
                layers_input(),
                adjectives_input(),
                detach_input(),
            ],
            outputs=[BalanceSettingsType.Output("settings", tooltip="For Balanced Guider and the sampler.")],
        )

    @classmethod
    def execute(cls, preset, layers, include_adjectives, detach_control=False) -> io.NodeOutput:
        return io.NodeOutput(
            NodeSettings(PRESETS[preset], None, layers, include_adjectives, detach_control=detach_control)
        )


class BalanceSettingsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        best = BalanceSettings()
        return schema(
            node_id="RealCompoBalanceSettings",
            display_name="Balance Settings",
            description="How the branches are mixed, and which attention maps drive the mixing.",
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=["one_pass", "lookahead", "fixed"],
                    default=best.mode,
                    tooltip="one_pass reads attention in the passes that a step needs anyway; lookahead (the paper) "
                    "reads it one step ahead: slower, and more exact; fixed mixes with spatial_weight.",
                ),
                share_input(
                    "spatial_weight",
                    0.5,
                    "With mode fixed: the weight of the spatial branches together. Otherwise unused.",
                ),
                share_input(
                    "t0",
                    best.t0,
                    "Share of the steps, from the start, that the spatial branches make alone (paper: 0.4; "
                    "0 for stylised checkpoints). Not with mode fixed and schedule constant.",
                ),
                share_input(
                    "t1",
                    best.t1,
                    "Share of the steps after which the fidelity branch finishes alone; 1 balances to the end. "
                    "Not with mode fixed and schedule constant.",
                ),
                io.Combo.Input(
                    "rule",
                    options=["rms", "max", "official", "superdiff"],
                    default=best.rule,
                    extra_dict=ADVANCED,
                    tooltip="What a picture's gradient is divided by: its RMS, its maximum, or nothing (raw gradient "
                    "times the official step). superdiff reads no attention: two branches have one weight a picture, "
                    "by which it is as likely under both; with ancestral and SDE samplers, and t1 at 1.",
                ),
                io.Float.Input(
                    "rate",
                    default=best.rate,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip="Size of a coefficient step after that division.",
                ),
                io.Combo.Input(
                    "initial",
                    options=["layout", "zero", "random"],
                    default=best.initial,
                    extra_dict=ADVANCED,
                    tooltip="Coefficients at the start: spatial on the objects and fidelity elsewhere, equal, or "
                    "random from the seed (the paper).",
                ),
                io.Int.Input(
                    "update_every",
                    default=best.update_every,
                    min=1,
                    max=100,
                    extra_dict=ADVANCED,
                    tooltip="Coefficients move at every n-th step: a higher number is faster.",
                ),
                share_input(
                    "update_until",
                    best.update_until,
                    "Coefficients move in this first share of the steps.",
                    extra_dict=ADVANCED,
                ),
                layers_input(),
                adjectives_input(),
                io.Float.Input(
                    "spatial_weight_outside",
                    default=EVERYWHERE,
                    min=EVERYWHERE,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    extra_dict=ADVANCED,
                    tooltip="With mode fixed: the weight of the spatial branches outside of the objects' regions, "
                    "where spatial_weight holds inside. -1: spatial_weight everywhere.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=[CONSTANT, *SCHEDULES],
                    default=CONSTANT,
                    optional=True,
                    extra_dict=ADVANCED,
                    tooltip="With mode fixed: constant keeps the weights to the end, and t0 and t1 have no meaning. "
                    "Else they stay until t1, or fall from t0 to t1; then the fidelity branch finishes alone.",
                ),
                detach_input(),
            ],
            outputs=[BalanceSettingsType.Output("settings", tooltip="For Balanced Guider and the sampler.")],
        )

    @classmethod
    def execute(
        cls,
        mode,
        spatial_weight,
        layers,
        include_adjectives,
        spatial_weight_outside=EVERYWHERE,
        schedule=CONSTANT,
        detach_control=False,
        **settings,
    ) -> io.NodeOutput:
        outside = spatial_weight if spatial_weight_outside < 0 else spatial_weight_outside
        weights = RegionWeights(spatial_weight, outside)
        if schedule != CONSTANT:
            weights = WeightSchedule(weights, until=settings["t1"], shape=SCHEDULES[schedule], t0=settings["t0"])
        if mode == "fixed":
            balance, fixed = BalanceSettings(**settings), weights
        else:
            balance, fixed = BalanceSettings(mode=mode, **settings), None
        return io.NodeOutput(NodeSettings(balance, fixed, layers, include_adjectives, weights, detach_control))


class BalancedGuiderNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBalancedGuider",
            display_name="Balanced Guider",
            description="Branches and a layout as a guider for SamplerCustomAdvanced.",
            inputs=[
                BranchType.Input(
                    "branches",
                    tooltip="From Branch nodes, the fidelity branch first. A single one needs layout_guidance.",
                ),
                LayoutType.Input("layout", tooltip=LAYOUT_TIP),
                io.Clip.Input("clip", tooltip=CLIP_TIP),
                BalanceSettingsType.Input("settings", optional=True, tooltip=SETTINGS_TIP),
            ],
            outputs=[
                io.Guider.Output(tooltip="For SamplerCustomAdvanced."),
                BalanceTraceType.Output(
                    "trace",
                    tooltip="What the balancer did in the newest sampling, for Balance Report; connect the sampled "
                    "picture to the report, so that it runs after the sampler.",
                ),
                AttentionMapsType.Output("attention_maps", tooltip=MAPS_TIP),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(MAPS_SLOT)

    @classmethod
    def execute(cls, branches, layout, clip, settings=None) -> io.NodeOutput:
        branches, maps = _recorded(branches, layout, clip)
        guider = _guider(branches, layout, clip, settings)
        maps.trace = guider.trace
        return io.NodeOutput(guider, guider.trace, maps)


class DualUNetBalancerSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoDualUNetBalancerSampler",
            display_name="Dual-UNet Balancer Sampler",
            description="Two models, realistic and spatial, denoise one latent, mixed per pixel by their attention.",
            search_aliases=["RealCompo sampler", "two model sampler", "GLIGEN sampler"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The fidelity branch: any SD1.x, SD2.x, SDXL, SD3, Flux, Qwen-Image or Wan model."
                ),
                io.Conditioning.Input("positive", tooltip="The layout's prompt for the fidelity branch."),
                io.Conditioning.Input("negative", tooltip="What the fidelity branch avoids."),
                io.Model.Input(
                    "spatial_model", tooltip="The spatial branch: a model of the same family; it may be the same one."
                ),
                io.Conditioning.Input(
                    "spatial_positive",
                    tooltip="The prompt with the layout: through Apply Layout or a ControlNet. With spatial_guidance "
                    "the prompt alone will do.",
                ),
                io.Conditioning.Input("spatial_negative", tooltip="What the spatial branch avoids."),
                LayoutType.Input("layout", tooltip=LAYOUT_TIP),
                io.Clip.Input("clip", tooltip=CLIP_TIP),
                io.Latent.Input("latent_image", tooltip="What to start from; empty for a new picture."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Sampling steps."),
                cfg_input("Guidance of both branches; use Branch nodes to set them apart."),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="Any sampler of the host."
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="Any scheduler of the host."
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 keeps some of the latent it starts from.",
                ),
                BalanceSettingsType.Input("settings", optional=True, tooltip=SETTINGS_TIP),
                LayoutGuidanceType.Input("spatial_guidance", optional=True, tooltip=GUIDANCE_TIP),
            ],
            outputs=[
                io.Latent.Output(tooltip="The balanced picture's latent."),
                BalanceTraceType.Output("trace", tooltip="What the balancer did, for Balance Report."),
                AttentionMapsType.Output("attention_maps", tooltip=MAPS_TIP),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(MAPS_SLOT)

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        spatial_model,
        spatial_positive,
        spatial_negative,
        layout,
        clip,
        latent_image,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        settings=None,
        spatial_guidance=None,
    ) -> io.NodeOutput:
        branches = [
            BranchInput(model, positive, negative, cfg),
            BranchInput(spatial_model, spatial_positive, spatial_negative, cfg, spatial_guidance),
        ]
        branches, maps = _recorded(branches, layout, clip)
        guider = _guider(branches, layout, clip, settings)
        schedule = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise)
        samples = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
        noise = comfy.sample.prepare_noise(samples, seed, latent_image.get("batch_index"))
        samples = guider.sample(
            noise,
            samples,
            comfy.samplers.sampler_object(sampler_name),
            schedule.sigmas,
            denoise_mask=latent_image.get("noise_mask"),
            callback=latent_preview.prepare_callback(model, schedule.sigmas.shape[-1] - 1),
            seed=seed,
        )
        samples = samples.to(comfy.model_management.intermediate_device())
        maps.trace = guider.trace
        return io.NodeOutput({**latent_image, "samples": samples}, guider.trace, maps)


def _recorded(branches, layout, clip) -> tuple[list[BranchInput], AttentionMaps]:
    """The branches with what records their attention, if anything uses the running node's attention maps."""
    maps = AttentionMaps(layout=layout)
    if not output_is_used(MAPS_SLOT):
        return list(branches), maps
    prompt = {"positive": prompt_words(clip, layout.prompt)}
    recorders = [Recorder(name, Keep(), prompt) for name in branch_names(len(branches))]
    maps.branches = [recorder.branch for recorder in recorders]
    recording = [
        replace(branch, model=recorded(branch.model, recorder))
        for branch, recorder in zip(branches, recorders, strict=True)
    ]
    return recording, maps


def _guider(branches, layout, clip, settings: NodeSettings | None) -> BalancedGuider:
    settings = settings or NodeSettings()
    balance = settings.balance
    if settings.spatial_weights is not None:
        balance = replace(balance, fixed=settings.spatial_weights)
    return BalancedGuider(
        branches, layout, clip, balance, settings.layers, settings.include_adjectives, settings.detach_control
    )


NODES = [
    BranchNode,
    BalancePreset,
    BalanceSettingsNode,
    BalancedGuiderNode,
    DualUNetBalancerSampler,
]
