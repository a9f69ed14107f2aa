"""Models of SD1.5's real sizes, and an SDXL, with random weights in the host's `models` folders.

The SDXL is as shallow as Segmind's Vega, and every level has the first one's width; its text encoders are of real size.
See `test_host_models.py`.

Run by the host's own Python in the host's folder, with the folder to fill as argument. Names and shapes of the weights
are those of the host's own classes, which are built without memory; the values are seeded, and saved in fp16.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

models = Path(sys.argv[1])
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.sdxl_clip  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy.cldm.cldm import ControlNet  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from random_weights import gated_layers, prefixed, randomise  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "use_spatial_transformer": True,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "legacy": False,
}
DECODER = {"out_channels": 4, "transformer_depth_output": [1] * 9 + [0] * 3}
SD20_SHALLOW = {  # enough of SD2.x for the host's loader, which reads depths from the file
    **SD15,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "num_heads": -1,
    "num_head_channels": 64,
    "transformer_depth": [1, 1],
    "use_linear_in_transformer": True,
    "context_dim": 1024,
}
SDXL_NARROW = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 1, 1],
    "num_head_channels": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "context_dim": 2048,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "legacy": False,
}
SDXL_DECODER = {"out_channels": 4, "transformer_depth_output": [0] * 3 + [1] * 3 + [2] * 3}
AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
RANK = 4
TEXT = "cond_stage_model.transformer."


def save(name: str, weights: dict) -> None:
    path = models / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


def factors(shape: torch.Size, up: str, down: str) -> dict:
    """Shapes of a LoRA's two factors for a linear layer or a 1x1 convolution, by the names given."""
    outputs, inputs, *kernel = shape
    return {up: torch.empty(outputs, RANK, *kernel), down: torch.empty(RANK, inputs, *kernel)}


def kohya_lora(layers: Mapping[str, torch.Size], texts: Mapping[str, torch.Size], seed: int) -> dict:
    """In the format of kohya's scripts, for the layers of the UNet and of the text encoder with these names."""
    names = {f"lora_unet_{n.replace('.', '_')}": shape for n, shape in layers.items()}
    names |= {f"lora_te_{n.replace('.', '_')}": shape for n, shape in texts.items()}
    shapes = {}
    for name, shape in names.items():
        shapes |= factors(shape, f"{name}.lora_up.weight", f"{name}.lora_down.weight")
    return randomise(shapes, seed) | {f"{name}.alpha": torch.tensor(RANK / 2) for name in names}


def diffusers_lora(layers: Mapping[str, torch.Size], texts: Mapping[str, torch.Size], seed: int) -> dict:
    """A random LoRA in the format of diffusers, for attention layers only."""
    shapes = {}
    for name, shape in layers.items():
        block, _, layer = name.removesuffix(".0").rpartition(".")
        if layer.startswith("to_"):
            layer = f"unet.{block}.processor.{layer}"
            shapes |= factors(shape, f"{layer}_lora.up.weight", f"{layer}_lora.down.weight")
    for name, shape in texts.items():
        if ".self_attn." in name:
            layer = f"text_encoder.{name}.lora_linear_layer"
            shapes |= factors(shape, f"{layer}.up.weight", f"{layer}.down.weight")
    return randomise(shapes, seed)


operations = comfy.ops.disable_weight_init
with torch.device("meta"):
    unet = UNetModel(**SD15, **DECODER, operations=operations)
    text = comfy.sd1_clip.SD1ClipModel()
    autoencoder = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    checkpoint = {
        **prefixed("model.diffusion_model.", unet.state_dict()),
        **comfy.supported_models.SD15(SD15).process_clip_state_dict_for_saving(text.state_dict()),
        **prefixed("first_stage_model.", autoencoder.state_dict()),
    }
    control = ControlNet(**SD15, hint_channels=3, operations=operations).state_dict()
    gligen = gated_layers(unet, width=768)
    other_unet = UNetModel(**SD20_SHALLOW, out_channels=4, transformer_depth_output=[1] * 4, operations=operations)
    other_control = ControlNet(**SD20_SHALLOW, hint_channels=3, operations=operations).state_dict()
    other_gligen = gated_layers(other_unet, width=1024)
    sdxl = {
        **prefixed(
            "model.diffusion_model.", UNetModel(**SDXL_NARROW, **SDXL_DECODER, operations=operations).state_dict()
        ),
        **comfy.supported_models.SDXL(SDXL_NARROW).process_clip_state_dict_for_saving(
            comfy.sdxl_clip.SDXLClipModel().state_dict()
        ),
        **prefixed("first_stage_model.", autoencoder.state_dict()),
    }
    sdxl_control = ControlNet(**SDXL_NARROW, hint_channels=3, operations=operations).state_dict()
    names = sorted(comfy.utils.unet_to_diffusers({**SD15, **DECODER}).items())
    shapes = unet.state_dict()
    diffusers_unet = {name: shapes[own] for name, own in names if own in shapes}
    layers = {
        name.removesuffix(".weight"): unet.get_parameter(own).shape
        for name, own in names
        if ".attentions." in name and name.endswith(".weight") and unet.get_parameter(own).ndim > 1
    }
    texts = {
        name.removeprefix(TEXT).removesuffix(".weight"): tensor.shape
        for name, tensor in checkpoint.items()
        if name.startswith(f"{TEXT}text_model.encoder.") and tensor.ndim > 1
    }

save("checkpoints/realistic.safetensors", randomise(checkpoint, seed=1))
save("checkpoints/spatial.safetensors", randomise(checkpoint, seed=2))
save("gligen/sd15.safetensors", randomise(gligen, seed=3))
save("gligen/sd20.safetensors", randomise(other_gligen, seed=4))
save("controlnet/sd15.safetensors", randomise(control, seed=5))
save("controlnet/sd20.safetensors", randomise(other_control, seed=6))
save("checkpoints/sdxl.safetensors", randomise(sdxl, seed=10))
save("controlnet/sdxl.safetensors", randomise(sdxl_control, seed=11))
save("diffusion_models/diffusers.safetensors", randomise(diffusers_unet, seed=9))
save("loras/kohya.safetensors", kohya_lora(layers, texts, seed=7))
save("loras/diffusers.safetensors", diffusers_lora(layers, texts, seed=8))
