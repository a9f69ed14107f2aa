"""Sweeps, and weights that fall over a run, in a real ComfyUI, through its HTTP interface. Without a host: skipped."""

import copy
import csv
import io
import json

import host_server
import numpy as np
import pytest
from PIL import Image

API = host_server.PACK / "workflows" / "api"
STEPS = 2


@pytest.fixture
def sweep() -> dict:
    """The template with 2 × 2 cells, 2 steps, every cell's picture saved, and the table shown."""
    workflow = json.loads((API / "sweep.json").read_text(encoding="utf-8"))
    workflow["sweep"]["inputs"].update(x_values="0, 0.5", y_values="0.5, 1")
    for key in ("balance", "alone"):
        workflow[key]["inputs"]["steps"] = STEPS
    workflow["cells"] = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "cell"}}
    workflow["table"] = {"class_type": "PreviewAny", "inputs": {"source": ["grid", 1]}}
    return workflow


def pictures(host, outputs: dict, key: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(host.file(entry)).convert("RGB")) for entry in outputs[key]["images"]]


def rows(outputs: dict) -> list[dict]:
    return list(csv.DictReader(io.StringIO(outputs["table"]["text"][0])))


def without_grid(workflow: dict) -> dict:
    return {
        key: node for key, node in workflow.items() if key not in ("grid", "save", "table", "alone", "decode_alone")
    }


def one_by_one(host, workflow: dict, t0: float, strength: float, **settings) -> np.ndarray:
    """The same picture without Sweep."""
    workflow = without_grid(copy.deepcopy(workflow))
    del workflow["sweep"]
    workflow["settings"]["inputs"].update(t0=t0, **settings)
    workflow["apply"]["inputs"]["strength"] = strength
    workflow["balance"]["inputs"]["settings"] = ["settings", 0]
    (found,) = pictures(host, host.run(workflow), "cells")
    return found


def refusal(host, workflow: dict) -> str:
    entry = host.wait(host.queue(workflow))
    assert entry["status"]["status_str"] == "error"
    return host_server.error_of(entry)


def test_every_cell_is_the_picture_of_its_settings(host, sweep):
    outputs = host.run(sweep)
    cells = pictures(host, outputs, "cells")
    expected = [one_by_one(host, sweep, t0, strength) for strength in (0.5, 1.0) for t0 in (0.0, 0.5)]
    assert len(cells) == 4 and all((a == b).all() for a, b in zip(cells, expected, strict=True))
    assert len({cell.tobytes() for cell in cells}) > 1

    (grid,) = pictures(host, outputs, "save")
    assert grid.shape[0] > 2 * 256 and grid.shape[1] > 2 * 256
    table = rows(outputs)
    assert [(row["t0"], row["strength"]) for row in table] == [("0", "0.5"), ("0.5", "0.5"), ("0", "1"), ("0.5", "1")]
    assert all(0 <= int(row["found"]) <= int(row["objects"]) == 4 for row in table)


def test_difference_is_nothing_where_the_fidelity_branch_is_alone(host, sweep):
    sweep["sweep"]["inputs"].update(x_setting="mode", x_values="one_pass, fixed", y_setting="none")
    sweep["settings"]["inputs"].update(spatial_weight=0.0, t1=1.0)
    moved, alone = rows(host.run(sweep))
    assert float(alone["difference"]) == 0 and float(moved["difference"]) > 0.01
    assert alone["attention_inside"] == "" and 0 < float(moved["attention_inside"]) < 1


def test_a_batch_has_a_grid_for_each_picture(host, sweep):
    sweep["models"]["inputs"]["batch_size"] = 2
    sweep["sweep"]["inputs"].update(y_setting="none")
    outputs = host.run(sweep)
    first, second = pictures(host, outputs, "save")
    assert (first != second).any()
    assert [row["picture"] for row in rows(outputs)] == ["0", "0", "1", "1"]


def test_grid_needs_no_more_than_pictures(host, sweep):
    for name in ("trace", "layout", "fidelity_image"):
        del sweep["grid"]["inputs"][name]
    sweep["grid"]["inputs"]["judge"] = False
    outputs = host.run(sweep)
    assert len(pictures(host, outputs, "save")) == 1 and set(rows(outputs)[0]) == {"picture", "t0", "strength"}


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("sweep", {"x_values": "0, 7"}, "t0 is '7': write a share from 0 to 1"),
        ("sweep", {"y_setting": "t0"}, "both axes are t0"),
        (
            "sweep",
            {"x_setting": "spatial_weight"},
            "spatial_weight 0 has no meaning with mode one_pass: take mode fixed",
        ),
        ("grid", {"images": ["decode_alone", 0]}, "images: 1 came, and the sweep has 4 cells"),
        ("grid", {"trace": ["once", 1]}, "trace: 1 came, and the sweep has 4 cells"),
        ("grid", {"fidelity_image": ["small", 0]}, "sample it from the same latent"),
    ],
)
def test_what_does_not_fit_is_named(host, sweep, node, change, message):
    once = copy.deepcopy(sweep["balance"])
    once["inputs"].update(settings=["settings", 0], spatial_positive=["pos", 0], spatial_negative=["neg", 0])
    sweep["once"] = once
    small = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    sweep["small"] = {"class_type": "EmptyImage", "inputs": small}
    sweep[node]["inputs"].update(change)
    assert message in refusal(host, sweep)


def test_judge_needs_a_layout_and_pictures_of_its_size(host, sweep):
    del sweep["grid"]["inputs"]["layout"]
    assert "judge: connect the layout" in refusal(host, sweep)
    sweep["grid"]["inputs"]["layout"] = ["layout", 0]
    sweep["models"]["inputs"]["width"] = 160
    assert "judge: it reads ShapeScenes pictures of 128x128 pixels, and these have 160x128" in refusal(host, sweep)


def test_weights_until_t1_and_the_fall_to_t1(host, sweep):
    """`constant`, also where a workflow of before has no schedule, knows neither t0 nor t1; the others do."""

    def drawn(**settings) -> bytes:
        return one_by_one(host, sweep, **({"t0": 0.0, "strength": 1.0, "mode": "fixed"} | settings)).tobytes()

    alone = {weight: drawn(spatial_weight=weight) for weight in (0.0, 1.0)}
    whole = {"spatial_weight": 1.0}
    assert drawn(**whole, t0=0.5, t1=0.5) == alone[1]
    assert drawn(**whole, schedule="until t1", t1=1.0) == alone[1]
    assert drawn(**whole, schedule="until t1", t1=0.0) == alone[0]
    assert drawn(spatial_weight=0.0, schedule="linear until t1", t0=1.0) == alone[1]
    half = {name: drawn(**whole, schedule=name, t1=0.8) for name in ("until t1", "linear until t1", "cosine until t1")}
    assert len({*half.values(), *alone.values()}) >= 4
    del sweep["settings"]["inputs"]["schedule"]
    assert drawn(**whole, t0=0.5, t1=0.5) == alone[1]


def test_sweep_over_schedules_uses_the_words_of_balance_settings(host, sweep):
    sweep["sweep"]["inputs"].update(x_setting="schedule", x_values="constant, linear until t1, step", y_setting="none")
    sweep["settings"]["inputs"].update(mode="fixed", spatial_weight=0.8, t1=0.8)
    cells = pictures(host, host.run(without_grid(sweep)), "cells")
    for cell, name in zip(cells, ("constant", "linear until t1", "until t1"), strict=True):
        same = {"mode": "fixed", "spatial_weight": 0.8, "t1": 0.8, "schedule": name}
        assert (cell == one_by_one(host, sweep, 0.0, 1.0, **same)).all()
