"""The training nodes in a real ComfyUI: the library's losses, the host's models untouched, the workflow."""

import json
import time
from dataclasses import asdict

import host_server
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from shapescenes import models
from shapescenes.drawing import draw
from shapescenes.world import training_scene
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.nouns import noun_tokens
from tokencompose_core.training import TrainSettings, supervised_layers, train

WORKFLOW = host_server.PACK / "workflows" / "api" / "tokencompose_train.json"


def examples() -> list[dict]:
    found = []
    for i in range(4):
        scene = training_scene(9, i, (0, 1, 0, 0))
        nouns = [f"{item.kind.colour} {item.kind.shape}" for item in scene.objects]
        tokens = noun_tokens(models.tokenizer(), scene.prompt.caption, nouns, chunk=32)
        masks = dict(zip(nouns, zip(scene.masks(), tokens, strict=True), strict=True))
        found.append(
            {
                "image": torch.from_numpy(draw(scene, "flat", i)).permute(2, 0, 1).float() / 127.5 - 1,
                "caption": scene.prompt.caption,
                "tokens": [sum(occurrences, []) for _, occurrences in masks.values()],
                "masks": torch.stack([torch.from_numpy(mask) for mask, _ in masks.values()]),
                "key": str(i),
            }
        )
    return found


def reference() -> dict:
    """The losses of three steps on all weights of the bundled model, by the library and diffusers."""
    model = DiffusersModel(models.pipelines()[0], checkpointing=False)
    model.network.requires_grad_(True)
    settings = TrainSettings(
        steps=3, batch_size=2, accumulation=1, learning_rate=1e-4, token_weight=0.1, pixel_weight=0.05
    )
    batch, reports = examples(), []
    train(model, lambda first: iter([batch[:2], batch[2:], batch[:2]]), settings, report=reports.append)
    return {
        "examples": batch,
        "settings": asdict(settings),
        "downsampling": [layer.downsampling for layer in supervised_layers(model.attention)],
        "losses": [report.losses for report in reports],
    }


def test_training_in_the_host(tmp_path, host_folder):
    file = tmp_path / "reference.pt"
    torch.save(reference(), file)
    host_server.run_checks(host_folder, "train_checks.py", file)


@pytest.fixture
def workflow() -> dict:
    """The shipped one, cut short."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    inputs_of(workflow, "RealCompoTokenComposeTrainer").update(steps=3, batch_size=2, warmup=0, validate_every=2)
    inputs_of(workflow, "RealCompoShapeScenesDataset").update(scenes=5)
    inputs_of(workflow, "RealCompoShapeScenesLoader").update(batch_size=2)
    for node in workflow.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 3
    return workflow


def inputs_of(workflow: dict, kind: str) -> dict:
    (found,) = (node["inputs"] for node in workflow.values() if node["class_type"] == kind)
    return found


def output_of(workflow: dict, outputs: dict, kind: str) -> dict:
    (found,) = (outputs[key] for key, node in workflow.items() if node["class_type"] == kind)
    return found


def test_before_and_after_differ_in_the_model_alone(workflow):
    before, after = (node["inputs"] for node in workflow.values() if node["class_type"] == "KSampler")
    assert {key for key in before if before[key] != after[key]} == {"model"}
    before, after = (workflow[inputs["model"][0]]["inputs"] for inputs in (before, after))
    assert {key for key in before if before[key] != after[key]} == {"model"}
    loader, trainer = (workflow[inputs["model"][0]]["class_type"] for inputs in (before, after))
    assert (loader, trainer) == ("RealCompoShapeScenesLoader", "RealCompoTokenComposeTrainer")


def test_workflow_trains_draws_and_saves(host, workflow):
    outputs = host.run(workflow)
    images = output_of(workflow, outputs, "SaveImage")["images"]
    assert len(images) == 2
    for image in images:
        pixels = np.asarray(Image.open(host.file(image)).convert("RGB"), dtype=int)
        side = (len(pixels) - 8) // 2  # before above after, each a picture and its maps
        before, after = pixels[:side, :side], pixels[-side:, :side]
        assert before.std() > 10 and 0 < abs(before - after).mean() < 20
        assert (pixels[:side, side:] != pixels[-side:, side:]).any()
    (graph,) = output_of(workflow, outputs, "LossGraphNode")["images"]
    assert Image.open(host.file(graph)).width > 500
    (file,) = output_of(workflow, outputs, "RealCompoTokenComposeSave")["text"]
    lora = load_file(host.base / "models" / "loras" / file)
    assert all(key.startswith("diffusion_model.") for key in lora)
    folder = host.base / "output" / inputs_of(workflow, "RealCompoTokenComposeTrainer")["name"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint-000003.pt",
        "validation-000002.png",
        "validation-000003.png",
    ]


def test_loss_graph_of_a_single_step(host, workflow):
    inputs_of(workflow, "RealCompoTokenComposeTrainer").update(steps=1, name="single", validate_every=0)
    assert output_of(workflow, host.run(workflow), "LossGraphNode")["images"]


def test_interrupted_workflow_goes_on(host, workflow):
    given = inputs_of(workflow, "RealCompoTokenComposeTrainer")
    given.update(steps=500, name="stopped", validate_every=0, checkpoint_every=1)
    folder = host.base / "output" / "stopped"
    prompt_id = host.queue(workflow)
    while not list(folder.glob("*.pt")):
        assert prompt_id not in host.get("/history"), host_server.error_of(host.get("/history")[prompt_id])
        time.sleep(0.1)
    host.post("/interrupt", {})
    assert host_server.error_of(host.wait(prompt_id)) == "interrupted"
    done = max(int(path.stem[-6:]) for path in folder.glob("*.pt"))
    assert 1 <= done < 500
    given.update(steps=done + 1)
    host.run(workflow)
    assert (folder / f"checkpoint-{done + 1:06}.pt").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "C:\\x"])
def test_names_that_lead_out_are_refused(host, workflow, name):
    """By every node that takes one; the host itself refuses a file that is not in its list."""
    trainer = inputs_of(workflow, "RealCompoTokenComposeTrainer")
    folder = {"folder": name, "clip": trainer["clip"], "on_problem": "skip"}
    load = {"model": trainer["model"], "file": name, "strength": 1.0}
    for part, changes in (
        ("run", {"name": name}),
        ("folder", {"dataset": ["folder", 0]}),
        ("load", {"model": ["load", 0]}),
    ):
        changed = json.loads(json.dumps(workflow))
        changed["folder"] = {"class_type": "RealCompoTokenComposeDataset", "inputs": folder}
        changed["load"] = {"class_type": "RealCompoTokenComposeLoad", "inputs": load}
        inputs_of(changed, "RealCompoTokenComposeTrainer").update(changes)
        reply = host.post("/prompt", {"prompt": changed})
        if part == "load":
            said = json.dumps(reply["node_errors"]["load"]["errors"])
            assert "Value not in list" in said and json.dumps(name)[1:-1] in said
        else:
            said = host_server.error_of(host.wait(reply["prompt_id"]))
            assert "leads out of" in said and repr(name) in said
    inputs_of(workflow, "RealCompoTokenComposeSave").update(name=name)
    trainer.update(name="kept inside", steps=1, validate_every=0)
    assert "leads out of" in host_server.error_of(host.wait(host.queue(workflow)))
