"""Recording attention maps while a network samples, for the viewer: a subscriber of an attention source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RealCompoError
from .columns import attention_columns
from .maps import BranchMaps, Keep, MapLayer, PromptWords, WordColumns, kept_columns, map_bytes
from .source import AttentionEvent, Layer

SCORES_AT_ONCE = 2**24  # 64 MB of fp32


class Recorder:
    """Collects one branch's maps. `begin` comes once a run, then for each network pass its events and `end_pass`.

    prompts: of the conditionings that are wanted; None for one whose words are not known, and whose tokens are then
    numbered.
    """

    def __init__(self, name: str, keep: Keep, prompts: Mapping[str, PromptWords | None]):
        self.branch = BranchMaps(name)
        self.keep = keep
        self._prompts = dict(prompts)
        self._columns: dict[str, list[int]] = {}
        self._sums: dict[tuple[str, str], tuple[Tensor, int]] = {}
        self._interval = keep.every
        self._counts: dict[str, int] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def expect(self, prompts: Mapping[str, PromptWords | None]) -> None:
        """Other prompts than those that were given at first, for what `begin` begins."""
        self._prompts = dict(prompts)

    def kept(self, layers: Sequence[Layer]) -> list[Layer]:
        """The layers, among a source's `layers`, that are recorded."""
        return [layer for layer in layers if self.keep.layers != "decoder" or layer.part != "encoder"]

    def label(self, layer: Layer) -> str:
        """The name of the map that the layer counts for: its block's, or with `keep.layers` "layers" its own."""
        alone = self.keep.layers == "layers" and layer.part != "joint"  # joint blocks have one such layer each
        return f"{layer.block}.{layer.depth}" if alone else layer.block

    def begin(self, layers: Sequence[Layer], latent_size: tuple[int, int], length: int, batch: int, steps: int) -> int:
        """A new run of `steps` steps: what was recorded is dropped. Returns the bytes that its maps will take.

        layers: those kept, which run in every pass. length: of a conditioning whose words are not known. `steps` 0 is a
        number that is not known. Raises RealCompoError if not even one step is within the limit.
        """
        self.branch.words, self.branch.noise_levels, self.branch.maps = {}, {}, {}
        found = {self.label(layer): (layer.grid(latent_size), layer.heads) for layer in layers}
        self.branch.layers = [MapLayer(name, size) for name, (size, _) in found.items()]
        self._sizes = {name: size for name, (size, _) in found.items()}
        names = [self.label(layer) for layer in layers]
        self._counts = {name: names.count(name) for name in found}
        self._columns, self._sums = {}, {}
        tokens = [self._layout(prompt, length)[2] for prompt in self._prompts.values()]
        per_head = self.keep.heads == "apart"
        each = sum(map_bytes([size], sum(tokens), batch, heads if per_head else 1) for size, heads in found.values())
        self._interval = self.keep.interval(each, steps)
        return each * -(-steps // self._interval)

    def wants(self, step: int) -> bool:
        return step % self._interval == 0

    @torch.no_grad()
    def read(self, event: AttentionEvent) -> None:
        """One layer's attention to the text.

        A host repeats a shorter text up to the length of a longer one; the repeats are added up. Other tokens behind
        the prompt's are none of its words. Raises RealCompoError for fewer tokens than the prompt has.
        """
        conditioning, label = event.conditioning, self.label(event.layer)
        if conditioning not in self._prompts:
            return
        q, k = event.q.detach(), event.k.detach()[:, :, event.text]
        prompt = self._prompts[conditioning]
        if prompt is not None and k.shape[2] < prompt.length:
            raise RealCompoError(
                f"the {conditioning} prompt of the recording has {prompt.length} tokens, and the model reads "
                f"{k.shape[2]}: give the recording the very prompt and CLIP that made the conditioning, or no prompt"
            )
        if conditioning not in self._columns:
            columns, words, _ = self._layout(prompt, k.shape[2])
            self._columns[conditioning] = columns
            known = {**self.branch.words, conditioning: words}
            self.branch.words = {name: known[name] for name in self._prompts if name in known}
        length = prompt.length if prompt is not None and _repeats(k, prompt.length) else k.shape[2]
        shares = token_shares(
            *(q, k, self._columns[conditioning], event.scale, length),
            *(self.keep.heads == "apart", self._has_rest(prompt)),
            event.mask if event.mask is None else event.mask[..., event.text],
        )
        shares = _on_grid(shares, event.grid, self._sizes[label])
        total, count = self._sums.get((conditioning, label), (0, 0))
        self._sums[conditioning, label] = total + shares, count + 1

    def end_pass(self, step: int, level: float) -> None:
        """The maps read since the last call become those of `step`, and replace any that it had.

        A conditioning of which a layer is missing is left out: such passes skip layers on purpose, for guidance, and
        are not the step's own.
        """
        for conditioning in {key[0] for key in self._sums}:
            found = {label: value for (own, label), value in self._sums.items() if own == conditioning}
            if any(found.get(label, (None, 0))[1] < count for label, count in self._counts.items()):
                continue
            for label, (total, count) in found.items():
                maps = (total / count).unflatten(-1, self._sizes[label])
                self.branch.maps[conditioning, label, step] = maps.to(torch.float16).cpu()
            self.branch.noise_levels[step] = level
        self._sums = {}

    def drop_pass(self) -> None:
        """Forget the maps read since the last `end_pass`."""
        self._sums = {}

    def _has_rest(self, prompt: PromptWords | None) -> bool:
        return prompt is not None and self.keep.tokens == "words"

    def _layout(self, prompt: PromptWords | None, length: int) -> tuple[list[int], list[WordColumns], int]:
        """Kept columns, words, and the number of columns with that of the rest."""
        columns, words = kept_columns(prompt, self.keep, prompt.length if prompt else length)
        return columns, words, len(columns) + self._has_rest(prompt)


def _repeats(k: Tensor, length: int) -> bool:
    """Whether the keys (B, heads, T, d) are the first `length` of them over and over."""
    if k.shape[2] % length:
        return False
    times = k.unflatten(2, (-1, length))
    return bool(torch.equal(times, times[:, :, :1].expand_as(times)))


def _on_grid(shares: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, heads, T, n) shares on a grid of n, brought to the pixels of `size`, which others' maps have."""
    if grid == size:
        return shares
    maps = shares.unflatten(-1, grid)
    return F.interpolate(maps.flatten(0, 1), size, mode="bilinear").unflatten(0, maps.shape[:2]).flatten(-2)


def token_shares(
    q: Tensor,
    k: Tensor,
    columns: Sequence[int],
    scale: float,
    length: int,
    per_head: bool,
    rest: bool,
    mask: Tensor | None = None,
) -> Tensor:
    """Softmax columns in fp32: (B, heads or 1, len(columns), n), one more with `rest` for all other tokens.

    q: (B, heads, n, d); k: (B, heads, T, d), where T is a multiple of `length`: repeats of a text are added up. Heads
    are averaged unless `per_head`. mask: (n, T) bool, the tokens that each pixel may attend to.
    """
    batch, heads, n, _ = q.shape
    repeats = k.shape[2] // length
    chosen = [token + r * length for r in range(repeats) for token in columns]
    at_once = max(1, SCORES_AT_ONCE // (batch * heads * k.shape[2]))
    parts = []
    for start in range(0, n, at_once):
        rows = slice(start, start + at_once)
        allowed = None if mask is None else mask[..., rows, :]
        shares = attention_columns(q[:, :, rows].float(), k.float(), chosen, scale, mask=allowed)
        if not per_head:
            shares = shares.mean(1, keepdim=True)
        shares = shares.unflatten(2, (repeats, -1)).sum(2)
        if rest:
            shares = torch.cat([shares, 1 - shares.sum(2, keepdim=True)], 2)
        parts.append(shares.clamp_min_(0))
    return torch.cat(parts, -1)
