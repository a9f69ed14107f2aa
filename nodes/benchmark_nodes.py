"""MultiGen Score: a graph scores its own pictures."""

from __future__ import annotations

import logging

from comfy_api.latest import io, ui

from realcompo_core.bench.batch_score import score_batch
from realcompo_core.bench.multigen import MultiGen

from .host.messages import show_outside
from .layout_nodes import image_of
from .schema import ADVANCED, schema
from .sweep_nodes import as_image
from .types import BoundingBoxType


class MultiGenScore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoMultiGenScore",
            display_name="MultiGen Score",
            description="How many of the classes that pictures should show a detector finds in them, as a table.",
            search_aliases=["benchmark", "count detected objects", "MultiGen", "object accuracy"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The pictures to score."),
                BoundingBoxType.Input(
                    "boxes",
                    tooltip="What a detector found in them, with labels: a list of boxes for each picture. Boxes "
                    "without a score count as certain.",
                    extra_dict={"forceInput": True},  # else the editor makes a widget for one box
                ),
                io.String.Input(
                    "names",
                    multiline=True,
                    default="",
                    tooltip="The classes that the pictures should show, in the detector's words, with commas between "
                    "them: a cat, a dog. One line for all pictures, or one for each.",
                ),
                io.Float.Input(
                    "threshold",
                    default=MultiGen.threshold,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Boxes with a larger score than this count, and those without a score. The detector's own "
                    "threshold should not be higher.",
                ),
                io.Int.Input(
                    "pictures_per_prompt",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many pictures in a row are of one prompt. From two on, scores have a ±: over rounds, "
                    "of which each has one picture of every prompt.",
                    extra_dict=ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output(
                    "table", tooltip="Markdown: the scores, the success rate of each class, what each picture lacks."
                ),
                io.Float.Output("found", tooltip="The mean share of a picture's classes that it shows."),
                io.Float.Output("all_present", tooltip="The share of pictures that show all of their classes."),
                io.Image.Output("preview", tooltip="The pictures with the boxes that count."),
            ],
        )

    @classmethod
    def execute(cls, image, boxes, names, threshold, pictures_per_prompt) -> io.NodeOutput:
        pictures, height, width, _ = image.shape
        score = score_batch(boxes, names, pictures, (width, height), threshold, pictures_per_prompt)
        for note in score.notes:
            logging.warning("RealCompo: MultiGen Score: %s", note)
        show_outside(score.notes)
        table, preview = score.table(), image_of(score.draw(map(as_image, image)))
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText(table).as_dict()}
        return io.NodeOutput(table, score.share, score.all_present, preview, ui=shown)


NODES = [MultiGenScore]
