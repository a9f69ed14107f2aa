"""What the user should know, shown on the node that runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from comfy_execution.utils import get_executing_context
from server import PromptServer

_warned: set[str] = set()  # nodes that show warnings of an earlier run


def show_on_node(text: str) -> None:
    """Shows `text` on the node that runs, in the graph editor."""
    context = get_executing_context()
    if context is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def warn_on_node(warnings: Sequence[str]) -> None:
    """Logs the warnings and shows them on the node that runs, instead of those of its last run."""
    for warning in warnings:
        logging.warning("RealCompo: %s", warning)
    show_outside(warnings)
    context = get_executing_context()
    if context is None or not (warnings or context.node_id in _warned):
        return
    show_on_node("\n".join(f"Note: {warning}" for warning in warnings))
    (_warned.add if warnings else _warned.discard)(context.node_id)


def show_outside(warnings: Sequence[str]) -> None:
    """Shows the warnings in a corner of the editor, if the node that runs is inside a subgraph and so out of sight."""
    context = get_executing_context()
    if context is None or ":" not in context.node_id:
        return
    for warning in warnings:
        data = {"prompt_id": context.prompt_id, "text": warning}
        PromptServer.instance.send_sync("realcompo.warning", data, PromptServer.instance.client_id)
