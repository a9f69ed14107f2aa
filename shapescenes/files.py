"""The shipped weights: how they are written, checked and read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from realcompo_core.errors import RealCompoError
from realcompo_core.files import replacing, write_file

WEIGHTS = Path(__file__).parent / "weights"


class WeightsError(RealCompoError):
    """A shipped weights file that is missing or damaged."""


def save(name: str, state: dict[str, Tensor]) -> None:
    """Write `weights/<name>.safetensors` in fp16 and its SHA-256 into `weights/checksums.json`."""
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{name}.safetensors"
    with replacing(path) as part:
        save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, part)
    index = WEIGHTS / "checksums.json"
    checksums = json.loads(index.read_text()) if index.exists() else {}
    checksums[path.name] = _sha256(path)
    write_file(index, json.dumps(checksums, indent=2, sort_keys=True) + "\n")


def load(name: str) -> dict[str, Tensor]:
    """The shipped weights `name` in fp32. Raises WeightsError where the file is missing or not the one shipped."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise WeightsError(f"{path} is missing: reinstall the package, or train it with `python -m shapescenes.train`")
    if _sha256(path) != json.loads((WEIGHTS / "checksums.json").read_text())[path.name]:
        raise WeightsError(f"{path} is damaged (its SHA-256 is not the one in checksums.json): reinstall the package")
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
