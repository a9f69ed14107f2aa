import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.regions import coverage, region, region_maps

SAMPLES = 60  # brute force looks at 60 x 60 points a cell


def count_inside(inside, height, width):
    """(height, width): the share of each cell's sample points for which `inside(x, y)` holds."""
    ys = (np.arange(height * SAMPLES) + 0.5) / (height * SAMPLES)
    xs = (np.arange(width * SAMPLES) + 0.5) / (width * SAMPLES)
    hits = inside(*np.meshgrid(xs, ys)).reshape(height, SAMPLES, width, SAMPLES)
    return torch.from_numpy(hits.mean((1, 3)))


@pytest.mark.parametrize("size", [(8, 8), (5, 12), (1, 3)])
@pytest.mark.parametrize("box", [(0.1, 0.2, 0.55, 0.9), (0, 0, 1, 1), (0.51, 0.3, 0.53, 0.8), (0.5, 0.25, 0.75, 1)])
def test_box_coverage_is_what_counting_points_gives(box, size):
    x0, y0, x1, y1 = box
    counted = count_inside(lambda x, y: (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1), *size)
    torch.testing.assert_close(coverage(LayoutObject("a", box), *size), counted, atol=2 / SAMPLES, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (3, 7), (40, 32)])
@pytest.mark.parametrize("shape", [(24, 24), (10, 17)])
def test_mask_coverage_is_what_counting_points_gives(shape, size):
    mask = np.random.default_rng(0).random(shape)
    rows, columns = shape
    counted = count_inside(lambda x, y: mask[(y * rows).astype(int), (x * columns).astype(int)] > 0.5, *size)
    found = coverage(LayoutObject("a", (0, 0, 1, 1), mask=mask), *size)
    torch.testing.assert_close(found, counted, atol=4 / SAMPLES, rtol=0)


def test_mask_wins_over_the_box():
    mask = np.zeros((4, 4))
    mask[:, 3] = 1
    found = coverage(LayoutObject("a", (0, 0, 0.5, 1), mask=mask), 4, 4)
    torch.testing.assert_close(found, torch.from_numpy(mask))


boxes = st.tuples(*[st.floats(0, 0.99)] * 2, *[st.floats(1e-5, 1)] * 2).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1.0), min(b[1] + b[3], 1.0))
)
sides = st.integers(1, 40)


@given(box=boxes, height=sides, width=sides)
def test_region_is_never_empty_and_covers_no_cell_outside_its_box(box, height, width):
    x0, y0, x1, y1 = box
    found = region(LayoutObject("a", box), height, width)
    assert found.max() == 1 and found.min() >= 0
    rows, columns = found.nonzero().T.double()
    assert (rows / height < y1 + 1e-9).all() and ((rows + 1) / height > y0 - 1e-9).all()
    assert (columns / width < x1 + 1e-9).all() and ((columns + 1) / width > x0 - 1e-9).all()


@given(box=boxes, height=sides, width=sides)
def test_coverage_adds_up_to_the_box_area(box, height, width):
    x0, y0, x1, y1 = box
    total = coverage(LayoutObject("a", box), height, width).sum() / (height * width)
    assert total == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-6, abs=1e-12)


def test_objects_of_one_group_join_their_regions():
    left, right = LayoutObject("corgi", (0, 0, 0.25, 1)), LayoutObject("corgi", (0.75, 0, 1, 1))
    other = LayoutObject("cat", (0.25, 0, 0.5, 1))
    maps = region_maps(Layout((left, other, right)), [[0, 2], [1]], 2, 4)
    assert maps.dtype == torch.float32
    assert maps.tolist() == [[[1, 0, 0, 1]] * 2, [[0, 1, 0, 0]] * 2]


def test_layout_without_objects_has_no_region_map():
    assert region_maps(Layout(), [], 3, 5).shape == (0, 3, 5)
