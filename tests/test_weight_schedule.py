"""Weights that fall over a run, against values by hand; and settings by the names that users write."""

import math

import pytest
import torch

from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.mixing import RegionWeights
from realcompo_core.guidance.named_settings import balance_settings, named_settings, unused
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import WeightSchedule
from realcompo_core.sampling.samplers import Step

START = RegionWeights(0.8, 0.2)


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        ("step", [0.8, 0.8, 0.8, 0.8, 0.0, 0.0]),
        ("linear", [0.8, 0.6, 0.4, 0.2, 0.0, 0.0]),
        ("cosine", [0.8, 0.8 * (0.5 + math.sqrt(0.125)), 0.4, 0.8 * (0.5 - math.sqrt(0.125)), 0.0, 0.0]),
    ],
)
def test_weights_fall_to_nothing_at_their_end(shape, inside):
    schedule = WeightSchedule(START, until=0.8, shape=shape)
    found = [schedule(progress) for progress in (0, 0.2, 0.4, 0.6, 0.8, 0.99)]
    assert [w.inside for w in found] == pytest.approx(inside)
    assert [w.outside for w in found] == pytest.approx([w / 4 for w in inside])


def test_the_way_begins_after_t0_and_may_end_elsewhere_than_at_nothing():
    schedule = WeightSchedule(START, RegionWeights(0.4, 0.6), until=0.75, shape="linear", t0=0.25)
    assert [schedule(p) for p in (0, 0.24)] == [(1, 1)] * 2
    assert schedule(0.25) == START
    assert schedule(0.5) == pytest.approx((0.6, 0.4))
    assert schedule(0.75) == (0.4, 0.6)


def test_t0_comes_first_where_it_is_larger():
    schedule = WeightSchedule(START, until=0.2, shape="linear", t0=0.5)
    assert [schedule(p) for p in (0.1, 0.3, 0.5)] == [(1, 1), (1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": RegionWeights(1.2, 0)}, "start is RegionWeights.inside=1.2.*from 0 to 1"),
        ({"start": 0.5}, "start is 0.5: give RegionWeights"),
        ({"end": RegionWeights(0, -1)}, "end is .*outside=-1.*from 0 to 1"),
        ({"until": 2}, "until is 2: it is a share"),
        ({"t0": -0.1}, "t0 is -0.1: it is a share"),
        ({"shape": "sine"}, "shape is 'sine': choose one of step, linear, cosine"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(wrong, message):
    with pytest.raises(RealCompoError, match=message):
        WeightSchedule(**{"start": START, **wrong})


class Counted:
    """A branch of a constant estimate that counts its runs."""

    def __init__(self, name, value):
        self.name, self.value, self.runs = name, value, []

    def acts_at(self, sigma):
        return True

    def moved(self, x, sigma):
        return x

    def denoise(self, x, sigma):
        self.runs.append(sigma)
        return torch.full_like(x, self.value)


def test_a_balancer_mixes_by_it_and_runs_no_branch_without_weight():
    """Ten steps: two of the spatial branch alone, six in which its weight falls, two of the fidelity branch alone."""
    sigmas = [float(s) for s in range(10, -1, -1)]
    branches = Counted("fidelity", 0.0), Counted("spatial", 1.0)
    objects = torch.zeros(1, 2, 2)
    objects[0, 0, 0] = 1
    fixed = WeightSchedule(START, until=0.8, shape="linear", t0=0.2)
    balancer = Balancer(branches, sigmas, [0], objects, BalanceSettings(fixed=fixed, t0=1.0, t1=0.0))
    x = torch.ones(1, 3, 2, 2)
    mixed = [balancer(x, sigma, Step(x, 1.0, sigma - 1)) for sigma in sigmas[:-1]]
    fall = [1 - i / 6 for i in range(6)]
    on_objects = [1, 1, *(0.8 * share for share in fall), 0, 0]
    elsewhere = [1, 1, *(0.2 * share for share in fall), 0, 0]
    assert [d[0, 0, 0, 0].item() for d in mixed] == pytest.approx(on_objects)
    assert [d[0, 0, 1, 1].item() for d in mixed] == pytest.approx(elsewhere)
    assert branches[0].runs == sigmas[2:-1] and branches[1].runs == sigmas[:8]


@pytest.mark.parametrize(
    "balance",
    [
        BalanceSettings(),
        BalanceSettings(mode="lookahead", rule="max", rate=2.0, initial="zero", t0=0.1, t1=0.9, sources=(0,)),
        BalanceSettings(fixed=RegionWeights(0.7, 0.1), t0=0.3),
        BalanceSettings(fixed=WeightSchedule(START, until=0.5, shape="cosine", t0=0.1), t0=0.1, t1=0.5),
    ],
)
def test_settings_by_name_are_the_settings(balance):
    assert balance_settings(named_settings(balance)) == balance


def test_weights_that_no_name_says_are_refused():
    for fixed in (torch.tensor([0.5, 0.5]), WeightSchedule(START, RegionWeights(0.1, 0.1))):
        with pytest.raises(RealCompoError, match="fixed is .*only RegionWeights"):
            named_settings(BalanceSettings(fixed=fixed))


def test_one_weight_is_that_of_everywhere():
    named = named_settings(BalanceSettings()) | {"mode": "fixed", "spatial_weight": 0.7}
    assert balance_settings(named).fixed == (0.7, 0.7)


def test_settings_that_do_nothing_beside_others():
    named = named_settings(BalanceSettings())
    assert set(unused(named)) == {"spatial_weight", "spatial_weight_outside", "schedule"}
    fixed = set(unused(named | {"mode": "fixed"}))
    assert {"t0", "t1", "rate", "rule", "initial", "layers"} <= fixed and "spatial_weight" not in fixed
    assert fixed - set(unused(named | {"mode": "fixed", "schedule": "linear"})) == {"t0", "t1"}
