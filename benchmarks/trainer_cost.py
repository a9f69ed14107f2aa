"""What a TokenCompose training step costs against a plain fine-tuning step, at SD1.4 size.

    python benchmarks/trainer_cost.py --json

Random weights, 512x512 pixels (64x64 latents), batch 1, gradient checkpointing, all layers of middle block and decoder
supervised, four nouns. Both steps are made by the trainer's own code, the plain one with both grounding weights 0, in
turn in one process: forward, backward, clipping and AdamW. `time` is the median over rounds of (TokenCompose / plain of
the same round), in processor time on a CPU. `memory` is the ratio of the peaks of live tensors during forward and
backward, above weights, gradients and optimizer state. The last line is one JSON object.
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
from diffusers import DDIMScheduler, UNet2DConditionModel

from benchmarks.measuring import cost, peak_bytes
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.runtime import Runtime
from tokencompose_core.supervision import SupervisedAttention
from tokencompose_core.training import TrainSettings, backward, make_optimizer, supervised_layers

TEXT_TOKENS, TEXT_WIDTH = 77, 768


class UNetOnly(DiffusersModel):
    """Latents and text are given: autoencoder and text encoder cost the same in both steps."""

    def encode(self, images, keys):
        return torch.zeros(len(images), 4, *(n // 8 for n in images.shape[-2:]), device=images.device), 1.0

    def embed(self, captions, size):
        device = self.network.device
        text = torch.randn(len(captions), TEXT_TOKENS, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
        return {"encoder_hidden_states": text.to(device)}


def build(small: bool, checkpointing: bool, device: torch.device) -> UNetOnly:
    width = 80 if small else 320
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=8,
            norm_num_groups=16 if small else 32,
        )
    absent = torch.nn.Module()
    pipeline = SimpleNamespace(
        unet=unet.train(),
        vae=absent,
        text_encoder=absent,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        tokenizer=SimpleNamespace(model_max_length=TEXT_TOKENS),
    )
    return UNetOnly(pipeline, checkpointing)


def example() -> dict:
    masks = torch.zeros(4, 512, 512, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[64 + 96 * i : 160 + 96 * i, 128:384] = True
    tokens = [[2], [5, 6], [9], [12]]
    return {"image": torch.zeros(3, 512, 512), "caption": "", "tokens": tokens, "masks": masks, "key": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--small", action="store_true", help="a quarter of the channels: a quick run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--no-checkpointing", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(arguments.small, not arguments.no_checkpointing, device)
    runtime = Runtime(arguments.precision, device)
    parameters = list(model.network.parameters())
    settings = {
        "plain": TrainSettings(accumulation=1, token_weight=0, pixel_weight=0, precision=arguments.precision),
        "tokencompose": TrainSettings(accumulation=1, precision=arguments.precision),
    }
    optimizer = make_optimizer(parameters, settings["plain"])
    supervised = SupervisedAttention(model.attention, supervised_layers(model.attention))
    examples = [example()]

    def gradient(name: str) -> Callable[[], object]:
        return lambda: backward(model, model.network, supervised, examples, 0, settings[name], runtime)

    def step(name: str) -> Callable[[], None]:
        def whole() -> None:
            gradient(name)()
            runtime.clip(parameters, optimizer, 1.0)
            runtime.step(optimizer)
            optimizer.zero_grad(set_to_none=False)  # as in accumulation: gradients stay where they are

        return whole

    for name in settings:
        step(name)()  # warms up, and makes gradients and optimizer state
    memory = {name: peak_bytes(gradient(name)) for name in settings}
    times: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(arguments.rounds):
        for name in settings:
            times[name].append(cost(step(name)))
    ratios = [a / b for a, b in zip(times["tokencompose"], times["plain"], strict=True)]
    result = {
        "time": round(statistics.median(ratios), 3),
        "memory": round(memory["tokencompose"] / memory["plain"], 3),
        "plain_seconds": round(statistics.median(times["plain"]), 3),
        "plain_megabytes": round(memory["plain"] / 2**20, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU {platform.machine()}",
        "setting": f"{'small' if arguments.small else 'SD1.4'}, {arguments.precision}, "
        f"checkpointing {'off' if arguments.no_checkpointing else 'on'}",
        "torch": torch.__version__,
    }
    if not arguments.json:
        for name, values in times.items():
            print(f"{name:12} {min(values):7.3f} .. {max(values):7.3f} s, peak {memory[name] / 2**20:8.1f} MB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
