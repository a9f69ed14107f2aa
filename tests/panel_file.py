"""The files of the Attention Map Viewer's panel, read as `realcompo_core.attention.panel` describes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


class PanelFile:
    """`header` is the JSON. Steps are numbers of the sampling, or "all"; heads count from 1, 0 is the mean."""

    def __init__(self, folder: Path, name: str):
        self.header = json.loads((folder / name).read_text(encoding="utf-8"))
        self._data = (folder / self.header["data"]).read_bytes()

    def frame(self, branch: int, conditioning: str, layer: str, step: int | str, head: int = 0, item: int = 0):
        """(words and targets, h, w) float64."""
        kept = self.header["branches"][branch]["conditionings"][conditioning]
        found = next(own for own in kept["layers"] if own["name"] == layer)
        steps = ["all", *(own["index"] for own in kept["steps"])].index(step)
        frame = (steps * (kept["heads"] + 1) + head) * self.header["branches"][branch]["items"] + item
        count = sum(len(kept[kind]) for kind in ("words", "targets", "phrases"))
        return self._records(found["offset"], frame, count, found["size"])

    def weights(self, step: int | str, item: int = 0):
        """(branches, h, w) float64."""
        kept = self.header["weights"]
        frame = ["all", *kept["steps"]].index(step) * kept["items"] + item
        return self._records(kept["offset"], frame, len(kept["branches"]), kept["size"])

    def regions(self, size):
        """(regions, h, w) float64."""
        found = next(own for own in self.header["region_maps"] if own["size"] == list(size))
        return self._records(found["offset"], 0, len(self.header["regions"]), size)

    def _records(self, offset: int, frame: int, count: int, size) -> np.ndarray:
        kind = np.dtype([("largest", "<f4"), ("values", "<u2", tuple(size))])
        records = np.frombuffer(self._data, kind, count, offset + frame * count * kind.itemsize)
        return records["values"] / 65535 * records["largest"][:, None, None]
