"""Recording attention maps while a network samples. Nothing here knows a host: an adapter feeds it queries and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .maps import BranchMaps, Keep, MapLayer, PromptWords, WordColumns, kept_columns, map_bytes
from ..errors import RealCompoError

SCORES_AT_ONCE = 2**24  # 64 MB of fp32


class Recorder:
    """Collects one branch's maps. An adapter calls `begin` once, then for each network pass `read` and `end_pass`.

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

    def begin(self, layers: Sequence[tuple[MapLayer, int]], length: int, batch: int, steps: int) -> int:
        """A new run of `steps` steps: what was recorded is dropped. Returns the bytes that its maps will take.

        layers: with the number of their heads. length: of a conditioning whose words are not known. `steps` 0 is a
        number that is not known. Raises RealCompoError if not even one step is within the limit.
        """
        self.branch.words, self.branch.levels, self.branch.maps = {}, {}, {}
        self.branch.layers = [layer for layer, _ in layers]
        self._columns, self._sums = {}, {}
        tokens = [self._layout(prompt, length)[2] for prompt in self._prompts.values()]
        apart = self.keep.heads == "apart"
        each = sum(map_bytes([layer.size], sum(tokens), batch, heads if apart else 1) for layer, heads in layers)
        self._interval = self.keep.interval(each, steps)
        return each * -(-steps // self._interval)

    def wants(self, step: int) -> bool:
        return step % self._interval == 0

    @torch.no_grad()
    def read(self, conditioning: str, layer: str, q: Tensor, k: Tensor) -> None:
        """One attention layer's queries (B, heads, n, d) and keys (B, heads, T, d), which count for the map `layer`.

        Of joint attention, the picture's queries and the text's keys. A host repeats a shorter text up to the length
        of a longer one; the repeats are added up. Raises RealCompoError for fewer tokens than the prompt has.
        """
        if conditioning not in self._prompts:
            return
        q, k = q.detach(), k.detach()
        prompt = self._prompts[conditioning]
        if prompt is not None and k.shape[2] < prompt.length:
            raise RealCompoError(
                f"the {conditioning} prompt of the recording has {prompt.length} tokens, and the model reads "
                f"{k.shape[2]}: give the recording the very prompt and CLIP that made the conditioning, or no prompt"
            )
        if conditioning not in self._columns:
            columns, words, _ = self._layout(prompt, k.shape[2])
            self._columns[conditioning], self.branch.words[conditioning] = columns, words
        length = prompt.length if prompt is not None and k.shape[2] % prompt.length == 0 else k.shape[2]
        shares = token_shares(
            q, k, self._columns[conditioning], length, self.keep.heads == "apart", rest=self._has_rest(prompt)
        )
        total, count = self._sums.get((conditioning, layer), (0, 0))
        self._sums[conditioning, layer] = total + shares, count + 1

    def end_pass(self, step: int, level: float) -> None:
        """What was read since the last call becomes the maps of `step`; maps that it had are replaced."""
        sizes = {layer.name: layer.size for layer in self.branch.layers}
        for (conditioning, layer), (total, count) in self._sums.items():
            maps = (total / count).unflatten(-1, sizes[layer])
            self.branch.maps[conditioning, layer, step] = maps.to(torch.float16).cpu()
            self.branch.levels[step] = level
        self._sums = {}

    def drop_pass(self) -> None:
        """What was read since `end_pass` is forgotten."""
        self._sums = {}

    def _has_rest(self, prompt: PromptWords | None) -> bool:
        return prompt is not None and self.keep.tokens == "words"

    def _layout(self, prompt: PromptWords | None, length: int) -> tuple[list[int], list[WordColumns], int]:
        """Kept columns, words, and the number of columns with that of the rest."""
        columns, words = kept_columns(prompt, self.keep, prompt.length if prompt else length)
        return columns, words, len(columns) + self._has_rest(prompt)


def token_shares(q: Tensor, k: Tensor, columns: Sequence[int], length: int, apart: bool, rest: bool) -> Tensor:
    """Columns of softmax(q kᵀ / √d) in fp32: (B, heads or 1, len(columns), n), one more with `rest` for all others.

    q: (B, heads, n, d); k: (B, heads, T, d), where T is a multiple of `length`: repeats of a text are added up.
    Heads are averaged unless `apart`.
    """
    batch, heads, n, width = q.shape
    at_once = max(1, SCORES_AT_ONCE // (batch * heads * k.shape[2]))
    k = k.float().mT
    parts = []
    for rows in q.split(at_once, 2):
        shares = (rows.float() * width**-0.5 @ k).softmax(-1)
        if not apart:
            shares = shares.mean(1, keepdim=True)
        if k.shape[3] > length:
            shares = shares.unflatten(-1, (-1, length)).sum(-2)
        picked = shares[..., list(columns)]
        if rest:
            picked = torch.cat([picked, 1 - picked.sum(-1, keepdim=True)], -1)
        parts.append(picked.clamp_min_(0).mT)
    return torch.cat(parts, -1)
