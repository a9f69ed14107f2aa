"""Models of real size, with random weights, through a real ComfyUI's own loaders: `make test-slow`."""

import copy
import json
import shutil
from contextlib import contextmanager

import host_server
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

HOSTS = host_server.find_hosts()
WORKFLOWS = host_server.PACK / "workflows" / "api"
FILES = {
    "realisticVisionV51_v51VAE.safetensors": "realistic.safetensors",
    "DreamShaper_8_pruned.safetensors": "realistic.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors": "spatial.safetensors",
    "gligen_sd14_textbox_pruned.safetensors": "sd15.safetensors",
    "TokenCompose_SD14_A.safetensors": "diffusers.safetensors",
    "control_v11p_sd15_seg_fp16.safetensors": "sd15.safetensors",
    "sd_xl_base_1.0.safetensors": "sdxl.safetensors",
    "OpenPoseXL2.safetensors": "sdxl.safetensors",
}
SECONDS = 1500  # for the files, and for a prompt: one step takes minutes on a slow CPU
COMPLAINTS = ("missing", "unexpected", "not loaded")  # what loaders log of a file's weights

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HOSTS, reason=host_server.NO_HOST)]


@pytest.fixture(scope="module")
def patient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_server, "PROMPT_SECONDS", SECONDS)
        yield


@pytest.fixture(scope="module")
def models(patient, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    host_server.run_checks(HOSTS[0], "random_models.py", folder)
    yield folder
    shutil.rmtree(folder)  # 9.3 GB, and pytest keeps its folders


@pytest.fixture(scope="module", params=HOSTS, ids=[host.name for host in HOSTS])
def host(request, models, tmp_path_factory):
    server = host_server.HostServer(request.param, tmp_path_factory.mktemp("host") / "base")
    for folder in models.iterdir():
        (server.base / "models" / folder.name).symlink_to(folder)
    yield server
    server.stop()


def template(name: str, side: int, steps: int) -> dict:
    """The template as it is, but for file names, size and steps."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text())
    for node in workflow.values():
        inputs = node["inputs"]
        inputs |= {key: FILES[value] for key, value in inputs.items() if isinstance(value, str) and value in FILES}
        inputs |= {key: side for key in ("width", "height") if inputs.get(key)}  # 0 is none
        inputs |= {key: steps for key in ("steps",) if key in inputs}
    return workflow


def rewire(workflow: dict, old: list, new: list) -> None:
    """Whatever was connected to the output `old` is connected to `new`."""
    for node in workflow.values():
        node["inputs"] |= {key: new for key, value in node["inputs"].items() if value == old}


def one_checkpoint(side: int, steps: int) -> dict:
    """The template of stylised checkpoints with one checkpoint for both branches."""
    workflow = template("stylised_checkpoint", side, steps)
    for output in (0, 1):
        rewire(workflow, ["ckpt2", output], ["ckpt", output])
    return workflow


def latent_of(host, workflow: dict, source: list) -> torch.Tensor:
    """Runs only what the latent `source` needs, and reads it."""
    workflow = {key: node for key, node in workflow.items() if key not in ("save", "report")}
    workflow["latent_file"] = {"class_type": "SaveLatent", "inputs": {"samples": source, "filename_prefix": "latent"}}
    (saved,) = host.run(workflow)["latent_file"]["latents"]
    return load_file(host.file(saved))["latent_tensor"]


def balanced(host, workflow: dict, **settings) -> torch.Tensor:
    workflow = copy.deepcopy(workflow)
    workflow["settings"]["inputs"] |= settings
    return latent_of(host, workflow, ["balance", 0])


def own(host, workflow: dict, prefix: str) -> torch.Tensor:
    """What the host's own sampler draws with the fidelity branch's inputs, or with `spatial_` the spatial one's."""
    given = workflow["balance"]["inputs"]
    inputs = {
        key: given[key] for key in ("latent_image", "seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    }
    inputs |= {key: given[prefix + key] for key in ("model", "positive", "negative")}
    return latent_of(host, workflow | {"own": {"class_type": "KSampler", "inputs": inputs}}, ["own", 0])


def refusal(host, workflow: dict) -> str:
    """The message of the error that must come from a check of what belongs together."""
    entry = host.wait(host.queue(workflow))
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert len(errors) == 1 and errors[0]["exception_type"].endswith("BranchMismatchError"), entry["status"]
    return errors[0]["exception_message"]


@contextmanager
def no_complaints(host):
    """The host's loaders find every weight that they look for, and know every weight of a LoRA."""
    before = len(host.log)
    yield
    complaints = [line for line in host.log[before:].splitlines() if any(words in line for words in COMPLAINTS)]
    assert not complaints


@pytest.mark.parametrize(
    "name", ["realcompo_v1", "stylised_checkpoint", "realcompo_v4", "segmentation", "keypoints_sdxl"]
)
def test_template_gives_a_picture_and_a_report(host, name):
    with no_complaints(host):
        outputs = host.run(template(name, side=256, steps=3))
    picture, report = (Image.open(host.file(outputs[key]["images"][0])) for key in ("save", "report"))
    assert picture.size == (256, 256) and report.size[0] > 1000
    assert np.asarray(picture.convert("RGB")).std((0, 1)).min() > 10


def test_controlnet_with_gligen_on_the_spatial_branch(host):
    workflow = template("stylised_checkpoint", side=128, steps=3)
    rows, columns = np.mgrid[:128, :128]
    hint = np.stack([rows * 2, columns * 2, (rows // 16 + columns // 16) % 2 * 255], -1)
    Image.fromarray(hint.astype(np.uint8)).save(host.base / "input" / "hint.png")
    workflow["hint"] = {"class_type": "LoadImage", "inputs": {"image": "hint.png"}}
    workflow["control"] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "sd15.safetensors"}}
    without = own(host, workflow, "spatial_")
    rewire(workflow, ["apply", 0], ["controlled", 0])
    rewire(workflow, ["apply", 1], ["controlled", 1])
    controlled = {"positive": ["apply", 0], "negative": ["apply", 1], "control_net": ["control", 0]}
    controlled |= {"image": ["hint", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    workflow["controlled"] = {"class_type": "ControlNetApplyAdvanced", "inputs": controlled}
    with no_complaints(host):
        alone = own(host, workflow, "spatial_")
    assert (alone - without).abs().max() > 0.01

    moved, unmoved = (balanced(host, workflow, update_until=share) for share in (1.0, 0.0))
    assert moved.isfinite().all() and (moved - unmoved).abs().max() > 1e-4  # a gradient came through the ControlNet
    assert torch.equal(balanced(host, workflow, mode="fixed", spatial_weight=1.0), alone)


def test_loras_on_two_clones_of_one_checkpoint(host):
    """Each branch samples with its own LoRA, and afterwards the checkpoint is what it was."""
    plain = one_checkpoint(side=128, steps=2)
    before = balanced(host, plain)

    workflow = copy.deepcopy(plain)
    workflow["balance"]["inputs"]["spatial_model"] = ["spatial_lora", 0]
    for key in ("spos", "sneg", "apply"):
        workflow[key]["inputs"]["clip"] = ["spatial_lora", 1]
    rewire(workflow, ["ckpt", 0], ["fidelity_lora", 0])
    rewire(workflow, ["ckpt", 1], ["fidelity_lora", 1])
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    for key, file in (("fidelity_lora", "kohya"), ("spatial_lora", "diffusers")):
        inputs = {"model": ["ckpt", 0], "clip": ["ckpt", 1], "lora_name": f"{file}.safetensors"} | strengths
        workflow[key] = {"class_type": "LoraLoader", "inputs": inputs}

    with no_complaints(host):
        both = balanced(host, workflow)
    assert (both - before).abs().max() > 0.01
    for weight, prefix in ((1.0, "spatial_"), (0.0, "")):  # in this order: the other LoRA is in the shared weights
        found = balanced(host, workflow, mode="fixed", spatial_weight=weight)
        assert torch.equal(found, own(host, workflow, prefix))
        assert not torch.equal(found, own(host, plain, prefix))

    log = len(host.log)
    after = balanced(host, plain, spatial_weight=0.9)  # which only `fixed` uses: the host samples again
    assert "model_type EPS" not in host.log[log:], "too little memory: the host has read the checkpoint again"
    assert torch.equal(after, before)


def test_gligen_and_controlnet_of_another_family_are_refused_before_sampling(host):
    workflow = template("stylised_checkpoint", side=128, steps=2)
    workflow["gligen"]["inputs"]["gligen_name"] = "sd20.safetensors"
    message = refusal(host, workflow)
    assert all(words in message for words in ("gligen", "SD2.x", "1024", "clip", "SD1.x", "768")), message

    boxed = copy.deepcopy(workflow)
    inputs = {"conditioning_to": ["spos", 0], "clip": ["ckpt2", 1], "gligen_textbox_model": ["gligen", 0]}
    inputs |= {"text": "a corgi", "width": 64, "height": 64, "x": 0, "y": 32}
    boxed["box"] = {"class_type": "GLIGENTextBoxApply", "inputs": inputs}
    boxed["balance"]["inputs"] |= {"spatial_positive": ["box", 0], "spatial_negative": ["sneg", 0]}
    message = refusal(host, boxed)
    assert all(words in message for words in ("spatial branch", "SD15", "768", "GLIGEN", "1024")), message

    workflow["hint"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 0x808080},
    }
    workflow["control"] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "sd20.safetensors"}}
    inputs = {"positive": ["spos", 0], "negative": ["sneg", 0], "control_net": ["control", 0], "image": ["hint", 0]}
    inputs |= {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    workflow["controlled"] = {"class_type": "ControlNetApplyAdvanced", "inputs": inputs}
    workflow["balance"]["inputs"] |= {"spatial_positive": ["controlled", 0], "spatial_negative": ["controlled", 1]}
    message = refusal(host, workflow)
    assert all(words in message for words in ("spatial branch", "SD15", "768", "ControlNet", "1024")), message
