"""Within a step nothing waits for the device: no value is read from it, and nothing is copied to it but in passing.

On the device `meta` tensors have no values: reading one fails. `Crossings` refuses copies between devices.
"""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from realcompo_core.attention.losses import Objective, layout_guidance_loss
from realcompo_core.attention.targets import object_targets
from realcompo_core.diffusers.branch import DenoiserBranch
from realcompo_core.diffusers.schedule import NoiseSchedule
from realcompo_core.diffusers.unet_attention import UNetAttention
from realcompo_core.guidance.balancer import Balancer
from realcompo_core.guidance.branch import GuidedBranch
from realcompo_core.guidance.layout_guidance import LayoutGuidance, LayoutGuide, guidance_layers
from realcompo_core.guidance.schedule import Schedule
from realcompo_core.guidance.settings import BalanceSettings
from realcompo_core.guidance.weight_schedule import RegionWeights, WeightSchedule
from realcompo_core.sampling.samplers import dpmpp_2m

DEVICE = torch.device("meta")
SIZE = (16, 16)
STEPS = 4


class Crossings(TorchDispatchMode):
    """Raises AssertionError where a call has tensors of two devices and would wait for one of them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() or tensor is result}
        passing = (kwargs or {}).get("non_blocking", False)
        assert len(devices) < 2 or passing, f"{func} waits: it has tensors of {' and '.join(sorted(devices))}"
        return result


class Boxes:
    """GLIGEN's objects, where they will be needed."""

    networks = ()

    def __init__(self, width):
        self._width = width

    def __call__(self, run):
        objects = torch.zeros(len(run.sample), 30, self._width, device=DEVICE)
        return {"cross_attention_kwargs": {"gligen": {"objects": objects}}}


class Objects(torch.nn.Module):
    """In the place of diffusers' position net, which copies its frequencies to the device in every pass."""

    def forward(self, objects):
        return objects


def branches(pipelines, guidance):
    """UNets on the device, the second one with GLIGEN's layers and this Layout Guidance."""
    targets = object_targets([[[1], [3, 4]]], [lambda height, width: torch.ones(2, height, width)]).to(DEVICE)
    sigmas, found = None, []
    for k, pipeline in enumerate(pipelines):
        unet = copy.deepcopy(pipeline.unet).to(DEVICE)
        schedule = NoiseSchedule(pipeline.scheduler)
        sigmas = schedule.sigmas(STEPS)
        width = pipeline.text_encoder.config.hidden_size
        text = {"encoder_hidden_states": torch.zeros(1, 77, width, device=DEVICE)}
        source = UNetAttention(unet)
        objective = Objective(source.choose(2), targets)
        conditioners = [Boxes(width)] if k else []
        if k:
            unet.position_net = Objects()
        branch = DenoiserBranch(("fidelity", "spatial")[k], unet, schedule, text, text, 3.0, conditioners, objective)
        if k and guidance is not None:
            own = Objective(guidance_layers(source.layers), targets, layout_guidance_loss)
            branch = GuidedBranch(branch, LayoutGuide(guidance), own, Schedule(sigmas))
        found.append(branch)
    return found, sigmas


@pytest.mark.parametrize(
    "settings",
    [
        BalanceSettings(layout_guidance=LayoutGuidance(iterations=1, until=0.5)),
        BalanceSettings(mode="lookahead", t0=0.2, initial="zero"),
        BalanceSettings(fixed=WeightSchedule(RegionWeights(0.8, 0.1), until=0.5)),
    ],
)
def test_no_step_waits(tiny_pipelines, settings, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    balanced, sigmas = branches([tiny_pipelines.fidelity, tiny_pipelines.gligen], settings.layout_guidance)
    objects = torch.zeros(1, *SIZE)
    objects[:, 4:12, 4:12] = 1
    balancer = Balancer(balanced, sigmas, [0], objects, settings)
    x = torch.zeros(1, tiny_pipelines.fidelity.unet.config.in_channels, *SIZE, device=DEVICE)
    with Crossings():
        dpmpp_2m(balancer, x, sigmas)
    assert len(balancer.trace.steps) >= STEPS
