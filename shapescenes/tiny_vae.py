"""The autoencoder in plain torch: what diffusers' AutoencoderTiny computes, with its names for the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shapescenes.sizes import DECODER_BLOCKS, DECODER_WIDTH, ENCODER_BLOCKS, ENCODER_WIDTH, LATENT_CHANNELS


class TinyVAE(nn.Module):
    """8x autoencoder; latents as they come from the encoder, without the scale that the denoiser wants."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.layers, self.decoder.layers = _encoder(), _decoder()

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 -> (B, 8, H / 8, W / 8)."""
        return self.encoder.layers(pictures.add(1).div(2))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 8, h, w) -> (B, 3, 8 h, 8 w), about -1..1."""
        return self.decoder.layers(torch.tanh(latents / 3) * 3).mul(2).sub(1)


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        first, second, third = (_conv(width, width) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


def _conv(c_in: int, c_out: int, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, **kwargs)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, blocks in enumerate(ENCODER_BLOCKS):
        halve = _conv(ENCODER_WIDTH, ENCODER_WIDTH, stride=2, bias=False)
        layers += [halve if i else _conv(3, ENCODER_WIDTH), *(Block(ENCODER_WIDTH) for _ in range(blocks))]
    return nn.Sequential(*layers, _conv(ENCODER_WIDTH, LATENT_CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(LATENT_CHANNELS, DECODER_WIDTH), nn.ReLU()]
    for blocks in DECODER_BLOCKS[:-1]:
        layers += [Block(DECODER_WIDTH) for _ in range(blocks)]
        layers += [nn.Upsample(scale_factor=2), _conv(DECODER_WIDTH, DECODER_WIDTH, bias=False)]
    layers += [Block(DECODER_WIDTH) for _ in range(DECODER_BLOCKS[-1])]
    return nn.Sequential(*layers, _conv(DECODER_WIDTH, 3))
