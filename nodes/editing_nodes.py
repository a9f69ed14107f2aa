"""Prompt-to-Prompt: a picture stays, and its prompt is edited."""

from __future__ import annotations

import re

from comfy_api.latest import io

from realcompo_core.attention.prompt_to_prompt import PromptToPrompt
from realcompo_core.errors import RealCompoError

from .host.edited import edited, pairs_of_latents, pairs_of_texts
from .host.prompt_tokens import prompt_words
from .schema import ADVANCED, schema
from .types import LayoutType

_WEIGHTED = re.compile(r"(.+?)\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+))")


class PromptToPromptNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        own = PromptToPrompt()
        return schema(
            node_id="RealCompoPromptToPrompt",
            display_name="Prompt-to-Prompt",
            description="The prompt is edited and the picture stays: words swapped, added or weighted.",
            search_aliases=["edit prompt", "image editing", "cross-attention control", "p2p"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.x, SD2.x or SDXL model."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompts."),
                io.Latent.Input("latent", tooltip="An empty one, or that of Invert Picture."),
                io.String.Input("prompt", multiline=True, default="", tooltip="What the picture shows."),
                io.String.Input(
                    "edited_prompt",
                    multiline=True,
                    default="",
                    tooltip="The same with words exchanged or added. What both have, word by word, is kept.",
                ),
                io.Float.Input(
                    "cross",
                    default=own.cross,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the steps in which words have the attention that they have in the picture.",
                ),
                io.Float.Input(
                    "self_attention",
                    default=own.self_attention,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the steps in which shapes are kept: more for colours and textures, less for "
                    "things of another shape.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    tooltip="Factors of the attention to phrases of the edited prompt, such as `fluffy: 2, red: 0.5`.",
                ),
                io.String.Input(
                    "blend",
                    default="",
                    tooltip="Where the picture may change: a phrase of the prompt, or one of each prompt, such as "
                    "`cat | dog`. Empty: everywhere.",
                ),
                io.Float.Input(
                    "threshold",
                    default=own.threshold,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip="With blend: the share of its largest attention from which on a place may change.",
                ),
                LayoutType.Input(
                    "layout", optional=True, tooltip="The picture may change in the regions of its objects alone."
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For a sampler, with the other outputs."),
                io.Conditioning.Output("positive", tooltip="Both prompts."),
                io.Latent.Output("latent", tooltip="Pairs: the picture, and its edit."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, latent, prompt, edited_prompt, cross, self_attention, weights, blend, threshold, layout=None
    ) -> io.NodeOutput:
        phrases = _phrases(blend)
        if phrases is not None and layout is not None:
            raise RealCompoError("blend and layout both say where the picture may change: use one")
        if layout is not None and not layout.objects:
            raise RealCompoError("the layout has no objects, in whose regions the picture would change: unplug it")
        settings = PromptToPrompt(cross, self_attention, _weights(weights), phrases, threshold)
        words = [prompt_words(clip, text) for text in (prompt, edited_prompt)]
        model = edited(model, settings, *words, layout)
        return io.NodeOutput(model, pairs_of_texts(clip, prompt, edited_prompt), pairs_of_latents(latent))


def _weights(text: str) -> dict[str, float]:
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _WEIGHTED.fullmatch(part)
        if match is None:
            raise RealCompoError(f"weights: {part!r} is not a phrase with a number, such as `fluffy: 2`")
        found[match[1]] = float(match[2])
    return found


def _phrases(text: str) -> tuple[str, str] | None:
    parts = [part.strip() for part in text.split("|") if part.strip()]
    if len(parts) > 2:
        raise RealCompoError(f"blend: {len(parts)} phrases were given: one, or one of each prompt with | between them")
    return (parts[0], parts[-1]) if parts else None


NODES = [PromptToPromptNode]
