"""The cross-attention layers of ComfyUI's UNets, as a source of attention events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from torch import Tensor, nn

from realcompo_core.attention.projections import ProjectionSource
from realcompo_core.attention.source import AttentionEvent, Layer, NetworkPass, Subscriber
from realcompo_core.errors import RealCompoError

from .chunks import conditioning_rows

USUAL_DOWNSAMPLING = 4
PARTS = {"encoder": "input", "middle": "middle", "decoder": "output"}  # as the host calls them


class UNetAttention(ProjectionSource):
    """A UNetModel's layers. `patched` lets them emit while the host samples, `emitting` in a plain forward pass."""

    def __init__(self, unet: UNetModel):
        super().__init__({layer: unet.get_submodule(layer.name) for layer in _walk(unet)})

    def choose(self, downsampling: int = 0) -> list[Layer]:
        """Layers for balancing: the encoder's and decoder's whose maps are so many times smaller than the latent.

        0 takes 4 where the network has it, else its coarsest. In the order in which they run. Raises RealCompoError for
        a size that the network does not have.
        """
        found: dict[int, list[Layer]] = {}
        for layer in self.layers:
            if layer.part != "middle":
                found.setdefault(layer.downsampling, []).append(layer)
        if downsampling == 0 and found:
            downsampling = USUAL_DOWNSAMPLING if USUAL_DOWNSAMPLING in found else max(found)
        if downsampling not in found:
            raise RealCompoError(
                f"attention layers at 1/{downsampling} of the latent's side: this UNet has cross-attention at "
                f"{', '.join(f'1/{size}' for size in sorted(found)) or 'no size'}"
            )
        return found[downsampling]

    def read_blocks(self, layers: Iterable[Layer]) -> list[nn.Module]:
        """Modules that must not be checkpointed while these layers are read: none, as cross-attention never is."""
        return []

    def patched(
        self,
        transformer_options: dict[str, Any],
        read: Subscriber,
        running: NetworkPass,
        names: Callable[[dict], list[str | None]],
        layers: Iterable[Layer],
    ) -> dict[str, Any]:
        """The options of a pass in which `layers` emit to `read`. Patches of others on these layers stay in force.

        names: which conditioning each of the equal parts of a batch is, from the options of the pass.
        """
        replacements = {**transformer_options.get("patches_replace", {})}
        attention = {**replacements.get("attn2", {})}
        for layer in layers:
            block = patch_key(layer)
            other = attention.get(block, attention.get(block[:2]))
            attention[block] = partial(_attend, layer, read, running, names, other)
        return {**transformer_options, "patches_replace": {**replacements, "attn2": attention}}


def patch_key(layer: Layer) -> tuple[str, int, int]:
    """How the host numbers the layer for patches."""
    return PARTS[layer.part], layer.number, layer.depth


def _attend(
    layer: Layer,
    read: Subscriber,
    running: NetworkPass,
    names: Callable[[dict], list[str | None]],
    other: Callable | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: dict,
    **given: Any,
) -> Tensor:
    """The patch of one layer. q, k, v: (parts · B, n, heads · d). Emits, then attends as without it."""
    heads = options["n_heads"]
    wide_q, wide_k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    scale, grid = wide_q.shape[-1] ** -0.5, layer.grid(running.latent_size, wide_q.shape[2])
    for name, rows in conditioning_rows(names(options), len(q)):
        text = slice(0, wide_k.shape[2])
        read(AttentionEvent(layer, name, wide_q[rows], wide_k[rows], scale, text, grid, running.stage))
    if other is not None:
        return other(q, k, v, options, **given)
    return optimized_attention(
        q, k, v, heads, attn_precision=options["attn_precision"], transformer_options=options, **given
    )


def _walk(unet: UNetModel) -> list[Layer]:
    """The UNet's cross-attention layers, in the order in which they run."""
    found: list[Layer] = []
    downsampling = 1
    middle = unet.middle_block or nn.Module()  # some have none
    for part, blocks in (("encoder", unet.input_blocks), ("middle", [middle]), ("decoder", unet.output_blocks)):
        for number, block in enumerate(blocks):
            own = PARTS[part]
            path = f"{own}_block" if part == "middle" else f"{own}_blocks.{number}"
            for name, module in block.named_modules(prefix=path):
                if isinstance(module, Downsample) or (
                    isinstance(module, ResBlock) and module.updown and part == "encoder"
                ):
                    downsampling *= 2
                elif isinstance(module, Upsample):
                    downsampling //= 2
                elif isinstance(module, SpatialTransformer):
                    for depth, transformer in enumerate(module.transformer_blocks):
                        layer = f"{name}.transformer_blocks.{depth}.attn2"
                        label = f"{own} {number}"
                        found.append(Layer(layer, label, part, number, depth, downsampling, transformer.n_heads))
    return found
