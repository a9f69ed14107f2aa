"""The ShapeScenes family as ordinary diffusers and transformers models, and how the shipped weights are loaded.

The text-to-image branch is a `StableDiffusionPipeline`, the layout branch the same UNet with GLIGEN's gated blocks, so
that both take the very path that SD1.5 takes.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention import GatedSelfAttentionDense
from diffusers.models.embeddings import get_fourier_embeds_from_boundingbox
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from realcompo_core.errors import RealCompoError
from shapescenes.world import vocabulary

WEIGHTS = Path(__file__).parent / "weights"
LATENT_SIDE = 16  # 128 pixels / 8
LATENT_CHANNELS = 8
LATENT_SCALE = 2.0  # brings the latents of rendered scenes to about unit variance
TEXT_TOKENS = 32
TEXT_WIDTH = 128
WIDTHS = (64, 96)
HEADS = 4
FOURIER_FREQUENCIES = 8


class WeightsError(RealCompoError):
    """A shipped weights file that is missing or damaged."""


@cache
def tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer with one token a word of the world; any other word falls apart into bytes.

    Words are merged from their end: such merges cannot occur in the middle of another word and spoil it.
    """
    letters = sorted(ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in vocabulary():
        suffix = word[-1] + "</w>"
        for letter in reversed(word[:-1]):
            merges[letter, suffix] = None
            suffix = letter + suffix
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=TEXT_TOKENS)


def text_encoder() -> CLIPTextModel:
    tokens = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModel(config)


def vae() -> AutoencoderTiny:
    """8x autoencoder. Rendered and flat scenes together have latents of about zero mean and unit variance."""
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        scaling_factor=LATENT_SCALE,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(48,) * 4,
        num_encoder_blocks=(1, 2, 3, 3),
        num_decoder_blocks=(3, 3, 3, 1),
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def unet(gated: bool = False) -> UNet2DConditionModel:
    """The text-to-image UNet; with `gated`, the same with a gated layer in every transformer block."""
    model = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        norm_num_groups=16,
        attention_type="gated" if gated else "default",
    )
    if gated:
        model.position_net = GroundingNet()
        for module in model.modules():
            if hasattr(module, "fuser"):
                module.fuser = RasterGatedAttention(module.norm1.normalized_shape[0])
    return model


class GroundingNet(nn.Module):
    """Objects to grounding tokens, in the place of GLIGEN's position net; the boxes travel along."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(TEXT_WIDTH, TEXT_WIDTH)

    def forward(self, boxes: Tensor, masks: Tensor, positive_embeddings: Tensor) -> Tensor:
        """boxes: (B, N, 4); masks: (B, N), 1 for objects; embeddings: (B, N, 128). Returns (B, N, 128 + 4 + 1)."""
        return torch.cat([self.project(positive_embeddings), boxes, masks[..., None]], dim=-1)


class RasterGatedAttention(GatedSelfAttentionDense):
    """GLIGEN's gated layer, its grounding tokens written into the visual tokens of their boxes instead of appended.

    In a network this small the visual tokens carry too little of their own position to find the right box by attention;
    GLIGEN's own form, with Fourier features of the cells added, did not learn to place in 900 steps.
    """

    def __init__(self, width: int):
        super().__init__(width, TEXT_WIDTH, HEADS, width // HEADS)
        self.place = nn.Linear(FOURIER_FREQUENCIES * 2 * 4, width)
        self.alpha_attn.data.fill_(0.3)
        self.alpha_dense.data.fill_(0.3)

    def forward(self, x: Tensor, objs: Tensor) -> Tensor:
        """x: (B, n, width) visual tokens of a square map; objs: (B, N, 133) of GroundingNet."""
        raster = self._raster(objs, x.shape[1])
        x = x + self.alpha_attn.tanh() * self.attn(self.norm1(x + raster))
        return x + self.alpha_dense.tanh() * self.ff(self.norm2(x + raster))

    def _raster(self, objs: Tensor, n: int) -> Tensor:
        """(B, n, width): each cell gets the tokens of the boxes it lies in, with its place within each."""
        used = int(objs[..., -1].sum(1).max())  # objects come first, padding after them
        tokens, boxes, masks = objs[:, :used].split([TEXT_WIDTH, 4, 1], dim=-1)
        side = round(n**0.5)
        centre = (torch.arange(side, device=objs.device, dtype=objs.dtype) + 0.5) / side
        ys, xs = torch.meshgrid(centre, centre, indexing="ij")
        cells = torch.stack([xs, ys], -1).reshape(1, 1, n, 2)
        corner, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)[..., None, :]
        within = (cells - corner) / size  # 0..1 inside the box
        reach = 0.5 / side / size  # a box smaller than a cell still reaches one
        inside = ((within > -reach) & (within < 1 + reach)).all(-1, keepdim=True) * masks[..., None]
        place = get_fourier_embeds_from_boundingbox(
            FOURIER_FREQUENCIES, torch.cat([within.clamp(-1, 2), size.expand_as(within)], -1).flatten(0, 1)
        ).unflatten(0, boxes.shape[:2])
        return (inside * F.silu(self.linear(tokens)[..., None, :] + self.place(place.to(objs)))).sum(1)


class Judge(nn.Module):
    """A detector on a 16x16 grid: is there a shape's centre in this cell, which shape and colour, where exactly.

    Returns (B, 1 + 6 + 6 + 2, 16, 16): presence, shape and colour logits, centre offset in 0..1 of a cell.
    """

    def __init__(self):
        super().__init__()

        def block(c_in, c_out, stride):
            return nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
            )

        self.early = nn.Sequential(block(3, 32, 2), block(32, 48, 1), block(48, 64, 2), block(64, 64, 1))
        self.late = nn.Sequential(block(64, 96, 2), block(96, 96, 1), block(96, 128, 1), block(128, 128, 1))
        self.head = nn.Conv2d(128, 1 + 6 + 6 + 2, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """picture: (B, 3, 128, 128) in -1..1."""
        return self.head(self.late(self.early(picture)))

    def features(self, picture: Tensor) -> Tensor:
        """(B, 128): mean and spread of the texture-level features, for the Fréchet distance."""
        maps = self.early(picture).flatten(2)
        return torch.cat([maps.mean(-1), maps.std(-1)], 1)


def pipelines() -> tuple[StableDiffusionPipeline, StableDiffusionPipeline]:
    """The shipped text-to-image and layout branch; they share autoencoder and text encoder."""
    shared = {"vae": vae(), "text_encoder": text_encoder()}
    for name, module in shared.items():
        module.load_state_dict(load(name))
    unets = unet(), unet(gated=True)
    for module in unets:
        module.load_state_dict(load("unet"), strict=False)
    unets[1].load_state_dict(load("layout_branch"), strict=False)
    for module in (*shared.values(), *unets):
        module.eval().requires_grad_(False)
    fidelity, spatial = (
        StableDiffusionPipeline(
            **shared,
            tokenizer=tokenizer(),
            unet=module,
            scheduler=scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        for module in unets
    )
    return fidelity, spatial


def save(name: str, state: dict[str, Tensor]) -> None:
    """Write `weights/<name>.safetensors` in fp16 and its SHA-256 into `weights/checksums.json`."""
    WEIGHTS.mkdir(exist_ok=True)
    path = WEIGHTS / f"{name}.safetensors"
    path.touch(mode=0o644)
    save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, path)
    index = WEIGHTS / "checksums.json"
    checksums = json.loads(index.read_text()) if index.exists() else {}
    checksums[path.name] = _sha256(path)
    index.write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")


def load(name: str) -> dict[str, Tensor]:
    """The shipped weights `name` in fp32. Raises WeightsError where the file is missing or not the one shipped."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise WeightsError(f"{path} is missing: reinstall the package, or train it with `python -m shapescenes.train`")
    if _sha256(path) != json.loads((WEIGHTS / "checksums.json").read_text())[path.name]:
        raise WeightsError(f"{path} is damaged (its SHA-256 is not the one in checksums.json): reinstall the package")
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
