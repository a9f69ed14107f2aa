"""A balance trace as one picture: weights over time, losses, gradient magnitudes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realcompo_core.guidance.trace import Trace
from realcompo_core.layout.drawing import color_of

COLUMNS = 8
SIDE, GAP, MARGIN, LABEL = 120, 8, 24, 110  # pixels
CURVES = 220
INK, SOFT, LINE = "#1d1f24", "#666a73", "#dcdcd6"
FIDELITY, EVEN, SPATIAL = (84, 39, 136), (247, 247, 247), (179, 88, 6)
BRANCHES = ("#542788", "#b35806", "#1b7837", "#2166ac", "#b2182b")


def report_picture(trace: Trace, item: int = 0) -> Image.Image:
    """Of one item of the batch: weight maps of each spatial branch, then curves over the steps that read maps."""
    steps = trace.steps
    shown = [steps[round(i * (len(steps) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)] if len(steps) > 1 else steps
    h, w = steps[0].weights.shape[-2:]
    height = round(SIDE * h / w)
    width = 2 * MARGIN + LABEL + COLUMNS * (SIDE + GAP)
    rows = len(trace.branches) - 1
    total = 2 * MARGIN + 60 + rows * (height + GAP) + (CURVES + 70 if trace.read_steps else 0)
    page = Image.new("RGB", (width, total), "white")
    draw = ImageDraw.Draw(page)
    y = MARGIN
    draw.text(
        (MARGIN, y),
        trace.note or "Who is heard, over the steps: orange the spatial branch, purple the others",
        fill=INK,
        font=_font(16),
    )
    y += 30
    for column, step in enumerate(shown):
        x = MARGIN + LABEL + column * (SIDE + GAP)
        draw.text((x, y), f"step {step.index + 1}", fill=SOFT, font=_font(12))
    y += 20
    for k, name in list(enumerate(trace.branches))[1:]:
        draw.text((MARGIN, y + height // 2 - 8), name, fill=BRANCHES[k % len(BRANCHES)], font=_font(14))
        for column, step in enumerate(shown):
            picture = Image.fromarray(_weight_colors(step.weights[item, k].numpy())).resize((SIDE, height), 0)
            page.paste(picture, (MARGIN + LABEL + column * (SIDE + GAP), y))
        y += height + GAP
    read = trace.read_steps
    if read:
        xs = [step.index + 1 for step in read]
        half = (width - 2 * MARGIN) // 2 - 20
        phrases = trace.phrases[item] if trace.phrases else [str(g) for g in range(read[0].losses.shape[-1])]
        losses = [
            (f"{phrase}, {branch}", color_of(g), k, [float(step.losses[item, k, g]) for step in read])
            for g, phrase in enumerate(phrases)
            for k, branch in enumerate(trace.branches)
        ]
        gradients = [
            (
                branch,
                BRANCHES[k % len(BRANCHES)],
                k,
                [math.log10(max(float(step.gradient[item, k]), 1e-12)) for step in read],
            )
            for k, branch in enumerate(trace.branches)
        ]
        _curves(draw, (MARGIN, y + 16, half), "Loss: share of attention outside the box", xs, losses)
        _curves(draw, (MARGIN + half + 40, y + 16, half), "log10 of the largest gradient", xs, gradients)
    return page


def _weight_colors(weight: np.ndarray) -> np.ndarray:
    """(h, w) in 0..1 to (h, w, 3) bytes: purple is 0, white a half, orange 1."""
    stops = np.array([FIDELITY, EVEN, SPATIAL], dtype=float)
    channels = [np.interp(weight, [0, 0.5, 1], stops[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _curves(draw: ImageDraw.ImageDraw, place: tuple[int, int, int], title: str, xs: Sequence[int], curves) -> None:
    """`curves`: (name, colour, dash, values). The first branch is drawn dotted."""
    x0, y0, width = place
    draw.text((x0, y0), title, fill=INK, font=_font(14))
    top, bottom, left, right = y0 + 26, y0 + CURVES, x0 + 40, x0 + width - 130
    values = [v for *_, curve in curves for v in curve if math.isfinite(v)]
    low, high = min(values), max(values)
    high = high if high > low else low + 1
    for value in (low, high):
        y = _scaled(value, low, high, bottom, top)
        draw.line([(left, y), (right, y)], fill=LINE)
        draw.text((x0, y - 7), f"{value:.2f}", fill=SOFT, font=_font(11))
    draw.text((left, bottom + 4), f"step {xs[0]}", fill=SOFT, font=_font(11))
    draw.text((right - 40, bottom + 4), f"step {xs[-1]}", fill=SOFT, font=_font(11))
    for i, (name, color, branch, curve) in enumerate(curves):
        points = [
            (_scaled(x, xs[0], max(xs[-1], xs[0] + 1), left, right), _scaled(v, low, high, bottom, top))
            for x, v in zip(xs, curve, strict=True)
            if math.isfinite(v)
        ]
        if branch == 0:
            for x, y in points:
                draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=color)
        else:
            draw.line(points, fill=color, width=2)
        draw.text((right + 8, top + 15 * i), name[:22], fill=color, font=_font(11))


def _scaled(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
