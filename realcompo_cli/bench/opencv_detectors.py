"""Detectors that OpenCV runs: networks of its module `dnn`, and how their output is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from realcompo_core.bench.seen import Box
from realcompo_core.errors import RealCompoError

from ..models import ModelFileError
from .labels import Labels
from .loading import gist, package, the_file

SUFFIXES = (".onnx", ".pb", ".caffemodel", ".weights", ".tflite")
OVERLAP = 0.45  # IoU of two boxes of one class, above which YOLO's surer one hides the other
INPUT = re.compile(r"(\d+)x(\d+)(?:,(.+))?")
UNDERSTOOD = (
    "(1, 1, N, 7) with rows of picture, class, score and box (SSD), (1, 4 + classes, N) of YOLOv8 or later, or "
    "(1, N, 5 + classes) of YOLOv5"
)

See = Callable[[Image.Image], Iterator[tuple[int, Box, float]]]
"""What a detector finds in a picture: class, box in pixels, score."""


class Input(NamedTuple):
    """What a network reads: a picture of `width` x `height` pixels, whose values 0..255 are multiplied by `factor`."""

    width: int
    height: int
    factor: float

    @classmethod
    def parse(cls, text: str) -> Input:
        """From "300x300" or "640x640,1/255". Raises RealCompoError."""
        try:
            width, height, factor = INPUT.fullmatch(text.replace(" ", "")).groups()
            found = cls(int(width), int(height), float(Fraction(factor or 1)))
            if min(found) <= 0:
                raise ValueError
        except (AttributeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise RealCompoError(
                f"input is {text!r}: write width x height in pixels and the factor of the pixels' values, such as "
                "300x300 or 640x640,1/255"
            ) from error
        return found


def load(path: Path, config: Path | None, labels: Labels, read: str | None, above: float) -> See:
    """The network in `path` and `config`, which reads pictures in RGB, stretched to what `read` says.

    Without `read` an ONNX network reads 640x640 in 0..1 and any other 300x300 in 0..255. Raises ModelFileError for a
    network that cannot be loaded, PackageError without OpenCV.
    """
    cv2 = package("cv2", str(path), "opencv-python-headless")
    wanted = Input.parse(read or ("640x640,1/255" if path.suffix.lower() == ".onnx" else "300x300"))
    files = [str(the_file(file, str(path))) for file in (path, config) if file is not None]
    try:
        net = cv2.dnn.readNet(*files)
    except cv2.error as error:
        raise ModelFileError(
            f"cannot load {path}: {gist(error)}. Expected a network that OpenCV {cv2.__version__} reads; one of "
            "several files, such as a .pb, needs the other as config"
        ) from error

    def see(picture: Image.Image) -> Iterator[tuple[int, Box, float]]:
        size = (wanted.width, wanted.height)
        try:
            net.setInput(cv2.dnn.blobFromImage(np.asarray(picture), wanted.factor, size))
            outputs = net.forward(net.getUnconnectedOutLayersNames())
        except cv2.error as error:
            raise ModelFileError(
                f"{path} cannot read a picture of {wanted.width}x{wanted.height}: {gist(error)}. Give the size "
                "that it was made for as input"
            ) from error
        shapes = [output.shape for output in outputs]
        if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][:2] == (1, 1) and shapes[0][3] == 7:
            found = _of_ssd(outputs[0])
        elif len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][:2] == (1, 4 + labels.count):
            found = _of_yolo(outputs[0][0].T, 4, wanted, above, cv2)
        elif len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][::2] == (1, 5 + labels.count):
            found = _of_yolo(outputs[0][0], 5, wanted, above, cv2)
        else:
            raise ModelFileError(
                f"{path} returns {', '.join(map(str, shapes))} for {labels.count} classes: understood are {UNDERSTOOD}"
            )
        sides = np.array([picture.width, picture.height] * 2)
        for number, box, score in zip(*found, strict=True):
            x0, y0, x1, y1 = (box * sides).tolist()
            yield int(number), (x0, y0, x1, y1), float(score)

    return see


Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Classes (N,), boxes (N, 4) as shares of the picture's sides, scores (N,)."""


def _of_ssd(output: np.ndarray) -> Found:
    """output: (1, 1, N, 7), rows of picture, class, score, x0, y0, x1, y1."""
    rows = output[0, 0]
    return rows[:, 1], rows[:, 3:], rows[:, 2]


def _of_yolo(rows: np.ndarray, first: int, wanted: Input, above: float, cv2: Any) -> Found:
    """rows: (N, first + classes): centre, width and height in pixels of the input, objectness if `first` is 5, classes.

    A row is of its surest class. Of the boxes of one class that overlap the surest is left.
    """
    scores = rows[:, first:].max(1) * (rows[:, 4] if first == 5 else 1)
    rows, scores = rows[scores > above], scores[scores > above]
    classes = rows[:, first:].argmax(1) if len(rows) else np.zeros(0, int)
    corner, size = rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]
    kept = cv2.dnn.NMSBoxesBatched(
        np.hstack([corner, size]).tolist(), scores.tolist(), classes.tolist(), above, OVERLAP
    )
    kept = np.asarray(kept, int)
    boxes = np.hstack([corner, corner + size]) / np.array([wanted.width, wanted.height] * 2)
    return classes[kept], boxes[kept], scores[kept]
