"""What `realcompo attention` does: a diffusers pipeline draws, its attention is recorded, sheets show it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from realcompo_core.attention.drawing import View, chosen_words, select, sheet
from realcompo_core.attention.grounding_metrics import as_csv, layout_table, layout_targets
from realcompo_core.attention.maps import AttentionMaps, BranchMaps, Keep, kept_columns
from realcompo_core.diffusers import record
from realcompo_core.diffusers.recording import prompt_words
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from shapescenes import DEFAULTS
from shapescenes.models import pipelines
from shapescenes.world import vocabulary

from .demo import VocabularyError
from .files import Files
from .models import DTYPES, ModelFileError, best_device, check_device, load_one
from .runs import MemoryFullError

STEPS, GUIDANCE = 50, 7.5  # of a model of the user's; the bundled one has its own

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


@dataclass(frozen=True)
class Wanted:
    """What is drawn, what is recorded of it, and what the sheets show.

    size: (width, height) in pixels, None for the model's own. axes: a sheet for each. layout: of the table.
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


def load(path: Path | None, config: Path | None, dtype: str | None, device: str | None) -> Pipeline:
    """The model at `path`, or the bundled one. Raises DeviceError and ModelFileError.

    device: None is the CPU for the bundled model, else the best one here. dtype: None is fp32 on the CPU, else fp16.
    """
    device = device or ("cpu" if path is None else best_device())
    check_device(device)
    dtype = dtype or ("fp32" if device == "cpu" else "fp16")
    pipeline = pipelines()[0] if path is None else load_one(path, dtype, config)
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


def check(pipeline: Pipeline, wanted: Wanted) -> None:
    """Raises RealCompoError for what could not be drawn, or not be shown after sampling."""
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


def sample(
    pipeline: Pipeline, wanted: Wanted, progress: Callable[[int, int], None]
) -> tuple[Image.Image, AttentionMaps]:
    """The picture and its maps. `progress(done, steps)` is called after each step. Raises MemoryFullError."""
    width, height = wanted.size or (None, None)

    def tell(pipeline: Pipeline, step: int, timestep, tensors: dict) -> dict:
        progress(step + 1, pipeline.num_timesteps)
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
        raise MemoryFullError("not enough memory: choose a smaller --size or --dtype") from error
    maps.layout = wanted.layout
    return output.images[0], maps


def write(files: Files, picture: Image.Image, maps: AttentionMaps, wanted: Wanted) -> None:
    """A sheet for each axis, the recording, and with a layout the table of its objects."""
    for axis in dict.fromkeys(wanted.axes):
        (shown,) = select(maps, axis, wanted.phrases, wanted.view)
        files.write_picture(f"attention_{axis}.png", sheet(shown, picture, wanted.view))
    if wanted.layout is not None:
        rows = layout_table(maps, layers="layers" in wanted.axes, steps="steps" in wanted.axes)
        files.write("grounding.csv", as_csv(rows))
    recording = BytesIO()
    maps.save(recording)
    files.write("attention.npz", recording.getvalue())


def _words(pipeline: Pipeline, wanted: Wanted, conditioning: str) -> BranchMaps:
    """The words that will be recorded, without maps."""
    prompt = prompt_words(pipeline.tokenizer, wanted.prompt if conditioning == "positive" else wanted.negative)
    return BranchMaps("model", {conditioning: kept_columns(prompt, wanted.keep, prompt.length)[1]})
