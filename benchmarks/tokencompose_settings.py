"""TokenCompose on ShapeScenes, one setting changed at a time, on prompts that no table reports.

    python benchmarks/tokencompose_settings.py                   # finished rows are kept

Each row trains the bundled text-to-image model as `tokencompose_shapescenes.py` does, for fewer steps, and is measured
on the 100 prompts after the 300 of the tables. `ldm` has no grounding loss, `both` the table's two. The others differ
from `both` in one thing: half of both weights; supervised layers of one resolution alone (16x16 or 8x8 maps); nouns
with their adjectives; a LoRA of rank 4 on the text encoder, which then learns too (`ldm_text`: without grounding
losses). Columns as in `tokencompose_shapescenes.py`. 66 of the 100 prompts have three or four objects, so that
`accuracy` has a standard error of 0.04.

Writes results/tokencompose_settings.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from rich.progress import track

from benchmarks.tokencompose_curves import PIXEL_WEIGHT, PROMPTS, REPORTED, TOKEN_WEIGHT
from benchmarks.tokencompose_shapescenes import (
    DRAWING_SEED,
    RESULTS,
    TRAINING_COUNTS,
    TRAINING_SEED,
    learn,
    measure,
)
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.models import pipelines
from shapescenes.tokencompose import example
from shapescenes.world import held_out_scenes, training_scene
from tokencompose_core.training import TrainSettings


@dataclass(frozen=True)
class Variant:
    """weight: of both grounding losses, times the table's. settings: of the run, beside those of all."""

    weight: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)
    adjectives: bool = False
    text_rank: int = 0


VARIANTS = {
    "ldm": Variant(weight=0.0),
    "both": Variant(),
    "half": Variant(weight=0.5),
    "maps_16": Variant(settings={"factors": (1,)}),
    "maps_8": Variant(settings={"factors": (2,)}),
    "adjectives": Variant(adjectives=True),
    "ldm_text": Variant(weight=0.0, text_rank=4),
    "both_text": Variant(text_rank=4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scenes", type=int, default=2000, help="training scenes")
    parser.add_argument("--output", type=Path, default=RESULTS / "tokencompose_settings.json")
    arguments = parser.parse_args()
    start, layout_branch = pipelines()
    judge, scenes = load_judge(), held_out_scenes(REPORTED + PROMPTS)[REPORTED:]
    real = real_features(scenes, judge, 10**6)
    held_out = [example(s, start.tokenizer, 2 * DRAWING_SEED + i, False) for i, s in enumerate(scenes)]
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"rows": []}
    told = {"steps": arguments.steps, "scenes": arguments.scenes, "torch": torch.__version__}
    if document["rows"] and document["settings"] != told:
        raise SystemExit(f"{arguments.output} holds runs with other settings: give another --output, or delete it")
    document["settings"] = told
    done = {row["name"] for row in document["rows"]}
    for name in arguments.rows:
        if name in done:
            continue
        variant = VARIANTS[name]
        training = [
            example(
                training_scene(TRAINING_SEED, i, TRAINING_COUNTS),
                start.tokenizer,
                DRAWING_SEED + i,
                variant.adjectives,
            )
            for i in track(range(arguments.scenes), "drawing")
        ]
        settings = TrainSettings(
            steps=arguments.steps,
            batch_size=16,
            accumulation=1,
            learning_rate=4e-4,
            schedule="cosine",
            warmup=20,
            token_weight=variant.weight * TOKEN_WEIGHT,
            pixel_weight=variant.weight * PIXEL_WEIGHT,
            caption_dropout=0.1,
            precision="bf16",
            **variant.settings,
        )
        pipeline = learn(start, training, settings, name, text_rank=variant.text_rank)
        found = measure(pipeline, layout_branch, scenes, held_out, judge, real, seed=0)
        document["rows"].append({"name": name, **{key: round(value, 4) for key, value in found.items()}})
        print(document["rows"][-1], flush=True)
        arguments.output.write_text(json.dumps(document, indent=1).replace("NaN", "null") + "\n")


if __name__ == "__main__":
    main()
