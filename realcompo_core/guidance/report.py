"""What a report shows of a balancer's trace: its steps, objects, weights, attention, curves, and the words for them.

Two renderers draw it: `drawing` with Pillow, and the command line with matplotlib and HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..errors import RealCompoError
from ..palettes import DIVERGING, PALETTES, branch_color, colorize, hex_of
from .schedule import named_steps
from .trace import Trace, TraceStep

COLUMNS = 8  # at most so many steps are shown of each map
WEIGHT_COLORS, ATTENTION_COLORS = DIVERGING, PALETTES["viridis"]  # those of the Attention Map Viewer
# Of each branch's curves: lengths of strokes and gaps in line widths. Without any the line is whole.
DASHES = ((4, 2), (), (1, 1.5), (7, 2, 1, 2), (9, 2), (1, 4))

ATTENTION = "Attention"
ATTENTION_CAPTION = "How much each pixel attends to the object's words. Colours have one scale for each object."
ATTENTION_ENDS = "0", "largest of the object"  # what the ends of ATTENTION_COLORS mean
LOSSES = "Loss"
LOSSES_CAPTION = "Share of an object's attention outside its region: 0 is all inside."
GRADIENTS = "Gradient magnitude"
GRADIENTS_CAPTION = "Largest magnitude of a branch's loss gradient in one latent value."


class ShownObject(NamedTuple):
    """The objects of one attention map: a name, a CSS colour, and their indices in the layout."""

    label: str
    color: str
    objects: Sequence[int]


class MapRow(NamedTuple):
    """A branch's name and its pictures, (h, w, 3) bytes, one for each step that is shown."""

    label: str
    pictures: list[np.ndarray]


class Curve(NamedTuple):
    """`values` over `steps`; NaN is a gap. `dashes` as in DASHES."""

    color: str
    dashes: tuple[float, ...]
    steps: list[int]
    values: list[float]

    @property
    def dots(self) -> list[int]:
        """Indices of the values without a neighbour, which no line would show."""
        gap = [True, *map(math.isnan, self.values), True]
        return [i for i in range(len(self.values)) if gap[i] and not gap[i + 1] and gap[i + 2]]


class Key(NamedTuple):
    """An entry of a legend. `color` is None for that of the text."""

    label: str
    color: str | None
    dashes: tuple[float, ...]


class Plot(NamedTuple):
    """Curves over the steps, between `low` and `high`. On a logarithmic axis these are powers of ten.

    legend: entries that belong together, each group on lines of its own.
    """

    title: str
    caption: str
    curves: list[Curve]
    legend: list[list[Key]]
    low: float
    high: float
    logarithmic: bool = False


@dataclass(frozen=True)
class TraceReport:
    """What is shown of one item of the batch."""

    trace: Trace
    item: int = 0

    def __post_init__(self):
        if self.trace is None:
            raise RealCompoError("trace is None: nothing was sampled that could be reported; give a sampling's trace")

    @property
    def steps(self) -> list[TraceStep]:
        """The steps at which the objects' maps were read; all, if there are none."""
        return self._read_steps or self.trace.by_step

    @cached_property
    def columns(self) -> list[TraceStep]:
        """The steps whose maps are shown, evenly spaced."""
        steps = self.steps
        chosen = np.linspace(0, len(steps) - 1, min(COLUMNS, len(steps))).round().astype(int)
        return [steps[i] for i in chosen]

    @property
    def step_names(self) -> list[str]:
        """Names of the columns: the steps, counted from 0."""
        return [f"step {step.index}" for step in self.columns]

    @cached_property
    def objects(self) -> list[ShownObject]:
        """The objects whose maps were read."""
        read = self.trace.read_steps
        if not read:
            return []
        phrases = self._of_item(self.trace.phrases, [f"object {g}" for g in range(read[0].losses.shape[-1])])
        groups = self._of_item(self.trace.objects, [[g] for g in range(len(phrases))])
        return [
            ShownObject(phrase + (f" ×{len(group)}" if len(group) > 1 else ""), hex_of(group[0]), group)
            for phrase, group in zip(phrases, groups, strict=True)
        ]

    @property
    def has_losses(self) -> bool:
        """Whether there is any loss, so that attention and curves can be shown."""
        return bool(self._read_branches)

    @property
    def note(self) -> str:
        """What the reader should know about this run, in sentences; empty if there is nothing."""
        nothing = "" if self.trace.steps or self.trace.note else "The trace has no steps: nothing was sampled."
        return " ".join(filter(None, (self.trace.note, nothing, *self._missing_numbers())))

    @property
    def moves(self) -> str:
        """Where guides of the branches moved the latent, in sentences; empty where none did (docs/method.md, R9)."""
        sentences = []
        for k, name in enumerate(self.trace.branches):
            moved = [
                (step.index, float(step.moves[self.item, k])) for step in self.trace.steps if step.moves is not None
            ]
            sizes = [size for _, size in moved if size != 0]
            if sizes:
                indices = sorted({index for index, size in moved if size != 0})
                low, high = (f"{size:.2g}" for size in (min(sizes), max(sizes)))
                by = low if low == high else f"{low} to {high}"
                sentences.append(
                    f"{self.trace.guides.get(name, 'Guidance')} moved the latent of the {name} branch in "
                    f"{named_steps(indices)}, by {by} (root mean square)."
                )
        return " ".join(sentences)

    @property
    def has_weights(self) -> bool:
        """Whether there is more than one branch, so that weights can be shown."""
        return len(self.trace.branches) > 1 and bool(self.steps)

    @property
    def weights_title(self) -> str:
        names = self.trace.branches[1:]
        return f"Weight of the {names[0]} branch" if len(names) == 1 else "Weights of the spatial branches"

    @property
    def weights_caption(self) -> str:
        return f"Which branch decides each pixel. {self._phases()}"

    @property
    def weight_ends(self) -> tuple[str, str]:
        """What the weights 0 and 1 mean, the ends of WEIGHT_COLORS."""
        first, last = self.trace.branches[0], self.trace.branches[-1]
        two = len(self.trace.branches) == 2
        return (f"0, {first} alone", f"{last} alone, 1") if two else ("0, the others alone", "this branch alone, 1")

    def weights(self) -> list[MapRow]:
        """The weights of each spatial branch."""
        return [
            MapRow(name, [colorize(step.weights[self.item, k].numpy(), WEIGHT_COLORS) for step in self.columns])
            for k, name in list(enumerate(self.trace.branches))[1:]
        ]

    def attention(self, index: int) -> list[MapRow]:
        """The maps of one object, a row for each branch whose maps were read; all on one scale."""
        maps = {k: [step.maps[self.item, k, index].numpy() for step in self.columns] for k in self._read_branches}
        top = max((one[np.isfinite(one)].max(initial=0) for own in maps.values() for one in own), default=0) or 1
        return [
            MapRow(self.trace.branches[k], [colorize(one / top, ATTENTION_COLORS) for one in own])
            for k, own in maps.items()
        ]

    def losses(self) -> Plot:
        """The loss of each object in each branch."""
        curves = [
            self._curve(k, shown.color, [step.losses[self.item, k, g] for step in self._read_steps])
            for g, shown in enumerate(self.objects)
            for k in self._read_branches
        ]
        names = [Key(shown.label, shown.color, ()) for shown in self.objects]
        styles = [Key(f"{self.trace.branches[k]} branch", None, _dashes(k)) for k in self._read_branches]
        largest = max((v for curve in curves for v in curve.values if not math.isnan(v)), default=0)
        return Plot(LOSSES, LOSSES_CAPTION, curves, [names, styles], 0, max(1, largest))

    def gradients(self) -> Plot:
        """The largest gradient of each branch. A gradient of 0 is a gap: the axis has no place for it."""
        curves = [
            self._curve(
                k, branch_color(k), [step.gradient[self.item, k] for step in self._read_steps], logarithmic=True
            )
            for k in self._read_branches
        ]
        names = [Key(f"{self.trace.branches[k]} branch", branch_color(k), _dashes(k)) for k in self._read_branches]
        logs = [math.log10(v) for curve in curves for v in curve.values if not math.isnan(v)] or [0]
        low, high = math.floor(min(logs)), math.ceil(max(logs))
        return Plot(GRADIENTS, GRADIENTS_CAPTION, curves, [names], 10.0**low, 10.0 ** max(high, low + 1), True)

    @cached_property
    def _read_steps(self) -> list[TraceStep]:
        return self.trace.read_steps if self.objects else []

    @cached_property
    def _read_branches(self) -> list[int]:
        """Branches with a loss somewhere."""
        return [
            k
            for k in range(len(self.trace.branches))
            if any(step.losses[self.item, k].isfinite().any() for step in self._read_steps)
        ]

    def _of_item(self, items: Sequence, default: list) -> list:
        return items[self.item] if items else default

    def _curve(self, branch: int, color: str, values: Iterable[Tensor], logarithmic: bool = False) -> Curve:
        numbers = [float(value) for value in values]
        drawn = [v if math.isfinite(v) and (v > 0 or not logarithmic) else math.nan for v in numbers]
        return Curve(color, _dashes(branch), [step.index for step in self._read_steps], drawn)

    def _phases(self) -> str:
        """What was done in which steps."""
        steps = self.trace.by_step
        phases = [(kind, [step.index for step in own]) for kind, own in groupby(steps, self._kind)]
        return " ".join(f"{named_steps(indices).capitalize()}: {kind}." for kind, indices in phases)

    def _kind(self, step: TraceStep) -> str:
        fidelity = step.weights[self.item, 0]
        if (fidelity == 1).all():
            return f"the {self.trace.branches[0]} branch alone"
        if (fidelity == 0).all():
            names = self.trace.branches[1:]
            return f"the {names[0]} branch alone" if len(names) == 1 else "the spatial branches alone"
        return "given weights" if step.coefficients is None else "balanced"

    def _missing_numbers(self) -> list[str]:
        """Sentences about NaN and infinity, which have no place on a curve and no colour."""
        found = []
        bad = [step.index for step in self.trace.by_step if not step.weights[self.item].isfinite().all()]
        if bad:
            found.append(f"weights in {named_steps(bad)}")
        for what in ("losses", "gradient"):
            for k in self._read_branches:
                bad = [s.index for s in self._read_steps if not getattr(s, what)[self.item, k].isfinite().all()]
                if bad:
                    found.append(f"{what} of {self.trace.branches[k]} in {named_steps(bad)}")
        sentences = [f"Not a number (NaN or infinite): {'; '.join(found)}."] if found else []
        wanted = range(len(self.trace.branches)) if self.trace.sources is None else self.trace.sources
        unread = [self.trace.branches[k] for k in wanted if k not in self._read_branches]
        if self._read_steps and unread:
            sentences.append(f"No loss of {', '.join(unread)}: attention was not read there, or was never a number.")
        return sentences


def item_count(trace: Trace) -> int:
    """How many items the batch had; 1 for a trace without steps."""
    return len(trace.steps[0].weights) if trace.steps else 1


def _dashes(branch: int) -> tuple[float, ...]:
    return DASHES[branch % len(DASHES)]
