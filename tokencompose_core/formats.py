"""Training sets as they lie on disk: the official release's `metadata.jsonl`, a plain folder, Hugging Face `datasets`.

All are sequences of `Record`; shards, in `shards.py`, are not. Opening one reads names and text, images and masks stay
where they are. Paths in records are relative and stay in the set: absolute ones and "..", also in those of Windows, are
refused. Links in the set are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

from realcompo_core.files import read_file

from .fields import Fields
from .records import DatasetError, NounMask, Record, RecordError, Source
from .shards import ShardSet

METADATA = "metadata.jsonl"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".gif", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
RECORDED_MASKS, RELEASED_MASKS = "seg", "coco_gsam_seg"  # the release's records say one, its archive unpacks the other

MaskFolders = tuple[tuple[Path, bool], ...]
"""Folders in which a mask may lie, tried in order; True where the path's leading "seg" is left out."""


def open_records(source: str | Path | Any, masks: str | Path | None = None) -> Sequence[Record] | ShardSet:
    """The set at a path, or in a Hugging Face dataset.

    A path is a `metadata.jsonl`, a folder that holds one (itself or in "train"), a folder of shards, a dataset that
    `save_to_disk` wrote, or a plain folder (`FolderRecords`). `masks` is the folder of the masks, where they are not
    found by themselves. Raises DatasetError.
    """
    if not isinstance(source, str | Path):
        return HuggingFaceRecords(source, masks)
    path = Path(source)
    for metadata in (path, path / METADATA, path / "train" / METADATA):
        if metadata.name.endswith(".jsonl") and metadata.is_file():
            return MetadataRecords(metadata, masks)
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return HuggingFaceRecords(_load_from_disk(path), masks)
    if any(path.glob("*.tar")):
        return ShardSet(path)
    return FolderRecords(path, masks)


class MetadataRecords(Sequence):
    """The official format: lines `{"file_name": …, "text": …, "attn_list": [[noun, mask path or null], …]}`.

    `file_name` is relative to the file's folder. Mask paths are relative to `masks`, with or without their leading
    "seg"; where that is not given, to the file's folder or its parent, or without "seg" to the folder "coco_gsam_seg"
    beside the parent, as in the official release. Raises DatasetError if there is no such file or it has no line.
    """

    def __init__(self, path: str | Path, masks: str | Path | None = None):
        self.path = Path(path)
        self._folders = _folders_beside(self.path.parent) if masks is None else _folders_under(Path(masks))
        try:
            lines = read_file(self.path).splitlines()
        except OSError as error:
            raise DatasetError(f"cannot read {self.path}: {error.strerror or error}") from error
        self._lines = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if not self._lines:
            raise DatasetError(f"{self.path} has no record: expected one JSON object in a line")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Record:
        number, line = self._lines[index]
        fields = Fields(f"{self.path.name}:{number}", str(self.path))
        data = fields.json(line)
        name = fields.path(data.get("file_name"), "file_name")
        image = Source(str(name), (self.path.parent / name,))
        nouns = fields.attn_list(data.get("attn_list"), lambda name: _mask_source(name, self._folders))
        return Record(image, fields.text(data.get("text"), "text"), nouns, fields.where)


class FolderRecords(Sequence):
    """A plain folder: `NAME.jpg` (.jpeg, .png, .webp), its caption in `NAME.txt`, its masks in `masks/NAME/NOUN.png`
    (or another of `MASK_SUFFIXES`).

    Underscores in NOUN stand for spaces. Records are sorted by name; folders inside are not searched. A caption or
    masks without an image are records too, with a missing file. Raises DatasetError if there is none at all.
    """

    def __init__(self, path: str | Path, masks: str | Path | None = None):
        self.path = Path(path)
        self.masks = self.path / "masks" if masks is None else Path(masks)
        try:
            files = [file for file in self.path.iterdir() if not file.name.startswith(".")]
            folders = list(self.masks.iterdir()) if self.masks.is_dir() else []
        except OSError as error:
            raise DatasetError(f"cannot read {error.filename}: {error.strerror or error}") from error
        self._images: dict[str, list[str]] = {}
        for file in sorted(files):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                self._images.setdefault(file.stem, []).append(file.name)
        captions = {file.stem for file in files if file.suffix == ".txt"}
        masked = {folder.name for folder in folders if folder.is_dir()}
        self._names = sorted(self._images.keys() | captions | masked)
        if not self._names:
            raise DatasetError(
                f"{self.path} holds no training set: neither {METADATA}, nor shards, nor images with captions "
                f"(NAME{IMAGE_SUFFIXES[0]} and NAME.txt, masks in masks/NAME/NOUN.png)"
            )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Record:
        name = self._names[index]
        images = self._images.get(name, [f"{name}{IMAGE_SUFFIXES[0]}"])
        fields = Fields(images[0], str(self.path / images[0]))
        if len(images) > 1:
            raise fields.malformed(f"{len(images)} images of one name ({', '.join(images)}): rename or remove one")
        caption = self.path / f"{name}.txt"
        try:
            text = fields.utf8(read_file(caption), caption.name).strip()
        except OSError as error:
            reason = error.strerror or error
            raise RecordError("missing file", fields.where, str(caption), f"caption {caption} ({reason})") from error
        masks = mask_files(self.masks / name)
        nouns = (NounMask(mask_noun(mask), Source(f"{name}/{mask.name}", (mask,))) for mask in masks)
        return Record(Source(images[0], (self.path / images[0],)), text, tuple(nouns), fields.where)


class HuggingFaceRecords(Sequence):
    """A `datasets.Dataset` with columns `image`, `text` and either `attn_list` or `nouns` and `masks`.

    `attn_list` is as in `MetadataRecords`, its paths relative to the folder `masks`. `nouns` is a list of text, `masks`
    a list as long of images or null. Rows are read when they are asked for and images are decoded by us, so one bad
    image spoils no other row. Raises DatasetError for other columns, and for a dataset that is not a table: of several
    splits (choose one) or streamed (write shards instead).
    """

    def __init__(self, dataset: Any, masks: str | Path | None = None):
        if isinstance(dataset, Mapping) or not (hasattr(dataset, "__len__") and hasattr(dataset, "features")):
            raise DatasetError(f"a {type(dataset).__name__} is no table of rows: pass one split that is not streamed")
        columns = set(dataset.features)
        missing = sorted({"image", "text"} - columns)
        if missing or not ("attn_list" in columns or {"nouns", "masks"} <= columns):
            raise DatasetError(
                f"columns {sorted(columns)}: expected image, text and either attn_list or nouns and masks. "
                "Rename yours with dataset.rename_column"
            )
        if "masks" not in columns and masks is None:
            raise DatasetError("the masks of attn_list are paths: say which folder they are relative to (masks=…)")
        self._folders = () if masks is None else _folders_under(Path(masks))
        self._paired = "masks" in columns
        self._rows = dataset.with_format("arrow")  # images stay as they are stored

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        fields = Fields(f"row {index}", "")
        try:
            (row,) = self._rows[index].to_pylist()
        except Exception as error:  # whatever the table's reader raises, other rows can be read
            raise fields.malformed(f"cannot be read ({error})") from error
        image = fields.image(row["image"], f"{fields.where} image")
        if image is None:
            raise fields.malformed("image: null, expected an image")
        if self._paired:
            nouns, masks = row["nouns"], row["masks"]
            if not isinstance(nouns, list) or not isinstance(masks, list) or len(nouns) != len(masks):
                raise fields.malformed(f"nouns {short(nouns)} and masks are not lists of one length")
            pairs = [
                NounMask(fields.text(noun, f"nouns[{i}]"), fields.image(mask, f"{fields.where} masks[{i}]"))
                for i, (noun, mask) in enumerate(zip(nouns, masks, strict=True))
            ]
        else:
            pairs = fields.attn_list(row["attn_list"], lambda name: _mask_source(name, self._folders))
        return Record(image, fields.text(row["text"], "text"), tuple(pairs), fields.where)


def mask_files(folder: Path) -> list[Path]:
    """The masks of one image, sorted; none where there is no such folder."""
    return sorted(file for file in folder.glob("[!.]*") if file.suffix.lower() in MASK_SUFFIXES)


def mask_noun(path: Path) -> str:
    """The noun that a mask's file name says."""
    return " ".join(path.stem.replace("_", " ").split())


def _folders_under(folder: Path) -> MaskFolders:
    return (folder, False), (folder, True)


def _folders_beside(folder: Path) -> MaskFolders:
    return (folder, False), (folder.parent, False), (folder.parent.parent / RELEASED_MASKS, True)


def _mask_source(name: PurePosixPath, folders: MaskFolders) -> Source:
    bare = PurePosixPath(*name.parts[1:]) if name.parts[0] == RECORDED_MASKS and len(name.parts) > 1 else name
    paths = (folder / (bare if without_seg else name) for folder, without_seg in folders)
    return Source(str(name), tuple(dict.fromkeys(paths)))


def _load_from_disk(path: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"{path} was written by Hugging Face datasets: pip install datasets") from error
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # whatever the library raises for a damaged folder
        raise DatasetError(f"cannot load {path} with datasets {datasets.__version__}: {error}") from error
