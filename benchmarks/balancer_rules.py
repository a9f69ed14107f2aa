"""Other rules for the coefficients than the library's, tried on ShapeScenes: accuracy and realism.

    python benchmarks/balancer_rules.py                          # what is finished is kept and not run again
    python benchmarks/balancer_rules.py --rows momentum_0.5 --seeds 1 --output /tmp/quick.json

Each is a change of one thing, on the prompts that the presets were chosen on (those after the 300 of the tables). The
first group starts from the preset `balanced`: momentum (the normalised gradients' running sum), a rate that falls or
rises over the balanced steps with the same mean, and coefficients that are constant over 2x2 pixels, the size of the
maps' cells. The second group has no Layout Guidance and looks ahead with the spatial branch's gradient: maps of the
encoder alone, with and without updates at every second step, and a look-ahead at half resolution. There the tentative
next latent is averaged over 2x2 pixels, which halves its noise's standard deviation, so that the spatial branch reads
its maps at half the noise level on a quarter of the pixels; the gradient goes back through the averaging. It is tried
at 128x128 pixels (latents of 16x16), which the models are made for, and at 256x256.

Columns as in `pareto.py`. Writes results/balancer_rules.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pareto import REPORTED
from benchmarks.shapescenes import RESULTS, Row, made, run_seed, summarise
from realcompo_core.attention.reading import Gradient
from realcompo_core.guidance import balancer
from realcompo_core.guidance.coefficient_guide import CoefficientGuide, normalise_rms
from realcompo_core.guidance.presets import PRESETS
from realcompo_core.guidance.schedule import Moment
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.sampling.samplers import Step
from shapescenes.judge import load_judge
from shapescenes.measuring import real_features
from shapescenes.world import held_out_scenes


def with_momentum(decay: float) -> type[CoefficientGuide]:
    class Momentum(CoefficientGuide):
        """c ← c − ρ v with v ← decay · v + (1 − decay) · g, g of unit root mean square."""

        velocity: Tensor | float = 0.0

        def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
            self.velocity = decay * self.velocity + (1 - decay) * normalise_rms(gradient)
            return variable - self._settings.rate * self.velocity

    return Momentum


def with_rate(first: float, last: float) -> type[CoefficientGuide]:
    class Changing(CoefficientGuide):
        """The rate times a factor that goes from `first` to `last` over the balanced steps."""

        def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
            factor = first + (last - first) * moment.progress / self._settings.t1
            return variable + factor * (super().move(variable, gradient, moment) - variable)

    return Changing


class Coarse(CoefficientGuide):
    """Coefficients that are constant over 2x2 pixels."""

    def move(self, variable: Tensor, gradient: Tensor, moment: Moment) -> Tensor:
        return blocks(super().move(blocks(variable), blocks(gradient), moment))


def blocks(pixels: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2)


class HalfResolution:
    """A branch whose gradient at x' is that of the loss at the 2x2 averages of x', at half the noise level."""

    def __init__(self, branch):
        self._branch = branch

    def __getattr__(self, name: str):
        return getattr(self._branch, name)

    def gradient(self, x: Tensor, sigma: float, objective=None) -> Gradient:
        found = self._branch.gradient(F.avg_pool2d(x, 2), sigma / 2, objective)
        return found._replace(g=F.interpolate(found.g, scale_factor=2) / 4)


class HalfLookahead(balancer.Balancer):
    """A balancer that looks ahead at half resolution."""

    def _lookahead(self, x: Tensor, step: Step, moment: Moment, updates: bool):
        whole = self.branches
        self.branches = tuple(HalfResolution(branch) for branch in whole)
        try:
            return super()._lookahead(x, step, moment, updates)
        finally:
            self.branches = whole


@dataclass(frozen=True)
class Rule:
    row: Row
    changed: Callable[[], AbstractContextManager] = nullcontext


def guide(kind: type[CoefficientGuide]) -> Callable[[], AbstractContextManager]:
    return lambda: patch.object(balancer, "CoefficientGuide", kind)


def half() -> AbstractContextManager:
    return patch("realcompo_core.diffusers.pipeline.Balancer", HalfLookahead)


def rules() -> list[Rule]:
    preset = PRESETS["balanced"]
    ahead = BalanceSettings(mode="lookahead", sources="spatial", t1=0.4)
    encoder, large = {"layers": r"down_blocks\.1"}, {"width": 256, "height": 256}
    one_pass = replace(ahead, mode="one_pass")
    return [
        Rule(Row("balanced", preset)),
        Rule(Row("momentum_0.5", preset), guide(with_momentum(0.5))),
        Rule(Row("momentum_0.8", preset), guide(with_momentum(0.8))),
        Rule(Row("rate_falls", preset), guide(with_rate(1.5, 0.5))),
        Rule(Row("rate_rises", preset), guide(with_rate(0.5, 1.5))),
        Rule(Row("coarse_coefficients", preset), guide(Coarse)),
        Rule(Row("one_pass", one_pass)),
        Rule(Row("one_pass_encoder", one_pass, options=encoder)),
        Rule(Row("one_pass_encoder_every_2", replace(one_pass, update_every=2), options=encoder)),
        Rule(Row("lookahead", ahead)),
        Rule(Row("lookahead_encoder", ahead, options=encoder)),
        Rule(Row("lookahead_half", ahead), half),
        Rule(Row("lookahead_256", ahead, options=large)),
        Rule(Row("lookahead_half_256", ahead, options=large), half),
        Rule(Row("one_pass_256", one_pass, options=large)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", help="only these")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "balancer_rules.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes, judge = held_out_scenes(REPORTED + arguments.prompts)[REPORTED:], load_judge()
    real, system = real_features(scenes, judge, 10**6), made("v1")
    kept = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    done = {row["name"]: row for row in kept if row["prompts"] == arguments.prompts}
    for seed in range(arguments.seeds):
        for rule in rules():
            name = rule.row.name
            known = done.get(name, {}).get("runs", [])
            if len(known) > seed or name not in (arguments.rows or [name]):
                continue
            with rule.changed():
                runs = [*known, run_seed(rule.row, scenes, seed, system, judge, real)]
            done[name] = {"prompts": arguments.prompts, **summarise(rule.row, arguments.prompts, runs)}
            document = {"torch": torch.__version__, "rows": list(done.values())}
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")
            print({key: done[name][key] for key in ("name", "accuracy", "realism", "passes", "seeds")}, flush=True)


if __name__ == "__main__":
    main()
