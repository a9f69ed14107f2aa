"""Serves templates, help pages and scripts where ComfyUI itself does not: from a folder with an odd name."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from aiohttp import web
from yarl import URL

log = logging.getLogger(__name__)


def serve_from_odd_folder(pack: Path, routes: web.RouteTableDef) -> None:
    """Adds the routes that ComfyUI lacks for `pack`, the folder in custom_nodes; none for a plain name.

    Two things go wrong there. aiohttp never finds static files below a path that has to be quoted, such as one with a
    space. And the editor looks for help below the folder's name up to its first dot, because it reads that name out of
    "custom_nodes.<folder>".
    """
    name = pack.name
    if URL.build(path=f"/{name}").raw_path != f"/{name}":
        _serve(routes, "/extensions", name, "", pack / "web")
        _serve(routes, "/workflow_templates", name, "", pack / "workflows")
    first = name.split(".")[0]
    if first == name:
        return
    if (pack.parent / first).is_dir():
        log.warning(
            "RealCompo: the editor looks for its help pages in %s, another folder of custom_nodes: give %s a name "
            "without dots",
            first,
            name,
        )
    else:
        _serve(routes, "/extensions", first, "/docs", pack / "web" / "docs")


def _serve(routes: web.RouteTableDef, prefix: str, name: str, below: str, folder: Path) -> None:
    """Files of `folder` under <prefix>/<name><below>/. A pattern is matched with the path as it is, not quoted."""
    pattern = re.sub("[{}]", ".", re.escape(name))

    @routes.get(f"{prefix}/{{folder:{pattern}}}{below}/{{path:.+}}")
    async def served(request: web.Request) -> web.StreamResponse:
        path = (folder / request.match_info["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path)
