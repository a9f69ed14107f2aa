"""ComfyUI nodes: schemas around `realcompo_core`. Not to be imported as top-level `nodes`, which is ComfyUI's own."""

from pathlib import Path

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from . import (
    attention_nodes,
    benchmark_nodes,
    composition_nodes,
    conditioning_nodes,
    editing_nodes,
    guidance_nodes,
    inversion_nodes,
    layout_nodes,
    report_nodes,
    sampling_nodes,
    shapescenes_nodes,
    sweep_nodes,
    train_nodes,
)
from .host.served import serve_from_odd_folder

MODULES = (
    layout_nodes,
    conditioning_nodes,
    composition_nodes,
    guidance_nodes,
    sampling_nodes,
    report_nodes,
    sweep_nodes,
    attention_nodes,
    inversion_nodes,
    editing_nodes,
    shapescenes_nodes,
    train_nodes,
    benchmark_nodes,
)


class RealCompoExtension(ComfyExtension):
    def __init__(self):  # ComfyUI 0.8.0 never calls `on_load`
        serve_from_odd_folder(Path(__file__).parents[1], PromptServer.instance.routes)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES for node in module.NODES]
