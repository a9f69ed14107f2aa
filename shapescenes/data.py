"""Training sets: scenes drawn once, in parallel, and kept as one array file a style."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from realcompo_core.files import replacing
from shapescenes.drawing import draw
from shapescenes.world import Scene, training_scene

SEEDS = {"rendered": 1, "flat": 2}
COUNTS = {"rendered": (0.3, 0.4, 0.2, 0.1), "flat": (0.1, 0.3, 0.3, 0.3)}  # shares of 1 to 4 objects


def scene(style: str, index: int) -> Scene:
    """Scene number `index` of the training set of a style."""
    return training_scene(SEEDS[style], index, COUNTS[style])


def pictures(style: str, count: int, folder: Path, workers: int = 2) -> np.ndarray:
    """(count, 128, 128, 3) uint8, memory-mapped; drawn on first use."""
    path = folder / f"{style}_{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as pool:
            drawn = np.stack(list(pool.map(partial(_picture, style), range(count), chunksize=64)))
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, drawn)
    return np.load(path, mmap_mode="r")


def _picture(style: str, index: int) -> np.ndarray:
    return draw(scene(style, index), style, seed=index)
