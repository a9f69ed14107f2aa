"""Prompts as people type them for Stable Diffusion: what is syntax, and what is English."""

from __future__ import annotations

import re

_MARKUP = re.compile(
    r"<[^<>\n]*>"  # <lora:name:0.8>
    r"|\bembedding:\S+"
    r"|\b(?:score|rating|source)_\w+"
    r"|__[\w/-]+__"  # wildcards
    r"|--\w+(?:[ =][\d.:]+)?"  # --ar 16:9
    r"|::-?[\d.]+"
    r"|\bf/?\d+(?:\.\d+)?\b"  # f/2.8
    r"|:\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?=\s*[)\]}])"  # the weight of "(red:1.2)"
)
_SEPARATOR = re.compile(r"\b(?:BREAK|ADDCOMM|ADDBASE|ADDROW|ADDCOL|AND)\b|[|\n]|[，、]")
_SAME = str.maketrans("‘’“”。；！？：()[]{}\\", "''\"\".;!?:      " + " ")


def plain(prompt: str) -> tuple[str, bool]:
    """`prompt` with its markup blanked, character by character in place, and whether there was any.

    "(red:1.2) circle, <lora:x:1>" -> " red      circle,           ". Spans of the result are spans of the prompt.
    """
    found = False

    def blank(match: re.Match) -> str:
        nonlocal found
        found = True
        return " " * len(match[0])

    text = _MARKUP.sub(blank, prompt)
    text = _SEPARATOR.sub(lambda match: ",".ljust(len(match[0])), text)
    found |= "BREAK" in prompt
    return re.sub(r"(?<=\w)_(?=\w)", " ", text.translate(_SAME)), found
