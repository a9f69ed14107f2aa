"""Pictures of a run with what was detected drawn on them: successes, and failures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from realcompo_core.bench.prompts import Prompt
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Seen
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.drawing import draw_layout
from realcompo_core.palettes import RGB, color_of

from .looking import read_picture
from .run import Run

COLUMNS, ROWS = 6, 2  # of each half
SIDE, GAP, LETTERS = 240, 16, 38  # pixels, and letters of a line below a picture
LINES, LINE = 3, 15
PAPER, TEXT, FAINT = (247, 247, 245), (29, 31, 36), (102, 106, 115)
UNWANTED: RGB = (150, 150, 150)  # boxes of what the prompt does not name


def chosen(success: Mapping[Picture, float], count: int, good: bool) -> list[Picture]:
    """Up to `count` pictures that succeed wholly, or of those that do not the worst, spread evenly over the run."""
    group = sorted((value, picture) for picture, value in success.items() if (value >= 1) == good)
    limit = group[min(count, len(group)) - 1][0] if group else 0
    worst = [picture for value, picture in group if value <= limit]
    return [worst[i * len(worst) // count] for i in range(count)] if len(worst) > count else worst


def contact_sheet(run: Run, seen: Mapping[Picture, Seen], success: Mapping[Picture, float]) -> Image.Image:
    """Both halves below each other, each with a heading; pictures by what the run's benchmark calls success."""
    prompts = {prompt.index: prompt for prompt in run.prompts}
    halves = [
        (title, chosen(success, COLUMNS * ROWS, good)) for title, good in (("Successes", True), ("Failures", False))
    ]
    cell = SIDE + LINES * LINE + GAP
    height = GAP + sum(34 + cell * -(-len(pictures) // COLUMNS) for _, pictures in halves)
    sheet = Image.new("RGB", (GAP + COLUMNS * (SIDE + GAP), height), PAPER)
    draw, y = ImageDraw.Draw(sheet), GAP
    heading, small = ImageFont.load_default(size=18), ImageFont.load_default(size=12)
    for title, pictures in halves:
        total = sum((value >= 1) == (title == "Successes") for value in success.values())
        draw.text((GAP, y), f"{title}: {total} of {len(success)}", fill=TEXT, font=heading)
        y += 34
        for i, picture in enumerate(pictures):
            x, top = GAP + i % COLUMNS * (SIDE + GAP), y + i // COLUMNS * cell
            prompt = prompts[picture.index]
            sheet.paste(with_boxes(run, picture, prompt, seen[picture], SIDE), (x, top))
            lines = textwrap.wrap(_plain(f"{prompt.index}_{picture.number}  {prompt.text}"), LETTERS)[:LINES]
            for n, line in enumerate(lines):
                draw.text((x, top + SIDE + 4 + n * LINE), line, fill=FAINT, font=small)
        y += cell * -(-len(pictures) // COLUMNS)
    return sheet


def with_boxes(run: Run, picture: Picture, prompt: Prompt, seen: Seen, side: int) -> Image.Image:
    """The picture in a square of `side` pixels, with the boxes above the threshold; those of no name of it are grey."""
    image = read_picture(run.pictures[picture])
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    objects, colors = [], []
    for d in seen.above(run.benchmark.threshold):
        box = seen.inside(d.box)
        if box is not None:
            objects.append(LayoutObject(f"{d.name} {d.score:.2f}", box))
            known = d.name in prompt.names
            colors.append(color_of(prompt.names.index(d.name)) if known else UNWANTED)
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(
        draw_layout(Layout(tuple(objects)), size, image, colors), ((side - size[0]) // 2, (side - size[1]) // 2)
    )
    return square


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()  # Pillow's own font has no more
