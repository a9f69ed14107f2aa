"""Gradients of attention that is shared by text and picture, against plain autograd."""

import pytest
import torch

from realcompo_core.attention import columns
from realcompo_core.attention.losses import Objective
from realcompo_core.attention.reading import GradientReader
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.attention.targets import object_targets

HEADS, WIDTH, GRID = 2, 4, (3, 5)
PIXELS, TEXT, OTHERS = 15, 6, 3
LAYER = Layer("joint 0", "joint 0", "joint", 0, 0, 1, HEADS)
GROUPS = [[1, 4], [3]]
REGION = torch.zeros(2, *GRID, dtype=torch.float64)
REGION[0, :, :2] = 1
REGION[1, 1:, 3:] = 1


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, TEXT_KEYS, OTHER_KEYS = some(2, HEADS, PIXELS, WIDTH), some(2, HEADS, TEXT, WIDTH, seed=1), some(2, HEADS, OTHERS, 4)


def keys(x, text_first):
    """The picture's keys are its queries turned around, so that the gradient has two ways into x."""
    parts = [TEXT_KEYS, OTHER_KEYS, x.flip(-1)]
    return torch.cat(parts if text_first else [parts[1], parts[0], parts[2]], 2)


@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize("scores", [columns.SCORES, 2 * HEADS * 24 * 4, 1])
def test_maps_are_columns_of_the_softmax_over_all_keys(monkeypatch, text_first, scores):
    """Also with so few scores at a time that the pixels are taken in parts, to the last of one."""
    monkeypatch.setattr(columns, "SCORES", scores)
    text = slice(0, TEXT) if text_first else slice(OTHERS, OTHERS + TEXT)
    targets = object_targets([GROUPS] * 2, [lambda height, width: REGION] * 2)
    reader = GradientReader(X, Objective([LAYER], targets), stop=True)
    with reader:
        event = AttentionEvent(LAYER, "positive", reader.x, keys(reader.x, text_first), 0.5, text, GRID, "lookahead")
        reader.read(event)

    x = X.clone().requires_grad_(True)
    shares = torch.softmax(0.5 * x @ keys(x, text_first).mT, -1)[..., text].mean(1).mT.unflatten(-1, GRID)
    shares = shares / shares.sum((-2, -1), keepdim=True)
    maps = torch.stack([shares[:, group].mean(1) for group in GROUPS], 1)
    losses = 1 - (maps * REGION).sum((-2, -1))
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    torch.testing.assert_close(reader.gradient.g, gradient)
    torch.testing.assert_close(reader.gradient.losses, losses.detach())
    torch.testing.assert_close(reader.gradient.maps, maps.detach())
