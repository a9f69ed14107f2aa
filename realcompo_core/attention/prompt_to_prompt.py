"""Prompt-to-Prompt (Hertz et al. 2023): a picture's attention kept while its prompt is edited (docs/method.md, R17).

Two pictures are drawn side by side: that of the source prompt, and that of the edited one, which takes attention from
it. Rows of a batch are pairs, source and edited in turn. q, k and v are (rows, tokens or pixels, channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RealCompoError
from ..text.prompt_edit import Words, token_mapping
from .columns import attention_columns
from .source import AttentionEvent, Layer

FINEST_SELF = 2  # the least downsampling of maps whose self-attention is kept (theirs: 32² of a latent of 64²)
BLEND_DOWNSAMPLING = 4  # of the layers whose maps say where to blend, where the network has such


@dataclass(frozen=True)
class PromptToPrompt:
    """Settings of an edit.

    cross: share of the steps, from the start, in which words have the source's cross-attention. self_attention: share
    in which self-attention is the source's: the higher, the more of the picture's shapes stay. weights: factors of the
    attention to phrases of the edited prompt, in the same steps as `cross`. blend: a phrase of the source prompt and
    one of the edited, outside of whose attention the source's picture is kept; None where it may change everywhere.
    threshold: of the blend's attention, by its largest. blend_from: share of the steps before which nothing is kept.
    """

    cross: float = 0.8
    self_attention: float = 0.4
    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    blend: tuple[str, str] | None = None
    threshold: float = 0.3
    blend_from: float = 0.2

    def __post_init__(self):
        for name in ("cross", "self_attention", "threshold", "blend_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise RealCompoError(f"{name} is {getattr(self, name)}: it is a share, from 0 to 1")
        if self.blend is not None and (isinstance(self.blend, str) or len(self.blend) != 2):
            raise RealCompoError(f"blend is {self.blend!r}: give two phrases, the source prompt's and the edited one's")
        for phrase, weight in self.weights.items():
            if not abs(weight) < float("inf"):
                raise RealCompoError(f"the weight of {phrase!r} is {weight}: it is a number")


class Edit:
    """One edit: the settings with both prompts. source, edited: their words; lengths: of both token sequences."""

    def __init__(self, settings: PromptToPrompt, source: Words, edited: Words, lengths: tuple[int, int]):
        self.settings = settings
        self._mapping = token_mapping(source, edited, lengths, settings.weights)
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The mapping's source, factors and own, brought to a device once."""
        if (device, dtype) not in self._copies:
            mapping = self._mapping
            parts = mapping.source, mapping.factors, mapping.own
            self._copies[device, dtype] = tuple(part.to(device, dtype) for part in parts)
        return self._copies[device, dtype]

    def keeps_cross(self, progress: float) -> bool:
        return progress < self.settings.cross

    def keeps_self(self, progress: float, downsampling: int) -> bool:
        return progress < self.settings.self_attention and downsampling >= FINEST_SELF

    def cross_values(self, v: Tensor) -> tuple[Tensor, ...]:
        """What edited rows of cross-attention attend to: with the source's queries and keys, and with their own.

        v: (rows, n, d) of edited rows, n a multiple of both prompts' lengths, as a host repeats texts. Attention is
        linear in its values: taking column s of the source's attention for column t is attending to value t in the
        place of s. So what comes of the edited attention is the sum of two ordinary ones. Returns two tensors in the
        shape of v.
        """
        length, of_source = self._mapping.source.shape
        if v.shape[1] % length or v.shape[1] % of_source:
            raise RealCompoError(
                f"the prompts have {of_source} and {length} tokens, and the model reads {v.shape[1]}: wire the "
                "conditioning that was made for this edit"
            )
        source, factors, own = self._on(v.device, v.dtype)
        weighted = v[:, :length] * factors[:, None]
        taken, own = source.mT @ weighted, weighted * own[:, None]
        return tuple(values.repeat(1, v.shape[1] // values.shape[1], 1) for values in (taken, own))


def source_of_pairs(rows: Tensor) -> Tensor:
    """The source's rows in the place of the edited ones': queries or keys of a self-attention that is kept."""
    return rows[::2].repeat_interleave(2, 0)


class Blend:
    """Where an edited picture may differ: as its settings' phrases are attended to, or in given regions.

    columns: the tokens of the source's phrase and of the edited one's. regions: (1 or pairs, h, w) in 0..1, instead.
    """

    def __init__(
        self,
        settings: PromptToPrompt,
        columns: tuple[Sequence[int], Sequence[int]] | None = None,
        regions: Tensor | None = None,
    ):
        self._settings, self._columns, self._regions = settings, columns, regions
        self._total: dict[tuple[int, int], Tensor] = {}

    def read_layers(self, layers: Sequence[Layer]) -> list[Layer]:
        """Those of a network's layers that are to be read; none where regions are given."""
        if self._columns is None:
            return []
        return [layer for layer in layers if layer.downsampling == BLEND_DOWNSAMPLING] or list(layers)

    def read(self, event: AttentionEvent) -> None:
        """Adds up one layer's attention to the phrases. Its rows are pairs."""
        for row, columns in enumerate(self._columns):
            maps = attention_columns(event.q[row::2], event.k[row::2, :, event.text], list(columns), event.scale)
            own = maps.mean((1, 2)).unflatten(-1, event.grid)
            self._total[row, event.grid] = self._total.get((row, event.grid), 0) + own

    def mask(self, size: tuple[int, int], progress: float) -> Tensor | None:
        """(pairs, 1, *size): 1 where the edited picture may differ, 0 where it is the source's; None for everywhere."""
        if self._regions is not None:
            return F.interpolate(self._regions[:, None].float(), size, mode="bilinear")
        if not self._total or progress < self._settings.blend_from:
            return None
        masks = []
        for row in (0, 1):
            maps = [total for (own, _), total in self._total.items() if own == row]
            found = sum(F.interpolate(F.max_pool2d(m[:, None], 3, 1, 1), size, mode="bilinear") for m in maps)
            masks.append(found >= self._settings.threshold * found.amax((-2, -1), keepdim=True))
        return (masks[0] | masks[1]).float()

    def blended(self, D: Tensor, progress: float) -> Tensor:
        """Pairs of estimates (rows, C, h, w), the edited ones kept at the source's where they may not differ."""
        mask = self.mask(tuple(D.shape[-2:]), progress)
        if mask is None:
            return D
        source, edited = D[::2], D[1::2]
        return torch.stack([source, source + mask.to(D) * (edited - source)], 1).flatten(0, 1)
