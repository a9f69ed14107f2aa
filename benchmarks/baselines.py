"""Settings of Attend-and-Excite and BoxDiff for the bundled models, tried on prompts that no table reports.

    python benchmarks/baselines.py                               # what is finished is kept and not run again

Each row is the bundled text-to-image model alone, its latent moved by the method at some scale. 12 steps have fewer
moves than the authors' 50, and the small model has other gradients, so that the authors' scale of 20 is not the best
here. Columns as in `shapescenes.py`. Writes results/baselines.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch

from benchmarks.pareto import REPORTED
from benchmarks.shapescenes import RESULTS, Row, run_seed, summarise
from realcompo_core.diffusers import Guided, RealCompoPipeline
from realcompo_core.guidance.attend_and_excite import AttendAndExcite, BoxDiff
from realcompo_core.guidance.latent_guidance import LatentGuidance
from realcompo_core.guidance.settings import BalanceSettings
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.models import pipelines
from shapescenes.systems import System
from shapescenes.world import held_out_scenes

CANDIDATES: dict[str, LatentGuidance] = {
    f"{kind.name}, scale {scale}": kind(scale=scale)
    for kind in (AttendAndExcite, BoxDiff)
    for scale in (5, 20, 60, 180)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--output", type=Path, default=RESULTS / "baselines.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes, judge = held_out_scenes(REPORTED + arguments.prompts)[REPORTED:], load_judge()
    real, (text_to_image, _) = real_features(scenes, judge, 10**6), pipelines()
    done = {row["name"]: row for row in json.loads(arguments.output.read_text())} if arguments.output.exists() else {}
    for name, guidance in CANDIDATES.items():
        if name in done or name not in (arguments.rows or [name]):
            continue
        guided = Guided(text_to_image, layout_guidance=guidance)
        row = Row(name, BalanceSettings(fixed=torch.tensor([0.0, 1.0])))
        system = System(RealCompoPipeline(text_to_image, guided))
        done[name] = summarise(row, arguments.prompts, [run_seed(row, scenes, 0, system, judge, real)])
        print({key: done[name][key] for key in ("name", "accuracy", "realism", "passes", "backward")}, flush=True)
        arguments.output.write_text(json.dumps(list(done.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
