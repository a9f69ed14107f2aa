"""Sweeps: what is read from a user's words, what each cell then has, its numbers by hand, and the grid's pixels."""

import inspect
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.named_settings import named_settings
from realcompo_core.guidance.presets import PRESETS
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.trace import Trace, TraceStep
from realcompo_core.sweep import drawing, measures
from realcompo_core.sweep.plan import BALANCE, PIPELINE, Plan, parse_axis, resolve

SETTINGS = {**BALANCE, **PIPELINE}
OWN = named_settings(BalanceSettings()) | {"beta": 1.0}


def axis(text: str):
    return parse_axis(*text.split("=", 1), SETTINGS)


def test_every_setting_of_a_call_can_be_swept():
    """What is no setting is what is drawn, by whose layout, with which pictures, and who is told of it."""
    call = set(inspect.signature(RealCompoPipeline.__call__).parameters)
    call -= {"self", "prompt", "layout", "provider", "controls", "balance", "latents", "progress", "cancelled"}
    names = {"cfg": "guidance_scale", "negative": "negative_prompt"}
    assert call == {names.get(name, name) for name in PIPELINE}
    written = {"spatial_weight", "spatial_weight_outside", "schedule"}  # for `fixed`
    assert {field.name for field in fields(BalanceSettings)} - {"fixed"} == set(BALANCE) - written


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("t0=0, 0.25,1", (0.0, 0.25, 1.0)),
        ("update-every = 1,2", (1, 2)),
        ("mode=one_pass,fixed", ("one_pass", "fixed")),
        ("sources=all,spatial,1,0+1", (None, "spatial", (1,), (0, 1))),
        ("guided-until=0.75,1", (0.75, 1.0)),
        ("layout-guidance=0,0.4", (None, PRESETS["best"].layout_guidance)),
        ("include-adjectives=yes,no", (True, False)),
        ("layers=4,mid_block", (4, "mid_block")),
        ("negative=blurry, dark; flat", ("blurry, dark", "flat")),
        ("width=512,768", (512, 768)),
    ],
)
def test_values_have_the_settings_type(text, values):
    assert axis(text).values == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t9=1", "'t9' is no setting that can be swept: choose one of mode, t0"),
        ("t0=0,1.5", "t0 is '1.5': write a share from 0 to 1"),
        ("rate=fast", "rate is 'fast': write a number"),
        ("rate=nan", "rate is 'nan': write a number"),
        ("cfg=-1", "cfg is '-1': write a number from 0 up"),
        ("steps=0", "steps is '0': write a whole number from 1 up"),
        ("width=100", "width is '100': write a whole number from 8 up that 8 divides"),
        ("sampler=magic", "sampler is 'magic': choose one of euler"),
        ("sources=0,2", "sources is '2': write all, spatial, or branches from 0 to 1"),
        ("t0=0,,1", "t0 is '': write a value"),
        ("t0=0.5,0.50", "t0 has 0.50 twice"),
        ("include_adjectives=maybe", "include_adjectives is 'maybe': write yes or no"),
    ],
)
def test_wrong_values_are_named(text, message):
    with pytest.raises(RealCompoError) as error:
        axis(text)
    assert str(error.value).startswith(message)


def test_cells_are_all_pairs_row_by_row():
    plan = Plan(axis("t0=0,.5"), axis("beta=1,0.3"))
    assert plan.shape == (2, 2)
    assert plan.titles == ["t0 = 0, beta = 1", "t0 = .5, beta = 1", "t0 = 0, beta = 0.3", "t0 = .5, beta = 0.3"]
    assert [(cell["t0"], cell["beta"]) for cell in plan.cells] == [(0, 1), (0.5, 1), (0, 0.3), (0.5, 0.3)]
    assert Plan(axis("t0=0,.5")).shape == (1, 2)
    assert Plan(axis("t0=0,.5")).cells == [{"t0": 0}, {"t0": 0.5}]


def test_a_cells_value_is_above_what_is_given_and_that_above_the_default():
    plan = Plan(axis("t0=0.1,0.2"))
    first, second = resolve(plan, OWN, {"rate": 2.0})
    assert (first["t0"], second["t0"]) == (0.1, 0.2)
    assert first["rate"] == second["rate"] == 2.0 and first["t1"] == 0.6


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (
            "spatial_weight=0.1",
            {},
            "the cell spatial_weight = 0.1: .* has no meaning with mode one_pass: take mode fixed",
        ),
        ("t0=0.1", {"mode": "fixed"}, "t0 0.1 has no meaning with schedule constant: take schedule step, linear or"),
        ("t0=0.1", {"spatial_weight": 0.3}, "spatial_weight 0.3 has no meaning with mode one_pass"),
        ("t0=0.1", {"t0": 0.3}, "t0 is an axis, and given for all cells too"),
    ],
)
def test_what_would_do_nothing_is_refused(x, given, message):
    with pytest.raises(RealCompoError, match=message):
        resolve(Plan(axis(x)), OWN, given)


def test_what_some_cell_uses_may_be_given():
    both = resolve(Plan(axis("mode=fixed,one_pass")), OWN, {"spatial_weight": 0.3, "rate": 2.0})
    assert [cell["spatial_weight"] for cell in both] == [0.3, 0.3]


def test_two_axes_of_one_setting_are_refused():
    with pytest.raises(RealCompoError, match="both axes are t0"):
        Plan(axis("t0=0"), axis("t0=1"))


def trace_of(*losses):
    """One step for each (B, K, G) of losses, and one without any at the end."""
    weights = torch.full((2, 2, 1, 1), 0.5)
    steps = [TraceStep(i, 1.0, weights, losses=torch.tensor(own), maps=weights) for i, own in enumerate(losses)]
    return Trace(("fidelity", "spatial"), [["a cat", "a dog"], ["a cat"]], [*steps, TraceStep(9, 0.1, weights)])


def test_attention_inside_is_of_the_last_reading_and_of_the_items_own_objects():
    """The second item has one object; where it would have another, the loss is that of nothing."""
    nan = float("nan")
    trace = trace_of([[[0.0, 0.0]] * 2] * 2, [[[0.2, 0.4], [0.6, 0.8]], [[0.3, 1.0], [nan, nan]]])
    assert measures.attention_inside(trace, 0) == pytest.approx(0.5)
    assert measures.attention_inside(trace, 1) == pytest.approx(0.7)
    assert measures.attention_inside(trace_of()) is None


def test_difference_of_pictures_by_hand():
    black = np.zeros((2, 2, 3))
    half = black.copy()
    half[0] = 0.6  # half of the values differ by 0.6
    assert measures.rms_difference(black, half) == pytest.approx(0.6 / 2**0.5, abs=1e-4)


def test_numbers_below_a_picture():
    numbers = {"found": 1, "objects": 2, "others": 1, "attention_inside": None, "difference": 0.25}
    assert measures.lines(numbers) == ["found 1 of 2, 1 more", "attention not read", "difference 0.250"]
    assert len(measures.captions(numbers)) == 3 and measures.captions({}) == []


def test_grid_shows_each_cell_in_its_place():
    """Red, green, blue and none in rows of two; the colours are found right of and below each other."""
    plan = Plan(axis("t0=0,1"), axis("beta=0,1"))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [*(Image.new("RGB", (64, 32), colour) for colour in colours), None]
    grid = np.asarray(drawing.draw_grid(plan, pictures, [["a"], ["b"], ["c"], []], "a title", ["what it means"]))
    places = [np.argwhere((grid == colour).all(-1)) for colour in colours]
    (red, green, blue) = (tuple(place.min(0)) for place in places)
    assert red[0] == green[0] and red[1] == blue[1] and green[1] > red[1] and blue[0] > red[0]
    sizes = {tuple(place.max(0) - place.min(0) + 1) for place in places}
    assert sizes == {(128, 256)}, "the aspect of the pictures"
    empty = grid[blue[0] : blue[0] + 128, green[1] : green[1] + 256]
    assert (empty[5, 5] == (242, 242, 238)).all() and empty.min() < 200, "says that it was not run"


def test_grid_of_many_columns_long_values_and_pictures_of_different_sizes():
    plan = Plan(axis("negative=" + ";".join(f"{'a very long negative prompt ' * 3}{i}" for i in range(12))))
    pictures = [Image.new("RGB", (8 * (i + 1), 64), "black") for i in range(12)]
    grid = drawing.draw_grid(plan, pictures, [["attention inside 0.55"]] * 12, "title " * 60, ["caption " * 90])
    assert 1500 < grid.width < 2500 and grid.height < 900
