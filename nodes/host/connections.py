"""Whether anything in the running prompt uses a node's output."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context
from server import PromptServer


def output_is_used(slot: int) -> bool:
    """Whether output `slot` is connected, of the node that the host is running or whose fingerprint it asks for.

    True where that cannot be told.
    """
    context = get_executing_context()
    if context is None:
        return True
    running, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    prompt = next((entry[2] for entry in running if entry[1] == context.prompt_id), {})
    if context.node_id not in prompt:  # a node that another one has put there
        return True
    wire = [context.node_id, slot]
    return any(value == wire for node in prompt.values() for value in node["inputs"].values())
