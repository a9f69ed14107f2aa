"""Files that a workflow names, in a real ComfyUI: nothing outside of the host's folders is read or written."""

import json
from pathlib import Path

import host_server
import pytest
import torch
from safetensors.torch import save_file

NAMES = {"file", "filename_prefix", "folder", "name"}  # of inputs that name files
OUTSIDE = [
    "../outside",
    "inside/../../outside",
    "..\\outside",
    "/etc",
    "/dev/zero",
    "C:\\outside",
    "C:outside",
    "\\\\server\\outside",
    "\\outside",
    "CON",
    "inside/nul.txt",
    "COM1 .x\\inside",
    "link",
    "link/inside",
    "inside/link",
]


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def template(name: str) -> dict:
    return json.loads((host_server.PACK / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def dataset(name: str) -> dict:
    return {
        "models": node("RealCompoShapeScenesLoader", width=128, height=128, batch_size=1),
        "tested": node("RealCompoTokenComposeDataset", folder=name, clip=["models", 2], on_problem="refuse"),
        "shown": node("PreviewAny", source=["tested", 1]),
    }


def trainer(name: str) -> dict:
    workflow = template("tokencompose_train")
    workflow = {key: workflow[key] for key in ("models", "dataset", "prompt", "train", "loss")}
    workflow["dataset"]["inputs"]["scenes"] = 1
    workflow["train"]["inputs"].update(name=name, steps=1, batch_size=1, validate_every=0)
    return workflow


def saver(name: str) -> dict:
    return loader("good.safetensors") | {"tested": node("RealCompoTokenComposeSave", lora=["loaded", 1], name=name)}


def loader(name: str) -> dict:
    return {
        "models": node("RealCompoShapeScenesLoader", width=128, height=128, batch_size=1),
        "loaded": node("RealCompoTokenComposeLoad", model=["models", 0], file=name, strength=1.0),
        "shown": node("PreviewAny", source=["loaded", 1]),
    }


def viewer(name: str) -> dict:
    workflow = template("attention_maps")
    (view,) = (n["inputs"] for n in workflow.values() if n["class_type"] == "RealCompoAttentionMapViewer")
    view.update(export="json", filename_prefix=name)
    for other in workflow.values():
        if "steps" in other["inputs"] and "sampler_name" in other["inputs"]:
            other["inputs"]["steps"] = 1
    return workflow


FIELDS = {  # by node and input: a workflow that names a file there, and a name that is allowed
    ("RealCompoTokenComposeDataset", "folder"): (dataset, "inside/set"),
    ("RealCompoTokenComposeTrainer", "name"): (trainer, "inside/run"),
    ("RealCompoTokenComposeSave", "name"): (saver, "inside/lora"),
    ("RealCompoTokenComposeLoad", "file"): (loader, "good.safetensors"),
    ("RealCompoAttentionMapViewer", "filename_prefix"): (viewer, "inside/maps"),
}


@pytest.fixture(scope="module")
def outside(host, tmp_path_factory) -> Path:
    """A folder beside the host's, to which links in its folders lead."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "inside").mkdir()
    lora = {"diffusion_model.out.2.diff_b": torch.zeros(8)}
    for folder in (host.base / "input", host.base / "output", host.base / "models" / "loras"):
        (folder / "inside").mkdir(parents=True, exist_ok=True)
        for link in (folder / "link", folder / "inside" / "link"):
            link.symlink_to(outside, target_is_directory=True)
    for file in (host.base / "models" / "loras" / "good.safetensors", outside / "far.safetensors"):
        save_file(lora, file)
    for folder in (outside, outside / "inside", host.base / "input" / "inside" / "set"):
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text("a red circle")
        (folder / "a.png").write_bytes((host_server.PACK / "workflows" / "quickstart_editor.png").read_bytes())
    yield outside
    for folder in (host.base / "input", host.base / "output", host.base / "models" / "loras"):
        for link in (folder / "link", folder / "inside" / "link"):
            link.unlink()


def refusal(host, workflow: dict) -> str:
    """What the host says, before or after it begins."""
    reply = host.post("/prompt", {"prompt": workflow})
    if "prompt_id" not in reply:
        return json.dumps(reply["node_errors"])
    entry = host.wait(reply["prompt_id"])
    assert entry["status"]["status_str"] == "error", "not refused"
    return host_server.error_of(entry)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if path.suffix not in (".log", ".db")}


def test_every_input_that_names_files_is_tested_here(host):
    found = set()
    for name, info in host.get("/object_info").items():
        if name.startswith("RealCompo"):
            inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
            found |= {(name, field) for field in NAMES & inputs.keys()}
    assert found == FIELDS.keys()


@pytest.mark.parametrize("field", FIELDS, ids=" ".join)
def test_files_outside_are_refused(host, outside, field):
    make, allowed = FIELDS[field]
    host.run(make(allowed))
    before = files(outside, host.base.parent)
    for name in [*OUTSIDE, "link/far.safetensors"]:
        message = refusal(host, make(name))
        said = ("leads out of", "is a device", "is a link to", "not in list")
        assert field[1] in message and any(text in message for text in said), f"{name}: {message}"
    assert files(outside, host.base.parent) == before


def test_a_link_among_loras_is_refused_by_name(host, outside):
    """The host lists it, so that only the node can."""
    assert "link" in refusal(host, loader("link/far.safetensors"))
    assert "is a link to" in refusal(host, loader("link/far.safetensors"))
