"""What recording attention costs a sampling step, at SD1.5 size.

    python benchmarks/recording_cost.py --json

Random weights, 64x64 latents, diffusers' UNet on a guided pair (batch 2), a prompt of 12 words, everything that
`record` keeps by default. A step is made with and without recording in one process, each in turn the first of its
round; `time` is the median over rounds of (recorded / plain of the same round), in processor time on the CPU, where
other programs disturb the clock by more than what is measured. The recorded step has the hooks set up and taken away in
it, which a sampling does once. `recorder` is the time that one recorded step spends in the recorder's own methods, over
that of the rest of the step: the same cost, but hardly touched by noise, and without what they do to the rest. `memory`
is the ratio of the peaks of live tensors during a step, above the weights. The megabytes are those of the kept maps: of
a step here, and of 30 steps of SDXL at 1024x1024 pixels by its layers' sizes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch

from benchmarks.balancer_cost import TEXT_TOKENS, build_unet
from benchmarks.measuring import cost, peak_bytes
from realcompo_core.attention.maps import BranchMaps, Keep, map_bytes
from realcompo_core.attention.recorder import Recorder
from realcompo_core.diffusers import record
from shapescenes.tokenizer import tokenizer

PROMPT = "a large red circle to the left of two small blue squares"
SDXL_BLOCKS = [(64, 64)] * 5 + [(32, 32)] * 6  # with cross-attention, at 128x128 latents
SDXL_STEPS = 30


def share_in_recorder(step: Callable) -> float:
    """Time in the methods of the recorder that a pass calls, over that in the rest of `step`."""
    spent = []

    def counted(method: Callable) -> Callable:
        return lambda *arguments: spent.append(cost(lambda: method(*arguments)))

    with (
        patch.object(Recorder, "read", counted(Recorder.read)),
        patch.object(Recorder, "end_pass", counted(Recorder.end_pass)),
    ):
        total = cost(step)
    return sum(spent) / (total - sum(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--small", action="store_true", help="a quarter of the channels: a quick run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype)
    unet = build_unet(arguments.small, False, device, dtype)
    x = torch.randn(2, 4, 64, 64, device=device, dtype=dtype)
    text = torch.randn(2, TEXT_TOKENS, 768, device=device, dtype=dtype)
    tokens = tokenizer(TEXT_TOKENS)
    branches: list[BranchMaps] = []

    def plain() -> None:
        with torch.no_grad():
            unet(x, 500, text)

    def recorded() -> None:
        with record(unet, PROMPT, tokens) as maps:
            plain()
        branches[:] = maps.branches

    steps = {"plain": plain, "recorded": recorded}
    memory = {name: peak_bytes(step) for name, step in steps.items()}  # also warms up
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds):
        for name in sorted(steps, reverse=number % 2 == 1):
            times[name].append(cost(steps[name]))
            if not arguments.json:
                print(f"round {number + 1}: {name} {times[name][-1]:.3f} s", flush=True)
    ratios = [a / b for a, b in zip(times["recorded"], times["plain"], strict=True)]
    (branch,) = branches
    columns = sum(len({i for word in words for i in word.columns}) for words in branch.words.values())
    sdxl = map_bytes(SDXL_BLOCKS, columns)
    result = {
        "time": round(statistics.median(ratios), 3),
        "recorder": round(share_in_recorder(recorded), 4),
        "memory": round(memory["recorded"] / memory["plain"], 3),
        "plain_seconds": round(statistics.median(times["plain"]), 3),
        "plain_megabytes": round(memory["plain"] / 2**20, 1),
        "map_megabytes": round(branch.nbytes / 1e6, 2),
        "sdxl_megabytes": round(sdxl * -(-SDXL_STEPS // Keep().interval(sdxl, SDXL_STEPS)) / 1e6, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU {platform.machine()}",
        "setting": f"{'small' if arguments.small else 'SD1.5'}, {arguments.dtype}",
        "torch": torch.__version__,
    }
    if not arguments.json:
        for name, values in times.items():
            print(f"{name:10} {min(values):7.3f} .. {max(values):7.3f} s, peak {memory[name] / 2**20:8.1f} MB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
