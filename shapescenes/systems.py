"""The systems of RealCompo that the bundled models make: a fidelity branch, and what follows the layout beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from PIL import Image

from realcompo_core.diffusers import Control, Guided, RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from realcompo_core.layout.segmentation import draw_segmentation
from shapescenes import LAYOUT_GUIDANCE
from shapescenes.models import pipelines, segmentation_pipeline, tokencompose_pipeline
from shapescenes.palette import PALETTE

FIDELITY = ("text_to_image", "tokencompose")
SPATIAL = ("gligen", "gligen_guided", "segmentation", "layout_guidance", "phrases")


SYSTEMS = {  # fidelity and spatial branch
    "v1": ("text_to_image", "gligen"),
    "v1_guided": ("text_to_image", "gligen_guided"),
    "v2": ("tokencompose", "gligen"),
    "v3": ("text_to_image", "layout_guidance"),
    "v4": ("tokencompose", "layout_guidance"),
    "segmentation": ("text_to_image", "segmentation"),
    "phrases": ("text_to_image", "phrases"),
}


class System(NamedTuple):
    """A balanced pipeline, and what its ControlNet is shown."""

    pipeline: RealCompoPipeline
    controls: Sequence[Control] = ()


def system(fidelity: str = "text_to_image", spatial: str = "gligen") -> System:
    """The system of these two branches. Raises RealCompoError for a name that is none of SPATIAL or FIDELITY."""
    for what, name, known in (("spatial", spatial, SPATIAL), ("fidelity", fidelity, FIDELITY)):
        if name not in known:
            raise RealCompoError(f"{what} is {name!r}: choose one of {', '.join(known)}")
    text_to_image, layout_branch = pipelines()
    first = text_to_image if fidelity == "text_to_image" else tokencompose_pipeline(text_to_image)
    if spatial == "segmentation":
        return System(RealCompoPipeline(first, segmentation_pipeline(text_to_image)), [Control(segmentation)])
    second: StableDiffusionPipeline | Guided = layout_branch
    if spatial == "gligen_guided":
        second = Guided(layout_branch, layout_guidance=LAYOUT_GUIDANCE)
    elif spatial == "layout_guidance":
        second = Guided(first, layout_guidance=LAYOUT_GUIDANCE)
    elif spatial == "phrases":
        second = Guided(text_to_image, phrase_strength=1.0)
    return System(RealCompoPipeline(first, second))


def segmentation(layout: Layout, size: tuple[int, int]) -> Image.Image:
    """The layout as the bundled ControlNet reads it; size: (width, height) in pixels."""
    return draw_segmentation(layout, PALETTE, size)
