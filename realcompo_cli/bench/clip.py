"""CLIP and its kin: how alike a picture and a text are, and which colour an object has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from realcompo_core.bench.geneval import colour_texts
from realcompo_core.bench.seen import Box, Detection

from ..models import ModelFileError
from .loading import Classes, load_pretrained

BATCH = 16  # pictures in one pass


@dataclass(frozen=True)
class Clip:
    """A model of pictures and texts. `name` is what a report calls it, `identity` says which model it is, as JSON."""

    name: str
    identity: Mapping[str, Any]
    model: Any
    processor: Any
    _colours: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def likeness(self, picture: Image.Image, texts: Sequence[str]) -> list[float]:
        """The cosine of the features of the picture and of each text, which is cut off where the model's texts end."""
        if not texts:
            return []
        return (self._texts(texts) @ self.features([picture])[0]).tolist()

    @torch.inference_mode()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(B, D): the features of pictures in RGB, of length 1, on the CPU."""
        found = []
        for first in range(0, len(pictures), BATCH):
            inputs = self.processor.image_processor(
                list(pictures[first : first + BATCH]), return_tensors="pt", input_data_format="channels_last"
            ).to(self.model.device)
            found.append(_unit(self.model.get_image_features(**inputs)))
        return torch.cat(found)

    def colours(self, picture: Image.Image, detections: Sequence[Detection], name: str) -> list[str]:
        """The colour of each detection of an object called `name`, as GenEval tells it; "" of a box without pixels."""
        crops = [_crop(picture, detection.box) for detection in detections]
        seen = [crop for crop in crops if crop is not None]
        if not seen:
            return [""] * len(crops)
        if name not in self._colours:
            texts = colour_texts(name).values()
            self._colours[name] = F.normalize(torch.stack([self._texts(some).mean(0) for some in texts]), dim=-1)
        nearest = (self.features(seen) @ self._colours[name].T).argmax(1).tolist()
        told = iter(list(colour_texts(name))[i] for i in nearest)
        return ["" if crop is None else next(told) for crop in crops]

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> Tensor:
        """(T, D): the features of texts, of length 1, on the CPU."""
        longest = self.model.config.text_config.max_position_embeddings
        inputs = self.processor.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.model.device)
        return _unit(self.model.get_text_features(**inputs))


def load_clip(spec: str, device: str = "cpu") -> Clip:
    """CLIP, SigLIP or their kin, from a folder or by its id on the hub. Raises ModelFileError or DeviceError."""
    loaded = load_pretrained(spec, lambda config: Classes(AutoModel, AutoProcessor), device)
    if not (hasattr(loaded.model, "get_text_features") and hasattr(loaded.model, "get_image_features")):
        raise ModelFileError(
            f"{spec} is a {type(loaded.model).__name__}, which does not compare pictures with texts: choose a CLIP or "
            "a SigLIP"
        )
    return Clip(loaded.name, loaded.identity, loaded.model, loaded.processor)


def _unit(output: Any) -> Tensor:
    """output: features (B, D), or what holds them as `pooler_output`, as releases of transformers differ."""
    return F.normalize(getattr(output, "pooler_output", output).float(), dim=-1).cpu()


def _crop(picture: Image.Image, box: Box) -> Image.Image | None:
    """The pixels of a box that are in the picture, its edges rounded; None if there are none."""
    x0, y0, x1, y1 = (round(edge) for edge in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, picture.width), min(y1, picture.height)
    return picture.crop((x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else None
