"""Reads and checks the fields of a record (text, paths, lists), which may hold anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from reprlib import repr as short

from .records import NounMask, RecordError, Source


class Fields:
    """Reads fields of the record at `where`; whatever is not as expected raises RecordError."""

    def __init__(self, where: str, file: str):
        self.where, self.file = where, file

    def malformed(self, message: str) -> RecordError:
        return RecordError("malformed record", self.where, self.file, message)

    def json(self, line: bytes) -> dict:
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self.malformed(f"no JSON ({error}): {short(line)}") from None
        if not isinstance(data, dict):
            raise self.malformed(f"{short(data)}, expected an object")
        return data

    def utf8(self, value: bytes, name: str) -> str:
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.malformed(f"{name}: not UTF-8 ({error})") from None

    def text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise self.malformed(f"{name}: {short(value)}, expected text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.malformed(f"{name}: {short(value)} holds half a character ({error})") from error
        return value

    def path(self, value: object, name: str) -> PurePosixPath:
        text = self.text(value, name)
        if not text or "\0" in text:
            raise self.malformed(f"{name}: {short(text)}, expected a path")
        flavours = (PurePosixPath(text), PureWindowsPath(text))
        if any(path.anchor or ".." in path.parts for path in flavours):
            raise RecordError(
                "path outside the set",
                self.where,
                self.file,
                f"{name}: {short(text)}, expected a relative path without '..'",
            )
        return PurePosixPath(text)

    def attn_list(self, value: object, source: Callable[[PurePosixPath], Source]) -> tuple[NounMask, ...]:
        if not isinstance(value, list):
            raise self.malformed(f"attn_list: {short(value)}, expected a list of [noun, mask path or null]")
        pairs = []
        for i, pair in enumerate(value):
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.malformed(f"attn_list[{i}]: {short(pair)}, expected [noun, mask path or null]")
            mask = None if pair[1] is None else source(self.path(pair[1], f"attn_list[{i}][1]"))
            pairs.append(NounMask(self.text(pair[0], f"attn_list[{i}][0]"), mask))
        return tuple(pairs)

    def image(self, value: object, name: str) -> Source | None:
        """What a Hugging Face image column stores: {bytes, path} or null. The paths are the library's own."""
        if value is None:
            return None
        stored = value if isinstance(value, dict) else {}
        if isinstance(stored.get("bytes"), bytes):
            return Source(name, data=stored["bytes"])
        if isinstance(stored.get("path"), str) and "\0" not in stored["path"]:
            return Source(name, (Path(stored["path"]),))
        raise self.malformed(f"{name}: {short(value)}, expected an image of bytes or a path")
