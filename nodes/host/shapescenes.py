"""The ShapeScenes family as the host's MODEL, GLIGEN, CLIP, VAE and CONTROL_NET.

The UNet and the text encoder are the host's own classes, so that patches, LoRAs, previews and other packs treat these
models as they treat SD1.5.
"""

from __future__ import annotations

import re
from functools import partial

import comfy.clip_model
import comfy.controlnet
import comfy.gligen
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.cldm.cldm import ControlNet as ControlNetwork
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.model_patcher import ModelPatcher
from comfy.taesd.taesd import TAESD
from torch import Tensor, nn

from realcompo_core.errors import RealCompoError
from shapescenes.files import load
from shapescenes.layout_branch import GroundingNet, RasterGatedAttention
from shapescenes.sizes import (
    DIT_HEADS,
    DIT_LAYERS,
    DIT_PATCH,
    DIT_WIDTH,
    HEADS,
    LATENT_CHANNELS,
    LATENT_SCALE,
    LATENT_SIDE,
    NORM_GROUPS,
    TEXT_HEADS,
    TEXT_LAYERS,
    TEXT_TOKENS,
    TEXT_WIDTH,
    WIDTHS,
)
from shapescenes.tiny_vae import TinyVAE
from shapescenes.tokenizer import tokenizer
from shapescenes.world import COLOURS, SHAPES, vocabulary

from .messages import warn_on_node


class Ratio(float):
    """A level's width over the first's: the host multiplies, and wants whole channels."""

    def __mul__(self, channels: int) -> int:
        return round(float(self) * channels)

    __rmul__ = __mul__


UNET_CONFIG = {
    "image_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "model_channels": WIDTHS[0],
    "channel_mult": tuple(Ratio(width / WIDTHS[0]) for width in WIDTHS),
    "num_res_blocks": [1] * len(WIDTHS),
    "transformer_depth": [1] * len(WIDTHS),
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 2 * len(WIDTHS),
    "context_dim": TEXT_WIDTH,
    "num_heads": HEADS,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "legacy": False,
    "dtype": torch.float32,
}
DIT_CONFIG = {
    "input_size": None,
    "in_channels": LATENT_CHANNELS,
    "patch_size": DIT_PATCH,
    "depth": DIT_WIDTH // 64,  # the host's measure of the width
    "num_blocks": DIT_LAYERS,
    "adm_in_channels": TEXT_WIDTH,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": TEXT_WIDTH, "out_features": DIT_WIDTH},
    },
    "pos_embed_max_size": LATENT_SIDE // DIT_PATCH,
    "num_patches": (LATENT_SIDE // DIT_PATCH) ** 2,
}
ENCODER_ONLY = ("out_channels", "transformer_depth_output")  # what a ControlNet has not
CONTROLNET_CONFIG = {k: v for k, v in UNET_CONFIG.items() if k not in ENCODER_ONLY} | {"hint_channels": 3}


class Operations(comfy.ops.disable_weight_init):
    """The host's layers with this family's norm groups: its UNet asks for 32."""

    class GroupNorm(comfy.ops.disable_weight_init.GroupNorm):
        def __init__(self, num_groups, *args, **kwargs):
            super().__init__(NORM_GROUPS, *args, **kwargs)


class LatentFormat(comfy.latent_formats.LatentFormat):
    latent_channels = LATENT_CHANNELS
    scale_factor = LATENT_SCALE
    latent_rgb_factors = [  # for live previews: least squares on scenes of both styles
        [-0.071, -0.116, -0.131],
        [0.049, 0.083, 0.103],
        [0.056, 0.018, -0.015],
        [0.015, 0.029, -0.021],
        [0.013, -0.017, 0.017],
        [0.190, 0.200, 0.223],
        [0.115, 0.062, -0.052],
        [-0.032, -0.052, -0.098],
    ]
    latent_rgb_factors_bias = [0.321, 0.291, 0.223]


class ShapeScenes(comfy.supported_models_base.BASE):
    unet_extra_config: dict = {}
    latent_format = LatentFormat
    custom_operations = Operations
    supported_inference_dtypes = [torch.float32]


class ShapeScenesDiT(comfy.supported_models_base.BASE):
    unet_extra_config: dict = {}
    sampling_settings = {"shift": 1.0}
    latent_format = LatentFormat
    supported_inference_dtypes = [torch.float32]


class DiTNetwork(OpenAISignatureMMDITWrapper):
    """The host counts patches as if a side were one pixel longer, which with patches of one pixel is one too many."""

    def cropped_pos_embed(self, hw, device=None):
        height, width = hw
        most = LATENT_SIDE // DIT_PATCH
        if max(height, width) > most:
            raise RealCompoError(
                f"ShapeScenes Loader: the DiT draws at most {8 * LATENT_SIDE}x{8 * LATENT_SIDE} pixels, and this is "
                f"{8 * width}x{8 * height}: choose a smaller size, or the variant 'text to image'"
            )
        return super().cropped_pos_embed((height - 1, width - 1), device)

    def unpatchify(self, x, hw=None):
        return super().unpatchify(x, (hw[0] - 1, hw[1] - 1))


class DiT(comfy.model_base.SD3):
    def __init__(self, device: torch.device):
        comfy.model_base.BaseModel.__init__(
            self, ShapeScenesDiT(DIT_CONFIG), comfy.model_base.ModelType.FLOW, device, DiTNetwork
        )


VARIANTS = {  # the network, and the LoRA that is merged into it
    "text to image": ("unet", None),
    "TokenCompose": ("unet", "tokencompose_lora"),
    "DiT": ("dit", None),
    "DiT with layout LoRA": ("dit", "dit_layout_lora"),
}


def load_model(variant: str = "text to image") -> ModelPatcher:
    """The text-to-image UNet, or another one of VARIANTS."""
    network, lora = VARIANTS[variant]
    weights = load(network)
    if lora is not None:
        _merge(load(lora), weights)
    offload_device = comfy.model_management.unet_offload_device()
    model = {"unet": _unet, "dit": _dit}[network](weights, offload_device)
    return _patcher(model, comfy.model_management.get_torch_device(), offload_device)


def _unet(weights: dict[str, Tensor], device: torch.device) -> comfy.model_base.BaseModel:
    model = comfy.model_base.BaseModel(ShapeScenes(UNET_CONFIG), comfy.model_base.ModelType.EPS, device=device)
    names = comfy.utils.unet_to_diffusers(UNET_CONFIG)
    model.diffusion_model.load_state_dict({names[name]: weight for name, weight in weights.items()})
    return model


def _dit(weights: dict[str, Tensor], device: torch.device) -> comfy.model_base.BaseModel:
    """The transformer as the host's SD3, whose heads are 64 wide unless it is told otherwise."""
    model = DiT(device)
    network = model.diffusion_model
    for block in network.joint_blocks:
        for half in (block.context_block, block.x_block):
            half.attn.num_heads, half.attn.head_dim = DIT_HEADS, DIT_WIDTH // DIT_HEADS
    state = network.state_dict()
    names = comfy.utils.mmdit_to_diffusers(DIT_CONFIG)
    for end in ("weight", "bias"):  # the host's table takes the block at `depth` for the last one
        for i in (DIT_CONFIG["depth"] - 1, DIT_LAYERS - 1):
            name = f"joint_blocks.{i}.context_block.adaLN_modulation.1.{end}"
            swap = (None, comfy.utils.swap_scale_shift) if i == DIT_LAYERS - 1 else ()
            names[f"transformer_blocks.{i}.norm1_context.linear.{end}"] = (name, *swap) if swap else name
    for name, weight in weights.items():
        place = names[name]
        place, part, change = (place, None, None) if isinstance(place, str) else (*place, None)[:3]
        target = state[place] if part is None else state[place].narrow(*part)
        target.copy_(weight if change is None else change(weight))
    network.load_state_dict(state)
    return model


def _merge(lora: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Add a LoRA in the format of `tokencompose_core.lora.lora_state` to the weights, by diffusers' names of layers."""
    for key, down in lora.items():
        if key.endswith(".lora_A.weight"):
            layer = key.removeprefix("unet.").removeprefix("transformer.").replace(".lora_A.", ".")
            weights[layer] = weights[layer] + lora[key.replace("lora_A", "lora_B")] @ down


def load_control_net() -> comfy.controlnet.ControlNet:
    """The segmentation ControlNet, for pictures in the colours of `shapescenes.palette`."""
    network = ControlNetwork(**CONTROLNET_CONFIG, operations=Operations)
    weights = load("segmentation_controlnet")
    blocks = len({name.split(".")[2] for name in weights if name.startswith("controlnet_cond_embedding.blocks.")})
    hints = ["conv_in", *(f"blocks.{i}" for i in range(blocks)), "conv_out"]
    prefixes = {f"controlnet_cond_embedding.{name}.": f"input_hint_block.{2 * i}." for i, name in enumerate(hints)}
    prefixes |= {f"controlnet_down_blocks.{i}.": f"zero_convs.{i}.0." for i in range(len(network.zero_convs))}
    prefixes["controlnet_mid_block."] = "middle_block_out.0."
    weights = comfy.utils.state_dict_prefix_replace(weights, prefixes)
    names = comfy.utils.unet_to_diffusers(UNET_CONFIG)
    network.load_state_dict({names.get(name, name): weight for name, weight in weights.items()})
    network.requires_grad_(False)
    return comfy.controlnet.ControlNet(network, load_device=comfy.model_management.get_torch_device())


class LayoutBranch(comfy.gligen.Gligen):
    """The gated layers of the layout branch, in the order in which the UNet runs."""

    def __init__(self):
        widths = (*WIDTHS, WIDTHS[-1], *(width for width in reversed(WIDTHS) for _ in range(2)))
        super().__init__([RasterGatedAttention(width) for width in widths], GroundingNet(), TEXT_WIDTH)

    def _set_position(self, boxes: Tensor, masks: Tensor, positive_embeddings: Tensor):
        """boxes: (B, 30, 4); masks: (B, 30); embeddings: (B, 30, 128). Returns the patch that the UNet's blocks run."""
        objs = self.position_net(boxes, masks, positive_embeddings)

        def patch(x: Tensor, options: dict) -> Tensor:
            height, width = options["activations_shape"][-2:]
            return self.module_list[options["transformer_index"]](x, objs.to(x), (height, width))

        return patch


def load_layout_branch() -> ModelPatcher:
    """The layout branch as GLIGEN for the UNet of `load_model`."""
    gligen = LayoutBranch()
    weights = load("layout_branch")
    blocks = ["down_blocks.0.attentions.0", "down_blocks.1.attentions.0", "mid_block.attentions.0"]
    blocks += [f"up_blocks.{level}.attentions.{i}" for level in (0, 1) for i in (0, 1)]
    prefixes = {f"{block}.transformer_blocks.0.fuser.": f"module_list.{i}." for i, block in enumerate(blocks)}
    gligen.load_state_dict(comfy.utils.state_dict_prefix_replace(weights, prefixes))
    device = comfy.model_management.get_torch_device()
    return _patcher(gligen, device, comfy.model_management.unet_offload_device())


NO_WORDS = re.compile(r":[\d.]+(?=\))|embedding:\S+")  # weights and embeddings in a prompt


class WorldTokenizer(comfy.sd1_clip.SDTokenizer):
    """Says on the node that encodes a text which of its words the models have never seen."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(
            tokenizer_path="",
            tokenizer_class=WorldTokenizer,
            max_length=TEXT_TOKENS,
            embedding_directory=embedding_directory,
            embedding_size=TEXT_WIDTH,
            tokenizer_data=tokenizer_data or {},
        )

    @staticmethod
    def from_pretrained(path: str):
        """The host asks the tokenizer's class for an instance. It splits long prompts itself: no warning is due."""
        return tokenizer(max_length=10**6)

    def tokenize_with_weights(self, text: str, *args, **kwargs):
        warn_on_node(unknown_words(text))
        return super().tokenize_with_weights(text, *args, **kwargs)


def unknown_words(text: str) -> list[str]:
    """A warning that names the words of the text which the world lacks; none if it has them all."""
    words = dict.fromkeys(re.findall(r"\w+", NO_WORDS.sub(" ", text.lower())))
    unknown = [word for word in words if word not in vocabulary()]
    if not unknown:
        return []
    return [
        f"the bundled models have never seen {', '.join(unknown)}: what they draw for it is chance. They know "
        f"{', '.join(SHAPES)}, and {', '.join(COLOURS)}; for all else use a checkpoint of your own"
    ]


def unknown_to(clip, text: str) -> list[str]:
    """`unknown_words`, if `clip` is the bundled one."""
    return unknown_words(text) if isinstance(getattr(clip.tokenizer, "clip_l", None), WorldTokenizer) else []


class TextTransformer(comfy.clip_model.CLIPTextModel):
    """The host's CLIP with this family's vocabulary: it makes room for CLIP's."""

    def __init__(self, config, dtype, device, operations):
        super().__init__(config, dtype, device, operations)
        self.set_input_embeddings(operations.Embedding(len(tokenizer()), TEXT_WIDTH, dtype=dtype, device=device))


class TextEncoder(comfy.sd1_clip.SDClipModel):
    """Pooled is what GLIGEN's phrases need: the last token, not projected."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        words = tokenizer()
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=TEXT_TOKENS,
            textmodel_json_config={
                "num_hidden_layers": TEXT_LAYERS,
                "num_attention_heads": TEXT_HEADS,
                "hidden_size": TEXT_WIDTH,
                "intermediate_size": 4 * TEXT_WIDTH,
                "hidden_act": "quick_gelu",
                "max_position_embeddings": TEXT_TOKENS,
                "eos_token_id": words.eos_token_id,
            },
            model_class=TextTransformer,
            special_tokens={"start": words.bos_token_id, "end": words.eos_token_id, "pad": words.pad_token_id},
            return_projected_pooled=False,
            model_options=model_options or {},
        )


def load_clip() -> comfy.sd.CLIP:
    """The text encoder with its tokenizer; prompts are split and weighted as for SD1.5, 30 words a chunk."""
    target = comfy.supported_models_base.ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, tokenizer=WorldTokenizer),
        partial(comfy.sd1_clip.SD1ClipModel, clip_model=TextEncoder),
    )
    directories = folder_paths.get_folder_paths("embeddings")
    clip = comfy.sd.CLIP(target, embedding_directory=directories, model_options={"dtype": torch.float32})
    weights = {f"text_model.{name}": weight for name, weight in load("text_encoder").items()}
    weights["text_projection.weight"] = torch.eye(TEXT_WIDTH)  # none was trained
    clip.cond_stage_model.clip_l.transformer.load_state_dict(weights)
    return clip


def load_vae() -> comfy.sd.VAE:
    """The autoencoder. To the host it is a TAESD of narrower layers."""
    vae = comfy.sd.VAE(sd=TAESD(latent_channels=LATENT_CHANNELS).state_dict(), dtype=torch.float32)
    vae.first_stage_model = TinyVAE().eval()
    vae.first_stage_model.load_state_dict(load("vae"))
    vae.patcher = _patcher(vae.first_stage_model, vae.device, comfy.model_management.vae_offload_device())
    vae.size = None  # of the TAESD
    return vae


def empty_latent(width: int, height: int, batch_size: int) -> dict:
    """width, height: pixels. Returns the host's latent dictionary, samples (B, 8, height / 8, width / 8)."""
    shape = batch_size, LATENT_CHANNELS, height // 8, width // 8
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())}


def _patcher(model: nn.Module, load_device: torch.device, offload_device: torch.device) -> ModelPatcher:
    model.requires_grad_(False)
    return ModelPatcher(model, load_device=load_device, offload_device=offload_device)
