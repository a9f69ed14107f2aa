"""Layouts that a language model proposed once, kept on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

from ..files import cache_folder, write_file
from ..layout import Layout
from .openai_server import OpenAIProvider


class CachedProvider:
    """Asks `provider` once per request; afterwards the layout comes from `folder`.

    A request is the provider's `request_key` (address, model, seed, template, size; the prompt, or a layout and an
    instruction). Replies that cannot be parsed raise and are not stored. A damaged file counts as absent. A folder that
    cannot be written gives a warning.
    """

    def __init__(self, provider: OpenAIProvider, folder: Path | None = None):
        self.provider = provider
        self.name = provider.name
        self.folder = cache_folder("layouts") if folder is None else Path(folder)

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        request = self.provider.request_key(size, prompt=prompt)
        return self._kept(request, lambda: self.provider.propose(prompt, size))

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        request = self.provider.request_key(size, layout=layout.to_dict(), instruction=instruction)
        return self._kept(request, lambda: self.provider.revise(layout, instruction, size))

    def _kept(self, request: dict, ask: Callable[[], Layout]) -> Layout:
        key = json.dumps(request, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        try:
            return Layout.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            layout = ask()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, layout.to_json(), shared=True)
        except OSError as error:
            warnings.warn(f"the layout is not cached, {path} cannot be written: {error}", stacklevel=3)
        return layout
