"""A report on a balancer's trace as one picture, drawn with Pillow alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..layout.drawing import ascii_text, shortened
from ..palettes import ACCENT, INK, LINE, SOFT, colorize
from .report import (
    ATTENTION,
    ATTENTION_CAPTION,
    ATTENTION_COLORS,
    ATTENTION_ENDS,
    COLUMNS,
    WEIGHT_COLORS,
    Key,
    MapRow,
    Plot,
    TraceReport,
    item_count,
)
from .trace import Trace

# Pixels. Everything is drawn SCALE times as large and then reduced: Pillow's own lines have no smooth edges.
WIDTH, MARGIN, LABEL, GAP, SCALE = 1120, 36, 100, 7, 2
INNER = WIDTH - 2 * MARGIN
MAP = (INNER - LABEL - (COLUMNS - 1) * GAP) // COLUMNS  # the longer side of a map
PLOT_GAP, PLOT_HEIGHT, AXIS = 48, 230, 46  # AXIS: room for the numbers to the left of a plot
TITLE, HEADING, TEXT, SMALL = 24, 18, 14, 13  # sizes of letters
STROKE = 2.0  # width of a curve

Point = tuple[float, float]


def draw_reports(trace: Trace) -> list[Image.Image]:
    """One sheet for each item of the batch, all of one size."""
    sheets = [draw_report(trace, item) for item in range(item_count(trace))]
    size = WIDTH, max(sheet.height for sheet in sheets)
    filled = [Image.new("RGB", size, "white") for _ in sheets]
    for page, sheet in zip(filled, sheets, strict=True):
        page.paste(sheet)
    return filled


def draw_report(trace: Trace, item: int = 0) -> Image.Image:
    """One item of the batch. Raises RealCompoError if `trace` is None."""
    report = TraceReport(trace, item)
    title = "Balance report" + (f", picture {item}" if item_count(trace) > 1 else "")
    height = math.ceil(_fill(_Page(1), report, title).y) + MARGIN  # measured first, on a page too short for anything
    return _fill(_Page(height), report, title).picture.reduce(SCALE)


class _Page:
    """A white page that is filled from the top: `y` is how much of it is used. Lengths are pixels of the result."""

    def __init__(self, height: int):
        self.picture = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
        self.draw = ImageDraw.Draw(self.picture)
        self.y: float = MARGIN

    def text(self, text: str, x: float, y: float, size: int = TEXT, color: str = SOFT, anchor="la", bold=False) -> None:
        """One line at (x, y), where `anchor` is as Pillow has it."""
        stroke = size * SCALE / 64 if bold else 0
        self.draw.text((x * SCALE, y * SCALE), text, color, _font(size), anchor, stroke_width=stroke, stroke_fill=color)

    def paragraph(self, text: str, width: float = INNER, x: float = MARGIN, color: str = SOFT) -> None:
        for line in _wrapped(ascii_text(text), width):
            self.text(line, x, self.y, color=color)
            self.y += TEXT * 1.4

    def heading(self, title: str, caption: str, width: float = INNER, x: float = MARGIN) -> None:
        self.text(title, x, self.y, HEADING, INK, bold=True)
        self.y += HEADING * 1.5
        self.paragraph(caption, width, x)

    def line(self, points: Sequence[Point], color: str, width: float = 1, dashes: Sequence[float] = ()) -> None:
        """`dashes`: lengths of strokes and gaps in line widths; a whole line without."""
        for piece in _strokes(points, [length * width for length in dashes]):
            scaled = [(x * SCALE, y * SCALE) for x, y in piece]
            self.draw.line(scaled, color, round(width * SCALE), joint="curve")

    def dot(self, x: float, y: float, color: str) -> None:
        self.draw.circle((x * SCALE, y * SCALE), 1.5 * STROKE * SCALE, color)

    def paste(self, pixels: np.ndarray, x: float, y: float, width: float, height: float) -> None:
        size = round(width * SCALE), round(height * SCALE)
        picture = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
        self.picture.paste(picture, (round(x * SCALE), round(y * SCALE)))


def _fill(page: _Page, report: TraceReport, title: str) -> _Page:
    page.text(title, MARGIN, page.y, TITLE, INK, bold=True)
    page.y += TITLE * 1.6
    if report.note:
        page.paragraph(report.note, color=ACCENT)
    if report.moves:
        page.paragraph(report.moves)
    page.y += 12
    if report.has_losses:
        page.heading(ATTENTION, ATTENTION_CAPTION)
        _color_bar(page, ATTENTION_COLORS, ATTENTION_ENDS)
        _step_names(page, report, report.attention(0))
        for index, shown in enumerate(report.objects):
            page.text(shortened(shown.label, _font(TEXT), INNER * SCALE), MARGIN, page.y, TEXT, shown.color, bold=True)
            page.y += TEXT * 1.6
            _map_rows(page, report.attention(index))
            page.y += 6
        page.y += 20
    if report.has_weights:
        page.heading(report.weights_title, report.weights_caption)
        _color_bar(page, WEIGHT_COLORS, report.weight_ends)
        _step_names(page, report, report.weights())
        _map_rows(page, report.weights())
        page.y += 26
    if report.has_losses:
        top, bottom, width = page.y, page.y, (INNER - PLOT_GAP) / 2
        plots = report.losses(), report.gradients()
        legend_rows = max(len(_legend_rows(plot.legend, width)) for plot in plots)
        for i, plot in enumerate(plots):
            page.y = top
            _plot(page, plot, MARGIN + i * (width + PLOT_GAP), width, legend_rows)
            bottom = max(bottom, page.y)
        page.y = bottom
    return page


def _step_names(page: _Page, report: TraceReport, rows: Sequence[MapRow]) -> None:
    """Above the columns of `rows`."""
    width, _ = _size(rows[0])
    for i, name in enumerate(report.step_names):
        page.text(name, MARGIN + LABEL + i * (width + GAP) + width / 2, page.y, SMALL, anchor="ma")
    page.y += SMALL * 1.5


def _map_rows(page: _Page, rows: Sequence[MapRow]) -> None:
    for row in rows:
        width, height = _size(row)
        page.text(ascii_text(row.label), MARGIN, page.y + height / 2, anchor="lm")
        for i, picture in enumerate(row.pictures):
            page.paste(picture, MARGIN + LABEL + i * (width + GAP), page.y, width, height)
        page.y += height + GAP


def _size(row: MapRow) -> tuple[float, float]:
    """Width and height of its pictures on the page."""
    height, width = row.pictures[0].shape[:2]
    return MAP * width / max(height, width), MAP * height / max(height, width)


def _color_bar(page: _Page, colors: Sequence[str], ends: tuple[str, str]) -> None:
    """The colours from 0 to 1, between what their ends mean."""
    x, width, height, y = MARGIN, 160, 10, page.y + 4
    for end in ends:
        page.text(end, x, y + height / 2, SMALL, anchor="lm")
        x += _width(end, SMALL) + 8
        if end is ends[0]:
            page.paste(colorize(np.linspace(0, 1, 2 * width)[None], colors), x, y, width, height)
            x += width + 8
    page.y += height + 20


def _plot(page: _Page, plot: Plot, x: float, width: float, legend_rows: int) -> None:
    """Title, caption, a legend with room for `legend_rows`, and the curves."""
    page.heading(plot.title, plot.caption, width, x)
    page.y += 8
    left, right, top = x + AXIS, x + width, page.y + legend_rows * TEXT * 1.5 + 10
    _legend(page, plot.legend, x, width)
    bottom = top + PLOT_HEIGHT
    first, last = (curve_steps[i] for curve_steps in [plot.curves[0].steps] for i in (0, -1)) if plot.curves else (0, 1)
    span = max(last - first, 1)
    low, high = (math.log10(plot.low), math.log10(plot.high)) if plot.logarithmic else (plot.low, plot.high)

    def place(step: float, value: float) -> Point:
        value = math.log10(value) if plot.logarithmic else value
        return left + (step - first) / span * (right - left), bottom + (value - low) / (high - low) * (top - bottom)

    for value in _decades(plot) if plot.logarithmic else np.linspace(plot.low, plot.high, 6):
        y = place(first, value)[1]
        page.line([(left, y), (right, y)], LINE)
        _number(page, value, left - 8, y, plot.logarithmic)
    for value in _minor(plot) if plot.logarithmic else ():
        y = place(first, value)[1]
        page.line([(left - 4, y), (left, y)], SOFT)
    for step in _ticks(first, last):
        across = place(step, plot.low)[0]
        page.line([(across, bottom), (across, bottom + 4)], SOFT)
        page.text(str(step), across, bottom + 8, SMALL, anchor="ma")
    page.line([(left, bottom), (right, bottom)], SOFT)
    page.text("step", (left + right) / 2, bottom + 26, SMALL, anchor="ma")
    for curve in plot.curves:
        points = [None if math.isnan(v) else place(s, v) for s, v in zip(curve.steps, curve.values, strict=True)]
        for piece in _between_gaps(points):
            page.line(piece, curve.color, STROKE, curve.dashes)
        for i in curve.dots:
            page.dot(*points[i], curve.color)
    page.y = bottom + 44


def _number(page: _Page, value: float, x: float, y: float, power: bool) -> None:
    """A number at an axis; as a power of ten with its exponent raised."""
    if not power:
        page.text(f"{value:.1f}", x, y, SMALL, anchor="rm")
        return
    exponent = str(round(math.log10(value)))
    page.text(exponent, x, y - 5, SMALL - 3, anchor="rm")
    page.text("10", x - _width(exponent, SMALL - 3) - 1, y, SMALL, anchor="rm")


def _ticks(first: int, last: int) -> range:
    """Numbers of steps on the axis: at most eleven, round ones."""
    round_numbers = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    every = next(number for number in round_numbers if 10 * number >= last - first)
    return range(-(-first // every) * every, last + 1, every)


def _decades(plot: Plot) -> list[float]:
    """The powers of ten on the axis, at most seven of them."""
    low, high = round(math.log10(plot.low)), round(math.log10(plot.high))
    return [10.0**power for power in range(low, high + 1, math.ceil((high - low) / 6))]


def _minor(plot: Plot) -> list[float]:
    """2 to 9 times each power of ten, if the axis is not too long for them."""
    low, high = round(math.log10(plot.low)), round(math.log10(plot.high))
    return [digit * 10.0**power for power in range(low, high) for digit in range(2, 10)] if high - low <= 3 else []


SAMPLE, SPACE = 30, 18  # pixels: the line in front of a legend's name, and what is behind the name


def _legend_rows(legend: Sequence[Sequence[Key]], width: float) -> list[list[Key]]:
    """The legend in rows, each of one group and as long as fits. Only a name longer than a row is cut."""
    rows: list[list[Key]] = []
    for group in legend:
        room = 0.0
        for key in group:
            label = shortened(key.label, _font(TEXT), round((width - SAMPLE) * SCALE))
            needed = SAMPLE + _width(label) + SPACE
            if needed > room + SPACE:
                rows.append([])
                room = width
            rows[-1].append(key._replace(label=label))
            room -= needed
    return rows


def _legend(page: _Page, legend: Sequence[Sequence[Key]], x: float, width: float) -> None:
    for i, row in enumerate(_legend_rows(legend, width)):
        across, y = x, page.y + (i + 0.5) * TEXT * 1.5
        for key in row:
            page.line([(across, y), (across + SAMPLE - 8, y)], key.color or SOFT, STROKE, key.dashes)
            page.text(key.label, across + SAMPLE, y, anchor="lm")
            across += SAMPLE + _width(key.label) + SPACE


def _strokes(points: Sequence[Point], dashes: Sequence[float]) -> Iterator[list[Point]]:
    """The polyline in pieces, by lengths of strokes and gaps in turn; whole without any."""
    if not dashes:
        yield list(points)
        return
    turn, left, piece = 0, dashes[0], [points[0]]
    for start, end in zip(points, points[1:], strict=False):
        length, done = math.dist(start, end), 0.0
        while length - done > left:
            done += left
            at = tuple(a + (b - a) * done / length for a, b in zip(start, end, strict=True))
            if turn % 2 == 0:
                yield [*piece, at]
            turn, piece = turn + 1, [at]
            left = dashes[turn % len(dashes)]
        left -= length - done
        piece.append(end)
    if turn % 2 == 0 and len(piece) > 1:
        yield piece


def _between_gaps(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Stretches of at least two points."""
    piece: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            piece.append(point)
            continue
        if len(piece) > 1:
            yield piece
        piece = []


def _wrapped(text: str, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _width(text: str, size: int = TEXT) -> float:
    """Pixels of the result."""
    return _font(size).getlength(text) / SCALE


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * SCALE)
