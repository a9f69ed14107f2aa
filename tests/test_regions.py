from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from realcompo_core.attention.losses import share_inside
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.keypoints import from_pose_keypoints
from realcompo_core.layout.regions import (
    BoxRegion,
    KeypointRegion,
    MaskRegion,
    capsule_coverage,
    covered_by_objects,
    overlap,
    region_map,
    region_maps,
    region_of,
)

SAMPLES = 60  # brute force looks at 60 x 60 points a cell


def coverage(item, height, width):
    return region_of(item).coverage(height, width)


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
    found = region_map(LayoutObject("a", box), height, width)
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


def keypoint_object(points, box=(0, 0, 1, 1), total=None):
    """An object whose keypoints are `points`, all seen; filled up to `total` with unseen ones."""
    seen = [(x, y, 1.0) for x, y in points]
    return LayoutObject("a dancer", box, keypoints=tuple(seen + [(0.0, 0.0, 0.0)] * ((total or len(seen)) - len(seen))))


def distance_to_segment(x, y, start, end):
    """Written otherwise than in the library: beside the segment by the cross product, else to the nearer end."""
    along, length = np.subtract(end, start), np.hypot(*np.subtract(end, start))
    to_ends = np.minimum(np.hypot(x - start[0], y - start[1]), np.hypot(x - end[0], y - end[1]))
    if length == 0:
        return to_ends
    position = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length
    beside = np.abs((x - start[0]) * along[1] - (y - start[1]) * along[0]) / length
    return np.where((position >= 0) & (position <= length), beside, to_ends)


DANCER = [  # nose, neck, right arm, left arm, right leg, left leg, eyes, ears
    *[(0.5, 0.1), (0.5, 0.2), (0.4, 0.2), (0.35, 0.35), (0.3, 0.5), (0.6, 0.2), (0.65, 0.35), (0.9, 0.1)],
    *[(0.45, 0.5), (0.3, 0.7), (0.1, 0.9), (0.55, 0.5), (0.6, 0.7), (0.6, 0.9)],
    *[(0.48, 0.08), (0.52, 0.08), (0.46, 0.1), (0.54, 0.1)],
]


def test_two_joints_without_limbs_are_two_discs_of_a_tenth_of_their_distance():
    """In a picture of 20 x 10 cells: joints 10 cells apart, so discs of radius 1 cell, centred on corners of cells."""
    covered = coverage(keypoint_object([(0.25, 0.5), (0.75, 0.5)]), 10, 20)
    quarter = np.pi / 4  # a quarter of a disc of radius 1
    expected = torch.zeros(10, 20, dtype=torch.float64)
    expected[4:6, 4:6] = expected[4:6, 14:16] = quarter
    torch.testing.assert_close(covered, expected, atol=0.02, rtol=0)


def test_a_limb_is_covered_between_its_joints():
    """Shoulder and elbow of an 18-point body, 10 cells apart: a bar of 2 x 10 cells and a half disc at either end."""
    body = [(0.0, 0.0)] * 18
    body[2], body[3] = (0.25, 0.5), (0.75, 0.5)
    keypoints = tuple((x, y, float(i in (2, 3))) for i, (x, y) in enumerate(body))
    covered = coverage(LayoutObject("a dancer", (0, 0, 1, 1), keypoints=keypoints), 10, 20)
    expected = torch.zeros(10, 20, dtype=torch.float64)
    expected[4:6, 5:15] = 1
    expected[4:6, [4, 15]] = np.pi / 4
    torch.testing.assert_close(covered, expected, atol=0.02, rtol=0)
    without_elbow = tuple((x, y, float(i in (2, 7))) for i, (x, y) in enumerate(body))  # no limb joins 2 and 7
    assert coverage(LayoutObject("a dancer", (0, 0, 1, 1), keypoints=without_elbow), 10, 20)[5, 10] == 0


@pytest.mark.parametrize("size", [(8, 8), (24, 16), (64, 96), (3, 7)])
def test_keypoint_coverage_is_what_counting_points_gives(size):
    height, width = size
    scaled = [(x * width, y * height) for x, y in DANCER]
    extent = max(max(axis) - min(axis) for axis in zip(*scaled, strict=True))
    limbs = "1-2 2-3 3-4 1-5 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 1-0 0-14 14-16 0-15 15-17".split()
    segments = [[scaled[int(i)] for i in limb.split("-")] for limb in limbs]

    def inside(x, y):
        return np.min([distance_to_segment(x * width, y * height, *ends) for ends in segments], 0) <= 0.1 * extent

    samples = max(4, 240 // max(size))
    ys, xs = ((np.arange(n * samples) + 0.5) / (n * samples) for n in size)
    counted = inside(*np.meshgrid(xs, ys)).reshape(height, samples, width, samples).mean((1, 3))
    found = coverage(keypoint_object(DANCER), *size)
    assert (found - torch.from_numpy(counted)).abs().mean() < 0.01
    torch.testing.assert_close(found, torch.from_numpy(counted), atol=2.5 / samples, rtol=0)


def test_region_of_a_pose_lies_in_the_box_that_the_import_draws_around_it_and_is_smaller():
    points = [value for x, y in DANCER for value in (x * 300, y * 200, 0.9)]
    pose = {"canvas_width": 300, "canvas_height": 200, "people": [{"pose_keypoints_2d": points}]}
    (item,) = from_pose_keypoints(pose, "a dancer").objects
    posed, boxed = (coverage(one, 20, 30) for one in (item, LayoutObject("a dancer", item.box)))
    assert (posed <= boxed + 0.05).all()
    assert posed.sum() < 0.6 * boxed.sum()


def test_an_object_that_says_so_is_in_its_box_whatever_else_it_has():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    given = {"box": (0.5, 0.5, 1, 1), "mask": mask, "keypoints": ((0.1, 0.1, 1.0), (0.2, 0.2, 1.0))}
    covered = coverage(LayoutObject("a dancer", **given, region="box"), 4, 4)
    assert covered.tolist() == coverage(LayoutObject("a dancer", (0.5, 0.5, 1, 1)), 4, 4).tolist()


@pytest.mark.parametrize("radii", [(0.01, 0.3, 0.31, 1, 2.5, 40)])
def test_capsules_grow_with_their_radius(radii):
    segments = [((1.0, 1.5), (6.2, 3.1)), ((5.0, 5.0), (5.0, 5.0))]
    maps = [capsule_coverage(segments, radius, 7, 9) for radius in radii]
    for smaller, larger in pairwise(maps):
        assert (smaller <= larger).all() and smaller.sum() < larger.sum()
    assert maps[0].max() > 0 and (maps[-1] == 1).all()


@pytest.mark.parametrize(
    ("coarse", "fine"), [((8, 8), (16, 16)), ((16, 16), (32, 32)), ((8, 8), (64, 64)), ((8, 12), (16, 24))]
)
def test_keypoint_coverage_is_the_same_at_every_resolution(coarse, fine):
    item = keypoint_object(DANCER)
    pooled = torch.nn.functional.avg_pool2d(coverage(item, *fine)[None], fine[0] // coarse[0])[0]
    torch.testing.assert_close(pooled, coverage(item, *coarse), atol=0.02, rtol=0)


def test_discs_are_round_in_the_picture_and_not_in_the_unit_square():
    covered = coverage(keypoint_object([(0.5, 0.2), (0.5, 0.8)]), 40, 80)  # 24 cells apart: radius 2.4 cells
    disc = covered[:20]
    assert disc.sum(1).max() == pytest.approx(4.8, abs=0.2) and disc.sum(0).max() == pytest.approx(4.8, abs=0.2)


def test_a_person_partly_outside_is_cut_and_keeps_its_size():
    whole = coverage(keypoint_object([(x, y) for x, y in DANCER]), 32, 32)
    shifted = coverage(keypoint_object([(x + 0.5, y) for x, y in DANCER]), 32, 32)
    torch.testing.assert_close(shifted[:, 16:], whole[:, :16])
    assert whole[:, :16].sum() > 1 and shifted[:, :14].sum() == 0  # nothing wraps around


UNSEEN = ((0.2, 0.2, 0.3), (0.8, 0.8, 0.0))
OUTSIDE = ((1.5, 0.2, 1.0), (1.6, 0.8, 1.0))


@pytest.mark.parametrize("keypoints", [UNSEEN, OUTSIDE])
def test_keypoints_that_say_nothing_leave_the_box(keypoints):
    box = (0.25, 0, 0.5, 1)
    found = coverage(LayoutObject("a dancer", box, keypoints=keypoints), 6, 8)
    assert torch.equal(found, coverage(LayoutObject("a dancer", box), 6, 8))


def test_absurd_coordinates_are_no_crash():
    found = region_map(keypoint_object([(1e200, 0.5), (0.5, -1e200), (-1e308, 1e308)]), 6, 8)
    assert found.isfinite().all() and found.max() == 1


def test_a_single_joint_is_a_disc_of_a_tenth_of_the_box():
    covered = coverage(keypoint_object([(0.5, 0.5)], box=(0.25, 0, 0.75, 1)), 40, 40)
    assert covered.sum() == pytest.approx(np.pi * 4**2, rel=0.02)


point_lists = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=18)


@given(points=point_lists, spread=st.sampled_from([1, 1e-3, 1e-9]), height=sides, width=sides)
def test_region_of_keypoints_in_the_picture_is_never_empty(points, spread, height, width):
    item = keypoint_object([(0.5 + (x - 0.5) * spread, 0.5 + (y - 0.5) * spread) for x, y in points])
    found = region_map(item, height, width)
    assert found.max() == 1 and found.min() >= 0


def test_the_mask_comes_first_then_keypoints_then_the_box():
    box, mask, points = (0, 0, 1, 1), np.eye(4), ((0.5, 0.5, 1.0),)
    assert isinstance(region_of(LayoutObject("a", box, mask, points)), MaskRegion)
    assert isinstance(region_of(LayoutObject("a", box, mask)), MaskRegion)
    assert isinstance(region_of(LayoutObject("a", box, None, points)), KeypointRegion)
    assert isinstance(region_of(LayoutObject("a", box)), BoxRegion)


def test_region_maps_of_a_box_a_mask_and_a_pose():
    mask = np.zeros((16, 16))
    mask[12:, 12:] = 1
    objects = (
        LayoutObject("a ball", (0, 0, 0.25, 0.25)),
        LayoutObject("a lamp", (0.75, 0.75, 1, 1), mask=mask),
        keypoint_object([(0.375, 0.75), (0.375, 0.25), (0.875, 0.25), (0.875, 0.75)]),
    )
    maps = region_maps(Layout(objects), [[0], [1], [2], [0, 2]], 16, 16)
    assert maps.amax((1, 2)).tolist() == [1, 1, 1, 1]
    assert maps[0].nonzero().amax() == 3 and maps[1].nonzero().amin() == 12
    assert maps[2, 4, 6] > 0.5 and maps[2, 8, 10] == 0  # a joint, and the middle of its box
    assert torch.equal(maps[3], torch.maximum(maps[0], maps[2]))
    assert torch.equal(covered_by_objects(Layout(objects), 16, 16), maps[:3].amax(0))


def test_attention_in_the_box_of_a_pose_but_beside_the_body_is_outside():
    joints = [(0.375, 0.75), (0.375, 0.25), (0.875, 0.25), (0.875, 0.75)]
    layout = Layout((keypoint_object(joints, (0.3, 0.2, 0.95, 0.8)),))
    on_joint, beside = torch.zeros(2, 32, 32)
    on_joint[8, 12] = beside[16, 20] = 1
    assert share_inside(on_joint, region_maps(layout, [[0]], 32, 32)).item() == 1
    assert share_inside(beside, region_maps(layout, [[0]], 32, 32)).item() == 0


@pytest.mark.parametrize("size", [(8, 8), (5, 12), (64, 96)])
def test_boxes_and_masks_are_covered_bit_by_bit_as_before_keypoints_were(size):
    """The arithmetic as it was written when boxes and masks were the only kinds."""
    height, width = size
    x0, y0, x1, y1 = torch.tensor((0.1, 0.2, 0.55, 0.9), dtype=torch.float64)
    box = overlap(torch.stack([y0, y1])[None], height) @ overlap(torch.stack([x0, x1])[None], width).T
    assert torch.equal(coverage(LayoutObject("a", (0.1, 0.2, 0.55, 0.9)), *size), box)
    values = np.random.default_rng(0).random((10, 17))
    mask = torch.from_numpy(values > 0.5).double()
    edges = [torch.arange(n + 1, dtype=torch.float64) / n for n in (10, 17)]
    rows, columns = (overlap(torch.stack([e[:-1], e[1:]], -1), n) for e, n in zip(edges, size, strict=True))
    assert torch.equal(coverage(LayoutObject("a", (0, 0, 1, 1), mask=values), *size), rows @ mask @ columns.T)
