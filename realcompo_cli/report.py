"""What a report shows, and in which words and colours; `page` lays it out as HTML, `sheet` as one PNG."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from PIL import Image

from realcompo_core.guidance.trace import Trace, TraceStep
from realcompo_core.layout import Box, Layout
from realcompo_core.layout.drawing import color_of, draw_layout

COLUMNS = 8  # steps shown of each map
ATTENTION_COLORS: Colormap = matplotlib.colormaps["magma"]
WEIGHT_COLORS: Colormap = matplotlib.colormaps["PuOr_r"]
BRANCH_COLORS = {"fidelity": to_hex(WEIGHT_COLORS(0.2)), "spatial": to_hex(WEIGHT_COLORS(0.8))}
BRANCH_LINES = {"fidelity": (0, (4, 2)), "spatial": "-"}
SPATIAL = 1  # index of the spatial branch

TITLES = {"fidelity": "Fidelity branch alone", "spatial": "Spatial branch alone", "balanced": "Balanced"}
CAPTIONS = {
    "layout": "Where each object should be.",
    "fidelity": "Text only: it decides freely where things go.",
    "spatial": "Text and layout: it follows the boxes.",
    "balanced": "Both, mixed for each pixel and step.",
    "attention": "How much each pixel attends to the object's words, over the steps. The frame is the object's box: "
    "attention inside it is what the balancer rewards. Brightness has one scale for each object.",
    "weights": "Which branch decides each pixel, over the steps: orange is the spatial branch, purple the fidelity "
    "branch, white an even mix.",
    "losses": "Share of an object's attention outside its box: 0 is all inside.",
    "gradients": "Largest influence of one latent value on the loss.",
    "facts": "How it was made",
}


@dataclass(frozen=True)
class Picture:
    """A picture of one run ("fidelity", "spatial" or "balanced") and a line about it."""

    name: str
    image: Image.Image
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One prompt: its layout, the pictures (balanced last), the balanced run's trace, and how it was made.

    `groups` has the indices of the layout's objects that share each of the trace's G maps.
    """

    prompt: str
    layout: Layout
    pictures: list[Picture]
    trace: Trace
    groups: list[tuple[int, ...]]
    facts: dict[str, str]

    @property
    def layout_picture(self) -> Image.Image:
        width, height = self.pictures[-1].image.size
        return draw_layout(self.layout, (256, round(256 * height / width)))

    @property
    def steps(self) -> list[TraceStep]:
        """The steps with attention maps, or all if there are none. Where PLMS evaluates one twice, the later counts."""
        return list({step.index: step for step in self.trace.read_steps or self.trace.steps}.values())

    @property
    def columns(self) -> list[TraceStep]:
        """The steps whose maps are shown, evenly spaced."""
        steps = self.steps
        chosen = np.linspace(0, len(steps) - 1, min(COLUMNS, len(steps))).round().astype(int)
        return [steps[i] for i in chosen]

    def boxes(self, group: int) -> list[Box]:
        return [self.layout.objects[i].box for i in self.groups[group]]

    def color(self, group: int) -> str:
        return hex_of(self.groups[group][0])

    def label(self, group: int) -> str:
        count = len(self.groups[group])
        return self.trace.phrases[0][group] + (f" ×{count}" if count > 1 else "")

    def attention(self, group: int, branch: int) -> list[np.ndarray]:
        """(H, W, 4) uint8 pictures of one object's maps, a column each, all on one scale."""
        maps = [step.maps[0, :, group].numpy() for step in self.columns]
        brightest = np.nanmax(maps)
        return [ATTENTION_COLORS(m[branch] / brightest, bytes=True) for m in maps]

    def weights(self) -> list[np.ndarray]:
        """(h, w, 4) uint8 pictures of the spatial branch's weight, 0 to 1, a column each."""
        return [WEIGHT_COLORS(step.weights[0, SPATIAL].numpy(), bytes=True) for step in self.columns]


def hex_of(index: int) -> str:
    """The CSS colour of the layout's object `index`."""
    return "#{:02x}{:02x}{:02x}".format(*color_of(index))


def step_name(step: TraceStep) -> str:
    return f"step {step.index + 1}"


def plot_losses(axes: Axes, report: Report, ink: str, faint: str) -> None:
    """Loss of each object in each branch over the steps."""
    steps = report.steps
    for group in range(len(report.groups)):
        for branch, name in enumerate(report.trace.branches):
            values = [float(step.losses[0, branch, group]) for step in steps]
            axes.plot(_x(steps), values, color=report.color(group), ls=BRANCH_LINES[name], lw=1.8)
    axes.set_ylim(0, 1)
    objects = [Line2D([], [], color=report.color(g), lw=1.8, label=report.label(g)) for g in range(len(report.groups))]
    branches = [Line2D([], [], color=ink, ls=style, lw=1.4, label=name) for name, style in BRANCH_LINES.items()]
    _finish(axes, objects + branches, ink, faint)


def plot_gradients(axes: Axes, report: Report, ink: str, faint: str) -> None:
    """Largest gradient of each branch's loss in x over the steps, logarithmic."""
    steps = report.steps
    for branch, name in enumerate(report.trace.branches):
        values = [float(step.gradient[0, branch]) for step in steps]
        axes.semilogy(
            _x(steps), values, color=BRANCH_COLORS[name], ls=BRANCH_LINES[name], lw=1.8, label=f"{name} branch"
        )
    low, high = np.log10(axes.get_ylim())
    axes.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))  # whole decades have readable ticks
    axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes, axes.lines, ink, faint)


def _x(steps: list[TraceStep]) -> list[int]:
    return [step.index + 1 for step in steps]


def _finish(axes: Axes, handles: list[Line2D], ink: str, faint: str) -> None:
    axes.set_xlabel("step", color=ink)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=faint, lw=0.7)
    axes.tick_params(which="both", color=faint, labelcolor=ink, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(faint)
    columns = min(3, len(handles))
    axes.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.02),
        ncols=columns,
        frameon=False,
        labelcolor=ink,
        fontsize=9,
        handlelength=2.2,
        columnspacing=1.4,
    )
