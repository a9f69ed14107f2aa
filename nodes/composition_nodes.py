"""Nodes that change how a model reads its prompt: Composable Diffusion, Structured Diffusion."""

from __future__ import annotations

from comfy_api.latest import io

from realcompo_core.text.composition import layout_parts, split_prompt

from .host.composed import composed, structured
from .schema import schema
from .types import LayoutType

MODEL_OUTPUT = "For a sampler, or a Branch."


class ComposableDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoComposableDiffusion",
            display_name="Composable Diffusion",
            description="The parts of a prompt are guided to one by one: AND, and NOT by a negative weight.",
            search_aliases=["AND", "compositional prompt", "composable diffusion", "combine prompts"],
            inputs=[
                io.Model.Input("model", tooltip="A UNet (SD1.x, SD2.x, SDXL), SD3, Flux, Qwen-Image or Wan."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the parts."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="a cat | a dog",
                    tooltip="Parts between |, or without any between AND, or between and; a weight behind a part, "
                    "such as `a tree :-1`, is a factor of the sampler's cfg. Unused with a layout.",
                ),
                LayoutType.Input("layout", optional=True, tooltip="Its phrases are the parts, not the prompt's."),
            ],
            outputs=[io.Model.Output(tooltip=MODEL_OUTPUT)],
        )

    @classmethod
    def execute(cls, model, clip, prompt, layout=None) -> io.NodeOutput:
        parts = split_prompt(prompt) if layout is None else layout_parts(layout)
        return io.NodeOutput(composed(model, clip, parts))


class StructuredDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RealCompoStructuredDiffusion",
            display_name="Structured Diffusion",
            description="Phrases of the prompt are encoded by themselves too, so that their words stay together.",
            search_aliases=["attribute binding", "colour bleeding", "structured diffusion"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.x, SD2.x or SDXL model."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the positive conditioning."),
                LayoutType.Input("layout", tooltip="Its phrases are looked up in its prompt; its boxes do not matter."),
            ],
            outputs=[io.Model.Output(tooltip=MODEL_OUTPUT)],
        )

    @classmethod
    def execute(cls, model, clip, layout) -> io.NodeOutput:
        phrases = [item.phrase for item in layout.objects]
        return io.NodeOutput(structured(model, clip, layout.prompt, phrases))


NODES = [ComposableDiffusion, StructuredDiffusion]
