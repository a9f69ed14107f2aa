"""Pictures of the templates that load files: layout, and how it is followed. `python tests/template_pictures.py`."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from realcompo_core.layout.drawing import draw_layout
from realcompo_core.layout.keypoints import from_pose_keypoints
from realcompo_core.layout.layout import Layout
from realcompo_core.providers import get_provider

WORKFLOWS = Path(__file__).parents[1] / "workflows"
SIDE = 512
PLATE, INK, QUIET = "#1d2430", "#f4f4f2", "#9aa6b8"
FIDELITY, SPATIAL = "#2a78d6", "#d9861a"
SD, SDXL, TOKENCOMPOSE = "any SD1.x checkpoint", "SDXL", "TokenCompose's UNet"
REGIONS = "the same, phrases in regions"
KINDS = {  # title, fidelity branch, spatial branch
    "realcompo_v1": ("RealCompo v1", SD, "SD1.5 with GLIGEN"),
    "realcompo_v2": ("RealCompo v2", TOKENCOMPOSE, "SD1.5 with GLIGEN"),
    "realcompo_v3": ("RealCompo v3", SD, "SD1.5 with Layout Guidance"),
    "realcompo_v4": ("RealCompo v4", TOKENCOMPOSE, "SD1.5 with Layout Guidance"),
    "stylised_checkpoint": ("A painted style", "a stylised checkpoint", "SD1.5 with GLIGEN"),
    "layout_on_canvas": ("Boxes by hand", SD, "SD1.5 with GLIGEN"),
    "layout_by_local_llm": ("Layout by a local LLM", SD, "SD1.5 with GLIGEN"),
    "phrase_per_box": ("A phrase for each box", SD, "each phrase in its box"),
    "regional_attention_flux": ("Regional attention, Flux", "Flux.1-dev", REGIONS),
    "regional_attention_sd35": ("Regional attention, SD3.5", "SD3.5 Medium", REGIONS),
    "regional_attention_qwen_image": ("Regional attention, Qwen", "Qwen-Image", REGIONS),
    "controlnet_flux": ("Poses, Flux", "Flux.1-dev", "the same with a ControlNet"),
    "controlnet_sd35": ("Edges, SD3.5", "SD3.5 Large", "the same with a ControlNet"),
    "controlnet_qwen_image": ("Poses, Qwen-Image", "Qwen-Image", "the same with a ControlNet"),
}


def plate(title: str, fidelity: str, spatial: str) -> Image.Image:
    """What the two branches are, as two discs that overlap."""
    image = Image.new("RGB", (SIDE, SIDE), PLATE)
    draw = ImageDraw.Draw(image, "RGBA")
    large, small = (ImageFont.load_default(size) for size in (38, 21))
    draw.text((SIDE / 2, 70), title, INK, large, anchor="mm")
    for x, color in ((186, FIDELITY), (326, SPATIAL)):
        draw.ellipse((x - 110, 130, x + 110, 350), fill=f"{color}b0")
    for y, color, role, text in ((404, FIDELITY, "fidelity", fidelity), (452, SPATIAL, "spatial", spatial)):
        draw.ellipse((60, y - 8, 76, y + 8), fill=color)
        draw.text((90, y), role, QUIET, small, anchor="lm")
        draw.text((186, y), text, INK, small, anchor="lm")
    return image


def layout_picture(name: str) -> Image.Image:
    """The template's layout, or what `rules` makes of its prompt; on the canvas with the handles that one drags."""
    workflow = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    given = workflow["layout"]["inputs"]
    if "layout_json" in given:
        layout = Layout.from_json(given["layout_json"])
    elif "keypoints" in given:
        poses = workflow["poses"]["inputs"]["value"]
        layout = from_pose_keypoints(poses, phrases=given["phrases"].splitlines())
    else:
        layout = get_provider("rules").propose(workflow["prompt"]["inputs"]["value"], (SIDE, SIDE))
    image = draw_layout(layout, (SIDE, SIDE)).convert("RGB")
    if name == "layout_on_canvas":
        draw = ImageDraw.Draw(image)
        for item in layout.objects:
            left, top, right, bottom = (SIDE * edge for edge in item.box)
            for x, y in ((left, top), (right, top), (left, bottom), (right, bottom)):
                draw.rectangle((x - 6, y - 6, x + 6, y + 6), fill="white", outline="black", width=2)
    return image


if __name__ == "__main__":
    for name, kind in KINDS.items():
        both = Image.new("RGB", (2 * SIDE, SIDE))
        both.paste(layout_picture(name), (0, 0))
        both.paste(plate(*kind), (SIDE, 0))
        both.save(WORKFLOWS / f"{name}.jpg", quality=88)
