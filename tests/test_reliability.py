"""The benchmark of reliability: its numbers by hand, and a few rounds of each part in every host."""

from argparse import Namespace

import pytest

from benchmarks import reliability

IN_HOST = [name for name in reliability.PARTS if name not in ("replies", "prompts")]


def test_growth_is_the_last_tenth_over_the_second():
    sizes = [1.0, 1.0, 200.0, 200.0, *[201.0] * 14, 202.0, 202.0]
    assert reliability.growth(sizes) == (200, pytest.approx(0.01))


def test_a_trend_is_the_slope_of_a_straight_line():
    assert reliability.slope([5.0, 7.0, 9.0]) == pytest.approx(2)
    assert reliability.slope([1.0, 2.0, 1.0]) == pytest.approx(0)


def test_a_part_ends_with_another_error_than_the_named_ones():
    def crash(rng):
        raise KeyError(rng.random())

    with pytest.raises(KeyError):
        reliability.fuzzed(1, 0, crash)


def test_states_are_the_same_where_both_say_nothing():
    nan = float("nan")
    assert reliability.same({"share": [0.5, nan]}, {"share": [0.5, float("nan")]})
    assert not reliability.same({"share": [0.5, nan]}, {"share": [0.5, 0.0]})


@pytest.mark.slow
@pytest.mark.parametrize("part", IN_HOST)
def test_a_few_rounds_in_each_host(host_folder, part):
    run, _ = reliability.PARTS[part]
    assert run(Namespace(host=host_folder, count=3, seed=1))["count"] == 3
