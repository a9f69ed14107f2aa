"""Nodes that compare settings: Sweep, Sweep Grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.named_settings import FIXED_ONLY, balance_settings, named_settings
from realcompo_core.layout import Layout
from realcompo_core.sweep import measures
from realcompo_core.sweep.drawing import draw_grid
from realcompo_core.sweep.plan import BALANCE, PIPELINE, Parse, Plan, branches, not_negative, parse_axis, resolve, whole
from shapescenes.judge import detect, found_in_boxes, load_judge
from shapescenes.world import SIZE

from .sampling_nodes import SCHEDULES, NodeSettings
from .schema import schema
from .types import BalanceSettingsType, BalanceTraceType, LayoutType, SweepPlanType

NONE = "none"
BRANCHES = 100  # more than anyone chains: the sampler checks


def schedule(text: str) -> str:
    """In the words of Balance Settings, or those of WeightSchedule."""
    return BALANCE["schedule"](SCHEDULES.get(text, text))


SWEPT: dict[str, Parse] = {
    **BALANCE,
    "schedule": schedule,
    "sources": branches(BRANCHES),
    "layers": whole(0),
    "include_adjectives": PIPELINE["include_adjectives"],
    "strength": not_negative,
}
"""What an axis can be: the settings of Balance Settings, and the layout's strength."""


class Sweep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        values = "with commas between them, such as 0, 0.2, 0.4. Choices are written as in Balance Settings."
        return schema(
            node_id="RealCompoSweep",
            display_name="Sweep",
            description="All pairs of values of two settings: what it is connected to runs once for each.",
            search_aliases=["grid", "XY plot", "compare settings", "parameter sweep"],
            inputs=[
                io.Combo.Input("x_setting", options=list(SWEPT), default="t0", tooltip="What the columns differ in."),
                io.String.Input("x_values", default="0, 0.2, 0.4", tooltip=f"The columns' values, {values}"),
                io.Combo.Input(
                    "y_setting",
                    options=[NONE, *SWEPT],
                    default="strength",
                    tooltip="What the rows differ in; none for a single row.",
                ),
                io.String.Input("y_values", default="0.3, 0.6, 1", tooltip=f"The rows' values, {values}"),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="The output strength where no axis is strength.",
                ),
                BalanceSettingsType.Input(
                    "settings", optional=True, tooltip="From Balance Settings: what the axes leave as it is."
                ),
            ],
            outputs=[
                BalanceSettingsType.Output(
                    "settings",
                    is_output_list=True,
                    tooltip="One for each cell, row by row. For the sampler or Balanced Guider.",
                ),
                io.Float.Output(
                    "strength",
                    is_output_list=True,
                    tooltip="One for each cell: for the strength of Apply Layout (GLIGEN), where it is β, or of a "
                    "ControlNet.",
                ),
                SweepPlanType.Output("plan", tooltip="For Sweep Grid."),
            ],
        )

    @classmethod
    def execute(cls, x_setting, x_values, y_setting, y_values, strength, settings=None) -> io.NodeOutput:
        x = parse_axis(x_setting, x_values, SWEPT)
        plan = Plan(x, None if y_setting == NONE else parse_axis(y_setting, y_values, SWEPT))
        cells = resolve(plan, {**named(settings or NodeSettings()), "strength": strength})
        return io.NodeOutput([node_settings(cell) for cell in cells], [cell["strength"] for cell in cells], plan)


class SweepGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoSweepGrid",
            display_name="Sweep Grid",
            description="The pictures of a sweep as one grid, with what can be measured below each.",
            search_aliases=["XY plot", "contact sheet", "compare settings"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures that were sampled, one run for each cell."),
                SweepPlanType.Input("plan", tooltip="From Sweep."),
                io.Boolean.Input(
                    "judge",
                    default=False,
                    tooltip="For the bundled models: which objects of the layout the ShapeScenes judge finds in their "
                    "boxes. Needs the layout.",
                ),
                BalanceTraceType.Input(
                    "trace",
                    optional=True,
                    tooltip="From the sampler: how much of the objects' attention was inside their regions.",
                ),
                LayoutType.Input("layout", optional=True, tooltip="What is where, for the judge and the title."),
                io.Image.Input(
                    "fidelity_image",
                    optional=True,
                    tooltip="The fidelity model's own picture with this seed: how far each cell is from it.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="One grid for each picture of the batch."),
                io.String.Output("table", tooltip="The numbers as CSV."),
            ],
        )

    @classmethod
    def execute(cls, images, plan, judge, trace=None, layout=None, fidelity_image=None) -> io.NodeOutput:
        (plan,), (judge,) = plan, judge
        layouts, references = layout or [], fidelity_image or []
        if judge and not layouts:
            raise RealCompoError("judge: connect the layout too, which says what the judge looks for, and where")
        cells = len(plan.cells)
        check_runs("images", images, cells)
        if trace:
            check_runs("trace", trace, cells)
        for name, runs in (("layout", layouts), ("fidelity_image", references)):
            if len(runs) > 1:  # one alone is that of all cells
                check_runs(name, runs, cells)
        batches = {len(pictures) for pictures in images}
        if len(batches) > 1:
            raise RealCompoError(f"images: the cells have {sorted(batches)} pictures: give all cells as many")

        grids, rows = [], []
        for item in range(*batches):
            numbers = []
            for n, pictures in enumerate(images):
                own = judged(pictures[item], layouts[n % len(layouts)]) if judge else {}
                if trace:
                    own["attention_inside"] = measures.attention_inside(trace[n], item)
                if references:
                    own["difference"] = difference(pictures[item], references[n % len(references)], item)
                numbers.append(own)
            title = layouts[0].prompt if layouts else "Sweep"
            grid = draw_grid(
                plan,
                [as_image(pictures[item]) for pictures in images],
                [measures.lines(own) for own in numbers],
                title + (f", picture {item}" if len(images[0]) > 1 else ""),
                measures.captions(numbers[0]),
            )
            grids.append(np.asarray(grid, dtype=np.float32) / 255)
            rows += [{"picture": item, **labels, **own} for labels, own in zip(plan.labels, numbers, strict=True)]
        shown = torch.from_numpy(stacked(grids))
        return io.NodeOutput(shown, measures.as_csv(rows), ui=ui.PreviewImage(shown, cls=cls))


def named(settings: NodeSettings) -> dict:
    """All that Balance Settings says, by name."""
    fixed = named_settings(replace(settings.balance, fixed=settings.if_fixed))
    own = fixed if settings.spatial_weights is not None else named_settings(settings.balance)
    return {
        **fixed,
        **{name: value for name, value in own.items() if name not in FIXED_ONLY},
        "layers": settings.layers,
        "include_adjectives": settings.include_adjectives,
        "detach_control": settings.detach_control,
    }


def node_settings(settings: dict) -> NodeSettings:
    """The inverse of `named`."""
    balance = balance_settings(settings)
    fixed = balance_settings({**settings, "mode": "fixed"}).fixed
    others = settings["layers"], settings["include_adjectives"]
    detached = settings["detach_control"]
    return NodeSettings(replace(balance, fixed=None), balance.fixed, *others, fixed, detached)


def check_runs(name: str, runs: list, cells: int) -> None:
    if len(runs) != cells:
        raise RealCompoError(
            f"{name}: {len(runs)} came, and the sweep has {cells} cells: connect what was sampled with the lists of "
            "that Sweep which the plan is from"
        )


def as_image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray((picture[..., :3].cpu().clamp(0, 1) * 255).round().byte().numpy())


def judged(picture: torch.Tensor, layout: Layout) -> dict:
    """What the judge finds in a picture, (128, 128, 3) in 0..1."""
    if picture.shape[:2] != (SIZE, SIZE):
        height, width = picture.shape[:2]
        raise RealCompoError(
            f"judge: it reads ShapeScenes pictures of {SIZE}x{SIZE} pixels, and these have {width}x{height}: turn it "
            "off"
        )
    pixels = picture[..., :3].cpu().float().clamp(0, 1).permute(2, 0, 1)[None] * 2 - 1
    (found,) = detect(load_judge(), pixels)
    hits, others = found_in_boxes(layout, found)
    return {"found": sum(hits), "objects": len(hits), "others": len(others)}


def difference(picture: torch.Tensor, fidelity: torch.Tensor, item: int) -> float:
    """From the fidelity model's picture of the same item; one picture alone is that of all."""
    other = fidelity[item % len(fidelity)]
    if picture.shape != other.shape:
        raise RealCompoError(
            f"fidelity_image: a picture of shape {tuple(other.shape)}, and the cells have {tuple(picture.shape)}: "
            "sample it from the same latent"
        )
    return measures.rms_difference(picture.cpu().numpy(), other.cpu().numpy())


def stacked(grids: list[np.ndarray]) -> np.ndarray:
    """(B, H, W, 3) with white below those that are shorter."""
    height = max(len(grid) for grid in grids)
    return np.stack([np.pad(grid, ((0, height - len(grid)), (0, 0), (0, 0)), constant_values=1) for grid in grids])


NODES = [Sweep, SweepGrid]
