"""The shipped workflows, as files: what the host needs to list and open them."""

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from realcompo_core.providers import get_provider

WORKFLOWS = Path(__file__).parents[1] / "workflows"
BLUEPRINTS = sorted((WORKFLOWS.parent / "subgraphs").glob("*.json"))
INPUT, OUTPUT = -10, -20  # the ids of a subgraph's own ends
DOWNLOADS = "https://huggingface.co/"
FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "ControlNetLoader": "controlnet",
    "GLIGENLoader": "gligen",
    "UNETLoader": "diffusion_models",
    "VAELoader": "vae",
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
    "boxdiff",
    "attend_and_excite",
    "prompt_parts",
    "tokencompose_shapes",
    "attention_maps",
    "compare_models",
    "prompt_to_prompt",
    "inpainting",
    "sweep",
    "tokencompose_train",
    "quickstart_dit",
    "regional_attention_flux",
    "regional_attention_sd35",
    "regional_attention_qwen_image",
    "controlnet_flux",
    "controlnet_sd35",
    "controlnet_qwen_image",
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


def wires_of(graph: dict) -> list[tuple]:
    """Source, its slot, target, its entry: as the editor writes them in a workflow, and in a subgraph."""
    keys = ("origin_id", "origin_slot", "target_id", "target_slot")
    return [tuple(w[1:5]) if isinstance(w, list) else tuple(w[key] for key in keys) for w in graph["links"]]


def flat(workflow: dict) -> tuple[dict[str, str], set[tuple]]:
    """Types by title and the wires between titles, where each subgraph stands for what is in it."""
    definitions = {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}
    kinds, wires, ends = {}, set(), {}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for key, node in nodes.items():
        inner = definitions.get(node["type"])
        if inner:
            inside = {one["id"]: one for one in inner["nodes"]}
            assert not {n["title"] for n in workflow["nodes"]} & {one["title"] for one in inner["nodes"]}
            kinds |= {one["title"]: one["type"] for one in inner["nodes"]}
            for source, slot, target, entry in wires_of(inner):
                if target == OUTPUT:
                    ends[key, entry] = inside[source]["title"], slot
                elif source != INPUT:
                    wires.add((inside[source]["title"], slot, inside[target]["title"], name_of(inside[target], entry)))
        elif node["type"] != "MarkdownNote":
            kinds[node["title"]] = node["type"]
    for source, slot, target, entry in wires_of(workflow):
        start = ends.get((source, slot), (nodes[source]["title"], slot))
        wires.add((*start, nodes[target]["title"], name_of(nodes[target], entry)))
    return kinds, wires


def name_of(node: dict, entry: int) -> str:
    return node["inputs"][entry]["name"]


@pytest.mark.parametrize("name", NAMES)
def test_editor_form_and_api_form_are_one_workflow(name):
    """The same nodes by title, and the same wires between them."""
    editor = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    api = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    titles = {key: node["_meta"]["title"] for key, node in api.items()}
    kinds, wires = flat(editor)
    assert kinds == {titles[k]: n["class_type"] for k, n in api.items()}
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


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprint_takes_a_prompt_and_a_size_and_gives_a_picture_a_layout_and_a_report(path):
    """Each input is a widget of the node, and reaches a widget inside."""
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    (node,), (inner,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert node["type"] == inner["id"] and node["title"] == inner["name"] == path.stem and inner["description"]
    names = [entry["name"] for entry in inner["inputs"]]
    assert names == [entry["name"] for entry in node["inputs"]] and names[:4] == ["prompt", "width", "height", "seed"]
    assert all(entry["widget"] for entry in node["inputs"])
    inside = {one["id"]: one for one in inner["nodes"]}
    reached = {
        (slot, "widget" in inside[target]["inputs"][entry]) for s, slot, target, entry in wires_of(inner) if s == INPUT
    }
    assert reached == {(slot, True) for slot in range(len(names))}
    assert [entry["name"] for entry in inner["outputs"]] == [
        "picture",
        "layout",
        "report",
        "fidelity alone",
        "spatial alone",
    ]


def test_quickstart_is_the_blueprint_of_the_bundled_models():
    quickstart = json.loads((WORKFLOWS / "quickstart.json").read_text(encoding="utf-8"))
    (bundled,) = (path for path in BLUEPRINTS if "bundled" in path.name)
    assert quickstart["definitions"] == json.loads(bundled.read_text(encoding="utf-8"))["definitions"]


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_nodes_inside_a_blueprint_lie_in_its_groups_and_apart(path):
    (inner,) = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
    boxes = {n["title"]: (n["pos"][0], n["pos"][1] - 30, n["size"][0], n["size"][1] + 30) for n in inner["nodes"]}
    assert len(boxes) == len(inner["nodes"])
    for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
        apart = any(box[i] + box[i + 2] <= other[i] or other[i] + other[i + 2] <= box[i] for i in (0, 1))
        assert apart, f"{a} overlaps {b}"
    for title, box in boxes.items():
        groups = [group["bounding"] for group in inner["groups"]]
        assert any(all(g[i] <= box[i] and box[i] + box[i + 2] <= g[i] + g[i + 2] for i in (0, 1)) for g in groups), (
            title
        )
