"""ComfyUI nodes: schemas around `realcompo_core`. Not to be imported as top-level `nodes`, which is ComfyUI's own."""

from comfy_api.latest import ComfyExtension, io

from . import (
    attention_nodes,
    conditioning_nodes,
    layout_nodes,
    report_nodes,
    sampling_nodes,
    shapescenes_nodes,
    sweep_nodes,
    train_nodes,
)

MODULES = (
    layout_nodes,
    conditioning_nodes,
    sampling_nodes,
    report_nodes,
    sweep_nodes,
    attention_nodes,
    shapescenes_nodes,
    train_nodes,
)


class RealCompoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [node for module in MODULES for node in module.NODES]
