"""`locales/en/nodeDefs.json` is made of the node definitions: `python tests/locale_files.py` writes it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from host_server import PACK, HostServer, find_hosts

LOCALES = PACK / "locales"
SPECIAL = "{}@|%$"  # vue-i18n, with which the editor reads these files, gives them a meaning


def escaped(text: str) -> str:
    """As a literal of vue-i18n."""
    return "".join(f"{{'{letter}'}}" if letter in SPECIAL else letter for letter in text)


def named(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, **({"tooltip": escaped(tooltip)} if tooltip else {})}


def english(host: HostServer) -> dict:
    """Names, descriptions and tooltips of the pack's nodes, in the form of the editor's `nodeDefs.json`."""
    made = {}
    for kind, info in host.get("/object_info").items():
        if not kind.startswith("RealCompo"):
            continue
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
        made[kind] = {
            "display_name": info["display_name"],
            "description": escaped(info["description"]),
            "inputs": {name: named(name, options.get("tooltip")) for name, (_, options) in inputs.items()},
            "outputs": {str(i): named(*output) for i, output in enumerate(outputs)},
        }
    return made


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        host = HostServer(find_hosts()[0], Path(folder) / "base")
        try:
            write(LOCALES / "en" / "nodeDefs.json", english(host))
        finally:
            host.stop()
