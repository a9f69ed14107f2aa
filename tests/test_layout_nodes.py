"""The layout nodes in a real ComfyUI: in a process of their own, as the host has a top-level `nodes` itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "host" / "layout_nodes_checks.py"


def host() -> Path:
    return Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")


def host_python() -> str:
    """The Python of the host's own environment, or else the one of these tests."""
    own = host() / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return str(own) if own.exists() else sys.executable


@pytest.mark.skipif(
    not (host() / "comfy_api").is_dir(), reason=f"no ComfyUI in {host()}: set COMFYUI_PATH or run `comfy install`"
)
def test_layout_nodes_in_the_host():
    result = subprocess.run([host_python(), CHECKS], cwd=host(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-3000:]}"
