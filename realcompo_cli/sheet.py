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

from realcompo_core.layout import Box

from .report import CAPTIONS, COLUMNS, TITLES, WEIGHT_COLORS, Report, plot_gradients, plot_losses, step_name

INK, SOFT, LINE, ACCENT = "#1d1f24", "#666a73", "#dcdcd6", "#b35806"
WIDTH, MARGIN = 12.0, 0.6  # inches
INNER = WIDTH - 2 * MARGIN
DPI = 120
LABEL = 1.7  # inches in front of the maps
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
        self.text(title, size=12.5, color=INK, weight="bold")
        self.text(caption, dy=0.27)
        self.y += 0.6


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
    if report.trace.note:
        page.text(report.trace.note, size=10.5, color=ACCENT)
        page.y += 0.5
    if report.groups:
        _attention(page, report)
    _weights(page, report)
    if report.groups:
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
    page.heading("Attention", "\n".join(textwrap.wrap(CAPTIONS["attention"], 150)))
    page.y += LINE_HEIGHT
    _step_names(page, report)
    for group in range(len(report.groups)):
        label = "\n".join(textwrap.wrap(report.label(group), 20))
        page.text(label, size=10, color=report.color(group), weight="bold")
        for branch, name in enumerate(report.trace.branches):
            maps = report.attention(group, branch)
            page.text(name, dy=_height(maps) / 2, va="center", size=9.5)
            _map_row(page, maps, report.boxes(group))
        page.y += 0.12
    page.y += 0.25


def _weights(page: Sheet, report: Report) -> None:
    page.heading("Weight of the spatial branch", CAPTIONS["weights"])
    _step_names(page, report)
    maps = report.weights()
    bar = page.axes(0.32, 0.13, _height(maps))
    bar.imshow(np.linspace(1, 0, 64)[:, None], cmap=WEIGHT_COLORS, aspect="auto", extent=(0, 1, 0, 1), vmin=0, vmax=1)
    bar.set_xticks([])
    bar.set_yticks([0, 0.5, 1])
    bar.tick_params(length=2, labelsize=8, labelcolor=SOFT, color=LINE)
    bar.spines[:].set_color(LINE)
    page.text("spatial", 0.55, 0, size=8.5)
    page.text("fidelity", 0.55, _height(maps), va="bottom", size=8.5)
    _map_row(page, maps)
    page.y += 0.35


def _curves(page: Sheet, report: Report) -> None:
    width, height = INNER / 2 - 0.3, 2.3
    for i, (title, plot, caption) in enumerate(
        (("Loss", plot_losses, "losses"), ("Gradient magnitude", plot_gradients, "gradients"))
    ):
        x = i * (INNER / 2 + 0.15)
        page.text(title, x, size=12.5, color=INK, weight="bold")
        page.text(CAPTIONS[caption], x, 0.27)
        plot(page.axes(x + 0.45, width - 0.45, height, page.y + 1.1), report, SOFT, LINE)
    page.y += 1.1 + height + 0.75


def _facts(page: Sheet, report: Report) -> None:
    page.text(CAPTIONS["facts"], size=12.5, color=INK, weight="bold")
    page.y += 0.32
    for name, value in report.facts.items():
        lines = textwrap.wrap(value, 130)
        page.text(name)
        page.text("\n".join(lines), 1.2, color=INK)
        page.y += LINE_HEIGHT * len(lines) + 0.04


def _step_names(page: Sheet, report: Report) -> None:
    for i, step in enumerate(report.columns):
        page.text(step_name(step), LABEL + i * (MAP + GAP) + MAP / 2, ha="center", size=8.5)
    page.y += 0.2


def _map_row(page: Sheet, maps: list[np.ndarray], boxes: Sequence[Box] = ()) -> None:
    height = _height(maps)
    for i, picture in enumerate(maps):
        axes = page.axes(LABEL + i * (MAP + GAP), MAP, height)
        _show(axes, picture, interpolation="nearest")
        for x0, y0, x1, y1 in boxes:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec="white", lw=1.3, path_effects=HALO))
    page.y += height + GAP


def _height(maps: list[np.ndarray]) -> float:
    """Inches of a row of (H, W, 4) maps."""
    return MAP * maps[0].shape[0] / maps[0].shape[1]


def _show(axes: Axes, picture: np.ndarray, interpolation: str) -> None:
    """The picture over the whole axes, in coordinates 0..1 with y down."""
    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto", interpolation=interpolation)
    axes.set_axis_off()
