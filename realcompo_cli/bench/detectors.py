"""Detectors by their names: the bundled judge, models of transformers, torchvision, ultralytics, and OpenCV's networks.

shapescenes                              the judge of the bundled world
google/owlv2-large-patch14-ensemble      a model of the hub, or a folder with one
torchvision:fasterrcnn_resnet50_fpn_v2   with its published weights, or with =WEIGHTS.pth
ultralytics:yolo11n.pt
yolo11n.onnx, frozen_inference_graph.pb  a network that OpenCV runs, with a file of labels
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from realcompo_core.bench.seen import Box, Detection
from realcompo_core.errors import RealCompoError
from realcompo_core.text.words import singular
from shapescenes.files import WEIGHTS
from shapescenes.judge import detect, load_judge
from shapescenes.measuring import SIZE, as_tensor
from shapescenes.world import COLOURS, RADII, SHAPES

from ..models import ModelFileError, check_device
from . import opencv_detectors, transformers_detectors
from .labels import Labels
from .loading import LOADING_ERRORS, file_identity, gist, package, the_file
from .opencv_detectors import See
from .transformers_detectors import Find

SHAPESCENES = "shapescenes"
TORCHVISION = "torchvision:"
ULTRALYTICS = "ultralytics:"
RADIUS = sum(RADII[""]) / 2  # pixels: of the box around a centre that the judge has found


@dataclass(frozen=True)
class LoadedDetector:
    """A detector of names. `name` is what a report calls it, `identity` says which model it is, as JSON.

    `find`: what it finds. `unknown`: which of some names it cannot know. `above`: what a score has to be larger than.
    """

    name: str
    identity: Mapping[str, Any]
    find: Find
    unknown: Callable[[Sequence[str]], list[str]]
    above: float

    def knows(self, names: Sequence[str]) -> list[str]:
        """Those of the names that the detector does not know. One that looks for any words knows all."""
        return self.unknown(names)

    def __call__(self, picture: Image.Image, names: Sequence[str]) -> list[Detection]:
        """picture: RGB. The objects of these names, called as they were asked for.

        Boxes are in the picture's pixels. One may reach beyond an edge, as its detector has it; none lies outside.
        """
        if not names:
            return []
        width, height = picture.size
        found = []
        for detection in self.find(picture, list(dict.fromkeys(names))):
            x0, y0, x1, y1 = detection.box
            inside = max(x0, 0) < min(x1, width) and max(y0, 0) < min(y1, height)
            if detection.score > self.above and inside:
                found.append(detection)
        return found


def load_detector(
    spec: str,
    *,
    labels: Path | None = None,
    config: Path | None = None,
    input: str | None = None,
    device: str = "cpu",
    above: float = 0.01,
) -> LoadedDetector:
    """The detector that `spec` names, which tells of scores larger than `above`.

    labels: a file with the names of its classes, see `labels.Labels`; a detector that has names of its own then goes by
    these. config, input: of OpenCV's networks, see `opencv_detectors.load`.

    Raises ModelFileError, PackageError, LabelsError or DeviceError, or RealCompoError for an option without meaning.
    """
    check_device(device)
    is_network = Path(spec).suffix.lower() in opencv_detectors.SUFFIXES and not spec.startswith(
        (TORCHVISION, ULTRALYTICS)
    )
    for option, value in (("config", config), ("input", input)):
        if value is not None and not is_network:
            raise RealCompoError(
                f"{option} is {str(value)!r}, which has no meaning for {spec}: it is for networks that OpenCV runs "
                f"({', '.join(opencv_detectors.SUFFIXES)})"
            )
    known = None if labels is None else Labels.read(labels)
    if spec == SHAPESCENES:
        return _shapescenes(known, device, above)
    if spec.startswith(TORCHVISION):
        detector = _torchvision(spec, known, device, above)
    elif spec.startswith(ULTRALYTICS):
        detector = _ultralytics(spec, known, device, above)
    elif is_network:
        detector = _opencv(spec, config, known, input, above)
    else:
        detector = _transformers(spec, known, device, above)
    if labels is None:
        return detector
    return replace(detector, identity={**detector.identity, "labels": file_identity(labels)["sha256"]})


def _of_classes(name: str, identity: Mapping[str, Any], labels: Labels, see: See, above: float) -> LoadedDetector:
    """A detector that sees classes with these labels. A class counts for each name that was asked for and means it."""

    def find(picture: Image.Image, names: Sequence[str]) -> Iterator[Detection]:
        asked = {one: labels.ids(one) for one in names}
        for number, box, score in see(picture):
            for one, numbers in asked.items():
                if number in numbers:
                    yield Detection(one, box, score)

    return LoadedDetector(name, identity, find, lambda names: [n for n in names if not labels.ids(n)], above)


def _no_labels(spec: str) -> RealCompoError:
    return RealCompoError(f"labels have no meaning for {spec}, which looks for the names themselves: leave them out")


def _shapescenes(labels: Labels | None, device: str, above: float) -> LoadedDetector:
    """The judge knows one colour and one shape of its world in a name: "red circle", "large red circles".

    It sees pictures of 128x128 pixels, and centres alone: a box is as large as a shape of middle size.
    """
    if labels is not None:
        raise _no_labels(SHAPESCENES)
    judge = load_judge().to(device)

    def find(picture: Image.Image, names: Sequence[str]) -> Iterator[Detection]:
        asked = {one: _colour_and_shape(one) for one in names}
        small = picture if picture.size == SIZE else picture.resize(SIZE, Image.Resampling.BOX)
        x_scale, y_scale = picture.width / SIZE[0], picture.height / SIZE[1]
        for d in detect(judge, as_tensor([small]).to(device), above)[0]:
            box = (
                (d.x - RADIUS) * x_scale,
                (d.y - RADIUS) * y_scale,
                (d.x + RADIUS) * x_scale,
                (d.y + RADIUS) * y_scale,
            )
            for one, kind in asked.items():
                if kind == (d.colour, d.shape):
                    yield Detection(one, box, d.score)

    identity = {"model": SHAPESCENES, "sha256": file_identity(WEIGHTS / "judge.safetensors")["sha256"]}
    return LoadedDetector(
        SHAPESCENES, identity, find, lambda names: [n for n in names if _colour_and_shape(n) is None], above
    )


def _colour_and_shape(name: str) -> tuple[str, str] | None:
    """The one colour and the one shape of the bundled world that a name has."""
    words = {singular(word) for word in re.findall(r"\w+", name)}
    colours, shapes = words & set(COLOURS), words & set(SHAPES)
    return (colours.pop(), shapes.pop()) if len(colours) == len(shapes) == 1 else None


def _transformers(spec: str, labels: Labels | None, device: str, above: float) -> LoadedDetector:
    loaded, find, see = transformers_detectors.load(spec, device, above)
    if see is not None:
        own = labels or transformers_detectors.labels_of(loaded)
        return _of_classes(loaded.name, loaded.identity, own, see, above)
    assert find is not None
    if labels is not None:
        raise _no_labels(spec)
    return LoadedDetector(loaded.name, loaded.identity, find, lambda names: [], above)


def _opencv(spec: str, config: Path | None, labels: Labels | None, read: str | None, above: float) -> LoadedDetector:
    path = Path(spec)
    if labels is None:
        raise RealCompoError(f"{spec} does not say what its classes are called: give a file of labels")
    see = opencv_detectors.load(path, config, labels, read, above)
    identity = file_identity(path) | {"input": read}
    if config is not None:
        identity["config"] = file_identity(config)["sha256"]
    return _of_classes(path.name, identity, labels, see, above)


def _torchvision(spec: str, labels: Labels | None, device: str, above: float) -> LoadedDetector:
    """A detector of torchvision by its name, with its published weights or those in a file.

    Classes are called as with the published weights, where no labels are given.
    """
    torchvision = package("torchvision", spec, "torchvision")
    name, equals, file = spec.removeprefix(TORCHVISION).partition("=")
    models = torchvision.models
    known = models.list_models(module=models.detection)
    if name not in known:
        raise ModelFileError(f"{spec}: torchvision has no detector {name!r}. Choose one of {', '.join(known)}")
    published = models.get_model_weights(name).DEFAULT
    own = labels or Labels({i: (str(one),) for i, one in enumerate(published.meta["categories"])})
    identity: dict[str, Any] = {"model": f"{TORCHVISION}{name}"}
    if equals:
        identity |= file_identity(the_file(Path(file), spec))
    try:
        if equals:
            model = models.get_model(name, weights=None, weights_backbone=None, num_classes=own.count)
            model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        else:
            identity["weights"] = str(published)
            model = models.get_model(name, weights=published)
        model = model.eval().to(device)
    except LOADING_ERRORS as error:
        raise ModelFileError(
            f"cannot load {spec}: {gist(error)}. Expected a state dict of {name} with {own.count} classes"
        ) from error
    heads = getattr(model, "roi_heads", model)
    heads.score_thresh = above  # what is less sure it leaves out by itself

    @torch.inference_mode()
    def see(picture: Image.Image) -> Iterator[tuple[int, Box, float]]:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(device) / 255
        (found,) = model([pixels])
        yield from zip(
            found["labels"].tolist(), map(tuple, found["boxes"].tolist()), found["scores"].tolist(), strict=True
        )

    title = f"{TORCHVISION}{name}" + (f" with {Path(file).name}" if equals else "")
    return _of_classes(title, identity, own, see, above)


def _ultralytics(spec: str, labels: Labels | None, device: str, above: float) -> LoadedDetector:
    ultralytics = package("ultralytics", spec, "ultralytics")
    path = the_file(Path(spec.removeprefix(ULTRALYTICS)), spec)  # without a file ultralytics would download one
    try:
        model = ultralytics.YOLO(str(path))
        names, task = model.names, model.task
    except LOADING_ERRORS as error:
        raise ModelFileError(
            f"cannot load {spec}: {gist(error)}. Expected a detector that ultralytics has written (.pt)"
        ) from error
    if task not in ("detect", "segment", "pose"):
        raise ModelFileError(f"{spec} is a model for the task {task!r}: choose one that detects objects")

    def see(picture: Image.Image) -> Iterator[tuple[int, Box, float]]:
        (result,) = model.predict(picture, conf=above, device=device, verbose=False)
        boxes = result.boxes
        yield from zip(map(int, boxes.cls.tolist()), map(tuple, boxes.xyxy.tolist()), boxes.conf.tolist(), strict=True)

    own = labels or Labels({int(number): (str(one),) for number, one in names.items()})
    return _of_classes(path.name, {"model": ULTRALYTICS.rstrip(":"), **file_identity(path)}, own, see, above)
