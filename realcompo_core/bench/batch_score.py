"""MultiGen's scores of a batch of pictures by the boxes that a detector found in them, as a table and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import RealCompoError
from ..layout.drawing import Size, draw_layout, readable_size
from ..layout.layout import Layout, LayoutObject
from ..palettes import color_of
from .host_boxes import class_key, seen_in_boxes, without_article
from .multigen import MultiGen, at_least, by_class, present
from .prompts import Prompt
from .scores import Metric, Picture
from .seen import Seen

LABELS = 20  # that a note lists at most


@dataclass(frozen=True)
class BatchScore:
    """What each picture of a batch shows of the classes that it should. `found` and `seen` are in the batch's order."""

    found: Mapping[Picture, Mapping[str, bool]]
    seen: Sequence[Seen]
    threshold: float
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(name for shown in self.found.values() for name in shown))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """MGk for each k up to the most classes that a picture should show."""
        return at_least(self.found, range(1, max(map(len, self.found.values())) + 1))

    @property
    def share(self) -> float:
        """The mean share of a picture's classes that it shows."""
        return float(np.mean([np.mean(list(shown.values())) for shown in self.found.values()]))

    @property
    def all_present(self) -> float:
        """The share of pictures that show all of their classes."""
        return float(np.mean([all(shown.values()) for shown in self.found.values()]))

    def table(self) -> str:
        """Markdown: notes, MGk with ± over rounds, the success rate by class, and what each picture shows and lacks."""
        parts = [f"Note: {note}" for note in self.notes]
        parts.append(_table(("score", "% of pictures"), [(m.name, str(m)) for m in self.metrics]))
        rates = [(m.name, f"{m.value:.2f}", str(m.count)) for m in by_class(self.found)]
        parts.append(_table(("class", "found in %", "of pictures"), rates))
        rows = [
            (str(b), *(_listed(name for name, there in shown.items() if there is wanted) for wanted in (True, False)))
            for b, shown in enumerate(self.found.values())
        ]
        parts.append(_table(("picture", "found", "missing"), rows))
        return "\n\n".join(parts)

    def draw(self, pictures: Iterable[Image.Image]) -> list[Image.Image]:
        """The pictures, small ones enlarged, with the boxes that count; a class has one colour in all of them."""
        colors = {name: color_of(index) for index, name in enumerate(self.classes)}
        drawn = []
        for picture, shown, seen in zip(pictures, self.found.values(), self.seen, strict=True):
            counted = [d for d in seen.above(self.threshold) if d.name in shown and seen.inside(d.box)]
            size = seen.width, seen.height
            objects = tuple(LayoutObject(f"{d.name} {d.score:.2f}", seen.inside(d.box)) for d in counted)
            drawn.append(draw_layout(Layout(objects), readable_size(size), picture, [colors[d.name] for d in counted]))
        return drawn


def score_batch(
    boxes: Any,
    names: str,
    pictures: int,
    size: Size,
    threshold: float = MultiGen.threshold,
    pictures_per_prompt: int = 1,
) -> BatchScore:
    """The scores of a batch of `pictures` of `size` (width, height); see `seen_in_boxes`, `read_prompts`.

    Boxes with a larger score than `threshold` count. Raises RealCompoError.
    """
    if not 0 <= threshold < 1:
        raise RealCompoError(f"threshold: {threshold:g}, expected from 0 to below 1: no score is larger than 1")
    prompts = read_prompts(names, pictures, pictures_per_prompt)
    classes = list(dict.fromkeys(name for prompt in prompts for name in prompt.names))
    seen = seen_in_boxes(boxes, classes, pictures, *size)
    places = [Picture(*divmod(b, pictures_per_prompt)) for b in range(pictures)]
    found = {
        place: present(prompts[place.index].names, one, threshold) for place, one in zip(places, seen, strict=True)
    }
    return BatchScore(found, seen, threshold, tuple(_notes(classes, seen)))


def read_prompts(names: str, pictures: int, pictures_per_prompt: int = 1) -> list[Prompt]:
    """The classes that each prompt's pictures should show, as their names with commas between them.

    One line is for all prompts; else there is one for each prompt, or for each picture. A class has one spelling in all
    of them, its first, without an article, and counts once in a line that names it twice. Raises RealCompoError.
    """
    if pictures_per_prompt < 1 or pictures % pictures_per_prompt:
        raise RealCompoError(
            f"pictures_per_prompt: {pictures_per_prompt}, and image has {pictures} pictures, which is no multiple of it"
        )
    count = pictures // pictures_per_prompt
    spellings: dict[str, str] = {}
    lines = []
    for line in filter(str.strip, names.splitlines()):
        own = [without_article(name) for name in line.split(",") if name.strip()]
        if not own:
            raise RealCompoError(f"names: {line!r} names no class: write a cat, a dog")
        lines.append(tuple(dict.fromkeys(spellings.setdefault(class_key(name), name) for name in own)))
    if not lines:
        raise RealCompoError("names: empty; write the classes that the pictures should show: a cat, a dog")
    if len(lines) == 1:
        lines *= count
    elif len(lines) == pictures != count:
        groups = [lines[b : b + pictures_per_prompt] for b in range(0, pictures, pictures_per_prompt)]
        for index, group in enumerate(groups):
            if len(set(map(frozenset, group))) > 1:
                raise RealCompoError(
                    f"names: the lines of the pictures of prompt {index} differ, and pictures_per_prompt is "
                    f"{pictures_per_prompt}: write the same for all pictures of a prompt, or one line for each prompt"
                )
        lines = [group[0] for group in groups]
    if len(lines) != count:
        each = "one for each" if count == pictures else f"one for each of the {count} prompts"
        raise RealCompoError(f"names: {len(lines)} lines for {pictures} pictures: write one line for all, or {each}")
    return [Prompt(index, ", ".join(line), line) for index, line in enumerate(lines)]


def _notes(classes: Sequence[str], seen: Sequence[Seen]) -> list[str]:
    """That no box has a class's name, whatever its score, and what the detector may call it instead."""
    labels = {d.name for one in seen for d in one.detections}
    if not labels:
        return ["no picture has a box"]
    others = sorted(labels - set(classes))
    more = f" … ({len(others)} in all)" if len(others) > LABELS else ""
    instead = f"other labels are: {', '.join(others[:LABELS])}{more}" if others else "there is no other label"
    return [f"no box of any picture is labelled {name}; {instead}" for name in classes if name not in labels]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
