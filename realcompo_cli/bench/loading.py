"""Models that look at pictures: how they are loaded, and what says which model it was."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig

from realcompo_core.errors import RealCompoError

from ..files import fingerprint_of
from ..models import ModelFileError, check_device

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
LOADING_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What libraries raise for models that are not there, broken, or of another kind."""


class PackageError(RealCompoError):
    """A model that needs a package which is not installed, or which does not work here."""


class Classes(NamedTuple):
    """Which classes of transformers load a model and what prepares its input."""

    model: Any
    processor: Any
    dtype: torch.dtype | str = torch.float32


class Pretrained(NamedTuple):
    """A model of transformers, on its device. `identity` says which it is, `name` what a report calls it."""

    model: Any
    processor: Any
    name: str
    identity: dict[str, Any]


def load_pretrained(spec: str, classes: Callable[[PretrainedConfig], Classes], device: str) -> Pretrained:
    """A model of transformers from a folder or from the hub: only a hub id, owner/name, may download.

    Raises ModelFileError for a model that cannot be loaded, PackageError where a package is missing that it needs,
    DeviceError for a device that is not there.
    """
    check_device(device)
    folder = Path(spec).is_dir()
    if not folder and not HUB_ID.fullmatch(spec):
        raise ModelFileError(
            f"{spec} is not there: expected a folder with config.json, or the id of a model of the hub, owner/name"
        )
    options = {"local_files_only": folder}
    try:
        config = AutoConfig.from_pretrained(spec, **options)
        chosen = classes(config)
        model = chosen.model.from_pretrained(spec, dtype=chosen.dtype, **options).eval().to(device)
        processor = chosen.processor.from_pretrained(spec, **options)
    except ImportError as error:
        raise PackageError(
            f"{spec} needs a package that cannot be used here: {gist(error)}. Install it with pip"
        ) from error
    except LOADING_ERRORS as error:
        advice = (
            "Expected a folder that `save_pretrained` has written, with the model and what prepares its input"
            if folder
            else "There is no such folder, and the hub's model of this id could not be loaded"
        )
        raise ModelFileError(f"cannot load {spec}: {gist(error)}. {advice}.") from error
    saved_as = config.architectures or [type(model).__name__]
    if type(model).__name__ not in saved_as:  # its missing weights would be random numbers
        raise ModelFileError(f"{spec} is a {saved_as[0]}, not a {type(model).__name__}: choose a model of that kind")
    identity = {"model": spec, "revision": getattr(config, "_commit_hash", None)}
    if folder:
        identity = {"model": str(Path(spec).resolve()), "files": fingerprint_of(Path(spec))}
    name = Path(spec).resolve().name if folder else spec
    return Pretrained(model, processor, name, identity)


def package(name: str, spec: str, install: str) -> ModuleType:
    """The module `name`, which `spec` needs. Raises PackageError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # torchvision of another torch raises RuntimeError
        raise PackageError(
            f"{spec} needs {name.partition('.')[0]}, which cannot be used here ({gist(error)}): pip install {install}"
        ) from error


def the_file(path: Path, spec: str) -> Path:
    """The path. Raises ModelFileError where no file is there."""
    if not path.is_file():
        raise ModelFileError(f"{spec} is not there: {path} is no file. Check the path")
    return path


def file_identity(path: Path) -> dict[str, Any]:
    """A file's path and the SHA-256 of what is in it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return {"path": str(path.resolve()), "sha256": digest.hexdigest()}


def gist(error: Exception) -> str:
    """The first sentence of what a library says; some add pages."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return re.split(r"\.?\s*\n|\.\s", text.strip())[0].rstrip(".:") or type(error).__name__
