"""The softmax columns of some tokens, without those of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SCORES = 2**26
"""How many scores are held at a time: 256 MiB in fp32, of which the backward pass needs three. A setting of the
module: joint attention of 4096 pixels and 4608 keys in 24 heads has 450 million."""


def attention_columns(
    q: Tensor,
    k: Tensor,
    columns: Sequence[int] | Tensor,
    scale: float | None = None,
    compute: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Columns of softmax(q kᵀ · scale), for each head: how much each of the n pixels attends to each token.

    q: (B, heads, n, d); k: (B, heads, T, d); columns: token indices, one list for all items or (B, C) of each item's
    own. `scale` defaults to 1/√d. mask: (n, T) or (B, 1, n, T) bool, the tokens that each pixel may attend to. Returns
    (B, heads, C, n) in fp32 (fp64 where the inputs are), left empty without `compute`. For the backward pass only q and
    k are kept; the scores of all tokens are computed again in it, and in both passes for so many pixels at a time that
    no more than SCORES are held (docs/method.md, R4).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    columns = torch.as_tensor(columns, dtype=torch.long, device=q.device)
    return _Columns.apply(q, k, columns.expand(len(q), columns.shape[-1]), scale, compute, mask)


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, columns: Tensor, scale: float, compute: bool, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, columns)
        ctx.scale, ctx.mask = scale, mask
        if not compute:
            return q.new_empty(len(q), q.shape[1], columns.shape[1], q.shape[2], dtype=_wide(q))
        found = []
        for part in _parts(q, k):
            scores, normaliser = _scores(q[:, :, part], k, scale, mask if mask is None else mask[..., part, :])
            found.append((scores.gather(-1, _index(columns, scores)) - normaliser).exp_().mT)
        return (torch.cat(found, -1) if len(found) > 1 else found[0]).contiguous()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        (q, k, columns), mask = ctx.saved_tensors, ctx.mask
        grads_q, grad_k = [], None
        for part in _parts(q, k):
            scores, normaliser = _scores(q[:, :, part], k, ctx.scale, mask if mask is None else mask[..., part, :])
            p, index = (scores - normaliser).exp_(), _index(columns, scores)
            weighted = p.gather(-1, index) * grad[..., part].mT
            # Through the softmax: p ⊙ (g − Σ g p).
            through = p.mul_(-weighted.sum(-1, keepdim=True)).scatter_add_(-1, index, weighted)
            with torch.autocast(q.device.type, enabled=False):
                if ctx.needs_input_grad[0]:
                    grads_q.append(((through @ k.to(through.dtype)) * ctx.scale).to(q.dtype))
                if ctx.needs_input_grad[1]:
                    own = through.mT @ (q[:, :, part].to(through.dtype) * ctx.scale)
                    grad_k = own if grad_k is None else grad_k.add_(own)
        grad_q = None if not grads_q else torch.cat(grads_q, 2) if len(grads_q) > 1 else grads_q[0]
        return grad_q, None if grad_k is None else grad_k.to(k.dtype), None, None, None, None


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    """The pixels in parts whose scores are at most SCORES; a pixel at least."""
    pixels = q.shape[2]
    size = max(1, SCORES // (len(q) * q.shape[1] * k.shape[2]))
    return (slice(start, min(start + size, pixels)) for start in range(0, pixels, size))


def _wide(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def _scores(q: Tensor, k: Tensor, scale: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, heads, n, T) scores, and the logarithm of the sum of their exponentials; fp32 under autocast, too."""
    with torch.autocast(q.device.type, enabled=False):
        scores = q.to(_wide(q)) * scale @ k.to(_wide(q)).mT
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores, scores.logsumexp(-1, keepdim=True)


def _index(columns: Tensor, scores: Tensor) -> Tensor:
    return columns[:, None, None].expand(-1, *scores.shape[1:3], -1)
