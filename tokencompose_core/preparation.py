"""From images and captions to a training set in the official format, in stages that can be stopped and replaced.

    captions   which of an image's captions is learnt: the first, or the one that CLIP finds most similar
    nouns      the caption's nouns (see `taggers.py`)
    masks      where each noun is in the image: masks that the user has, or Grounding DINO and SAM

Each stage is a function of one image. What it found is a line of `stages/NAME.jsonl` in the output folder, with a
digest of what it was found from. So a run that was stopped goes on with the next image, and one that is repeated after
a picture, a caption or a mask was changed does again what depends on it, and no more.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from realcompo_core.errors import RealCompoError
from realcompo_core.files import read_file, replacing

from .formats import MASK_SUFFIXES, mask_files, mask_noun
from .nouns import is_in_caption
from .pictures import read_image, read_mask
from .records import DatasetError, NounMask, Record, RecordError, Source
from .taggers import Tagger, extract_nouns

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
STAGES = ("captions", "nouns", "masks")
NAMED = 5  # pictures that a message names

ChooseCaption = Callable[[Image.Image, Sequence[str]], int]
"""An image (RGB) and its captions -> the index of the one to learn."""
MakeMasks = Callable[[Image.Image, str, Sequence[str]], Sequence["np.ndarray | None"]]
"""An image (RGB), its file name, nouns -> for each noun a (height, width) bool mask; None where nothing is found."""
# Where one of these, or a tagger, has an attribute `identity`, what others found before is not taken for its own.


class CaptionedImage(NamedTuple):
    """The file name of an image in the source folder, and all its captions."""

    name: str
    captions: tuple[str, ...]


class GroundedNoun(NamedTuple):
    """A noun and its (height, width) bool mask; None where there is none."""

    noun: str
    mask: np.ndarray | None


def read_pictures(
    images: Path, captions: Path | None = None, tell: Callable[[str], None] = lambda text: None
) -> list[CaptionedImage]:
    """The images of a folder that have captions, sorted by name.

    captions: None for `NAME.txt` beside each image, a caption a line; a JSON-lines file of {"file_name", "text"} with
    one or several lines an image; or a COCO captions file. `tell` is called with a line about images that are left out:
    those without a caption, and those whose name without suffix another one has, too. Raises DatasetError where there
    is none, or captions that cannot be read.
    """
    names = sorted(p.name for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else []
    if not names:
        raise DatasetError(f"{images} is no folder with images ({', '.join(IMAGE_SUFFIXES)})")
    if captions is None:
        texts = {name: _lines((images / name).with_suffix(".txt")) for name in names}
    else:
        texts = _caption_file(captions)
    where = captions or f"{images}: expected NAME.txt beside NAME.jpg"
    captioned = [name for name in names if texts.get(name)]
    if not captioned:
        raise DatasetError(f"none of the {len(names)} images in {images} has a caption in {where}")
    if missing := [name for name in names if not texts.get(name)]:
        tell(f"{_some(missing)} of {len(names)} images without a caption in {where}: left out")
    if unknown := sorted(texts.keys() - set(names)):
        tell(f"{_some(unknown)} with captions in {captions}, but not in {images}")
    first: dict[str, str] = {}
    for name in captioned:
        if first.setdefault(Path(name).stem, name) != name:
            tell(f"{name} left out: its masks would have the names of {first[Path(name).stem]}'s. Rename it")
    return [CaptionedImage(name, tuple(texts[name])) for name in first.values()]


def prepare(
    pictures: Sequence[CaptionedImage],
    images: Path,
    output: Path,
    choose: ChooseCaption,
    tagger: Tagger | str,
    masks: MakeMasks | MaskFolder,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Run all stages and write `output/metadata.jsonl`, with the images and `seg/` beside it; returns its path.

    `progress(stage, done, total)` is called after each image, `tell` with a line about each image and each mask that
    cannot be used and is left out, and at the end with how many there are.
    """
    find = masks.find if isinstance(masks, MaskFolder) else _drawn_by(masks)
    records: list[dict[str, Any]] = [
        {"file_name": name, "captions": captions, "digest": _digest(images / name)} for name, captions in pictures
    ]

    def choose_caption(record: dict) -> dict:
        return {"text": record["captions"][choose(read_image(_picture(images, record)), record["captions"])]}

    def find_nouns(record: dict) -> dict:
        return {"nouns": list(dict.fromkeys(noun.text for noun in extract_nouns(record["text"], tagger)))}

    def find_masks(record: dict) -> dict:
        found, left_out = find(_picture(images, record), record["nouns"])
        return {"attn_list": _write_masks(output, record["file_name"], found), "left_out": left_out}

    work = {"captions": choose_caption, "nouns": find_nouns, "masks": find_masks}
    inputs: dict[str, Callable[[dict], list]] = {
        "captions": lambda r: [r["digest"], r["captions"], _identity(choose)],
        "nouns": lambda r: [r["text"], tagger if isinstance(tagger, str) else _identity(tagger)],
        "masks": lambda r: [
            *(r["digest"], r["text"], r["nouns"]),
            masks.digest(r["file_name"]) if isinstance(masks, MaskFolder) else _identity(masks),
        ],
    }
    try:
        for stage in STAGES:
            done = _Stage(output / "stages" / f"{stage}.jsonl")
            for i, record in enumerate(records):
                name, key = record["file_name"], _key(inputs[stage](record))
                found = done.found(name, key)
                if found is None or not all((output / path).exists() for _, path in found.get("attn_list", []) if path):
                    try:
                        found = work[stage](record)
                    except RecordError as error:
                        found = {"failed": str(error)}
                    done.add(name, key, found)
                record.update(found)
                for reason in [record["failed"]] if "failed" in record else found.get("left_out", []):
                    tell(f"{reason}: left out")
                progress(stage, i + 1, len(records))
            records = [record for record in records if "failed" not in record]
            if not records:
                raise DatasetError(f"none of the images in {images} can be read")
        for record in records:
            source, target = images / record["file_name"], output / record["file_name"]
            if not target.exists() or not filecmp.cmp(source, target, shallow=False):
                with _writing(target) as part:
                    shutil.copyfile(source, part)
        lines = [json.dumps({key: record[key] for key in ("file_name", "text", "attn_list")}) for record in records]
        path = output / "metadata.jsonl"
        with _writing(path) as part:
            part.write_bytes("".join(line + "\n" for line in lines).encode())
    except OSError as error:
        raise RealCompoError(
            f"cannot write into {output} ({error.strerror or error}): make room, and run again: it goes on from here"
        ) from error
    if isinstance(masks, MaskFolder):
        for reason in masks.strays([record["file_name"] for record in records]):
            tell(f"{reason}: left out")
    nouns = [path for record in records for _, path in record["attn_list"]]
    tell(
        f"{len(records)} of {len(pictures)} images, {len(nouns) - nouns.count(None)} of {len(nouns)} nouns with a mask"
    )
    return path


class MaskFolder:
    """Masks that the user has: `NAME/NOUN.png` for the image NAME, in any format and case; underscores are spaces.

    NOUN is one of the caption's nouns, or any other phrase of the caption, such as "red_ball", which then is a noun of
    its own. They are read as training reads them (`pictures.read_mask`).
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def digest(self, name: str) -> list[list[str]]:
        """Names and contents of the masks of the image `name`."""
        return [[path.name, _digest(path)] for path in mask_files(self._folder / Path(name).stem)]

    def find(self, record: Record, nouns: Sequence[str]) -> tuple[list[GroundedNoun], list[str]]:
        """All nouns, those with several masks several times; and what is wrong with masks that cannot be used."""
        known = {noun.casefold(): noun for noun in nouns}
        found: dict[str, list[np.ndarray]] = {}
        left_out = []
        size = read_image(record).size
        for path in mask_files(self._folder / Path(record.image.name).stem):
            noun = mask_noun(path)
            noun = known.get(noun.casefold(), noun)
            mask = Source(f"{path.parent.name}/{path.name}", (path,))
            try:
                if noun not in known.values() and not is_in_caption(record.caption, noun):
                    message = f"{noun!r} of {mask.name} is not in {record.caption!r}"
                    raise record.error("noun not in the caption", message, mask)
                grounded = Record(record.image, record.caption, (NounMask(noun, mask),), record.where)
                values = read_mask(grounded, 0, size)
                found.setdefault(noun, []).append(values)
            except RecordError as error:
                left_out.append(str(error))
        listed = dict.fromkeys([*nouns, *found])
        return [GroundedNoun(noun, mask) for noun in listed for mask in found.get(noun, [None])], left_out

    def strays(self, names: Sequence[str]) -> list[str]:
        """What is in the folder but belongs to none of the images `names`."""
        try:
            files = [path for path in sorted(self._folder.rglob("*")) if path.is_file() and path.name[0] != "."]
        except OSError as error:
            raise DatasetError(f"cannot read {self._folder}: {error.strerror or error}") from error
        known = {Path(name).stem for name in names}
        reasons = []
        for path in files:
            place = path.relative_to(self._folder)
            if len(place.parts) != 2:
                reasons.append(f"{place.as_posix()}: its place is not NAME/NOUN{path.suffix}")
            elif place.parts[0] not in known:
                reasons.append(f"{place.as_posix()}: the set has no image {place.parts[0]}")
            elif path.suffix.lower() not in MASK_SUFFIXES:
                reasons.append(f"{place.as_posix()}: none of {', '.join(MASK_SUFFIXES)}")
        return reasons


def first_caption(image: Image.Image, captions: Sequence[str]) -> int:
    return 0


class _Stage:
    """What a stage found so far, a line of its file for each image."""

    def __init__(self, path: Path):
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        known: dict[str, dict] = {}
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                known[entry["file_name"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # cut off, as the disk was full or the run was killed
        self._known = known
        mended = "".join(json.dumps(entry) + "\n" for entry in known.values()).encode()
        if mended != content or not content:
            with _writing(path) as part:
                part.write_bytes(mended)

    def found(self, name: str, key: str) -> dict | None:
        """What was found in the image `name` from inputs with the digest `key`."""
        entry = self._known.get(name, {})
        return {k: v for k, v in entry.items() if k not in ("file_name", "key")} if entry.get("key") == key else None

    def add(self, name: str, key: str, found: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"file_name": name, "key": key, **found}) + "\n")


def _drawn_by(make: MakeMasks) -> Callable[[Record, Sequence[str]], tuple[list[GroundedNoun], list[str]]]:
    def find(record: Record, nouns: Sequence[str]) -> tuple[list[GroundedNoun], list[str]]:
        masks = make(read_image(record), record.image.name, nouns)
        return [GroundedNoun(noun, mask) for noun, mask in zip(nouns, masks, strict=True)], []

    return find


def _write_masks(output: Path, name: str, found: Sequence[GroundedNoun]) -> list[list]:
    """The official `attn_list`: each noun with the path of its mask, which is written."""
    entries: list[list] = []
    taken = set()
    for noun, mask in found:
        path = None
        if mask is not None and mask.any():
            stem = Path(name).stem
            start = path = f"seg/{stem}/mask_{stem}_{_file_name(noun)}"
            while path.casefold() in taken:
                path = f"{start}_{len(taken)}"
            taken.add(path.casefold())
            path += ".png"
            with _writing(output / path) as part:
                Image.fromarray(mask.astype(np.uint8) * 255).save(part, "PNG")
        entries.append([noun, path])
    return entries


def _file_name(noun: str) -> str:
    """A noun as part of a file name that every system allows."""
    return "".join(c if c.isalnum() or c in "-'" else "_" for c in noun)


def _picture(images: Path, record: dict) -> Record:
    name = record["file_name"]
    return Record(Source(name, (images / name,)), record.get("text", ""), (), name)


def _digest(path: Path) -> str:
    """Of a file's content; "" where it cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except OSError:
        return ""


def _key(inputs: list) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _identity(worker: Callable) -> str:
    return getattr(worker, "identity", "")


def _some(names: Sequence[str]) -> str:
    """How many there are, and the first of them."""
    return f"{len(names)} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Like `files.replacing`; also makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        yield part


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig") if path.exists() else ""
    except ValueError as error:
        raise DatasetError(f"caption {path} cannot be read ({error}): save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _caption_file(path: Path) -> dict[str, list[str]]:
    """Captions by image name."""
    try:
        text = path.read_text("utf-8-sig")
        pairs = _coco_pairs(json.loads(text)) if path.suffix == ".json" else _jsonl_pairs(text)
        found: dict[str, list[str]] = {}
        for name, caption in pairs:
            if caption.strip():
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
