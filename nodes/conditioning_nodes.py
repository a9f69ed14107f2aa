"""Nodes that put a layout into a conditioning."""

from __future__ import annotations

import node_helpers
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from realcompo_core.errors import BranchMismatchError, RealCompoError, TooManyObjectsError
from realcompo_core.layout import Box, Layout
from realcompo_core.layout.regions import region_of

from .host.regional import regional
from .schema import ADVANCED, schema, size_inputs
from .types import LayoutType

CELL = 8  # pixels per latent cell, as the host's own nodes assume
REGION_CELLS = 256  # sides of the mask of an object that has none; the host scales it to the latent
EPSILON = 1e-5  # share of sampling between two ranges, which would both act at a common border


class ApplyLayoutGLIGEN(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoApplyLayoutGLIGEN",
            display_name="Apply Layout (GLIGEN)",
            description="Grounds a conditioning in a layout: GLIGEN draws each phrase in its box.",
            search_aliases=["gligen textbox apply", "grounding", "boxes to conditioning"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The encoded prompt, for the spatial branch."),
                LayoutType.Input("layout", tooltip="The objects and their boxes."),
                io.Clip.Input("clip", tooltip="Encodes the phrases: the CLIP of the model that samples."),
                io.Gligen.Input("gligen", tooltip="From GLIGEN Loader; made for the family of the model that samples."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="β: the share of sampling, from its start, in which the boxes act. 0.3 lets most of the "
                    "steps polish what the first ones placed.",
                    extra_dict=ADVANCED,
                ),
                *size_inputs("the picture, if no latent is connected,", extra_dict=ADVANCED),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The latent to be sampled: gives the size in place of the advanced widgets.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The encoded negative prompt, to be told that it has no boxes. Needed if strength is "
                    "between 0 and 1.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The prompt, grounded."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative prompt, without boxes."),
            ],
        )

    @classmethod
    def execute(
        cls, conditioning, layout, clip, gligen, strength, width, height, latent=None, negative=None
    ) -> io.NodeOutput:
        if negative is None and 0 < strength < 1:
            raise RealCompoError(
                f"strength {strength:g} without negative: ComfyUI would ground the negative prompt in all steps. "
                "Connect it to `negative` and sample with the output of that name, or set strength to 1"
            )
        unconnected = ExecutionBlocker("Apply Layout (GLIGEN): connect the input `negative` to use the output")
        if not layout.objects or strength == 0:
            return io.NodeOutput(conditioning, unconnected if negative is None else negative)
        rows, columns = latent["samples"].shape[-2:] if latent else (height / CELL, width / CELL)
        positions = gligen_positions(layout, clip, gligen, rows, columns)
        grounded = []
        for entry in conditioning:
            earlier = entry[1]["gligen"][2] if "gligen" in entry[1] else []
            check_count(earlier, positions, gligen)
            grounded += until(strength, entry, {"gligen": ("position", gligen, earlier + positions)})
        if negative is None:
            return io.NodeOutput(grounded, unconnected)
        # Any type but "position" gives the network its placeholders for "no object", which it was trained with.
        empty = {"gligen": ("empty", gligen, [])}
        return io.NodeOutput(grounded, [part for entry in negative for part in until(strength, entry, empty)])


class ApplyLayoutRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoApplyLayoutRegions",
            display_name="Apply Layout (Regions)",
            description="Adds a layout's phrases to a conditioning, each in its region. For models without GLIGEN.",
            search_aliases=["regional prompting", "masked conditioning", "attention couple", "area composition"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The whole prompt, encoded. It acts everywhere."),
                LayoutType.Input("layout", tooltip="The objects and their regions: masks, poses or boxes."),
                io.Clip.Input("clip", tooltip="Encodes the phrases: the CLIP of the model that samples."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much a phrase counts inside its region; the whole prompt counts 1.",
                    extra_dict=ADVANCED,
                ),
                io.Combo.Input(
                    "set_cond_area",
                    options=["default", "mask bounds"],
                    default="default",
                    optional=True,
                    tooltip="mask bounds: while it draws a phrase, the model sees the region only. Faster, but the "
                    "object does not know its surroundings.",
                    extra_dict=ADVANCED,
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The whole prompt, then the phrases of the regions."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning, layout, clip, strength, set_cond_area="default") -> io.NodeOutput:
        regional = list(conditioning)  # the balancer reads the maps of the first one without a mask
        for item in layout.objects if strength > 0 else ():
            sides = (REGION_CELLS, REGION_CELLS) if item.mask is None else item.mask.shape
            values = {
                "mask": region_of(item).coverage(*sides).float()[None],
                "mask_strength": strength,
                "set_area_to_bounds": set_cond_area == "mask bounds",
            }
            phrase = clip.encode_from_tokens_scheduled(clip.tokenize(item.phrase))
            regional += node_helpers.conditioning_set_values(phrase, values)
        return io.NodeOutput(regional)


class ApplyLayoutRegionalAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoApplyLayoutRegionalAttention",
            display_name="Apply Layout (Regional Attention)",
            description="Adds a layout's phrases to a conditioning of SD3, Flux or Qwen-Image; only the cells of its "
            "region attend to a phrase. With an EliGen LoRA on the model, it is EliGen.",
            search_aliases=["eligen", "regional prompting", "flux regional", "entity control", "attention couple"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The whole prompt, encoded. All cells attend to it."),
                LayoutType.Input("layout", tooltip="The objects and their regions: masks, poses or boxes."),
                io.Clip.Input("clip", tooltip="Encodes the phrases: the CLIP that encoded the prompt."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The share of sampling, from its start, in which the regions act. Afterwards the model "
                    "reads the prompt alone.",
                    extra_dict=ADVANCED,
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The whole prompt, and the phrases in their regions."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning, layout, clip, strength) -> io.NodeOutput:
        if not layout.objects or strength == 0:
            return io.NodeOutput(conditioning)
        changed = regional(conditioning, layout, clip)
        found = []
        for entry, other in zip(conditioning, changed, strict=True):
            found += [entry] if other is entry else until(strength, entry, other)
        return io.NodeOutput(found)


def gligen_positions(layout: Layout, clip, gligen, rows: float, columns: float) -> list[tuple]:
    """The objects as the host's GLIGEN reads them: (pooled phrase, height, width, y, x), in latent cells."""
    phrases = {item.phrase for item in layout.objects}
    pooled = {phrase: pooled_phrase(clip, gligen, phrase) for phrase in phrases}
    return [(pooled[item.phrase], *cells(item.box, rows, columns)) for item in layout.objects]


def cells(box: Box, rows: float, columns: float) -> tuple[float, float, float, float]:
    """(height, width, y, x) of the box in latent cells, at least one cell in size.

    Not in whole cells: the host divides by the latent's size again, and rounding would only move the box.
    """
    x0, y0, x1, y1 = box
    height, width = max((y1 - y0) * rows, 1), max((x1 - x0) * columns, 1)
    return height, width, min(y0 * rows, rows - height), min(x0 * columns, columns - width)


def pooled_phrase(clip, gligen, phrase: str) -> torch.Tensor:
    _, pooled = clip.encode_from_tokens(clip.tokenize(phrase), return_pooled="unprojected")
    expected, given = gligen.model.position_net.in_dim, 0 if pooled is None else pooled.shape[-1]
    if given != expected:
        raise BranchMismatchError(
            f"gligen: made for {family(expected)}, reads phrases of {expected} numbers; clip: of {family(given)}, "
            f"gives {given}. Load the GLIGEN file of your checkpoint's family, or use Apply Layout (Regions)"
        )
    return pooled


def family(pooled_width: int) -> str:
    return {768: "SD1.x", 1024: "SD2.x", 1280: "SDXL"}.get(pooled_width, "another family")


def check_count(earlier: list, positions: list, gligen) -> None:
    if len(earlier) + len(positions) > gligen.model.max_objs:
        raise TooManyObjectsError(
            f"layout: {len(positions)} objects, and the conditioning already has {len(earlier)}; GLIGEN takes "
            f"{gligen.model.max_objs} together: remove some or join them into one phrase"
        )


def until(share: float, entry, values: dict | list) -> list:
    """The conditioning `entry` with `values` in the first `share` of sampling, and without them afterwards.

    values: options, or another entry in its place.
    """
    start, end = entry[1].get("start_percent", 0.0), entry[1].get("end_percent", 1.0)
    if share <= start:
        return [entry]
    changed = node_helpers.conditioning_set_values([entry], values) if isinstance(values, dict) else [values]
    if share >= end:
        return changed
    first = node_helpers.conditioning_set_values(changed, {"start_percent": start, "end_percent": share})
    rest = {"start_percent": share + EPSILON, "end_percent": end}
    return first + node_helpers.conditioning_set_values([entry], rest)


NODES = [ApplyLayoutGLIGEN, ApplyLayoutRegions, ApplyLayoutRegionalAttention]
