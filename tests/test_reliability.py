"""The benchmark of reliability: its numbers by hand, and a few rounds of each part in every host."""

from argparse import Namespace
from types import SimpleNamespace

import pytest

from benchmarks import reliability

IN_HOST = [name for name in reliability.PARTS if name not in ("replies", "prompts")]


def memory_of(sizes: list[float], tensors: list[int]) -> reliability.Memory:
    states = iter(zip(sizes, tensors, strict=True))
    size = 0.0

    def state() -> dict:
        nonlocal size
        size, count = next(states)
        return {"tensors": count}

    memory = reliability.Memory(SimpleNamespace(state=state, resident_bytes=lambda: size))
    for _ in sizes:
        memory.note()
    return memory


def test_growth_is_the_last_tenth_over_the_second():
    sizes = [1e6, 1e6, 200e6, 200e6, *[201e6] * 14, 202e6, 202e6]
    found = memory_of(sizes, [1, 1, 1, 1, 5, *[7] * 15]).summary()
    assert (found["megabytes"], found["growth"], found["tensors"]) == (200, "+1.00%", 2)


def test_a_trend_is_the_slope_of_a_straight_line():
    assert reliability.slope([5.0, 7.0, 9.0]) == pytest.approx(2)
    assert reliability.slope([1.0, 2.0, 1.0]) == pytest.approx(0)


def test_a_part_ends_with_another_error_than_the_named_ones():
    def crash(rng):
        raise KeyError(rng.random())

    with pytest.raises(KeyError):
        reliability.fuzzed(1, 0, crash)


@pytest.mark.slow
@pytest.mark.parametrize("part", IN_HOST)
def test_a_few_rounds_in_each_host(host_folder, part):
    run, _ = reliability.PARTS[part]
    assert run(Namespace(host=host_folder, count=3, seed=1))["count"] == 3
