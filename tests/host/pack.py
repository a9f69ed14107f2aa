"""The pack, loaded by the checks beside this file as the host loads a folder of custom nodes."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

from aiohttp import web

ROOT = Path(__file__).parents[2]


async def load_nodes() -> dict:
    """The nodes by id. The pack's modules are then found under `realcompo_pack`."""
    from server import PromptServer  # the host's, once it has read its options

    PromptServer.instance = SimpleNamespace(routes=web.RouteTableDef())  # main.py makes it before it loads nodes
    spec = importlib.util.spec_from_file_location(
        "realcompo_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    pack = sys.modules["realcompo_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes = await (await pack.comfy_entrypoint()).get_node_list()
    return {node.GET_SCHEMA().node_id: node for node in nodes}
