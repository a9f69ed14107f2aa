"""What makes a training run the one that it is: a resumed run must share it, and caches are named after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from .training import TrainSettings

SAMPLED_VALUES = 64  # of each weight


@dataclass(frozen=True)
class RunSettings(TrainSettings):
    """The trainer's settings, and what else a resumed run must share.

    rank: of the LoRA; 0 where all weights are trained. size: height and width of the training images in pixels.
    model: `model_fingerprint` of the weights that the run begins with. validation: how many records are held out.
    workers: processes that read ahead, where the order of the records depends on them (shards); else 0.
    """

    rank: int = 0
    size: tuple[int, int] = (512, 512)
    model: str = ""
    validation: int = 0
    workers: int = 0


PRESETS = {
    "sd1.4": RunSettings(),
    "sd2.1": RunSettings(steps=32_000, size=(768, 768)),
    "sdxl": RunSettings(precision="bf16", factors=(4,), size=(1024, 1024)),
}


def model_fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits that tell models apart: a digest of the names, the shapes and evenly spaced values.

    At least 64 values of each weight count (all of a smaller one), in fp32: the device does not matter, the precision
    that the weights are stored in does.
    """
    digest = hashlib.sha256()
    for name, weight in weights:
        values = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED_VALUES)].float().cpu()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]
