"""Targets of a loss on maps: token columns, the objects that they stand for, and each object's region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

Regions = Callable[[int, int], Tensor]
"""(height, width) of a map -> (B or 1, G, height, width) region maps in 0..1; 0 beyond an item's own objects."""


@dataclass(frozen=True)
class Targets:
    """B items (or one for all items of a batch), at most G objects and C token columns each.

    columns: (B, C) token indices. members: (B, G, C), 1 where a column is one of the object's tokens. Where an item has
    fewer objects or columns, the rest is 0. regions: where each object's attention should fall.
    """

    columns: Tensor
    members: Tensor
    regions: Regions

    @property
    def present(self) -> Tensor:
        """(B, G): whether the item has this object."""
        return self.members.any(-1)

    def among(self, columns: Sequence[int]) -> Targets:
        """The same objects among these columns, which have all of theirs. Does not wait for the device."""
        every = torch.tensor(columns, device=self.columns.device).expand(len(self.columns), -1)
        is_own = (self.columns[:, :, None] == every[:, None]).to(self.members)
        return replace(self, columns=every, members=(self.members @ is_own).clamp_max(1))

    def shifted(self, tokens: int) -> Targets:
        """The same, where the prompt begins so many tokens later."""
        return replace(self, columns=self.columns + tokens) if tokens else self

    def to(self, device: torch.device | str) -> Targets:
        regions = self.regions.to(device) if hasattr(self.regions, "to") else self.regions
        return Targets(self.columns.to(device), self.members.to(device), regions)


def object_targets(
    groups: Sequence[Sequence[Sequence[int]]], regions: Sequence[Callable[[int, int], Tensor]]
) -> Targets:
    """The targets of B layouts.

    groups: for each item, the token indices of each of its token groups (`text.tokens.token_groups`). regions: for each
    item, (height, width) -> (its number of groups, height, width). All items share their columns.
    """
    columns = sorted({token for item in groups for group in item for token in group})
    members = torch.zeros(len(groups), max(len(item) for item in groups), len(columns))
    for b, item in enumerate(groups):
        for g, group in enumerate(item):
            members[b, g, [columns.index(token) for token in group]] = 1
    return Targets(torch.tensor([columns] * len(groups)), members, _Rasterised(regions))


class _Rasterised:
    """Regions that are drawn once for each size of map, and kept on the device where they are needed."""

    def __init__(self, regions: Sequence[Callable[[int, int], Tensor]], device: torch.device | str = "cpu"):
        self._regions = regions
        self._drawn = cache(
            lambda height, width: _stacked([r(height, width) for r in regions]).to(device, non_blocking=True)
        )

    def __call__(self, height: int, width: int) -> Tensor:
        return self._drawn(height, width)

    def to(self, device: torch.device | str) -> _Rasterised:
        return _Rasterised(self._regions, device)


def _stacked(items: Sequence[Tensor]) -> Tensor:
    """(B, G, H, W) from (G_b, H, W) each, filled up with zeros."""
    stacked = items[0].new_zeros(len(items), max(len(item) for item in items), *items[0].shape[1:])
    for b, item in enumerate(items):
        stacked[b, : len(item)] = item
    return stacked
