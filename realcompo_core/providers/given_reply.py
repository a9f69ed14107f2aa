"""Layouts from a reply that a language model gave elsewhere."""

from __future__ import annotations

from ..layout import Layout
from .continuation import continued
from .text import parse_reply


class TextProvider:
    """Parses `reply`; `format` as in `parse_reply`."""

    name = "text"

    def __init__(self, reply: str, format: str = "auto"):
        self.reply = reply
        self.format = format

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        return parse_reply(self.reply, prompt=prompt, size=size, format=self.format)

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        """The layout in the reply, as the one that follows `layout`; the reply answers the instruction."""
        return continued(layout, parse_reply(self.reply, size=size, format=self.format))
