"""The balancer's settings on the bundled transformer, chosen on other prompts than those of the tables.

    python benchmarks/dit_settings.py                       # what is finished is kept and not run again
    python benchmarks/dit_settings.py --rows t1_0.4 --seeds 1 --output /tmp/quick.json

One thing is changed at a time: from the library's defaults (`one_pass`), and from the best found so (`chosen`); and
static weights that stand against them, by region and by time. `block_n` reads the maps of the n-th of the eight blocks.
Columns as in `shapescenes.py`. Writes results/dit_settings.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch

from benchmarks.pareto import REPORTED
from benchmarks.shapescenes import RESULTS, Row, made, run_seed, summarise
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.presets import PRESETS, moves
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule
from shapescenes import DIT_DEFAULTS
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.world import held_out_scenes

BLOCKS = 8


def settings() -> list[Row]:
    default = BalanceSettings()

    def static(inside: float, outside: float, until: float) -> BalanceSettings:
        return BalanceSettings(fixed=WeightSchedule(RegionWeights(inside, outside), until=until))

    rows = [
        Row("one_pass", default),
        *(Row(f"t1_{t1}", replace(default, t1=t1)) for t1 in (0.2, 0.3, 0.4, 0.5, 0.8)),
        *(Row(f"rate_{rate}", replace(default, rate=rate)) for rate in (0.1, 0.2, 0.8)),
        Row("rule_max", replace(default, rule="max", rate=1.0)),
        Row("spatial_gradient_only", replace(default, sources="spatial")),
        Row("not_moved", replace(default, update_until=0.0)),
        *(Row(f"block_{n}", default, options={"layers": f"joint {n}$"}) for n in range(BLOCKS)),
        *(Row(f"preset_{name}", settings) for name, settings in PRESETS.items()),
        Row("moves_0.1", replace(default, layout_guidance=moves(0.1))),
        Row("lookahead", replace(default, mode="lookahead")),
        *(
            Row(f"static_{inside}_{outside}_until_{until}", static(inside, outside, until))
            for inside, outside in ((1.0, 1.0), (1.0, 0.5), (0.8, 0.3), (0.5, 0.5))
            for until in (0.2, 0.3, 0.4, 0.6)
        ),
    ]
    return [replace(row, system="dit", options={"steps": DIT_DEFAULTS["steps"], **row.options}) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "dit_settings.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes, judge = held_out_scenes(REPORTED + arguments.prompts)[REPORTED:], load_judge()
    real, system = real_features(scenes, judge, 10**6), made("dit")
    kept = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    done = {row["name"]: row for row in kept if row["prompts"] == arguments.prompts}
    for seed in range(arguments.seeds):
        for row in settings():
            known = done.get(row.name, {}).get("runs", [])
            if len(known) > seed or row.name not in (arguments.rows or [row.name]):
                continue
            runs = [*known, run_seed(row, scenes, seed, system, judge, real)]
            done[row.name] = {"prompts": arguments.prompts, **summarise(row, arguments.prompts, runs)}
            document = {"torch": torch.__version__, "rows": list(done.values())}
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")
            shown = ("name", "accuracy", "realism", "box_hits", "passes", "backward", "seeds")
            print({key: done[row.name][key] for key in shown}, flush=True)


if __name__ == "__main__":
    main()
