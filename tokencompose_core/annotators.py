"""Models that annotate images, through transformers: CLIP for captions, Grounding DINO with SAM for masks.

Paths or names as transformers takes them; the settings are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForZeroShotObjectDetection, AutoProcessor, SamModel, SamProcessor

from realcompo_core.errors import RealCompoError

CLIP = "openai/clip-vit-large-patch14"
GROUNDING_DINO = "IDEA-Research/grounding-dino-base"
SAM = "facebook/sam-vit-huge"
BOX_THRESHOLD = TEXT_THRESHOLD = 0.25


class ClipChooser:
    """`ChooseCaption`: the caption of highest CLIP similarity."""

    def __init__(self, model: str = CLIP, device: str = "cpu"):
        self.identity = model
        self._model = _load(AutoModel, model).to(device)
        self._processor, self._device = _load(AutoProcessor, model), device

    @torch.no_grad()
    def __call__(self, image: Image.Image, captions: Sequence[str]) -> int:
        if len(captions) == 1:
            return 0
        inputs = self._processor(
            text=list(captions), images=image, return_tensors="pt", padding=True, truncation=True
        ).to(self._device)
        return int(self._model(**inputs).logits_per_image[0].argmax())


class GroundedSam:
    """`MakeMasks`: boxes of each noun by Grounding DINO, their masks by SAM, all instances joined."""

    def __init__(self, detector: str = GROUNDING_DINO, segmenter: str = SAM, device: str = "cpu"):
        self.identity = f"{detector} {segmenter}"
        self._detector = _load(AutoModelForZeroShotObjectDetection, detector).to(device)
        self._detector_processor = _load(AutoProcessor, detector)
        self._segmenter = _load(SamModel, segmenter).to(device)
        self._segmenter_processor, self._device = _load(SamProcessor, segmenter), device

    @torch.no_grad()
    def __call__(self, image: Image.Image, name: str, nouns: Sequence[str]) -> list[np.ndarray | None]:
        boxes = {noun: self._boxes(image, noun) for noun in nouns}
        return [self._mask(image, boxes[noun]) if len(boxes[noun]) else None for noun in nouns]

    def _boxes(self, image: Image.Image, noun: str) -> torch.Tensor:
        """(boxes, 4) in pixels, x0 y0 x1 y1."""
        inputs = self._detector_processor(images=image, text=f"{noun.lower()}.", return_tensors="pt").to(self._device)
        outputs = self._detector(**inputs)
        (found,) = self._detector_processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=BOX_THRESHOLD,
            text_threshold=TEXT_THRESHOLD,
            target_sizes=[image.size[::-1]],
        )
        return found["boxes"].cpu()

    def _mask(self, image: Image.Image, boxes: torch.Tensor) -> np.ndarray:
        inputs = self._segmenter_processor(image, input_boxes=[boxes.tolist()], return_tensors="pt").to(self._device)
        outputs = self._segmenter(**inputs, multimask_output=False)
        (masks,) = self._segmenter_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        return masks.flatten(0, -3).any(0).numpy()


def _load(kind, model: str):
    try:
        return kind.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RealCompoError(
            f"cannot load {model} ({error}): give a folder with it, or let transformers download it once"
        ) from error
