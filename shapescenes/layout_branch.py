"""What the layout branch adds to the text-to-image UNet: GLIGEN's place for grounding, in plain torch.

Parameters are named as in diffusers' gated layers, so that the weights fit wherever these stand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapescenes.sizes import HEADS, LATENT_SIDE, TEXT_WIDTH

FOURIER_FREQUENCIES = 8


class GroundingNet(nn.Module):
    """Objects to grounding tokens, in the place of GLIGEN's position net; the boxes travel along."""

    in_dim = TEXT_WIDTH  # where GLIGEN's users look for the width of its phrases

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(TEXT_WIDTH, TEXT_WIDTH)

    def forward(self, boxes: Tensor, masks: Tensor, positive_embeddings: Tensor) -> Tensor:
        """boxes: (B, N, 4); masks: (B, N), 1 for objects; embeddings: (B, N, 128). Returns (B, N, 128 + 4 + 1)."""
        return torch.cat([self.project(positive_embeddings), boxes, masks[..., None]], dim=-1)


class RasterGatedAttention(nn.Module):
    """GLIGEN's gated layer, its grounding tokens written into the visual tokens of their boxes instead of appended.

    In a network this small the visual tokens carry too little of their own position to find the right box by attention;
    GLIGEN's own form, with Fourier features of the cells added, did not learn to place in 900 steps.
    """

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(TEXT_WIDTH, width)
        self.attn = SelfAttention(width)
        self.ff = FeedForward(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.alpha_attn, self.alpha_dense = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.3))
        self.place = nn.Linear(FOURIER_FREQUENCIES * 2 * 4, width)
        self.latent_size = LATENT_SIDE, LATENT_SIDE

    def forward(self, x: Tensor, objs: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """x: (B, h * w, width) visual tokens; objs: (B, N, 133) of GroundingNet; size: (h, w).

        Without a size it is what is left of the `latent_size` once the network has shrunk it.
        """
        if size is None:
            height, width = self.latent_size
            shrunk = (height * width / x.shape[1]) ** 0.5
            size = round(height / shrunk), round(width / shrunk)
        raster = self._raster(objs, *size)
        x = x + self.alpha_attn.tanh() * self.attn(self.norm1(x + raster))
        return x + self.alpha_dense.tanh() * self.ff(self.norm2(x + raster))

    def _raster(self, objs: Tensor, h: int, w: int) -> Tensor:
        """(B, h * w, width): each cell gets the tokens of the boxes it lies in, with its place within each."""
        used = int(objs[..., -1].sum(1).max())  # objects come first, padding after them
        tokens, boxes, masks = objs[:, :used].split([TEXT_WIDTH, 4, 1], dim=-1)
        cell = 1 / objs.new_tensor([w, h])
        xs, ys = ((torch.arange(n, device=objs.device, dtype=objs.dtype) + 0.5) / n for n in (w, h))
        ys, xs = torch.meshgrid(ys, xs, indexing="ij")
        cells = torch.stack([xs, ys], -1).reshape(1, 1, h * w, 2)
        corner, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)[..., None, :]
        within = (cells - corner) / size  # 0..1 inside the box
        reach = 0.5 * cell / size  # a box smaller than a cell still reaches one
        inside = ((within > -reach) & (within < 1 + reach)).all(-1, keepdim=True) * masks[..., None]
        place = fourier_features(torch.cat([within.clamp(-1, 2), size.expand_as(within)], -1))
        return (inside * F.silu(self.linear(tokens)[..., None, :] + self.place(place))).sum(1)


def tell_latent_size(unet: nn.Module, args: tuple, kwargs: dict) -> None:
    """A pre-hook of diffusers' UNet, which does not tell its gated layers the size of the latent."""
    latent = args[0] if args else kwargs["sample"]
    for module in unet.modules():
        if isinstance(module, RasterGatedAttention):
            module.latent_size = tuple(latent.shape[-2:])


class SelfAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, n, width). Returns the same shape."""
        q, k, v = (to(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """GEGLU, Shazeer 2020."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([nn.Module(), nn.Identity(), nn.Linear(4 * width, width)])
        self.net[0].proj = nn.Linear(width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, n, width). Returns the same shape."""
        x, gate = self.net[0].proj(x).chunk(2, dim=-1)
        return self.net[2](x * F.gelu(gate))


def fourier_features(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 64): sine and cosine at falling wavelengths, ordered as in GLIGEN."""
    frequencies = (100 ** (torch.arange(FOURIER_FREQUENCIES) / FOURIER_FREQUENCIES)).to(boxes)
    angles = frequencies * boxes[..., None]
    return torch.stack([angles.sin(), angles.cos()], dim=-1).movedim(-3, -1).flatten(-3)
