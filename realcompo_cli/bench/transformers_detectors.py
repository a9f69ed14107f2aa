"""Detectors of transformers: those that look for any words, and those that know some classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForUniversalSegmentation,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    PretrainedConfig,
)

from realcompo_core.bench.seen import Box, Detection
from realcompo_core.errors import RealCompoError

from .labels import Labels
from .loading import Classes, Pretrained, load_pretrained
from .opencv_detectors import See

OWL = ("owlvit", "owlv2")
GROUNDING_DINO = ("grounding-dino", "mm-grounding-dino")
MASKS = ("mask2former", "maskformer")

Find = Callable[[Image.Image, Sequence[str]], Iterator[Detection]]
"""What a detector finds of these names, however sure it is."""


def load(spec: str, device: str, above: float) -> tuple[Pretrained, Find | None, See | None]:
    """The model, and what it does: find any names, or see what it has classes for.

    Raises ModelFileError.
    """
    loaded = load_pretrained(spec, _classes, device)
    kind = loaded.model.config.model_type
    if kind in OWL:
        return loaded, _owl(loaded, above), None
    if kind in GROUNDING_DINO:
        return loaded, _grounding_dino(loaded), None
    return loaded, None, _masks(loaded, above) if kind in MASKS else _boxes(loaded, above)


def labels_of(loaded: Pretrained) -> Labels:
    """The classes that the model's configuration names."""
    return Labels({int(number): (str(name),) for number, name in loaded.model.config.id2label.items()})


def _classes(config: PretrainedConfig) -> Classes:
    if config.model_type in (*OWL, *GROUNDING_DINO):
        return Classes(AutoModelForZeroShotObjectDetection, AutoProcessor)
    if config.model_type in MASKS:
        return Classes(AutoModelForUniversalSegmentation, AutoImageProcessor)
    return Classes(AutoModelForObjectDetection, AutoImageProcessor)


def _owl(loaded: Pretrained, above: float) -> Find:
    """OWL-ViT and OWLv2: each box is of the text that it is most like.

    OWLv2 sees a picture padded to a square; its processor knows that.
    """
    model, processor = loaded.model, loaded.processor

    @torch.inference_mode()
    def find(picture: Image.Image, names: Sequence[str]) -> Iterator[Detection]:
        texts = [f"a photo of a {name}" for name in names]
        inputs = processor(text=[texts], images=picture, return_tensors="pt", truncation=True).to(model.device)
        (found,) = processor.post_process_grounded_object_detection(
            model(**inputs), threshold=above, target_sizes=[(picture.height, picture.width)]
        )
        for number, box, score in _rows(found):
            yield Detection(names[number], box, score)

    return find


def _grounding_dino(loaded: Pretrained) -> Find:
    """Grounding DINO reads all names as one text, "a cat. a dog."; a box is of the name that has its surest token."""
    model, processor = loaded.model, loaded.processor
    stop = processor.tokenizer.convert_tokens_to_ids(".")

    @torch.inference_mode()
    def find(picture: Image.Image, names: Sequence[str]) -> Iterator[Detection]:
        text = "".join(f"{name.lower().replace('.', ' ')}. " for name in names).rstrip()
        inputs = processor(images=picture, text=text, return_tensors="pt").to(model.device)
        ids, longest = inputs.input_ids[0], model.config.max_text_len
        if len(ids) > longest:
            raise RealCompoError(
                f"the {len(names)} names of a prompt are {len(ids)} tokens, and {loaded.name} reads {longest}: take "
                "another detector"
            )
        output = model(**inputs)
        owner = (ids == stop).cumsum(0)  # whose token it is: as many stops are before it
        owner[ids == stop] = owner[0] = len(names)  # nobody's, like the text's own first and last
        of_names = [output.logits[0, :, : len(ids)][:, owner == i] for i in range(len(names))]
        scores, numbers = torch.stack([tokens.sigmoid().amax(1) for tokens in of_names], 1).max(1)
        centre, size = output.pred_boxes[0].split(2, -1)
        sides = torch.tensor([picture.width, picture.height] * 2, device=model.device)
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1) * sides
        for number, box, score in _rows({"labels": numbers, "boxes": boxes, "scores": scores}):
            yield Detection(names[number], box, score)

    return find


def _boxes(loaded: Pretrained, above: float) -> See:
    """DETR and its kin."""
    model, processor = loaded.model, loaded.processor

    @torch.inference_mode()
    def see(picture: Image.Image) -> Iterator[tuple[int, Box, float]]:
        inputs = processor(images=picture, return_tensors="pt").to(model.device)
        (found,) = processor.post_process_object_detection(
            model(**inputs), threshold=above, target_sizes=[(picture.height, picture.width)]
        )
        yield from _rows(found)

    return see


def _masks(loaded: Pretrained, above: float) -> See:
    """Mask2Former and MaskFormer: the boxes around the masks of instances."""
    model, processor = loaded.model, loaded.processor

    @torch.inference_mode()
    def see(picture: Image.Image) -> Iterator[tuple[int, Box, float]]:
        inputs = processor(images=picture, return_tensors="pt").to(model.device)
        output = model(**inputs)
        output = SimpleNamespace(  # its processor mixes in tensors of the CPU
            class_queries_logits=output.class_queries_logits.cpu(),
            masks_queries_logits=output.masks_queries_logits.cpu(),
        )
        (found,) = processor.post_process_instance_segmentation(
            output, threshold=above, target_sizes=[(picture.height, picture.width)], return_binary_maps=True
        )
        segments = found["segments_info"]
        for segment, mask in zip(segments, found["segmentation"][: len(segments)], strict=True):
            yield segment["label_id"], _box_around(mask), segment["score"]

    return see


def _box_around(mask: Tensor) -> Box:
    """mask: (H, W) with a pixel that is not 0."""
    rows, columns = mask.amax(1).nonzero()[:, 0], mask.amax(0).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _rows(found: dict[str, Any]) -> Iterator[tuple[int, Box, float]]:
    """The class or text, box and score of each of what a processor has found."""
    yield from zip(found["labels"].tolist(), map(tuple, found["boxes"].tolist()), found["scores"].tolist(), strict=True)
