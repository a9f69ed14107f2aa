"""Writes the public addresses of a GitHub repository, its icon and its banner into pyproject.toml, for the registry.

`python docs/registry/addresses.py <owner>/<name> <commit>`. The addresses depend on where the project is published.
"""

from __future__ import annotations

import sys
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def with_addresses(text: str, repository: str, commit: str) -> str:
    """`text` of pyproject.toml with `Repository`, `Icon` and `Banner`."""
    pictures = f"https://raw.githubusercontent.com/{repository}/{commit}/docs/registry"
    urls = f'[project.urls]\nRepository = "https://github.com/{repository}"\n\n[tool.comfy]'
    text = text.replace("[tool.comfy]", urls)
    text = text.replace('Icon = ""', f'Icon = "{pictures}/icon.png"')
    return text.replace('Banner = ""', f'Banner = "{pictures}/banner.png"')


if __name__ == "__main__":
    PYPROJECT.write_text(with_addresses(PYPROJECT.read_text(encoding="utf-8"), *sys.argv[1:]), encoding="utf-8")
