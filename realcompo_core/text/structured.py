"""Structured Diffusion (Feng et al. 2023): phrases encoded by themselves, as values of the cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .tokens import CHUNK, TokenSpan, number_tokens


def structured_values(
    whole: Tensor, phrases: Sequence[Tensor], spans: Sequence[TokenSpan], chunk: int = CHUNK
) -> Tensor:
    """(T, d): the mean of the prompt's encoding `whole` and of a copy for each span, with its phrase's pasted over it.

    phrases: (T', d), what each span's text alone is encoded to. Attention is linear in its values, so the mean over the
    copies of what is attended to is what is attended to in their mean (docs/method.md, R14).
    """
    total = whole.clone()
    for phrase, span in zip(phrases, spans, strict=True):
        own = [token for (token,) in number_tokens([1] * len(span.tokens), chunk)]
        total[span.tokens] += (phrase[own] - whole[span.tokens]) / (len(spans) + 1)
    return total
