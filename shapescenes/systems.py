"""The systems of RealCompo that the bundled models make: a fidelity branch, and what follows the layout beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from PIL import Image

from realcompo_core.diffusers import Control, Guided, RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff
from realcompo_core.layout import Layout
from realcompo_core.layout.segmentation import draw_segmentation
from shapescenes import LAYOUT_GUIDANCE
from shapescenes.models import dit_pipelines, pipelines, segmentation_pipeline, tokencompose_pipeline
from shapescenes.palette import PALETTE

FIDELITY = ("text_to_image", "tokencompose", "attend_and_excite", "dit")
GUIDED: dict[str, dict] = {  # spatial branches that are the fidelity model with arguments of `Guided`
    "layout_guidance": {"layout_guidance": LAYOUT_GUIDANCE},
    "phrases": {"phrase_strength": 1.0},
    "attend_and_excite": {"layout_guidance": AttendAndExcite()},
    "boxdiff": {"layout_guidance": BoxDiff()},
    "composable": {"composed": "layout"},
    "structured": {"structured": True},
}
SPATIAL = ("gligen", "gligen_guided", "segmentation", "dit_regions", *GUIDED)

SYSTEMS = {  # fidelity and spatial branch
    "v1": ("text_to_image", "gligen"),
    "v1_guided": ("text_to_image", "gligen_guided"),
    "v2": ("tokencompose", "gligen"),
    "v3": ("text_to_image", "layout_guidance"),
    "v4": ("tokencompose", "layout_guidance"),
    "segmentation": ("text_to_image", "segmentation"),
    **{name: ("text_to_image", name) for name in GUIDED if name != "layout_guidance"},
    "v1_excited": ("attend_and_excite", "gligen"),
    "dit": ("dit", "dit_regions"),
}


class System(NamedTuple):
    """A balanced pipeline, and what its ControlNet is shown."""

    pipeline: RealCompoPipeline
    controls: Sequence[Control] = ()


def system(fidelity: str = "text_to_image", spatial: str = "gligen") -> System:
    """The system of these two branches.

    Raises RealCompoError for a name that is none of SPATIAL or FIDELITY, and for a transformer beside a UNet.
    """
    for what, name, known in (("spatial", spatial, SPATIAL), ("fidelity", fidelity, FIDELITY)):
        if name not in known:
            raise RealCompoError(f"{what} is {name!r}: choose one of {', '.join(known)}")
    if (fidelity == "dit") != (spatial == "dit_regions"):
        raise RealCompoError(f"fidelity {fidelity} and spatial {spatial}: the branches dit and dit_regions go together")
    if fidelity == "dit":
        transformer, with_lora = dit_pipelines()
        return System(RealCompoPipeline(transformer, Guided(with_lora, regional=True)))
    text_to_image, layout_branch = pipelines()
    model = tokencompose_pipeline(text_to_image) if fidelity == "tokencompose" else text_to_image
    first = Guided(model, **GUIDED[fidelity]) if fidelity in GUIDED else model
    if spatial == "segmentation":
        return System(RealCompoPipeline(first, segmentation_pipeline(text_to_image)), [Control(segmentation)])
    second: StableDiffusionPipeline | Guided = layout_branch
    if spatial == "gligen_guided":
        second = Guided(layout_branch, layout_guidance=LAYOUT_GUIDANCE)
    elif spatial in GUIDED:
        second = Guided(model, **GUIDED[spatial])
    return System(RealCompoPipeline(first, second))


def segmentation(layout: Layout, size: tuple[int, int]) -> Image.Image:
    """The layout as the bundled ControlNet reads it; size: (width, height) in pixels."""
    return draw_segmentation(layout, PALETTE, size)
