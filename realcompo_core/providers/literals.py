"""Reads the JSON and Python literals in a text, in linear time and without evaluating anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 16  # a layout nests 6 deep
CONSTANTS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
    "nan": math.nan,
    "NaN": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}
OPENING = re.compile(r"[\[({]")
INNER = re.compile(r"[\[({\"']")  # the start of an item; a remark in brackets has none
CLOSING = {"[": "]", "(": ")", "{": "}"}

# An apostrophe between letters belongs to the phrase: ('the dog's bowl', [...]).
TOKEN = re.compile(
    r"""\s*(?:
        (?P<mark>[\[\](){},:])
      | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
      | '(?P<single>[^'\\]*(?:(?:\\.|(?<=\w)'(?=\w))[^'\\]*)*)'(?!\w)
      | (?P<unfinished>["']|[+\-\w.]*\Z)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<word>-?[A-Za-z]+)\b
    )""",
    re.VERBOSE | re.DOTALL,
)
CONTROL_CHARACTERS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b"}
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


class LiteralReader:
    """Reads JSON and Python literals, also mixtures of both: strings, numbers, lists, tuples, dictionaries.

    `broken_at` is the position at which a literal that had begun breaks off, None if all are complete. Literals found
    after it may be pieces of the broken one.
    """

    def __init__(self, text: str):
        self.text = text
        self.position = 0
        self.broken_at: int | None = None

    def values(self) -> Iterator[tuple[int, Any]]:
        """Yields start and value of each outermost bracketed literal. Takes linear time: nothing is parsed twice."""
        while opening := OPENING.search(self.text, self.position):
            start = self.position = opening.start()
            try:
                yield start, self._value()
            except _NoValue:
                if INNER.search(self.text, start + 1, self.position):
                    self.broken_at = self.position
            except _Unfinished:
                self.broken_at = self.position
                return

    def _value(self, depth: int = 0) -> Any:
        token = self._next()
        kind = token.lastgroup
        if kind == "mark" and token["mark"] in CLOSING and depth < MAX_DEPTH:
            return self._pairs(depth) if token["mark"] == "{" else self._items(token["mark"], depth)
        if kind in ("double", "single"):
            return _unescape(token[kind])
        if kind == "number":
            number = token["number"]
            return int(number) if re.fullmatch(r"[+-]?\d{1,15}", number) else float(number)
        if kind == "word" and token["word"] in CONSTANTS:
            return CONSTANTS[token["word"]]
        raise _NoValue

    def _items(self, opening: str, depth: int) -> list | tuple:
        items = []
        while not self._skip(CLOSING[opening]):
            items.append(self._value(depth + 1))
            if not self._skip(","):
                self._expect(CLOSING[opening])
                break
        return items if opening == "[" else tuple(items)

    def _pairs(self, depth: int) -> dict[str, Any]:
        pairs = {}
        while not self._skip("}"):
            key = self._value(depth + 1)
            if not isinstance(key, str):
                raise _NoValue
            self._expect(":")
            pairs[key] = self._value(depth + 1)
            if not self._skip(","):
                self._expect("}")
                break
        return pairs

    def _skip(self, mark: str) -> bool:
        before = self.position
        if self._next()["mark"] == mark:
            return True
        self.position = before
        return False

    def _expect(self, mark: str) -> None:
        if not self._skip(mark):
            raise _NoValue

    def _next(self) -> re.Match:
        token = TOKEN.match(self.text, self.position)
        if token is None:
            raise _NoValue
        if token.lastgroup == "unfinished":
            raise _Unfinished
        self.position = token.end()
        return token


def _unescape(text: str) -> str:
    def character(match: re.Match) -> str:
        code, single = match.groups()
        return chr(int(code, 16)) if code else CONTROL_CHARACTERS.get(single, single)

    # Two escaped surrogates make one character; a lone one becomes U+FFFD.
    return ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _NoValue(Exception):
    """There is no literal at this position."""


class _Unfinished(Exception):
    """The text ends inside a literal."""
