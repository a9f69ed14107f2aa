"""Latents with a time axis (Qwen-Image, video) as pictures: their frames one below the other.

Everything that the balancer does is done for each pixel, so that it needs to know nothing of time.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """How many frames a latent has; None for one without a time axis, (B, C, h, w), which stays as it is."""

    count: int | None = None

    @classmethod
    def of(cls, latent: Tensor) -> Frames:
        return cls(latent.shape[2] if latent.ndim == 5 else None)

    def folded(self, latent: Tensor) -> Tensor:
        """(B, C, T, h, w) to (B, C, T · h, w)."""
        return latent if self.count is None else latent.flatten(2, 3)

    def unfolded(self, latent: Tensor) -> Tensor:
        """(B, C, T · h, w) to (B, C, T, h, w)."""
        return latent if self.count is None else latent.unflatten(2, (self.count, -1))

    def repeated(self, maps: Tensor) -> Tensor:
        """(…, h, w) maps of a picture to (…, T · h, w), the same for every frame."""
        return maps if self.count is None else maps.repeat(*[1] * (maps.ndim - 2), self.count, 1)

    def of_one(self, size: tuple[int, int]) -> tuple[int, int]:
        """The height and width of a frame, from those of all frames."""
        return size if self.count is None else (size[0] // self.count, size[1])
