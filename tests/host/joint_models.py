"""SD3, Flux, Qwen-Image and Wan of a usual architecture and small width, with random weights.

Import it after `comfy.options`.
"""

from __future__ import annotations

import comfy.model_patcher
import comfy.supported_models
import torch

SD3 = {
    "input_size": None,
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "adm_in_channels": 24,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 48, "out_features": 128},
    },
    "qk_norm": "rms",
    "pos_embed_max_size": 16,
    "num_patches": 256,
    "pos_embed_scaling_factor": None,
    "x_block_self_attn_layers": [0],
}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 24,
    "context_in_dim": 48,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
QWEN_IMAGE = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "axes_dims_rope": [4, 6, 6],
}
WAN21_T2V = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 32,
    "ffn_dim": 64,
    "freq_dim": 32,
    "text_dim": 48,
    "num_heads": 2,
    "num_layers": 4,
    "text_len": 64,
}


def random_model(family: str, config: dict, dtype: torch.dtype = torch.float32, seed: int = 0):
    """A MODEL with random weights of a usual size."""
    settings = getattr(comfy.supported_models, family)(config)
    settings.set_inference_dtype(dtype, torch.float32 if dtype.itemsize == 1 else None)  # fp8 is cast where it is used
    model = settings.get_model({}, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    network = model.diffusion_model
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):  # SD3's table of positions is a buffer
        scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
        own = torch.float32 if name.startswith("patch_embedding.") else dtype  # Wan's, in any precision
        tensor.data = (torch.randn(tensor.shape, generator=generator) * scale).to(own)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)
