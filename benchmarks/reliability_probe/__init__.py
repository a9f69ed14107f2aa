"""What `benchmarks/reliability.py` puts into a host: faults on demand, and what they leave behind.

A host loads this folder as a pack. Every call of a layer in the host's process is counted; at a chosen one, the layer
raises instead of computing.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterable
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from aiohttp import web
from safetensors.torch import save_file
from server import PromptServer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

FAULTS = {
    "exception": lambda: RuntimeError("simulated fault"),
    "memory": lambda: comfy.model_management.OOM_EXCEPTION("simulated: out of memory"),
}


class Layers:
    """Counts layers' calls since `arm`; call `at` raises the fault, with `lasting` all later ones too."""

    def __init__(self):
        self.calls = self.raised = 0
        self.arm()

    def arm(self, fault: str = "", at: int = 0, lasting: bool = False) -> None:
        self.calls = self.raised = 0
        self._fault, self._at, self._lasting = fault, at, lasting

    def __call__(self, layer: nn.Module, inputs: tuple) -> None:
        self.calls += 1
        if self._fault and (self.calls == self._at or self._lasting and self.calls > self._at):
            self.raised += 1
            raise FAULTS[self._fault]()


LORA_RANK = 8
LAYERS = Layers()
WATCHED: list[nn.Module] = []
register_module_forward_pre_hook(LAYERS)


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the values of all tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def live_tensors() -> list[Tensor]:
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), Tensor)]


def write_loras(count: int, folder: Path) -> None:
    """`0.safetensors` and so on: random LoRAs for the attention layers of the watched UNet, alike in size."""
    layers = dict(WATCHED[0].diffusion_model.named_modules())
    linear = {name: layer for name, layer in layers.items() if ".attn" in name and isinstance(layer, nn.Linear)}
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random, weights = torch.Generator().manual_seed(number), {}
        for name, layer in linear.items():
            sides = {"A": (LORA_RANK, layer.in_features), "B": (layer.out_features, LORA_RANK)}
            for side, shape in sides.items():
                weights[f"diffusion_model.{name}.lora_{side}.weight"] = 0.05 * torch.randn(shape, generator=random)
        save_file(weights, folder / f"{number}.safetensors")


class WatchedModels:
    """Passes models on, and has the host compute everything behind them anew in every prompt."""

    CATEGORY, FUNCTION = "reliability", "watch"
    RETURN_TYPES = ("MODEL", "GLIGEN", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        kinds = zip(("model", "gligen", "clip", "vae"), cls.RETURN_TYPES, strict=True)
        return {"required": {name: (kind,) for name, kind in kinds}}

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def watch(self, model, gligen, clip, vae):
        WATCHED[:] = [model.model, gligen.model, clip.cond_stage_model, vae.first_stage_model]
        return model, gligen, clip, vae


class Digests:
    """The result's SHA-256: of its latent and of its picture."""

    CATEGORY, FUNCTION, OUTPUT_NODE = "reliability", "digests", True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "image": ("IMAGE",)}}

    def digests(self, latent, image):
        return {"ui": {"digests": [digest([latent["samples"]]), digest([image])]}}


@PromptServer.instance.routes.post("/reliability/arm")
async def arm(request):
    LAYERS.arm(**await request.json())
    return web.json_response({})


@PromptServer.instance.routes.post("/reliability/loras")
async def loras(request):
    write_loras(**await request.json(), folder=Path(folder_paths.get_folder_paths("loras")[0]))
    return web.json_response({})


@PromptServer.instance.routes.get("/reliability/state")
async def state(request):
    """The layers' calls since `arm`, how many of them raised, the weights of all watched models, and live tensors."""
    tensors = live_tensors()
    return web.json_response(
        {
            "calls": LAYERS.calls,
            "raised": LAYERS.raised,
            "weights": digest(tensor for module in WATCHED for tensor in module.state_dict().values()),
            "tensors": len(tensors),
            "tensor_bytes": sum(tensor.nbytes for tensor in tensors if tensor.layout == torch.strided),
        }
    )


NODE_CLASS_MAPPINGS = {"ReliabilityWatchedModels": WatchedModels, "ReliabilityDigests": Digests}
