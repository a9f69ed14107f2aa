"""Grounding metrics against values by hand."""

import pytest
import torch

from tokencompose_core.losses import noun_targets
from tokencompose_core.metrics import attention_iou, grounding_metrics


def test_iou_of_a_map_above_its_threshold():
    maps = torch.tensor([[1.0, 0.5, 0.39, 0.0], [0.4, 0.0, 0.0, 0.0]])
    masks = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]])
    assert attention_iou(maps, masks).item() == pytest.approx(2 / 5)
    assert attention_iou(maps / 1000, masks).item() == pytest.approx(2 / 5)
    assert attention_iou(torch.zeros(2, 4), torch.zeros(2, 4)).item() == 0


def test_shares_and_ious_by_side_and_over_all_layers():
    """One noun in the left half: the finer layer has it right, the coarser one is even."""
    mask = torch.zeros(1, 4, 4)
    mask[:, :, :2] = 1
    fine = (mask * 0.1)[None, None]
    coarse = torch.full((1, 2, 1, 2, 2), 0.05)
    found = grounding_metrics({"a": fine, "b": coarse}, noun_targets([[[3]]], [mask]))
    values = {name: total / count for name, (total, count) in found.items()}
    assert values["share/4"] == pytest.approx(1) and values["share/2"] == pytest.approx(0.5)
    assert values["share"] == pytest.approx(0.75)
    assert values["miou/4"] == 1 and values["miou/2"] == 0.5
    assert values["miou"] == 1  # 0.075 inside, 0.025 outside: below 0.4 of the largest


def test_items_without_nouns_do_not_count():
    mask = torch.ones(1, 4, 4)
    found = grounding_metrics({"a": torch.rand(2, 1, 1, 4, 4)}, noun_targets([[[3]], []], [mask, torch.zeros(0, 4, 4)]))
    assert found["share"] == (pytest.approx(1), 1) and found["miou"][1] == 1
