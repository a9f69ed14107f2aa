"""Prints what CHANGELOG.md says of the newest version, which the registry shows with it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def newest(text: str) -> str:
    """The part below the first heading of a version."""
    return re.split(r"^## .*$", text, flags=re.MULTILINE)[1].strip()


if __name__ == "__main__":
    sys.stdout.buffer.write(newest(CHANGELOG.read_text(encoding="utf-8")).encode())
