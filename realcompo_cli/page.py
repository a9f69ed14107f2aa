"""The report as one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from realcompo_core.guidance.report import ATTENTION, ATTENTION_COLORS, ATTENTION_ENDS, WEIGHT_COLORS, MapRow, Plot
from realcompo_core.layout import Box
from realcompo_core.palettes import hex_of

from .files import png
from .report import CAPTIONS, TITLES, Report, draw_plot, legend_height

STYLE = Path(__file__).with_name("page.css")
INK, FAINT = "#010203", "#040506"  # stand-ins: matplotlib knows no CSS variables


def page(report: Report) -> str:
    """The whole HTML document."""
    sections = [_pictures(report)]
    if report.shown.note:
        sections.append(f"<p class=note>{escape(report.shown.note)}</p>")
    if report.shown.moves:
        sections.append(f"<p>{escape(report.shown.moves)}</p>")
    if report.shown.has_losses:
        sections.append(_attention(report))
    if report.shown.has_weights:
        sections.append(_weights(report))
    if report.shown.has_losses:
        sections.append(_curves(report))
    sections.append(_facts(report))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.prompt)} · RealCompo</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
<main>
<header><p>RealCompo</p><h1>{escape(report.prompt)}</h1></header>
{"".join(sections)}
</main>
</html>
"""


def _pictures(report: Report) -> str:
    boxes = _frames([(item.box, hex_of(i)) for i, item in enumerate(report.layout.objects)], "boxes")
    figures = [
        f"<figure>{_image(report.layout_picture, 'the layout')}"
        f"<figcaption><b>Layout</b>{CAPTIONS['layout']}</figcaption></figure>"
    ]
    for picture in report.pictures:
        note = f"<span class=judge>{escape(picture.note)}</span>" if picture.note else ""
        figures.append(
            f"<figure class={picture.name}><div class=framed>{_image(picture.image, TITLES[picture.name])}{boxes}</div>"
            f"<figcaption><b>{TITLES[picture.name]}</b>{CAPTIONS[picture.name]}{note}</figcaption></figure>"
        )
    switch = "<label><input type=checkbox> Show the layout's boxes on the pictures</label>" if boxes else ""
    return f"<section class=pictures><div class=row>{''.join(figures)}</div>{switch}</section>"


def _attention(report: Report) -> str:
    rows = []
    for index, shown in enumerate(report.shown.objects):
        frames = _frames([(box, "#fff") for box in report.boxes(index)])
        rows.append(f'<h3><i style="background:{shown.color}"></i>{escape(shown.label)}</h3>')
        rows += [_map_row(row, report, frames) for row in report.shown.attention(index)]
    bar = _color_bar(ATTENTION_COLORS, ATTENTION_ENDS)
    return f"<section><h2>{ATTENTION}</h2><p>{CAPTIONS['attention']}</p>{bar}{''.join(rows)}</section>"


def _weights(report: Report) -> str:
    title, caption = escape(report.shown.weights_title), escape(report.shown.weights_caption)
    rows = "".join(_map_row(row, report) for row in report.shown.weights())
    bar = _color_bar(WEIGHT_COLORS, report.shown.weight_ends)
    return f"<section><h2>{title}</h2><p>{caption}</p>{bar}{rows}</section>"


def _color_bar(colors: Sequence[str], ends: tuple[str, str]) -> str:
    """The colours from 0 to 1, between what their ends mean."""
    stops = ", ".join(colors)
    low, high = map(escape, ends)
    return f'<div class=bar>{low}<i style="background:linear-gradient(90deg, {stops})"></i>{high}</div>'


def _map_row(row: MapRow, report: Report, frames: str = "") -> str:
    cells = [
        f"<figure><div class=framed>{_image(Image.fromarray(picture), f'{row.label}, {name}')}{frames}</div>"
        f"<figcaption>{name}</figcaption></figure>"
        for name, picture in zip(report.shown.step_names, row.pictures, strict=True)
    ]
    return f"<div class=maps><span>{escape(row.label)}</span>{''.join(cells)}</div>"


def _curves(report: Report) -> str:
    plots = report.shown.losses(), report.shown.gradients()
    legend = max(legend_height(plot) for plot in plots)
    figures = (
        f"<figure><h2>{plot.title}</h2><p>{escape(plot.caption)}</p>{_svg(plot, legend)}</figure>" for plot in plots
    )
    return f"<section class=curves>{''.join(figures)}</section>"


def _facts(report: Report) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts.items())
    return f"<section class=facts><h2>{CAPTIONS['facts']}</h2><dl>{rows}</dl></section>"


def _image(image: Image.Image, name: str) -> str:
    return f'<img src="data:image/png;base64,{b64encode(png(image)).decode()}" alt="{escape(name)}">'


def _frames(boxes: list[tuple[Box, str]], kind: str = "") -> str:
    """Boxes and their CSS colours as an overlay that fills its parent."""
    if not boxes:
        return ""
    rectangles = "".join(
        f'<rect x="{x0:.4f}" y="{y0:.4f}" width="{x1 - x0:.4f}" height="{y1 - y0:.4f}" stroke="{color}"/>'
        for (x0, y0, x1, y1), color in boxes
    )
    return f'<svg class="frames {kind}" viewBox="0 0 1 1" preserveAspectRatio="none">{rectangles}</svg>'


def _svg(plot: Plot, legend: float) -> str:
    """A plot as inline SVG in the page's own font and colours, with `legend` inches for its legend."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.title}):
        below, inner = 0.5, 2.4  # inches
        height = below + inner + legend
        figure = Figure(figsize=(5, height), facecolor="none")
        axes = figure.add_axes((0.1, below / height, 0.88, inner / height), facecolor="none")
        draw_plot(axes, plot, INK, FAINT)
        buffer = StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
