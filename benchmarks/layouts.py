"""How well a layout provider reads prompts: the published benchmarks' and any others, without drawing a picture.

    python benchmarks/layouts.py spatial_val.txt counting.val.json tests/data/everyday_prompts.json --failures 10

FILES: in the formats of `layout_prompts.py`; by default the published prompts of `published_data.py` that are at hand
and the project's own. What a layout has to satisfy comes from the file's labels or its sentences' fixed form, and is
checked by `layout_checks.py`, which does not know how the provider reads. Where the benchmarks' own files are:
`examples/dataset/*_val.txt` in https://github.com/Karine-Huang/T2I-CompBench and `dataset/NSR-1K` in
https://github.com/weixi-feng/LayoutGPT.

Columns, per file:

- prompts, and how many of them have labels; refused: the provider raised an error that names what is wrong
- count: of the prompts with labelled objects, those with all of them in the right number, and no others where the
  label names all; relation, attribute: likewise
- satisfied: of the labelled prompts, those with nothing wrong that a label can tell
- well formed: of the layouts, those whose phrases are spans of the prompt with a noun as head, with no absurd boxes
- warned: layouts with a warning; ms: mean time of a prompt, after one that loads what has to be loaded

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).parents[1])  # runs from a checkout that is not installed

from PIL import Image, ImageDraw, ImageFont

from benchmarks.layout_checks import FORM, Expected, Problem, problems
from benchmarks.layout_prompts import read_prompts
from benchmarks.published_data import LMD_REPLIES, MULTIGEN_PROMPTS, published_file
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from realcompo_core.layout.drawing import ascii_text, draw_layout
from realcompo_core.providers import LayoutProvider, get_provider

EVERYDAY = Path(__file__).parents[1] / "tests" / "data" / "everyday_prompts.json"
WARM_UP = "a red circle to the left of a blue square"

COLUMNS, ROWS = 6, 4  # of a contact sheet
CELL, TEXT = 300, 92  # pixels: side of a picture, height of the text below
PAPER, INK, BAD = "white", "#1d1f24", "#b3261e"


class Result(NamedTuple):
    """What a provider made of a prompt. Without `layout`, `error` says why."""

    expected: Expected
    layout: Layout | None
    error: str
    problems: list[Problem]
    seconds: float

    @property
    def wrong(self) -> list[Problem]:
        """The problems that labels tell."""
        return [problem for problem in self.problems if problem.kind not in FORM]


def measure(provider: LayoutProvider, expectations: Iterable[Expected], size: tuple[int, int]) -> list[Result]:
    """The provider's layouts of all prompts, checked. Errors other than the project's own pass."""
    results = []
    for expected in expectations:
        layout, message = None, ""
        start = time.perf_counter()
        try:
            layout = provider.propose(expected.prompt, size)
        except RealCompoError as error:
            message = str(error)
        seconds = time.perf_counter() - start
        results.append(Result(expected, layout, message, problems(expected, layout), seconds))
    return results


def summary(results: Sequence[Result]) -> dict[str, float | int | None]:
    """The columns of one file; None where nothing was there to be counted."""
    labelled = [result for result in results if result.expected.labelled]
    layouts = [result for result in results if result.layout is not None]

    def without(kinds: set[str], chosen: Sequence[Result]) -> float | None:
        kinds = kinds | {"refused"}
        return share(not any(problem.kind in kinds for problem in result.problems) for result in chosen)

    return {
        "prompts": len(results),
        "labelled": len(labelled),
        "refused": sum(result.layout is None for result in results),
        "count": without({"count", "extra", "comparison"}, [r for r in labelled if r.expected.objects]),
        "relation": without({"relation"}, [r for r in labelled if r.expected.relations]),
        "attribute": without({"attribute"}, [r for r in labelled if r.expected.attributes]),
        "satisfied": share(not result.wrong for result in labelled),
        "well formed": share(not any(problem.kind in FORM for problem in result.problems) for result in layouts),
        "warned": sum(bool(result.layout.warnings) for result in layouts),
        "ms": round(1000 * sum(result.seconds for result in results) / len(results), 2),
    }


def share(outcomes: Iterable[bool]) -> float | None:
    outcomes = list(outcomes)
    return round(sum(outcomes) / len(outcomes), 4) if outcomes else None


def print_table(rows: dict[str, dict]) -> None:
    names = list(next(iter(rows.values())))
    table = [["file", *names]]
    table += [[file, *("–" if row[name] is None else str(row[name]) for name in names)] for file, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def print_failures(results: Sequence[Result], limit: int) -> None:
    """The first `limit` prompts with a problem, and what is wrong with each."""
    for result in [result for result in results if result.problems][:limit]:
        print(f"  {result.expected.prompt}")
        for kind, text in result.problems:
            print(f"    {kind}: {result.error if kind == 'refused' else text}")


def draw_sheets(results: Sequence[Result], path: Path) -> list[Path]:
    """Contact sheets of all layouts, FILE_1.png and so on, with prompt, problems and warnings below each picture."""
    pages = []
    for start in range(0, len(results), COLUMNS * ROWS):
        cells = results[start : start + COLUMNS * ROWS]
        rows = -(-len(cells) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + TEXT)), PAPER)
        for i, result in enumerate(cells):
            sheet.paste(draw_cell(result), (i % COLUMNS * CELL, i // COLUMNS * (CELL + TEXT)))
        pages.append(path.with_stem(f"{path.stem}_{len(pages) + 1}"))
        sheet.save(pages[-1])
    return pages


def draw_cell(result: Result) -> Image.Image:
    cell = Image.new("RGB", (CELL, CELL + TEXT), PAPER)
    draw = ImageDraw.Draw(cell)
    font = ImageFont.load_default(size=11)
    if result.layout is not None:
        cell.paste(draw_layout(result.layout, (CELL - 6, CELL - 6)), (3, 3))
    text, color = result.expected.prompt, INK
    lines = [(line, color) for line in wrapped(text, font, CELL - 8)][:4]
    notes = [f"{kind}: {why}" for kind, why in result.problems]
    notes += [f"warning: {warning}" for warning in (result.layout.warnings if result.layout else ())]
    if result.layout is None:
        notes = [f"refused: {result.error}"]
    for note in notes:
        lines += [(line, BAD) for line in wrapped(note, font, CELL - 8)]
    row = TEXT // 7
    for i, (line, ink) in enumerate(lines[:7]):
        draw.text((4, CELL + i * row), line, ink, font)
    return cell


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in ascii_text(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def saved(results: Sequence[Result]) -> list[dict]:
    return [
        {
            "prompt": result.expected.prompt,
            "problems": [problem._asdict() for problem in result.problems],
            "error": result.error,
            "layout": result.layout and result.layout.to_dict(),
        }
        for result in results
    ]


def default_files() -> list[Path]:
    """The project's own prompts, and the published ones that are at hand."""
    found = [EVERYDAY]
    for name in (MULTIGEN_PROMPTS, LMD_REPLIES):
        try:
            found.append(published_file(name))
        except FileNotFoundError as error:
            print(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILES")
    parser.add_argument("--provider", default="rules", help="as in `realcompo providers`; a language model's is slow")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N prompts of each file")
    parser.add_argument("--styles", action="store_true", help="a row for each style of a file's prompts as well")
    parser.add_argument("--failures", type=int, default=0, metavar="N", help="print N failing prompts a file, and why")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw all layouts: FILE_1.png and so on")
    parser.add_argument("--output", type=Path, metavar="RESULTS.json", help="save all layouts and problems")
    arguments = parser.parse_args()
    provider = get_provider(arguments.provider)
    size = tuple(arguments.size)
    provider.propose(WARM_UP, size)
    rows: dict[str, dict] = {}
    everything: dict[str, list[Result]] = {}
    for path in arguments.files or default_files():
        try:
            expectations = read_prompts(path)[: arguments.limit]
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        results = everything[path.name] = measure(provider, expectations, size)
        rows[path.name] = summary(results)
        if arguments.styles:
            for style in dict.fromkeys(result.expected.style for result in results):
                rows[f"{path.name}: {style}"] = summary([each for each in results if each.expected.style == style])
        if arguments.failures:
            print(path.name)
            print_failures(results, arguments.failures)
    print_table(rows)
    if arguments.sheet:
        pages = draw_sheets([result for results in everything.values() for result in results], arguments.sheet)
        print(f"contact sheets: {', '.join(map(str, pages))}")
    if arguments.output:
        text = json.dumps(
            {"files": rows, "results": {name: saved(each) for name, each in everything.items()}}, indent=1
        )
        arguments.output.write_text(text + "\n", encoding="utf-8")
    print(json.dumps({"provider": arguments.provider, "files": rows}))


if __name__ == "__main__":
    main()
