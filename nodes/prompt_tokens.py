"""Where the layout's objects are among the tokens that the host's text encoder read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from realcompo_core.balancer import branch_names
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout
from realcompo_core.tokens import TokenGroup, phrase_indices, token_groups

END_OF_WORD = "</w>"


def prompt_groups(clip: Any, layout: Layout, include_adjectives: bool, positives: Sequence[list]) -> list[TokenGroup]:
    """The objects' token groups in the conditioning that `clip` makes of the layout's prompt.

    Raises PhraseNotInPromptError for a phrase that is not in it, and RealCompoError where one of `positives`, each
    branch's, has a conditioning that maps will be read from and that cannot be of that prompt.
    """
    if not layout.objects:
        return []
    if not layout.prompt:
        raise RealCompoError("the layout has no prompt, so that its phrases cannot be found in it: give it one")
    pieces, length = prompt_pieces(clip, layout.prompt)
    for name, positive in zip(branch_names(len(positives)), positives, strict=True):
        for tensor, options in positive:
            if tensor is not None and covers_picture(options) and tensor.shape[1] != length:
                raise RealCompoError(
                    f"{name} branch: a positive conditioning of the whole picture has {tensor.shape[1]} tokens, the "
                    f"layout's prompt {length} ({layout.prompt!r}): encode that very prompt"
                )
    phrases = [item.phrase for item in layout.objects]
    return token_groups(phrase_indices(pieces, phrases, include_adjectives=include_adjectives))


def covers_picture(options: dict) -> bool:
    """Whether a conditioning with these options acts on the whole picture, so that its attention can be read."""
    return "area" not in options and "mask" not in options


def prompt_pieces(clip: Any, prompt: str) -> tuple[list[tuple[str, list[int]]], int]:
    """The prompt's words, each with its token indices in the conditioning, and the conditioning's length."""
    chunks = clip.tokenize(prompt, return_word_ids=True)
    chunks = chunks[next((name for name in ("l", "h", "g") if name in chunks), next(iter(chunks)))]
    pieces: list[tuple[str, list[int]]] = []
    text, indices, position = "", [], 0
    for chunk in chunks:
        for (token, _, word_id), (_, piece) in zip(chunk, _pieces(clip, chunk), strict=True):
            if word_id != 0 and isinstance(token, int):
                indices.append(position)
                text += piece.removesuffix(END_OF_WORD)
                if piece.endswith(END_OF_WORD):
                    pieces.append((_decoded(text) + " ", indices))
                    text, indices = "", []
            position += 1
    return pieces, position


def _pieces(clip: Any, chunk: list) -> list[tuple]:
    """Each token with its vocabulary entry; an embedding has none."""
    return [
        (pair, clip.tokenizer.untokenize([pair])[0][1] if isinstance(pair[0], int) else END_OF_WORD) for pair in chunk
    ]


def _decoded(text: str) -> str:
    """What byte-level BPE writes as printable characters, as the text it stands for."""
    return bytes(_bytes()[character] for character in text).decode("utf-8", errors="replace")


@cache
def _bytes() -> dict[str, int]:
    """The character of each byte in CLIP's vocabulary, backwards: printable bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
