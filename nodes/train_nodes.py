"""Nodes that fine-tune with TokenCompose: datasets, Trainer, Save, Load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from realcompo_core.errors import RealCompoError
from shapescenes.drawing import STYLES
from tokencompose_core.checking import kept_records
from tokencompose_core.records import Record, each_record, fingerprint
from tokencompose_core.training import TrainSettings

from .host.folders import inside
from .host.messages import show_on_node
from .host.trainable_model import HostModel
from .host.trained_weights import load_lora, save_lora, with_lora
from .host.training_records import find_problems, folder_records, image_records, report_on, scene_records, text_lines
from .host.training_run import HostTraining, loss_map, run_settings
from .schema import ADVANCED, schema, size_inputs
from .types import TokenComposeDatasetType

CLIP_TIP = "The CLIP that the model is trained with: it tells which tokens of a caption are its nouns."
ON_PROBLEM_TIP = "What to do with images, captions and masks that cannot be used: refuse them all, or leave them out."


def dataset_inputs() -> list[io.Input]:
    """The inputs that every dataset node has at its end."""
    return [
        io.Clip.Input("clip", tooltip=CLIP_TIP),
        io.Combo.Input("on_problem", options=["refuse", "skip"], default="refuse", tooltip=ON_PROBLEM_TIP),
    ]


def dataset_outputs() -> list[io.Output]:
    return [
        TokenComposeDatasetType.Output("dataset", tooltip="For TokenCompose Trainer."),
        io.String.Output("report", tooltip="How many images and nouns there are, and every problem found."),
    ]


def dataset_output(records: Sequence[Record], clip: Any, on_problem: str) -> io.NodeOutput:
    """The records that can be used, and a report, which the node shows also where it then refuses the set."""
    problems = find_problems(records, clip)
    show_on_node("\n".join(map(str, problems)))
    kept = kept_records(records, problems, on_problem)
    report = report_on(kept, records, problems)
    return io.NodeOutput(kept, report, ui=ui.PreviewText(report))


class TokenComposeDatasetFromFolder(io.ComfyNode):
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
            return fingerprint(each_record(folder_records(folder)))
        except RealCompoError as error:
            return str(error)

    @classmethod
    def execute(cls, folder, clip, on_problem) -> io.NodeOutput:
        return dataset_output(folder_records(folder), clip, on_problem)


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
        records = image_records(pictures, text_lines(captions), text_lines(nouns), shapes)
        return dataset_output(records, clip[0], on_problem[0])


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
        return dataset_output(scene_records(scenes, style, seed), clip, on_problem)


def training_inputs() -> list[io.Input]:
    """Widgets for what is trained, on which size of images, and for how long."""
    paper = TrainSettings()
    return [
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
            tooltip="Weight of the pixel loss: a noun's attention should cover its mask evenly. 0 turns it off.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            tooltip="Order of the images, noise, and the beginning of a LoRA. A resumed run needs the same.",
        ),
    ]


def validation_inputs() -> list[io.Input]:
    """Widgets for the preview while it trains."""
    return [
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
    ]


def checkpoint_inputs() -> list[io.Input]:
    """Widgets for what is kept on the disk."""
    paper = TrainSettings()
    return [
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
    ]


def optimizer_inputs() -> list[io.Input]:
    """Widgets for how a gradient becomes a step."""
    paper = TrainSettings()
    return [
        io.Int.Input(
            "accumulation",
            default=1,
            min=1,
            max=4096,
            extra_dict=ADVANCED,
            tooltip="Batches added up in each step: the effect of a larger batch without its memory.",
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
    ]


def loss_inputs() -> list[io.Input]:
    """Widgets for the losses of an image."""
    paper = TrainSettings()
    return [
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
    ]


def computation_inputs() -> list[io.Input]:
    """Widgets for what is saved, and how it is computed."""
    return [
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
    ]


class TokenComposeTrainer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
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
                *training_inputs(),
                *validation_inputs(),
                *checkpoint_inputs(),
                *optimizer_inputs(),
                *loss_inputs(),
                *computation_inputs(),
            ],
            outputs=[
                io.Model.Output("model", tooltip="The model with what was learnt."),
                io.LoraModel.Output("lora", tooltip="What was learnt, for TokenCompose Save or Save LoRA Weights."),
                io.LossMap.Output("loss_map", tooltip="The loss of every step, for Plot Loss Graph."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, vae, dataset, name, resume, validation_prompt, gradient_checkpointing, **widgets
    ) -> io.NodeOutput:
        host = HostModel(model, clip, vae)
        folder = inside(folder_paths.get_output_directory(), name, "name")
        training = HostTraining(host, dataset, run_settings(host.device, **widgets), folder, validation_prompt)
        lora, losses = training.run(resume, gradient_checkpointing)
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
        file = save_lora(lora, name)
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
        lora = load_lora(file)
        return io.NodeOutput(with_lora(model, lora, strength), lora)


NODES = [
    TokenComposeDatasetFromFolder,
    TokenComposeDatasetFromImages,
    ShapeScenesDataset,
    TokenComposeTrainer,
    TokenComposeSave,
    TokenComposeLoad,
]
