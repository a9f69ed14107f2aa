"""The moving average of the weights, by its formula (docs/method.md, T5)."""

import pytest
import torch
from torch import nn

from tokencompose_core.ema import ExponentialMovingAverage


def test_average_follows_its_formula():
    """0.9 is reached at the 81st update: 81 / (81 + 9)."""
    parameter, expected = nn.Parameter(torch.zeros(2)), torch.zeros(2, dtype=torch.float64)
    average = ExponentialMovingAverage([parameter], 0.9)
    for n in range(1, 101):
        with torch.no_grad():
            parameter.copy_(torch.tensor([n, -(n**0.5)]))
        average.update()
        decay = n / (n + 9) if n < 81 else 0.9
        expected = decay * expected + (1 - decay) * parameter.detach()
        torch.testing.assert_close(average.state()["values"][0].double(), expected, rtol=1e-5, atol=1e-5)


def test_state_goes_on_where_it_was():
    parameter = nn.Parameter(torch.zeros(1))
    one, two = (ExponentialMovingAverage([parameter], 0.9) for _ in range(2))
    with torch.no_grad():
        parameter.fill_(1)
    one.update()
    two.load(one.state())
    for average in (one, two):
        average.update()
    assert one.state()["steps"] == two.state()["steps"] == 2
    assert torch.equal(one.state()["values"][0], two.state()["values"][0])


def test_parameters_are_the_average_only_inside():
    parameter = nn.Parameter(torch.zeros(1))
    average = ExponentialMovingAverage([parameter], 0.9)
    with torch.no_grad():
        parameter.fill_(1)
    with pytest.raises(KeyError), average.applied():
        assert parameter.item() == 0 and parameter.requires_grad
        raise KeyError
    assert parameter.item() == 1
    average.copy_to_parameters()
    assert parameter.item() == 0
