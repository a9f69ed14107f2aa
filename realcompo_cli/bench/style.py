"""Whose features a style is, and how far a run's pictures are from those of the stylised model alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from realcompo_core.bench.scores import Metric, Picture
from realcompo_core.bench.style import cosine_distance, gram, gram_distance
from realcompo_core.errors import RealCompoError
from shapescenes.benchmark import ShapeScenes
from shapescenes.judge import load_judge
from shapescenes.measuring import SIZE, as_tensor

from .clip import Clip, load_clip
from .looking import read_picture
from .run import Run

CLIP = "openai/clip-vit-base-patch32"
VGG = "vgg19"
VGG_LAYERS = (1, 6, 11, 20, 29)  # the first ReLU of each block (Gatys et al. 2016)
VGG_SIDE = 256  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(Protocol):
    """`features(picture)` is what `distance` compares; the second is what the distance is measured by."""

    name: str

    def features(self, picture: Image.Image) -> Any: ...

    def distance(self, one: Any, other: Any) -> float: ...


class GramEncoder:
    """Gram matrices of a network's layers. `prepare`: a picture as (1, 3, H, W)."""

    def __init__(self, name: str, layers: Sequence[nn.Module], prepare):
        self.name, self._layers, self._prepare = name, layers, prepare

    @torch.inference_mode()
    def features(self, picture: Image.Image) -> list[Tensor]:
        x, found = self._prepare(picture), []
        for layer in self._layers:
            x = layer(x)
            found.append(gram(x[0].float().cpu()))
        return found

    distance = staticmethod(gram_distance)


class ClipEncoder:
    """CLIP's feature of the whole picture."""

    def __init__(self, clip: Clip):
        self.name, self._clip = clip.name, clip

    def features(self, picture: Image.Image) -> Tensor:
        return self._clip.features([picture])[0].cpu()

    distance = staticmethod(cosine_distance)


def load_encoder(spec: str | None, benchmark: str, device: str) -> Encoder:
    """Raises RealCompoError for one that cannot be loaded."""
    spec = spec or (ShapeScenes.name if benchmark == ShapeScenes.name else CLIP)
    if spec == ShapeScenes.name:
        judge = load_judge()

        def prepare(picture: Image.Image) -> Tensor:
            return as_tensor([picture if picture.size == SIZE else picture.resize(SIZE, Image.Resampling.BOX)])

        return GramEncoder("the judge of ShapeScenes, Gram matrices", list(judge.early), prepare)
    if spec.partition("=")[0] == VGG:
        return _vgg(spec.partition("=")[2], device)
    return ClipEncoder(load_clip(spec, device))


def _vgg(weights: str, device: str) -> GramEncoder:
    try:
        from torchvision.models import VGG19_Weights, vgg19
    except (ImportError, RuntimeError) as error:
        raise RealCompoError(
            "--encoder vgg19 needs the package torchvision: pip install torchvision, or take a CLIP"
        ) from error
    try:
        network = vgg19(weights=None if weights else VGG19_Weights.DEFAULT)
        if weights:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        raise RealCompoError(f"--encoder vgg19: cannot load its weights {weights}: {error}") from error
    layers = network.features.eval().to(device)
    starts = [0, *(layer + 1 for layer in VGG_LAYERS[:-1])]
    parts = [layers[a : b + 1] for a, b in zip(starts, VGG_LAYERS, strict=True)]
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))

    def prepare(picture: Image.Image) -> Tensor:
        scale = VGG_SIDE / min(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        pixels = as_tensor([picture.resize(size, Image.Resampling.BICUBIC)])[0].to(device)
        return (((pixels + 1) / 2 - mean) / std)[None]

    return GramEncoder("VGG-19, Gram matrices", parts, prepare)


def style_metrics(run: Run, seen: Sequence[Picture], reference: Path, encoder: Encoder) -> tuple[Metric, ...]:
    """How far each picture is from the reference's of the same prompt and number, and that from its next prompt's.

    The second is how much pictures of the style differ among each other. Raises RealCompoError where the two runs have
    no picture in common.
    """
    other = Run(reference)
    own = {p.index: p.text for p in run.prompts}
    texts = {p.index: p.text for p in other.prompts}
    pairs = [
        p for p in seen if p in other.pictures and own[p.index] == texts.get(p.index) and other.pictures[p].exists()
    ]
    if not pairs:
        raise RealCompoError(f"--reference {reference} has no picture of the prompts of {run.folder}")
    ours, theirs = ([encoder.features(_read(of.pictures[p])) for p in pairs] for of in (run, other))
    away = [encoder.distance(a, b) for a, b in zip(ours, theirs, strict=True)]
    found = [
        Metric(
            f"distance to the style of {other.name}, by {encoder.name}", _mean(away), len(away), _std(away), lower=True
        )
    ]
    if len(pairs) > 1:
        among = [encoder.distance(theirs[i - 1], theirs[i]) for i in range(len(theirs))]
        found.append(
            Metric(
                f"among pictures of {other.name}, by {encoder.name}", _mean(among), len(among), _std(among), lower=True
            )
        )
    return tuple(found)


def _read(path: Path) -> Image.Image:
    try:
        return read_picture(path)
    except RealCompoError as error:
        raise RealCompoError(f"{path} is {error}") from error


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _std(values: Sequence[float]) -> float:
    return float(np.std(values))
