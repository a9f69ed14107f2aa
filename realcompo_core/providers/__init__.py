"""Layout providers: from a sentence to a layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import ProviderError
from ..layout import Layout
from .cache import CachedProvider
from .given_reply import TextProvider
from .openai_server import OpenAIProvider
from .profiles import load_profile, profile_names
from .rules import RulesProvider


class LayoutProvider(Protocol):
    """Turns a sentence into a layout."""

    name: str

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        """The layout of `prompt` for a picture of `size` = (width, height) pixels.

        Raises `ProviderError` if the provider does not answer, `ReplyError` if its answer holds no usable layout, and
        `Cancelled` if the caller asked to stop.
        """

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        """`layout` changed as `instruction` says ("move the cat to the left"), for a picture of `size` pixels.

        Objects that the instruction does not speak of stay as they are. The new layout's prompt names what was added.
        Raises as `propose`; ProviderError as well for an instruction that the provider cannot read.
        """


def provider_names() -> list[str]:
    """Every name that `get_provider` accepts."""
    return ["rules", "text", *profile_names()]


def get_provider(
    name: str = "rules",
    *,
    reply: str | None = None,
    seed: int = 0,
    timeout: float = 120.0,
    cache: bool = True,
    format: str = "auto",
    cancelled: Callable[[], bool] = lambda: False,
    on_reply: Callable[[str], None] = lambda reply: None,
) -> LayoutProvider:
    """The provider `name`: "rules" (no model), "text" (parses `reply`) or a provider profile (see `profiles`).

    `seed`, `timeout` (seconds), `cache`, `cancelled` and `on_reply` concern language models, see `OpenAIProvider`. With
    `cache`, a layout that was proposed before is reused; `on_reply` is not called then. `format` is the order of the
    numbers of a box in a reply, see `text.parse_reply`; for models "auto" is xyxy, which they are asked for. Raises
    `ProviderError` for an unknown name.
    """
    if name == "rules":
        return RulesProvider()
    if name == "text":
        if reply is None:
            raise ProviderError("the provider 'text' parses a reply: pass it as `reply`, or use the provider 'rules'")
        return TextProvider(reply, format)
    if name not in profile_names():
        raise ProviderError(
            f"no layout provider {name!r}; there are {', '.join(provider_names())}. Take one of these, or describe "
            f"{name!r} in ~/.config/realcompo/providers.json (%APPDATA%\\realcompo on Windows), see "
            "realcompo_core/providers/profiles.py"
        )
    provider = OpenAIProvider(
        load_profile(name), seed=seed, timeout=timeout, format=format, cancelled=cancelled, on_reply=on_reply
    )
    return CachedProvider(provider) if cache else provider
