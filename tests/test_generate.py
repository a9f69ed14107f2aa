"""`realcompo generate` with every kind of spatial branch, on the bundled architecture with random weights."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from realcompo_core.layout import Layout, LayoutObject
from tests.test_cli import flat, folder, names, random_models, run  # noqa: F401 - fixtures

PROMPT = "a red circle and a blue square"
POSE = tuple((0.3 + 0.02 * (i % 3), 0.1 + 0.04 * i, 1.0) for i in range(18))


@pytest.fixture
def models(tmp_path, folder):  # noqa: F811
    """What the options name: a model, a ControlNet, a UNet with other weights, a LoRA, a layout and a picture."""
    from shapescenes import models
    from tokencompose_core.export import save_lora
    from tokencompose_core.lora import add_lora

    torch.manual_seed(1)
    controlnet, unet = models.segmentation_controlnet(), models.unet()
    for name, parameter in controlnet.named_parameters():
        if "controlnet_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    controlnet.save_pretrained(tmp_path / "controlnet")
    unet.save_pretrained(tmp_path / "unet")
    add_lora(unet, 4)
    for name, parameter in unet.named_parameters():
        if name.endswith("lora.up.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    save_lora(unet, tmp_path / "lora.safetensors", {})
    objects = (
        LayoutObject("a red circle", (0.1, 0.1, 0.4, 0.9), keypoints=POSE),
        LayoutObject("a blue square", (0.6, 0.3, 0.9, 0.7)),
    )
    (tmp_path / "layout.json").write_text(Layout(objects).to_json())
    Image.new("RGB", (64, 64), (0, 200, 0)).save(tmp_path / "shown.png")
    return tmp_path


def generate(where: Path, *options, output="out"):
    common = ("--layout", where / "layout.json", "--steps", 2, "--size", "64x64", "--layers", 2, "--device", "cpu")
    options = (where / option[1:] if str(option).startswith("@") else option for option in options)
    return run("generate", PROMPT, "--fidelity", where / "model", *common, *options, "--output", where / output)


SYSTEMS = {
    "layout guidance": ("--layout-guidance",),
    "phrases": ("--phrases", 1),
    "drawn poses": ("--controlnet", "@controlnet", "--control", "openpose"),
    "drawn classes": (
        *("--controlnet", "@controlnet", "--control", "segmentation"),
        *("--classes", "circle=plate, square=box", "--control-strength", 0.5, "--control-end", 0.5),
    ),
    "a picture": ("--controlnet", "@controlnet", "--control", "@shown.png", "--detach-control"),
    "two ControlNets": (
        *("--controlnet", "@controlnet", "--control", "openpose"),
        *("--controlnet", "@controlnet", "--control", "@shown.png"),
    ),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_spatial_branch(models, system):
    result = generate(models, *SYSTEMS[system], "--compare")
    assert result.exit_code == 0, result.output
    pictures = {name: Image.open(models / "out" / f"{name}.png").tobytes() for name in ("fidelity", "spatial")}
    assert pictures["fidelity"] != pictures["spatial"], "the spatial branch does something of its own"
    facts = (models / "out" / "report.html").read_text(encoding="utf-8")
    assert {"layout guidance": "Layout Guidance", "phrases": "phrases × 1"}.get(system, "shown") in facts


@pytest.mark.parametrize("options", [("--fidelity-unet", "@unet"), ("--lora", "@lora.safetensors")])
def test_another_fidelity_model(models, options):
    """TokenCompose's UNet, or a stylised LoRA, changes the fidelity branch and leaves the spatial one as it was."""
    if options[0] == "--lora":
        pytest.importorskip("peft", reason="diffusers needs peft to load a LoRA")
    for output, more in (("plain", ()), ("other", options)):
        result = generate(models, "--phrases", 1, "--compare", *more, output=output)
        assert result.exit_code == 0, result.output
    found = {
        name: [Image.open(models / output / f"{name}.png").tobytes() for output in ("plain", "other")]
        for name in ("fidelity", "spatial")
    }
    assert found["fidelity"][0] != found["fidelity"][1] and found["spatial"][0] == found["spatial"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no spatial branch: name a model that follows layouts"),
        (("--controlnet", "@controlnet"), "0 --control for 1 --controlnet"),
        (("--layout-guidance", "--control", "openpose"), "1 --control for 0 --controlnet"),
        (("--layout-guidance", "--control-end", 0.5), "--control-end has no meaning without --controlnet"),
        (("--layout-guidance", "--detach-control"), "--detach-control has no meaning without --controlnet"),
        (("--phrases", 1, "--classes", "a=b"), "--classes has no meaning without --control segmentation"),
        (("--controlnet", "@controlnet", "--control", "nothing.png"), "nothing.png: cannot be read as a picture"),
        (("--controlnet", "@controlnet", "--control", "segmentation"), "'a red circle' is none of the palette's"),
        (("--controlnet", "@unet", "--control", "openpose"), "cannot load the ControlNet"),
        (("--phrases", 1, "--fidelity-unet", "@controlnet"), "cannot load the UNet"),
        (("--phrases", 1, "--lora", "@layout.json"), "cannot put the LoRA"),
    ],
)
def test_options_that_do_not_fit_are_named(models, options, message):
    result = generate(models, *options)
    assert result.exit_code == 1 and message in flat(result.output), result.output
    assert "Traceback" not in result.output


def test_a_unet_of_another_family_is_refused(models):
    config = json.loads((models / "unet" / "config.json").read_text())
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel.from_config({**config, "cross_attention_dim": 64}).save_pretrained(models / "wide")
    result = generate(models, "--phrases", 1, "--fidelity-unet", "@wide")
    assert result.exit_code == 1 and "has cross_attention_dim 64, the fidelity model's own has 128" in flat(
        result.output
    )
    assert names(models / "out") == {"layout.json", "layout.png"}
