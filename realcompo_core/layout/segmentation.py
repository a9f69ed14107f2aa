"""Segmentation pictures: one flat colour a class, as segmentation ControlNets read them and segmenters write them.

A palette maps the names of a class to its colour. A class with several names joins them with ";", its own name first:
{"car;taxi": (0, 102, 200)}.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import EmptyMaskError, LayoutFormatError, MaskShapeError, PhraseCountError, RealCompoError
from ..palettes import RGB
from ..text.words import DETERMINERS, NUMBERS, noun_words
from .formats import box_around, split_phrases
from .layout import Layout, LayoutObject
from .regions import region_of

Palette = Mapping[str, RGB]

BACKGROUND: RGB = (0, 0, 0)
TOLERANCE = 2  # of 255 in each channel: less than half of what the nearest two classes of ADE20K are apart
BORDER = 2  # pixels: anti-aliased edges of maps that were enlarged up to fourfold
STRAYS = 1e-4  # of the pixels: a few that compression left over, a square of 5 x 5 in 512 x 512
LARGEST = 1024  # pixels: regions are not computed finer, ControlNets look at an eighth of it
FEW = 40  # classes that a message lists

NEIGHBOURS = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # down, right; nearest first
UNKNOWN, NOTHING = -2, -1  # labels of pixels beside the numbers of the colours


class UnknownClassError(RealCompoError):
    """A phrase, or a colour, that is none of the palette's classes."""


def _read_palette(path: Path) -> dict[str, RGB]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["names"]: tuple(int(row[c]) for c in ("red", "green", "blue")) for row in csv.DictReader(file)}


ADE20K = _read_palette(Path(__file__).with_name("ade20k.csv"))
"""The 150 classes of ADE20K, in its order, in the colours that segmentation ControlNets were trained with.

After a class's own name come synonyms and everyday words for things of that class.
"""


def draw_segmentation(
    layout: Layout, palette: Palette, size: tuple[int, int], classes: Mapping[str, str] | None = None
) -> Image.Image:
    """The layout's regions as an RGB picture of `size` (width, height) pixels, each in the colour of its class.

    The rest is black. Where regions overlap, the smaller one is in front; one smaller than a pixel still has a pixel.
    Which class a phrase has: see `class_of`.
    """
    scale = max(1.0, max(size) / LARGEST)
    width, height = (max(1, round(side / scale)) for side in size)
    colours = [palette[class_of(item.phrase, palette, classes)] for item in layout.objects]
    inside = [_inside(item, height, width) for item in layout.objects]
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for index in sorted(range(len(inside)), key=lambda i: -int(torch.count_nonzero(inside[i]))):
        picture[inside[index].numpy()] = colours[index]
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)


def class_of(phrase: str, palette: Palette, classes: Mapping[str, str] | None = None) -> str:
    """The palette's class of a phrase: that with the longest name whose words are in the phrase up to its head noun.

    The name's last word must be the head noun, in any number: "two street lamps" are no lamps if there is a class
    "street lamp". `classes` comes first: {"corgi": "animal"} makes "a small corgi" an animal. Raises UnknownClassError.
    """
    words = noun_words(phrase)
    by_hand = {name: named_class(choice, palette) for name, choice in (classes or {}).items()}
    for names in (by_hand, _names(palette)):
        found = [name for name in names if _is_named(words, _name_words(name))]
        if found:
            return names[max(found, key=lambda name: len(_name_words(name)))]
    raise UnknownClassError(f"{phrase!r} is {_no_class(words[-1] if words else phrase, palette)}")


def named_class(name: str, palette: Palette) -> str:
    """The palette's class that has this name. Raises UnknownClassError."""
    wanted = _name_words(name)
    found = [owner for each, owner in _names(palette).items() if _name_words(each) == wanted]
    if not found:
        raise UnknownClassError(f"class {name!r} is {_no_class(name, palette)}")
    return found[0]


def own_name(names: str) -> str:
    """The first of a class's names."""
    return names.split(";")[0]


def parse_phrases(text: str) -> tuple[list[str], dict[str, str]]:
    """The phrases of a text such as "a corgi=animal, a red car", and the classes of those that have one."""
    entries = [[side.strip() for side in entry.split("=")] for entry in split_phrases(text)]
    for sides in entries:
        if len(sides) > 2 or not all(sides):
            raise LayoutFormatError(f"phrases: {'='.join(sides)!r}, expected a phrase, or 'phrase=class'")
    return [sides[0] for sides in entries], {sides[0]: sides[1] for sides in entries if len(sides) == 2}


def parse_classes(text: str) -> dict[str, str]:
    """The classes of phrases in a text such as "corgi=animal, a red car=truck"."""
    phrases, classes = parse_phrases(text)
    if without := [phrase for phrase in phrases if phrase not in classes]:
        raise LayoutFormatError(f"classes: {without[0]!r} has none, expected a phrase and its class: 'corgi=animal'")
    return classes


def from_colour_map(
    picture: np.ndarray,
    palette: Palette,
    phrases: str | Sequence[str] = (),
    *,
    classes: Mapping[str, str] | None = None,
    tolerance: int = TOLERANCE,
    **scene: str,
) -> Layout:
    """A layout from a segmentation picture, (height, width, 3) bytes: an object with its class's mask for each phrase.

    Which class a phrase has: see `class_of`; what no phrase asks for is background, as is black. Without `phrases`
    every class in the picture is an object under its own name. Two classes of one colour (ADE20K's road and skyscraper)
    are the one that is asked for, else the first.

    A pixel has the nearest of the palette's colours if no channel is more than `tolerance` away. Other pixels belong to
    anti-aliased edges where they are at most 2 pixels from a pixel that has one, and take its class; elsewhere they are
    an UnknownClassError, unless they are at most a ten-thousandth of the picture. Raises EmptyMaskError for a phrase
    whose class is not in the picture.
    """
    colours = list(dict.fromkeys(palette.values()))
    owners = {colour: own_name(names) for names, colour in reversed(palette.items())}
    labels = _labels(picture, colours, owners, tolerance)
    shown = {owners[colours[label]]: label for label in np.unique(labels) if label != NOTHING}
    if not phrases:
        return _of_labels(labels, [(label, name) for name, label in shown.items()], **scene)
    wanted = {}
    for phrase in [phrases] if isinstance(phrases, str) else phrases:
        names = class_of(phrase, palette, classes)
        label = colours.index(palette[names])
        if label in wanted:
            raise PhraseCountError(
                f"phrases: {wanted[label]!r} and {phrase!r} both have the colour {palette[names]} of "
                f"{own_name(names)!r}: name all things of a class by one phrase, or make masks"
            )
        if not (labels == label).any():
            listed = ", ".join(shown) or "nothing but background"
            raise EmptyMaskError(
                f"phrase {phrase!r}: nothing in the picture has the colour {palette[names]} of its class "
                f"{own_name(names)!r}. The picture shows: {listed}"
            )
        wanted[label] = phrase
    return _of_labels(labels, list(wanted.items()), **scene)


def from_index_mask(mask: np.ndarray, phrases: Mapping[int, str] | Sequence[str], **scene: str) -> Layout:
    """A layout from a mask of whole numbers, (height, width): one object for each number that `phrases` names.

    `phrases` maps numbers to phrases, or lists the phrases of 1, 2, …. Numbers that are not named are background. The
    numbers may be floats, and may be divided by 255, as masks that were loaded as pictures are. Raises MaskShapeError
    for other values, EmptyMaskError for a number that is not in the mask.
    """
    labels = _whole_numbers(np.asarray(mask))
    named = phrases if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    if not named:
        raise PhraseCountError(f"phrases: none, name the numbers of the mask: {_listed(labels)}")
    for label, phrase in named.items():
        if not (labels == label).any():
            raise EmptyMaskError(f"phrase {phrase!r}: the mask has no {label}, only {_listed(labels)}")
    return _of_labels(labels, list(named.items()), **scene)


def parse_indices(text: str) -> dict[int, str] | list[str]:
    """The numbers and phrases of "1=a cat, 3=a dog", or the phrases of a text without numbers."""
    entries = split_phrases(text)
    if not any("=" in entry for entry in entries):
        return entries
    named = {}
    for entry in entries:
        label, _, phrase = (part.strip() for part in entry.partition("="))
        if not label.isdecimal() or not phrase:
            raise LayoutFormatError(f"phrases: {entry!r}, expected a number of the mask and a phrase: '1=a cat'")
        if int(label) in named:
            raise PhraseCountError(f"phrases: {label} is named twice, {named[int(label)]!r} and {phrase!r}")
        named[int(label)] = phrase
    return named


def _inside(item: LayoutObject, height: int, width: int) -> torch.Tensor:
    """(height, width) bool: pixels that lie in the region by more than half; for a tiny one those with most of it."""
    covered = region_of(item).coverage(height, width)
    return covered > 0.5 if covered.max() > 0.5 else covered > 0.99 * covered.max()


@cache
def _name_words(name: str) -> tuple[str, ...]:
    *before, noun = noun_words(name) or [""]
    return (*(word for word in before if word not in DETERMINERS and word not in NUMBERS), noun)


def _names(palette: Palette) -> dict[str, str]:
    """From every name to its class; the first class that has it."""
    return {name: names for names in reversed(palette) for name in reversed(names.split(";"))}


def _is_named(words: Sequence[str], name: Sequence[str]) -> bool:
    return words[-1:] == [name[-1]] and set(name) <= set(words)


def _no_class(word: str, palette: Palette) -> str:
    names = _names(palette)
    near = get_close_matches(word.lower(), names, n=3)
    if len(palette) <= FEW:
        known = f"classes: {', '.join(map(own_name, palette))}"
    else:
        known = f"{len(palette)} classes"
        known += f"; near are {', '.join(f'{name!r} ({own_name(names[name])})' for name in near)}" if near else ""
    example = own_name(names[near[0]] if near else next(iter(palette)))
    return f"none of the palette's {known}. Say which class it is, as in '{word}={example}'"


def _labels(picture: np.ndarray, colours: list[RGB], owners: Mapping[RGB, str], tolerance: int) -> np.ndarray:
    """(height, width): the index in `colours` of every pixel, or NOTHING where it is background."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise MaskShapeError(f"picture of shape {picture.shape} and {picture.dtype}, expected (height, width, 3) bytes")
    codes = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, where = np.unique(codes, return_inverse=True)
    channels = np.stack([found >> 16, found >> 8 & 255, found & 255], -1)
    known = [*colours, BACKGROUND] if BACKGROUND not in colours else colours
    nearest, distance = np.zeros(len(found), np.int32), np.full(len(found), 256, np.int32)
    for index, colour in enumerate(known):
        apart = np.abs(channels - colour).max(-1)
        nearest[apart < distance] = index
        distance = np.minimum(distance, apart)
    of_colour = np.where(distance > tolerance, UNKNOWN, np.where(nearest == len(colours), NOTHING, nearest))
    where = where.reshape(codes.shape)
    labels = _with_edges(of_colour[where])
    strange = where[labels == UNKNOWN]
    if strange.size:
        most = np.bincount(strange).argmax()
        colour, near = tuple(channels[most].tolist()), known[nearest[most]]
        raise UnknownClassError(
            f"picture: {np.count_nonzero(where == most)} pixels have the colour {colour}, which is none of the "
            f"palette's; nearest is {owners.get(near, 'background')!r} {near}, {distance[most]} away, and "
            f"{tolerance} are tolerated. Choose the palette that it was drawn with, save it as PNG, or raise tolerance"
        )
    return labels


def _with_edges(labels: np.ndarray) -> np.ndarray:
    """Unknown pixels at most BORDER rows and columns from known ones, and strays, get the label of a neighbour."""
    height, width = labels.shape
    for step in count():
        left = np.count_nonzero(labels == UNKNOWN)
        if left in (0, labels.size) or (step >= BORDER and left > STRAYS * labels.size):
            return labels
        padded = np.pad(labels, 1, constant_values=UNKNOWN)
        for down, right in NEIGHBOURS:
            neighbours = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            labels = np.where(labels == UNKNOWN, neighbours, labels)


def _whole_numbers(mask: np.ndarray) -> np.ndarray:
    """The mask as int64. Raises MaskShapeError."""
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2 or not mask.size:
        raise MaskShapeError(f"index mask of shape {mask.shape}, expected (height, width)")
    for factor in (1, 255):
        whole = np.round(mask * float(factor))
        off = np.abs(mask * float(factor) - whole) > 1e-3
        if not off.any() and np.isfinite(whole).all():
            return whole.astype(np.int64)
    row, column = np.argwhere(off | ~np.isfinite(mask))[0].tolist()
    raise MaskShapeError(
        f"index mask: {mask[row, column]} in row {row}, column {column} is neither a whole number nor one divided by "
        "255: resize index masks with nearest-exact, and make layouts from soft masks by Layout from Masks"
    )


def _listed(labels: np.ndarray) -> str:
    numbers = np.unique(labels)
    return ", ".join(map(str, numbers[:20])) + (" …" if len(numbers) > 20 else "")


def _of_labels(labels: np.ndarray, wanted: Sequence[tuple[int, str]], **scene: str) -> Layout:
    def objects() -> Iterator[LayoutObject]:
        for label, phrase in wanted:
            mask = labels == label
            yield LayoutObject(phrase, box_around(mask, phrase), mask)

    return Layout(tuple(objects()), **scene).validate()
