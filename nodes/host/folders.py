"""Names that a workflow gives, inside the host's folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from realcompo_core.errors import RealCompoError

DEVICES = frozenset(("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³")))


def inside(folder: str, name: str, what: str) -> Path:
    """The path of `name` in a folder of the host. `what`: the input that it comes from, for the message.

    Raises RealCompoError for a name that leads out of the folder on any system, itself or by a link, and for the names
    that Windows gives to devices, with or without a suffix.
    """
    check_name(folder, name, what)
    path = Path(folder, name)
    check_links([folder], path, what)
    return path


def check_name(folder: str, name: str, what: str) -> None:
    """`inside`, as far as the name alone tells."""
    flavours = PurePosixPath(name), PureWindowsPath(name)
    if "\0" in name or not flavours[0].parts or any(path.anchor or ".." in path.parts for path in flavours):
        raise RealCompoError(f"{what}: {name!r} leads out of {folder}: give a name inside of it, without '..'")
    if devices := [part for part in flavours[1].parts if part.partition(".")[0].rstrip().upper() in DEVICES]:
        raise RealCompoError(f"{what}: {devices[0]!r} in {name!r} is a device on Windows: choose another name")


def check_links(folders: Sequence[str], path: Path, what: str) -> None:
    """Raises RealCompoError unless `path`, all links followed, is in one of `folders`, which may be links too."""
    target = path.resolve()
    if not any(target.is_relative_to(Path(folder).resolve()) for folder in folders):
        raise RealCompoError(
            f"{what}: {str(path)!r} is a link to {target}, which is not in {' or '.join(map(str, folders))}: put the "
            "files there, or give ComfyUI their folder (extra_model_paths.yaml, --input-directory, --output-directory)"
        )
