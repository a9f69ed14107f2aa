"""From images and captions to a training set in the official format, in stages that can be stopped and replaced.

    captions   which of an image's captions is learnt: the first, or the one that CLIP finds most similar
    nouns      the caption's nouns (see `taggers.py`)
    masks      where each noun is in the image: masks that the user has, or Grounding DINO and SAM

Each stage is a function of one image. What it found is a line of `stages/NAME.jsonl` in the output folder, so that a
run that was stopped goes on with the next image. To repeat a stage, delete its file and those of the stages after it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from realcompo_core.errors import RealCompoError
from realcompo_core.files import replacing

from .records import DatasetError
from .taggers import Tagger, extract_nouns

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
STAGES = ("captions", "nouns", "masks")

ChooseCaption = Callable[[Image.Image, Sequence[str]], int]
"""An image (RGB) and its captions -> the index of the one to learn."""
MakeMasks = Callable[[Image.Image, str, Sequence[str]], Sequence["np.ndarray | None"]]
"""An image (RGB), its file name, nouns -> for each noun a (height, width) bool mask; None where nothing is found."""


class CaptionedImage(NamedTuple):
    """The file name of an image in the source folder, and all its captions."""

    name: str
    captions: tuple[str, ...]


def read_pictures(images: Path, captions: Path | None = None) -> list[CaptionedImage]:
    """The images of a folder that have captions, sorted by name.

    captions: None for `NAME.txt` beside each image, a caption a line; a JSON-lines file of {"file_name", "text"} with
    one or several lines an image; or a COCO captions file. Raises DatasetError where there is none, or one that cannot
    be read.
    """
    names = sorted(p.name for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else []
    if not names:
        raise DatasetError(f"{images} is no folder with images ({', '.join(IMAGE_SUFFIXES)})")
    if captions is None:
        texts = {name: _lines((images / name).with_suffix(".txt")) for name in names}
    else:
        texts = _caption_file(captions)
    pictures = [CaptionedImage(name, tuple(texts[name])) for name in names if texts.get(name)]
    if not pictures:
        where = captions or f"{images}: expected NAME.txt beside NAME.jpg"
        raise DatasetError(f"none of the {len(names)} images in {images} has a caption in {where}")
    return pictures


def prepare(
    pictures: Sequence[CaptionedImage],
    images: Path,
    output: Path,
    choose: ChooseCaption,
    tagger: Tagger | str,
    make_masks: MakeMasks,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Run all stages and write `output/metadata.jsonl`, with the images and `seg/` beside it; returns its path.

    `progress(stage, done, total)` is called after each image, `tell` with a line about each
    image that cannot be read and is left out.
    """
    records: list[dict[str, Any]] = [{"file_name": name, "captions": captions} for name, captions in pictures]
    work: dict[str, Callable[[dict, Image.Image], dict]] = {
        "captions": lambda r, image: {"text": r["captions"][choose(image, r["captions"])]},
        "nouns": lambda r, image: {"nouns": list(dict.fromkeys(n.text for n in extract_nouns(r["text"], tagger)))},
        "masks": lambda r, image: {"attn_list": _write_masks(output, r, make_masks(image, r["file_name"], r["nouns"]))},
    }
    try:
        for stage in STAGES:
            done = _Stage(output / "stages" / f"{stage}.jsonl", records)
            for i, record in enumerate(records):
                if i >= done.count:
                    image = _open(images / record["file_name"])
                    if isinstance(image, OSError):
                        tell(f"{record['file_name']} cannot be read ({image}): left out")
                    done.add(record["file_name"], {} if isinstance(image, OSError) else work[stage](record, image))
                record.update(done.found[i] or {"failed": True})
                progress(stage, i + 1, len(records))
            records = [record for record in records if "failed" not in record]
            if not records:
                raise DatasetError(f"none of the images in {images} can be read")
        for record in records:
            target = output / record["file_name"]
            if not target.exists():
                with _writing(target) as part:
                    shutil.copyfile(images / record["file_name"], part)
        lines = [json.dumps({key: record[key] for key in ("file_name", "text", "attn_list")}) for record in records]
        path = output / "metadata.jsonl"
        with _writing(path) as part:
            part.write_bytes("".join(line + "\n" for line in lines).encode())
        return path
    except OSError as error:
        raise RealCompoError(
            f"cannot write into {output} ({error.strerror or error}): make room, and run again: it goes on from here"
        ) from error


def first_caption(image: Image.Image, captions: Sequence[str]) -> int:
    return 0


def masks_from_folder(folder: Path) -> MakeMasks:
    """Masks that the user has: `NAME/NOUN.png` in `folder`, underscores in NOUN for spaces; white is inside."""

    def find(image: Image.Image, name: str, nouns: Sequence[str]) -> list[np.ndarray | None]:
        found = []
        for noun in nouns:
            path = folder / Path(name).stem / f"{noun.replace(' ', '_')}.png"
            if not path.exists():
                found.append(None)
                continue
            with Image.open(path) as mask:
                if mask.size != image.size:
                    raise RealCompoError(f"{path} is {mask.size}, its image {name} is {image.size}: resize the mask")
                found.append(np.asarray(mask.convert("L")) > 127)
        return found

    return find


class _Stage:
    """What a stage found so far, a line of its file for each record. Raises DatasetError for other records."""

    def __init__(self, path: Path, records: Sequence[dict]):
        self._path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        lines = [line for line in lines if line.endswith(b"\n")]  # the last is cut off if the run was killed
        self.found = [json.loads(line) for line in lines]
        names = [entry.pop("file_name") for entry in self.found]
        if names != [record["file_name"] for record in records[: len(names)]]:
            raise DatasetError(f"{path} is of other images than those given: take another output folder, or delete it")
        self.count = len(self.found)
        with _writing(path) as part:
            part.write_bytes(b"".join(lines))

    def add(self, name: str, entry: dict) -> None:
        self.found.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"file_name": name, **entry}) + "\n")


def _write_masks(output: Path, record: dict, masks: Sequence[np.ndarray | None]) -> list[list]:
    """The official `attn_list`: each noun with the path of its mask, which is written."""
    entries = []
    for noun, mask in zip(record["nouns"], masks, strict=True):
        name = None
        if mask is not None and mask.any():
            stem = Path(record["file_name"]).stem
            name = f"seg/{stem}/mask_{stem}_{_file_name(noun)}.png"
            with _writing(output / name) as part:
                Image.fromarray(mask.astype(np.uint8) * 255).save(part, "PNG")
        entries.append([noun, name])
    return entries


def _file_name(noun: str) -> str:
    """A noun as part of a file name that every system allows."""
    return "".join(c if c.isalnum() or c in "-'" else "_" for c in noun)


def _open(path: Path) -> Image.Image | OSError:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:
        return error


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Like `files.replacing`; also makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        yield part


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()] if path.exists() else []


def _caption_file(path: Path) -> dict[str, list[str]]:
    """Captions by image name."""
    try:
        text = path.read_text("utf-8")
        pairs = _coco_pairs(json.loads(text)) if path.suffix == ".json" else _jsonl_pairs(text)
        found: dict[str, list[str]] = {}
        for name, caption in pairs:
            found.setdefault(name, []).append(" ".join(caption.split()))
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"captions {path} cannot be read ({error!r}): expected lines of {{file_name, text}}, or COCO's captions"
        ) from error


def _coco_pairs(data: dict) -> Iterator[tuple[str, str]]:
    names = {image["id"]: image["file_name"] for image in data["images"]}
    return ((names[entry["image_id"]], entry["caption"]) for entry in data["annotations"])


def _jsonl_pairs(text: str) -> Iterator[tuple[str, str]]:
    entries = (json.loads(line) for line in text.splitlines() if line.strip())
    return ((entry["file_name"], entry["text"]) for entry in entries)
