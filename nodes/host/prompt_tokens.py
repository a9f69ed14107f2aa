"""Where the layout's objects are among the tokens that the host's text encoder read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from realcompo_core.attention.maps import PromptWords
from realcompo_core.errors import RealCompoError
from realcompo_core.guidance.branch import branch_names
from realcompo_core.layout import Layout
from realcompo_core.text.tokens import TokenGroup, phrase_indices, token_groups

from .branch_input import BranchInput
from .chunks import PLACE, covers_picture

T5, UMT5 = "t5xxl", "umt5xxl"
QWEN = "qwen25_7b"
TURN_START, TURN_END, USER_LINE = 151644, 151645, (872, 198)  # Qwen2.5's tokens of a template; "user" and a line's end
SAME_TOKENS = 0.02  # relative difference of a token's encodings that are one
ALIKE = 0.7  # mean cosine of tokens' encodings, around their mean, from which on they are of one text
BROKEN, FIRST_WITHOUT_SPACES = "\ufffd", "\u2e80"  # a part of a letter; first letter of the scripts of East Asia
_ENCODED: WeakKeyDictionary[Any, tuple[str, Tensor]] = WeakKeyDictionary()
END_OF_WORD, WORD_START = "</w>", "▁"


def prompt_groups(clip: Any, layout: Layout, include_adjectives: bool) -> list[TokenGroup]:
    """The objects' token groups in the conditioning that `clip` makes of the layout's prompt.

    Of a conditioning with several texts, as SD3's with CLIP's and T5's, an object has the tokens of each.
    Raises PhraseNotInPromptError for a phrase that is not in it.
    """
    if not layout.objects:
        return []
    if not layout.prompt:
        raise RealCompoError("the layout has no prompt, so that its phrases cannot be found in it: give it one")
    texts, _ = _texts(clip, layout.prompt)
    phrases = [item.phrase for item in layout.objects]
    found = [phrase_indices(pieces, phrases, include_adjectives=include_adjectives) for pieces in texts]
    return token_groups([list(chain.from_iterable(tokens)) for tokens in zip(*found, strict=True)])


def with_places(
    clip: Any, layout: Layout, groups: Sequence[TokenGroup], branches: Sequence[BranchInput]
) -> tuple[list[BranchInput], list[str]]:
    """The branches, the layout's prompt found in their positive conditionings, and what the user should know.

    A conditioning of the whole picture that has the prompt, up to the last of the objects' tokens, says in its option
    `PLACE` at which token it begins. What follows them does not matter, nor what ConditioningConcat puts before it.
    A branch without any such conditioning is told of, unless it is of about the same text by another CLIP. Raises
    RealCompoError for one that is too short for the prompt.
    """
    if not groups:
        return list(branches), []
    asked = _encoded(clip, layout.prompt)[: max(token for group in groups for token in group.tokens) + 1]
    found, warnings = [], []
    for name, branch in zip(branch_names(len(branches)), branches, strict=True):
        positive = [_with_place(name, entry, asked, layout.prompt) for entry in branch.positive]
        whole = [(tensor, options) for tensor, options in positive if tensor is not None and covers_picture(options)]
        if whole and not any(PLACE in options for _, options in whole):
            if not any(_is_alike(tensor[:, : len(asked)], asked) for tensor, _ in whole):
                warnings.append(
                    f"{name} branch: its positive conditioning is not the layout's prompt ({layout.prompt!r}) as the "
                    "connected CLIP encodes it, so that the attention of other words is read. Wire the output `prompt` "
                    "of LLM Layout, or that very text, to the CLIP Text Encode of this branch; if another CLIP encodes "
                    "it, connect that one to `clip`"
                )
        found.append(replace(branch, positive=positive))
    return found, warnings


def _with_place(name: str, entry: Sequence, asked: Tensor, prompt: str) -> list:
    """The conditioning, with `PLACE` among its options where all its items have the tokens `asked`, (T, d)."""
    tensor, options = entry
    if tensor is None or not covers_picture(options):
        return [tensor, options]
    length = len(asked)
    if tensor.shape[1] < length:
        raise RealCompoError(
            f"{name} branch: a positive conditioning of the whole picture has {tensor.shape[1]} tokens, and the last "
            f"object of the layout's prompt is token {length - 1} ({prompt!r}): encode that very prompt"
        )
    if tensor.shape[2] != asked.shape[1]:  # another family's CLIP: its tokens are the same, and its numbers are not
        return [tensor, options]
    asked = asked.to(tensor)
    limit = SAME_TOKENS * asked.norm(dim=-1)
    for place in range(tensor.shape[1] - length + 1):
        if ((tensor[:, place : place + length] - asked).norm(dim=-1) <= limit).all():
            return [tensor, {**options, PLACE: place}]
    return [tensor, options]


def _is_alike(found: Tensor, asked: Tensor) -> bool:
    """Whether (B, T, d) tokens are about those of (T, d): of the same text, by a CLIP that was trained further."""
    if found.shape[2] != asked.shape[1]:
        return False
    found, asked = (tokens - tokens.mean(-2, keepdim=True) for tokens in (found.float(), asked.to(found).float()))
    return bool((torch.cosine_similarity(found, asked, dim=-1).mean(-1) >= ALIKE).all())


def _encoded(clip: Any, prompt: str) -> Tensor:
    """(T, d): what `clip` makes of the prompt. Kept for the runs that change nothing but a seed."""
    known, tokens = _ENCODED.get(clip, (None, None))
    if known != prompt:
        tokens = clip.encode_from_tokens(clip.tokenize(prompt))[0].cpu()
        _ENCODED[clip] = prompt, tokens
    return tokens


def prompt_pieces(clip: Any, prompt: str) -> tuple[list[tuple[str, list[int]]], int]:
    """The prompt's words, each with its token indices in the conditioning, and the conditioning's length."""
    chunks = clip.tokenize(prompt, return_word_ids=True)
    key = next((name for name in ("l", "h", "g") if name in chunks), next(iter(chunks)))
    return _stream_pieces(clip, key, chunks[key])


def prompt_words(clip: Any, prompt: str) -> PromptWords:
    """The prompt's words, each with its token indices in the conditioning that `clip` makes, for any CLIP of the host.

    SD3's conditioning has CLIP's tokens and then T5's, so that a word has tokens in both; Flux's has T5's alone.
    """
    texts, length = _texts(clip, prompt)
    words: list[tuple[str, list[int]]] = []
    for pieces in texts:
        own = [(text.strip(), tokens) for text, tokens in pieces]
        words = _joined_streams(words, own) if words else own
    return PromptWords(words, length)


def _texts(clip: Any, prompt: str) -> tuple[list[list[tuple[str, list[int]]]], int]:
    """The prompt's words in each text of the conditioning that `clip` makes, in their order, and its length.

    Each word has its token indices in the whole conditioning.
    """
    chunks = clip.tokenize(prompt, return_word_ids=True)
    if QWEN in chunks:
        pieces, length = _qwen_pieces(clip, chunks[QWEN])
        return [pieces], length
    if T5 not in chunks:
        pieces, length = prompt_pieces(clip, prompt)
        return [pieces], length
    streams = [T5]
    if "g" in chunks:
        encoder = clip.cond_stage_model
        streams = [key for key, part in (("g", "clip_g"), (T5, T5)) if getattr(encoder, part, True) is not None]
    texts, length = [], 0
    for key in streams:
        pieces, count = _stream_pieces(clip, key, chunks[key])
        texts.append([(text, [length + token for token in tokens]) for text, tokens in pieces])
        length += count
    return texts, length


def _joined_streams(words: list[tuple[str, list[int]]], others: list[tuple[str, list[int]]]) -> list:
    """The words, with the tokens of another tokenizer's words that share a letter with them."""
    spans, other_spans = (_letter_spans(texts) for texts in (words, others))
    if not spans or not other_spans or spans[-1][1] != other_spans[-1][1]:  # they do not read the same letters
        return words + others
    joined = []
    for (text, tokens), (start, end) in zip(words, spans, strict=True):
        sharing = [found for (_, found), (a, b) in zip(others, other_spans, strict=True) if a < end and start < b]
        joined.append((text, [*tokens, *chain.from_iterable(sharing)]))
    return joined


def _letter_spans(words: list[tuple[str, list[int]]]) -> list[tuple[int, int]]:
    """First letter and the one after the last of each word, without spaces."""
    ends = list(accumulate(len(text) for text, _ in words))
    return list(zip([0, *ends], ends, strict=False))


def _stream_pieces(clip: Any, key: str, chunks: list) -> tuple[list[tuple[str, list[int]]], int]:
    """The prompt's words for one of the text encoders, each with its token indices, and the number of tokens."""
    tokenizer = getattr(clip.tokenizer, key, getattr(clip.tokenizer, f"clip_{key}", clip.tokenizer))
    pieces: list[tuple[str, int]] = []
    position = 0
    for chunk in chunks:
        for token, _, word_id in chunk:
            if word_id != 0 and isinstance(token, int):  # no special token, and no embedding
                pieces.append((tokenizer.untokenize([(token, 1.0)])[0][1], position))
            position += 1
    return (_sentencepiece_words if key in (T5, UMT5) else _byte_pair_words)(pieces), position


def _qwen_pieces(clip: Any, chunks: list) -> tuple[list[tuple[str, list[int]]], int]:
    """The words of the user's turn in Qwen2.5-VL's template, and the number of tokens from that turn on.

    The host's text encoder leaves out what comes before it. A token that begins a word has its space.
    """
    tokens = [token for chunk in chunks for token, *_ in chunk]
    turns = [i for i, token in enumerate(tokens) if token == TURN_START]
    first = turns[1] if len(turns) > 1 else 0
    first += 3 if tuple(tokens[first + 1 : first + 3]) == USER_LINE else 0
    last = next((i for i in range(first, len(tokens)) if tokens[i] == TURN_END), len(tokens))
    tokenizer = getattr(clip.tokenizer, QWEN)
    found = [(i, tokens[i]) for i in range(first, last) if isinstance(tokens[i], int)]  # and no pictures
    pieces = [(tokenizer.untokenize([(token, 1.0)])[0][1], i - first) for i, token in found]
    return _byte_level_words(pieces), len(tokens) - first


def _byte_level_words(pieces: list[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Words from the pieces of a byte-level tokenizer, whose words bring along the space before them.

    Punctuation is a word of its own, and so is each piece of a script without spaces. A piece may end within a letter.
    """
    words: list[tuple[str, list[int]]] = []
    for piece, position in pieces:
        text = _decoded(piece)
        if words and position == words[-1][1][-1] + 1 and _goes_on(_decoded(words[-1][0]), text):
            words[-1] = words[-1][0] + piece, [*words[-1][1], position]
        else:
            words.append((piece, [position]))
    return [(_decoded(piece).strip() + " ", indices) for piece, indices in words if _decoded(piece).strip()]


def _goes_on(word: str, text: str) -> bool:
    if BROKEN in (word[-1:], text[:1]):
        return True
    first, before = text[:1], word[-1:]
    return first.isalnum() and before.isalnum() and max(first, before) < FIRST_WITHOUT_SPACES


def _byte_pair_words(pieces: list[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Words from the pieces of CLIP's tokenizer, which marks the last piece of a word."""
    words: list[tuple[str, list[int]]] = []
    text, indices = "", []
    for piece, position in pieces:
        indices.append(position)
        text += piece.removesuffix(END_OF_WORD)
        if piece.endswith(END_OF_WORD):
            words.append((_decoded(text) + " ", indices))
            text, indices = "", []
    return words


def _sentencepiece_words(pieces: list[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Words from the pieces of T5's tokenizer, which marks a word's first piece; punctuation is a word of its own."""
    words: list[tuple[str, list[int]]] = []
    joins = False
    for piece, position in pieces:
        text = piece.removeprefix(WORD_START)
        if joins and text == piece and text.isalnum() == words[-1][0].strip().isalnum():
            words[-1] = words[-1][0].strip() + text + " ", [*words[-1][1], position]
        else:
            words.append((text + " ", [position]))
        joins = True
    return [(text, indices) for text, indices in words if text.strip()]


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
