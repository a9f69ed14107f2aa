"""CLIP's byte-pair tokenizer with the world's words for a vocabulary."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizerFast

from shapescenes.sizes import TEXT_TOKENS
from shapescenes.world import vocabulary


@cache
def tokenizer(max_length: int = TEXT_TOKENS) -> CLIPTokenizerFast:
    """One token a word of the world; any other word falls apart into bytes. It warns of more than `max_length` tokens.

    Words are merged from their end: such merges cannot occur in the middle of another word and spoil it.
    """
    letters = sorted(ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in vocabulary():
        suffix = word[-1] + "</w>"
        for letter in reversed(word[:-1]):
            merges[letter, suffix] = None
            suffix = letter + suffix
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as folder:  # files are what transformers 4 and 5 both read
        (Path(folder) / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return CLIPTokenizerFast.from_pretrained(folder, model_max_length=max_length)
