"""The layout of each prompt: the scene's own, a file's, or one that a provider proposes and the run then keeps."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realcompo_core.bench.prompts import Prompt
from realcompo_core.errors import LayoutFormatError, RealCompoError
from realcompo_core.layout import Layout
from realcompo_core.providers import LayoutProvider, get_provider
from shapescenes.benchmark import ShapeScenes, scene_of

from .run import Run

FOLDER = "layouts"
SIZE = (512, 512)  # that a provider is asked for where the source says none


class Layouts:
    """Where a run's layouts come from. `files`: a folder with `INDEX.json` for each prompt; else `provider` is asked.

    ShapeScenes' prompts have true layouts, which are taken if neither is named.
    """

    def __init__(self, provider: str | None = None, files: Path | None = None):
        if provider and files:
            raise RealCompoError("--provider and --layouts both say whose layouts are taken: give one of them")
        if files is not None and not files.is_dir():
            raise RealCompoError(f"there is no folder {files}: name one with 0.json, 1.json … for --layouts")
        self._provider_name, self._files = provider, files
        self._provider: LayoutProvider | None = get_provider(provider) if provider else None

    def told(self, benchmark: str) -> str:
        """What decides them, for the run's document."""
        if self._files:
            content = b"".join(path.name.encode() + path.read_bytes() for path in sorted(self._files.glob("*.json")))
            return f"files, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"
        if benchmark == ShapeScenes.name and not self._provider_name:
            return "true"
        return f"provider {self._provider_name or 'rules'}"

    def of(self, run: Run, prompt: Prompt, size: tuple[int, int] | None) -> Layout:
        """Raises RealCompoError where there is none."""
        kept = run.folder / FOLDER / f"{prompt.index}.json"
        if self._files:
            layout = _read(self._files / kept.name)
            if not kept.exists():
                run.files.write(f"{FOLDER}/{kept.name}", layout.to_json())
            return layout
        if run.asked["benchmark"] == ShapeScenes.name and not self._provider_name:
            return scene_of(_record(prompt)).layout
        if kept.exists():
            return _read(kept)
        self._provider = self._provider or get_provider(self._provider_name or "rules")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the layout carries them
            layout = self._provider.propose(prompt.text, size or SIZE)
        if not layout.objects:
            raise RealCompoError(f"no layout: the provider {self._provider.name} finds no object in {prompt.text!r}")
        run.files.write(f"{FOLDER}/{prompt.index}.json", layout.to_json())
        return layout


def _read(path: Path) -> Layout:
    try:
        return Layout.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutFormatError(f"cannot read the layout {path}: {error}") from error


def _record(prompt: Prompt) -> Mapping[str, Any]:
    assert prompt.record is not None  # of ShapeScenes
    return prompt.record
