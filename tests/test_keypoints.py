"""Layouts from poses: where people are, and which phrase each of them gets."""

import json

import pytest

from realcompo_core import errors
from realcompo_core.layout.keypoints import assign_people, from_pose_keypoints, parse_people
from realcompo_core.layout.pose import LIMBS
from realcompo_core.layout.regions import BoxRegion, KeypointRegion, region_of


def person(*points):
    """18 keypoints, of which all but `points` were not seen."""
    return {"pose_keypoints_2d": [value for point in points for value in point] + [0.0] * 3 * (18 - len(points))}


def pose_of(*people, width=200, height=100):
    return [{"canvas_width": width, "canvas_height": height, "people": list(people)}]


STANDING = person((50, 20, 0.9), (60, 70, 0.8), (190, 95, 0.1))


def standing_at(*lefts):
    """A pose of people whose first keypoint is at these x, in pixels of 200 x 100."""
    return pose_of(*(person((x, 20, 1), (x + 10, 70, 1)) for x in lefts))


def who_is_where(layout):
    return [(item.phrase, round(item.keypoints[0][0] * 200)) for item in layout.objects]


def test_box_of_a_pose_pads_the_confident_keypoints():
    (item,) = from_pose_keypoints(pose_of(STANDING), "a dancer").objects
    assert item.box == pytest.approx(((50 - 5) / 200, (20 - 5) / 100, (60 + 5) / 200, (70 + 5) / 100))
    assert len(item.keypoints) == 18
    assert item.keypoints[2] == (0.95, 0.95, 0.1)


def test_pose_at_the_border_stays_inside():
    (item,) = from_pose_keypoints(pose_of(person((-20, 50, 1), (150, 99, 1))), "a dancer").objects
    assert item.box[0] == 0 and item.box[3] == 1
    assert item.keypoints[0][:2] == (-0.1, 0.5), "the pose itself is kept whole"


def test_pose_in_shares_of_the_canvas_is_the_same_layout():
    shares = person((0.25, 0.2, 0.9), (0.3, 0.7, 0.8), (0.95, 0.95, 0.1))
    (from_shares,) = from_pose_keypoints(pose_of(shares), "a dancer").objects
    (from_pixels,) = from_pose_keypoints(pose_of(STANDING), "a dancer").objects
    assert (from_shares.box, from_shares.keypoints) == (from_pixels.box, from_pixels.keypoints)


@pytest.mark.parametrize(("min_confidence", "kept"), [(0.3, 0.2), (0.1, 1.0), (0.0, 1.0)])
def test_keypoints_that_a_lower_min_confidence_lets_through_count_as_seen_later_too(min_confidence, kept):
    """Only the box heeded min_confidence; drawings and regions had a threshold of their own."""
    pose = pose_of(person((50, 20, 0.9), (60, 70, 0.2), (150, 95, 0.5)))
    (item,) = from_pose_keypoints(pose, "a dancer", min_confidence=min_confidence).objects
    assert [c for _, _, c in item.keypoints] == [0.9, kept, 0.5] + [0.0] * 15


def test_keypoints_that_a_higher_min_confidence_refuses_count_as_unseen_later_too():
    pose = pose_of(person((50, 20, 0.9), (60, 70, 0.8), (150, 95, 0.5)))
    (item,) = from_pose_keypoints(pose, "a dancer", min_confidence=0.6).objects
    assert [c for _, _, c in item.keypoints[:3]] == [0.9, 0.8, 0.0]


def test_joints_that_were_not_seen_may_have_no_place():
    nowhere = float("nan")
    pose = pose_of(person((50, 20, 0.9), (nowhere, nowhere, 0.0), (60, 70, 0.8)))
    (item,) = from_pose_keypoints(pose, "a dancer").objects
    assert item.keypoints[1] == (0, 0, 0) and item.box[0] == pytest.approx(45 / 200)


def test_region_is_around_the_pose_or_by_choice_the_box():
    (posed,) = from_pose_keypoints(pose_of(STANDING), "a dancer").objects
    (boxed,) = from_pose_keypoints(pose_of(STANDING), "a dancer", region="box").objects
    assert isinstance(region_of(posed), KeypointRegion)
    assert region_of(boxed) == BoxRegion(posed.box) and boxed.keypoints == posed.keypoints
    with pytest.raises(errors.LayoutFormatError, match="region: 'mask'"):
        from_pose_keypoints(pose_of(STANDING), "a dancer", region="mask")


BODY_25_NAMES = (
    "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle LHip LKnee LAnkle REye LEye "
    "REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel"
).split()
COCO_NAMES = (
    "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist RHip RKnee RAnkle LHip LKnee LAnkle REye LEye REar LEar"
).split()


def file_of(people, **more):
    """A file as the OpenPose program writes it."""
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": pose} for pose in people], **more}


def places(names):
    """Every joint at a place of its own, the same for joints of the same name: its place in BODY_25, in pixels."""
    return [value for name in names for value in (10.0 + 7 * BODY_25_NAMES.index(name), 5.0 + 3 * len(name), 0.9)]


def test_body_25_becomes_the_18_by_name():
    (newer,) = from_pose_keypoints(file_of([places(BODY_25_NAMES)]), "a man", width=200, height=100).objects
    (older,) = from_pose_keypoints(file_of([places(COCO_NAMES)]), "a man", width=200, height=100).objects
    assert newer.keypoints == older.keypoints and len(newer.keypoints) == 18
    named = {tuple(sorted((COCO_NAMES[a], COCO_NAMES[b]))) for a, b in LIMBS}
    assert {("LHip", "LKnee"), ("RAnkle", "RKnee"), ("LHip", "Neck"), ("Nose", "REye")} <= named


def test_json_text_is_read_like_what_it_holds():
    pose = pose_of(STANDING)
    (read,), (given,) = (from_pose_keypoints(p, "a dancer").objects for p in (json.dumps(pose), pose))
    assert (read.box, read.keypoints) == (given.box, given.keypoints)
    with pytest.raises(errors.LayoutFormatError, match="keypoints: the text is no JSON"):
        from_pose_keypoints("a dancer", "a dancer")


def test_a_file_without_canvas_needs_the_size_of_its_picture_unless_it_has_shares():
    pixels = file_of([STANDING["pose_keypoints_2d"]])
    shares = file_of([person((0.25, 0.2, 1), (0.3, 0.7, 1))["pose_keypoints_2d"]])
    (item,) = from_pose_keypoints(pixels, "a dancer", width=200, height=100).objects
    assert item.keypoints[0][:2] == (0.25, 0.2)
    (item,) = from_pose_keypoints(shares, "a dancer").objects
    assert item.keypoints[0][:2] == (0.25, 0.2)
    for canvas in ({}, {"canvas_width": 0, "canvas_height": 0}, {"canvas_width": None}):
        with pytest.raises(errors.LayoutFormatError, match="in pixels.* no canvas_width and canvas_height: give"):
            from_pose_keypoints({**pixels, **canvas}, "a dancer")


@pytest.mark.parametrize(
    ("canvas", "size", "told"),
    [
        ((200, 0), (0, 0), "canvas_width, canvas_height are 200, 0"),
        ((-200, 100), (0, 0), "are -200, 100"),
        ((200, float("inf")), (0, 0), "are 200, inf"),
        ((0, 0), (200, 0), "width, height are 200, 0"),
        ((200, 100), (400, 200), "width, height: 400, 200, but keypoints.0. has the canvas 200, 100"),
    ],
)
def test_canvas_that_is_none(canvas, size, told):
    pose = pose_of(STANDING, width=canvas[0], height=canvas[1])
    with pytest.raises(errors.LayoutFormatError, match=told):
        from_pose_keypoints(pose, "a dancer", width=size[0], height=size[1])


@pytest.mark.parametrize(
    ("phrases", "count", "expected"),
    [
        ("a dancer", 3, "000"),
        ("four friends", 4, "0000"),
        ("a boy, a girl", 2, "01"),
        ("two dancers, a boy", 3, "001"),
        ("a boy, two dancers", 3, "011"),
        ("a boy, his 2 sisters", 3, "011"),
        ("two dancers, two dancers", 2, "01"),  # named one by one
        ("two dancers, two dancers, a boy", 3, "012"),
        ("a singer, her friends", 4, "0111"),
        ("friends, a singer", 2, "01"),
        ("two boys, the others, a dog", 5, "00112"),
        ("boys, girls", 2, "01"),
    ],
)
def test_people_get_phrases_in_their_order_as_many_as_the_numbers_say(phrases, count, expected):
    phrases = phrases.split(", ")
    assigned = assign_people(count, phrases)
    assert [i for i, _ in assigned] == list(range(count))
    assert [phrase for _, phrase in assigned] == [phrases[int(k)] for k in expected]


@pytest.mark.parametrize(
    ("phrases", "count", "told"),
    [
        ("a, b, c", 2, r"2 people but 3 phrases for 3: 'a' \(1\), 'b' \(1\), 'c' \(1\)"),
        ("a boy, a girl", 4, "4 people but 2 phrases for 2.*'0\\+1, 2'"),
        ("two dancers, a boy", 2, r"2 people but 2 phrases for 3: 'two dancers' \(2\), 'a boy' \(1\)"),
        ("boys, girls", 3, "3 people but 2 phrases for 2"),
        ("two boys, friends", 2, "2 people but 2 phrases for 3"),
    ],
)
def test_a_number_of_people_that_does_not_come_out_even_is_refused(phrases, count, told):
    with pytest.raises(errors.PhraseCountError, match=told):
        assign_people(count, phrases.split(", "))


def test_chosen_people_get_the_phrases_and_others_are_left_out():
    pose = standing_at(10, 50, 90, 130)
    chosen = from_pose_keypoints(pose, ["two dancers", "a boy"], people=parse_people("3+0, 1"))
    assert who_is_where(chosen) == [("two dancers", 130), ("two dancers", 10), ("a boy", 50)]
    assert who_is_where(from_pose_keypoints(pose, "a man", people=[[2], [0]])) == [("a man", 90), ("a man", 10)]


def test_a_person_that_is_left_out_may_be_broken():
    pose = pose_of(person((50, 20, 0.9)), STANDING)
    assert len(from_pose_keypoints(pose, "a dancer", people=[[1]]).objects) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2, 0", [[2], [0]]), ("0+1, 2", [[0, 1], [2]]), ("0 + 1\n2\n", [[0, 1], [2]]), ("7", [[7]]), (" ", None)],
)
def test_choice_of_people(text, expected):
    assert parse_people(text) == expected


@pytest.mark.parametrize("text", ["first", "-1", "0+", "0 1", "0.5", "0;1"])
def test_choice_that_is_none(text):
    with pytest.raises(errors.LayoutFormatError, match="people: .*expected numbers from 0"):
        parse_people(text)


@pytest.mark.parametrize(
    ("people", "told"),
    [
        ([[0]], "1 entries but 2 phrases"),
        ([[0], [2]], "no person 2, there are 2, counted from 0"),
        ([[0, 1], [1]], "person 1 is chosen 2 times"),
        ([[0], [-1]], "no person -1"),
    ],
)
def test_choice_that_does_not_fit(people, told):
    with pytest.raises(errors.PhraseCountError, match=f"people: .*{told}"):
        from_pose_keypoints(standing_at(10, 50), ["a boy", "a girl"], people=people)


def test_pose_of_the_image_asked_for():
    frames = pose_of() + pose_of(STANDING)
    assert len(from_pose_keypoints(frames, "a dancer", image=1).objects) == 1
    for image in (2, -1):
        with pytest.raises(errors.LayoutFormatError, match=f"image {image} among 2"):
            from_pose_keypoints(frames, "a dancer", image=image)


def test_keypoints_without_people_are_refused():
    """A single phrase named none of them, and the picture was drawn from a layout without objects."""
    for phrases in ("a dancer", ["a boy", "a girl"]):
        with pytest.raises(errors.PhraseCountError, match=r"keypoints\[0\] has no people"):
            from_pose_keypoints(pose_of(), phrases)


@pytest.mark.parametrize(
    ("pose", "error", "told"),
    [
        (pose_of(person((50, 20, 0.9))), errors.EmptyBoxError, r"people\[0\] \(a dancer\): 1 keypoints are seen"),
        (pose_of(person((50, 20, 0.9), (50, 20, 0.9))), errors.EmptyBoxError, "1 keypoints are seen"),
        (pose_of(person((500, 20, 1), (600, 90, 1))), errors.BoxOutsideError, "outside of the picture 200 x 100"),
        (pose_of(person((50, 20, 1), (1e9, 90, 1))), errors.BoxOutsideError, "5e.06 times the width"),
        (pose_of({"pose_keypoints_2d": None}), errors.EmptyBoxError, "0 keypoints"),
        (pose_of({"pose_keypoints_2d": [1, 2, 3, 4]}), errors.LayoutFormatError, "4 numbers"),
        (pose_of({"pose_keypoints_2d": "1 2 3"}), errors.LayoutFormatError, "'1 2 3'"),
        (pose_of({"pose_keypoints_2d": [1, 2, "x"]}), errors.LayoutFormatError, "2 is missing or no number"),
        (pose_of("a dancer"), errors.LayoutFormatError, r"keypoints\[0\].people"),
        ([{"canvas_width": 9, "canvas_height": 9}], errors.LayoutFormatError, r"keypoints\[0\].people: None"),
        ([[1]], errors.LayoutFormatError, "keypoints: "),
        (pose_of(person((50, 20, 1), (float("nan"), 30, 1), (80, 60, 1))), errors.NotFiniteError, "joint 1 is .nan"),
        (pose_of(person((50, 20, 1), (5, 30, float("nan")))), errors.NotFiniteError, "joint 1 is"),
    ],
)
def test_bad_poses_are_named(pose, error, told):
    with pytest.raises(error, match=told):
        from_pose_keypoints(pose, "a dancer")
