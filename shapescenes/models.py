"""The ShapeScenes family as ordinary diffusers and transformers models, and how the shipped weights are loaded.

The text-to-image branch is a `StableDiffusionPipeline`, the layout branch the same UNet with GLIGEN's gated blocks, so
that both take the very path that SD1.5 takes.
"""

from __future__ import annotations

from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from shapescenes.files import load
from shapescenes.layout_branch import GroundingNet, RasterGatedAttention, tell_latent_size
from shapescenes.sizes import (
    DECODER_BLOCKS,
    DECODER_WIDTH,
    DIT_HEADS,
    DIT_LAYERS,
    DIT_PATCH,
    DIT_WIDTH,
    ENCODER_BLOCKS,
    ENCODER_WIDTH,
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
from shapescenes.tokenizer import tokenizer
from tokencompose_core.lora import merge_lora


def text_encoder() -> CLIPTextModel:
    tokens = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModel(config)


def vae() -> AutoencoderTiny:
    """8x autoencoder. Rendered and flat scenes together have latents of about zero mean and unit variance."""
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        scaling_factor=LATENT_SCALE,
        encoder_block_out_channels=(ENCODER_WIDTH,) * 4,
        decoder_block_out_channels=(DECODER_WIDTH,) * 4,
        num_encoder_blocks=ENCODER_BLOCKS,
        num_decoder_blocks=DECODER_BLOCKS,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The transformer's: rectified flow, without a shift, since the latents are small."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def unet(gated: bool = False) -> UNet2DConditionModel:
    """The text-to-image UNet; with `gated`, the same with a gated layer in every transformer block."""
    model = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        norm_num_groups=NORM_GROUPS,
        attention_type="gated" if gated else "default",
    )
    if gated:
        model.position_net = GroundingNet()
        for module in model.modules():
            if hasattr(module, "fuser"):
                module.fuser = RasterGatedAttention(module.norm1.normalized_shape[0])
        model.register_forward_pre_hook(tell_latent_size, with_kwargs=True)
    return model


def dit() -> SD3Transformer2DModel:
    """The text-to-image transformer: an MMDiT as Stable Diffusion 3's, for the UNets' autoencoder and captions."""
    return SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=DIT_PATCH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=DIT_LAYERS,
        num_attention_heads=DIT_HEADS,
        attention_head_dim=DIT_WIDTH // DIT_HEADS,
        caption_projection_dim=DIT_WIDTH,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIDE // DIT_PATCH,
    )


def segmentation_controlnet() -> ControlNetModel:
    """A ControlNet of the text-to-image UNet, for pictures in the colours of `shapescenes.palette`."""
    return ControlNetModel.from_unet(unet(), load_weights_from_unet=False)


def pipelines() -> tuple[StableDiffusionPipeline, StableDiffusionPipeline]:
    """The shipped text-to-image and layout branch; they share autoencoder and text encoder."""
    shared = _shared()
    gated = unet(gated=True)
    gated.load_state_dict(load("unet"), strict=False)
    gated.load_state_dict(load("layout_branch"), strict=False)
    unets = _text_to_image(), gated
    fidelity, spatial = (_pipeline(StableDiffusionPipeline, shared, module) for module in unets)
    return fidelity, spatial


def segmentation_pipeline(text_to_image: StableDiffusionPipeline) -> StableDiffusionControlNetPipeline:
    """The text-to-image pipeline with the shipped segmentation ControlNet; all other models are shared."""
    controlnet = segmentation_controlnet()
    controlnet.load_state_dict(load("segmentation_controlnet"))
    shared = {"vae": text_to_image.vae, "text_encoder": text_to_image.text_encoder}
    controlnet.eval().requires_grad_(False)
    return _pipeline(StableDiffusionControlNetPipeline, shared, text_to_image.unet, controlnet=controlnet)


class DiTPipeline(DiffusionPipeline):
    """The transformer with the family's text encoder and autoencoder, for `RealCompoPipeline`, which samples it."""

    def __init__(self, vae, text_encoder, tokenizer, transformer, scheduler):
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer, scheduler=scheduler
        )
        self.vae_scale_factor = 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)


def dit_pipelines() -> tuple[DiTPipeline, DiTPipeline]:
    """The transformer alone, and with its LoRA for regional attention; they share autoencoder and text encoder."""
    shared, transformers = _shared(), (dit(), dit())
    for transformer in transformers:
        transformer.load_state_dict(load("dit"))
    merge_lora(transformers[1], load("dit_layout_lora"), "transformer")
    for module in (*shared.values(), *transformers):
        module.eval().requires_grad_(False)
    shared |= {"tokenizer": tokenizer(), "scheduler": flow_scheduler()}
    first, second = (DiTPipeline(**shared, transformer=transformer) for transformer in transformers)
    return first, second


def tokencompose_pipeline(text_to_image: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The text-to-image pipeline with the shipped LoRA of TokenCompose in a UNet of its own; all else is shared."""
    model = _text_to_image()
    merge_lora(model, load("tokencompose_lora"))
    shared = {"vae": text_to_image.vae, "text_encoder": text_to_image.text_encoder}
    return _pipeline(StableDiffusionPipeline, shared, model)


def _shared() -> dict[str, nn.Module]:
    shared = {"vae": vae(), "text_encoder": text_encoder()}
    for name, module in shared.items():
        module.load_state_dict(load(name))
    return shared


def _text_to_image() -> UNet2DConditionModel:
    model = unet()
    model.load_state_dict(load("unet"))
    return model


def _pipeline(kind: type, shared: dict[str, nn.Module], model: UNet2DConditionModel, **more: nn.Module):
    for module in (*shared.values(), model):
        module.eval().requires_grad_(False)
    return kind(
        **shared,
        **more,
        tokenizer=tokenizer(),
        unet=model,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
