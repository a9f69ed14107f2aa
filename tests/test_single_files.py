"""Checkpoints in one `.safetensors` file, in the key layout of the original Stable Diffusion."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file

from realcompo_core.diffusers import RealCompoPipeline
from realcompo_core.diffusers.matching import is_sdxl_file
from realcompo_core.layout import Layout, LayoutObject

# diffusers' names, to be replaced in turn by the original ones: the inverse of what `from_single_file` does
UNET = [
    (r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^down_blocks\.(\d)\.(resnets|attentions)\.0", lambda m: f"input_blocks.{2 * int(m[1]) + 1}.{_part(m[2])}"),
    (r"^down_blocks\.0\.downsamplers\.0\.conv", "input_blocks.2.0.op"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
    (
        r"^up_blocks\.(\d)\.(resnets|attentions)\.(\d)",
        lambda m: f"output_blocks.{2 * int(m[1]) + int(m[3])}.{_part(m[2])}",
    ),
    (r"^up_blocks\.0\.upsamplers\.0", "output_blocks.1.2"),
    (r"\.norm1\.(?=\w+$)(?<!blocks\.0\.norm1\.)", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.(?=\w+$)(?<!blocks\.0\.norm2\.)", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
]
VAE = [
    (r"(encoder)\.down_blocks\.(\d)\.resnets\.(\d)", r"\1.down.\2.block.\3"),
    (r"(encoder)\.down_blocks\.(\d)\.downsamplers\.0", r"\1.down.\2.downsample"),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}"),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{3 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_(q|k|v)\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
]


def _part(kind):
    return 0 if kind == "resnets" else 1


def _renamed(key, rules):
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def single_file_state(pipeline):
    """The state of an SD pipeline whose UNet has two levels of one layer, and whose VAE has four levels."""
    state = {"model.diffusion_model." + _renamed(k, UNET): v for k, v in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        name = _renamed(key, VAE)
        state["first_stage_model." + name] = value[..., None, None] if "attn_1" in name and value.dim() == 2 else value
    for key, value in pipeline.text_encoder.state_dict().items():
        state["cond_stage_model.transformer." + ("" if key.startswith("text_model.") else "text_model.") + key] = value
    return {key: value.clone().contiguous() for key, value in state.items()}


@pytest.fixture(scope="module")
def checkpoint(tiny_pipelines, tmp_path_factory):
    """A pipeline, its weights as one file, and the folder of settings that diffusers needs without a network."""
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    )
    components = tiny_pipelines.fidelity.components | {"vae": vae}
    pipeline = StableDiffusionPipeline(**components, requires_safety_checker=False)
    folder = tmp_path_factory.mktemp("checkpoint")
    pipeline.save_pretrained(folder / "config")
    save_file(single_file_state(pipeline), folder / "model.safetensors")
    return SimpleNamespace(pipeline=pipeline, file=str(folder / "model.safetensors"), config=str(folder / "config"))


def test_single_file_gives_the_pictures_of_its_pipeline(checkpoint):
    settings = {"config": checkpoint.config, "local_files_only": True}
    loaded = RealCompoPipeline.from_single_files(checkpoint.file, checkpoint.file, **settings)
    layout = Layout((LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.7)),))
    found, expected = (
        pipe("a red circle", layout, steps=2, layers=2)
        for pipe in (loaded, RealCompoPipeline(checkpoint.pipeline, checkpoint.pipeline))
    )
    torch.testing.assert_close(found.latents, expected.latents, rtol=0, atol=1e-4)
    pixels = [np.asarray(output.images[0], dtype=int) for output in (found, expected)]
    assert abs(pixels[0] - pixels[1]).max() <= 1  # latents equal to 1e-4 may round to neighbouring values


@pytest.mark.parametrize("key, is_sdxl", [("conditioner.embedders.1.model.x", True), ("cond_stage_model.x", False)])
def test_sdxl_file_is_told_by_its_second_text_encoder(tmp_path, key, is_sdxl):
    path = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(1)}, path)
    assert is_sdxl_file(str(path)) == is_sdxl
