"""The report on one or several runs: one table side by side, as Markdown and as a self-contained HTML page."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from realcompo_core.bench.published import Published, published_for
from realcompo_core.bench.scores import Metric, Picture, Scores
from realcompo_core.errors import RealCompoError

from ..page import STYLE as PAGE_STYLE
from .contact_sheet import contact_sheet
from .run import Run
from .scoring import COST, QUALITY, STYLE, read_scored

EVERYWHERE = (QUALITY, STYLE, COST)
COUNTED = "pictures scored"
SHOWN_PROBLEMS = 20  # of each run
LONGEST_GROUP = 12  # rows of a table of detail that the page shows open


@dataclass(frozen=True)
class Reported:
    """A run with its scores, as `score` has written them."""

    run: Run
    document: Mapping[str, Any]
    name: str

    @property
    def scores(self) -> Scores:
        return Scores.from_json(self.document["scores"])

    @property
    def success(self) -> dict[Picture, float]:
        return {Picture(index, number): value for index, number, value in self.document["success"]}

    @property
    def problems(self) -> list[str]:
        told = [f"{where}: {what}" for where, what in self.document["problems"]]
        if (now := len(self.run.seen())) != self.document["scored"] or self.run.asked != self.document["asked"]:
            told.append(f"{now} pictures are seen now: the scores are older, run `realcompo bench score` again")
        return told

    @property
    def counted(self) -> str:
        return f"{self.document['scored']} of {self.document['pictures']}"

    @property
    def facts(self) -> dict[str, str]:
        """How the run was made, in lines."""
        asked = self.document["asked"]
        limit = f", the first {asked['limit']}" if asked["limit"] else ""
        seeds = f"{asked['seed']} + 1000 · prompt + picture"
        models = "; ".join(f"{what}: {_short(known)}" for what, known in self.document["models"].items())
        return {
            "benchmark": f"{self.run.benchmark.title}: {self.run.benchmark.source}",
            "pictures": f"{self.counted} scored",
            "prompts": f"{asked['prompts']} (SHA-256 {asked['prompts_sha256'][:12]}){limit}",
            "source": _short(asked["source"]),
            "seeds": seeds,
            "seen by": models or "nothing",
            "commands": " ; ".join(self.document["commands"]),
            "versions": self.document["versions"],
        }


def read_runs(folders: Sequence[Path]) -> list[Reported]:
    """Raises RealCompoError for a folder without scores, and for runs of several benchmarks."""
    found = []
    for folder in folders:
        document = read_scored(folder)
        found.append(Reported(Run(folder), document, folder.resolve().name))
    names = {(r.document["asked"]["benchmark"], r.document["asked"]["category"]) for r in found}
    if len(names) > 1:
        told = ", ".join(sorted(" ".join(filter(None, name)) for name in names))
        raise RealCompoError(f"the runs are of several benchmarks ({told}): report on each alone")
    if len({r.name for r in found}) < len(found):
        found = [Reported(r.run, r.document, str(folder)) for r, folder in zip(found, folders, strict=True)]
    return found


def published_beside(runs: Sequence[Reported]) -> tuple[Published | None, str]:
    """The papers' figures, if all runs are in their setting; and a sentence on them, which may be empty."""
    asked = runs[0].document["asked"]
    known = published_for(asked["benchmark"], asked["category"])
    if known is None:
        return None, ""
    for r in runs:
        models = {what: model["name"] for what, model in r.document["models"].items()}
        prompts = r.run.prompt_file.prompts[: r.document["asked"]["limit"]]
        difference = known.difference(prompts, r.document["asked"]["pictures"], models)
        if difference is None and r.document["scored"] < r.document["pictures"]:
            difference = f"only {r.counted} pictures are scored"
        if difference:
            return None, f"{known.source} has figures of another setting than {r.name}: {difference}."
    return known, f"Figures in italics: {known.source}. Their models, samplers and library versions are their own."


def columns(runs: Sequence[Reported], published: Published | None) -> list[tuple[str, Mapping[str, str]]]:
    """Each run's figures by metric, then each published method's."""
    found = [(r.name, {m.name: str(m) for m in r.scores.metrics}) for r in runs]
    for (_, figures), r in zip(found, runs, strict=True):
        figures[COUNTED] = r.counted
    return found + [(method, dict(row)) for method, row in (published.rows if published else {}).items()]


def unlike(runs: Sequence[Reported]) -> str:
    """By what the runs' settings differ, beside their sources, in a sentence; empty where they are alike."""
    asked = [
        {
            **{name: r.document["asked"][name] for name in ("prompts_sha256", "limit", "pictures", "seed")},
            **{what: model["name"] for what, model in r.document["models"].items()},
        }
        for r in runs
    ]
    names = dict.fromkeys(name for each in asked for name in each)
    if not (changed := [name for name in names if len({each.get(name) for each in asked}) > 1]):
        return ""
    return f"These runs are not of one setting: they differ in {', '.join(changed)}."


def markdown(runs: Sequence[Reported], command: str) -> str:
    """Tables in Markdown."""
    published, sentence = published_beside(runs)
    known = columns(runs, published)
    own = len(runs)
    heads = [name if i < own else f"*{name}*" for i, (name, _) in enumerate(known)]
    lines = [f"# {runs[0].run.benchmark.title}", "", _row(["", *heads]), _row(["---"] * (len(known) + 1))]
    for name in _names(runs):
        cells = [figures.get(name, "") for _, figures in known]
        lines.append(_row([_directed(runs, name), *(c if i < own or not c else f"*{c}*" for i, c in enumerate(cells))]))
    lines += ["", " ".join(_told(runs, sentence)), ""]
    for title in _groups(runs):
        lines += [f"## {title}", "", _row(["", *(r.name for r in runs)]), _row(["---"] * (own + 1))]
        tables = [{m.name: m for m in r.scores.groups.get(title, ())} for r in runs]
        for name in _union(tables):
            lines.append(_row([_arrow(name, tables), *(str(t[name]) if name in t else "" for t in tables)]))
        lines.append("")
    lines += ["## How it was made", "", f"`{command}`", ""]
    for r in runs:
        lines += [f"**{r.name}**", "", *(f"- {name}: {value}" for name, value in r.facts.items())]
        lines += [f"- not measured: {what}" for what in r.scores.missing]
        lines += [f"- {problem}" for problem in _shown(r.problems)] + [""]
    return "\n".join(lines).rstrip() + "\n"


def page(runs: Sequence[Reported], command: str, sheets: Mapping[str, Image.Image]) -> str:
    """The HTML document. sheets: a contact sheet by the run's name."""
    published, sentence = published_beside(runs)
    known = columns(runs, published)
    own = len(runs)
    title = runs[0].run.benchmark.title
    rows = [[_directed(runs, name), *(figures.get(name, "") for _, figures in known)] for name in _names(runs)]
    notes = "".join(f"<p>{escape(text)}</p>" for text in _told(runs, sentence))
    sections = [f"<section><h2>Scores</h2>{_table(['', *(n for n, _ in known)], rows, own)}{notes}</section>"]
    for r in runs:
        if told := [*(f"Not measured: {what}" for what in r.scores.missing), *_shown(r.problems)]:
            items = "".join(f"<li>{escape(text)}</li>" for text in told)
            sections.append(
                f"<section class=problems><h2>{escape(r.name)}: not as it should be</h2><ul>{items}</ul></section>"
            )
    for name, sheet in sheets.items():
        sections.append(f"<section class=sheet><h2>{escape(name)}</h2>{_picture(sheet, name)}</section>")
    for group in _groups(runs):
        tables = [{m.name: m for m in r.scores.groups.get(group, ())} for r in runs]
        names = _union(tables)
        cells = [[_arrow(name, tables), *(str(t[name]) if name in t else "" for t in tables)] for name in names]
        opened = "" if len(names) > LONGEST_GROUP else " open"
        table = _table(["", *(r.name for r in runs)], cells, own)
        sections.append(
            f"<section><details{opened}><summary><h2>{escape(group)}</h2></summary>{table}</details></section>"
        )
    for r in runs:
        facts = "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in r.facts.items())
        sections.append(f"<section class=facts><h2>{escape(r.name)}: how it was made</h2><dl>{facts}</dl></section>")
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · RealCompo</title>
<style>
{PAGE_STYLE.read_text(encoding="utf-8")}{Path(__file__).with_name("report.css").read_text(encoding="utf-8")}</style>
<main>
<header><p>RealCompo</p><h1>{escape(title)}</h1></header>
{"".join(sections)}
<p class=command><code>{escape(command)}</code></p>
</main>
</html>
"""


def sheets_of(runs: Sequence[Reported]) -> dict[str, Image.Image]:
    """A contact sheet of each run whose pictures are still there."""
    found = {}
    for r in runs:
        seen = r.run.seen()
        success = {picture: value for picture, value in r.success.items() if picture in seen}
        if success:
            found[r.name] = contact_sheet(r.run, seen, success)
    return found


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], own: int) -> str:
    """Columns after the first `own` are the papers'."""
    classes = ["", *("" if i < own else " class=paper" for i in range(len(heads) - 1))]
    head = "".join(f"<th{c}>{escape(h)}</th>" for h, c in zip(heads, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f"<{'th' if i == 0 else 'td'}{c}>{escape(cell)}</{'th' if i == 0 else 'td'}>"
            for i, (cell, c) in enumerate(zip(row, classes, strict=True))
        )
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _names(runs: Sequence[Reported]) -> list[str]:
    return [COUNTED, *_metrics(runs)]


def _metrics(runs: Sequence[Reported]) -> list[str]:
    return list(dict.fromkeys(m.name for r in runs for m in r.scores.metrics))


def _groups(runs: Sequence[Reported]) -> list[str]:
    """Those of every benchmark first, then its own tables of detail."""
    titles = list(dict.fromkeys(title for r in runs for title in r.scores.groups))
    return [*(t for t in EVERYWHERE if t in titles), *(t for t in titles if t not in EVERYWHERE)]


def _arrow(name: str, tables: Sequence[Mapping[str, Metric]]) -> str:
    """A row's name in a table of detail; it says where smaller is better."""
    return f"{name} ↓" if any(table[name].lower for table in tables if name in table) else name


def _union(tables: Sequence[Mapping[str, Metric]]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in table))


def _directed(runs: Sequence[Reported], name: str) -> str:
    if name == COUNTED:
        return name
    lower = any(m.lower for r in runs for m in r.scores.metrics if m.name == name)
    return f"{name} {'↓' if lower else '↑'}"


def _told(runs: Sequence[Reported], published: str) -> list[str]:
    """What is to be said of the table."""
    return list(filter(None, [runs[0].run.benchmark.unit, _spread_of(runs), unlike(runs), published]))


def _spread_of(runs: Sequence[Reported]) -> str:
    if any(m.std is not None for r in runs for m in r.scores.metrics):
        return "± of a score is the population standard deviation over rounds, one picture of each prompt."
    return ""


def _shown(problems: Sequence[str]) -> list[str]:
    more = len(problems) - SHOWN_PROBLEMS
    return [*problems[:SHOWN_PROBLEMS], *([f"and {more} more, in scores.json"] if more > 0 else [])]


def _short(known: Any) -> str:
    """A model or source in a line: its name, then what else is known of it, without files' lists."""
    if not isinstance(known, dict):
        return str(known)
    rest = {key: value for key, value in known.items() if key != "name"}
    return f"{known.get('name', '')} {json.dumps(rest, ensure_ascii=False)}" if rest else str(known.get("name", ""))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _picture(image: Image.Image, name: str) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f'<img src="data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}" alt="{escape(name)}">'
