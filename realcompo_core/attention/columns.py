"""The softmax columns of some tokens, without those of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_columns(
    q: Tensor, k: Tensor, columns: Sequence[int] | Tensor, scale: float | None = None, compute: bool = True
) -> Tensor:
    """Columns of softmax(q kᵀ · scale), for each head: how much each of the n pixels attends to each token.

    q: (B, heads, n, d); k: (B, heads, T, d); columns: token indices, one list for all items or (B, C) of each item's
    own. `scale` defaults to 1/√d. Returns (B, heads, C, n) in fp32 (fp64 where the inputs are), left empty without
    `compute`. For the backward pass only q and k are kept; the scores of all tokens are computed again in it
    (docs/method.md, R4).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    columns = torch.as_tensor(columns, dtype=torch.long, device=q.device)
    return _Columns.apply(q, k, columns.expand(len(q), columns.shape[-1]), scale, compute)


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, columns: Tensor, scale: float, compute: bool) -> Tensor:
        ctx.save_for_backward(q, k, columns)
        ctx.scale = scale
        if not compute:
            return q.new_empty(len(q), q.shape[1], columns.shape[1], q.shape[2], dtype=_wide(q))
        scores, normaliser = _scores(q, k, scale)
        return (scores.gather(-1, _index(columns, q)) - normaliser).exp_().mT.contiguous()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        q, k, columns = ctx.saved_tensors
        scores, normaliser = _scores(q, k, ctx.scale)
        p, index = (scores - normaliser).exp_(), _index(columns, q)
        weighted = p.gather(-1, index) * grad.mT
        # Through the softmax: p ⊙ (g − Σ g p).
        through = p.mul_(-weighted.sum(-1, keepdim=True)).scatter_add_(-1, index, weighted)
        grad_q = grad_k = None
        with torch.autocast(q.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_q = ((through @ k.to(through.dtype)) * ctx.scale).to(q.dtype)
            if ctx.needs_input_grad[1]:
                grad_k = (through.mT @ (q.to(through.dtype) * ctx.scale)).to(k.dtype)
        return grad_q, grad_k, None, None, None


def _wide(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def _scores(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(B, heads, n, T) scores, and the logarithm of the sum of their exponentials; fp32 under autocast, too."""
    with torch.autocast(q.device.type, enabled=False):
        scores = q.to(_wide(q)) * scale @ k.to(_wide(q)).mT
    return scores, scores.logsumexp(-1, keepdim=True)


def _index(columns: Tensor, q: Tensor) -> Tensor:
    return columns[:, None, None].expand(-1, *q.shape[1:3], -1)
