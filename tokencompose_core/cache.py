"""Latents and text conditionings that were computed once, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realcompo_core.errors import RealCompoError
from realcompo_core.files import replacing

from .training import TrainableModel


class CachedModel:
    """A model that keeps what its `encode` and `embed` give in `folder`, a file for each image and caption.

    The folder belongs to one model and one training set: name it after both (`identity.model_fingerprint`,
    `records.fingerprint`). Damaged files in it are written again. Raises RealCompoError where one cannot be written.
    """

    def __init__(self, model: TrainableModel, folder: str | Path):
        self._model, self._folder = model, Path(folder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, images: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        size = "x".join(map(str, images.shape[-2:]))
        parts = [
            self._cached(f"latent {key} {size}", lambda b=b, key=key: self._model.encode(images[b : b + 1], [key]))
            for b, key in enumerate(keys)
        ]
        return tuple(torch.cat(part).to(images.device) for part in zip(*parts, strict=True))

    def embed(self, captions: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
        parts = [
            self._cached(f"text {size} {caption}", lambda caption=caption: self._model.embed([caption], size))
            for caption in captions
        ]
        return _joined(parts, next(self._model.network.parameters()).device)

    def _cached(self, name: str, compute: Callable[[], Any]) -> Any:
        path = self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.pt"
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception:  # whatever a damaged file leads to; it is written again
                path.unlink(missing_ok=True)
        value = compute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path, shared=True) as part, part.open("wb") as file:
                torch.save(value, file)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            raise RealCompoError(
                f"cache {self._folder} cannot be written ({error}): free some room, or train without the cache. The "
                "run will go on from its last checkpoint"
            ) from error
        return value


def _joined(parts: Sequence[Any], device: torch.device) -> Any:
    """The tensors of single samples, which may be in (nested) dictionaries, joined to a batch."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts], device) for name in parts[0]}
    return torch.cat([part.to(device) for part in parts])
