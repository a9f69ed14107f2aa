"""RealCompo as a ComfyUI node pack. ComfyUI loads this folder, whatever its name, and calls `comfy_entrypoint`."""

import importlib.util
import sys
from pathlib import Path

WEB_DIRECTORY = "./web"


def _make_importable(name: str) -> None:
    """Let `import name` find this folder's package, without putting `nodes` and `tests` on the host's path."""
    folder = Path(__file__).parent / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


async def comfy_entrypoint():
    for name in ("realcompo_core", "tokencompose_core", "shapescenes"):
        _make_importable(name)
    from .nodes import RealCompoExtension

    return RealCompoExtension()
