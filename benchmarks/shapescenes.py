"""Accuracy against realism on ShapeScenes: each branch alone, constant mixes, the balancer, its ablations.

    python benchmarks/shapescenes.py                 # everything; finished rows are kept and not run again
    python benchmarks/shapescenes.py --rows one_pass --prompts 60 --seeds 1 --output /tmp/quick.json

Prompts are captions that no training run has seen. `accuracy` is the share of pictures of prompts with 3 and 4 objects
in which the judge finds exactly the stated objects in the stated relations; `accuracy_all` is over all prompts.
`realism` is the Fréchet distance to real rendered scenes of the same prompts, in the judge's features (smaller is
better); it grows as pictures get fewer, so ablations, on the first 100 prompts and one seed, have a one_pass row of
their own to be compared with. `passes` are UNet evaluations a step and a sample, `backward` those of them that are
differentiated. `time_ratio` is the time of the row divided by that of mix_0.5, which runs the same two branches with
guidance: the median of three rounds of both in turn, on twelve prompts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # `shapescenes` is the package, not this file

import diffusers
import numpy as np
import torch
from rich.progress import track

from benchmarks.measuring import seconds
from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.providers import get_provider
from shapescenes import DEFAULTS
from shapescenes.judge import Judge, frechet_distance, load_judge
from shapescenes.measuring import Judged, judge_pictures, measures, real_features
from shapescenes.models import pipelines
from shapescenes.world import Scene, held_out_scenes

RESULTS = Path(__file__).parent / "results"
BATCH = 20
SEEDS = 3
ABLATION_PROMPTS = 100  # with one seed
TIMED_PROMPTS, TIMED_ROUNDS = 12, 3


@dataclass(frozen=True)
class Row:
    """One line of the table: balance settings, and whose layouts are used."""

    name: str
    balance: BalanceSettings
    layouts: str = "true"
    options: dict = field(default_factory=dict)
    ablation: bool = False  # fewer pictures: compare it with one_pass_ablation alone


def rows() -> list[Row]:
    best: BalanceSettings = DEFAULTS["balance"]

    def fixed(spatial: float) -> BalanceSettings:
        return BalanceSettings(fixed=torch.tensor([1 - spatial, spatial]))

    def fixed_until(spatial: float, end: float) -> BalanceSettings:
        """Constant weights first, then the fidelity branch alone: t1 without the balancer."""
        return BalanceSettings(
            fixed=lambda progress: torch.tensor([1 - spatial, spatial] if progress < end else [1, 0])
        )

    lookahead = replace(best, mode="lookahead")
    official = BalanceSettings(mode="lookahead", rule="official", rate=1.0, initial="random", t0=0.4, t1=1.0)
    return [
        Row("text_to_image", fixed(0)),
        Row("layout_branch", fixed(1)),
        Row("lookahead", lookahead),
        Row("one_pass", best),
        *(Row(f"mix_{n / 10}", fixed(n / 10)) for n in (5, 7, 3, 6, 4, 8, 2, 9, 1)),
        Row("official", official),
        Row("rules_layout_branch", fixed(1), "rules"),
        Row("rules_lookahead", lookahead, "rules"),
        Row("rules_one_pass", best, "rules"),
        Row("one_pass_ablation", best, ablation=True),
        Row("mix_0.5_until_0.6", fixed_until(0.5, 0.6), ablation=True),
        Row("mix_1.0_until_0.3", fixed_until(1.0, 0.3), ablation=True),
        Row("no_update", replace(best, update_until=0.0), ablation=True),
        Row("no_update_random", replace(best, initial="random", update_until=0.0), ablation=True),
        Row("zero_initial", replace(best, initial="zero"), ablation=True),
        Row("random_initial", replace(best, initial="random"), ablation=True),
        Row("fidelity_gradient_only", replace(best, sources=(0,)), ablation=True),
        Row("spatial_gradient_only", replace(best, sources=(1,)), ablation=True),
        Row("rule_max", replace(best, rule="max", rate=1.0), ablation=True),
        Row("rule_official", replace(best, rule="official", rate=1.0), ablation=True),
        Row("rate_0.2", replace(best, rate=0.2), ablation=True),
        Row("rate_0.8", replace(best, rate=0.8), ablation=True),
        Row("update_until_0.3", replace(best, update_until=0.3), ablation=True),
        Row("update_every_2", replace(best, update_every=2), ablation=True),
        Row("t1_1.0", replace(best, t1=1.0), ablation=True),
        Row("t0_0.1", replace(best, t0=0.1), ablation=True),
        Row("layers_full_resolution", best, options={"layers": 1}, ablation=True),
        Row("nouns_only", best, options={"include_adjectives": False}, ablation=True),
    ]


def run_row(
    row: Row,
    scenes: list[Scene],
    seeds: int,
    pipe: RealCompoPipeline,
    judge: Judge,
    real: np.ndarray,
    first_seed: int = 0,
) -> dict:
    provider = get_provider("rules")
    layouts = [s.layout if row.layouts == "true" else provider.propose(s.prompt.caption, (128, 128)) for s in scenes]
    options = {**DEFAULTS, "balance": row.balance, **row.options}
    judged: list[Judged] = []
    features = []
    passes = {"forward": 0, "backward": 0}
    for seed in range(seeds):
        for first in track(range(0, len(scenes), BATCH), f"{row.name} seed {seed}"):
            part = slice(first, first + BATCH)
            with count_passes(pipe, passes):
                output = pipe(
                    [s.prompt.caption for s in scenes[part]],
                    layouts[part],
                    seed=(first_seed + seed) * len(scenes) + first,
                    **options,
                )
            told, seen = judge_pictures(judge, scenes[part], layouts[part], output.images)
            judged += told
            features.append(seen)
    return summarise(row, seeds, judged, np.concatenate(features), real, passes)


def summarise(row: Row, seeds: int, judged: list[Judged], features, real, passes) -> dict:
    """Means over the seeds, and standard deviations between them."""
    per_seed: dict[str, list[float]] = {}
    size = len(judged) // seeds
    for seed in range(seeds):
        part = slice(seed * size, (seed + 1) * size)
        for name, value in measures(judged[part], features[part], real).items():
            per_seed.setdefault(name, []).append(value)
    result: dict = {"name": row.name, "layouts": row.layouts, "images": len(judged), "seeds": seeds}
    for name, values in per_seed.items():
        result[name] = round(float(np.mean(values)), 4)
        result[f"{name}_std"] = round(float(np.std(values, ddof=1)), 4) if seeds > 1 else None
    steps = len(judged) * DEFAULTS["steps"]
    result["passes"] = round(passes["forward"] / steps, 2)
    result["backward"] = round(passes["backward"] / steps, 2)
    return result


def time_ratio(row: Row, scenes: list[Scene], pipe: RealCompoPipeline) -> float:
    """Seconds of the row by those of mix_0.5, a batch each in turn; the median of the rounds."""
    scenes = scenes[:TIMED_PROMPTS]
    prompts, layouts = [s.prompt.caption for s in scenes], [s.layout for s in scenes]
    mix = BalanceSettings(fixed=torch.tensor([0.5, 0.5]))

    def sample(balance: BalanceSettings, options: dict) -> float:
        return seconds(lambda: pipe(prompts, layouts, **{**DEFAULTS, "balance": balance, **options}))

    sample(mix, {})
    ratios = [sample(row.balance, row.options) / sample(mix, {}) for _ in range(TIMED_ROUNDS)]
    return round(statistics.median(ratios), 2)


@contextmanager
def count_passes(pipe: RealCompoPipeline, passes: dict[str, int]) -> Iterator[None]:
    """Add to `passes` the UNet evaluations made inside, counted in samples."""

    def count(module, args, kwargs):
        passes["forward"] += len(args[0])
        passes["backward"] += len(args[0]) if args[0].requires_grad else 0

    hooks = [p.unet.register_forward_pre_hook(count, with_kwargs=True) for p in pipe.pipelines]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--output", type=Path, default=RESULTS / "shapescenes.json")
    arguments = parser.parse_args()
    scenes = held_out_scenes(arguments.prompts)
    pipe, judge = RealCompoPipeline(*pipelines()), load_judge()
    for pipeline in pipe.pipelines:
        pipeline.unet.to(memory_format=torch.channels_last)
    real = {n: real_features(scenes[:n], judge, 10**6) for n in {len(scenes), ABLATION_PROMPTS}}
    done: dict[str, dict] = {}
    if arguments.output.exists():
        done = {row["name"]: row for row in json.loads(arguments.output.read_text())["rows"]}
    for row in rows():
        if (arguments.rows and row.name not in arguments.rows) or row.name in done:
            continue
        prompts, seeds = (ABLATION_PROMPTS, 1) if row.ablation else (len(scenes), arguments.seeds)
        done[row.name] = run_row(row, scenes[:prompts], seeds, pipe, judge, real[prompts])
        write(arguments.output, done, scenes, real[len(scenes)], judge)
        print({k: done[row.name][k] for k in ("name", "accuracy", "realism", "box_hits")}, flush=True)
    for row in rows():
        if row.name in done and "time_ratio" not in done[row.name] and not row.ablation:
            done[row.name]["time_ratio"] = time_ratio(row, scenes, pipe)
            print(row.name, "time", done[row.name]["time_ratio"], flush=True)
    write(arguments.output, done, scenes, real[len(scenes)], judge)


def write(path: Path, done: dict[str, dict], scenes: list[Scene], real: np.ndarray, judge: Judge) -> None:
    order = {row.name: i for i, row in enumerate(rows())}
    document = {
        "command": f"python benchmarks/shapescenes.py --prompts {len(scenes)}",  # row by row or at once
        "prompts": len(scenes),
        "options": {k: v for k, v in DEFAULTS.items() if k != "balance"} | {"balance": str(DEFAULTS["balance"])},
        "versions": {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
        "realism_of_real_scenes": round(frechet_distance(real_features(scenes, judge, 2 * 10**6), real), 4),
        "rows": sorted(done.values(), key=lambda row: order[row["name"]]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
