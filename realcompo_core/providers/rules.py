"""The built-in layout provider: English grammar and geometry, no model, no network, the same layout every time."""

from __future__ import annotations

from ..errors import PhraseNotInPromptError, ProviderError
from ..layout import Layout, LayoutObject
from ..text.words import match_phrases
from .english.grammar import HINT, parse
from .placement import place
from .revision import revise


class RulesProvider:
    """Layouts by rules: `grammar` parses the sentence, `placement` finds boxes that satisfy all its relations."""

    name = "rules"

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        """The layout of `prompt` for a picture of `size` = (width, height) pixels.

        A prompt that only says what is absent gives a layout without objects. What cannot be read, and relations that
        exclude each other, are left out with a warning in `Layout.warnings`. Raises ProviderError for a prompt without
        a readable object, TooManyObjectsError for more than 30, LayoutError if the objects find no room.
        """
        width, height = size
        if not (width > 0 and height > 0):
            raise ProviderError(f"size {size}: width and height in pixels must be above 0")
        scene = parse(prompt)
        boxes, left_out = place(scene, width / height)
        warnings = [*scene.warnings, *(f"left out, as it excludes what was said before: {text!r}" for text in left_out)]
        objects = []
        for phrase, box in boxes:
            try:
                match_phrases([phrase], prompt)
            except PhraseNotInPromptError:
                warnings.append(f"left out, as its words are not found in the prompt: {phrase!r}")
            else:
                objects.append(LayoutObject(phrase, box))
        if not objects and not scene.absent:
            raise ProviderError(f"rules finds no object in prompt {prompt!r}. {HINT}")
        background, absent = ", ".join(scene.background), ", ".join(scene.absent)
        return Layout(tuple(objects), background, absent, prompt, tuple(warnings)).validate(prompt)

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        """`layout` changed as `instruction` says, in the closed form of English that `revision` reads."""
        return revise(layout, instruction, size)
