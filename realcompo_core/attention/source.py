"""Where queries and keys come from.

A network's cross-attention layers emit an `AttentionEvent` each time they run. Whoever wants maps subscribes to them:
the balancer reads with gradient (`reading.py`), the viewer records (`recorder.py`), TokenCompose supervises. There is
one source for each network family and backend; each walks its network once and names the layers it found:

- `realcompo_core/diffusers/unet_attention.py`: UNets of diffusers,
- `nodes/host/unet_attention.py`: UNets of ComfyUI,
- `nodes/host/transformer_attention.py`: SD3, Flux, Qwen-Image and Wan of ComfyUI.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Part = Literal["encoder", "middle", "decoder", "joint"]
Stage = Literal["step", "lookahead"]
"""Whether a network pass is the step's own, or only reads maps (at a tentative next latent, for instance)."""


class Layer(NamedTuple):
    """An attention layer between the picture and the text.

    name: unique in its network. block: what its block is called where people see it, such as "up 1.2" or "output 4".
    number: of the block in its part, in the order of running. depth: of the layer in its block. downsampling: how many
    times smaller than the latent its maps are, per side. heads: number of attention heads.
    """

    name: str
    block: str
    part: Part
    number: int
    depth: int
    downsampling: int
    heads: int

    def grid(self, latent_size: tuple[int, int], queries: int | None = None) -> tuple[int, int]:
        """Height and width of the layer's maps for a latent of this height and width.

        queries: how many the layer has. Where something makes the network's own maps smaller or larger than usual, it
        is the grid of so many that comes nearest to the latent's shape.
        """
        height, width = (-(-side // self.downsampling) for side in latent_size)
        if queries is None or queries == height * width:
            return height, width
        grids = [(rows, queries // rows) for rows in range(1, queries + 1) if queries % rows == 0]
        return min(grids, key=lambda grid: abs(math.log(grid[0] * width / (grid[1] * height))))


class AttentionEvent(NamedTuple):
    """What one layer computed in one pass, for one conditioning.

    q: (B, heads, n, d), the picture's queries. k: (B, heads, T, d), all keys. text: which of the keys are the text's.
    scale: what q·k is multiplied by before the softmax. grid: height and width of the n queries. mask: (n, T) or
    (B, 1, n, T) bool, which keys each query may attend to; None for all. starts: the text's first tokens that stand for
    no word, where the text is one sequence; None for CLIP's sequences, one behind the other.
    """

    layer: Layer
    conditioning: str
    q: Tensor
    k: Tensor
    scale: float
    text: slice
    grid: tuple[int, int]
    stage: Stage
    mask: Tensor | None = None
    starts: int | None = None


Subscriber = Callable[[AttentionEvent], None]


@dataclass
class NetworkPass:
    """What a source cannot see in its layers about the pass that runs.

    conditionings: of equal parts of the batch, in their order; None for a part that nobody asked for. latent_size:
    height and width, of a frame. text_length: tokens of the text, by which joint attention tells the text from the
    picture. frames: of a video's latent; maps have them one below the other.
    """

    latent_size: tuple[int, int]
    conditionings: tuple[str | None, ...] = ("positive",)
    stage: Stage = "step"
    text_length: int = 0
    frames: int = 1


class AttentionSource(Protocol):
    """One network's layers. How a subscriber is attached differs by backend: hooks in diffusers, patches in a host."""

    layers: tuple[Layer, ...]
    """In the order in which they run."""
