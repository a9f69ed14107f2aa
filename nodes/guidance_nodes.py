"""Nodes for what moves a branch's latent: Layout Guidance, Attend-and-Excite, BoxDiff."""

from __future__ import annotations

from comfy_api.latest import io

from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff
from realcompo_core.guidance.layout_guidance import LayoutGuidance

from .schema import ADVANCED, schema
from .types import LayoutGuidanceType

AUTHORS = AttendAndExcite()


def scale_input(default: float) -> io.Input:
    return io.Float.Input(
        "scale",
        default=default,
        min=0.0,
        max=10000.0,
        step=1.0,
        tooltip="How far the latent moves: the loss is multiplied by it. 0 leaves it where it is.",
    )


class LayoutGuidanceNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        authors = LayoutGuidance()
        return schema(
            node_id="RealCompoLayoutGuidance",
            display_name="Layout Guidance",
            description="Any model follows a layout: its latent is moved until its attention falls into the boxes.",
            search_aliases=["training-free layout control", "attention guidance", "backward guidance", "box guidance"],
            inputs=[
                scale_input(authors.scale),
                io.Float.Input(
                    "threshold",
                    default=authors.threshold,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="A step's moves end once the loss is not above it. The loss is 0 where all attention is "
                    "inside the regions, and up to 1.",
                ),
                io.Int.Input(
                    "iterations",
                    default=authors.iterations,
                    min=1,
                    max=100,
                    tooltip="The most moves in a step. Each costs half a pass of the network, and its gradient.",
                ),
                io.Float.Input(
                    "until",
                    default=0.196,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Share of the steps, from the start, in which the latent moves (authors: 10 of 51).",
                ),
                io.Boolean.Input(
                    "reset",
                    default=authors.reset,
                    extra_dict=ADVANCED,
                    tooltip="On: each step moves at least once. Off, as in the authors' code: the first loss that is "
                    "not above the threshold ends guidance for good.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="β: scale is multiplied by it.",
                ),
            ],
            outputs=[
                LayoutGuidanceType.Output(
                    "layout_guidance", tooltip="For a Branch, or the spatial branch of the Dual-UNet Balancer Sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, scale, strength, **settings) -> io.NodeOutput:
        return io.NodeOutput(LayoutGuidance(scale=scale * strength, **settings))


def excitation_inputs() -> list[io.Input]:
    """What Attend-and-Excite and BoxDiff both have."""
    return [
        scale_input(AUTHORS.scale),
        io.Float.Input(
            "until",
            default=AUTHORS.until,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Share of the steps, from the start, in which the latent moves (authors: 25 of 50).",
        ),
        io.Int.Input(
            "refinements",
            default=AUTHORS.most,
            min=0,
            max=100,
            tooltip="The most additional moves at the start and at 20 % and 40 % of the steps, until each object's "
            "attention is 0.05, 0.5 and 0.8. Each costs half a pass of the network, and its gradient. 0: one move a "
            "step.",
        ),
    ]


class AttendAndExciteNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoAttendAndExcite",
            display_name="Attend-and-Excite",
            description="No object of the prompt is left out: the latent is moved until each is attended to somewhere.",
            search_aliases=["missing objects", "catastrophic neglect", "attend and excite", "attention guidance"],
            inputs=[
                *excitation_inputs(),
                io.String.Input(
                    "words",
                    default="",
                    optional=True,
                    extra_dict=ADVANCED,
                    tooltip="Phrases of the prompt to look at, separated by commas. Empty: the layout's objects.",
                ),
            ],
            outputs=[LayoutGuidanceType.Output("guidance", tooltip="For a Branch.")],
        )

    @classmethod
    def execute(cls, scale, until, refinements, words="") -> io.NodeOutput:
        phrases = tuple(phrase.strip() for phrase in words.split(",") if phrase.strip()) or None
        return io.NodeOutput(AttendAndExcite(scale=scale, until=until, most=refinements, words=phrases))


class BoxDiffNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoBoxDiff",
            display_name="BoxDiff",
            description="Any model follows a layout: its latent is moved until each object is attended to in its box.",
            search_aliases=["training-free layout control", "attention guidance", "box guidance"],
            inputs=excitation_inputs(),
            outputs=[
                LayoutGuidanceType.Output(
                    "guidance", tooltip="For a Branch, or the spatial branch of the Dual-UNet Balancer Sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, scale, until, refinements) -> io.NodeOutput:
        return io.NodeOutput(BoxDiff(scale=scale, until=until, most=refinements))


NODES = [LayoutGuidanceNode, AttendAndExciteNode, BoxDiffNode]
