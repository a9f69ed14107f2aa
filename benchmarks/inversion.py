"""How well pictures are drawn again from their noise, and where two models look in the very same pictures.

    python benchmarks/inversion.py                  # 40 pictures, two models
    python benchmarks/inversion.py --pictures 4 --output /tmp/quick.json

Pictures are rendered ShapeScenes of captions that no training run has seen; the models are the bundled text-to-image
model, which is the fidelity branch of the balanced pipelines, and TokenCompose's fine-tuning of it. `psnr` is in
decibels between picture and reconstruction, `autoencoder` that of the picture's latent decoded, which is the most that
can be had. `noise` is the standard deviation of the latent found, 1 for the noise that sampling begins with. `share`
and `iou` are grounding metrics of the maps of the reconstruction, with the objects' true outlines. Means over the
pictures; `difference` with a 95 % interval, paired by picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image
from rich.progress import track

from realcompo_core.attention.grounding_metrics import layout_table, mean_of
from realcompo_core.diffusers.inversion import Inversion, invert
from shapescenes import DEFAULTS
from shapescenes.drawing import draw
from shapescenes.models import pipelines, tokencompose_pipeline
from shapescenes.world import Scene, held_out_scenes

RESULTS = Path(__file__).parent / "results" / "inversion.json"
FIRST_SEED = 3 * 10**6  # of the drawings; others are judged elsewhere
SETTINGS = [  # guidance scale, refinements, iterations of null-text inversion
    (1.0, 0, 0),
    (1.0, 2, 0),
    (DEFAULTS["guidance_scale"], 2, 0),
    (DEFAULTS["guidance_scale"], 0, 10),
    (DEFAULTS["guidance_scale"], 2, 10),
]


def inverted(pipeline: StableDiffusionPipeline, scene: Scene, seed: int, steps: int, setting: tuple) -> Inversion:
    scale, refinements, iterations = setting
    return invert(
        pipeline,
        Image.fromarray(draw(scene, "rendered", seed)),
        scene.prompt.caption,
        steps=steps,
        guidance_scale=scale,
        refinements=refinements,
        iterations=iterations,
    )


def measured(scene: Scene, found: Inversion) -> dict[str, float]:
    table = layout_table(found.maps, scene.layout_with_masks)
    return {
        "psnr": found.psnr,
        "autoencoder": found.psnr_of_autoencoder,
        "noise": float(found.latents.std()),
        "share": mean_of(table, "share"),
        "iou": mean_of(table, "iou"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--steps", type=int, nargs="*", default=[12, 50])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scenes = held_out_scenes(arguments.pictures)
    text_to_image = pipelines()[0]
    models = {"text_to_image": text_to_image, "tokencompose": tokencompose_pipeline(text_to_image)}
    rows = []
    for steps in arguments.steps:
        for setting in SETTINGS:
            each: dict[str, list[dict[str, float]]] = {}
            for name, pipeline in models.items():
                scenes_of = track(list(enumerate(scenes)), f"{name}, {steps} steps, {setting}")
                each[name] = [
                    measured(scene, inverted(pipeline, scene, FIRST_SEED + i, steps, setting)) for i, scene in scenes_of
                ]
            row: dict = {"steps": steps, "guidance": setting[0], "refinements": setting[1], "iterations": setting[2]}
            for name, found in each.items():
                row[name] = {key: round(float(np.mean([one[key] for one in found])), 3) for key in found[0]}
            for key in ("share", "iou"):
                pairs = [b[key] - a[key] for a, b in zip(*each.values(), strict=True)]
                error = 1.96 * np.std(pairs, ddof=1) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")
                row[f"difference_{key}"] = [round(float(np.mean(pairs)), 3), round(float(error), 3)]
            rows.append(row)
            print(row, flush=True)
            document = {"command": f"python benchmarks/inversion.py --pictures {len(scenes)}", "rows": rows}
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
