"""What training has learnt: on a model, and as a file that the host's LoRA loaders read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from realcompo_core.errors import RealCompoError
from realcompo_core.files import replacing

from .folders import check_links, check_name, inside

PARTS = {  # how each part of what was learnt fits a weight: the shapes of both
    ".lora_A.weight": lambda found, weight: found[1:] == weight[1:],
    ".lora_B.weight": lambda found, weight: found[:1] == weight[:1],
    ".diff": lambda found, weight: found == weight,
    ".diff_b": lambda found, weight: found == weight,
}


def with_lora(model: Any, lora: dict[str, Tensor], strength: float) -> Any:
    """A clone of the model with what was learnt. Raises RealCompoError where it is not for this model."""
    shapes = {key: tuple(weight.shape) for key, weight in model.model.state_dict().items()}
    for key, tensor in lora.items():
        layer, part = next(((key.removesuffix(p), p) for p in PARTS if key.endswith(p)), (key, ""))
        shape = shapes.get(f"{layer}.{'bias' if part == '.diff_b' else 'weight'}")
        if not part or shape is None or not PARTS[part](tuple(tensor.shape), shape):
            raise RealCompoError(
                f"lora: {key} of shape {tuple(tensor.shape)} does not fit this model, which is a "
                f"{type(model.model.model_config).__name__}: load one of the family that it was trained on, or use the "
                "host's Load LoRA for files of other trainers"
            )
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


def save_lora(lora: dict[str, Tensor], name: str) -> str:
    """Write models/loras/NAME_00001_.safetensors, or the next number; returns the name that LoRA loaders list.

    Raises RealCompoError for a name outside of that folder, and where the file cannot be written.
    """
    root = os.path.abspath(folder_paths.get_folder_paths("loras")[0])
    name = name.removesuffix(".safetensors")
    inside(root, name, "name")
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(name, root)
    path = Path(folder) / f"{stem}_{counter:05}_.safetensors"
    try:
        with replacing(path, sync=True) as part:
            save_file({key: tensor.contiguous() for key, tensor in lora.items()}, part)
    except (OSError, SafetensorError) as error:
        raise RealCompoError(f"cannot write {path}: {error}. Free some room, or choose another name") from error
    return str(Path(subfolder) / path.name)


def load_lora(file: str) -> dict[str, Tensor]:
    """What a file in the host's models/loras folders holds. Raises RealCompoError where there is none."""
    check_name("models/loras", file, "file")
    path = folder_paths.get_full_path("loras", file)
    if path is None:
        raise RealCompoError(f"file: {file!r} is not in models/loras: refresh the list and choose another one")
    check_links(folder_paths.get_folder_paths("loras"), Path(path), "file")
    return comfy.utils.load_torch_file(path, safe_load=True)
