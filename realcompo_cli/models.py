"""Models from the user's disk. Nothing is downloaded."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from realcompo_core.diffusers.matching import is_sdxl_file
from realcompo_core.errors import RealCompoError

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# The command line has bars of its own.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


class ModelFileError(RealCompoError):
    """A model on disk that cannot be loaded."""


class DeviceError(RealCompoError):
    """A device that this computer, or this build of torch, does not have."""


def check_device(device: str) -> None:
    """Raises DeviceError for a device that cannot be used."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"cannot use device {device!r}: {error}. The best one here is {best_device()!r}") from error


def best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_one(path: Path, dtype: str, config: Path | None) -> DiffusionPipeline:
    """One model on the CPU. Raises ModelFileError."""
    options = {"torch_dtype": DTYPES[dtype], "local_files_only": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype gets a new name; older releases know only this
            if path.is_dir():
                return DiffusionPipeline.from_pretrained(path, safety_checker=None, **options)
            kind = StableDiffusionXLPipeline if is_sdxl_file(str(path)) else StableDiffusionPipeline
            return kind.from_single_file(str(path), config=config and str(config), **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        advice = "Expected a diffusers folder (with model_index.json) or an SD1.x, SD2.x or SDXL .safetensors file"
        if path.is_file() and config is None:
            advice += "; a file's configuration and tokenizer come from a diffusers folder: name one with --config"
        raise ModelFileError(f"cannot load {path}: {error}. {advice}.") from error
