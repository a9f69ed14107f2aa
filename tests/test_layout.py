import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from realcompo_core import errors
from realcompo_core.layout import MAX_OBJECTS, Layout, LayoutObject, layout_schema

CAT = LayoutObject("a cat", (0.1, 0.2, 0.6, 0.9))
DISC = np.hypot(*(np.mgrid[:24, :32] - 12)) < 7
NAN = float("nan")


def same(a: Layout, b: Layout) -> bool:
    """Equality to the last bit, masks included."""
    return (a.prompt, a.background, a.negative, a.warnings) == (b.prompt, b.background, b.negative, b.warnings) and all(
        (x.phrase, x.box, x.keypoints, x.region) == (y.phrase, y.box, y.keypoints, y.region)
        and (x.mask is None) == (y.mask is None)
        and np.array_equal(x.mask, y.mask)
        for x, y in zip(a.objects, b.objects, strict=True)
    )


def test_validate_returns_the_layout():
    layout = Layout((CAT, replace(CAT, mask=DISC, keypoints=((0.2, 0.3, 0.0),))))
    assert layout.validate() is layout


def test_a_scene_of_nothing_is_valid():
    assert Layout(negative="backpacks").validate().objects == ()


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        (replace(CAT, phrase=" \n"), errors.EmptyPhraseError, "phrase is empty"),
        (replace(CAT, box=(0, 0, NAN, 1)), errors.NotFiniteError, "nan"),
        (replace(CAT, box=(0, 0, float("inf"), 1)), errors.NotFiniteError, "inf"),
        (replace(CAT, box=(0, 0, 1.01, 1)), errors.BoxOutsideError, "1.01"),
        (replace(CAT, box=(0, -0.01, 1, 1)), errors.BoxOutsideError, "-0.01"),
        (replace(CAT, box=(0.5, 0, 0.5, 1)), errors.EmptyBoxError, "no area"),
        (replace(CAT, box=(0, 0.9, 1, 0.1)), errors.EmptyBoxError, "0.9"),
        (replace(CAT, mask=np.ones((3, 8, 8))), errors.MaskShapeError, r"\(3, 8, 8\)"),
        (replace(CAT, mask=np.full((8, 8), NAN)), errors.NotFiniteError, "mask"),
        (replace(CAT, mask=np.full((8, 8), 0.5)), errors.EmptyMaskError, "nothing inside"),
        (replace(CAT, keypoints=((0.5, NAN, 1.0),)), errors.NotFiniteError, "keypoint"),
    ],
)
def test_each_fault_has_its_error_that_names_object_and_value(bad, error, told):
    with pytest.raises(error, match=told) as caught:
        Layout((CAT, bad)).validate()
    assert "objects[1]" in str(caught.value)


def test_masks_must_share_one_shape():
    layout = Layout((replace(CAT, mask=DISC), replace(CAT, mask=DISC.T)))
    with pytest.raises(errors.MaskShapeError, match=r"\(24, 32\).*\(32, 24\)"):
        layout.validate()


def test_number_of_objects_is_limited():
    Layout((CAT,) * MAX_OBJECTS).validate()
    with pytest.raises(errors.TooManyObjectsError, match="31"):
        Layout((CAT,) * (MAX_OBJECTS + 1)).validate()


def test_box_may_overshoot_by_float32_rounding():
    Layout((replace(CAT, box=(-5e-7, 0, float(np.float32(1) + np.finfo(np.float32).eps), 1)),)).validate()


def test_phrases_are_looked_up_in_the_prompt_given():
    layout = Layout((CAT,))
    layout.validate(prompt="two cats on a sofa")
    with pytest.raises(errors.PhraseNotInPromptError, match="a cat"):
        layout.validate(prompt="a dog on a sofa")


unit = st.floats(0, 1)
span = st.tuples(unit, unit).filter(lambda ends: ends[0] != ends[1]).map(sorted)
boxes = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), span, span)
number = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def layouts(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2))
    mask = st.none() | hnp.arrays(bool, shape).filter(np.any)
    keypoints = st.lists(st.tuples(number, number, unit), max_size=3).map(tuple)
    phrase = st.text(min_size=1).filter(str.strip)
    region = st.sampled_from(("shape", "box"))
    objects = draw(st.lists(st.builds(LayoutObject, phrase, boxes, mask, keypoints, region), max_size=4))
    warnings = draw(st.lists(st.text(), max_size=2).map(tuple))
    return Layout(tuple(objects), draw(st.text()), draw(st.text()), draw(st.text()), warnings)


@given(layouts())
def test_json_round_trip_is_exact_and_fits_the_schema(layout):
    assert same(Layout.from_json(layout.to_json()), layout)
    jsonschema.validate(layout.to_dict(), layout_schema())


def test_soft_mask_is_stored_as_what_is_inside():
    layout = Layout((replace(CAT, mask=np.array([[0.2, 0.5, 0.6, 1.0]])),))
    assert layout.to_dict()["objects"][0]["mask"] == {"size": [1, 4], "runs": [2, 2]}


def test_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(layout_schema())


def edited(path: tuple, value) -> dict:
    """A good layout's JSON with the field at `path` replaced, or removed if `value` is `...`."""
    mask_and_points = replace(CAT, mask=DISC, keypoints=((0.2, 0.3, 0.9),))
    data = Layout((CAT, mask_and_points), background="a field", prompt="cats").to_dict()
    *parents, last = path
    holder = data
    for key in parents:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("version",), 2, "layout.version: 2"),
        (("version",), "1", "layout.version"),
        (("version",), True, "layout.version"),
        (("version",), ..., "layout.version is missing"),
        (("objects",), ..., "layout.objects is missing"),
        (("objects",), {}, "layout.objects: {}"),
        (("prompt",), None, "layout.prompt: None"),
        (("warnings",), ["fine", 5], r"layout.warnings\[1\]: 5"),
        (("negativ",), "dogs", "unknown field 'negativ'"),
        (("objects", 1), "a cat", r"layout.objects\[1\]: 'a cat'"),
        (("objects", 1, "phrase"), 5, r"objects\[1\].phrase: 5"),
        (("objects", 1, "box"), ..., r"objects\[1\].box is missing"),
        (("objects", 1, "box"), [0, 0, 1], r"objects\[1\].box: \[0, 0, 1\]"),
        (("objects", 1, "box"), 7, r"objects\[1\].box: 7"),
        (("objects", 1, "box", 2), "1", r"objects\[1\].box"),
        (("objects", 1, "box", 2), True, r"objects\[1\].box"),
        (("objects", 1, "box", 2), 10**400, r"objects\[1\].box"),
        (("objects", 1, "keypoints", 0), [0.1, 0.2], r"objects\[1\].keypoints\[0\]"),
        (("objects", 1, "region"), "pose", r"objects\[1\] \('a cat'\): region 'pose'"),
        (("objects", 1, "region"), None, r"objects\[1\].region: None"),
        (("objects", 1, "mask"), "iVBOR", r"objects\[1\].mask: 'iVBOR'"),
        (("objects", 1, "mask", "size"), [24, 10**9], r"objects\[1\].mask.size"),
        (("objects", 1, "mask", "runs", 0), -3, r"objects\[1\].mask.runs"),
    ],
)
def test_wrong_json_is_refused_by_reader_and_schema(path, value, told):
    data = edited(path, value)
    with pytest.raises(errors.LayoutFormatError, match=told):
        Layout.from_dict(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, layout_schema())


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (("objects", 0, "phrase"), " ", errors.EmptyPhraseError),
        (("objects", 0, "box", 2), 1.5, errors.BoxOutsideError),
        (("objects",), [{"phrase": "a cat", "box": [0, 0, 1, 1]}] * 31, errors.TooManyObjectsError),
    ],
)
def test_unusable_layout_is_refused_by_reader_and_schema(path, value, error):
    data = edited(path, value)
    with pytest.raises(error):
        Layout.from_dict(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, layout_schema())


def test_runs_must_fill_the_mask():
    with pytest.raises(errors.LayoutFormatError, match="sum 768"):
        Layout.from_dict(edited(("objects", 1, "mask", "runs"), [700, 60]))


def test_texts_are_optional_in_json():
    layout = Layout.from_dict({"version": 1, "objects": []})
    assert (layout.prompt, layout.background, layout.negative) == ("", "", "")


@pytest.mark.parametrize("text", ["", "a cat at the left", "[" * 100_000, '{"version": 1'])
def test_text_that_is_no_json_is_named(text):
    with pytest.raises(errors.LayoutFormatError, match="no JSON"):
        Layout.from_json(text)


def test_nan_in_json_is_refused():
    with pytest.raises(errors.NotFiniteError):
        Layout.from_json('{"version": 1, "objects": [{"phrase": "a cat", "box": [0, 0, NaN, 1]}]}')


def test_invalid_layout_is_not_written():
    with pytest.raises(errors.EmptyBoxError):
        Layout((replace(CAT, box=(0, 0, 0, 0)),)).to_json()


def test_json_keeps_unicode_readable():
    text = Layout((replace(CAT, phrase="猫"),)).to_json()
    assert "猫" in text and json.loads(text)["objects"][0]["phrase"] == "猫"
