"""Gradients in a network's input, with fewer activations in memory.

Balancing wants the gradient in the latent and never one in the weights. PyTorch keeps more than that needs: the input
of each convolution, and both ends of each SiLU after a group norm. While `InputGradientsOnly` is active, convolutions
keep nothing and the pair keeps the norm's input alone. Values are unchanged, and no layer of the network is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the networks' weights take no part in gradients."""
    trainable = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class InputGradientsOnly(TorchFunctionMode):
    """A mode for the forward pass; the backward pass may run inside or after it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_grad_enabled():
            if func is torch.conv2d and not kwargs and _is_plain_convolution(*args):
                return _Convolution.apply(*args)
            if func is F.group_norm:
                output = func(*args, **kwargs)
                output._normed_from = (args, kwargs)
                return output
            if func is F.silu and hasattr(args[0], "_normed_from") and not kwargs.get("inplace"):
                (x, *norm_args), norm_kwargs = args[0]._normed_from
                return _NormedSiLU.apply(x, args[0].detach(), lambda x: F.group_norm(x, *norm_args, **norm_kwargs))
        return func(*args, **kwargs)


class _Convolution(torch.autograd.Function):
    """conv2d whose weight and bias are constants: its backward pass needs the weight and the input's shape."""

    @staticmethod
    def forward(ctx, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        ctx.constants = x.shape, weight, (stride, padding, dilation, groups)
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx, grad):
        shape, weight, options = ctx.constants
        return torch.nn.grad.conv2d_input(shape, weight, grad, *options), None, None, None, None, None, None


class _NormedSiLU(torch.autograd.Function):
    """silu(norm(x)), whose norm is computed again in the backward pass."""

    @staticmethod
    def forward(ctx, x, normed, norm):
        ctx.save_for_backward(x)
        ctx.norm = norm
        return F.silu(normed)

    @staticmethod
    def backward(ctx, grad):
        x = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            output = F.silu(ctx.norm(x))
        return torch.autograd.grad(output, x, grad)[0], None, None


def _is_plain_convolution(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, *_) -> bool:
    """A frozen one in one precision, as autocast may not get between, with its padding in numbers."""
    return x.requires_grad and not weight.requires_grad and x.dtype == weight.dtype and not isinstance(padding, str)
