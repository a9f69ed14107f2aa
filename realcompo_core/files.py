"""Files and folders that are written whole or not at all, and read only where they end."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PART = ".part"
STALE = 3600
"""Seconds after which nobody is writing a part of a file any more."""


@contextmanager
def replacing(path: str | Path, *, sync: bool = False, shared: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to. At the end of the block that file takes the place of `path`, in one step.

    Whoever reads `path` finds the older file or the new one, never a half of either. After an error, also an interrupt,
    the older file is as it was and nothing new is left. The folder must exist.

    sync: wait until the content is on the disk before it replaces the older file, so that a loss of power cannot leave
    neither. shared: other processes or threads may write the same path at this moment; each gets a part of its own.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}{PART}" if shared else path.name + PART)
    try:
        part.unlink(missing_ok=True)  # of a process that was killed, maybe with other permissions
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors 0.8 writes files that only their owner may read
        if sync:
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_file(path: str | Path, content: bytes | str, *, sync: bool = False, shared: bool = False) -> None:
    """Write `content` (text as UTF-8) as `replacing` does. Raises OSError."""
    with replacing(path, sync=sync, shared=shared) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_stale_parts(folder: str | Path) -> None:
    """Remove what killed writers of `replacing(…, shared=True)` left anywhere in `folder`, once it is an hour old.

    Until then it may be of a process that is writing, on this machine or another.
    """
    for part in Path(folder).rglob(f"*{PART}"):
        with suppress(OSError):  # another process may have removed or finished it
            if part.is_file() and time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def read_file(path: str | Path) -> bytes:
    """The content of a regular file. Raises OSError, also for devices and pipes, which may never end."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/realcompo/NAME` (default `~/.cache`), on Windows under `%LOCALAPPDATA%`."""
    if sys.platform == "win32":
        folder = Path(os.environ["LOCALAPPDATA"])
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "realcompo" / name


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder beside, "FOLDER.part", to write to. At the end of the block it becomes `folder`, in one step.

    After an error nothing is left. Raises FileExistsError where `folder` is there already and not empty, or where
    "FOLDER.part" is: another process may be writing there.
    """
    folder = Path(folder)
    part = folder.with_name(folder.name + PART)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already: choose a new folder, or remove it")
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise FileExistsError(f"{part} is there already: if a writer was stopped there, remove it") from error
    try:
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
