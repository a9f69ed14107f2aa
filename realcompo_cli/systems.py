"""Which models `realcompo generate` balances, and how they are loaded from the user's disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from realcompo_core.diffusers import Control, Guided, RealCompoPipeline
from realcompo_core.diffusers.controlnet import with_controlnets
from realcompo_core.diffusers.request import Drawn
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.layout import Layout
from realcompo_core.layout.openpose_picture import draw_pose
from realcompo_core.layout.segmentation import ADE20K, draw_segmentation, parse_classes

from .models import DTYPES, ModelFileError, best_device, check_device, load_one

DRAWN = ("openpose", "segmentation")  # from the layout
OTHER_NAMES = {  # of options whose fields are called otherwise
    "unet": "fidelity-unet",
    "controlnets": "controlnet",
    "controls": "control",
    "phrase_strength": "phrases",
}


@dataclass(frozen=True)
class Models:
    """What the options of `generate` name.

    fidelity, spatial: diffusers folders or checkpoint files; spatial is None where it is the fidelity model. unet: a
    UNet folder in the place of the fidelity model's own. lora: on the fidelity model. controlnets, controls: of the
    spatial branch, one control (a picture's path, or a name of DRAWN) for each. classes: of phrases that ADE20K does
    not know, such as "corgi=animal".
    """

    fidelity: Path | None
    spatial: Path | None = None
    unet: Path | None = None
    lora: Path | None = None
    controlnets: Sequence[Path] = ()
    controls: Sequence[str] = ()
    control_strength: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    detach_control: bool = False
    classes: str = ""
    layout_guidance: bool = False
    phrase_strength: float = 0.0
    config: Path | None = None
    dtype: str | None = None
    device: str | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Models:
        """From a command's parameters, which are called like its options."""
        names = {field.name: OTHER_NAMES.get(field.name, field.name).replace("-", "_") for field in fields(cls)}
        values = {name: parameters[parameter] for name, parameter in names.items()}
        return cls(**values | {name: values[name] or () for name in ("controlnets", "controls")})

    def given(self) -> list[str]:
        """The options that are not as they are by default, but for --fidelity."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return ["--" + OTHER_NAMES.get(name, name.replace("_", "-")) for name in changed if name != "fidelity"]

    @property
    def description(self) -> str:
        """The models in a line, for the report."""
        fidelity = [
            f"fidelity {self.fidelity}",
            self.unet and f"with the UNet {self.unet}",
            self.lora and f"+ {self.lora}",
        ]
        spatial = [f"spatial {self.spatial or self.fidelity}"]
        spatial += [f"with {path} shown {shown}" for path, shown in zip(self.controlnets, self.controls, strict=True)]
        spatial += ["with Layout Guidance"] * self.layout_guidance
        spatial += [f"with phrases × {self.phrase_strength:g}"] * (self.phrase_strength > 0)
        return ", ".join(" ".join(filter(None, parts)) for parts in (fidelity, spatial))

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
                f"{len(self.controls)} --control for {len(self.controlnets)} --controlnet: give one for each, a "
                f"picture or one of {', '.join(DRAWN)}, which draw the layout"
            )
        of_controls = ("--control-strength", "--control-start", "--control-end", "--detach-control")
        for option in self.given():
            if option in of_controls and not self.controlnets:
                raise RealCompoError(f"{option} has no meaning without --controlnet")
        if self.classes and "segmentation" not in self.controls:
            raise RealCompoError("--classes has no meaning without --control segmentation")


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
            control_picture(name, models.classes),
            models.control_strength,
            models.control_start,
            models.control_end,
            models.detach_control,
        )
        for name in models.controls
    ]
    fidelity = load_fidelity(models, dtype, device)
    if models.spatial is None and not (models.unet or models.lora):
        spatial = fidelity
    else:
        spatial = load_one(models.spatial or models.fidelity, dtype, models.config).to(device)
    if models.controlnets:
        networks = [load_controlnet(path, dtype).to(device) for path in models.controlnets]
        spatial = with_controlnets(spatial, *networks)
    guidance = LayoutGuidance() if models.layout_guidance else None
    return RealCompoPipeline(fidelity, Guided(spatial, guidance, models.phrase_strength)), controls


def load_fidelity(models: Models, dtype: str, device: str) -> DiffusionPipeline:
    """The fidelity model with its UNet and LoRA. Raises ModelFileError."""
    pipeline = load_one(models.fidelity, dtype, models.config).to(device)
    if models.unet:
        pipeline = with_unet(pipeline, models.unet, dtype, device)
    if models.lora:
        add_lora(pipeline, models.lora)
    return pipeline


def with_unet(pipeline: DiffusionPipeline, folder: Path, dtype: str, device: str) -> DiffusionPipeline:
    """The pipeline with the UNet of a diffusers folder, such as TokenCompose's. Raises ModelFileError."""
    try:
        unet, found = UNet2DConditionModel.from_pretrained(
            folder, torch_dtype=DTYPES[dtype], local_files_only=True, output_loading_info=True
        )
        if found["missing_keys"]:
            raise ValueError(f"it has no {found['missing_keys'][0]}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
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
        if not path.is_dir():
            return ControlNetModel.from_single_file(str(path), **options)
        network, found = ControlNetModel.from_pretrained(path, output_loading_info=True, **options)
        if found["missing_keys"]:
            raise ValueError(f"it has no {found['missing_keys'][0]}")
        return network
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelFileError(
            f"cannot load the ControlNet {path}: {error}. Expected a diffusers ControlNet folder, with config.json and "
            "weights, or a .safetensors file of one"
        ) from error


def control_picture(name: str, classes: str) -> Image.Image | Drawn:
    """What a ControlNet is shown: a picture, or a function that draws a layout."""
    if name == "openpose":
        return draw_pose
    if name == "segmentation":
        by_hand = parse_classes(classes)

        def segmentation(layout: Layout, size: tuple[int, int]) -> Image.Image:
            return draw_segmentation(layout, ADE20K, size, by_hand)

        return segmentation
    return read_picture("--control", Path(name), f"Give a picture, or one of {', '.join(DRAWN)}, which draw the layout")


def read_picture(option: str, path: Path, advice: str) -> Image.Image:
    """The picture that this option names. Raises RealCompoError, with advice, where it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise RealCompoError(f"{option} {path}: cannot be read as a picture ({error}). {advice}") from error
