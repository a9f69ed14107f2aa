"""The bundled models in the host's own process, for the checks beside this file. Import it first."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import utils.extra_config  # noqa: E402, F401, I001  # first, as in main.py: `nodes` puts another `utils` on the path

import comfy.controlnet  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy.cldm.cldm import ControlNet as ControlNetwork  # noqa: E402

from pack import load_nodes  # noqa: E402

NODES = asyncio.run(load_nodes())
branch = importlib.import_module("realcompo_pack.nodes.host.branch")
memory = importlib.import_module("realcompo_pack.nodes.host.memory")
sources = importlib.import_module("realcompo_pack.nodes.host.unet_attention")
guiders = importlib.import_module("realcompo_pack.nodes.host.guider")
shapes = importlib.import_module("realcompo_pack.nodes.host.shapescenes")

from realcompo_core.guidance.settings import BalanceSettings  # noqa: E402
from realcompo_core.layout import Layout, LayoutObject  # noqa: E402

PROMPT = "a red circle to the left of a blue square"
LAYOUT = Layout(
    (LayoutObject("a red circle", (0.1, 0.3, 0.4, 0.7)), LayoutObject("a blue square", (0.6, 0.3, 0.9, 0.7))),
    prompt=PROMPT,
)
torch.set_num_threads(1)
with torch.inference_mode():  # as the host runs nodes
    MODEL, CLIP = shapes.load_model(), shapes.load_clip()
    POSITIVE = [[CLIP.encode_from_tokens(CLIP.tokenize(PROMPT)), {}]]
    NEGATIVE = [[CLIP.encode_from_tokens(CLIP.tokenize("")), {}]]
UNET = MODEL.model.diffusion_model
LAYERS = sources.UNetAttention(UNET).choose()


def noise_levels(steps: int, model=MODEL) -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)


def sampled(
    model=MODEL, steps=3, batch=2, watch=None, positive=POSITIVE, sampler="euler", cfg=3.0, other=MODEL, **settings
):
    """Latents of a balanced run of two equal branches; `watch` is called with each branch as it is made."""
    with torch.inference_mode():
        models = model, model if other is MODEL else other
        fidelity, spatial = (
            guiders.BranchInput(m, cond, NEGATIVE, cfg) for m, cond in zip(models, (POSITIVE, positive), strict=True)
        )
        guider = guiders.BalancedGuider([fidelity, spatial], LAYOUT, CLIP, BalanceSettings(**settings))
        if watch:
            begin = guider.begin
            guider.begin = lambda *args: (begin(*args), [watch(b) for b in guider._branches])
        noise = comfy.sample.prepare_noise(torch.zeros(batch, 8, 16, 16), 1)
        sampler = comfy.samplers.sampler_object(sampler)
        return guider.sample(noise, torch.zeros_like(noise), sampler, noise_levels(steps, model), seed=1)


def control_net(hints):
    """A ControlNet with random weights. hints: (B, 3, H, W)."""
    with torch.inference_mode():
        torch.manual_seed(0)
        network = ControlNetwork(**shapes.CONTROLNET_CONFIG, operations=shapes.Operations)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.05)
        device = comfy.model_management.get_torch_device()
        control = comfy.controlnet.ControlNet(network, load_device=device, latent_format=None)
        control.set_cond_hint(hints, 1.0, (0.0, 1.0))
    return control


def run_checks(found: dict) -> None:
    """The functions among `found` that are checks, in their order."""
    for name, check in list(found.items()):
        if name.startswith("check_"):
            check()
            print("ok", name)
