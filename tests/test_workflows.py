"""The shipped workflows, as files: what the host needs to list and open them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from realcompo_core.providers import get_provider

WORKFLOWS = Path(__file__).parents[1] / "workflows"
DOWNLOADS = "https://huggingface.co/"
FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "ControlNetLoader": "controlnet",
    "GLIGENLoader": "gligen",
    "UNETLoader": "diffusion_models",
}
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


def loaded_files(workflow: dict) -> dict[str, dict]:
    """The files that the nodes load, with the node of each."""
    return {
        value: node
        for node in workflow["nodes"]
        for value in node.get("widgets_values") or []
        if isinstance(value, str) and value.endswith(".safetensors")
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_workflow_loads_has_its_download(name):
    """So that the editor can offer it: from a site it trusts, with the file's name, for the loader's folder."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    for file, node in loaded_files(workflow).items():
        (model,) = node["properties"]["models"]
        assert model["name"] == file and model["directory"] == FOLDERS[node["type"]]
        assert model["url"].startswith(DOWNLOADS) and "/resolve/main/" in model["url"]
        assert model["url"].endswith(f"/{file}") or file == "TokenCompose_SD14_A.safetensors"  # whose note says so


def test_no_two_workflows_have_the_same_picture():
    pictures = [path.read_bytes() for path in WORKFLOWS.glob("*.jpg")]
    assert len(set(pictures)) == len(pictures)


def test_the_corgi_stands_on_the_table():
    api = json.loads((WORKFLOWS / "api" / "realcompo_v1.json").read_text(encoding="utf-8"))
    layout = get_provider("rules").propose(api["prompt"]["inputs"]["value"], (512, 512))
    corgi, bear, table = (item.box for item in layout.objects)
    assert corgi[2] <= bear[0] and not layout.warnings
    for left, _, right, bottom in (corgi, bear):
        assert table[0] <= left and right <= table[2] and table[1] <= bottom <= table[3]


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
        text = path.read_text(encoding="utf-8").lower().replace(DOWNLOADS, "")
        assert not any(trace in text for trace in ("http://", "https://", "api_key", "/home/", "/root/", "c:\\\\"))
