"""Training sets of the dataset nodes: from a folder, from the host's images and masks, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

from shapescenes.drawing import draw
from shapescenes.world import training_scene
from tokencompose_core.checking import check
from tokencompose_core.formats import open_records
from tokencompose_core.records import DatasetError, NounMask, Problem, Record, Source
from tokencompose_core.shards import ShardSet

from .folders import inside
from .trainable_model import caption_tokenizer

FIRST_SEED = 3  # of ShapeScenes: 1 and 2 drew what the bundled models were trained on
COUNTS = (0.1, 0.3, 0.3, 0.3)  # shares of scenes with 1 to 4 objects
NO_NOUNS = ("", "-")


def folder_records(folder: str) -> Sequence[Record]:
    """The set in a folder inside the host's input folder."""
    path = inside(folder_paths.get_input_directory(), folder, "folder")
    records = open_records(path)
    if isinstance(records, ShardSet):
        raise DatasetError(f"folder: {path} holds shards, which only the command line reads. Unpack them")
    return records


def text_lines(texts: Sequence[str]) -> list[str]:
    """The entries of a list, or the lines of a single text."""
    return list(texts) if len(texts) > 1 else texts[0].strip("\r\n").splitlines()


def image_records(
    images: Sequence[Tensor], captions: Sequence[str], nouns: Sequence[str], masks: Sequence[Tensor]
) -> list[Record]:
    """Records of images (H, W, C) and masks (H, W), 0 to 1. nouns: a line for each image, or one for all."""
    if len(captions) != len(images):
        raise DatasetError(f"captions: {len(captions)} for {len(images)} images: write one a line for each image")
    if len(nouns) == 1 or not nouns:
        nouns = [*nouns, "-"][:1] * len(images)
    if len(nouns) != len(images):
        raise DatasetError(
            f"nouns: {len(nouns)} lines for {len(images)} images: write one for each ('-' for none), or one for all"
        )
    named = [[n.strip() for n in line.split(",")] if line.strip() not in NO_NOUNS else [] for line in nouns]
    if len(masks) != sum(map(len, named)):
        raise DatasetError(
            f"masks: {len(masks)} for {sum(map(len, named))} nouns ({'; '.join(map(', '.join, named))}): connect one "
            "for each noun of each image, in this order"
        )
    left = iter(masks)
    records = []
    for number, (image, caption, own) in enumerate(zip(images, captions, named, strict=True), start=1):
        pairs = [NounMask(noun, image_source(f"mask of {noun!r}", next(left))) for noun in own]
        records.append(
            Record(image_source(f"image {number}", image[..., :3]), caption, tuple(pairs), f"image {number}")
        )
    return records


def image_source(name: str, pixels: Tensor) -> Source:
    """An IMAGE (H, W, 3) or MASK (H, W) as an image file in memory."""
    return png_source(name, pixels.clamp(0, 1).mul(255).round().byte().cpu().numpy())


def png_source(name: str, pixels: np.ndarray) -> Source:
    """Pixels (H, W, 3) or (H, W) in uint8 as an image file in memory."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return Source(name, data=file.getvalue())


def scene_records(count: int, style: str, seed: int) -> list[Record]:
    """A ShapeScenes set, with progress on the node that runs."""
    progress = comfy.utils.ProgressBar(count)
    records = []
    for index in range(count):
        comfy.model_management.throw_exception_if_processing_interrupted()
        records.append(scene_record(index, style, FIRST_SEED + seed))
        progress.update(1)
    return records


def scene_record(index: int, style: str, seed: int) -> Record:
    """Scene `index` of a ShapeScenes set. Its nouns are colour and shape together, such as "red circle"."""
    scene = training_scene(seed, index, COUNTS)
    masks: dict[str, np.ndarray] = {}
    for item, mask in zip(scene.objects, scene.masks(), strict=True):
        noun = f"{item.kind.colour} {item.kind.shape}"
        masks[noun] = masks.get(noun, False) | mask
    nouns = (
        NounMask(noun, png_source(f"mask of {noun!r}", mask.astype(np.uint8) * 255)) for noun, mask in masks.items()
    )
    image = png_source(f"scene {index}", draw(scene, style, seed=index))
    return Record(image, scene.prompt.caption, tuple(nouns), image.name)


def find_problems(records: Sequence[Record], clip: Any) -> list[Problem]:
    """All that is wrong with a set for the tokenizer of `clip`, with progress on the node that runs."""
    tokenizer, chunk = caption_tokenizer(clip)
    progress = comfy.utils.ProgressBar(len(records))

    def advance(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update_absolute(done)

    return list(check(records, tokenizer, advance, chunk=chunk))


def report_on(kept: Sequence[Record], records: Sequence[Record], problems: Sequence[Problem]) -> str:
    """How much of a set is kept, and every problem, a line each."""
    grounded = sum(mask is not None for record in kept for _, mask in record.nouns)
    counted = f"{len(kept)} of {len(records)} images, {grounded} nouns with masks"
    return "\n".join([counted, *map(str, problems)])
