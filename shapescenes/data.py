"""Training sets: scenes drawn once, in parallel, and kept as one array file a style."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from realcompo_core.files import replacing
from realcompo_core.layout.segmentation import draw_segmentation
from shapescenes.drawing import draw
from shapescenes.palette import PALETTE
from shapescenes.world import SIZE, Scene, training_scene

SEEDS = {"rendered": 1, "flat": 2}
COUNTS = {"rendered": (0.3, 0.4, 0.2, 0.1), "flat": (0.1, 0.3, 0.3, 0.3)}  # shares of 1 to 4 objects


def scene(style: str, index: int) -> Scene:
    """Scene number `index` of the training set of a style."""
    return training_scene(SEEDS[style], index, COUNTS[style])


def pictures(style: str, count: int, folder: Path, workers: int = 2) -> np.ndarray:
    """(count, 128, 128, 3) uint8, memory-mapped; drawn on first use."""
    return _drawn(partial(_picture, style), count, folder / f"{style}_{count}.npy", workers)


def _drawn(draw_one: Callable[[int], np.ndarray], count: int, path: Path, workers: int) -> np.ndarray:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A forked process would wait for ever for the threads that torch already has here.
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            drawn = np.stack(list(pool.map(draw_one, range(count), chunksize=64)))
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, drawn)
    return np.load(path, mmap_mode="r")


def segmentations(count: int, folder: Path, workers: int = 2) -> np.ndarray:
    """(count, 128, 128, 3) uint8, memory-mapped: segmentation pictures of the flat scenes; drawn on first use.

    Outlines for even scenes, filled boxes for odd ones: the layout that is drawn later may have masks or not.
    """
    return _drawn(_segmentation, count, folder / f"segmentation_{count}.npy", workers)


def _segmentation(index: int) -> np.ndarray:
    drawn = scene("flat", index)
    layout = drawn.layout if index % 2 else drawn.layout_with_masks
    return np.asarray(draw_segmentation(layout, PALETTE, (SIZE, SIZE)))


def _picture(style: str, index: int) -> np.ndarray:
    return draw(scene(style, index), style, seed=index)
