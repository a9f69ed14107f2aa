"""The shipped workflows that load files, in a real ComfyUI, with the bundled models in place of the files.

Without a host: skipped. Those that load none are run by `test_browser.py` and `test_comfy_cli.py`, and some with files
of real formats by `test_host_models.py`.
"""

import json

import host_server
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

API = host_server.PACK / "workflows" / "api"
STAND_INS = {  # for each output of a node, that of ShapeScenes Loader which takes its place
    "CheckpointLoaderSimple": [0, 2, 3],
    "UNETLoader": [0],
    "GLIGENLoader": [1],
    "ControlNetLoader": [5],
    "EmptyLatentImage": [4],
    "EmptySD3LatentImage": [4],
    "CLIPLoader": [2],
    "VAELoader": [3],
}
TRANSFORMERS = "RealCompoApplyLayoutRegionalAttention"  # a node of workflows whose models are transformers
OTHER_TESTS = {"layout_by_local_llm", "layout_on_canvas"}  # which need a language model, and the editor
SHORT = {"width": 64, "height": 64, "steps": 2, "megapixels": 0.01}


def with_bundled_models(workflow: dict) -> dict:
    """The workflow in API form, small and short, without files."""
    slots = {key: STAND_INS[node["class_type"]] for key, node in workflow.items() if node["class_type"] in STAND_INS}

    def changed(name: str, value):
        if isinstance(value, list):
            return [value[0], slots[value[0]][value[1]]] if value[0] in slots else value
        return SHORT.get(name, value) if value else value  # a width of 0 is none

    kinds = {node["class_type"] for node in workflow.values()}
    variant = "DiT" if TRANSFORMERS in kinds else "text to image"
    made = {}
    for key, node in workflow.items():
        inputs = {name: changed(name, value) for name, value in node["inputs"].items()}
        if key in slots:
            size = {name: inputs.get(name, SHORT[name]) for name in ("width", "height")}
            made[key] = {
                "class_type": "RealCompoShapeScenesLoader",
                "inputs": {**size, "batch_size": 1, "variant": variant},
            }
        else:
            made[key] = {"class_type": node["class_type"], "inputs": inputs}
    return made


def workflows_with_files() -> list[str]:
    forms = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(API.glob("*.json"))}
    loading = [name for name, form in forms.items() if any(n["class_type"] in STAND_INS for n in form.values())]
    return [name for name in loading if name not in OTHER_TESTS]


def add_branch_alone(workflow: dict, key: str, spatial_weight: float) -> None:
    """A sampler like the workflow's that gives its whole weight to one branch, and saves its latent as `key`."""
    fixed = {"mode": "fixed", "spatial_weight": spatial_weight, "schedule": "constant"}
    settings, sampler = f"{key}_settings", f"{key}_sampler"
    workflow[settings] = {**workflow["settings"], "inputs": workflow["settings"]["inputs"] | fixed}
    workflow[sampler] = {**workflow["balance"], "inputs": workflow["balance"]["inputs"] | {"settings": [settings, 0]}}
    workflow[key] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": key}}


def latent(host, outputs: dict, key: str) -> torch.Tensor:
    return load_file(host.file(outputs[key]["latents"][0]))["latent_tensor"]


@pytest.mark.parametrize("name", workflows_with_files())
def test_workflow_draws_and_the_spatial_branch_alone_has_the_layout(host, name):
    """All models are one here, so only what the layout does to the spatial branch can make the two latents differ."""
    Image.linear_gradient("L").convert("RGB").save(host.base / "input" / "example.png")
    workflow = with_bundled_models(json.loads((API / f"{name}.json").read_text(encoding="utf-8")))
    add_branch_alone(workflow, "fidelity", 0.0)
    add_branch_alone(workflow, "spatial", 1.0)
    outputs = host.run(workflow)
    (picture,), (report,) = (outputs[key]["images"] for key in ("save", "report"))
    assert min(Image.open(host.file(picture)).size) >= 64 and Image.open(host.file(report)).size[0] > 1000
    fidelity, spatial = (latent(host, outputs, key) for key in ("fidelity", "spatial"))
    assert fidelity.isfinite().all() and (fidelity - spatial).abs().max() > 1e-3
