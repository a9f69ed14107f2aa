"""Names that a workflow gives, inside the host's folders."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from realcompo_core.errors import RealCompoError


def inside(folder: str, name: str, what: str) -> Path:
    """The path of `name` in a folder of the host. `what`: the input that it comes from, for the message.

    Raises RealCompoError for a name that leads out of the folder, on any system.
    """
    flavours = PurePosixPath(name), PureWindowsPath(name)
    if "\0" in name or not flavours[0].parts or any(path.anchor or ".." in path.parts for path in flavours):
        raise RealCompoError(f"{what}: {name!r} leads out of {folder}: give a name inside of it, without '..'")
    return Path(folder, name)
