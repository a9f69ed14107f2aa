"""TokenCompose on ShapeScenes: the text-to-image model fine-tuned with and without each grounding loss.

    python benchmarks/tokencompose_shapescenes.py                # everything; finished runs are kept
    python benchmarks/tokencompose_shapescenes.py --rows token --seeds 1 --token-weight 0.01 --output /tmp/sweep.json

Equal steps from the same start: the bundled model as it is (`frozen`), and trained by L_LDM alone (`ldm`), with the
token loss, the pixel loss, and both. `accuracy` is the share of pictures of unseen prompts with 3 and 4 objects that
the judge finds exact, and `accuracy_N_objects` that of N. `present` is the share in which all objects are there,
whatever else is: what the paper's MultiGen counts (MG3 is `present_3_objects`). `gain` is a row's difference from
`ldm`, paired by seed: the mean and half the width of its 95 % confidence interval. `attention_miou` is that of the
words' maps (threshold 0.4, five noise levels, scenes of the same prompts drawn anew) with their true masks, over all
supervised layers and by the side of the maps; `share` is how much of their attention falls inside. `realism` is the
Fréchet distance to real scenes (see shapescenes.py). Seeds are of training (order, noise) and of sampling.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from rich.progress import track

from benchmarks.shapescenes import Row, run_seed
from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.guidance.settings import BalanceSettings
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.models import pipelines
from shapescenes.systems import System
from shapescenes.tokencompose import RememberedLatents, WithTextEncoder, example
from shapescenes.world import held_out_scenes, training_scene
from tokencompose_core.order import EpochOrder
from tokencompose_core.training import StepReport, TrainSettings, train
from tokencompose_core.validation import evaluate

RESULTS = Path(__file__).parent / "results"
WEIGHTS = {  # which of the two grounding weights a row has
    "frozen": None,
    "ldm": (0, 0),
    "token": (1, 0),
    "pixel": (0, 1),
    "token_pixel": (1, 1),
}
TRAINING_SEED, TRAINING_COUNTS = 3, (0.1, 0.3, 0.3, 0.3)  # scenes that the bundled model has not seen; 1 to 4 objects
DRAWING_SEED = 5 * 10**6
GAINS = ("accuracy", "present", "realism")
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 0.975 quantiles, 1 to 9 degrees of freedom
TEXT_TO_IMAGE = Row("text_to_image", BalanceSettings(fixed=torch.tensor([1.0, 0.0])))


def learn(
    pipeline: DiffusionPipeline,
    examples: Sequence[dict],
    settings: TrainSettings,
    name: str,
    validate: Callable[[int, DiffusionPipeline], None] = lambda step, pipeline: None,
    text_rank: int = 0,
) -> DiffusionPipeline:
    """A trained copy of the UNet in the same pipeline. `validate` sees it each `settings.validate_every` steps.

    text_rank: above 0, a copy of the text encoder learns with it, a LoRA of this rank.
    """
    trained = copy.copy(pipeline)
    trained.unet = copy.deepcopy(pipeline.unet).requires_grad_(True)
    trained.unet.set_attn_processor(AttnProcessor())  # on CPUs the fused kernel's backward is slow for short heads
    if text_rank:
        trained.text_encoder = copy.deepcopy(pipeline.text_encoder)
        model = WithTextEncoder(trained, text_rank)
    else:
        model = RememberedLatents(trained)
    order = EpochOrder(len(examples), settings.seed)
    began = time.monotonic()

    def report(step: StepReport) -> None:
        if step.step % 50 == 0:
            losses = ", ".join(f"{key} {value:.3f}" for key, value in step.losses.items())
            print(f"{name} {step.step}: {losses}, {(time.monotonic() - began) / step.step:.2f} s/step", flush=True)

    def batches(first: int):
        return ([examples[i] for i in part] for part in order.batches(settings.batch_size, first))

    def look(step: int) -> None:
        trained.unet.eval()
        validate(step, trained)

    train(model, batches, settings, report=report, validate=look)
    model.network.requires_grad_(False)
    return trained


def summarise(name: str, runs: list[dict], baseline: list[dict]) -> dict:
    """Means and standard deviations over the seeds, and the gains over the runs of `baseline` with the same seeds."""
    row: dict = {"name": name, "seeds": len(runs)}
    for key in [key for key in runs[0] if all(isinstance(run.get(key), float) for run in runs)]:
        values = [run[key] for run in runs]
        row[key] = round(float(np.mean(values)), 4)
        row[f"{key}_std"] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    if len(both := list(zip(runs, baseline, strict=False))) > 1 and runs is not baseline:
        known = [key for key in GAINS if all(key in run for pair in both for run in pair)]
        row["gain"] = {key: interval([run[key] - other[key] for run, other in both]) for key in known}
    return row


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Their mean, and half the width of its 95 % confidence interval by Student's t."""
    count = len(differences)
    spread = float(np.std(differences, ddof=1))
    quantile = STUDENT[min(count - 1, len(STUDENT)) - 1]  # of 10, a little too large, for more
    return round(float(np.mean(differences)), 4), round(quantile * spread / count**0.5, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=list(WEIGHTS), default=list(WEIGHTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--scenes", type=int, default=4000, help="training scenes")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-4, help="at first; it follows a cosine down to 0")
    parser.add_argument("--token-weight", type=float, default=3e-4)
    parser.add_argument("--pixel-weight", type=float, default=1e-3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the training")
    parser.add_argument("--adjectives", action="store_true", help="ground nouns with their adjectives")
    parser.add_argument("--output", type=Path, default=RESULTS / "tokencompose_shapescenes.json")
    arguments = parser.parse_args()
    start, layout_branch = pipelines()
    judge, scenes = load_judge(), held_out_scenes(arguments.prompts)
    real = real_features(scenes, judge, 10**6)
    tokenizer, adjectives = start.tokenizer, arguments.adjectives
    held_out = [example(s, tokenizer, 2 * DRAWING_SEED + i, adjectives) for i, s in enumerate(scenes)]
    training: list[dict] = []
    document = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"runs": {}}
    settings_of_all = {k: v for k, v in vars(arguments).items() if k not in ("rows", "seeds", "output")}
    if document["runs"] and document["settings"] != settings_of_all:
        raise SystemExit(f"{arguments.output} holds runs with other settings: give another --output, or delete it")
    for seed in range(arguments.seeds):
        for name in arguments.rows:
            done = document["runs"].setdefault(name, [])
            if len(done) > seed:
                continue
            pipeline = start
            if WEIGHTS[name] is not None:
                if not training:
                    training = [
                        example(
                            training_scene(TRAINING_SEED, i, TRAINING_COUNTS), tokenizer, DRAWING_SEED + i, adjectives
                        )
                        for i in track(range(arguments.scenes), "drawing")
                    ]
                token, pixel = WEIGHTS[name]
                settings = TrainSettings(
                    steps=arguments.steps,
                    batch_size=arguments.batch_size,
                    accumulation=1,
                    learning_rate=arguments.learning_rate,
                    schedule="cosine",
                    warmup=20,
                    token_weight=token * arguments.token_weight,
                    pixel_weight=pixel * arguments.pixel_weight,
                    caption_dropout=0.1,
                    precision=arguments.precision,
                    seed=seed,
                )
                pipeline = learn(start, training, settings, f"{name} seed {seed}")
            done.append(measure(pipeline, layout_branch, scenes, held_out, judge, real, seed))
            found = {key: done[-1][key] for key in ("accuracy", "present", "attention_miou", "share", "realism")}
            print(name, seed, found, flush=True)
            document["settings"] = settings_of_all
            document["command"] = "python benchmarks/tokencompose_shapescenes.py"
            document["versions"] = {
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "python": platform.python_version(),
            }
            document["rows"] = [
                summarise(name, document["runs"][name], document["runs"].get("ldm", []))
                for name in WEIGHTS
                if document["runs"].get(name)
            ]
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")


def measure(pipeline, layout_branch, scenes, held_out, judge, real, seed: int) -> dict[str, float]:
    metrics = evaluate(RememberedLatents(pipeline), held_out)
    both = RealCompoPipeline(pipeline, layout_branch)  # weight 1: the layout branch is never run
    found = run_seed(TEXT_TO_IMAGE, scenes, seed, System(both), judge, real)
    result = {key: float(value) for key, value in found.items() if key.startswith(("accuracy", "present"))}
    result["realism"] = found["realism"]
    for name, value in metrics.items():
        result[name.replace("miou", "attention_miou") if name.startswith("miou") else name] = round(value, 4)
    return result


if __name__ == "__main__":
    main()
