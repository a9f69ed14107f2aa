"""The report as one PNG sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from realcompo_core.guidance.report import ATTENTION, ATTENTION_COLORS, ATTENTION_ENDS, COLUMNS, WEIGHT_COLORS, MapRow
from realcompo_core.layout import Box
from realcompo_core.palettes import ACCENT, INK, LINE, SOFT, colorize

from .report import CAPTIONS, TITLES, Report, draw_plot, legend_height

WIDTH, MARGIN = 12.0, 0.6  # inches
INNER = WIDTH - 2 * MARGIN
DPI = 120
LABEL = 1.1  # inches in front of the maps
GAP = 0.08
MAP = (INNER - LABEL - (COLUMNS - 1) * GAP) / COLUMNS
LINE_HEIGHT = 0.19
HALO = [withStroke(linewidth=2.6, foreground="#0008")]


class Sheet:
    """A page that is filled from the top: `y` is how many inches of it are used."""

    def __init__(self, height: float):
        self.figure = Figure(figsize=(WIDTH, height), facecolor="white")
        self.height = height
        self.y = MARGIN

    def axes(self, x: float, width: float, height: float, y: float | None = None) -> Axes:
        """Axes whose upper left is `x` inches from the margin and `y` from the top."""
        bottom = self.height - (self.y if y is None else y) - height
        return self.figure.add_axes(
            ((MARGIN + x) / WIDTH, bottom / self.height, width / WIDTH, height / self.height), facecolor="none"
        )

    def text(self, text: str, x: float = 0, dy: float = 0, size: float = 9, **style) -> None:
        """Text whose upper left is `x` inches from the margin, `dy` below `y`. `size` is in points.

        Lines stand on baselines of their own, so that texts side by side line up whatever letters they have.
        """
        style = {"color": SOFT, "va": "baseline"} | style
        ascent = size / 72 if style["va"] == "baseline" else 0
        for i, line in enumerate(text.split("\n")):
            y = self.y + dy + ascent + i * size / 72 * 1.5
            self.figure.text((MARGIN + x) / WIDTH, 1 - y / self.height, line, fontsize=size, parse_math=False, **style)

    def heading(self, title: str, caption: str) -> None:
        lines = textwrap.wrap(caption, 150)
        self.text(title, size=12.5, color=INK, weight="bold")
        self.text("\n".join(lines), dy=0.27)
        self.y += 0.34 + LINE_HEIGHT * len(lines)


def sheet(report: Report) -> bytes:
    """The report as a PNG. What is laid out below is measured first, on a page of any height."""
    measured = _fill(Sheet(10.0), report)
    filled = _fill(Sheet(measured.y + MARGIN), report)
    buffer = BytesIO()
    FigureCanvasAgg(filled.figure)
    filled.figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def _fill(page: Sheet, report: Report) -> Sheet:
    page.text("RealCompo", size=11, color=ACCENT, weight="bold")
    title = textwrap.wrap(report.prompt, 62)
    page.text("\n".join(title), dy=0.24, size=19, color=INK, weight="bold")
    page.y += 0.55 + 0.36 * len(title)
    _pictures(page, report)
    for text, color in ((report.shown.note, ACCENT), (report.shown.moves, SOFT)):
        if lines := textwrap.wrap(text, 125):
            page.text("\n".join(lines), size=10.5, color=color)
            page.y += 0.28 + 0.22 * len(lines)
    if report.shown.has_losses:
        _attention(page, report)
    if report.shown.has_weights:
        _weights(page, report)
    if report.shown.has_losses:
        _curves(page, report)
    _facts(page, report)
    return page


def _pictures(page: Sheet, report: Report) -> None:
    gap = 0.25
    side = (INNER - 3 * gap) / 4
    entries = [("Layout", report.layout_picture, CAPTIONS["layout"], "")]
    entries += [(TITLES[p.name], p.image, CAPTIONS[p.name], p.note) for p in report.pictures]
    lines = 0
    for i, (title, image, caption, note) in enumerate(entries):
        x = i * (side + gap)
        height = side * image.height / image.width
        _show(page.axes(x, side, height), np.asarray(image), interpolation="bicubic")
        page.text(title, x, height + 0.08, size=10.5, color=ACCENT if title == "Balanced" else INK, weight="bold")
        text = [line for part in (caption, note) for line in textwrap.wrap(part, 40)]
        page.text("\n".join(text), x, height + 0.3)
        lines = max(lines, len(text))
    page.y += height + 0.3 + lines * LINE_HEIGHT + 0.3


def _attention(page: Sheet, report: Report) -> None:
    page.heading(ATTENTION, CAPTIONS["attention"])
    _color_bar(page, ATTENTION_COLORS, ATTENTION_ENDS)
    _step_names(page, report)
    for index, shown in enumerate(report.shown.objects):
        label = textwrap.wrap(shown.label, 100)
        page.text("\n".join(label), size=10, color=shown.color, weight="bold")
        page.y += 0.24 * len(label)
        _map_rows(page, report.shown.attention(index), report.boxes(index))
        page.y += 0.08
    page.y += 0.25


def _weights(page: Sheet, report: Report) -> None:
    page.heading(report.shown.weights_title, report.shown.weights_caption)
    _color_bar(page, WEIGHT_COLORS, report.shown.weight_ends)
    _step_names(page, report)
    _map_rows(page, report.shown.weights())
    page.y += 0.35


def _curves(page: Sheet, report: Report) -> None:
    plots = report.shown.losses(), report.shown.gradients()
    width, height = INNER / 2 - 0.3, 2.3
    top = 0.55 + max(legend_height(plot) for plot in plots)
    for i, plot in enumerate(plots):
        x = i * (INNER / 2 + 0.15)
        page.text(plot.title, x, size=12.5, color=INK, weight="bold")
        page.text(plot.caption, x, 0.27)
        draw_plot(page.axes(x + 0.45, width - 0.45, height, page.y + top), plot, SOFT, LINE)
    page.y += top + height + 0.75


def _facts(page: Sheet, report: Report) -> None:
    page.text(CAPTIONS["facts"], size=12.5, color=INK, weight="bold")
    page.y += 0.32
    for name, value in report.facts.items():
        lines = textwrap.wrap(value, 130)
        page.text(name)
        page.text("\n".join(lines), 1.2, color=INK)
        page.y += LINE_HEIGHT * len(lines) + 0.04


def _color_bar(page: Sheet, colors: Sequence[str], ends: tuple[str, str]) -> None:
    """The colours from 0 to 1, between what their ends mean."""
    left = 0.1 + 0.058 * len(ends[0])
    _show(page.axes(left, 1.3, 0.1, page.y + 0.02), colorize(np.linspace(0, 1, 256)[None], colors), "nearest")
    page.text(ends[0], 0, size=8.5)
    page.text(ends[1], left + 1.4, size=8.5)
    page.y += 0.3


def _step_names(page: Sheet, report: Report) -> None:
    for i, name in enumerate(report.shown.step_names):
        page.text(name, LABEL + i * (MAP + GAP) + MAP / 2, ha="center", size=8.5)
    page.y += 0.2


def _map_rows(page: Sheet, rows: Sequence[MapRow], boxes: Sequence[Box] = ()) -> None:
    for row in rows:
        height = MAP * row.pictures[0].shape[0] / row.pictures[0].shape[1]
        page.text(row.label, dy=height / 2, va="center", size=9.5)
        for i, picture in enumerate(row.pictures):
            axes = page.axes(LABEL + i * (MAP + GAP), MAP, height)
            _show(axes, picture, interpolation="nearest")
            for x0, y0, x1, y1 in boxes:
                frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1.3, path_effects=HALO)
                axes.add_patch(frame)
        page.y += height + GAP


def _show(axes: Axes, picture: np.ndarray, interpolation: str) -> None:
    """The picture over the whole axes, in coordinates 0..1 with y down."""
    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto", interpolation=interpolation)
    axes.set_axis_off()
