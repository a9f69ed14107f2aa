"""Checkpoints of a training run. A crash at any moment leaves the older ones usable."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realcompo_core.errors import RealCompoError
from realcompo_core.files import PART, replacing

WORDS = {  # of settings, in messages
    "rank": "LoRA rank",
    "size": "size (height, width)",
    "model": "model weights",
    "validation": "records held out for validation",
    "workers": "workers that read shards",
}


class Checkpoints:
    """`checkpoint-000500.pt` and so on in `folder`, the last `keep` of them.

    fingerprint: `records.fingerprint` of the training data, which a resumed run must share.
    """

    def __init__(self, folder: str | Path, keep: int = 3, fingerprint: str = ""):
        self.folder, self._keep, self._fingerprint = Path(folder), keep, fingerprint

    def save(self, state: dict[str, Any]) -> Path:
        """Write a checkpoint and remove the oldest ones. Raises RealCompoError where it cannot be written: all stay."""
        path = self.folder / f"checkpoint-{state['step']:06}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path, sync=True) as part, part.open("wb") as file:
                torch.save({**state, "fingerprint": self._fingerprint}, file)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            kept = self.paths()
            raise RealCompoError(
                f"checkpoint {path} cannot be written ({error}): free some room and run again. "
                + (f"The run will go on from {kept[-1].name}." if kept else "None was written before.")
            ) from error
        for old in self.paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """Finished ones, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.pt"), key=lambda path: int(path.stem.split("-")[1]))

    def latest(self, settings: dict[str, Any], free: Collection[str]) -> dict[str, Any] | None:
        """The newest one, None where there is none.

        settings: all that this run must share with the one that wrote it, but for those in `free`. Raises
        RealCompoError where one of them or the training data differs. Warns of settings that the checkpoint does not
        have, as those of older versions: they are taken to be the same.
        """
        for left in self.folder.glob(f"checkpoint-*{PART}"):  # of a run that was killed while it wrote
            left.unlink(missing_ok=True)
        paths = self.paths()
        if not paths:
            return None
        try:
            state = torch.load(paths[-1], map_location="cpu", weights_only=True)
        except Exception as error:
            raise RealCompoError(
                f"checkpoint {paths[-1]} cannot be read ({error}): delete it, and the run goes on from the one before"
            ) from error
        there, fixed = state["settings"], [name for name in settings if name not in free]
        differ = [
            f"{WORDS.get(name, name)} {there[name]!r} there, {settings[name]!r} now"
            for name in fixed
            if name in there and there[name] != settings[name]
        ]
        if state["fingerprint"] != self._fingerprint:
            differ.append("the training data")
        if differ:
            raise RealCompoError(
                f"{paths[-1]} is of another run: {'; '.join(differ)}. Take those settings, or another folder"
            )
        if unknown := [WORDS.get(name, name) for name in fixed if name not in there]:
            warnings.warn(
                f"{paths[-1]} is of an older version and does not say its {', '.join(unknown)}: the run goes on from "
                "it as if they were those of now. If they are not, take another folder",
                stacklevel=2,
            )
        return state


def check_weights(saved: Mapping[str, Tensor], trained: Mapping[str, tuple[int, ...]]) -> None:
    """Raises RealCompoError where a checkpoint's weights are not those that a run trains. trained: names and shapes."""
    for name, shape in trained.items():
        found = tuple(saved[name].shape) if name in saved else None
        if found != shape:
            raise RealCompoError(
                f"the checkpoint is of another model or LoRA rank: weight {name} is {found or 'missing'} there, "
                f"{shape} now. Take the model and rank of that run, or another folder"
            )
