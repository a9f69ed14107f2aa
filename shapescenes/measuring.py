"""Accuracy and realism of pictures of known scenes, as the judge sees them: for benchmarks and sweeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from realcompo_core.layout import Layout
from shapescenes.drawing import draw
from shapescenes.judge import Judge, box_hits, detect, frechet_distance, objects_present, states_hold
from shapescenes.world import CATEGORIES, Scene

SIZE = (128, 128)  # of the pictures that the judge has learnt from
REAL_DRAWINGS = 3  # real pictures a prompt, for the distance


class Judged(NamedTuple):
    """One picture. category, objects: of its prompt. exact: whether it shows what the prompt states, and no more.

    hits: share of the layout's objects that are in their boxes. present: whether it shows each of the prompt's objects,
    wherever and with whatever else: what MultiGen counts (Wang et al. 2024).
    """

    category: str
    objects: int
    exact: bool
    hits: float
    present: bool


def as_tensor(images: Iterable[Image.Image | np.ndarray]) -> Tensor:
    """(B, 3, H, W) in -1..1, as the judge reads pictures."""
    pixels = np.stack([np.asarray(i.convert("RGB") if isinstance(i, Image.Image) else i) for i in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def judge_pictures(
    judge: Judge, scenes: Sequence[Scene], layouts: Sequence[Layout], images: Sequence[Image.Image]
) -> tuple[list[Judged], np.ndarray]:
    """What is to be said of one picture a scene, and their features, (B, 128), for the distance.

    The judge knows pictures of 128x128 pixels: others are brought to that size.
    """
    pictures = as_tensor(image if image.size == SIZE else image.resize(SIZE, Image.Resampling.BOX) for image in images)
    judged = [
        Judged(
            scene.prompt.category,
            len(scene.objects),
            states_hold(scene.prompt, found),
            box_hits(layout, scene.prompt, found),
            objects_present(scene.prompt, found),
        )
        for scene, layout, found in zip(scenes, layouts, detect(judge, pictures), strict=True)
    ]
    return judged, judge.features(pictures).numpy()


def measures(judged: Sequence[Judged], features: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """The means by name.

    `accuracy` is the share of exact pictures among prompts of 3 and 4 objects, `accuracy_all` among all, others among a
    category or number of objects; NaN where there is none. `present` is the share of pictures that show all objects,
    whatever else they show, of the same prompts as `accuracy`, and among numbers of objects. `realism` is the Fréchet
    distance of the features to those of real scenes (smaller is better).
    """
    groups = {"accuracy": [j for j in judged if j.objects >= 3], "accuracy_all": judged}
    groups |= {f"accuracy_{c}": [j for j in judged if j.category == c] for c in CATEGORIES}
    groups |= {f"accuracy_{n}_objects": [j for j in judged if j.objects == n] for n in (1, 2, 3, 4)}
    values = {name: float(np.mean([j.exact for j in group])) if group else np.nan for name, group in groups.items()}
    for suffix in ("", *(f"_{n}_objects" for n in (1, 2, 3, 4))):
        group = groups["accuracy" + suffix]
        values["present" + suffix] = float(np.mean([j.present for j in group])) if group else np.nan
    values["box_hits"] = float(np.mean([j.hits for j in judged]))
    values["realism"] = frechet_distance(features, real)
    return values


@torch.inference_mode()
def real_features(scenes: Sequence[Scene], judge: Judge, first_seed: int) -> np.ndarray:
    """(REAL_DRAWINGS · N, 128): features of real pictures of the scenes, drawn with seeds from `first_seed` on."""
    features = []
    for k in range(REAL_DRAWINGS):
        drawn = [draw(scene, "rendered", first_seed + k * len(scenes) + i) for i, scene in enumerate(scenes)]
        features.append(judge.features(as_tensor(drawn)).numpy())
    return np.concatenate(features)
