"""The built-in layout provider: English grammar and geometry, no model, no network, the same layout every time."""

from __future__ import annotations

from ..errors import ProviderError
from ..layout import Layout, LayoutObject
from .grammar import parse
from .placement import place
from .revision import revise


class RulesProvider:
    """Layouts by rules: `grammar` parses the sentence, `placement` finds boxes that satisfy all its relations."""

    name = "rules"

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        """The layout of `prompt` for a picture of `size` = (width, height) pixels.

        A prompt that only says what is absent gives a layout without objects. Raises ProviderError for a prompt without
        a readable object, TooManyObjectsError for more than 30, LayoutError for relations that exclude each other.
        """
        width, height = size
        if not (width > 0 and height > 0):
            raise ProviderError(f"size {size}: width and height in pixels must be above 0")
        scene = parse(prompt)
        objects = tuple(LayoutObject(phrase, box) for phrase, box in place(scene, width / height))
        layout = Layout(objects, ", ".join(scene.background), ", ".join(scene.absent), prompt)
        return layout.validate(prompt)

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        """`layout` changed as `instruction` says, in the closed form of English that `revision` reads."""
        return revise(layout, instruction, size)
