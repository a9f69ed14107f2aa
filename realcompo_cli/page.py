"""The report as one self-contained HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from html import escape
from io import StringIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from realcompo_core.layout import Box

from .files import png
from .report import (
    BRANCH_COLORS,
    CAPTIONS,
    TITLES,
    WEIGHT_COLORS,
    Report,
    hex_of,
    plot_gradients,
    plot_losses,
    step_name,
)

STYLE = Path(__file__).with_name("page.css")
INK, FAINT = "#010203", "#040506"  # stand-ins: matplotlib knows no CSS variables


def page(report: Report) -> str:
    """The whole HTML document."""
    sections = [_pictures(report)]
    if report.trace.note:
        sections.append(f"<p class=note>{escape(report.trace.note)}</p>")
    if report.groups:
        sections.append(_attention(report))
    sections.append(_weights(report))
    if report.groups:
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
    for group in range(len(report.groups)):
        frames = _frames([(box, "#fff") for box in report.boxes(group)])
        rows.append(f'<h3><i style="background:{report.color(group)}"></i>{escape(report.label(group))}</h3>')
        for branch, name in enumerate(report.trace.branches):
            rows.append(_map_row(name, report, report.attention(group, branch), frames))
    return f"<section><h2>Attention</h2><p>{CAPTIONS['attention']}</p>{''.join(rows)}</section>"


def _weights(report: Report) -> str:
    stops = ", ".join(to_hex(WEIGHT_COLORS(i / 8)) for i in range(9))
    bar = f'<div class=bar>fidelity<i style="background:linear-gradient(90deg, {stops})"></i>spatial</div>'
    row = _map_row("weight", report, report.weights())
    return f"<section><h2>Weight of the spatial branch</h2><p>{CAPTIONS['weights']}</p>{bar}{row}</section>"


def _map_row(label: str, report: Report, maps: list[np.ndarray], frames: str = "") -> str:
    cells = [
        f"<figure><div class=framed>{_image(Image.fromarray(m), f'{label}, {step_name(step)}')}{frames}</div>"
        f"<figcaption>{step_name(step)}</figcaption></figure>"
        for step, m in zip(report.columns, maps, strict=True)
    ]
    dot = f'<i style="color:{BRANCH_COLORS[label]}">●</i> ' if label in BRANCH_COLORS else ""
    return f"<div class=maps><span>{dot}{label}</span>{''.join(cells)}</div>"


def _curves(report: Report) -> str:
    return f"""<section class=curves>
<figure><h2>Loss</h2><p>{CAPTIONS["losses"]}</p>{_svg(plot_losses, report)}</figure>
<figure><h2>Gradient magnitude</h2><p>{CAPTIONS["gradients"]}</p>{_svg(plot_gradients, report)}</figure>
</section>"""


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


def _svg(plot: Callable[[Axes, Report, str, str], None], report: Report) -> str:
    """A plot as inline SVG in the page's own font and colours."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.__name__}):
        figure = Figure(figsize=(5, 3.2), facecolor="none", layout="constrained")
        plot(figure.add_subplot(facecolor="none"), report, INK, FAINT)
        buffer = StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
