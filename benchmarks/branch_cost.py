"""What each kind of spatial branch costs: a balanced step against its plain step, at SD1.5 size.

    python benchmarks/branch_cost.py --rounds 2
    python benchmarks/branch_cost.py --small          # a quarter of the channels: a quick run

Random weights, 64x64 latents, diffusers UNets; the fidelity branch is the same everywhere. A kind's plain step mixes
the guided predictions of its two branches with constant weights (for Layout Guidance: without guidance). Its variants
are a step of `one_pass` and one of `lookahead`, for the ControlNet also with its gradient detached. For Layout Guidance
a step moves the latent once or five times, and mixes with constant weights, too. All variants of a kind are timed in
turn in one process, by the process's own time on a CPU; a ratio is the median over the rounds of (variant / plain of
the same round). Memory is the peak of live tensors above what was there before. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from benchmarks.balancer_cost import LAYOUT, SIGMAS, TEXT_TOKENS, build_unet, noise_schedule, second_step, targets
from benchmarks.measuring import cost, peak_bytes
from realcompo_core.attention.losses import Objective
from realcompo_core.diffusers.branch import DenoiserBranch, RegionalPhrase
from realcompo_core.diffusers.conditioners import Gligen, open_gates
from realcompo_core.diffusers.controlnet import ControlNets
from realcompo_core.diffusers.request import Control, Request, UNetPass
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.guidance.branch import Branch
from realcompo_core.guidance.latent_guidance import with_guidance
from realcompo_core.guidance.layout_guidance import LayoutGuidance
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.layout.regions import region_maps

MIX = BalanceSettings(fixed=torch.tensor([0.5, 0.5]))
ONE_PASS, LOOKAHEAD = BalanceSettings(t1=1.0), BalanceSettings(mode="lookahead", t1=1.0)
REQUEST = Request([""], [None], [LAYOUT], (512, 512), SIGMAS, 1.0, 4, False)


class Grounding(Gligen):
    """GLIGEN's conditioner with random embeddings of the phrases: there is no text encoder here."""

    def __init__(self, unet: UNet2DConditionModel):
        open_gates(unet)
        self._objects = {
            "boxes": torch.rand(1, 30, 4),
            "masks": torch.ones(1, 30),
            "positive_embeddings": torch.randn(1, 30, 768),
        }
        self._objects = {key: value.to(unet.device, unet.dtype) for key, value in self._objects.items()}
        self._nothing = self._objects | {"masks": torch.zeros_like(self._objects["masks"])}
        self._closed_below = 0.0


def build(unet: UNet2DConditionModel, *conditioners: Callable[[UNetPass], dict], phrases: int = 0) -> DenoiserBranch:
    def text() -> dict:
        return {"encoder_hidden_states": torch.randn(1, TEXT_TOKENS, 768, device=unet.device, dtype=unet.dtype)}

    objective = Objective(UNetAttention(unet).choose(4), targets())
    regions = region_maps(LAYOUT, [[0], [1]], 64, 64).to(unet.device)[:phrases]
    prompts = [RegionalPhrase(text(), region[None, None]) for region in regions]
    return DenoiserBranch("spatial", unet, noise_schedule(), text(), text(), 7.5, conditioners, objective, prompts)


def kinds(small: bool, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], dict]]:
    """For each kind, a function that makes its variants: branches and settings by name, `plain` among them."""
    unet = build_unet(small, False, device, dtype)
    fidelity = build(unet)

    def balanced(spatial: Branch) -> dict:
        return {
            "plain": ([fidelity, spatial], MIX),
            "one_pass": ([fidelity, spatial], ONE_PASS),
            "lookahead": ([fidelity, spatial], LOOKAHEAD),
        }

    def gligen() -> dict:
        gated = build_unet(small, True, device, dtype)
        return balanced(build(gated, Grounding(gated)))

    def controlnet() -> dict:
        network = ControlNetModel.from_unet(unet).to(device, dtype).eval().requires_grad_(False)
        processor = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
        pipeline = SimpleNamespace(unet=unet, controlnet=network, control_image_processor=processor)
        picture = Image.new("RGB", (512, 512))
        flowing, detached = (
            build(unet, ControlNets(pipeline, REQUEST, [Control(picture, detached=detached)]))
            for detached in (False, True)
        )
        more = {f"{name}, detached": variant for name, variant in balanced(detached).items() if name != "plain"}
        return {**balanced(flowing), **more}

    def layout_guidance() -> dict:
        variants = {"plain": ([fidelity, build(unet)], MIX)}
        layers = UNetAttention(unet).layers
        for moves in (1, 5):
            guidance = LayoutGuidance(threshold=0.0, iterations=moves, until=1.0)
            guided = with_guidance(build(unet), guidance, layers, layers, targets(), Schedule(SIGMAS))
            named = {"mixed": MIX, "one_pass": ONE_PASS, "lookahead": LOOKAHEAD}
            variants |= {f"{name}, {moves} moves": ([fidelity, guided], mode) for name, mode in named.items()}
        return variants

    def phrases() -> dict:
        return balanced(build(unet, phrases=2))

    return {"gligen": gligen, "controlnet": controlnet, "layout_guidance": layout_guidance, "phrases": phrases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", help="only these")
    parser.add_argument("--small", action="store_true", help="a quarter of the channels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict = {}
    for kind, make in kinds(arguments.small, device, getattr(torch, arguments.dtype)).items():
        if arguments.kinds and kind not in arguments.kinds:
            continue
        runs = {name: second_step(branches, settings, device) for name, (branches, settings) in make().items()}
        memory = {name: peak_bytes(run) for name, run in runs.items()}  # also warms up
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(cost(run))
        result[kind] = {}
        for name in runs:
            ratios = [a / b for a, b in zip(times[name], times["plain"], strict=True)]
            ratio, peak = statistics.median(ratios), memory[name] / memory["plain"]
            result[kind][name] = {"time": round(ratio, 3), "memory": round(peak, 3)}
            print(
                f"{kind:16} {name:20} {ratio:6.2f} ({min(ratios):.2f} to {max(ratios):.2f}), memory {peak:.2f}",
                flush=True,
            )
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU {platform.machine()}"
    result["setting"] = f"{'small' if arguments.small else 'SD1.5'}, {arguments.dtype}, {arguments.rounds} rounds"
    result["torch"] = torch.__version__
    print(json.dumps(result))


if __name__ == "__main__":
    main()
