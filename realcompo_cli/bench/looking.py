"""Looking at a run's pictures with models: what a benchmark wants to know of each, kept line by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from realcompo_core.bench.benchmark import Benchmark
from realcompo_core.bench.prompts import Prompt
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Detection, Seen, Wanted
from realcompo_core.errors import RealCompoError

from ..runs import MemoryFullError
from .answering import Answerer, load_answerer
from .clip import Clip, load_clip
from .detectors import LoadedDetector, load_detector
from .run import Run, Shard, mark_of

NONE = "none"
OPTIONS = {"detector": "--detector", "vqa": "--vqa", "clip": "--clip"}


@dataclass(frozen=True)
class Experts:
    """The models that look at pictures; None where there is none."""

    detector: LoadedDetector | None = None
    vqa: Answerer | None = None
    clip: Clip | None = None

    @property
    def identity(self) -> dict[str, Any]:
        known = {"detector": self.detector, "vqa": self.vqa, "clip": self.clip}
        return {what: {"name": e.name, **e.identity} for what, e in known.items() if e is not None}

    def look(self, picture: Image.Image, wanted: Wanted) -> Seen:
        """picture: RGB."""
        seen = Seen(*picture.size, detected=self.detector is not None)
        if self.detector and wanted.names:
            seen = replace(seen, detections=tuple(self.detector(picture, wanted.names)))
        if self.vqa and wanted.questions:
            answers = self.vqa(picture, wanted.questions)
            seen = replace(seen, answers=dict(zip(wanted.questions, answers, strict=True)))
        if self.clip and wanted.texts:
            seen = replace(
                seen, likeness=dict(zip(wanted.texts, self.clip.likeness(picture, wanted.texts), strict=True))
            )
        if self.clip and wanted.coloured:
            seen = replace(seen, detections=tuple(self._coloured(picture, seen.detections, wanted.coloured)))
        return seen

    def _coloured(
        self, picture: Image.Image, detections: tuple[Detection, ...], names: tuple[str, ...]
    ) -> list[Detection]:
        assert self.clip is not None
        found = list(detections)
        for name in names:
            places = [i for i, d in enumerate(found) if d.name == name]
            colours = self.clip.colours(picture, [found[i] for i in places], name)
            for i, colour in zip(places, colours, strict=True):
                found[i] = found[i]._replace(colour=colour)
        return found


def chosen(benchmark: Benchmark, given: Mapping[str, str | None]) -> dict[str, str]:
    """Which model does what: the one given, or the benchmark's official one. "none" leaves one out.

    Raises RealCompoError where one without which nothing can be scored is left out, and for one that says nothing.
    """
    known = {}
    for what, option in OPTIONS.items():
        spec = given.get(what)
        if spec not in (None, NONE) and what not in benchmark.models:
            raise RealCompoError(f"{option} {spec} has no meaning with {benchmark.title}: leave it out")
        if spec == NONE and what in benchmark.required:
            raise RealCompoError(f"{option} none: without it nothing of {benchmark.title} can be scored")
        if what in benchmark.models and spec != NONE:
            known[what] = spec or benchmark.models[what]
    return known


def load_experts(specs: Mapping[str, str], above: float, device: str, **detector_options: Any) -> Experts:
    """Raises RealCompoError for a model that cannot be loaded."""
    detector = specs.get("detector")
    return Experts(
        load_detector(detector, device=device, above=above, **detector_options) if detector else None,
        load_answerer(specs["vqa"], device) if "vqa" in specs else None,
        load_clip(specs["clip"], device) if "clip" in specs else None,
    )


def check_names(experts: Experts, benchmark: Benchmark, prompts: tuple[Prompt, ...]) -> None:
    """Raises RealCompoError for names that the detector cannot know: their objects would all count as missing."""
    if experts.detector is None:
        return
    names = list(dict.fromkeys(name for prompt in prompts for name in benchmark.wanted(prompt).names))
    if unknown := experts.detector.knows(names):
        shown = ", ".join(map(repr, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        raise RealCompoError(
            f"the detector {experts.detector.name} does not know {shown}: their objects would all count as missing. "
            "Give them as synonyms in a file of labels (--labels), or take a detector of open vocabulary"
        )


def to_look_at(run: Run, shard: Shard, seen: Mapping[Picture, Seen]) -> list[Picture]:
    return [p for p, path in run.pictures.items() if p.index in shard and p not in seen and path.exists()]


def look(run: Run, experts: Experts, shard: Shard, tell: Callable[[Picture], None]) -> int:
    """Looks at the pictures that nobody has looked at, and returns how many could not be read."""
    pictures = to_look_at(run, shard, run.seen())
    lines = run.add_seen(shard)
    prompts = {prompt.index: prompt for prompt in run.prompts}
    unread = 0
    for picture in pictures:
        path = run.pictures[picture]
        line = {"index": picture.index, "number": picture.number}
        try:
            line |= mark_of(path)
            found = experts.look(read_picture(path), run.benchmark.wanted(prompts[picture.index])).to_json()
            Seen.from_json(found)
        except torch.OutOfMemoryError as error:
            raise MemoryFullError("not enough memory to look at pictures: choose --device cpu") from error
        except (RealCompoError, OSError, ValueError) as error:
            unread += 1
            lines.add(line | {"problem": str(error)})
        else:
            lines.add(line | found)
        tell(picture)
    return unread


def read_picture(path: Path) -> Image.Image:
    """RGB, upright, on white where it is transparent. Raises RealCompoError for a file that is no whole picture."""
    try:
        with Image.open(path) as picture:
            return opaque(ImageOps.exif_transpose(picture))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RealCompoError(f"unreadable: {error}") from error


def opaque(picture: Image.Image) -> Image.Image:
    """As RGB, as a viewer shows it on white. Raises ValueError for numbers that no viewer knows the white of."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("F", "I"):
        raise ValueError(f"its mode is {picture.mode}, which says nothing about brightness")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")
