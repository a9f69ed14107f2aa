"""Which models `realcompo generate` balances, and how they are loaded from the user's disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from realcompo_core.diffusers import Control, Guided, RealCompoPipeline
from realcompo_core.diffusers.controlnet import with_controlnets
from realcompo_core.diffusers.request import Drawn
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.layout.openpose_picture import draw_pose
from realcompo_core.layout.segmentation import ade20k_palette, draw_segmentation

from .models import DTYPES, ModelFileError, best_device, check_device, load_one

DRAWN: dict[str, Drawn] = {
    "openpose": draw_pose,
    "segmentation": lambda layout, size: draw_segmentation(layout, ade20k_palette(), size),
}
"""Control pictures that are drawn from the layout, by the names that `--control` knows."""


@dataclass(frozen=True)
class Models:
    """What the options of `generate` name.

    fidelity, spatial: diffusers folders or checkpoint files; spatial is None where it is the fidelity model. unet: a
    UNet folder in the place of the fidelity model's own. lora: on the fidelity model. controlnets, controls: of the
    spatial branch, one control (a picture's path, or a name of DRAWN) for each.
    """

    fidelity: Path
    spatial: Path | None = None
    unet: Path | None = None
    lora: Path | None = None
    controlnets: Sequence[Path] = ()
    controls: Sequence[str] = ()
    control_strength: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    detach_control: bool = False
    layout_guidance: bool = False
    phrase_strength: float = 0.0
    config: Path | None = None
    dtype: str | None = None
    device: str | None = None

    def check(self) -> None:
        """Raises RealCompoError for options that say nothing together, before anything is loaded."""
        guides = self.controlnets or self.layout_guidance or self.phrase_strength
        if self.spatial is None and not guides:
            raise RealCompoError(
                "no spatial branch: name a model that follows layouts with --spatial (GLIGEN), or let the fidelity "
                "model follow it with --controlnet, --layout-guidance or --phrases"
            )
        if len(self.controls) != len(self.controlnets):
            raise RealCompoError(
                f"{len(self.controls)} --control for {len(self.controlnets)} --controlnet: give one for each, a picture "
                f"or one of {', '.join(DRAWN)}, which draw the layout"
            )


def load_system(models: Models) -> tuple[RealCompoPipeline, list[Control]]:
    """The models on their device, and what the ControlNets are shown.

    Raises DeviceError, ModelFileError, BranchMismatchError, RealCompoError.
    """
    models.check()
    device = models.device or best_device()
    check_device(device)
    dtype = models.dtype or ("fp32" if device == "cpu" else "fp16")
    controls = [
        Control(
            DRAWN[name] if name in DRAWN else read_picture(Path(name)),
            models.control_strength,
            models.control_start,
            models.control_end,
            models.detach_control,
        )
        for name in models.controls
    ]
    fidelity = load_one(models.fidelity, dtype, models.config).to(device)
    if models.spatial is None and not (models.unet or models.lora):
        spatial = fidelity
    else:
        spatial = load_one(models.spatial or models.fidelity, dtype, models.config).to(device)
    if models.unet:
        fidelity = with_unet(fidelity, models.unet, dtype, device)
    if models.lora:
        add_lora(fidelity, models.lora)
    if models.controlnets:
        networks = [load_controlnet(path, dtype).to(device) for path in models.controlnets]
        spatial = with_controlnets(spatial, *networks)
    guidance = LayoutGuidance() if models.layout_guidance else None
    return RealCompoPipeline(fidelity, Guided(spatial, guidance, models.phrase_strength)), controls


def with_unet(pipeline: DiffusionPipeline, folder: Path, dtype: str, device: str) -> DiffusionPipeline:
    """The pipeline with the UNet of a diffusers folder, such as TokenCompose's. Raises ModelFileError."""
    try:
        unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=DTYPES[dtype], local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelFileError(
            f"cannot load the UNet {folder}: {error}. Expected a diffusers UNet folder, with config.json and weights"
        ) from error
    for name in ("in_channels", "cross_attention_dim", "addition_embed_type"):
        own, found = pipeline.unet.config.get(name), unet.config.get(name)
        if own != found:
            raise ModelFileError(
                f"the UNet {folder} has {name} {found}, the fidelity model's own has {own}: it is of another family"
            )
    pipeline.register_modules(unet=unet.to(device))
    return pipeline


def add_lora(pipeline: DiffusionPipeline, path: Path) -> None:
    """Raises ModelFileError."""
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
    except ImportError as error:
        raise ModelFileError("--lora needs the package peft: pip install peft") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelFileError(
            f"cannot put the LoRA {path} on the fidelity model: {error}. Is it made for a model of this family?"
        ) from error


def load_controlnet(path: Path, dtype: str) -> ControlNetModel:
    """A ControlNet from a diffusers folder or a single file. Raises ModelFileError."""
    options = {"torch_dtype": DTYPES[dtype], "local_files_only": True}
    try:
        if path.is_dir():
            return ControlNetModel.from_pretrained(path, **options)
        return ControlNetModel.from_single_file(str(path), **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelFileError(
            f"cannot load the ControlNet {path}: {error}. Expected a diffusers ControlNet folder, with config.json and "
            "weights, or a .safetensors file of one"
        ) from error


def read_picture(path: Path) -> Image.Image:
    """Raises RealCompoError."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise RealCompoError(
            f"--control {path}: cannot be read as a picture ({error}). Give a picture, or one of {', '.join(DRAWN)}, "
            "which draw the layout"
        ) from error
