"""What `realcompo attention` does: a diffusers pipeline draws, its attention is recorded, sheets show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from realcompo_core.attention.drawing import Under, View, chosen_words, select, sheet
from realcompo_core.attention.grounding_metrics import (
    GroundingRow,
    as_csv,
    differences,
    layout_table,
    layout_targets,
    mean_of,
)
from realcompo_core.attention.maps import AttentionMaps, BranchMaps, Keep, kept_columns, side_by_side
from realcompo_core.diffusers import record
from realcompo_core.diffusers.inversion import invert
from realcompo_core.diffusers.recording import prompt_words
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from shapescenes import DEFAULTS
from shapescenes.models import pipelines, tokencompose_pipeline
from shapescenes.world import vocabulary

from .demo import VocabularyError
from .files import Files
from .models import DTYPES, ModelFileError, best_device, check_device, load_one
from .runs import MemoryFullError
from .systems import with_unet

STEPS, GUIDANCE = 50, 7.5  # of a model of the user's; the bundled one has its own
TOKENCOMPOSE = "tokencompose"  # the bundled fine-tuned model
NAMES = {dtype: name for name, dtype in DTYPES.items()}
NO_MEMORY = "not enough memory: choose a smaller --size or --dtype"

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


@dataclass(frozen=True)
class Wanted:
    """What is drawn, what is recorded of it, and what the sheets show.

    size: (width, height) in pixels, None for the model's own. axes: a sheet for each. layout: of the table. picture:
    what is inverted and drawn again, instead of drawing from the seed.
    """

    prompt: str
    negative: str
    steps: int
    guidance_scale: float
    seed: int
    size: tuple[int, int] | None
    phrases: list[str]
    axes: list[str]
    keep: Keep
    view: View
    layout: Layout | None
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Drawn:
    """A model's picture with its maps. told: what is known of it, for the terminal; empty where nothing is."""

    picture: Image.Image
    maps: AttentionMaps
    told: str = ""


def load(path: Path | None, config: Path | None, dtype: str | None, device: str | None) -> Pipeline:
    """The model at `path`, or the bundled one. Raises DeviceError and ModelFileError.

    device: None is the CPU for the bundled model, else the best one here. dtype: None is fp32 on the CPU, else fp16.
    """
    device = device or ("cpu" if path is None else best_device())
    check_device(device)
    dtype = dtype or ("fp32" if device == "cpu" else "fp16")
    pipeline = pipelines()[0] if path is None else load_one(path, dtype, config)
    return _checked(pipeline, path, device, dtype)


def load_other(first: Pipeline, path: Path, config: Path | None) -> Pipeline:
    """The model to compare with: a model, or a UNet of the first model's family. Raises ModelFileError.

    With the bundled model its fine-tuned one is known by the name `tokencompose`.
    """
    device, dtype = str(first.device), NAMES[first.unet.dtype]
    if str(path) == TOKENCOMPOSE and not path.exists():
        return _checked(tokencompose_pipeline(pipelines()[0]), path, device, dtype)
    if not path.exists():
        raise ModelFileError(
            f"--compare {path}: there is no such file or folder. Name a model, a UNet folder, or {TOKENCOMPOSE}, "
            "the bundled fine-tuned model"
        )
    if (path / "config.json").is_file() and not (path / "model_index.json").is_file():
        return with_unet(copy(first), path, dtype, device)
    return _checked(load_one(path, dtype, config), path, device, dtype)


def _checked(pipeline: Any, path: Path | None, device: str, dtype: str) -> Pipeline:
    if not isinstance(pipeline, Pipeline):
        raise ModelFileError(
            f"{path} is a {type(pipeline).__name__}: attention is recorded in text-to-image models of the SD1.x, SD2.x "
            "and SDXL families"
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, DTYPES[dtype])


def defaults(path: Path | None) -> tuple[int, float]:
    """Steps and guidance scale of the model at `path`, or of the bundled one."""
    return (STEPS, GUIDANCE) if path else (DEFAULTS["steps"], DEFAULTS["guidance_scale"])


def check_vocabulary(text: str) -> None:
    """Raises VocabularyError for a word that the bundled model has never seen."""
    known = vocabulary()
    unknown = [word for word in re.findall(r"[^\s,.]+", text.lower()) if word not in known]
    if unknown:
        raise VocabularyError(
            f"the bundled model does not know {', '.join(map(repr, dict.fromkeys(unknown)))}. It knows: "
            f"{', '.join(word for word in known if word.isalpha())}. For anything else, name a model of your own with "
            "--model"
        )


def names_of(model: Path | None, other: Path | None) -> list[str]:
    """What the models are called: by their files, or first and second where these are called alike."""
    first = "text_to_image" if model is None else model.stem
    if other is None:
        return [first]
    return [first, other.stem] if first != other.stem else ["first", "second"]


def check(pipeline: Pipeline, wanted: Wanted, compared: bool) -> None:
    """Raises RealCompoError for what could not be drawn, or not be shown after sampling. compared: with another."""
    if "branches" in wanted.axes and not compared:
        raise RealCompoError("--axis branches compares two models: name the other one with --compare")
    if wanted.size and any(side % 8 for side in wanted.size):
        raise RealCompoError(f"the picture's size {'x'.join(map(str, wanted.size))} is not divisible by 8")
    conditioning = wanted.view.conditioning
    if conditioning not in conditionings(pipeline, wanted):
        raise RealCompoError(
            f"there is no {conditioning} conditioning without guidance (--cfg {wanted.guidance_scale:g}): choose "
            "--conditioning positive, or a --cfg above 1 and a model that is not distilled from guidance"
        )
    chosen_words(_words(pipeline, wanted, conditioning), wanted.phrases, conditioning)
    if wanted.layout is not None:
        if not wanted.layout.objects:
            raise RealCompoError("the layout has no objects to measure against: give another one, or no --layout")
        layout_targets(_words(pipeline, wanted, "positive"), wanted.layout)
    if "heads" in wanted.axes and wanted.keep.heads != "apart":
        raise RealCompoError("--axis heads has nothing to show with --heads averaged: leave --heads out")


def conditionings(pipeline: Pipeline, wanted: Wanted) -> tuple[str, ...]:
    """What the pipeline joins in a batch, in this order."""
    guided = wanted.guidance_scale > 1 and pipeline.unet.config.time_cond_proj_dim is None
    return ("negative", "positive") if guided else ("positive",)


def sample(pipeline: Pipeline, wanted: Wanted, progress: Callable[[str, int, int], None]) -> Drawn:
    """The picture and its maps. `progress(what, done, steps)` is called after each step. Raises MemoryFullError."""
    width, height = wanted.size or (None, None)
    if wanted.picture is not None:
        return _drawn_again(pipeline, wanted, wanted.picture, progress)

    def tell(pipeline: Pipeline, step: int, timestep, tensors: dict) -> dict:
        progress("sampling", step + 1, pipeline.num_timesteps)
        return tensors

    try:
        with record(
            pipeline.unet,
            wanted.prompt,
            pipeline.tokenizer,
            wanted.negative,
            conditionings=conditionings(pipeline, wanted),
            keep=wanted.keep,
            steps=wanted.steps,
        ) as maps:
            output = pipeline(
                wanted.prompt,
                negative_prompt=wanted.negative or None,
                num_inference_steps=wanted.steps,
                guidance_scale=wanted.guidance_scale,
                width=width,
                height=height,
                generator=torch.Generator().manual_seed(wanted.seed),
                callback_on_step_end=tell,
            )
    except torch.OutOfMemoryError as error:
        raise MemoryFullError(NO_MEMORY) from error
    maps.layout = wanted.layout
    return Drawn(output.images[0], maps)


def _drawn_again(
    pipeline: Pipeline, wanted: Wanted, picture: Image.Image, progress: Callable[[str, int, int], None]
) -> Drawn:
    width, height = wanted.size or (None, None)
    scale = wanted.guidance_scale if len(conditionings(pipeline, wanted)) == 2 else 1.0
    try:
        found = invert(
            pipeline,
            picture,
            wanted.prompt,
            negative_prompt=wanted.negative,
            steps=wanted.steps,
            guidance_scale=scale,
            height=height,
            width=width,
            keep=wanted.keep,
            progress=progress,
        )
    except torch.OutOfMemoryError as error:
        raise MemoryFullError(NO_MEMORY + ", or --cfg 1, which needs no gradients") from error
    found.maps.layout = wanted.layout
    told = (
        f"drawn again with a PSNR of {found.psnr:.1f} dB; by the autoencoder alone {found.psnr_of_autoencoder:.1f} dB"
    )
    return Drawn(found.reconstruction, found.maps, told)


def together(drawn: Sequence[Drawn], names: Sequence[str]) -> AttentionMaps:
    """The maps of one model, or of two side by side."""
    if len(drawn) == 1:
        return drawn[0].maps
    return side_by_side(drawn[0].maps, drawn[1].maps, tuple(names))


def write(files: Files, drawn: Sequence[Drawn], names: Sequence[str], wanted: Wanted) -> list[GroundingRow]:
    """Pictures, a sheet for each axis, the recording, and with a layout the table of its objects, which is returned."""
    maps, of_two = together(drawn, names), len(drawn) == 2
    for one, name in zip(drawn, names, strict=True):
        files.write_picture(f"picture_{name}.png" if of_two else "picture.png", one.picture)
    for axis in dict.fromkeys(wanted.axes):
        (shown,) = select(maps, axis, wanted.phrases, wanted.view)
        under: Under = drawn[0].picture
        if axis == "branches":
            under = [drawn[0].picture, drawn[1].picture, drawn[1].picture]  # the last is the difference
        files.write_picture(f"attention_{axis}.png", sheet(shown, under, wanted.view))
    rows: list[GroundingRow] = []
    if wanted.layout is not None:
        rows = layout_table(maps, layers="layers" in wanted.axes, steps="steps" in wanted.axes)
        files.write("grounding.csv", as_csv(rows))
        if of_two:
            files.write("differences.csv", as_csv(differences(rows)))
    recording = BytesIO()
    maps.save(recording)
    files.write("attention.npz", recording.getvalue())
    return rows


def told_differences(rows: Sequence[GroundingRow]) -> list[str]:
    """The grounding metrics of two models in lines, one each, with the second's difference to the first."""
    names = list(dict.fromkeys(row.branch for row in rows))
    own = [[row for row in rows if row.branch == name] for name in names]
    lines = []
    for column, what in (("share", "share of attention inside"), ("iou", "IoU"), ("concentration", "concentration")):
        one, other = (mean_of(part, column) for part in own)
        lines.append(f"{what}: {names[0]} {one:.3f}, {names[1]} {other:.3f} ({other - one:+.3f})")
    return lines


def _words(pipeline: Pipeline, wanted: Wanted, conditioning: str) -> BranchMaps:
    """The words that will be recorded, without maps."""
    prompt = prompt_words(pipeline.tokenizer, wanted.prompt if conditioning == "positive" else wanted.negative)
    return BranchMaps("model", {conditioning: kept_columns(prompt, wanted.keep, prompt.length)[1]})
