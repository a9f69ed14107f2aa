"""What the command line reports on a prompt, and its plots; `page` lays it out as HTML, `sheet` as one PNG.

What is shown of the balanced run's trace is `realcompo_core.guidance.report`'s, as in ComfyUI.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import ScaledTranslation
from PIL import Image

from realcompo_core.guidance.report import ATTENTION_CAPTION, Key, Plot, TraceReport
from realcompo_core.guidance.trace import Trace
from realcompo_core.layout import Box, Layout
from realcompo_core.layout.drawing import draw_layout

TITLES = {"fidelity": "Fidelity branch alone", "spatial": "Spatial branch alone", "balanced": "Balanced"}
CAPTIONS = {
    "layout": "Where each object should be.",
    "fidelity": "Text only: it decides freely where things go.",
    "spatial": "Text and layout: it follows the boxes.",
    "balanced": "Both, mixed for each pixel and step.",
    "attention": f"{ATTENTION_CAPTION} Frames are the object's boxes: the balancer rewards attention inside them.",
    "facts": "How it was made",
}
LEGEND_ROW, LEGEND_LIFT = 15, 6  # points: the height of a row, and of what is between legend and axes
LEGEND_LETTERS = 68  # of 9 points, in a row of a legend as wide as half the sheet
SAMPLE_LETTERS = 8  # as wide as a legend's line and the space around it


@dataclass(frozen=True)
class Picture:
    """A picture of one run ("fidelity", "spatial" or "balanced") and a line about it."""

    name: str
    image: Image.Image
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One prompt: its layout, the pictures (balanced last), the balanced run's trace, and how it was made."""

    prompt: str
    layout: Layout
    pictures: list[Picture]
    trace: Trace
    facts: dict[str, str]

    @cached_property
    def shown(self) -> TraceReport:
        """What is shown of the trace."""
        return TraceReport(self.trace)

    @property
    def layout_picture(self) -> Image.Image:
        width, height = self.pictures[-1].image.size
        return draw_layout(self.layout, (256, round(256 * height / width)))

    def boxes(self, index: int) -> list[Box]:
        """The boxes of what the trace shows as object `index`."""
        return [self.layout.objects[i].box for i in self.shown.objects[index].objects]


def draw_plot(axes: Axes, plot: Plot, ink: str, faint: str) -> None:
    """The curves with their legend above, in `ink` and `faint` where the plot has no colour of its own."""
    for curve in plot.curves:
        style = _line_style(curve.dashes)
        axes.plot(
            curve.steps, curve.values, color=curve.color, ls=style, lw=1.8, marker="o", ms=4, markevery=curve.dots
        )
    if plot.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(plot.low, plot.high)
    axes.set_xlabel("step", color=ink)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=faint, lw=0.7)
    axes.tick_params(which="both", color=faint, labelcolor=ink, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(faint)
    rows = legend_rows(plot)
    for i, row in enumerate(rows):
        lift = ScaledTranslation(0, (LEGEND_LIFT + (len(rows) - 1 - i) * LEGEND_ROW) / 72, axes.figure.dpi_scale_trans)
        legend = Legend(
            axes,
            [Line2D([], [], color=key.color or ink, ls=_line_style(key.dashes), lw=1.8) for key in row],
            [key.label for key in row],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            bbox_transform=axes.transAxes + lift,
            ncols=len(row),
            frameon=False,
            labelcolor=ink,
            fontsize=9,
            handlelength=2.2,
            columnspacing=1.4,
            borderpad=0,
            borderaxespad=0,
        )
        axes.add_artist(legend)


def legend_rows(plot: Plot) -> list[list[Key]]:
    """The legend in rows, each of one group and as long as fits."""
    rows: list[list[Key]] = []
    for group in plot.legend:
        room = 0
        for key in group:
            label = textwrap.shorten(key.label, LEGEND_LETTERS - SAMPLE_LETTERS, placeholder="…")
            if len(label) + SAMPLE_LETTERS > room:
                rows.append([])
                room = LEGEND_LETTERS
            rows[-1].append(key._replace(label=label))
            room -= len(label) + SAMPLE_LETTERS
    return rows


def legend_height(plot: Plot) -> float:
    """Inches of the legend above the axes."""
    return (LEGEND_LIFT + len(legend_rows(plot)) * LEGEND_ROW) / 72


def _line_style(dashes: Sequence[float]) -> str | tuple:
    return (0, tuple(dashes)) if dashes else "-"
