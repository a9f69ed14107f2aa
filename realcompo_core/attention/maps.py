"""Recorded attention maps: what they are, how to look at them along each axis, and how they are kept in a file.

The axes are the TokenCompose paper's (layers, heads, time steps), and beside them branches, positive and negative
conditioning, the items of a batch, and words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import RealCompoError
from ..files import replacing
from ..guidance.trace import Trace
from ..layout import Layout
from ..text.words import words_in_a_row

START, END, PADDING = "<start>", "<end>", "<padding>"
VERSION = 1  # of the NPZ file


class WordColumns(NamedTuple):
    """A word of the prompt, or a special token: its text and its columns among the tokens that were kept."""

    text: str
    columns: tuple[int, ...]


class MapLayer(NamedTuple):
    """Attention layers that are kept as one: a name, and the height and width of their maps."""

    name: str
    size: tuple[int, int]


class PromptWords(NamedTuple):
    """The words of a conditioning, each with the indices of its tokens in a sequence of `length` tokens."""

    words: Sequence[tuple[str, Sequence[int]]]
    length: int


@dataclass(frozen=True)
class Keep:
    """What a recording keeps.

    tokens: `words` keeps the prompt's words, the start token, and all other tokens summed as one, `<end>`; `all` keeps
    every token. layers: `blocks` averages the layers of each block of the network, `layers` keeps each of them,
    `decoder` only those of the middle block and the decoder, by blocks. heads: `averaged` or `apart`.
    every: every n-th step. limit: megabytes; more steps are left out if need be.
    """

    tokens: Literal["words", "all"] = "words"
    layers: Literal["blocks", "layers", "decoder"] = "blocks"
    heads: Literal["averaged", "apart"] = "averaged"
    every: int = 1
    limit: int = 256

    def interval(self, step_bytes: int, steps: int) -> int:
        """Every how many of `steps` steps of `step_bytes` bytes each can be kept. Raises RealCompoError for none."""
        room = self.limit * 1_000_000 // max(step_bytes, 1)
        if room < 1:
            raise RealCompoError(
                f"the attention maps of one step take {step_bytes / 1e6:.0f} MB, and the limit is {self.limit} MB: "
                "average the heads, keep words instead of all tokens, keep blocks instead of layers, or raise the limit"
            )
        return max(self.every, math.ceil(steps / room))


def map_bytes(sizes: Sequence[tuple[int, int]], tokens: int, batch: int = 1, heads: int = 1) -> int:
    """Bytes of one step's maps in fp16: `sizes` are (height, width) of the layers' maps, `heads` those kept apart."""
    return 2 * batch * heads * tokens * sum(height * width for height, width in sizes)


@dataclass
class BranchMaps:
    """One model's maps. `words` are by conditioning.

    maps: by conditioning, layer and step: (B, heads, T, h, w) fp16 on the CPU, in 0..1; over the tokens they sum to 1.
    `heads` is 1 where they were averaged. noise_levels: that of each step that was kept, as sigma in a host, as
    timestep in diffusers.
    """

    name: str
    words: dict[str, list[WordColumns]] = field(default_factory=dict)
    layers: list[MapLayer] = field(default_factory=list)
    noise_levels: dict[int, float] = field(default_factory=dict)
    maps: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)

    @property
    def conditionings(self) -> list[str]:
        return [name for name in self.words if any(key[0] == name for key in self.maps)]

    @property
    def steps(self) -> list[int]:
        return sorted({step for _, _, step in self.maps})

    def steps_of(self, conditioning: str) -> list[int]:
        """The steps at which this conditioning was recorded: guidance may be off in others."""
        return sorted({step for own, _, step in self.maps if own == conditioning})

    @property
    def kept_layers(self) -> list[MapLayer]:
        """The layers that were read, in the order in which they run."""
        names = {name for _, name, _ in self.maps}
        return [layer for layer in self.layers if layer.name in names]

    @property
    def heads(self) -> int:
        """How many heads are kept apart, of the layers with the most; 1 where they were averaged."""
        return max(layer.shape[1] for layer in self.maps.values())

    @property
    def batch(self) -> int:
        return len(next(iter(self.maps.values())))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finest maps."""
        return max((layer.size for layer in self.kept_layers), key=math.prod)

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.maps.values())

    def token_maps(
        self,
        conditioning: str = "positive",
        layer: str | None = None,
        step: int | None = None,
        head: int | None = None,
    ) -> Tensor:
        """(B, T, H, W) fp32: the mean over what is not chosen, at the finest chosen layer's size.

        Where layers have unlike numbers of heads, a head is that of the layers that have it; 0 everywhere if the chosen
        layer has not. Raises RealCompoError for a conditioning, layer, step or head that was not kept.
        """
        self._check(conditioning, layer, step, head)
        chosen = {
            key: value
            for key, value in self.maps.items()
            if key[0] == conditioning and layer in (None, key[1]) and step in (None, key[2])
        }
        by_size: dict[tuple[int, int], list[Tensor]] = {}
        for value in chosen.values():
            heads = value if head is None else value[:, head : head + 1]
            found = by_size.setdefault(tuple(value.shape[-2:]), [])
            if heads.shape[1]:
                found.append(heads.float().mean(1))
        size = max(by_size, key=math.prod)
        total = torch.zeros(self.batch, next(iter(chosen.values())).shape[2], *size)
        for own, maps in by_size.items():
            if maps:
                summed = sum(maps)
                total += summed if own == size else F.interpolate(summed, size, mode="bilinear")
        return total / max(sum(map(len, by_size.values())), 1)

    def word_maps(self, words: Sequence[WordColumns], conditioning: str = "positive", **chosen) -> Tensor:
        """(B, len(words), H, W): the mean over each word's tokens of `token_maps`."""
        tokens = self.token_maps(conditioning, **chosen)
        return torch.stack([tokens[:, list(word.columns)].mean(1) for word in words], 1)

    def find(self, phrase: str, conditioning: str = "positive") -> WordColumns:
        """The words of `phrase`, where they first stand in a row, as one. Raises RealCompoError if they do not."""
        own = self.words.get(conditioning, [])
        found = words_in_a_row(phrase, [word.text for word in own])
        if found is not None:
            return WordColumns(phrase.strip(), tuple(c for word in own[found] for c in word.columns))
        raise RealCompoError(
            f"{phrase!r} is not in the {conditioning} prompt of branch {self.name}. Its words: "
            f"{', '.join(word.text for word in own) or 'none'}"
        )

    def _check(self, conditioning: str, layer: str | None, step: int | None, head: int | None) -> None:
        own = [key for key in self.maps if key[0] == conditioning]
        for what, value, known in (
            ("conditioning", conditioning, self.conditionings),
            ("layer", layer, [kept.name for kept in self.layers if any(key[1] == kept.name for key in own)]),
            ("step", step, self.steps_of(conditioning)),
            ("head", head, range(self.heads)),
        ):
            if value is not None and value not in known:
                listed = ", ".join(map(str, known)) or "none"
                raise RealCompoError(f"{what} {value!r} of branch {self.name} was not recorded; there is: {listed}")
        if layer is not None and step is not None and (conditioning, layer, step) not in self.maps:
            steps = ", ".join(str(key[2]) for key in own if key[1] == layer)
            raise RealCompoError(
                f"layer {layer!r} of branch {self.name} was not recorded at step {step}; there is: step {steps}"
            )


@dataclass
class AttentionMaps:
    """The maps of one sampling, one entry a branch; an ordinary model is a branch of its own.

    layout: what was balanced, if anything. trace: of the balancer, whose weights are shown beside the maps.
    """

    branches: list[BranchMaps] = field(default_factory=list)
    layout: Layout | None = None
    trace: Trace | None = None

    @property
    def recorded(self) -> list[BranchMaps]:
        """The branches that have maps. Raises RealCompoError if none has."""
        recorded = [branch for branch in self.branches if branch.maps]
        if not recorded and self.trace is not None and self.trace.note and not self.trace.steps:
            raise RealCompoError(f"no attention was recorded: {self.trace.note}")
        if not recorded:
            raise RealCompoError(
                "no attention was recorded: the model that is recorded must sample before its maps are looked at. In "
                "ComfyUI, sample with the model that Record Attention gives out; if the sampler's result was cached, "
                "change its seed"
            )
        return recorded

    def branch(self, name: str | None = None) -> BranchMaps:
        """The branch of that name, or the first. Raises RealCompoError if nothing was recorded, or for another name."""
        for branch in self.recorded:
            if name in (None, branch.name):
                return branch
        raise RealCompoError(f"no branch {name!r} was recorded; there is: {', '.join(b.name for b in self.recorded)}")

    def word(self, phrase: str, conditioning: str = "positive", **chosen) -> Tensor:
        """(B, H, W): the first branch's map of a word of the prompt, or of several in a row.

        chosen: a layer, step or head (`BranchMaps.token_maps`). Raises RealCompoError for a phrase that the prompt does
        not have.
        """
        branch = self.branch()
        return branch.word_maps([branch.find(phrase, conditioning)], conditioning, **chosen)[:, 0]

    @property
    def nbytes(self) -> int:
        return sum(branch.nbytes for branch in self.branches)

    def weights(self, step: int) -> Tensor | None:
        """(B, K, h, w): the balancer's weights at this step."""
        steps = self.trace.by_step if self.trace else []
        return next((own.weights for own in steps if own.index == step), None)

    def save(self, path: Path | str | BinaryIO) -> None:
        """Write everything but the trace as an NPZ file, which `load` and numpy read (see `load` for its keys).

        A path without ".npz" gets it. An older file is replaced once the new one is whole. Raises OSError.
        """
        header = {
            "version": VERSION,
            "layout": None if self.layout is None else json.loads(self.layout.to_json()),
            "branches": [
                {
                    "name": branch.name,
                    "words": {key: [[w.text, list(w.columns)] for w in words] for key, words in branch.words.items()},
                    "layers": [[layer.name, list(layer.size)] for layer in branch.layers],
                    "levels": {str(step): level for step, level in branch.noise_levels.items()},
                }
                for branch in self.branches
            ],
        }
        arrays = {
            "/".join((branch.name, conditioning, layer, str(step))): maps.numpy()
            for branch in self.branches
            for (conditioning, layer, step), maps in branch.maps.items()
        }
        arrays["header"] = np.array(json.dumps(header))
        if not isinstance(path, (str, Path)):
            np.savez_compressed(path, **arrays)
            return
        with replacing(_npz(Path(path))) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> AttentionMaps:
        """What `save` wrote: `header` is JSON, `branch/conditioning/layer/step` an array (B, heads, T, h, w) in fp16.

        Where there is no file `path`, ".npz" is added as `save` does. Raises RealCompoError for another file.
        """
        path = Path(path)
        if not path.is_file():
            path = _npz(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "header"}
            if header["version"] != VERSION:
                raise ValueError(f"version {header['version']}")
        except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
            raise RealCompoError(f"{path} holds no attention maps of this version: {error}") from error
        branches = []
        for given in header["branches"]:
            branch = BranchMaps(
                given["name"],
                {
                    key: [WordColumns(text, tuple(columns)) for text, columns in words]
                    for key, words in given["words"].items()
                },
                [MapLayer(name, tuple(size)) for name, size in given["layers"]],
                {int(step): level for step, level in given["levels"].items()},
            )
            for key, value in arrays.items():
                if key.startswith(branch.name + "/"):
                    conditioning, layer, step = key.removeprefix(branch.name + "/").rsplit("/", 2)
                    branch.maps[conditioning, layer, int(step)] = value
            branches.append(branch)
        layout = None if header["layout"] is None else Layout.from_json(json.dumps(header["layout"]))
        return cls(branches, layout)


def side_by_side(one: AttentionMaps, other: AttentionMaps, names: tuple[str, str]) -> AttentionMaps:
    """The first branches of two recordings as one recording, under new names.

    Raises RealCompoError for names that are the same, and for recordings of unlike prompts or batches.
    """
    if names[0] == names[1]:
        raise RealCompoError(f"both recordings are called {names[0]!r}: give them two names")
    branches = [maps.branch() for maps in (one, other)]
    told = [" ".join(word.text for word in branch.words.get("positive", [])) for branch in branches]
    if told[0] != told[1]:
        raise RealCompoError(
            f"the recordings have different prompts: {told[0]!r} and {told[1]!r}. Record both with the same prompt"
        )
    if branches[0].batch != branches[1].batch:
        raise RealCompoError(
            f"the recordings have {branches[0].batch} and {branches[1].batch} pictures: record as many with both"
        )
    named = [replace(branch, name=name) for branch, name in zip(branches, names, strict=True)]
    return AttentionMaps(named, one.layout or other.layout)


def kept_columns(prompt: PromptWords | None, keep: Keep, length: int) -> tuple[list[int], list[WordColumns]]:
    """Which of `length` tokens are kept apart, and the words among the columns that this gives.

    With `keep.tokens` "words", a last column follows for the sum of all others. Without a prompt all are kept.
    """
    if prompt is None or not prompt.words:
        if prompt is not None and keep.tokens == "words":
            return [0], [WordColumns(START, (0,)), WordColumns(END, (1,))]
        return list(range(length)), [WordColumns(f"token {i}", (i,)) for i in range(length)]
    taken = sorted({token for _, tokens in prompt.words for token in tokens})
    if keep.tokens == "words":
        columns = sorted({0, *taken})
        words = _words(prompt, {token: i for i, token in enumerate(columns)})
        start = [] if 0 in taken else [WordColumns(START, (0,))]
        return columns, [*start, *words, WordColumns(END, (len(columns),))]
    words = _words(prompt, {token: token for token in range(length)})
    others = [token for token in range(length) if token not in taken]
    start = [WordColumns(START, (0,))] if others[:1] == [0] else []
    after = [token for token in others if token > taken[-1]]
    end = [WordColumns(END, (after[0],))] if after else []
    padding = [WordColumns(PADDING, tuple(after[1:]))] if after[1:] else []
    return list(range(length)), [*start, *words, *end, *padding]


def _npz(path: Path) -> Path:
    """The path with the ending that numpy gives its archives."""
    return path if path.name.endswith(".npz") else path.with_name(path.name + ".npz")


def _words(prompt: PromptWords, column: Mapping[int, int]) -> list[WordColumns]:
    return [WordColumns(text, tuple(column[token] for token in tokens)) for text, tokens in prompt.words]
