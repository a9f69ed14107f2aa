"""What must fit before sampling starts. Each error names both sides and the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_sampling
from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

from realcompo_core.errors import BranchMismatchError
from realcompo_core.guidance.branch import branch_names

from .branch_input import BranchInput
from .controls import chain

SCHEDULE_TOLERANCE = 0.01  # relative; rescaled schedules of one family differ by less
FAMILIES = {768: "SD1.x", 1024: "SD2.x", 1280: "SDXL's refiner", 2048: "SDXL"}  # by the width of the text they read
MASK_FUNCTION = "denoise_mask_function"  # in model options
CONTROLS = {  # by the module of the ControlNet's network: whose it is
    "comfy.cldm.cldm": (UNetModel, "UNets"),
    "comfy.cldm.mmdit": (MMDiT, "SD3"),
    "comfy.cldm.dit_embedder": (MMDiT, "SD3"),
    "comfy.ldm.flux.controlnet": (Flux, "Flux"),
    "comfy.ldm.qwen_image.controlnet": (QwenImageTransformer2DModel, "Qwen-Image"),
}
TEXT_KEYS = ("attn2.to_k.weight", "attn2.to_k.down")  # of a network, and of a control LoRA's weights


def check_branches(branches: Sequence[BranchInput]) -> None:
    """Raises BranchMismatchError unless all branches can denoise the same latent with their conditionings."""
    names = [f"{name} branch" for name in branch_names(len(branches))]
    for branch, name in zip(branches[1:], names[1:], strict=True):
        _check_latents(branches[0].model, branch.model, name)
        _check_schedules(branches[0].model, branch.model, name)
        _check_mask_functions(branches[0].model, branch.model, name)
    for branch, name in zip(branches, names, strict=True):
        _check_conditioning(branch, name)


def is_flow(model: Any) -> bool:
    """Whether a MODEL is of flow matching, whose latent is (1 − σ) · signal + σ · noise."""
    return isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST)


def _latents(latent_format: Any) -> tuple:
    return latent_format.latent_channels, latent_format.scale_factor, getattr(latent_format, "shift_factor", 0.0)


def _check_latents(first: Any, other: Any, name: str) -> None:
    a, b = (model.get_model_object("latent_format") for model in (first, other))
    if _latents(a) != _latents(b):
        raise BranchMismatchError(
            f"fidelity branch: {_family(first)} with {a.latent_channels} latent channels scaled by {a.scale_factor:g}; "
            f"{name}: {_family(other)} with {b.latent_channels} scaled by {b.scale_factor:g}. They cannot share a "
            "latent: load checkpoints of one family"
        )


def _check_schedules(first: Any, other: Any, name: str) -> None:
    a, b = (model.get_model_object("model_sampling") for model in (first, other))
    if is_flow(first) != is_flow(other):
        kinds = {True: "flow matching", False: "noise added to the signal"}
        raise BranchMismatchError(
            f"fidelity branch: {_family(first)} with {kinds[is_flow(first)]}; {name}: {_family(other)} with "
            f"{kinds[is_flow(other)]}. They cannot share a latent: load checkpoints of one family"
        )
    if is_flow(first):  # a noise level is the same whatever the shift
        return
    ends = [(float(s.sigma_min), float(s.sigma_max)) for s in (a, b)]
    if any(abs(x - y) > SCHEDULE_TOLERANCE * y for x, y in zip(*ends, strict=True)):
        (low_a, high_a), (low_b, high_b) = ends
        raise BranchMismatchError(
            f"fidelity branch: {_family(first)} with noise levels {low_a:.4g} to {high_a:.4g}; {name}: "
            f"{_family(other)} with {low_b:.4g} to {high_b:.4g}. Use checkpoints with one noise schedule, or give both "
            "the same model sampling node"
        )


def _check_mask_functions(first: Any, other: Any, name: str) -> None:
    """All branches share one latent, and the host asks the fidelity branch's model how a noise mask changes."""
    ours, theirs = (model.model_options.get(MASK_FUNCTION) for model in (first, other))
    if theirs is not None and not _same_function(ours, theirs):
        raise BranchMismatchError(
            f"{name}: its model changes the noise mask during sampling (Differential Diffusion, for instance), and the "
            f"fidelity branch's {'does not' if ours is None else 'does so in another way'}. The branches share one "
            "latent: put that node on the fidelity branch's model, or before both"
        )


def _same_function(a: Any, b: Any) -> bool:
    """Whether two functions are one, or one lambda with equal values from around it, as equal nodes make them."""

    def parts(function: Callable) -> tuple:
        around = getattr(function, "__closure__", None) or ()
        return getattr(function, "__code__", function), [cell.cell_contents for cell in around]

    return a is b or (a is not None and b is not None and parts(a) == parts(b))


def _check_conditioning(branch: BranchInput, name: str) -> None:
    """Text, GLIGEN and ControlNet of the family of the model."""
    wanted = _text_width(branch.model)
    for sign, conditioning in (("positive", branch.positive), ("negative", branch.negative)):
        for tensor, options in conditioning:
            if wanted and tensor is not None and tensor.shape[-1] != wanted:
                raise BranchMismatchError(
                    f"{name}: {_family(branch.model)} reads text of width {wanted}, and its {sign} conditioning has "
                    f"width {tensor.shape[-1]}: encode it with the CLIP of the same checkpoint"
                )
            parts = [("GLIGEN", _gligen_width(options.get("gligen")))]
            parts += [("ControlNet", _control_width(control)) for control in chain(options.get("control"))]
            for part, width in parts:
                if wanted and width and width != wanted:
                    of = FAMILIES.get(width, "another family")
                    raise BranchMismatchError(
                        f"{name}: {_family(branch.model)} reads text of width {wanted}, and a {part} on its {sign} "
                        f"conditioning is for {of}, width {width}: load the {part} file of the model's family"
                    )
            network = type(branch.model.get_model_object("diffusion_model"))
            if options.get("gligen") and not issubclass(network, UNetModel):
                raise BranchMismatchError(
                    f"{name}: GLIGEN is for UNets (SD1.x), and its model is {_family(branch.model)}: take Apply Layout "
                    "(Regional Attention) for SD3, Flux and Qwen-Image"
                )
            for control in chain(options.get("control")):
                kind = type(getattr(control, "control_model", None))
                wanted_network, of = CONTROLS.get(kind.__module__, (network, ""))
                if not issubclass(network, wanted_network):
                    raise BranchMismatchError(
                        f"{name}: its model is {_family(branch.model)}, and a ControlNet on its {sign} conditioning is "
                        f"for {of}: load the ControlNet file of the model's family"
                    )


def _family(model: Any) -> str:
    return type(model.model.model_config).__name__


def _text_width(model: Any) -> int | None:
    config = model.model.model_config.unet_config
    names = ("context_dim", "context_in_dim", "joint_attention_dim", "text_dim")  # of UNets, Flux, Qwen-Image, Wan
    width = next((config[name] for name in names if name in config), None)
    if width is None and config.get("context_embedder_config"):  # of SD3
        width = config["context_embedder_config"]["params"]["in_features"]
    return width[0] if isinstance(width, list) else width


def _gligen_width(gligen: tuple | None) -> int | None:
    """None also for what other packs put in its place."""
    return getattr(gligen[1].model, "key_dim", None) if gligen else None


def _control_width(control: Any) -> int | None:
    """The width of the text that a ControlNet's cross-attention reads; None where it has none (T2I adapters)."""
    network = getattr(control, "control_model", None)
    weights = getattr(control, "control_weights", {}) if network is None else dict(network.named_parameters())
    return next((weight.shape[1] for name, weight in weights.items() if name.endswith(TEXT_KEYS)), None)
