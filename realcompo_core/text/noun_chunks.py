"""Noun chunks: the flat noun phrases of a sentence, as spaCy's `noun_chunks` for English finds them."""

from __future__ import annotations

from collections.abc import Sequence

from .parser import Token, parse, tokens_of

NOMINAL = ("NN", "NNS", "NNP", "NNPS", "PRP", "PRP$", "WP", "EX")  # tags of nouns and pronouns
DETERMINERS = ("DT", "WDT")  # pronouns too, where they stand alone: "this", "which"
HEADS = ("oprd", "nsubj", "dobj", "nsubjpass", "pcomp", "pobj", "dative", "appos", "attr", "ROOT")


def noun_chunks(text: str) -> list[list[Token]]:
    """The chunks in their order, each from its leftmost word to its head noun. They do not overlap."""
    tokens = parse(tokens_of(text))
    starts = _left_edges(tokens)
    chunks: list[list[Token]] = []
    end = 0  # of the last chunk
    for i, token in enumerate(tokens):
        if not _is_nominal(token) or starts[i] < end:
            continue
        head = i
        while tokens[head].label == "conj" and tokens[head].head < head:
            head = tokens[head].head
        if tokens[head].label in HEADS:
            chunks.append(tokens[starts[i] : i + 1])
            end = i + 1
    return chunks


def chunk_text(chunk: Sequence[Token], text: str) -> str:
    return text[chunk[0].start : chunk[-1].end]


def _is_nominal(token: Token) -> bool:
    return token.tag in NOMINAL or (token.tag in DETERMINERS and token.label not in ("det", "quantmod"))


def _left_edges(tokens: Sequence[Token]) -> list[int]:
    """The leftmost token below each token in the tree."""
    edges = list(range(len(tokens)))
    for i in range(len(tokens)):
        up = i
        while tokens[up].head != up:
            up = tokens[up].head
            edges[up] = min(edges[up], i)
    return edges
