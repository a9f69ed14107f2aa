"""Nodes that fine-tune with TokenCompose: datasets, Trainer, Save, Load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import chain, islice
from pathlib import Path, PurePosixPath, PureWindowsPath

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from realcompo_core.errors import Cancelled, RealCompoError
from realcompo_core.files import replacing
from shapescenes.drawing import STYLES, draw
from shapescenes.world import training_scene
from tokencompose_core.checking import check, kept_records
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.dataset import load_example
from tokencompose_core.formats import open_records
from tokencompose_core.identity import RunSettings
from tokencompose_core.order import EpochOrder
from tokencompose_core.records import DatasetError, NounMask, Record, Source, each_record, fingerprint
from tokencompose_core.runtime import Runtime
from tokencompose_core.shards import ShardSet
from tokencompose_core.training import StepReport, TrainSettings, train

from .host.trainable_model import HostModel, caption_tokenizer
from .layout_nodes import show_on_node
from .schema import ADVANCED, schema, size_inputs
from .types import TokenComposeDatasetType

FIRST_SEED = 3  # of ShapeScenes: 1 and 2 drew what the bundled models were trained on
COUNTS = (0.1, 0.3, 0.3, 0.3)  # shares of scenes with 1 to 4 objects
NO_NOUNS = ("", "-")
PREVIEW_SIDE = 512
VALIDATION_STEPS, VALIDATION_CFG = 20, 5.0
FLAT = 1e-6  # what the host's loss graph needs between the lowest and the highest loss

PARTS = {  # how each part of what was learnt fits a weight: the shapes of both
    ".lora_A.weight": lambda found, weight: found[1:] == weight[1:],
    ".lora_B.weight": lambda found, weight: found[:1] == weight[:1],
    ".diff": lambda found, weight: found == weight,
    ".diff_b": lambda found, weight: found == weight,
}

CLIP_TIP = "The CLIP that the model is trained with: it tells which tokens of a caption are its nouns."
ON_PROBLEM_TIP = "What to do with images, captions and masks that cannot be used: refuse them all, or leave them out."


def dataset_inputs() -> list[io.Input]:
    """Those that every dataset node has at its end."""
    return [
        io.Clip.Input("clip", tooltip=CLIP_TIP),
        io.Combo.Input("on_problem", options=["refuse", "skip"], default="refuse", tooltip=ON_PROBLEM_TIP),
    ]


def dataset_outputs() -> list[io.Output]:
    return [
        TokenComposeDatasetType.Output("dataset", tooltip="For TokenCompose Trainer."),
        io.String.Output("report", tooltip="How many images and nouns there are, and every problem found."),
    ]


class TokenComposeDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoTokenComposeDataset",
            display_name="TokenCompose Dataset",
            description="Images with captions and a mask for each noun, from a folder; all of it is checked.",
            search_aliases=["training data", "segmentation dataset", "load training images"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="my_dataset",
                    tooltip="A folder inside ComfyUI's input folder, with metadata.jsonl, or with NAME.jpg, NAME.txt "
                    "and masks/NAME/NOUN.png.",
                ),
                *dataset_inputs(),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, folder=None, **others):
        try:
            return fingerprint(each_record(records_of(folder)))
        except RealCompoError as error:
            return str(error)

    @classmethod
    def execute(cls, folder, clip, on_problem) -> io.NodeOutput:
        return checked(records_of(folder), clip, on_problem)


class TokenComposeDatasetFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoTokenComposeDatasetFromImages",
            display_name="TokenCompose Dataset from Images",
            description="Images, captions and masks of other nodes as a dataset.",
            search_aliases=["training data from images", "images to dataset"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="Batches or lists of images of any size."),
                io.String.Input(
                    "captions", multiline=True, default="", tooltip="One for each image: one a line, or a list."
                ),
                io.String.Input(
                    "nouns",
                    multiline=True,
                    default="",
                    tooltip="For each image a line (or list entry) of those nouns of its caption that have a mask, "
                    "separated by commas; '-' for none. One line alone is for every image.",
                ),
                *dataset_inputs(),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="One for each noun, in the order of the nouns, image by image: batches or lists. A mask "
                    "covers all that its noun stands for, and has its image's size.",
                ),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def execute(cls, images, captions, nouns, clip, on_problem, masks=()) -> io.NodeOutput:
        pictures = [picture for batch in images for picture in batch]
        shapes = [mask for batch in masks for mask in batch.reshape(-1, *batch.shape[-2:])]
        return checked(records_from(pictures, lines(captions), lines(nouns), shapes), clip[0], on_problem[0])


class ShapeScenesDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoShapeScenesDataset",
            display_name="ShapeScenes Dataset",
            description="Drawn scenes of coloured shapes whose captions and masks are exact, for the bundled models.",
            search_aliases=["demo dataset", "synthetic training data"],
            inputs=[
                io.Int.Input("scenes", default=200, min=1, max=100_000, tooltip="How many are drawn."),
                io.Combo.Input(
                    "style", options=list(STYLES), default=STYLES[0], tooltip="Rendered with light and shadow, or flat."
                ),
                io.Int.Input("seed", default=0, min=0, max=2**32 - 1, tooltip="Another seed draws other scenes."),
                *dataset_inputs(),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def execute(cls, scenes, style, seed, clip, on_problem) -> io.NodeOutput:
        progress = comfy.utils.ProgressBar(scenes)
        records = []
        for i in range(scenes):
            comfy.model_management.throw_exception_if_processing_interrupted()
            records.append(scene_record(i, style, FIRST_SEED + seed))
            progress.update(1)
        return checked(records, clip, on_problem)


class TokenComposeTrainer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        paper = TrainSettings()
        return schema(
            node_id="RealCompoTokenComposeTrainer",
            display_name="TokenCompose Trainer",
            description="Fine-tunes a model so that each noun of a caption attends to its own pixels.",
            search_aliases=["train lora", "fine-tune", "token supervision", "attention loss"],
            inputs=[
                io.Model.Input("model", tooltip="A UNet model (SD1.x, SD2.x, SDXL). It stays as it is."),
                io.Clip.Input("clip", tooltip="Its text encoder, which is not trained."),
                io.Vae.Input("vae", tooltip="Its autoencoder, which is not trained."),
                TokenComposeDatasetType.Input("dataset", tooltip="From a dataset node that got the same CLIP."),
                io.String.Input(
                    "name",
                    default="tokencompose/run",
                    tooltip="Folder of this run inside ComfyUI's output folder: checkpoints and validation pictures.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    tooltip="Go on from the last checkpoint under this name, as after an interrupt. Off: begin anew, "
                    "and remove the checkpoints that are there.",
                ),
                io.Combo.Input(
                    "train",
                    options=["lora", "full"],
                    default="lora",
                    tooltip="lora: small adapters of the attention layers. full (the paper): a copy of all weights, "
                    "which takes several times the model's memory.",
                ),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Size of the LoRA. Unused by full."),
                *size_inputs("the training images: their middle is cut out and resized,"),
                io.Int.Input("steps", default=1000, min=1, max=10_000_000, tooltip="Optimizer steps of the whole run."),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-8,
                    max=1.0,
                    step=1e-6,
                    round=False,
                    tooltip="1e-4 suits a LoRA; the paper has 5e-6 for full.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Images at a time."),
                io.Float.Input(
                    "token_weight",
                    default=paper.token_weight,
                    min=0.0,
                    max=1000.0,
                    step=1e-5,
                    round=False,
                    tooltip="Weight of the token loss: a noun's attention should fall inside its mask. 0 turns it off.",
                ),
                io.Float.Input(
                    "pixel_weight",
                    default=paper.pixel_weight,
                    min=0.0,
                    max=1000.0,
                    step=1e-5,
                    round=False,
                    tooltip="Weight of the pixel loss: it should cover the mask evenly. 0 turns it off.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Order of the images, noise, and the beginning of a LoRA. A resumed run needs the same.",
                ),
                io.String.Input(
                    "validation_prompt",
                    multiline=True,
                    default="",
                    tooltip="What the preview shows while it trains: always the same noise.",
                ),
                io.Int.Input(
                    "validate_every",
                    default=100,
                    min=0,
                    max=1_000_000,
                    tooltip="Steps between two previews; 0 for none.",
                ),
                io.Int.Input(
                    "checkpoint_every",
                    default=paper.checkpoint_every,
                    min=1,
                    max=10_000_000,
                    extra_dict=ADVANCED,
                    tooltip="Steps between two checkpoints. There is one at the end and at an interrupt anyway.",
                ),
                io.Int.Input(
                    "keep_checkpoints",
                    default=2,
                    min=1,
                    max=1000,
                    extra_dict=ADVANCED,
                    tooltip="How many of the last ones stay on the disk.",
                ),
                io.Int.Input(
                    "accumulation",
                    default=1,
                    min=1,
                    max=4096,
                    extra_dict=ADVANCED,
                    tooltip="Batches in a step: as a larger batch, without its memory.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=["constant", "linear", "cosine"],
                    default=paper.schedule,
                    extra_dict=ADVANCED,
                    tooltip="How the learning rate falls to 0, if it does.",
                ),
                io.Int.Input(
                    "warmup",
                    default=0,
                    min=0,
                    max=1_000_000,
                    extra_dict=ADVANCED,
                    tooltip="Steps in which the learning rate rises to its full value.",
                ),
                io.Combo.Input(
                    "optimizer",
                    options=["adamw", "adamw8bit"],
                    default=paper.optimizer,
                    extra_dict=ADVANCED,
                    tooltip="adamw8bit takes less memory, and needs the package bitsandbytes.",
                ),
                io.Float.Input(
                    "weight_decay",
                    default=paper.weight_decay,
                    min=0.0,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    extra_dict=ADVANCED,
                    tooltip="AdamW's decay of the trained weights.",
                ),
                io.Float.Input(
                    "max_grad_norm",
                    default=paper.max_grad_norm,
                    min=0.001,
                    max=1e6,
                    step=0.1,
                    round=False,
                    extra_dict=ADVANCED,
                    tooltip="Longer gradients are cut to this length.",
                ),
                io.Combo.Input(
                    "convention",
                    options=["official", "paper"],
                    default=paper.convention,
                    extra_dict=ADVANCED,
                    tooltip="Losses as in the authors' code, or as in the paper's equations.",
                ),
                io.Int.Input(
                    "layers",
                    default=0,
                    min=0,
                    max=64,
                    extra_dict=ADVANCED,
                    tooltip="Only attention maps that are so many times smaller than the latent are supervised. 0: all "
                    "of the middle block and the decoder.",
                ),
                io.Float.Input(
                    "caption_dropout",
                    default=paper.caption_dropout,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    extra_dict=ADVANCED,
                    tooltip="Share of the images that are shown without their caption, for guidance.",
                ),
                io.Float.Input(
                    "ema",
                    default=0.0,
                    min=0.0,
                    max=0.99999,
                    step=1e-5,
                    round=False,
                    extra_dict=ADVANCED,
                    tooltip="Decay of an average of the weights, which is then the result; 0 for none.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16", "fp16"],
                    default="auto",
                    extra_dict=ADVANCED,
                    tooltip="Of the computations. auto: fp32 on a CPU, bf16 or fp16 on a GPU.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=True,
                    extra_dict=ADVANCED,
                    tooltip="Compute parts of the network twice: less memory, a third slower.",
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with what was learnt."),
                io.LoraModel.Output("lora", tooltip="What was learnt, for TokenCompose Save or Save LoRA Weights."),
                io.LossMap.Output("loss_map", tooltip="The loss of every step, for Plot Loss Graph."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset,
        name,
        resume,
        train,
        rank,
        width,
        height,
        validation_prompt,
        layers,
        ema,
        precision,
        gradient_checkpointing,
        **settings,
    ) -> io.NodeOutput:
        host = HostModel(model, clip, vae)
        run = RunSettings(
            **settings,
            factors=(layers,) if layers else None,
            ema=ema or None,
            precision=chosen_precision(precision, host.device),
            rank=rank if train == "lora" else 0,
            size=(height, width),
        )
        folder = inside(folder_paths.get_output_directory(), name, "name")
        lora, losses = trained(host, dataset, run, folder, resume, validation_prompt, gradient_checkpointing)
        return io.NodeOutput(with_lora(model, lora, 1.0), lora, loss_map(losses))


class TokenComposeSave(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoTokenComposeSave",
            display_name="TokenCompose Save",
            description="Saves what was learnt where the host's LoRA loaders find it.",
            search_aliases=["save lora", "export lora"],
            is_output_node=True,
            inputs=[
                io.LoraModel.Input("lora", tooltip="From TokenCompose Trainer."),
                io.String.Input(
                    "name",
                    default="tokencompose/lora",
                    tooltip="File inside ComfyUI's models/loras folder; a number is appended.",
                ),
            ],
            outputs=[io.String.Output("file", tooltip="Its name, as LoRA loaders list it.")],
        )

    @classmethod
    def execute(cls, lora, name) -> io.NodeOutput:
        root = os.path.abspath(folder_paths.get_folder_paths("loras")[0])
        name = name.removesuffix(".safetensors")
        inside(root, name, "name")
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(name, root)
        path = Path(folder) / f"{stem}_{counter:05}_.safetensors"
        with replacing(path) as part:
            save_file({key: tensor.contiguous() for key, tensor in lora.items()}, part)
        file = str(Path(subfolder) / path.name)
        return io.NodeOutput(file, ui=ui.PreviewText(file))


class TokenComposeLoad(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoTokenComposeLoad",
            display_name="TokenCompose Load",
            description="A model with what TokenCompose Save has written; refuses what does not fit the model.",
            search_aliases=["load lora", "apply lora"],
            inputs=[
                io.Model.Input("model", tooltip="The model that it was trained on, or one of its family."),
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file in ComfyUI's models/loras folders.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How much of it: 1 is as trained."
                ),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with it."),
                io.LoraModel.Output("lora", tooltip="What the file holds."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file=None, **others):
        path = file and folder_paths.get_full_path("loras", file)
        return Path(path).stat().st_mtime_ns if path else 0

    @classmethod
    def execute(cls, model, file, strength) -> io.NodeOutput:
        inside("models/loras", file, "file")
        path = folder_paths.get_full_path("loras", file)
        if path is None:
            raise RealCompoError(f"file: {file!r} is not in models/loras: refresh the list and choose another one")
        lora = comfy.utils.load_torch_file(path, safe_load=True)
        return io.NodeOutput(with_lora(model, lora, strength), lora)


def inside(folder: str, name: str, what: str) -> Path:
    """The path of `name` in a folder of the host. Raises RealCompoError for one that leads out of it."""
    flavours = PurePosixPath(name), PureWindowsPath(name)
    if "\0" in name or not flavours[0].parts or any(path.anchor or ".." in path.parts for path in flavours):
        raise RealCompoError(f"{what}: {name!r} leads out of {folder}: give a name inside of it, without '..'")
    return Path(folder, name)


def records_of(folder: str) -> Sequence[Record]:
    """The set in a folder inside the host's input folder."""
    path = inside(folder_paths.get_input_directory(), folder, "folder")
    records = open_records(path)
    if isinstance(records, ShardSet):
        raise DatasetError(f"folder: {path} holds shards, which only the command line reads. Unpack them")
    return records


def lines(texts: Sequence[str]) -> list[str]:
    """The entries of a list, or the lines of a single text."""
    return list(texts) if len(texts) > 1 else texts[0].strip("\r\n").splitlines()


def records_from(
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
        pairs = [NounMask(noun, source(f"mask of {noun!r}", next(left))) for noun in own]
        records.append(Record(source(f"image {number}", image[..., :3]), caption, tuple(pairs), f"image {number}"))
    return records


def source(name: str, pixels: Tensor) -> Source:
    """An IMAGE (H, W, 3) or MASK (H, W) as an image file in memory."""
    return png(name, pixels.clamp(0, 1).mul(255).round().byte().cpu().numpy())


def png(name: str, pixels: np.ndarray) -> Source:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return Source(name, data=file.getvalue())


def scene_record(index: int, style: str, seed: int) -> Record:
    """Scene `index` of a ShapeScenes set. Its nouns are colour and shape together, such as "red circle"."""
    scene = training_scene(seed, index, COUNTS)
    masks: dict[str, np.ndarray] = {}
    for item, mask in zip(scene.objects, scene.masks(), strict=True):
        noun = f"{item.kind.colour} {item.kind.shape}"
        masks[noun] = masks.get(noun, False) | mask
    nouns = (NounMask(noun, png(f"mask of {noun!r}", mask.astype(np.uint8) * 255)) for noun, mask in masks.items())
    image = png(f"scene {index}", draw(scene, style, seed=index))
    return Record(image, scene.prompt.caption, tuple(nouns), image.name)


def checked(records: Sequence[Record], clip, on_problem: str) -> io.NodeOutput:
    """What a dataset node gives: the records that can be used, and a report, which the node shows."""
    tokenizer, chunk = caption_tokenizer(clip)
    progress = comfy.utils.ProgressBar(len(records))

    def advance(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update_absolute(done)

    problems = list(check(records, tokenizer, advance, chunk=chunk))
    listed = [str(problem) for problem in problems]
    show_on_node("\n".join(listed))
    kept = kept_records(records, problems, on_problem)
    grounded = sum(mask is not None for record in kept for _, mask in record.nouns)
    report = "\n".join([f"{len(kept)} of {len(records)} images, {grounded} nouns with masks", *listed])
    return io.NodeOutput(kept, report, ui=ui.PreviewText(report))


class RunCheckpoints(Checkpoints):
    """Checkpoints that know the losses so far. Without `resume` a run begins anew."""

    def __init__(self, folder: Path, keep: int, fingerprint: str, resume: bool):
        super().__init__(folder, keep, fingerprint)
        self.losses: dict[str, list[float]] = {}
        self._resume = resume

    def add(self, report: StepReport) -> None:
        for term, value in report.losses.items():
            self.losses.setdefault(term, []).append(value)

    def save(self, state):
        return super().save({**state, "losses": self.losses})

    def latest(self, settings, free):
        if not self._resume:
            for path in self.paths():
                path.unlink()
        try:
            state = super().latest(settings, free)
        except RealCompoError as error:
            raise RealCompoError(f"{error} (another `name`), or turn `resume` off to begin anew") from error
        if state is not None:
            self.losses = state["losses"]
        return state


def trained(
    host: HostModel,
    records: Sequence[Record],
    settings: RunSettings,
    folder: Path,
    resume: bool,
    prompt: str,
    checkpointing: bool,
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """What was learnt (see `HostModel.learnt`), and the losses by term. An interrupt is raised after its checkpoint."""
    interrupted = comfy.model_management.processing_interrupted
    order = EpochOrder(len(records), settings.seed)

    def example(index: int) -> dict:
        width_height = settings.size[::-1]
        found, errors = load_example(records[index], width_height, host.tokenizer, chunk=host.text_length)
        if errors:
            raise DatasetError(f"dataset: {errors[0]}. Give the dataset node the CLIP of the trainer")
        return found

    def batches(first: int):
        return ([example(i) for i in batch] for batch in order.batches(settings.batch_size, first))

    needed = sorted(set(chain(*islice(order.batches(settings.batch_size), settings.steps * settings.accumulation))))
    captions = {"", *(records[i].caption for i in needed)} | ({prompt} if settings.validate_every else set())
    progress = comfy.utils.ProgressBar(len(captions) + len(needed))
    for caption in captions:
        comfy.model_management.throw_exception_if_processing_interrupted()
        host.cache_text(caption, settings.size)
        progress.update(1)
    for i in needed:
        comfy.model_management.throw_exception_if_processing_interrupted()
        found = example(i)
        host.cache_latent(found["key"], found["image"])
        progress.update(1)

    progress = comfy.utils.ProgressBar(settings.steps)
    data = fingerprint(each_record(records))
    checkpoints = RunCheckpoints(folder, settings.keep_checkpoints, data, resume)
    runtime = Runtime(settings.precision, host.device)

    def report(step: StepReport) -> None:
        checkpoints.add(step)
        progress.update_absolute(step.step)

    def validate(step: int) -> None:
        try:
            with runtime.autocast():
                pixels = host.sample(prompt, settings.size, settings.seed, VALIDATION_STEPS, VALIDATION_CFG)
        except Cancelled:  # the next step is the last one
            return
        picture = Image.fromarray(pixels.clamp(0, 1).mul(255).round().byte().cpu().numpy())
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"validation-{step:06}.png") as part:
            picture.save(part, "PNG")
        progress.update_absolute(step, preview=("JPEG", picture, PREVIEW_SIDE))

    try:
        with host.training(settings.rank, checkpointing, settings.seed):
            settings = replace(settings, model=host.fingerprint())
            done = train(host, batches, settings, checkpoints, runtime, report, validate, interrupted)
            if done < settings.steps:
                comfy.model_management.throw_exception_if_processing_interrupted()
            return host.learnt(), checkpoints.losses
    except comfy.model_management.OOM_EXCEPTION as error:
        raise RealCompoError(
            f"not enough memory to train at {settings.size[1]}x{settings.size[0]} with batch_size "
            f"{settings.batch_size}: lower batch_size (and raise accumulation), width and height, or turn "
            "gradient_checkpointing on. What was learnt up to the last checkpoint is kept"
        ) from error


def chosen_precision(asked: str, device: torch.device) -> str:
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def loss_map(losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """LOSS_MAP: `loss`, and the terms by name. The host's graph divides by its height: a flat one is given one."""
    total = list(losses["total"])
    if min(total) == max(total):
        total.append(total[-1] + FLAT)
    return {**losses, "loss": total}


def with_lora(model, lora: dict[str, Tensor], strength: float):
    """A clone of the model with what was learnt. Raises RealCompoError where it is not for this model."""
    shapes = {key: tuple(weight.shape) for key, weight in model.model.state_dict().items()}
    for key, tensor in lora.items():
        layer, part = next(((key.removesuffix(p), p) for p in PARTS if key.endswith(p)), (key, ""))
        shape = shapes.get(f"{layer}.{'bias' if part == '.diff_b' else 'weight'}")
        if not part or shape is None or not PARTS[part](tuple(tensor.shape), shape):
            raise RealCompoError(
                f"lora: {key} of shape {tuple(tensor.shape)} does not fit this model, which is a "
                f"{type(model.model.model_config).__name__}: load one of the family that it was trained on, or use the "
                "host's Load LoRA for files of other trainers"
            )
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


NODES = [
    TokenComposeDataset,
    TokenComposeDatasetFromImages,
    ShapeScenesDataset,
    TokenComposeTrainer,
    TokenComposeSave,
    TokenComposeLoad,
]
