import json

import numpy as np
import pytest

from realcompo_core import errors
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.formats import (
    from_bounding_boxes,
    from_boxes_or_elements,
    from_elements,
    from_masks,
    split_phrases,
    to_bounding_boxes,
    to_elements,
)

PIXELS = {"width": 400, "height": 200}
LEFT = {"x": 0, "y": 50, "width": 100, "height": 100, "label": "a cat"}
RIGHT = {"x": 300, "y": 0, "width": 100, "height": 200, "label": "a dog"}


def phrases_and_boxes(layout):
    return [(item.phrase, item.box) for item in layout.objects]


A_CAT = ("a cat", (0, 0.25, 0.25, 0.75))
A_DOG = ("a dog", (0.75, 0, 1, 1))


@pytest.mark.parametrize(
    ("boxes", "image", "expected"),
    [
        (LEFT, 0, [A_CAT]),
        ([LEFT, RIGHT], 0, [A_CAT, A_DOG]),
        ([LEFT, RIGHT], 1, [A_CAT, A_DOG]),  # one picture's boxes hold for the whole batch
        ([[LEFT, RIGHT]], 0, [A_CAT, A_DOG]),
        ([[LEFT], [RIGHT]], 1, [A_DOG]),
        ([LEFT, None, RIGHT], 2, [A_DOG]),
        ([LEFT, None, RIGHT], 1, []),
        ([[LEFT], []], 1, []),
        ([[LEFT]], 5, []),
        ([], 0, []),
        (None, 0, []),
    ],
)
def test_every_shape_of_bounding_boxes(boxes, image, expected):
    assert phrases_and_boxes(from_bounding_boxes(boxes, image=image, **PIXELS)) == expected


@pytest.mark.parametrize(
    ("extra", "phrase"),
    [
        ({"label": "from label", "metadata": {"desc": "from desc"}}, "from label"),
        ({"metadata": {"type": "obj", "text": "", "desc": "from desc"}}, "from desc"),
        ({"metadata": {"type": "text", "text": "from text", "desc": ""}}, "from text"),
    ],
)
def test_phrase_of_a_box(extra, phrase):
    box = {"x": 0, "y": 0, "width": 10, "height": 10, **extra}
    assert from_bounding_boxes(box, **PIXELS).objects[0].phrase == phrase
    assert from_bounding_boxes(box, "explicit", **PIXELS).objects[0].phrase == "explicit"


def test_one_phrase_serves_all_boxes_but_a_wrong_number_is_refused():
    two = [LEFT, RIGHT]
    assert [item.phrase for item in from_bounding_boxes(two, ["a corgi"], **PIXELS).objects] == ["a corgi"] * 2
    with pytest.raises(errors.PhraseCountError, match="2 boxes but 3 phrases"):
        from_bounding_boxes(two, ["a", "b", "c"], **PIXELS)


def test_a_lost_track_is_empty_even_with_phrases():
    assert from_bounding_boxes([[LEFT], None], ["a cat", "a dog"], image=1, **PIXELS).objects == ()


def test_box_without_phrase_or_number_is_named():
    with pytest.raises(errors.EmptyPhraseError, match=r"boxes\[1\]"):
        from_bounding_boxes([LEFT, {**RIGHT, "label": ""}], **PIXELS)
    with pytest.raises(errors.LayoutFormatError, match=r"boxes\[1\]: height"):
        from_bounding_boxes([LEFT, {"x": 0, "y": 0, "width": 3, "label": "a dog"}], **PIXELS)


def test_small_overshoot_is_cut_and_a_wrong_picture_size_is_not():
    (item,) = from_bounding_boxes({**LEFT, "x": -2, "width": 405}, **PIXELS).objects
    assert item.box == (0, 0.25, 1, 0.75)
    with pytest.raises(errors.BoxOutsideError, match=r"boxes\[0\].*200x200.*width and height"):
        from_bounding_boxes(RIGHT, width=200, height=200)


def test_a_box_that_reaches_outside_is_cut_and_told():
    layout = from_bounding_boxes([{**LEFT, "x": -20}, RIGHT], **PIXELS)
    assert layout.objects[0].box[0] == 0 and len(layout.warnings) == 1
    assert "boxes[0]" in layout.warnings[0] and "a cat" in layout.warnings[0] and "cut" in layout.warnings[0]
    layout = from_elements([{**ELEMENT, "bbox": [100, -60, 300, 500]}])
    assert layout.objects[0].box == (0, 0.1, 0.5, 0.3) and "elements[0]" in layout.warnings[0]
    with pytest.raises(errors.BoxOutsideError, match=r"elements\[0\].*thousandths"):
        from_elements([{**ELEMENT, "bbox": [100, 600, 300, 2000]}])


def test_no_boxes_are_told_where_a_prompt_may_name_objects():
    for empty in (from_bounding_boxes([], prompt="a cat", **PIXELS), from_elements([], prompt="a cat")):
        assert empty.objects == () and "no objects" in empty.warnings[0]
    assert from_bounding_boxes([], **PIXELS).warnings == ()


def test_scene_texts_pass_through():
    layout = from_bounding_boxes(None, **PIXELS, prompt="no cats", background="a lawn", negative="cats")
    assert (layout.prompt, layout.background, layout.negative) == ("no cats", "a lawn", "cats")


SCENE = Layout((LayoutObject("a cat", (0.1, 0.2, 0.5, 0.9)), LayoutObject("a dog", (0.6, 0, 1, 0.5))))


def test_bounding_boxes_carry_the_phrase_twice_in_whole_pixels():
    first = to_bounding_boxes(SCENE, 100, 50)[0]
    assert first["label"] == first["metadata"]["desc"] == "a cat"
    assert [first[key] for key in ("x", "y", "width", "height")] == [10, 10, 40, 35]
    assert all(type(first[key]) is int for key in ("x", "y", "width", "height"))


def test_bounding_boxes_and_elements_come_back():
    assert phrases_and_boxes(from_bounding_boxes(to_bounding_boxes(SCENE, 100, 50), width=100, height=50)) == (
        phrases_and_boxes(SCENE)
    )
    assert phrases_and_boxes(from_elements(to_elements(SCENE))) == phrases_and_boxes(SCENE)


@pytest.mark.parametrize("corner", [0.0, 0.5, 0.9999])
def test_a_box_below_the_grid_keeps_an_area(corner):
    speck = Layout((LayoutObject("a speck", (corner, corner, corner + 1e-5, corner + 1e-5)),))
    from_bounding_boxes(to_bounding_boxes(speck, 64, 64), width=64, height=64)
    from_elements(to_elements(speck))


ELEMENT = {"type": "obj", "bbox": [100, 200, 300, 1000], "desc": "a cat"}


@pytest.mark.parametrize("wrap", [lambda e: [e], lambda e: {"elements": [e]}, lambda e: json.dumps([e])])
def test_elements_are_y_first_thousandths(wrap):
    assert phrases_and_boxes(from_elements(wrap(ELEMENT))) == [("a cat", (0.2, 0.1, 1.0, 0.3))]


def test_text_element_takes_its_text():
    assert from_elements([{**ELEMENT, "type": "text", "text": "SALE", "desc": ""}]).objects[0].phrase == "SALE"


@pytest.mark.parametrize(
    ("elements", "error", "told"),
    [
        ("a cat", errors.LayoutFormatError, "no JSON"),
        ({"boxes": []}, errors.LayoutFormatError, "expected a list"),
        ([{"desc": "a cat"}], errors.LayoutFormatError, r"elements\[0\]"),
        ([ELEMENT, {**ELEMENT, "bbox": [0, 0, "x", 1]}], errors.LayoutFormatError, r"elements\[1\].bbox"),
        ([{**ELEMENT, "desc": ""}], errors.EmptyPhraseError, r"elements\[0\]"),
        ([{**ELEMENT, "desc": 5}], errors.EmptyPhraseError, r"elements\[0\]"),
        ([{**ELEMENT, "bbox": [0, 0, 2048, 2048]}] * 2, errors.BoxOutsideError, "76% of it lie outside"),
    ],
)
def test_bad_elements_are_named(elements, error, told):
    with pytest.raises(error, match=told):
        from_elements(elements)


def test_given_phrases_name_elements():
    assert from_elements([{**ELEMENT, "desc": ""}], "a dog").objects[0].phrase == "a dog"
    with pytest.raises(errors.PhraseCountError, match="1 elements but 2 phrases"):
        from_elements([ELEMENT], ["a dog", "a cat"])


@pytest.mark.parametrize(
    "data", [LEFT, [LEFT], [[LEFT]], [ELEMENT], {"elements": [ELEMENT]}, json.dumps([LEFT]), json.dumps([ELEMENT])]
)
def test_boxes_and_elements_are_told_apart(data):
    layout = from_boxes_or_elements(data, **PIXELS, prompt="p")
    x0, y0, x1, y1 = layout.objects[0].box
    assert layout.objects[0].phrase == "a cat" and layout.prompt == "p"
    assert (y0, y1) == ((0.1, 0.3) if "bbox" in str(data) else (0.25, 0.75))


@pytest.mark.parametrize("data", ["a cat", "5", "[1, 2]", [1, 2]])
def test_neither_boxes_nor_elements(data):
    with pytest.raises(errors.LayoutFormatError, match="boxes"):
        from_boxes_or_elements(data, **PIXELS)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a cat, a dog", ["a cat", "a dog"]),
        ("a red, striped cat\n\n a dog \n", ["a red, striped cat", "a dog"]),
        ("a cat", ["a cat"]),
        (" ", []),
    ],
)
def test_phrases_are_split_at_lines_or_commas(text, phrases):
    assert split_phrases(text) == phrases


def test_masks_keep_their_shape_beside_tight_boxes():
    masks = np.zeros((2, 4, 8), bool)
    masks[0, 1, 2:5] = True
    masks[1, 3, 7] = True
    layout = from_masks(masks, ["a cat", "a dog"], prompt="p")
    assert phrases_and_boxes(layout) == [("a cat", (0.25, 0.25, 0.625, 0.5)), ("a dog", (0.875, 0.75, 1, 1))]
    assert np.array_equal(layout.objects[1].mask, masks[1]) and layout.prompt == "p"


def test_masks_are_inside_above_one_half():
    masks = np.zeros((2, 2, 4), np.float32)
    masks[0, 0, 1:3] = 0.6, 0.5
    masks[1] = 1
    layout = from_masks(masks, "a cat")
    assert [item.box for item in layout.objects] == [(0.25, 0, 0.5, 0.5), (0, 0, 1, 1)]


@pytest.mark.parametrize(
    "batch",
    [
        lambda mask: mask,
        lambda mask: mask[None],
        lambda mask: mask[None, None],
        lambda mask: [mask],
        lambda mask: [mask[None]],
        lambda mask: mask[None].astype(np.float32),
    ],
    ids=["(H, W)", "(1, H, W)", "(1, 1, H, W)", "[(H, W)]", "[(1, H, W)]", "float"],
)
def test_every_shape_of_one_mask(batch):
    mask = np.zeros((2, 4), bool)
    mask[1, 2] = True
    (item,) = from_masks(batch(mask), "a cat").objects
    assert item.box == (0.5, 0.5, 0.75, 1) and np.array_equal(item.mask, mask)


def test_a_batch_with_a_channel_has_one_object_a_mask():
    masks = np.zeros((3, 1, 2, 4))
    masks[[0, 1, 2], 0, 0, [0, 1, 3]] = 1
    assert [item.box[0] for item in from_masks(masks, "a cat").objects] == [0, 0.25, 0.75]


def test_bad_masks_are_named():
    with pytest.raises(errors.MaskShapeError, match=r"\(4, 4, 4, 3\)"):
        from_masks(np.ones((4, 4, 4, 3)), ["a cat"])
    with pytest.raises(errors.MaskShapeError, match=r"\(0, 4, 4\)"):
        from_masks(np.ones((0, 4, 4)), ["a cat"])
    with pytest.raises(errors.MaskShapeError, match=r"\(4, 4\), \(2, 4\)"):
        from_masks([np.ones((4, 4)), np.ones((2, 4))], ["a cat", "a dog"])
    with pytest.raises(errors.PhraseCountError, match="3 masks but 2 phrases"):
        from_masks(np.ones((3, 4, 4)), ["a cat", "a dog"])
    with pytest.raises(errors.EmptyMaskError, match="a cat"):
        from_masks(np.zeros((1, 4, 4)), ["a cat"])
