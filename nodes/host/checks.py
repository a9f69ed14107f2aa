"""What must fit before sampling starts. Each error names both sides and the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from realcompo_core.errors import BranchMismatchError, RealCompoError
from realcompo_core.guidance.branch import branch_names

from .branch_input import BranchInput
from .controls import chain
from .unet_attention import UNetAttention

SCHEDULE_TOLERANCE = 0.01  # relative; rescaled schedules of one family differ by less
FAMILIES = {768: "SD1.x", 1024: "SD2.x", 1280: "SDXL's refiner", 2048: "SDXL"}  # by the width of the text they read
MASK_FUNCTION = "denoise_mask_function"  # in model options
TEXT_KEYS = ("attn2.to_k.weight", "attn2.to_k.down")  # of a network, and of a control LoRA's weights


def readable_source(model: Any) -> UNetAttention:
    """The model's attention source, if the balancer can read it with gradient. Raises RealCompoError for others."""
    network = model.get_model_object("diffusion_model")
    if not isinstance(network, UNetModel):
        raise RealCompoError(
            f"the balancer reads the cross-attention of a UNet (SD1.x, SD2.x, SDXL), and this model is a "
            f"{type(network).__name__}: use it outside of the balancer, or take a UNet checkpoint"
        )
    return UNetAttention(network)


def check_branches(branches: Sequence[BranchInput]) -> None:
    """Raises BranchMismatchError unless all branches can denoise the same latent with their conditionings."""
    names = [f"{name} branch" for name in branch_names(len(branches))]
    for branch, name in zip(branches, names, strict=True):
        _check_conditioning(branch, name)
    for branch, name in zip(branches[1:], names[1:], strict=True):
        _check_latents(branches[0].model, branch.model, name)
        _check_schedules(branches[0].model, branch.model, name)
        _check_mask_functions(branches[0].model, branch.model, name)


def _check_latents(first: Any, other: Any, name: str) -> None:
    a, b = (model.get_model_object("latent_format") for model in (first, other))
    if (a.latent_channels, a.scale_factor) != (b.latent_channels, b.scale_factor):
        raise BranchMismatchError(
            f"fidelity branch: {_family(first)} with {a.latent_channels} latent channels scaled by {a.scale_factor:g}; "
            f"{name}: {_family(other)} with {b.latent_channels} scaled by {b.scale_factor:g}. They cannot share a "
            "latent: load checkpoints of one family"
        )


def _check_schedules(first: Any, other: Any, name: str) -> None:
    a, b = (model.get_model_object("model_sampling") for model in (first, other))
    ends = [(float(s.sigma_min), float(s.sigma_max)) for s in (a, b)]
    if any(abs(x - y) > SCHEDULE_TOLERANCE * y for x, y in zip(*ends, strict=True)):
        (low_a, high_a), (low_b, high_b) = ends
        raise BranchMismatchError(
            f"fidelity branch: noise levels {low_a:.4g} to {high_a:.4g}; {name}: {low_b:.4g} to {high_b:.4g}. Use "
            "checkpoints with one noise schedule, or give both the same model sampling node"
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


def _family(model: Any) -> str:
    return type(model.model.model_config).__name__


def _text_width(model: Any) -> int | None:
    width = model.model.model_config.unet_config.get("context_dim")
    return width[0] if isinstance(width, list) else width


def _gligen_width(gligen: tuple | None) -> int | None:
    """None also for what other packs put in its place."""
    return getattr(gligen[1].model, "key_dim", None) if gligen else None


def _control_width(control: Any) -> int | None:
    """The width of the text that a ControlNet's cross-attention reads; None where it has none (T2I adapters)."""
    network = getattr(control, "control_model", None)
    weights = getattr(control, "control_weights", {}) if network is None else dict(network.named_parameters())
    return next((weight.shape[1] for name, weight in weights.items() if name.endswith(TEXT_KEYS)), None)
