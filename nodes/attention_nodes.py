"""Nodes that look at attention: Record Attention, Attention Map Viewer, Grounding Metrics."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from realcompo_core.attention.drawing import (
    AXES,
    Shown,
    View,
    chosen_words,
    pictures,
    select,
    sheet,
    threshold_mask,
)
from realcompo_core.attention.grounding_metrics import (
    THRESHOLD,
    as_csv,
    differences,
    grounding_table,
    layout_table,
    mask_target,
    mean_of,
)
from realcompo_core.attention.maps import AttentionMaps, Keep, PromptWords, side_by_side
from realcompo_core.attention.panel import write_panel
from realcompo_core.attention.recorder import Recorder
from realcompo_core.errors import RealCompoError
from realcompo_core.files import write_file
from realcompo_core.palettes import PALETTES

from .host.connections import output_is_used
from .host.folders import inside
from .host.messages import show_on_node
from .host.prompt_tokens import prompt_words
from .host.recording import recorded
from .schema import ADVANCED, schema
from .types import AttentionMapsType, LayoutType

RECORDED_SLOT, JSON_SLOT = 1, 2  # of Record Attention's and the viewer's outputs
KEPT_PANELS = 8  # recordings in the host's temp folder, the newest, for panels that are open
MAPS_TIP = "From Record Attention or the Dual-UNet Balancer Sampler."
WORDS_TIP = "Words or phrases of the prompt, with commas between them. Empty: all words."


def place_inputs() -> list[io.Input]:
    """Widgets that choose from the axes of a recording."""
    return [
        io.Combo.Input(
            "conditioning",
            options=["positive", "negative"],
            default="positive",
            tooltip="Words of the positive or of the negative prompt.",
        ),
        io.String.Input(
            "branch",
            default="",
            tooltip="Name of a branch, such as spatial; empty for the first.",
            extra_dict=ADVANCED,
        ),
        io.String.Input(
            "layer", default="", tooltip="Name of a layer, such as output 4; empty for the mean.", extra_dict=ADVANCED
        ),
        io.Int.Input(
            "step",
            default=-1,
            min=-1,
            max=10000,
            tooltip="Step, counted from 0; -1 for the mean of all.",
            extra_dict=ADVANCED,
        ),
        io.Int.Input(
            "head",
            default=-1,
            min=-1,
            max=1000,
            tooltip="Head, counted from 0, of a recording with heads apart; -1 for the mean.",
            extra_dict=ADVANCED,
        ),
    ]


class RecordAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        keep = Keep()
        return schema(
            node_id="RealCompoRecordAttention",
            display_name="Record Attention",
            description="Records what each word attends to while this model samples, with any sampler or guider.",
            search_aliases=["DAAM", "attention maps", "cross attention"],
            inputs=[
                io.Model.Input("model", tooltip="A UNet (SD1.x, SD2.x, SDXL), SD3, Flux, Qwen-Image or Wan."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP that encodes the prompts. Without it tokens have numbers instead of words.",
                ),
                io.String.Input("prompt", default="", multiline=True, tooltip="The positive prompt, as it is encoded."),
                io.String.Input(
                    "negative_prompt", default="", multiline=True, tooltip="The negative prompt, as it is encoded."
                ),
                io.Combo.Input(
                    "tokens",
                    options=["words", "all"],
                    default=keep.tokens,
                    extra_dict=ADVANCED,
                    tooltip="words: those of the prompts, and all other tokens as one. all: every token apart.",
                ),
                io.Combo.Input(
                    "layers",
                    options=["blocks", "layers", "decoder"],
                    default=keep.layers,
                    extra_dict=ADVANCED,
                    tooltip="blocks: one map a block. layers: each layer apart. decoder: middle and output blocks.",
                ),
                io.Combo.Input(
                    "heads",
                    options=["averaged", "apart"],
                    default=keep.heads,
                    extra_dict=ADVANCED,
                    tooltip="apart takes as many times the memory as there are heads.",
                ),
                io.Int.Input(
                    "every",
                    default=keep.every,
                    min=1,
                    max=1000,
                    extra_dict=ADVANCED,
                    tooltip="Record every n-th step.",
                ),
                io.Int.Input(
                    "limit",
                    default=keep.limit,
                    min=1,
                    max=1_000_000,
                    extra_dict=ADVANCED,
                    tooltip="Megabytes of memory that the maps may take: more steps are left out if need be.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model to sample with."),
                AttentionMapsType.Output(
                    "attention_maps",
                    tooltip="The maps of the newest sampling. Nothing is recorded if this is not connected.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(RECORDED_SLOT)

    @classmethod
    def execute(cls, model, prompt, negative_prompt, tokens, layers, heads, every, limit, clip=None) -> io.NodeOutput:
        if not output_is_used(RECORDED_SLOT):
            return io.NodeOutput(model, AttentionMaps())
        prompts: dict[str, PromptWords | None] = {"positive": None, "negative": None}
        if clip is not None:
            prompts = {"positive": prompt_words(clip, prompt), "negative": prompt_words(clip, negative_prompt)}
        recorder = Recorder("model", Keep(tokens, layers, heads, every, limit), prompts)
        model = recorded(model, recorder, tell=_teller(cls.hidden.unique_id))
        return io.NodeOutput(model, AttentionMaps([recorder.branch]))


class AttentionMapViewer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        view = View()
        return schema(
            node_id="RealCompoAttentionMapViewer",
            display_name="Attention Map Viewer",
            description="Attention of any word, layer, head, step and branch: a panel to explore, pictures and masks.",
            search_aliases=["attention heatmap", "DAAM", "cross attention"],
            is_output_node=True,
            inputs=[
                AttentionMapsType.Input("attention_maps", tooltip=MAPS_TIP),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture that was sampled; maps are drawn over it. It makes the viewer wait for the "
                    "sampler: connect it, or the viewer may run too early.",
                ),
                io.String.Input("words", default="", tooltip=f"{WORDS_TIP} The panel begins with them."),
                io.Combo.Input(
                    "axis",
                    options=list(AXES),
                    default="words",
                    tooltip="What the sheet compares: the words alone, or each word over layers, steps, heads or "
                    "branches.",
                ),
                io.Combo.Input(
                    "form",
                    options=["sheet", "pictures"],
                    default="sheet",
                    tooltip="One labelled sheet for each picture of the batch, or each map as a picture of its own.",
                ),
                *place_inputs(),
                io.Combo.Input(
                    "palette", options=list(PALETTES), default=view.palette, tooltip="Colours, from 0 to the largest."
                ),
                io.Float.Input(
                    "opacity",
                    default=view.opacity,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Opacity of the map over the picture; 0 shows the picture alone.",
                ),
                io.Combo.Input(
                    "normalise",
                    options=["each", "together"],
                    default=view.normalise,
                    extra_dict=ADVANCED,
                    tooltip="Colours reach up to each map's own largest value, or to that of all maps shown.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip="The mask is where a word's map reaches this share of its largest value.",
                ),
                io.Combo.Input(
                    "export",
                    options=["none", "json", "npz"],
                    default="none",
                    extra_dict=ADVANCED,
                    tooltip="Write into the output folder: json, what is shown; npz, the whole recording.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="attention/maps",
                    extra_dict=ADVANCED,
                    tooltip="Name of the exported file, inside the output folder.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="Sheets, or each word's pictures in turn for each picture of the batch."),
                io.Mask.Output(tooltip="One for each word, in turn for each picture of the batch."),
                io.String.Output("json", tooltip="What is shown, as numbers."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> bool:
        return output_is_used(JSON_SLOT)

    @classmethod
    def execute(
        cls,
        attention_maps,
        words,
        axis,
        form,
        conditioning,
        branch,
        layer,
        step,
        head,
        palette,
        opacity,
        normalise,
        threshold,
        export,
        filename_prefix,
        image=None,
    ) -> io.NodeOutput:
        chosen = {
            "layer": layer or None,
            "step": step if step >= 0 else None,
            "head": head if head >= 0 else None,
        }
        view = View(conditioning, branch or None, **chosen, palette=palette, opacity=opacity, normalise=normalise)
        own = attention_maps.branch(view.branch)
        phrases = [phrase.strip() for phrase in words.split(",") if phrase.strip()]
        photos = [None] * own.batch if image is None else _photos(image, own.batch)
        shown = select(attention_maps, axis, phrases, view)
        text = ""
        if export == "json" or output_is_used(JSON_SLOT):
            text = json.dumps([_as_numbers(s) for s in shown])
        if export != "none":
            _export(attention_maps, text, export, filename_prefix)

        if form == "sheet":
            drawn = [sheet(s, photo, view) for s, photo in zip(shown, photos, strict=True)]
        else:
            longest = 512 if image is None else max(image.shape[1:3])
            drawn = [
                cell
                for s, photo in zip(shown, photos, strict=True)
                for row in pictures(s, photo, view, longest)
                for cell in row
            ]
        batch = torch.from_numpy(np.stack([np.asarray(cell, dtype=np.float32) / 255 for cell in drawn]))
        found = chosen_words(own, phrases, conditioning)
        maps = own.word_maps(found, conditioning, **chosen)
        size = tuple(image.shape[1:3]) if image is not None else tuple(n * 8 for n in own.size)
        masks = threshold_mask(maps, threshold, size).flatten(0, 1)
        preview = ui.PreviewImage(batch, cls=cls).as_dict()
        panel = _panel(cls, attention_maps, image, phrases)
        return io.NodeOutput(batch, masks, text, ui={**preview, "attention": [panel]})


class GroundingMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoGroundingMetrics",
            display_name="Grounding Metrics",
            description="How well attention falls on its objects: share inside, IoU, concentration, as a table.",
            is_output_node=True,
            inputs=[
                AttentionMapsType.Input("attention_maps", tooltip=MAPS_TIP),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture that was sampled, so that this runs after the sampler."
                ),
                LayoutType.Input(
                    "layout", optional=True, tooltip="Where the objects should be; the balanced layout without it."
                ),
                io.Mask.Input(
                    "masks", optional=True, tooltip="Where they are: one mask for each of `words`, such as SAM3's."
                ),
                io.String.Input("words", default="", tooltip="With masks: their words or phrases, with commas."),
                io.Boolean.Input("layers", default=False, tooltip="Also a row for each layer."),
                io.Boolean.Input("steps", default=False, tooltip="Also a row for each step."),
            ],
            outputs=[
                io.String.Output("table", tooltip="CSV, one row for each branch, picture and object."),
                io.Float.Output("share", tooltip="Mean share of attention inside the regions."),
                io.Float.Output("iou", tooltip="Mean IoU of the thresholded maps with the regions (DAAM)."),
            ],
        )

    @classmethod
    def execute(cls, attention_maps, words, layers, steps, image=None, layout=None, masks=None) -> io.NodeOutput:
        phrases = [phrase.strip() for phrase in words.split(",") if phrase.strip()]
        if masks is not None and len(phrases) != len(masks):
            raise RealCompoError(
                f"words: {len(phrases)} were given for {len(masks)} masks: name one for each, with commas between them"
            )
        axes = {"layers": layers, "steps": steps}
        if masks is None:
            rows = layout_table(attention_maps, layout, **axes)
        else:
            rows = []
            for branch in attention_maps.recorded:
                targets = [mask_target(branch, *pair) for pair in zip(phrases, masks.cpu(), strict=True)]
                rows += grounding_table(branch, [targets], **axes)
        share, iou = (mean_of(rows, name) for name in ("share", "iou"))
        table = as_csv(rows)
        return io.NodeOutput(table, share, iou, ui=ui.PreviewText(table))


class CompareAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoCompareAttention",
            display_name="Compare Attention",
            description="Two models' attention for the same prompt side by side: for the viewer, and in numbers.",
            search_aliases=["compare models", "attention difference", "before and after fine-tuning"],
            inputs=[
                AttentionMapsType.Input(
                    "first",
                    tooltip="From Record Attention or Invert Picture; or of both branches of a balanced sampler.",
                ),
                AttentionMapsType.Input(
                    "second",
                    optional=True,
                    tooltip="Of the other model, with the same prompt. Not with the branches of a balanced sampler.",
                ),
                io.String.Input(
                    "first_name", default="first", tooltip="What the first is called; branches keep their names."
                ),
                io.String.Input("second_name", default="second", tooltip="What the second is called."),
                io.Image.Input(
                    "first_image", optional=True, tooltip="What was sampled, so that this runs after the sampler."
                ),
                io.Image.Input("second_image", optional=True, tooltip="The same for the second."),
                LayoutType.Input("layout", optional=True, tooltip="Where the objects are, for the table."),
            ],
            outputs=[
                AttentionMapsType.Output(
                    "attention_maps", tooltip="Both, for Attention Map Viewer with axis branches."
                ),
                io.String.Output("table", tooltip="CSV: second minus first for each object; empty without a layout."),
                io.Float.Output("share", tooltip="How much more attention falls inside the regions with the second."),
            ],
        )

    @classmethod
    def execute(
        cls, first, first_name, second_name, second=None, first_image=None, second_image=None, layout=None
    ) -> io.NodeOutput:
        if second is not None:
            maps = side_by_side(first, second, (first_name.strip(), second_name.strip()))
        elif len(first.recorded) == 2:
            maps = AttentionMaps(first.recorded, first.layout)
        else:
            raise RealCompoError(
                f"second: connect other maps to compare with, as the first have {len(first.recorded)} branch"
                f"{'es' * (len(first.recorded) > 1)}, and not two"
            )
        maps.layout = layout or maps.layout
        if maps.layout is None or not maps.layout.objects:
            return io.NodeOutput(maps, "", 0.0)
        rows = differences(layout_table(maps))
        share = mean_of(rows, "share")
        show_on_node(f"Share of attention inside: {share:+.3f} from {maps.branches[0].name} to {maps.branches[1].name}")
        return io.NodeOutput(maps, as_csv(rows), share)


def _teller(node_id: str):
    return lambda text: PromptServer.instance.send_progress_text(text, node_id)


def _photos(image: torch.Tensor, batch: int) -> list[Image.Image]:
    if len(image) != batch:
        raise RealCompoError(f"image: {len(image)} pictures, and maps of {batch}: connect what was sampled with them")
    return [Image.fromarray((picture.cpu().clamp(0, 1) * 255).round().byte().numpy()[..., :3]) for picture in image]


def _as_numbers(shown: Shown) -> dict:
    """One item's maps, to five digits."""
    return {
        "words": shown.words,
        "columns": shown.columns,
        "size": list(shown.maps.shape[-2:]),
        "maps": [
            [[[float(f"{value:.5g}") for value in line] for line in values.tolist()] for values in word]
            for word in shown.maps
        ],
    }


def _export(maps: AttentionMaps, text: str, kind: str, prefix: str) -> None:
    output = folder_paths.get_output_directory()
    inside(output, prefix, "filename_prefix")
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, output)
    path = Path(folder) / f"{name}_{counter:05}.{kind}"
    while path.exists():
        counter += 1
        path = Path(folder) / f"{name}_{counter:05}.{kind}"
    try:
        if kind == "json":
            write_file(path, text)
        else:
            maps.save(path)
    except OSError as error:
        raise RealCompoError(f"cannot write {path.name} to the output folder: {error}") from error


def _panel(cls, maps: AttentionMaps, image: torch.Tensor | None, phrases: list[str]) -> dict:
    """Writes what the editor's panel shows into the host's temp folder, and says where."""
    pictures = [] if image is None else list(ui.PreviewImage(image, cls=cls).as_dict()["images"])
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"realcompo_attention_{np.random.default_rng().integers(2**48):012x}"
    write_panel(maps, pictures, folder, name, phrases)
    for old in sorted(folder.glob("realcompo_attention_*.bin"), key=lambda path: path.stat().st_mtime)[:-KEPT_PANELS]:
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)
    return {"filename": f"{name}.json", "subfolder": "", "type": "temp"}


NODES = [RecordAttention, AttentionMapViewer, GroundingMetrics, CompareAttention]
