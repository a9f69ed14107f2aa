"""Accuracy against realism on ShapeScenes: each branch alone, static mixes, the balancer with every kind of branch.

    python benchmarks/shapescenes.py                 # everything; what is finished is kept and not run again
    python benchmarks/shapescenes.py --rows one_pass --prompts 60 --seeds 1 --output /tmp/quick.json
    python benchmarks/shapescenes.py --dit           # the bundled transformers instead, in shapescenes_dit.json

Prompts are captions that no training run has seen. `accuracy` is the share of pictures of prompts with 3 and 4 objects
in which the judge finds exactly the stated objects in the stated relations; `accuracy_all` is over all prompts.
`realism` is the Fréchet distance to real rendered scenes of the same prompts, in the judge's features (smaller is
better); it grows as pictures get fewer, so ablations, on the first 100 prompts and one seed, have a one_pass row of
their own to be compared with. `passes` are network evaluations a step and a sample, `backward` those of them that are
differentiated. `time_ratio` is the time of the row divided by that of mix_0.5, which runs the same two branches with
guidance: the median of three rounds of both in turn, on twelve prompts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # `shapescenes` is the package, not this file

import diffusers
import numpy as np
import torch
from rich.progress import track

from benchmarks.measuring import seconds
from realcompo_core.diffusers import Control, RealCompoPipeline
from realcompo_core.diffusers.denoisers import network_of
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule
from realcompo_core.layout import Layout
from realcompo_core.providers import get_provider
from shapescenes import DEFAULTS, DIT_DEFAULTS
from shapescenes.judge import Judge, frechet_distance, load_judge
from shapescenes.measuring import Judged, judge_pictures, measures, real_features
from shapescenes.systems import SYSTEMS, System, segmentation, system
from shapescenes.world import Scene, held_out_scenes

RESULTS = Path(__file__).parent / "results"
BATCH = 20
SEEDS = 3
ABLATION_PROMPTS = 100  # with one seed
TIMED_PROMPTS, TIMED_ROUNDS = 12, 3
# The best of each kind on other prompts, see RESULTS.md.
REGION_BEST = WeightSchedule(RegionWeights(1.0, 0.5), until=0.6)
SCHEDULE_BEST = WeightSchedule(RegionWeights(1.0, 1.0), until=0.3)


@dataclass(frozen=True)
class Row:
    """One line of the table: balance settings, the system (see `shapescenes.systems.SYSTEMS`), and whose layouts.

    layouts: `true` boxes, `masks` (the objects' true outlines), or what the provider `rules` makes of the prompt.
    """

    name: str
    balance: BalanceSettings
    layouts: str = "true"
    options: dict = field(default_factory=dict)
    ablation: bool = False  # fewer pictures: compare it with one_pass_ablation alone
    system: str = "v1"


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
        Row("region_best", BalanceSettings(fixed=REGION_BEST)),
        Row("schedule_best", BalanceSettings(fixed=SCHEDULE_BEST)),
        Row("segmentation_branch", fixed(1), "masks", system="segmentation"),
        Row("segmentation_balanced", best, "masks", system="segmentation"),
        Row("layout_guidance", fixed(1), system="v3"),
        *(Row(name, fixed(1), system=name) for name in ("attend_and_excite", "boxdiff", "composable", "structured")),
        Row("superdiff", BalanceSettings(rule="superdiff", t1=1.0), options={"sampler": "ddpm"}),
        Row("mix_0.5_ddpm", fixed(0.5), options={"sampler": "ddpm"}),
        Row("excited_balanced", best, system="v1_excited"),
        Row("v2_balanced", best, system="v2"),
        Row("v3_balanced", best, system="v3"),
        Row("v4_balanced", best, system="v4"),
        Row("rules_layout_branch", fixed(1), "rules"),
        Row("rules_lookahead", lookahead, "rules"),
        Row("rules_one_pass", best, "rules"),
        Row("one_pass_ablation", best, ablation=True),
        Row("mix_0.5_until_0.6", fixed_until(0.5, 0.6), ablation=True),
        Row("mix_1.0_until_0.3", fixed_until(1.0, 0.3), ablation=True),
        Row("segmentation_ablation", best, "masks", system="segmentation", ablation=True),
        Row(
            "segmentation_detached",  # the gradient does not flow through the ControlNet
            best,
            "masks",
            {"controls": [Control(segmentation, detached=True)]},
            system="segmentation",
            ablation=True,
        ),
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


DIT_ROWS = ("text_to_image", "layout_branch", "lookahead", "one_pass", "region_best", "schedule_best")


def dit_rows() -> list[Row]:
    """The transformers: each alone, constant mixes, static regions and schedules, and both modes of the balancer.

    `one_pass_t1_0.4` is the end of balancing that `dit_settings.py` chose, the others are as for the UNets.
    """
    constant = {f"mix_{n / 10}" for n in range(1, 10)}
    earlier = Row("one_pass_t1_0.4", replace(DEFAULTS["balance"], t1=0.4))
    chosen = [row for row in rows() if row.name in {*DIT_ROWS, *constant}] + [earlier]
    return [replace(row, system="dit", options={"steps": DIT_DEFAULTS["steps"]}) for row in chosen]


def layouts_of(row: Row, scenes: Sequence[Scene]) -> list[Layout]:
    if row.layouts == "rules":
        provider = get_provider("rules")
        return [provider.propose(scene.prompt.caption, (128, 128)) for scene in scenes]
    return [scene.layout_with_masks if row.layouts == "masks" else scene.layout for scene in scenes]


def run_seed(row: Row, scenes: list[Scene], seed: int, made: System, judge: Judge, real: np.ndarray) -> dict:
    """The row's measures on one picture a scene."""
    layouts = layouts_of(row, scenes)
    options = {**DEFAULTS, "balance": row.balance, "controls": made.controls, **row.options}
    judged: list[Judged] = []
    features = []
    passes = {"forward": 0, "backward": 0}
    for first in track(range(0, len(scenes), BATCH), f"{row.name} seed {seed}"):
        part = slice(first, first + BATCH)
        prompts = [s.prompt.caption for s in scenes[part]]
        with count_passes(made.pipeline, passes):
            output = made.pipeline(prompts, layouts[part], seed=seed * len(scenes) + first, **options)
        told, seen = judge_pictures(judge, scenes[part], layouts[part], output.images)
        judged += told
        features.append(seen)
    steps = len(judged) * options["steps"]
    counted = {"passes": passes["forward"] / steps, "backward": passes["backward"] / steps}
    return measures(judged, np.concatenate(features), real) | counted


def summarise(row: Row, images: int, runs: list[dict]) -> dict:
    """Means over the seeds, and standard deviations between them. images: of each seed. `runs`: those of each seed."""
    result: dict = {"name": row.name, "system": row.system, "layouts": row.layouts}
    result |= {"images": images * len(runs), "seeds": len(runs)}
    for name in (name for name in runs[0] if all(name in run for run in runs)):
        values = [run[name] for run in runs]
        if name in ("passes", "backward"):
            result[name] = round(float(np.mean(values)), 2)
        else:
            result[name] = round(float(np.mean(values)), 4)
            result[f"{name}_std"] = round(float(np.std(values, ddof=1)), 4) if len(runs) > 1 else None
    return result | {"runs": runs}


def time_ratio(row: Row, scenes: list[Scene], made: System, plain: System) -> float:
    """Seconds of the row by those of mix_0.5 of `plain`, a batch each in turn; the median of the rounds."""
    scenes = scenes[:TIMED_PROMPTS]
    prompts, layouts = [s.prompt.caption for s in scenes], layouts_of(row, scenes)
    mix = BalanceSettings(fixed=torch.tensor([0.5, 0.5]))

    def sample(system: System, balance: BalanceSettings, options: dict) -> float:
        given = {**DEFAULTS, "balance": balance, "controls": system.controls, **options}
        return seconds(lambda: system.pipeline(prompts, layouts, **given))

    own = {key: value for key, value in row.options.items() if key == "steps"}
    sample(plain, mix, own)
    ratios = [sample(made, row.balance, row.options) / sample(plain, mix, own) for _ in range(TIMED_ROUNDS)]
    return round(statistics.median(ratios), 2)


@contextmanager
def count_passes(pipe: RealCompoPipeline, passes: dict[str, int]) -> Iterator[None]:
    """Add to `passes` the network evaluations made inside, counted in samples."""

    def count(module, args, kwargs):
        passes["forward"] += len(args[0])
        passes["backward"] += len(args[0]) if args[0].requires_grad else 0

    networks = {id(network): network for network in map(network_of, pipe.pipelines)}  # two branches may share theirs
    hooks = [network.register_forward_pre_hook(count, with_kwargs=True) for network in networks.values()]
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
    parser.add_argument("--untimed", action="store_true", help="without time ratios, as on a busy machine")
    parser.add_argument("--dit", action="store_true", help="the bundled transformers instead of the UNets")
    parser.add_argument("--output", type=Path, help="default: in benchmarks/results")
    arguments = parser.parse_args()
    arguments.output = arguments.output or RESULTS / ("shapescenes_dit.json" if arguments.dit else "shapescenes.json")
    scenes, judge = held_out_scenes(arguments.prompts), load_judge()
    real = {n: real_features(scenes[:n], judge, 10**6) for n in {len(scenes), ABLATION_PROMPTS}}
    done: dict[str, dict] = {}
    if arguments.output.exists():
        done = {row["name"]: row for row in json.loads(arguments.output.read_text())["rows"]}
    wanted = [
        row for row in (dit_rows() if arguments.dit else rows()) if not arguments.rows or row.name in arguments.rows
    ]
    for seed in range(arguments.seeds):  # all rows with one seed before any with two
        for row in wanted:
            if done.get(row.name, {"seeds": 0})["seeds"] > seed or (row.ablation and seed > 0):
                continue
            prompts = ABLATION_PROMPTS if row.ablation else len(scenes)
            before = done.get(row.name, {})
            run = run_seed(row, scenes[:prompts], seed, made(row.system), judge, real[prompts])
            timed = {key: before[key] for key in ("time_ratio",) if key in before}
            done[row.name] = summarise(row, prompts, [*before.get("runs", []), run]) | timed
            write(arguments.output, done, scenes, real[len(scenes)], judge)
            print({k: done[row.name][k] for k in ("name", "accuracy", "realism", "box_hits", "seeds")}, flush=True)
    for row in wanted:
        if row.name in done and "time_ratio" not in done[row.name] and not (row.ablation or arguments.untimed):
            done[row.name]["time_ratio"] = time_ratio(
                row, scenes, made(row.system), made("dit" if arguments.dit else "v1")
            )
            print(row.name, "time", done[row.name]["time_ratio"], flush=True)
    write(arguments.output, done, scenes, real[len(scenes)], judge)


@cache
def made(name: str) -> System:
    found = system(*SYSTEMS[name])
    for pipeline in found.pipeline.pipelines if name != "dit" else ():
        pipeline.unet.to(memory_format=torch.channels_last)
    return found


def write(path: Path, done: dict[str, dict], scenes: list[Scene], real: np.ndarray, judge: Judge) -> None:
    is_dit = all(row["system"] == "dit" for row in done.values())
    options = DIT_DEFAULTS if is_dit else DEFAULTS
    order = {row.name: i for i, row in enumerate(dit_rows() if is_dit else rows())}
    document = {
        "command": f"python benchmarks/shapescenes.py {'--dit ' * is_dit}--prompts {len(scenes)}",  # at once, or by row
        "prompts": len(scenes),
        "options": {k: v for k, v in options.items() if k != "balance"} | {"balance": str(options["balance"])},
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
