"""Attention maps as two files that a browser shows: a JSON that says what there is, and the maps, to be read in parts.

The binary file holds records of one map each: its largest value as float32, then its values as uint16, 65535 being the
largest, all little-endian. Records of the same size lie in frames: the words, targets and phrases of one item, at one
head, step and layer. A browser asks for a frame at a time, whose place it computes from the sizes in the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import PhraseNotInPromptError, RealCompoError
from ..files import replacing, write_file
from ..layout import Layout
from ..layout.regions import region_maps
from ..palettes import DIVERGING, PALETTES, hex_of
from ..text.parser import Token, parse, tokens_of
from .grounding_metrics import ALL, Target, layout_targets
from .maps import AttentionMaps, BranchMaps, WordColumns

VERSION = 2


def write_panel(
    maps: AttentionMaps, pictures: Sequence[dict | None], folder: Path, name: str, phrases: Sequence[str] = ()
) -> tuple[str, str]:
    """Writes `<name>.json` and `<name>.bin` into `folder` and returns their names.

    pictures: how the host names the picture of each item, or None where there is none. phrases: words of the prompt to
    show first, each as one map; left out of the prompts that lack them.
    Raises RealCompoError if nothing was recorded, or if the files cannot be written; none of them is left then.
    """
    recorded = maps.recorded
    header, data = folder / f"{name}.json", folder / f"{name}.bin"
    try:
        with replacing(data) as part, part.open("wb") as file:
            contents = _write_maps(maps, recorded, phrases, file)
        described = {"version": VERSION, "data": data.name, "pictures": list(pictures), **contents}
        write_file(header, json.dumps(described))
    except OSError as error:
        for path in (header, data):
            path.unlink(missing_ok=True)
        raise RealCompoError(
            f"the attention maps ({maps.nbytes / 1e6:.0f} MB) could not be written into {folder} ({error}): free some "
            "space there, or record fewer steps, blocks instead of layers, or averaged heads"
        ) from error
    return header.name, data.name


def _write_maps(maps: AttentionMaps, branches: Sequence[BranchMaps], phrases: Sequence[str], file: BinaryIO) -> dict:
    layout = maps.layout or Layout()
    targets = {
        (branch.name, conditioning): _targets(branch, layout, conditioning)
        for branch in branches
        for conditioning in branch.conditionings
    }
    regions = {key: target for found in targets.values() for key, target in found.items()} or _places(layout)
    sizes = {layer.size for branch in branches for layer in branch.kept_layers}
    if maps.trace is not None:
        sizes |= {tuple(step.weights.shape[-2:]) for step in maps.trace.steps}
    objects = [item.phrase for item in layout.objects]
    return {
        "phrases": list(phrases),
        "palettes": PALETTES,
        "difference": DIVERGING,
        "objects": [
            {"phrase": item.phrase, "box": item.box, "color": hex_of(index)}
            for index, item in enumerate(layout.objects)
        ],
        "regions": [
            {"label": region.label, "color": hex_of(objects.index(region.label))} for region in regions.values()
        ],
        "region_maps": [
            {"size": size, "offset": _append(file, _coverage(regions.values(), size))} for size in sorted(sizes)
        ],
        "branches": [
            {
                "name": branch.name,
                "items": branch.batch,
                "conditionings": {
                    conditioning: _write_conditioning(
                        branch, conditioning, targets[branch.name, conditioning], list(regions), phrases, file
                    )
                    for conditioning in branch.conditionings
                },
            }
            for branch in branches
        ],
        "weights": _write_weights(maps, file),
    }


Key = tuple[str, bytes]  # a target's label and region: branches with other prompts may join other objects


def _targets(branch: BranchMaps, layout: Layout, conditioning: str) -> dict[Key, Target]:
    """The layout's targets by label and region; no targets where its phrases are not in the prompt."""
    try:
        return _by_region(layout_targets(branch, layout, conditioning))
    except PhraseNotInPromptError:
        return {}


def _places(layout: Layout) -> dict[Key, Target]:
    """A target for each object of the layout, with its region and without words."""
    return _by_region(
        Target(item.phrase, WordColumns(item.phrase, ()), lambda h, w, i=i: region_maps(layout, [[i]], h, w)[0])
        for i, item in enumerate(layout.objects)
    )


def _by_region(targets: Iterable[Target]) -> dict[Key, Target]:
    return {(target.label, target.region(64, 64).numpy().tobytes()): target for target in targets}


def _coverage(regions: Iterable[Target], size: tuple[int, int]) -> Iterator[Tensor]:
    for target in regions:
        yield target.region(*size)[None]


def _write_conditioning(
    branch: BranchMaps,
    conditioning: str,
    targets: dict[Key, Target],
    regions: list[Key],
    phrases: Sequence[str],
    file: BinaryIO,
) -> dict:
    words = branch.words[conditioning]
    found = _found(branch, conditioning, phrases)
    shown = [*words, *(target.word for target in targets.values()), *found]
    heads = branch.heads if branch.heads > 1 else 0
    steps = branch.steps_of(conditioning)
    return {
        "words": [
            {
                "text": word.text,
                "regions": [
                    regions.index(key)
                    for key, target in targets.items()
                    if set(word.columns) <= set(target.word.columns)
                ],
                "noun": noun,
            }
            for word, noun in zip(words, _nouns([word.text for word in words]), strict=True)
        ],
        "targets": [{"label": target.label, "region": regions.index(key)} for key, target in targets.items()],
        "phrases": [phrase.text for phrase in found],
        "steps": [{"index": step, "level": branch.noise_levels[step]} for step in steps],
        "heads": heads,
        "layers": [
            {
                "name": ALL if layer is None else layer.name,
                "size": branch.size if layer is None else layer.size,
                "offset": _append(file, _frames(branch, conditioning, shown, layer and layer.name, steps, heads)),
            }
            for layer in [None, *branch.kept_layers]
        ],
    }


def _found(branch: BranchMaps, conditioning: str, phrases: Sequence[str]) -> list[WordColumns]:
    found = []
    for phrase in phrases:
        try:
            found.append(branch.find(phrase, conditioning))
        except RealCompoError:  # in another branch's or conditioning's prompt
            continue
    return found


def _nouns(words: Sequence[str]) -> list[bool]:
    """Whether each word of an English prompt is a noun that others describe: not "race" in "a race car"."""
    plain = ["" if word.startswith("<") else word for word in words]  # "<start>" is no word of the sentence
    starts = list(accumulate((len(word) + 1 for word in plain), initial=0))
    nouns = {token.start for token in parse(tokens_of(" ".join(plain))) if _is_noun(token)}
    return [start in nouns for start in starts[:-1]]


def _is_noun(token: Token) -> bool:
    return token.tag.startswith("NN") and token.label != "compound"


def _frames(
    branch: BranchMaps,
    conditioning: str,
    words: Sequence[WordColumns],
    layer: str | None,
    steps: Sequence[int],
    heads: int,
) -> Iterator[Tensor]:
    """(B * len(words), h, w) frames: of the steps' mean and then each step, the heads' mean and then each head."""
    for step in (None, *steps):
        for head in (None, *range(heads)):
            yield branch.word_maps(words, conditioning, layer=layer, step=step, head=head).flatten(0, 1)


def _write_weights(maps: AttentionMaps, file: BinaryIO) -> dict | None:
    """Each frame has the branches' weights at one step, for one item; the mean over the steps comes first."""
    if maps.trace is None or not maps.trace.steps:
        return None
    steps = [step.index for step in maps.trace.by_step]
    weights = torch.stack([maps.weights(step) for step in steps]).float()
    frames = (step.flatten(0, 1) for step in (weights.nanmean(0), *weights))
    return {
        "branches": maps.trace.branches,
        "items": weights.shape[1],
        "steps": steps,
        "size": weights.shape[-2:],
        "offset": _append(file, frames),
    }


def _append(file: BinaryIO, frames: Iterable[Tensor]) -> int:
    """Writes a record for each map of the frames, (n, h, w) each; returns where the first one is."""
    offset = file.tell()
    for frame in frames:
        values = np.nan_to_num(frame.float().numpy())  # a record holds no NaN
        largest = values.max((1, 2), initial=0)
        records = np.empty(len(values), [("largest", "<f4"), ("values", "<u2", values.shape[1:])])
        records["largest"] = largest
        records["values"] = np.rint(values * (65535 / np.where(largest > 0, largest, 1))[:, None, None])
        file.write(records.tobytes())
    return offset
