"""Masks on the joint attention of diffusers' transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .joint_attention import DOT_PRODUCT, queries_and_keys


@contextmanager
def masked_attention(mask: Tensor, text: int | None = None) -> Iterator[None]:
    """Inside, tokens of joint attention attend to what `mask` allows (docs/method.md, R19).

    mask: (L, L) or (B, L, L) bool, for all texts' tokens and then the picture's, as in `attention.regional`. text: the
    number of text tokens, if the network has them behind the picture's, as SD3 in diffusers. Attention of other lengths
    stays as it is.
    """
    if text is not None:
        order = torch.cat([torch.arange(text, mask.shape[-1]), torch.arange(text)]).to(mask.device)
        mask = mask[..., order[:, None], order]
    with _Masked(mask):
        yield


class _Masked(TorchFunctionMode):
    def __init__(self, mask: Tensor):
        super().__init__()
        self._mask = mask if mask.ndim == 2 else mask[:, None]

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), given: dict | None = None) -> Any:
        given = given or {}
        if function is DOT_PRODUCT and queries_and_keys(args, given)[0].shape[-2] == self._mask.shape[-1]:
            given = {**given, "attn_mask": self._mask}
        return function(*args, **given)
