"""A frozen network's gradient is the same and keeps less."""

import pytest
import torch
from torch import nn

from realcompo_core.attention.input_gradients import InputGradientsOnly


class Block(nn.Module):
    """What a diffusion UNet is made of: norm, SiLU, convolutions of several kinds."""

    def __init__(self, **options):
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)
        self.act = nn.SiLU(**options)
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3)
        self.same = nn.Conv2d(6, 3, 3, padding="same")

    def forward(self, x):
        x = self.down(self.conv(self.act(self.norm(x))))
        return self.same(torch.sin(self.grouped(self.act(x))))


def gradient(block, mode=None, kept=None):
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = {parameter.data_ptr() for parameter in block.parameters()}

    def keep(tensor):
        if kept is not None and tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if mode:
            with mode:
                output = block(x * 1.5)
        else:
            output = block(x * 1.5)
    return torch.autograd.grad(output.square().sum(), x)[0]


@pytest.mark.parametrize("options", [{}, {"inplace": True}])
def test_gradient_is_unchanged(options):
    torch.manual_seed(0)
    block = Block(**options).double().requires_grad_(False)
    assert torch.allclose(gradient(block, InputGradientsOnly()), gradient(block), rtol=1e-10, atol=1e-12)


def test_less_is_kept():
    block = Block().double().requires_grad_(False)
    plain, frozen = {}, {}
    gradient(block, None, plain)
    gradient(block, InputGradientsOnly(), frozen)
    assert sum(frozen.values()) < 0.6 * sum(plain.values())


def test_trainable_convolutions_are_left_alone():
    block = Block().double()
    with InputGradientsOnly():
        block(torch.randn(1, 4, 8, 8, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None for parameter in block.conv.parameters())
