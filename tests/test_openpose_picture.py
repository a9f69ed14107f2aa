"""OpenPose pictures: the colours, places and sizes that pose ControlNets know."""

import numpy as np
import pytest

from realcompo_core.errors import LayoutError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.openpose_picture import draw_pose

# A person that faces the viewer. x, y as shares; colours of the joints as OpenPose's COCO model has them.
JOINTS = {
    "nose": (0.50, 0.15, "ff0000"),
    "neck": (0.50, 0.27, "ff5500"),
    "right shoulder": (0.42, 0.27, "ffaa00"),
    "right elbow": (0.36, 0.40, "ffff00"),
    "right wrist": (0.30, 0.52, "aaff00"),
    "left shoulder": (0.58, 0.27, "55ff00"),
    "left elbow": (0.66, 0.38, "00ff00"),
    "left wrist": (0.70, 0.24, "00ff55"),
    "right hip": (0.45, 0.52, "00ffaa"),
    "right knee": (0.44, 0.70, "00ffff"),
    "right ankle": (0.43, 0.88, "00aaff"),
    "left hip": (0.55, 0.52, "0055ff"),
    "left knee": (0.57, 0.70, "0000ff"),
    "left ankle": (0.60, 0.88, "5500ff"),
    "right eye": (0.47, 0.12, "aa00ff"),
    "left eye": (0.53, 0.12, "ff00ff"),
    "right ear": (0.43, 0.14, "ff00aa"),
    "left ear": (0.57, 0.14, "ff0055"),
}
# Limbs at 0.6 of their full colours.
LIMBS = {
    ("neck", "right shoulder"): "990000",
    ("neck", "left shoulder"): "993300",
    ("right shoulder", "right elbow"): "996600",
    ("right elbow", "right wrist"): "999900",
    ("left shoulder", "left elbow"): "669900",
    ("left elbow", "left wrist"): "339900",
    ("neck", "right hip"): "009900",
    ("right hip", "right knee"): "009933",
    ("right knee", "right ankle"): "009966",
    ("neck", "left hip"): "009999",
    ("left hip", "left knee"): "006699",
    ("left knee", "left ankle"): "003399",
    ("neck", "nose"): "000099",
    ("nose", "right eye"): "330099",
    ("right eye", "right ear"): "660099",
    ("nose", "left eye"): "990099",
    ("left eye", "left ear"): "990066",
}


def figure(unseen=(), dx=0.0):
    points = tuple((x + dx, y, 0.0 if name in unseen else 0.9) for name, (x, y, _) in JOINTS.items())
    return LayoutObject("a dancer", (0, 0, 1, 1), keypoints=points)


def drawn(*people, size=(512, 512)):
    return np.asarray(draw_pose(Layout(people), size))


def colour_at(picture, x, y):
    """The colour at a place in shares, in hexadecimal."""
    height, width, _ = picture.shape
    return bytes(picture[int(y * height), int(x * width)]).hex()


def middle(a, b):
    return tuple((JOINTS[a][i] + JOINTS[b][i]) / 2 for i in (0, 1))


@pytest.mark.parametrize("size", [(512, 512), (1024, 768), (300, 900)])
def test_joints_and_limbs_have_openposes_colours(size):
    picture = drawn(figure(), size=size)
    assert {name: colour_at(picture, x, y) for name, (x, y, _) in JOINTS.items()} == {
        name: colour for name, (*_, colour) in JOINTS.items()
    }
    assert {limb: colour_at(picture, *middle(*limb)) for limb in LIMBS} == LIMBS
    colours = {bytes(colour).hex() for colour in np.unique(picture.reshape(-1, 3), axis=0)}
    assert colours == {"000000", *LIMBS.values(), *(colour for *_, colour in JOINTS.values())}


@pytest.mark.parametrize(("size", "width"), [((512, 512), 9), ((1024, 1024), 18), ((2048, 512), 9), ((64, 64), 2)])
def test_limbs_and_joints_are_9_pixels_wide_in_512_and_grow_with_the_shorter_side(size, width):
    points = [(0.2, 0.4999, 1.0), (0.8, 0.4999, 1.0)]  # nose and neck, level
    person = LayoutObject("a dancer", (0, 0, 1, 1), keypoints=(*points, *[(0.0, 0.0, 0.0)] * 16))
    picture = drawn(person, size=size)
    limb = (picture == (0, 0, 153)).all(-1)
    nose = (picture == (255, 0, 0)).all(-1)
    assert limb[:, size[0] // 2].sum() == width
    assert nose.sum(0).max() == pytest.approx(width, abs=1) and nose.sum(1).max() == pytest.approx(width, abs=1)
    columns = np.flatnonzero((limb | nose).any(0))
    assert columns[0] == pytest.approx(0.2 * size[0], abs=width), "from joint to joint, and no farther"


def test_a_limb_is_an_ellipse_that_ends_at_the_joints():
    person = LayoutObject(
        "a dancer", (0, 0, 1, 1), keypoints=((0.25, 0.25, 1), (0.75, 0.75, 1), *[(0.0, 0.0, 0.0)] * 16)
    )
    limb = (drawn(person) == (0, 0, 153)).all(-1)
    ys, xs = np.mgrid[:512, :512] + 0.5
    along, aside = (xs + ys - 512) / 2**0.5, (ys - xs) / 2**0.5
    inside = (along / (128 * 2**0.5)) ** 2 + (aside / 4.5) ** 2 <= 1
    discs = np.minimum(np.hypot(xs - 128, ys - 128), np.hypot(xs - 384, ys - 384)) <= 4.5
    assert np.array_equal(limb, inside & ~discs)


def test_what_was_not_seen_is_not_drawn():
    picture = drawn(figure(unseen=("right elbow",)))
    x, y, _ = JOINTS["right elbow"]
    assert colour_at(picture, x, y) == "000000"
    assert colour_at(picture, *middle("right shoulder", "right elbow")) == "000000"
    assert colour_at(picture, *middle("right elbow", "right wrist")) == "000000"
    assert colour_at(picture, *middle("neck", "right shoulder")) == "990000"


def test_people_partly_outside_are_cut():
    whole, cut = drawn(figure()), drawn(figure(dx=0.5))
    assert np.array_equal(cut[:, 256:], whole[:, :256]) and not cut[:, :256].any()
    assert not drawn(figure(dx=3)).any()


def test_all_people_are_drawn_and_other_objects_left_out():
    two = drawn(figure(dx=-0.25), LayoutObject("a dog", (0, 0, 0.5, 1)), figure(dx=0.25))
    one = drawn(figure(dx=-0.25)), drawn(figure(dx=0.25))
    assert np.array_equal(two, np.maximum(*one))


def test_a_layout_without_people_is_refused():
    with pytest.raises(LayoutError, match="none of its objects has keypoints"):
        draw_pose(Layout((LayoutObject("a dog", (0, 0, 0.5, 1)),)), (64, 64))
    with pytest.raises(LayoutError, match="'a hand' has 21 keypoints, OpenPose's are 18"):
        draw_pose(Layout((LayoutObject("a hand", (0, 0, 1, 1), keypoints=((0.5, 0.5, 1),) * 21),)), (64, 64))
