"""What a balanced step costs against a plain two-model guided step, at SD1.5 size.

    python benchmarks/balancer_cost.py --json

Random weights, 64x64 latents, diffusers UNets, the second one with GLIGEN's gated layers. A plain step runs each UNet
once on the guided pair (batch 2), as diffusers does. All variants are timed in turn in one process; a ratio is the
median over rounds of (variant / plain of the same round). Memory is the peak of live tensors during the step above what
was there before it (weights, latents), from the allocator's own events (CPU) or counters (CUDA). Variants whose name
ends in `_spatial` take the gradient of the spatial branch alone, as the presets do; `lookahead_half` does so at half
resolution (see balancer_rules.py). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from benchmarks.balancer_rules import HalfLookahead
from benchmarks.measuring import peak_bytes, seconds
from realcompo_core.attention.losses import Objective
from realcompo_core.attention.targets import Targets, object_targets
from realcompo_core.diffusers.branch import DenoiserBranch
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.branch import Branch
from realcompo_core.guidance.guide import Answers
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.regions import covered_by_objects, region_maps
from realcompo_core.sampling.samplers import Step

LAYOUT = Layout((LayoutObject("a cat", (0.05, 0.3, 0.45, 0.9)), LayoutObject("a dog", (0.55, 0.3, 0.95, 0.9))))
TOKENS = ((2,), (5,))
TEXT_TOKENS = 77
SIGMAS = [8.0, 7.0, 6.0]


def build_unet(small: bool, gated: bool, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """SD1.5's UNet (GLIGEN's with `gated`), or one with a quarter of the channels."""
    width = 80 if small else 320
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            cross_attention_dim=768,
            attention_head_dim=8,
            norm_num_groups=16 if small else 32,
            attention_type="gated" if gated else "default",
        )
    return unet.to(dtype).eval().requires_grad_(False)


def noise_schedule() -> NoiseSchedule:
    return NoiseSchedule(DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))


def targets() -> Targets:
    return object_targets([TOKENS], [lambda h, w: region_maps(LAYOUT, [[0], [1]], h, w)])


def build_branches(small: bool, layers: int | str, device: torch.device, dtype: torch.dtype) -> list[DenoiserBranch]:
    schedule = noise_schedule()
    branches = []
    for name, gated in (("fidelity", False), ("spatial", True)):
        unet = build_unet(small, gated, device, dtype)
        halves = []
        for grounded in (1, 0):
            text = {"encoder_hidden_states": torch.randn(1, TEXT_TOKENS, 768, device=device, dtype=dtype)}
            if gated:
                boxes = torch.rand(1, 30, 4, device=device, dtype=dtype)
                masks = torch.full((1, 30), float(grounded), device=device, dtype=dtype)
                embeddings = torch.randn(1, 30, 768, device=device, dtype=dtype)
                objects = {"boxes": boxes, "masks": masks, "positive_embeddings": embeddings}
                text["cross_attention_kwargs"] = {"gligen": objects}
            halves.append(text)
        objective = Objective(UNetAttention(unet).choose(layers), targets())
        branches.append(DenoiserBranch(name, unet, schedule, *halves, 7.5, objective=objective))
    return branches


def second_step(
    branches: Sequence[Branch], settings: BalanceSettings, device: torch.device, kind: type[Balancer] = Balancer
) -> Callable[[], Tensor]:
    """A function that makes the second step of a run: in the first, one_pass has no earlier mixing to credit."""
    sigmas = SIGMAS
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)).to(device) * sigmas[0]
    balancer = kind(branches, sigmas, [0], covered_by_objects(LAYOUT, 64, 64)[None], settings)
    first, second = (Step(x * (b / a), 1 - b / a, b) for a, b in pairwise(sigmas))
    x = first(balancer(x, sigmas[0], first))

    def run() -> Tensor:
        again = copy(balancer)
        for part in (again, *branches):
            if hasattr(part, "_answers"):
                part._answers = Answers()  # as if the step had not been made
        return again(x, sigmas[1], second)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--small", action="store_true", help="a quarter of the channels: a quick run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", default="4", help="a factor or a regular expression, as in RealCompoPipeline")
    parser.add_argument("--variants", nargs="*", help="those to be measured beside the plain step; all by default")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = int(arguments.layers) if arguments.layers.isdigit() else arguments.layers
    branches = build_branches(arguments.small, layers, device, getattr(torch, arguments.dtype))
    variants = {
        "plain": BalanceSettings(fixed=torch.tensor([0.5, 0.5])),
        "one_pass": BalanceSettings(mode="one_pass"),
        "lookahead": BalanceSettings(mode="lookahead"),
        "one_pass_spatial": BalanceSettings(mode="one_pass", sources="spatial"),
        "lookahead_spatial": BalanceSettings(mode="lookahead", sources="spatial"),
        "lookahead_half": BalanceSettings(mode="lookahead", sources="spatial"),
    }
    if arguments.variants is not None:
        variants = {name: settings for name, settings in variants.items() if name in ("plain", *arguments.variants)}
    kinds = {"lookahead_half": HalfLookahead}
    runs = {
        name: second_step(branches, settings, device, kinds.get(name, Balancer)) for name, settings in variants.items()
    }
    memory = {name: peak_bytes(run) for name, run in runs.items()}  # also warms up
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    result: dict[str, float | str] = {}
    for name in list(variants)[1:]:
        ratios = [a / b for a, b in zip(times[name], times["plain"], strict=True)]
        result[f"{name}_time"] = round(statistics.median(ratios), 3)
        result[f"{name}_memory"] = round(memory[name] / memory["plain"], 3)
    result["plain_seconds"] = round(statistics.median(times["plain"]), 3)
    result["plain_megabytes"] = round(memory["plain"] / 2**20, 1)
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU {platform.machine()}"
    result["setting"] = f"{'small' if arguments.small else 'SD1.5'}, {arguments.dtype}, layers {layers}"
    result["torch"] = torch.__version__
    if not arguments.json:
        for name, values in times.items():
            print(f"{name:10} {min(values):7.3f} .. {max(values):7.3f} s, peak {memory[name] / 2**20:8.1f} MB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
