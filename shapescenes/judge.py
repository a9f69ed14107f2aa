"""The judge: finds the shapes in a picture, and says whether a prompt's statements and a layout's boxes are met."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realcompo_core.layout import Layout, LayoutObject
from shapescenes.files import load
from shapescenes.world import COLOURS, SHAPES, SIZE, Prompt, Scene, holds

GRID = 16
CELL = SIZE / GRID  # pixels


class Judge(nn.Module):
    """A detector on a 16x16 grid: is there a shape's centre in this cell, which shape and colour, where exactly.

    Returns (B, 1 + 6 + 6 + 2, 16, 16): presence, shape and colour logits, centre offset in 0..1 of a cell.
    """

    def __init__(self):
        super().__init__()

        def block(c_in, c_out, stride):
            return nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
            )

        self.early = nn.Sequential(block(3, 32, 2), block(32, 48, 1), block(48, 64, 2), block(64, 64, 1))
        self.late = nn.Sequential(block(64, 96, 2), block(96, 96, 1), block(96, 128, 1), block(128, 128, 1))
        self.head = nn.Conv2d(128, 1 + 6 + 6 + 2, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (B, 3, 128, 128) in -1..1."""
        return self.head(self.late(self.early(picture)))

    def features(self, picture: Tensor) -> Tensor:
        """(B, 128): mean and spread of the texture-level features, for the Fréchet distance."""
        maps = self.early(picture).flatten(2)
        return torch.cat([maps.mean(-1), maps.std(-1)], 1)


class Detection(NamedTuple):
    """One shape found. `x`, `y` is its centre in pixels, `score` the probability that it is there."""

    shape: str
    colour: str
    x: float
    y: float
    score: float


def load_judge() -> Judge:
    judge = Judge()
    judge.load_state_dict(load("judge"))
    return judge.eval()


@torch.inference_mode()
def detect(judge: Judge, pictures: Tensor, threshold: float = 0.5) -> list[list[Detection]]:
    """pictures: (B, 3, 128, 128) in -1..1. One list of detections a picture: local maxima of presence."""
    output = judge(pictures).float()
    presence = output[:, 0].sigmoid()
    peak = (presence == F.max_pool2d(presence[:, None], 3, 1, 1)[:, 0]) & (presence > threshold)
    shape, colour, offset = output[:, 1:7].argmax(1), output[:, 7:13].argmax(1), output[:, 13:].clamp(0, 1)
    found: list[list[Detection]] = [[] for _ in pictures]
    for b, row, column in peak.nonzero().tolist():
        dx, dy = offset[b, :, row, column].tolist()
        found[b].append(
            Detection(
                SHAPES[shape[b, row, column]],
                list(COLOURS)[colour[b, row, column]],
                (column + dx) * CELL,
                (row + dy) * CELL,
                float(presence[b, row, column]),
            )
        )
    return found


def objects_present(prompt: Prompt, found: list[Detection]) -> bool:
    """Whether a picture shows each of the prompt's objects (shape and colour), whatever else it shows."""
    return Counter((k.shape, k.colour) for k in prompt.kinds) <= Counter((d.shape, d.colour) for d in found)


def states_hold(prompt: Prompt, found: list[Detection]) -> bool:
    """Whether a picture shows exactly the prompt's objects (shape and colour) in the relations it states."""
    if Counter((d.shape, d.colour) for d in found) != Counter((k.shape, k.colour) for k in prompt.kinds):
        return False
    places: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for d in found:
        places.setdefault((d.shape, d.colour), []).append((d.x, d.y))

    def of(index: int) -> list[tuple[float, float]]:
        kind = prompt.kinds[index]
        return places[kind.shape, kind.colour]

    return all(holds(r.word, s, o) for r in prompt.relations for s in of(r.subject) for o in of(r.other))


def box_hits(layout: Layout, prompt: Prompt, found: list[Detection]) -> float:
    """Share of the layout's objects that have a detection of their shape and colour centred in their box."""

    def hit(kind, box) -> bool:
        x0, y0, x1, y1 = (edge * SIZE for edge in box)
        return any(
            (d.shape, d.colour) == (kind.shape, kind.colour) and x0 <= d.x <= x1 and y0 <= d.y <= y1 for d in found
        )

    return float(np.mean([hit(k, o.box) for k, o in zip(prompt.kinds, layout.objects, strict=True)]))


def found_in_boxes(layout: Layout, found: list[Detection]) -> tuple[list[bool], list[Detection]]:
    """Whether each object of a layout is in the picture, and the detections that belong to none.

    An object is there if a detection of the shape and colour that its phrase names is centred in its box; no detection
    counts for two.
    """
    others, hits = list(found), []
    for item in layout.objects:
        match = next((d for d in others if _shows(d, item)), None)
        if match:
            others.remove(match)
        hits.append(match is not None)
    return hits, others


def _shows(detection: Detection, item: LayoutObject) -> bool:
    x0, y0, x1, y1 = (edge * SIZE for edge in item.box)
    named = detection.colour in item.phrase and detection.shape in item.phrase
    return named and x0 <= detection.x <= x1 and y0 <= detection.y <= y1


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two (N, D) feature sets (Heusel et al. 2017, eq. 6)."""
    mean = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    return float(mean @ mean + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def target(scene: Scene) -> Tensor:
    """(5, 16, 16): presence, shape index, colour index, centre offset of the cell that holds an object's centre."""
    grid = torch.zeros(5, GRID, GRID)
    for item in scene.objects:
        column, row = int(item.x / CELL), int(item.y / CELL)
        shape, colour = SHAPES.index(item.kind.shape), list(COLOURS).index(item.kind.colour)
        grid[:, row, column] = torch.tensor([1, shape, colour, item.x / CELL - column, item.y / CELL - row])
    return grid


def loss(output: Tensor, wanted: Tensor) -> Tensor:
    """output: (B, 15, 16, 16) of Judge; wanted: (B, 5, 16, 16) of `target`."""
    there = wanted[:, 0] > 0
    presence = F.binary_cross_entropy_with_logits(output[:, 0], wanted[:, 0], pos_weight=torch.tensor(10.0))
    cells, truth = output.permute(0, 2, 3, 1)[there], wanted.permute(0, 2, 3, 1)[there]
    kind = F.cross_entropy(cells[:, 1:7], truth[:, 1].long()) + F.cross_entropy(cells[:, 7:13], truth[:, 2].long())
    return 10 * presence + kind + 2 * F.smooth_l1_loss(cells[:, 13:], truth[:, 3:])
