"""What `benchmarks/reliability.py` puts into a host: faults on demand, and what they leave behind.

A host loads this folder as a pack. Every call of a layer in the host's process is counted; at a chosen one, the layer
raises instead of computing, or the gradient of its result does.
"""

from __future__ import annotations

import ctypes
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
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

FAULTS = {
    "exception": lambda: RuntimeError("simulated fault"),
    "memory": lambda: comfy.model_management.OOM_EXCEPTION("simulated: out of memory"),
}


class Layers:
    """Counts since `arm` the layers' calls and their results that have a gradient.

    Call `at` raises the fault, or with `backward` the gradient of result `at`. With `lasting`, all later ones do too.
    """

    def __init__(self):
        self.arm()

    def arm(self, fault: str = "", at: int = 0, lasting: bool = False, backward: bool = False) -> None:
        self.calls = self.results = self.raised = 0
        self._fault, self._at, self._lasting, self._backward = fault, at, lasting, backward

    def before(self, layer: nn.Module, inputs: tuple) -> None:
        self.calls += 1
        if self._is_due(self.calls, backward=False):
            self._fail()

    def after(self, layer: nn.Module, inputs: tuple, result: object) -> None:
        if isinstance(result, Tensor) and result.requires_grad:
            self.results += 1
            if self._is_due(self.results, backward=True):
                result.register_hook(self._fail)

    def _is_due(self, count: int, backward: bool) -> bool:
        due = count == self._at or self._lasting and count > self._at
        return bool(self._fault) and backward == self._backward and due

    def _fail(self, gradient: Tensor | None = None) -> None:
        self.raised += 1
        raise FAULTS[self._fault]()


LORA_RANK = 8
LAYERS = Layers()
WATCHED: list[nn.Module] = []
register_module_forward_pre_hook(LAYERS.before)
register_module_forward_hook(LAYERS.after)


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the values of all tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class AllocatorState(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def allocated_bytes() -> int:
    """What the C library's allocator has given out and not got back, so without the gaps between; glibc only."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = AllocatorState
    found = mallinfo()
    return found.uordblks + found.hblkhd


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


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


@PromptServer.instance.routes.get("/reliability/layers")
async def layers(request):
    """The layers' counts since `arm`."""
    return web.json_response({"calls": LAYERS.calls, "results": LAYERS.results, "raised": LAYERS.raised})


@PromptServer.instance.routes.get("/reliability/weights")
async def weights(request):
    """The digest of all watched models' weights."""
    return web.json_response(digest(tensor for module in WATCHED for tensor in module.state_dict().values()))


@PromptServer.instance.routes.get("/reliability/memory")
async def memory(request):
    return web.json_response({"tensors": live_tensors(), "allocated": allocated_bytes()})


NODE_CLASS_MAPPINGS = {"ReliabilityWatchedModels": WatchedModels, "ReliabilityDigests": Digests}
