"""Trained models as files: a diffusers UNet, or one checkpoint in the layout of the original Stable Diffusion.

ComfyUI and diffusers' `from_single_file` load the original layout. Its names follow from diffusers' by counting blocks:
a level of the UNet has n blocks in the encoder and N = n + 1 in the decoder.

    down_blocks.i.resnets.j, .attentions.j    input_blocks.{N i + j + 1}.0, .1 (input block 0 is conv_in)
    down_blocks.i.downsamplers.0.conv         input_blocks.{N (i + 1)}.0.op
    mid_block.resnets.j, .attentions.0        middle_block.{2 j}, .1
    up_blocks.i.resnets.j, .attentions.j      output_blocks.{N i + j}.0, .1
    up_blocks.i.upsamplers.0.conv             output_blocks.{N (i + 1) - 1}, behind the attention if there is one

Inside the blocks a resnet's layers are renamed, a transformer's are not. The autoencoder counts the decoder's blocks
from the other end. CLIP keeps its names; OpenCLIP (SD2.x, SDXL's second text encoder) has its own, with q, k and v in
one matrix and the projection transposed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from realcompo_core.errors import RealCompoError
from realcompo_core.files import replacing

from .lora import lora_state

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TRANSFORMER = re.compile(
    r"norm|proj_in|proj_out|transformer_blocks\.\d+\.(norm[123]|attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))"
)
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {  # in this order
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "q_proj.": "in_proj_",
    "k_proj.": "in_proj_",
    "v_proj.": "in_proj_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
SD2_TEXT_WIDTH = 1024
V_BIAS = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD = 0.09  # ComfyUI takes an SD2.x model whose V_BIAS has a larger standard deviation for v-prediction


class UnknownLayoutError(RealCompoError):
    """A model that has no place in a checkpoint of the original layout."""


def metadata(settings: dict[str, Any], step: int, fingerprint: str) -> dict[str, str]:
    """What a file's header says of the run that made it; every value is JSON. fingerprint: of the training data."""
    versions = {p: found.version for p in ("realcompo", "torch", "diffusers") for found in distributions(name=p)}
    facts = {"settings": settings, "step": step, "fingerprint": fingerprint, "versions": versions}
    return {f"realcompo.{name}": json.dumps(value) for name, value in facts.items()}


def save_unet(unet: UNet2DConditionModel, folder: str | Path, metadata: Mapping[str, str]) -> None:
    """What `UNet2DConditionModel.from_pretrained` loads, in the weights' own precision. Raises RealCompoError."""
    folder, weights = Path(folder), unet.state_dict()
    if adapter := next((name for name in weights if ".lora" in name), None):
        raise RealCompoError(f"{adapter!r} is a LoRA's: save that by itself, or merge it into the UNet first")
    with _writing(folder / "config.json") as part:
        part.write_text(unet.to_json_string(), encoding="utf-8")
    _save(folder / "diffusion_pytorch_model.safetensors", weights, metadata)


def save_lora(network: nn.Module, path: str | Path, metadata: Mapping[str, str], prefix: str = "unet") -> None:
    """The adapters of `lora.add_lora`, see `lora.lora_state`. Raises RealCompoError."""
    _save(Path(path), lora_state(network, prefix), metadata)


def save_checkpoint(
    pipeline: DiffusionPipeline, path: str | Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """UNet, autoencoder and text encoders in one file, for ComfyUI's checkpoint loader and `from_single_file`.

    Warns where ComfyUI will mistake the prediction type: a key tells it that of SDXL, that of SD2.x it guesses by the
    weights, SD1.x is always epsilon to it. Raises UnknownLayoutError for other models, RealCompoError.
    """
    state = ldm_state(pipeline)
    found, taken = pipeline.scheduler.config.get("prediction_type", "epsilon"), prediction_in_host(state)
    if found != taken:
        advice = "put the node ModelSamplingDiscrete behind its loader"
        warnings.warn(f"{path} predicts {found}, but ComfyUI will take it for {taken}: {advice}", stacklevel=2)
    _save(Path(path), state, metadata, dtype)


def ldm_state(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """The weights of a pipeline of SD1.x, SD2.x or SDXL in the original layout. Raises UnknownLayoutError."""
    unet, vae = pipeline.unet, pipeline.vae
    state = {f"model.diffusion_model.{ldm_unet_name(n, unet.config)}": t for n, t in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():  # the attention's matrices were convolutions
        tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor
        state[f"first_stage_model.{ldm_vae_name(name, vae.config)}"] = tensor
    if hasattr(pipeline, "text_encoder_2"):
        state |= _clip_state(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        state |= _open_clip_state(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
        schedule = pipeline.scheduler.config
        state |= {"v_pred": torch.empty(0)} if schedule.get("prediction_type") == "v_prediction" else {}
        state |= {"ztsnr": torch.empty(0)} if schedule.get("rescale_betas_zero_snr") else {}
    elif unet.config["cross_attention_dim"] == SD2_TEXT_WIDTH:
        state |= _open_clip_state(pipeline.text_encoder, "cond_stage_model.model.")
        state |= _layers_left_out(state, "cond_stage_model.model.")
    else:
        state |= _clip_state(pipeline.text_encoder, "cond_stage_model.transformer.")
    return state


def ldm_unet_name(name: str, config: Mapping[str, Any]) -> str:
    """The original name, below `model.diffusion_model.`, of a UNet's weight. Raises UnknownLayoutError."""
    module, _, kind = name.rpartition(".")
    blocks = config["layers_per_block"] + 1
    match module.split("."):
        case ["down_blocks", i, "resnets", j, layer] if layer in RESNET:
            return f"input_blocks.{blocks * int(i) + int(j) + 1}.0.{RESNET[layer]}.{kind}"
        case ["down_blocks", i, "attentions", j, *layer] if TRANSFORMER.fullmatch(".".join(layer)):
            return f"input_blocks.{blocks * int(i) + int(j) + 1}.1.{'.'.join(layer)}.{kind}"
        case ["down_blocks", i, "downsamplers", "0", "conv"]:
            return f"input_blocks.{blocks * (int(i) + 1)}.0.op.{kind}"
        case ["mid_block", "resnets", j, layer] if layer in RESNET:
            return f"middle_block.{2 * int(j)}.{RESNET[layer]}.{kind}"
        case ["mid_block", "attentions", "0", *layer] if TRANSFORMER.fullmatch(".".join(layer)):
            return f"middle_block.1.{'.'.join(layer)}.{kind}"
        case ["up_blocks", i, "resnets", j, layer] if layer in RESNET:
            return f"output_blocks.{blocks * int(i) + int(j)}.0.{RESNET[layer]}.{kind}"
        case ["up_blocks", i, "attentions", j, *layer] if TRANSFORMER.fullmatch(".".join(layer)):
            return f"output_blocks.{blocks * int(i) + int(j)}.1.{'.'.join(layer)}.{kind}"
        case ["up_blocks", i, "upsamplers", "0", "conv"]:
            place = 2 if "Attn" in config["up_block_types"][int(i)] else 1
            return f"output_blocks.{blocks * (int(i) + 1) - 1}.{place}.conv.{kind}"
        case _ if module in UNET_ENDS:
            return f"{UNET_ENDS[module]}.{kind}"
    raise _nameless(name)


def ldm_vae_name(name: str, config: Mapping[str, Any]) -> str:
    """The original name, below `first_stage_model.`, of an AutoencoderKL's weight."""
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    module, _, kind = name.rpartition(".")
    last = len(config["block_out_channels"]) - 1
    match module.split("."):
        case ["quant_conv" | "post_quant_conv"] | ["encoder" | "decoder", "conv_in" | "norm_out" | "conv_out"]:
            return name
        case ["encoder", "down_blocks", i, "resnets", j, layer]:
            return f"encoder.down.{i}.block.{j}.{layer}.{kind}"
        case ["encoder", "down_blocks", i, "downsamplers", "0", "conv"]:
            return f"encoder.down.{i}.downsample.conv.{kind}"
        case ["decoder", "up_blocks", i, "resnets", j, layer]:
            return f"decoder.up.{last - int(i)}.block.{j}.{layer}.{kind}"
        case ["decoder", "up_blocks", i, "upsamplers", "0", "conv"]:
            return f"decoder.up.{last - int(i)}.upsample.conv.{kind}"
        case [side, "mid_block", "resnets", j, layer]:
            return f"{side}.mid.block_{int(j) + 1}.{layer}.{kind}"
        case [side, "mid_block", "attentions", "0", *layer] if ".".join(layer) in VAE_ATTENTION:
            return f"{side}.mid.attn_1.{VAE_ATTENTION['.'.join(layer)]}.{kind}"
    raise _nameless(name)


def open_clip_name(name: str) -> str:
    """OpenCLIP's name of a text encoder's weight, the same for q, k and v."""
    name = name.removeprefix("text_model.")
    for ours, original in OPEN_CLIP.items():
        name = name.replace(ours, original)
    return name


def prediction_in_host(state: Mapping[str, Tensor]) -> str:
    """What ComfyUI takes a checkpoint's prediction type for."""
    guessed = "cond_stage_model.model.ln_final.weight" in state and V_BIAS in state
    is_v = state[V_BIAS].float().std(correction=0) > V_SPREAD if guessed else "v_pred" in state
    return "v_prediction" if is_v else "epsilon"


def _nameless(name: str) -> UnknownLayoutError:
    plain = "a plain UNet of SD1.x, SD2.x or SDXL and an AutoencoderKL"
    message = f"weight {name!r} cannot be in a checkpoint file, which holds {plain}: use save_unet instead"
    return UnknownLayoutError(message)


def _clip_state(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}text_model.{n.removeprefix('text_model.')}": t for n, t in encoder.state_dict().items()}


def _open_clip_state(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    state, weights = {}, encoder.state_dict()
    for name, tensor in weights.items():
        if ".q_proj." in name:
            tensor = torch.cat([weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
        elif name == "text_projection.weight":
            tensor = tensor.T
        if ".k_proj." not in name and ".v_proj." not in name:
            state[prefix + open_clip_name(name)] = tensor
    return state


def _layers_left_out(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The last layer of SD2.x's OpenCLIP, zero, and the projection, the identity: both change nothing.

    The image model reads the layer before, so diffusers has neither; ComfyUI has both and leaves them uninitialised.
    """
    first, last = f"{prefix}transformer.resblocks.0.", sum(name.endswith(".ln_1.weight") for name in state)
    zero = {n.replace(".0.", f".{last}.", 1): torch.zeros_like(t) for n, t in state.items() if n.startswith(first)}
    return {**zero, f"{prefix}text_projection": torch.ones_like(state[f"{prefix}ln_final.weight"]).diag()}


def _save(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype | None = None
) -> None:
    """Copies, since a safetensors file holds each tensor by itself, also one that shares its memory with another."""
    weights = {n: t.detach().to(device="cpu", dtype=dtype, copy=True).contiguous() for n, t in state.items()}
    with _writing(path) as part:
        save_file(weights, part, metadata={"format": "pt", **metadata})
        _sort_metadata(part)


def _sort_metadata(path: Path) -> None:
    """The order in which safetensors writes the metadata is another one each time; the same run makes the same file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Like `files.replacing`, with errors that name `path`. Makes its folder, not those above it."""
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path, sync=True) as part:
            yield part
    except (OSError, SafetensorError) as error:
        raise RealCompoError(f"cannot write {path}: {error}. Free some room, or choose another place") from error
