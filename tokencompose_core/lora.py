"""Low-rank adapters (Hu et al. 2021) on a network's linear layers, for diffusers' and ComfyUI's networks alike.

The layers stay what they are: an adapter is a submodule whose output a hook adds to that of the layer.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from realcompo_core.errors import RealCompoError

ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)$"
CHILD = "lora"


class Lora(nn.Module):
    """up(down(x)), which is 0 until it is trained."""

    def __init__(self, layer: nn.Linear, rank: int):
        super().__init__()
        self.down = nn.Linear(layer.in_features, rank, bias=False, device=layer.weight.device)
        self.up = nn.Linear(rank, layer.out_features, bias=False, device=layer.weight.device)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x.to(self.down.weight.dtype)))


def add_lora(network: nn.Module, rank: int, layers: str = ATTENTION, seed: int = 0) -> int:
    """Freeze `network` and give each linear layer whose name matches `layers` an adapter; returns how many.

    The adapters are fp32 whatever the network's precision. Raises RealCompoError where nothing matches.
    """
    network.requires_grad_(False)
    names = [n for n, m in network.named_modules() if isinstance(m, nn.Linear) and re.search(layers, n)]
    if rank < 1 or not names:
        raise RealCompoError(f"no LoRA can be made of rank {rank} on layers {layers!r}: {len(names)} layers match")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            layer = network.get_submodule(name)
            layer.add_module(CHILD, Lora(layer, rank))
            layer.lora_hook = layer.register_forward_hook(_add)
    return len(names)


def _add(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output + getattr(layer, CHILD)(inputs[0]).to(output.dtype)


def remove_lora(network: nn.Module) -> None:
    """Remove the adapters of `add_lora`; what they learnt is lost."""
    for layer in [m for m in network.modules() if isinstance(getattr(m, CHILD, None), Lora)]:
        layer.lora_hook.remove()
        del layer.lora_hook
        delattr(layer, CHILD)


def lora_state(network: nn.Module, prefix: str = "unet") -> dict[str, Tensor]:
    """The adapters as `PREFIX.LAYER.lora_A.weight` (down) and `lora_B` (up), at strength 1.

    With diffusers' layer names and the prefix `unet`, diffusers (`load_lora_weights`, which needs peft) and ComfyUI
    (Load LoRA) load it; with ComfyUI's own layer names and `diffusion_model`, ComfyUI does.
    """
    state = {}
    for name, module in network.named_modules():
        if isinstance(module, Lora):
            layer = f"{prefix}.{name.removesuffix('.' + CHILD)}"
            state[f"{layer}.lora_A.weight"] = module.down.weight.detach().contiguous()
            state[f"{layer}.lora_B.weight"] = module.up.weight.detach().contiguous()
    return state


@torch.no_grad()
def merge_lora(network: nn.Module, state: dict[str, Tensor], prefix: str = "unet", strength: float = 1.0) -> None:
    """Add a LoRA of `lora_state` to the network's own weights. Raises RealCompoError for one of another network."""
    modules = dict(network.named_modules())
    for key in (key for key in state if key.endswith(".lora_A.weight")):
        name, up = key.removesuffix(".lora_A.weight"), key.replace("lora_A", "lora_B")
        layer = modules.get(name.removeprefix(f"{prefix}."))
        wanted = None if layer is None else tuple(layer.weight.shape)
        if up not in state or wanted != (len(state[up]), state[key].shape[1]):
            raise RealCompoError(f"{key} fits no layer of this {type(network).__name__}: it is another model's LoRA")
        layer.weight += strength * (state[up].to(layer.weight) @ state[key].to(layer.weight))
