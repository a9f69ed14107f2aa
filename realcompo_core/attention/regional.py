"""Regional attention: several texts beside one picture, each of which is seen by, and sees, its own cells alone.

Training-free control of the layout for networks that attend to picture and text jointly (SD3, Flux, Qwen-Image), as in
regional prompting and EliGen (Zhang et al. 2025). The texts lie one behind the other in front of the picture: the whole
prompt, which belongs to every cell, and one phrase an object. See docs/method.md, R19.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import Layout
from ..layout.regions import region_map

INSIDE = 0.5  # share of a cell that lies in a region, relative to the region's fullest cell, from which on it counts


@dataclass(frozen=True)
class RegionalTexts:
    """The phrases of a layout behind its prompt. lengths: tokens of the prompt, then of each object's phrase."""

    layout: Layout
    lengths: tuple[int, ...]

    def __post_init__(self):
        if len(self.lengths) != 1 + len(self.layout.objects):
            raise ValueError(
                f"{len(self.lengths)} texts for {len(self.layout.objects)} objects: there must be one more, the prompt"
            )

    @property
    def length(self) -> int:
        return sum(self.lengths)

    def apart(self, grid: tuple[int, int]) -> tuple[bool, ...]:
        """Which texts belong to some of the cells only, so that they and the prompt do not attend to each other."""
        return tuple((~self.cells(grid).all(1)).tolist())

    def cells(self, grid: tuple[int, int], frames: int = 1) -> Tensor:
        """(texts, frames · height · width) bool: which cells of the picture a text belongs to, at least one a frame."""
        maps = [torch.ones(grid, dtype=torch.float64)]
        maps += [region_map(item, *grid) for item in self.layout.objects]
        return (torch.stack(maps).flatten(1) >= INSIDE).repeat(1, frames)

    def mask(self, grid: tuple[int, int], frames: int = 1) -> Tensor:
        """(L, L) bool, which of the joint sequence's tokens (all texts, then the picture) a token attends to.

        A text and a cell attend to each other where the text belongs to the cell, cells to all cells, and texts to each
        other if they belong to the same cells: phrases apart from each other and from the prompt, as EliGen was
        trained, but one phrase for the whole picture like the rest of the prompt.
        """
        return attention_mask(self.cells(grid, frames), self.lengths)


def attention_mask(cells: Tensor, lengths: Sequence[int]) -> Tensor:
    """(..., L, L) bool, as `RegionalTexts.mask`. cells: (..., texts, cells) bool, which cells a text belongs to."""
    of_token = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(cells.device)
    together = (cells.unsqueeze(-2) == cells.unsqueeze(-3)).all(-1)
    text_to_text = together[..., of_token[:, None], of_token]
    text_to_cells = cells[..., of_token, :]
    cells_to_cells = cells.new_ones(*cells.shape[:-2], cells.shape[-1], cells.shape[-1])
    of_texts, of_cells = [text_to_text, text_to_cells], [text_to_cells.mT, cells_to_cells]
    return torch.cat([torch.cat(of_texts, -1), torch.cat(of_cells, -1)], -2)


def padded(mask: Tensor, length: int) -> Tensor:
    """`mask` for a longer sequence, whose further tokens (of reference pictures) attend to all and are seen by all."""
    if length == len(mask):
        return mask
    whole = torch.ones(length, length, dtype=torch.bool, device=mask.device)
    whole[: len(mask), : len(mask)] = mask
    return whole


def bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: 0 where a token may be attended to, else so little that its share is 0.

    Finite, so that kernels that go through the keys in parts never meet a part without any.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min / 2)
