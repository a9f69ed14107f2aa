"""Learning curves on ShapeScenes: L_LDM alone against TokenCompose's losses, from three starts.

    python benchmarks/tokencompose_curves.py                     # all starts; finished curves are kept
    python benchmarks/tokencompose_curves.py --starts scratch --seeds 2

`bundled` fine-tunes the bundled text-to-image model, which knows scenes of one to four objects. `few` fine-tunes one
that has seen scenes of one and two objects alone (trained here first, from scratch, by L_LDM), on scenes of three and
four. `scratch` trains a UNet from random weights, on scenes of one to four. The text encoder is the bundled one and is
not trained. Each run has a constant learning rate; measured is the average of its weights (EMA), at several steps, on
100 prompts that no other table reports: `accuracy` (exact scenes of three and four objects), `present` (all of their
objects there, whatever else is: MultiGen's measure), `realism` (Fréchet distance, which is larger on few pictures),
`share` and `attention_miou` (of the nouns' attention and their masks), `ldm` (the denoising loss on held-out scenes).

Writes results/tokencompose_curves.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from diffusers import DiffusionPipeline
from rich.progress import track

from benchmarks.tokencompose_shapescenes import DRAWING_SEED, RESULTS, TRAINING_SEED, learn, measure
from shapescenes import models
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.tokencompose import example
from shapescenes.world import Scene, held_out_scenes, training_scene
from tokencompose_core.training import TrainSettings

REPORTED, PROMPTS = 300, 100  # prompts of the tables, and those after them, which are measured here
SCENES = 6000
ROWS = {"ldm": 0.0, "token_pixel": 1.0}
TOKEN_WEIGHT, PIXEL_WEIGHT = 3e-4, 1e-3  # those of tokencompose_shapescenes.py
EMA = 0.99
FINE_TUNING = TrainSettings(
    batch_size=16,
    accumulation=1,
    learning_rate=2e-4,
    warmup=20,
    caption_dropout=0.1,
    precision="bf16",
    ema=EMA,
)
FROM_SCRATCH = replace(FINE_TUNING, batch_size=32, learning_rate=1e-3, warmup=100)


@dataclass(frozen=True)
class Start:
    """counts: shares of training scenes with 1 to 4 objects. every: steps between measurements."""

    settings: TrainSettings
    counts: tuple[float, float, float, float]
    steps: int
    every: int


STARTS = {
    "scratch": Start(FROM_SCRATCH, (0.2, 0.3, 0.3, 0.2), 1500, 300),
    "few": Start(FINE_TUNING, (0, 0, 0.5, 0.5), 600, 150),
    "bundled": Start(FINE_TUNING, (0.1, 0.3, 0.3, 0.3), 2400, 600),
}
FEW_COUNTS, FEW_STEPS = (0.5, 0.5, 0, 0), 1200


class Curves:
    """What all runs share: the held-out scenes, the judge and the bundled models."""

    def __init__(self):
        self.text_to_image, self.layout_branch = models.pipelines()
        self.scenes: list[Scene] = held_out_scenes(REPORTED + PROMPTS)[REPORTED:]
        self.judge = load_judge()
        self.real = real_features(self.scenes, self.judge, 10**6)
        tokenizer = self.text_to_image.tokenizer
        self.held_out = [example(s, tokenizer, 2 * DRAWING_SEED + i, False) for i, s in enumerate(self.scenes)]
        self.training = cache(self.training)

    def training(self, counts: tuple[float, ...]) -> Sequence[dict]:
        drawn = track(range(SCENES), f"drawing {counts}")
        tokenizer = self.text_to_image.tokenizer
        return [example(training_scene(TRAINING_SEED, i, counts), tokenizer, DRAWING_SEED + i, False) for i in drawn]

    def start(self, name: str, seed: int, folder: Path) -> DiffusionPipeline:
        """A pipeline whose UNet is where the curve begins."""
        pipeline = copy.copy(self.text_to_image)
        if name == "bundled":
            return pipeline
        torch.manual_seed(seed)
        pipeline.unet = models.unet().eval().requires_grad_(False)
        if name == "few":
            kept = folder / f"few_{seed}.pt"
            if not kept.exists():
                settings = replace(FROM_SCRATCH, steps=FEW_STEPS, token_weight=0.0, pixel_weight=0.0, seed=seed)
                taught = learn(pipeline, self.training(FEW_COUNTS), settings, f"few, its start, seed {seed}")
                folder.mkdir(parents=True, exist_ok=True)
                torch.save(taught.unet.state_dict(), kept)
            pipeline.unet.load_state_dict(torch.load(kept, weights_only=True))
        return pipeline

    def measure(self, pipeline: DiffusionPipeline, seed: int) -> dict[str, float | None]:
        """None for what none of the prompts is about."""
        found = measure(pipeline, self.layout_branch, self.scenes, self.held_out, self.judge, self.real, seed)
        return {name: None if math.isnan(value) else round(value, 4) for name, value in found.items()}

    def run(self, name: str, row: str, seed: int, folder: Path) -> list[dict]:
        """The measurements of one run, by its steps."""
        start, points = STARTS[name], []
        settings = replace(
            start.settings,
            steps=start.steps,
            validate_every=start.every,
            token_weight=ROWS[row] * TOKEN_WEIGHT,
            pixel_weight=ROWS[row] * PIXEL_WEIGHT,
            seed=seed,
        )

        def look(step: int, pipeline: DiffusionPipeline) -> None:
            points.append({"step": step, **self.measure(pipeline, seed)})
            told = {key: points[-1][key] for key in ("step", "accuracy", "present", "realism", "share")}
            print(name, row, seed, told, flush=True)

        pipeline = self.start(name, seed, folder)
        look(0, pipeline)
        learn(pipeline, self.training(start.counts), settings, f"{name}, {row}, seed {seed}", look)
        return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", nargs="*", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("shapescenes_training"), help="for what `few` starts from")
    parser.add_argument("--output", type=Path, default=RESULTS / "tokencompose_curves.json")
    arguments = parser.parse_args()
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"curves": []}
    done = {(curve["start"], curve["row"], curve["seed"]) for curve in document["curves"]}
    curves = Curves()
    for seed in range(arguments.seeds):
        for name in arguments.starts:
            for row in ROWS:
                if (name, row, seed) not in done:
                    points = curves.run(name, row, seed, arguments.folder)
                    document["curves"].append({"start": name, "row": row, "seed": seed, "points": points})
                    document["torch"] = torch.__version__
                    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
