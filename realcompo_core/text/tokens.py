"""Which tokens of a CLIP text conditioning belong to which object.

A tokenizer is anything with the Hugging Face call interface: `tokenizer(texts, add_special_tokens=False)["input_ids"]`.
Indices count along the conditioning sequence, in which every chunk is BOS, `chunk - 2` prompt tokens (or padding), EOS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import PhraseNotInPromptError, PhrasePastLimitError, TokenAlignmentError
from .words import WEIGHT, Span, match_phrases, split_words

CHUNK = 77  # CLIP's sequence length, BOS and EOS included

# CLIP's own split before byte-pair encoding, with the space that follows. Tokens never cross these borders, so pieces
# can be encoded one by one. A tokenizer that repairs the text first (ftfy) may cross them, but never a space.
_CLIP_PIECE = re.compile(r"(?:'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d+|(?:[^\w\s]|_)+)\s*", re.IGNORECASE)
_SPACED_PIECE = re.compile(r"\S+\s*")

_WEIGHT_SYNTAX = re.compile(rf"\\([()\[\]\\])|{WEIGHT}|[()\[\]]")


class TokenGroup(NamedTuple):
    """Tokens that stand for one or more objects: token indices, and indices of the objects."""

    tokens: list[int]
    objects: list[int]


class TokenSpan(NamedTuple):
    """A part of a prompt, and the indices of its tokens."""

    text: str
    tokens: list[int]


def strip_weights(prompt: str) -> str:
    """The text that is encoded where a host takes "(x:1.2)", "(x)", "((x))" and "[x]" for weights; "\\(" gives "(".

    A space stays where a weight begins or ends, because hosts encode the parts one by one.
    """
    return " ".join(_WEIGHT_SYNTAX.sub(lambda match: match[1] or " ", prompt).split())


def phrase_tokens(
    tokenizer: Callable,
    prompt: str,
    phrases: Sequence[str],
    *,
    include_adjectives: bool = False,
    weights: bool = True,
    chunk: int = CHUNK,
    chunked: bool = True,
) -> list[list[int]]:
    """Indices of the tokens of each phrase's head noun, with its adjectives on request.

    `weights`: whether the host takes brackets for weights or encodes them like any text. `chunk`: length of the
    encoder's sequence. `chunked`: whether the host encodes a long prompt in several chunks or keeps the first only.
    Raises PhraseNotInPromptError; PhrasePastLimitError if a phrase is in the part that is cut off; TokenAlignmentError
    if the tokens cannot be traced to the words.
    """
    pieces = _number_pieces(_split_pieces(tokenizer, _plain(prompt, weights)), chunk)
    indices = phrase_indices(pieces, phrases, include_adjectives=include_adjectives)
    for phrase, tokens in zip(phrases, indices, strict=True):
        if not chunked and tokens[-1] >= chunk:
            raise PhrasePastLimitError(
                f"phrase {phrase!r} is past the {chunk - 2} tokens that the text encoder reads. "
                f"The prompt's tokens: {_listed(pieces)}. "
                "Shorten the prompt, move the phrase to its beginning, or encode it in chunks."
            )
    return indices


def word_tokens(
    tokenizer: Callable, prompt: str, *, weights: bool = True, chunk: int = CHUNK
) -> list[tuple[str, list[int]]]:
    """The prompt's words in order, each with the indices of its tokens; `weights` and `chunk` as in `phrase_tokens`."""
    text = _plain(prompt, weights)
    pieces = _number_pieces(_split_pieces(tokenizer, text), chunk)
    return [(word.text, _tokens_under(word.span, pieces)) for word in split_words(text)]


def phrase_indices(
    pieces: Sequence[tuple[str, list[int]]], phrases: Sequence[str], *, include_adjectives: bool = False
) -> list[list[int]]:
    """Indices of the tokens of each phrase, as `phrase_tokens`, for hosts that know the tokens of their text.

    `pieces` are the prompt's parts, spaces included, whose concatenation is the prompt, each with its token indices
    (`number_tokens` gives them from token counts). A word gets all tokens of the pieces it touches.
    """
    text = "".join(piece for piece, _ in pieces)
    try:
        matches = match_phrases(phrases, text)
    except PhraseNotInPromptError as error:
        raise PhraseNotInPromptError(f"{error} The prompt's tokens: {_listed(pieces)}.") from None
    spans = [match.words if include_adjectives else [match.head] for match in matches]
    return [sorted({i for span in words for i in _tokens_under(span, pieces)}) for words in spans]


def phrase_spans(pieces: Sequence[tuple[str, list[int]]], phrases: Sequence[str]) -> list[TokenSpan]:
    """Each phrase as it stands in the prompt, from its first adjective to its head noun, if these are several words.

    `pieces` as in `phrase_indices`. A phrase of one word, or one that stands there already, has no span of its own.
    """
    text = "".join(piece for piece, _ in pieces)
    found = {}
    for match in match_phrases(phrases, text):
        start, end = min(start for start, _ in match.words), max(end for _, end in match.words)
        if len(split_words(text[start:end])) > 1:
            found[start, end] = TokenSpan(text[start:end], _tokens_under((start, end), pieces))
    return list(found.values())


def prompt_spans(tokenizer: Callable, prompt: str, phrases: Sequence[str], chunk: int = CHUNK) -> list[TokenSpan]:
    """`phrase_spans` of a prompt without weights."""
    pieces = _number_pieces(_split_pieces(tokenizer, _plain(prompt, weights=False)), chunk)
    return phrase_spans(pieces, phrases)


def number_tokens(counts: Sequence[int], chunk: int = CHUNK) -> list[list[int]]:
    """Indices in the conditioning sequence of consecutive pieces of `counts` tokens each."""
    numbered = []
    start = 0
    for count in counts:
        numbered.append([i // (chunk - 2) * chunk + 1 + i % (chunk - 2) for i in range(start, start + count)])
        start += count
    return numbered


def text_columns(tokens: int) -> list[int]:
    """Indices among so many of all but the first and the last of each sequence: those of prompt, end and padding.

    A number that is no multiple of CLIP's 77 is one sequence.
    """
    chunk = tokens if tokens % CHUNK else CHUNK
    return [i for i in range(tokens) if 0 < i % chunk < chunk - 1]


def token_groups(indices: Sequence[Sequence[int]]) -> list[TokenGroup]:
    """Joins objects that share a token into one group, which makes one term of a loss with their regions joined.

    As terms of their own they would ask for the same token's attention in different places. `indices` holds each
    object's token indices. Groups come in the order of their first objects.
    """
    groups: list[TokenGroup] = []
    for i, tokens in enumerate(indices):
        sharing = [group for group in groups if not set(group.tokens).isdisjoint(tokens)]
        groups = [group for group in groups if group not in sharing]
        merged = set(tokens).union(*(group.tokens for group in sharing))
        groups.append(TokenGroup(sorted(merged), sorted([i, *(j for group in sharing for j in group.objects)])))
    return sorted(groups, key=lambda group: group.objects[0])


def _plain(prompt: str, weights: bool) -> str:
    text = strip_weights(prompt) if weights else prompt.strip()
    return unicodedata.normalize("NFC", text)  # as CLIP tokenizers do; an accent is then no piece of its own


def _split_pieces(tokenizer: Callable, text: str) -> list[tuple[str, int]]:
    """`text` in pieces that the tokenizer encodes independently, each with its number of tokens."""
    if not text:
        return []
    whole = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    for pattern in (_CLIP_PIECE, _SPACED_PIECE):
        pieces = pattern.findall(text)
        ids = tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]
        if [token for piece in ids for token in piece] == list(whole):
            return [(piece, len(tokens)) for piece, tokens in zip(pieces, ids, strict=True)]
    raise TokenAlignmentError(
        f"the tokens of {text!r} cannot be traced to its words: {type(tokenizer).__name__} encodes a word differently "
        "within a sentence. Use a CLIP tokenizer, and leave its special tokens out of the prompt."
    )


def _number_pieces(pieces: list[tuple[str, int]], chunk: int) -> list[tuple[str, list[int]]]:
    texts = [text for text, _ in pieces]
    return list(zip(texts, number_tokens([count for _, count in pieces], chunk), strict=True))


def _tokens_under(span: Span, pieces: Sequence[tuple[str, list[int]]]) -> list[int]:
    """Token indices of the pieces that overlap the characters of `span`."""
    found = []
    start = 0
    for piece, tokens in pieces:
        end = start + len(piece.rstrip())
        if start < span[1] and span[0] < end:
            found += tokens
        start += len(piece)
    return found


def _listed(pieces: Sequence[tuple[str, list[int]]]) -> str:
    """ "a 1, armadillo 2-4, ..." for error messages."""
    shown = [
        f"{piece.strip()} {tokens[0]}" + (f"-{tokens[-1]}" if len(tokens) > 1 else "")
        for piece, tokens in pieces
        if tokens
    ]
    return ", ".join(shown) or "none"
