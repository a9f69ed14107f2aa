"""Training sets as WebDataset tar shards, for sets that outgrow a disk: written whole or not at all, read in one pass.

A shard holds for each record `KEY.jpg` (or .png, .webp, …), `KEY.txt` with the caption, `KEY.json` with
`{"attn_list": [[noun, "0.mask.png" or null], …]}`, and the masks as `KEY.0.mask.png` and so on; a record's files follow
one another. `shards.json` beside the shards counts their records; where it is missing they are counted by reading.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from PIL import Image

from realcompo_core.files import new_folder

from .fields import Fields
from .pictures import decode
from .records import DatasetError, Record, RecordError, Source

INDEX = "shards.json"
SUFFIXES = {"BMP": "bmp", "GIF": "gif", "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp"}
IMAGE_SUFFIXES = {"jpeg", *SUFFIXES.values()}

Members = dict[str, tarfile.TarInfo]
"""A record's files in a shard by what follows the key: "jpg", "0.mask.png"."""


class ShardSet:
    """The shards of a folder, or those listed, in which records are read one after another.

    `paths` are the shards, `counts` their numbers of records. Raises DatasetError if there are none, or if
    `shards.json` speaks of other ones.
    """

    def __init__(self, source: str | Path | Sequence[str | Path]):
        folder = Path(source) if isinstance(source, str | Path) else None
        self.paths = sorted(folder.glob("*.tar")) if folder else [Path(path) for path in source]
        if folder and (folder / INDEX).is_file():
            self.counts = _indexed_counts(folder / INDEX, self.paths)
        else:
            self.counts = [_count(path) for path in self.paths]
        if not sum(self.counts):
            raise DatasetError(f"{source} holds no shard with a record: expected *.tar")

    def __len__(self) -> int:
        return sum(self.counts)

    def each(self) -> Iterator[Record | RecordError]:
        """Every record in order, or the error in its place."""
        for shard in range(len(self.paths)):
            yield from self.read(shard)

    def read(self, shard: int, start: int = 0) -> Iterator[Record | RecordError]:
        """The records of a shard from `start` on, or the errors in their places: always as many as counted."""
        path, count = self.paths[shard], self.counts[shard]
        done, reason = start, "the shard ends before it"
        try:
            for tar, key, members in islice(_samples(path), start, count):
                try:
                    entry = _record(path, tar, key, members)
                except RecordError as error:
                    entry = error
                done += 1
                yield entry
        except Exception as error:  # a damaged archive raises whatever its bytes lead to
            reason = str(error) or type(error).__name__
        for number in range(done, count):
            message = f"record {number + 1} of {count} cannot be read: {reason}"
            yield RecordError("unreadable shard", f"{path.name}:{number}", str(path), message)

    def fingerprint(self) -> str:
        """A digest of the shards' names, sizes and modification times, for caches of what was computed from them."""
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                found = path.stat()
                stamp = [found.st_size, found.st_mtime_ns]
            except OSError:
                stamp = []
            digest.update(repr((path.name, stamp)).encode())
        return digest.hexdigest()


def write_shards(records: Iterable[Record | RecordError], folder: str | Path, per_shard: int = 1000) -> ShardSet:
    """Writes records into `folder` as `shard-000000.tar` and so on, in their order; files are copied byte by byte.

    Nobody sees `folder` before it is complete: it is written as "FOLDER.part". Raises DatasetError if either is there
    already with something in it or cannot be written, and where there is no record; RecordError for a record that is
    one already, or whose files are missing or no images. Nothing is left behind then.
    """
    try:
        with new_folder(folder) as part:
            index = {"version": 1, "shards": _write_all(records, part, per_shard)}
            (part / INDEX).write_text(json.dumps(index, indent=1))
    except OSError as error:
        raise DatasetError(f"cannot write {folder}: {error.strerror or error}") from error
    return ShardSet(folder)


def _write_all(records: Iterable[Record | RecordError], folder: Path, per_shard: int) -> list[dict]:
    numbered = enumerate(records)
    written = []
    for first in numbered:
        path = folder / f"shard-{len(written):06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, record in chain([first], islice(numbered, per_shard - 1)):
                if isinstance(record, RecordError):
                    raise record
                _add_record(tar, f"{number:09d}", record)
        count = number - first[0] + 1
        written.append({"name": path.name, "records": count, "bytes": path.stat().st_size})
    if not written:
        raise DatasetError("there is no record to write into shards")
    return written


def _add_record(tar: tarfile.TarFile, key: str, record: Record) -> None:
    attn_list, masks = [], {}
    for i, (noun, mask) in enumerate(record.nouns):
        name = None
        if mask is not None:
            data = record.read(mask, i)
            name = f"{i}.mask.{SUFFIXES[decode(record, mask, data, _format, i)]}"
            masks[name] = data
        attn_list.append([noun, name])
    image = record.read(record.image)
    files = {SUFFIXES[decode(record, record.image, image, _format)]: image, "txt": record.caption.encode()}
    files |= {"json": json.dumps({"attn_list": attn_list}, ensure_ascii=False).encode(), **masks}
    for suffix, data in files.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, BytesIO(data))


def _format(image: Image.Image) -> str:
    return image.format


def _record(path: Path, tar: tarfile.TarFile, key: str, members: Members) -> Record:
    fields = Fields(f"{path.name}:{key}", str(path))
    listed = ", ".join(members)

    def read(suffix: str) -> bytes:
        if suffix not in members:
            raise fields.malformed(f"its files are {listed}: {key}.{suffix} is missing")
        return tar.extractfile(members[suffix]).read()

    def mask(name: PurePosixPath) -> Source:
        suffix = str(name).lower()
        return Source(f"{path.name}/{key}.{name}", data=read(suffix) if suffix in members else None)

    images = [suffix for suffix in members if suffix in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise fields.malformed(f"its files are {listed}: expected one image, not {len(images)}")
    data = fields.json(read("json"))
    nouns = fields.attn_list(data.get("attn_list"), mask)
    image = Source(f"{path.name}/{key}.{images[0]}", data=read(images[0]))
    return Record(image, fields.utf8(read("txt"), "caption"), nouns, fields.where)


def _samples(path: Path) -> Iterator[tuple[tarfile.TarFile, str, Members]]:
    """For each record the open archive, its key and its files. Raises what tarfile raises, also for a cut off end."""
    with tarfile.open(path, "r:") as tar:
        key, members = "", {}
        is_empty = tar.firstmember is None  # Python 3.10 fails when it is asked for what is not there
        while not is_empty and (member := tar.next()) is not None:
            tar.members.clear()  # it would hold every header of the shard
            if not member.isreg() or member.issparse():  # a sparse file may unpack to terabytes
                continue
            folder, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if members and key != folder + slash + stem:
                yield tar, key, members
                members = {}
            key = folder + slash + stem
            members[suffix.lower()] = member
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            # tarfile takes any damaged header, and the end of the file, for the end of the archive
            raise tarfile.ReadError(f"damaged or cut off at byte {tar.offset}")
        if members:
            yield tar, key, members


def _count(path: Path) -> int:
    """The records of a shard; where it is damaged, those before and one that stands for what is lost."""
    count = 0
    try:
        for _ in _samples(path):
            count += 1
    except Exception:  # a damaged archive raises whatever its bytes lead to; reading it tells what
        count += 1
    return count


def _indexed_counts(index: Path, paths: Sequence[Path]) -> list[int]:
    try:
        shards = json.loads(index.read_bytes())["shards"]
        known = {str(shard["name"]): (int(shard["records"]), int(shard["bytes"])) for shard in shards}
        found = {path.name: path.stat().st_size for path in paths}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{index} is no index of shards ({error}): remove it, and they are counted") from error
    for name in sorted(known.keys() | found.keys()):
        if name not in known or name not in found or known[name][1] != found[name]:
            here = f"{found[name]} bytes" if name in found else "missing"
            listed = f"{known[name][1]} bytes" if name in known else "no such shard"
            raise DatasetError(
                f"{name} is {here}, {index} says {listed}: copy the set again, or remove {INDEX} to count what is there"
            )
    return [known[path.name][0] for path in paths]
