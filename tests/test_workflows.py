"""The shipped workflows, as files: what the host needs to list and open them."""

import json
from pathlib import Path

import pytest
from PIL import Image

WORKFLOWS = Path(__file__).parents[1] / "workflows"
NAMES = [
    "quickstart",
    "realcompo_v1",
    "realcompo_v2",
    "realcompo_v3",
    "realcompo_v4",
    "stylised_checkpoint",
    "layout_on_canvas",
    "layout_by_local_llm",
    "keypoints_sdxl",
    "segmentation",
    "segmentation_shapes",
    "controlnets",
    "phrase_per_box",
    "layout_guidance",
    "tokencompose_shapes",
    "attention_maps",
    "sweep",
    "tokencompose_train",
]


def test_every_workflow_has_its_api_form_and_its_picture():
    for found in (WORKFLOWS.glob("*.json"), (WORKFLOWS / "api").glob("*.json"), WORKFLOWS.glob("*.jpg")):
        assert sorted(path.stem for path in found) == sorted(NAMES)
    for picture in WORKFLOWS.glob("*.jpg"):
        assert min(Image.open(picture).size) >= 512


@pytest.mark.parametrize("name", NAMES)
def test_editor_form_and_api_form_are_one_workflow(name):
    """The same nodes by title, and the same wires between them."""
    editor = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    api = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in editor["nodes"] if node["type"] != "MarkdownNote"}
    titles = {key: node["_meta"]["title"] for key, node in api.items()}
    assert {n["title"]: n["type"] for n in nodes.values()} == {titles[k]: n["class_type"] for k, n in api.items()}
    wires = {
        (nodes[source]["title"], slot, nodes[target]["title"], nodes[target]["inputs"][entry]["name"])
        for _, source, slot, target, entry, _ in editor["links"]
    }
    assert wires == {
        (titles[value[0]], value[1], titles[key], name)
        for key, node in api.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }
    assert any(node["type"] == "MarkdownNote" for node in editor["nodes"]) and editor["groups"]


@pytest.mark.parametrize("name", NAMES)
def test_workflow_holds_nothing_of_the_machine_it_was_made_on(name):
    for path in (WORKFLOWS / f"{name}.json", WORKFLOWS / "api" / f"{name}.json"):
        text = path.read_text(encoding="utf-8").lower()
        assert not any(trace in text for trace in ("http://", "https://", "api_key", "/home/", "/root/", "c:\\\\"))
