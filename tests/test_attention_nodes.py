"""Attention nodes in a real ComfyUI, through its HTTP interface. Without a host these tests are skipped."""

import copy
import csv
import io
import json

import host_server
import numpy as np
import pytest
import torch
from PIL import Image

from realcompo_core.attention.maps import AttentionMaps

PROMPT = "a red circle to the left of a blue square"
STEPS = 4


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


VIEW = {
    "words": "",
    "axis": "words",
    "form": "sheet",
    "conditioning": "positive",
    "branch": "",
    "layer": "",
    "step": -1,
    "head": -1,
    "palette": "viridis",
    "opacity": 0.6,
    "normalise": "each",
    "threshold": 0.4,
    "export": "none",
    "filename_prefix": "attention/maps",
}


def workflow(batch: int = 1, record: dict | None = None, view: dict | None = None, seed: int = 3) -> dict:
    """Text to image with the host's KSampler, recorded and viewed; `record` and `view` change widgets."""
    sampling = {"cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "steps": STEPS}
    recording = {"tokens": "words", "layers": "blocks", "heads": "averaged", "every": 1, "limit": 256}
    recording |= {"prompt": PROMPT, "negative_prompt": "yellow star", "model": ["models", 0], "clip": ["models", 2]}
    return {
        "models": node("RealCompoShapeScenesLoader", width=128, height=160, batch_size=batch),
        "pos": node("CLIPTextEncode", text=PROMPT, clip=["models", 2]),
        "neg": node("CLIPTextEncode", text="yellow star", clip=["models", 2]),
        "record": node("RealCompoRecordAttention", **(recording | (record or {}))),
        "sample": node(
            "KSampler",
            model=["record", 0],
            positive=["pos", 0],
            negative=["neg", 0],
            latent_image=["models", 4],
            seed=seed,
            **sampling,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["models", 3]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="picture"),
        "view": node(
            "RealCompoAttentionMapViewer",
            **({"attention_maps": ["record", 1], "image": ["decode", 0]} | VIEW | (view or {})),
        ),
    }


def picture(host, output: dict) -> np.ndarray:
    return np.asarray(Image.open(host.file(output["images"][0])).convert("RGB"))


def error(host, prompt: dict) -> str:
    entry = host.wait(host.queue(prompt))
    assert entry["status"]["status_str"] == "error"
    return host_server.error_of(entry)


def test_words_of_a_batch_become_sheets_masks_and_files(host):
    """With the host's KSampler, a picture that is not square, and two of them."""
    prompt = workflow(batch=2, record={"heads": "apart"}, view={"words": "red circle, square", "export": "npz"})
    prompt["mask"] = node("MaskToImage", mask=["view", 1])
    prompt["masks"] = node("PreviewImage", images=["mask", 0])
    outputs = host.run(prompt)
    assert len(outputs["view"]["images"]) == 2 and len(outputs["masks"]["images"]) == 4
    masks = [np.asarray(Image.open(host.file(entry)).convert("L")) for entry in outputs["masks"]["images"]]
    assert all(mask.shape == (160, 128) and set(np.unique(mask)) == {0, 255} for mask in masks)
    (file,) = (host.base / "output" / "attention").glob("maps_*.npz")
    branch = AttentionMaps.load(file).branch()
    assert branch.batch == 2 and branch.steps == list(range(STEPS)) and branch.heads > 1
    assert branch.find("yellow star", "negative").columns
    assert branch.size == (20, 16)
    torch.testing.assert_close(branch.token_maps().sum(1), torch.ones(2, 20, 16), atol=0.02, rtol=0)
    maps = branch.word_maps([branch.find("square")])[1, 0]
    scaled = torch.nn.functional.interpolate(maps[None, None], (160, 128), mode="bilinear")[0, 0]
    wanted = scaled >= 0.4 * scaled.max()
    assert np.mean((masks[3] > 0) != wanted.numpy()) < 0.01  # the file holds fp16


def test_recording_changes_no_picture_and_is_left_out_where_nothing_uses_it(host):
    recorded = workflow(seed=11)
    unused = copy.deepcopy(recorded)
    del unused["view"]
    before = len(host.log)
    plain = picture(host, host.run(unused)["save"])
    assert "Attention:" not in host.log[before:]
    outputs = host.run(recorded)  # the sampler runs again: now its attention is wanted
    assert np.array_equal(picture(host, outputs["save"]), plain)
    assert picture(host, outputs["view"]).std() > 10


@pytest.mark.parametrize("axis, columns", [("layers", 7), ("steps", STEPS), ("heads", 4)])
def test_each_axis_gives_a_picture_for_every_value(host, axis, columns):
    prompt = workflow(record={"heads": "apart"}, view={"words": "circle", "axis": axis, "form": "pictures"})
    prompt["text"] = node("PreviewAny", source=["view", 2])
    outputs = host.run(prompt)
    (shown,) = json.loads(outputs["text"]["text"][0])
    assert shown["words"] == ["circle"] and len(shown["columns"]) == columns
    assert len(outputs["view"]["images"]) == columns
    assert picture(host, outputs["view"]).shape == (160, 128, 3)


def test_balanced_sampling_is_compared_by_branch_and_measured_on_its_layout(host):
    path = host_server.PACK / "workflows" / "api" / "attention_maps.json"
    prompt = json.loads(path.read_text())
    prompt["view"] = node(
        "RealCompoAttentionMapViewer",
        **(VIEW | {"attention_maps": ["balance", 2], "image": ["decode", 0], "axis": "branches", "words": "circle"}),
    )
    prompt["metrics"] = node(
        "RealCompoGroundingMetrics",
        attention_maps=["balance", 2],
        image=["decode", 0],
        words="",
        layers=True,
        steps=False,
    )
    prompt["table"] = node("PreviewAny", source=["metrics", 0])
    outputs = host.run(prompt)
    rows = list(csv.DictReader(io.StringIO(outputs["table"]["text"][0])))
    assert {row["branch"] for row in rows} == {"fidelity", "spatial"}
    assert {row["label"] for row in rows} == {"a red circle", "a blue square"}
    whole = [row for row in rows if row["layer"] == "all"]
    assert len(whole) == 4 and len({row["layer"] for row in rows}) == 8
    for row in whole:  # more inside the object's box than attention that falls anywhere
        assert float(row["share"]) > 1.3 * float(row["area"]), row


def test_masks_are_measured_instead_of_a_layout(host):
    prompt = workflow()
    prompt["metrics"] = node(
        "RealCompoGroundingMetrics",
        attention_maps=["record", 1],
        image=["decode", 0],
        masks=["view", 1],
        words="red circle",
        layers=False,
        steps=True,
    )
    prompt["table"] = node("PreviewAny", source=["metrics", 0])
    prompt["view"]["inputs"]["words"] = "red circle"
    rows = list(csv.DictReader(io.StringIO(host.run(prompt)["table"]["text"][0])))
    assert [row["step"] for row in rows] == ["all", *map(str, range(STEPS))]
    assert float(rows[0]["share"]) > float(rows[0]["area"])
    assert float(rows[0]["iou"]) > 0.8  # the mask is that map's own


@pytest.mark.parametrize(
    "record, view, message",
    [
        ({}, {"words": "green"}, "'green' is not in the positive prompt of branch model. Its words: <start>, a, red"),
        ({}, {"layer": "nowhere"}, "layer 'nowhere' of branch model was not recorded; there is: input"),
        ({}, {"step": STEPS}, f"step {STEPS} of branch model was not recorded; there is: 0, 1"),
        ({}, {"branch": "spatial"}, "no branch 'spatial' was recorded; there is: model"),
        ({}, {"conditioning": "negative", "words": "circle"}, "'circle' is not in the negative prompt"),
        ({}, {"export": "json", "filename_prefix": "../../outside"}, "'../../outside' leads out of"),
        ({"prompt": PROMPT * 9}, {}, "the positive prompt of the recording has 160 tokens, and the model reads 32"),
    ],
)
def test_wrong_inputs_are_named_with_the_way_out(host, record, view, message):
    assert message in error(host, workflow(record=record, view=view))


def test_a_viewer_that_runs_before_the_sampler_says_so(host):
    prompt = workflow(record={"limit": 255})  # as in no other prompt, whose recording the host might have kept
    del prompt["view"]["inputs"]["image"]
    prompt["view"]["inputs"]["attention_maps"] = ["record", 1]
    del prompt["save"], prompt["decode"], prompt["sample"]
    assert "no attention was recorded" in error(host, prompt)


def test_metrics_need_something_to_measure_against(host):
    prompt = workflow()
    metrics = {"attention_maps": ["record", 1], "image": ["decode", 0], "layers": False, "steps": False}
    prompt["metrics"] = node("RealCompoGroundingMetrics", words="", **metrics)
    assert "give a layout with objects" in error(host, prompt)
    prompt["metrics"]["inputs"] |= {"masks": ["view", 1], "words": "red circle"}
    assert "words: 1 were given for 10 masks" in error(host, prompt)
