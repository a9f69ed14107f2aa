"""Files that a command writes: whole or not at all, and listed, so that a stopped command can say what it kept."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from realcompo_core.errors import RealCompoError
from realcompo_core.files import write_file

if TYPE_CHECKING:
    from PIL.Image import Image


class OutputError(RealCompoError):
    """A file or folder that cannot be written."""


class Files:
    """Writes files into `folder`, which is made on the first one. `written` lists them in order."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.written: list[Path] = []

    def write(self, name: str, content: bytes | str) -> Path:
        """Replaces the file `name` by `content` (text as UTF-8). Raises OutputError."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}. Choose another place") from error
        self.written.append(path)
        return path

    def write_picture(self, name: str, picture: Image) -> Path:
        return self.write(name, png(picture))


def png(picture: Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def fingerprint_of(path: Path) -> str:
    """Ten digits that change with the names, sizes or times of a file, or of a folder's files."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:10]
