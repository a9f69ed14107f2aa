"""Layouts from a language model: the question, the answer, and one request to correct it."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ProviderError, ReplyError
from ..layout import Layout
from .continuation import continued
from .prompting import Chat, messages, repair_messages, revision_messages
from .text import parse_reply

Ask = Callable[[Chat], str]  # the model's reply to a chat


def proposed(ask: Ask, prompt: str, size: tuple[int, int], format: str = "auto") -> Layout:
    """The model's layout of `prompt`, for a picture of `size` = (width, height) pixels; `format` as in `parse_reply`.

    Raises what `ask` raises, and `ReplyError` for replies that hold no usable layout.
    """
    return _answered(
        ask, messages(prompt, size), lambda reply: parse_reply(reply, prompt=prompt, size=size, format=format)
    )


def revised(ask: Ask, layout: Layout, instruction: str, size: tuple[int, int], format: str = "auto") -> Layout:
    """`layout` changed by the model as `instruction` says; see `continued`. Raises as `proposed`."""
    return _answered(
        ask,
        revision_messages(layout, instruction, size),
        lambda reply: continued(layout, parse_reply(reply, size=size, format=format)),
    )


def _answered(ask: Callable[[Chat], str], chat: Chat, read: Callable[[str], Layout]) -> Layout:
    """What `read` makes of the reply that `ask` gets to `chat`; an unusable reply is asked to be corrected, once.

    Raises `ReplyError`, which tells both errors if the second reply is unusable as well or does not come.
    """
    reply = ask(chat)
    try:
        return read(reply)
    except ReplyError as error:
        first = error
    try:
        return read(ask(repair_messages(chat, reply, first)))
    except ReplyError as second:
        raise ReplyError(
            f"{second}. The reply before it was unusable too: {first.__cause__ or first}", second.reply
        ) from first
    except ProviderError as second:
        raise ReplyError(f"{first}. Asked to correct it: {second}", first.reply) from second
