"""Accuracy and realism of the balancer's settings against what a run costs, on ShapeScenes.

    python benchmarks/pareto.py                     # what is finished is kept and not run again
    python benchmarks/pareto.py --choosing          # candidates, on prompts that are not among those reported
    python benchmarks/pareto.py --rows fast --prompts 60 --seeds 1 --output /tmp/quick.json

Accuracy, realism and their spread over the seeds are measured as in `shapescenes.py`; rows that it has (each branch
alone, constant mixes, static regions and schedules) are taken from its results. `cost_vs_fidelity` is the processor
time of a whole run by that of the fidelity model alone, the median of the rounds, all rows in turn in one process on
twelve prompts. `passes` and `backward` are UNet evaluations a step and a sample, and those of them that are
differentiated. Writes results/pareto.json and, unless --choosing, draws results/pareto.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from matplotlib.figure import Figure

from benchmarks.measuring import cost
from benchmarks.shapescenes import RESULTS, TIMED_PROMPTS, Row, layouts_of, made, rows, run_seed, summarise
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.presets import PRESETS
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule
from shapescenes import DEFAULTS
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.world import held_out_scenes

REPORTED = 300  # the prompts of the table; settings are chosen on the next ones
KNOWN = {  # rows of shapescenes.py, by their names here
    "fidelity": "text_to_image",
    "spatial": "layout_branch",
    **{f"mix_{n / 10}": f"mix_{n / 10}" for n in (3, 5, 7)},
    "regions": "region_best",
    "schedule": "schedule_best",
    "one_pass": "one_pass",
}
MIXES = ("fidelity", "mix_0.3", "mix_0.5", "mix_0.7", "spatial")  # by the spatial branch's weight
ROUNDS = 3


def presets() -> list[Row]:
    return [Row(name, balance) for name, balance in PRESETS.items()]


def candidates() -> list[Row]:
    """What the presets were chosen from, one change after another."""
    one_pass, ahead = BalanceSettings(), BalanceSettings(mode="lookahead")
    spatial = replace(ahead, sources="spatial")
    cheap = replace(one_pass, sources="spatial", t1=0.4, guided_until=0.75)

    def moved(until: float, balance: BalanceSettings = cheap, scale: float = 30, **settings) -> BalanceSettings:
        guidance = LayoutGuidance(scale=scale, until=until, **({"iterations": 1, "scale_steps": 51} | settings))
        return replace(balance, layout_guidance=guidance)

    early = replace(cheap, t1=0.25)
    cheap_ahead = replace(cheap, mode="lookahead")
    alone = BalanceSettings(fixed=torch.tensor([1.0, 0.0]))
    return [
        Row("fidelity", alone),
        Row("fidelity, guided until 0.75", replace(alone, guided_until=0.75)),
        Row("one_pass", one_pass),
        Row("one_pass, spatial gradient", replace(one_pass, sources="spatial")),
        Row("one_pass, spatial gradient, t1 0.4", replace(one_pass, sources="spatial", t1=0.4)),
        Row("one_pass, spatial gradient, t1 0.4, guided until 0.75", cheap),
        Row("one_pass, spatial gradient, t1 0.4, guided until 0.75, rate 0.8", replace(cheap, rate=0.8)),
        Row("lookahead", ahead),
        Row("lookahead, spatial gradient", spatial),
        Row("lookahead, spatial gradient, rate 0.8", replace(spatial, rate=0.8)),
        Row("lookahead, spatial gradient, t1 0.4", replace(spatial, t1=0.4)),
        Row("lookahead, spatial gradient, t1 0.3", replace(spatial, t1=0.3)),
        Row("lookahead, spatial gradient, t1 0.4, guided until 0.75", replace(spatial, t1=0.4, guided_until=0.75)),
        Row("lookahead, spatial gradient, t1 0.5, guided until 0.75", replace(spatial, t1=0.5, guided_until=0.75)),
        Row("lookahead, spatial gradient, t1 0.4, t0 0.05", replace(spatial, t1=0.4, t0=0.05)),
        Row("lookahead, spatial gradient, t1 0.4, guided until 0.6", replace(spatial, t1=0.4, guided_until=0.6)),
        Row("lookahead, v3", ahead, system="v3"),
        Row("lookahead, v1_guided", ahead, system="v1_guided"),
        Row("moves until 0.25, t1 0.25", moved(0.25, early)),
        Row("fast: moves until 0.25, t1 0.25, guided until 0.65", moved(0.25, replace(early, guided_until=0.65))),
        Row("moves until 0.15, t1 0.25", moved(0.15, early)),
        Row("moves until 0.25, t1 0.4", moved(0.25)),
        Row("moves until 0.4, t1 0.4", moved(0.4)),
        Row("balanced, moves at scale 30 in 12 steps", moved(0.25, scale_steps=None)),
        Row("balanced, looking ahead", moved(0.25, cheap_ahead)),
        Row("fast, looking ahead", moved(0.25, replace(cheap_ahead, t1=0.25))),
        Row("best, two moves a step, looking ahead", moved(0.4, cheap_ahead, iterations=2)),
        Row("balanced: moves until 0.25, guided until 0.65", moved(0.25, replace(cheap, guided_until=0.65))),
        Row("best: moves until 0.4, guided until 0.65", moved(0.4, replace(cheap, guided_until=0.65))),
        Row("balanced, update every 2", replace(moved(0.25), update_every=2)),
        Row("balanced, update until 0.3", replace(moved(0.25), update_until=0.3)),
        Row("balanced, maps of the encoder", moved(0.25), options={"layers": r"down_blocks\.1"}),
        Row("balanced, maps of the middle", moved(0.25), options={"layers": "mid_block"}),
        # with the moves and guidance of the presets, but weights that attention does not drive
        Row("coefficients not moved", replace(moved(0.25), update_until=0)),
        *(
            Row(f"static, {name}", replace(moved(0.25), fixed=WeightSchedule(weights, until=end)))
            for name, weights, end in (
                ("the spatial branch alone until 0.25", RegionWeights(1, 1), 0.25),
                ("the spatial branch alone until 0.4", RegionWeights(1, 1), 0.4),
                ("inside 1, outside 0.5 until 0.4", RegionWeights(1, 0.5), 0.4),
                ("half of each until 0.4", RegionWeights(0.5, 0.5), 0.4),
            )
        ),
        Row("best, t1 0.6, both gradients", moved(0.4, replace(one_pass, guided_until=0.75))),
    ]


def costs(wanted: list[Row]) -> dict[str, float]:
    """Each row's processor time by the fidelity model's alone."""
    scenes = held_out_scenes(TIMED_PROMPTS)
    prompts = [scene.prompt.caption for scene in scenes]
    fidelity = Row("", BalanceSettings(fixed=torch.tensor([1.0, 0.0])))

    def sample(row: Row) -> float:
        system = made(row.system)
        given = {**DEFAULTS, "balance": row.balance, "controls": system.controls, **row.options}
        return cost(lambda: system.pipeline(prompts, layouts_of(row, scenes), **given))

    sample(fidelity)
    ratios: dict[str, list[float]] = {row.name: [] for row in wanted}
    for _ in range(ROUNDS):
        alone = sample(fidelity)
        for row in wanted:
            ratios[row.name].append(sample(row) / alone)
    return {name: round(statistics.median(found), 2) for name, found in ratios.items()}


def draw(rows: list[dict], path: Path) -> None:
    """Realism across, accuracy up; the cost is written beside each mark and is its size."""
    figure = Figure(figsize=(7, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    named = {row["name"]: row for row in rows}
    mixes = [named[name] for name in MIXES if name in named]
    axes.plot([row["realism"] for row in mixes], [row["accuracy"] for row in mixes], color="#8a8f98", lw=1, zorder=1)
    for row in rows:
        is_preset, place = row["name"] in PRESETS, (row["realism"], row["accuracy"])
        color = "#0f8a5f" if is_preset else "#8a8f98"
        axes.errorbar(*place, row["accuracy_std"] or 0, row["realism_std"] or 0, color=color, lw=1, zorder=2)
        axes.scatter(*place, s=40 * row["cost_vs_fidelity"] ** 2, color=color, alpha=0.75, zorder=3)
        text = f"{row['name']}  ×{row['cost_vs_fidelity']:g}"
        weight = "bold" if is_preset else "normal"
        axes.annotate(text, place, (9, -11), textcoords="offset points", size=7.5, weight=weight)
    axes.set_xlabel("distance to real scenes (Fréchet; further left is more realistic)")
    axes.set_ylabel("exact scenes, 3 and 4 objects")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    axes.grid(alpha=0.25)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choosing", action="store_true", help="the candidates, on other prompts than the table's")
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, help="default: 300, with --choosing 60")
    parser.add_argument("--seeds", type=int, help="default: 3, with --choosing 1")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = arguments.prompts or (60 if arguments.choosing else REPORTED)
    seeds = arguments.seeds or (1 if arguments.choosing else 3)
    output = arguments.output or RESULTS / ("pareto_choosing.json" if arguments.choosing else "pareto.json")
    scenes = held_out_scenes(REPORTED + count)[REPORTED:] if arguments.choosing else held_out_scenes(count)
    wanted = [
        row for row in (candidates() if arguments.choosing else presets()) if row.name in (arguments.rows or [row.name])
    ]
    done = {row["name"]: row for row in json.loads(output.read_text())["rows"]} if output.exists() else {}
    judge = load_judge()
    real = real_features(scenes, judge, 10**6)
    for seed in range(seeds):
        for row in wanted:
            if done.get(row.name, {}).get("seeds", 0) > seed:
                continue
            runs = done.get(row.name, {}).get("runs", [])
            runs = [*runs, run_seed(row, scenes, seed, made(row.system), judge, real)]
            done[row.name] = summarise(row, count, runs)
            write(output, done, count)
            print({key: done[row.name][key] for key in ("name", "accuracy", "realism", "passes", "seeds")}, flush=True)
    timed = list(wanted)
    if not arguments.choosing:
        measured = {row["name"]: row for row in json.loads((RESULTS / "shapescenes.json").read_text())["rows"]}
        known = {row.name: row for row in rows()}
        done = {name: {**measured[old], "name": name} for name, old in KNOWN.items()} | done
        timed += [replace(known[old], name=name) for name, old in KNOWN.items()]
    for name, ratio in costs(timed).items():
        done[name]["cost_vs_fidelity"] = ratio
    write(output, done, count)
    if not arguments.choosing:
        draw(list(done.values()), RESULTS / "pareto.png")


def write(path: Path, done: dict[str, dict], prompts: int) -> None:
    document = {"prompts": prompts, "torch": torch.__version__, "rows": list(done.values())}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
