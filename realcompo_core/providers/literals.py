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
INNER = re.compile(r"[\[({\"'“‘]")  # the start of an item; a remark in brackets has none
CLOSING = {"[": "]", "(": ")", "{": "}"}

# A number sign before a word is no comment: "[#1] a cat".
COMMENT = re.compile(r"//[^\n]*|#(?!\w)[^\n]*|/\*")
# An apostrophe between letters belongs to the phrase: ('the dog's bowl', [...]).
TOKEN = re.compile(
    r"""(?:
        (?P<mark>[\[\](){},:])
      | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
      | '(?P<single>[^'\\]*(?:(?:\\.|(?<=\w)'(?=\w))[^'\\]*)*)'(?!\w)
      | “(?P<curly>[^”]*)”
      | ‘(?P<thin>[^’]*(?:(?<=\w)’(?=\w)[^’]*)*)’
      | (?P<unfinished>["'“‘]|[+\-\w.]*\Z)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>\ ?(?:%|px\b))?(?![\w.])
      | (?P<word>-?[A-Za-z_]\w*)
    )""",
    re.VERBOSE | re.DOTALL,
)
SPACE = re.compile(r"\s*")
CONTROL_CHARACTERS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b"}
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


class LiteralReader:
    """Reads JSON and Python literals, also mixtures of both: strings, numbers, lists, tuples, dictionaries.

    Comments, trailing commas, typographic quotes and keys without quotes are understood. A number with the unit % or px
    is read as a string. `broken` holds start and end of each literal that had begun and breaks off; literals found
    after its end may be pieces of it.
    """

    def __init__(self, text: str):
        self.text = text
        self.position = 0
        self.broken: list[tuple[int, int]] = []

    def values(self) -> Iterator[tuple[int, int, Any]]:
        """Yields start, end and value of each outermost bracketed literal, in linear time: nothing is parsed twice."""
        while opening := OPENING.search(self.text, self.position):
            start = self.position = opening.start()
            try:
                value = self._value()
            except _NoValue:
                if INNER.search(self.text, start + 1, self.position):
                    self.broken.append((start, self.position))
            except _Unfinished:
                self.broken.append((start, self.position))
                return
            else:
                yield start, self.position, value

    def _value(self, depth: int = 0) -> Any:
        token = self._next()
        kind = token.lastgroup
        if kind == "mark" and token["mark"] in CLOSING and depth < MAX_DEPTH:
            return self._pairs(depth) if token["mark"] == "{" else self._items(token["mark"], depth)
        if kind in ("double", "single"):
            return _unescape(token[kind])
        if kind in ("curly", "thin"):
            return token[kind]
        if kind == "unit":
            return token.group().strip()
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
            key = self._key(depth + 1)
            self._expect(":")
            pairs[key] = self._value(depth + 1)
            if not self._skip(","):
                self._expect("}")
                break
        return pairs

    def _key(self, depth: int) -> str:
        before = self.position
        token = self._next()
        if token.lastgroup == "word":
            return token["word"]
        self.position = before
        key = self._value(depth)
        if not isinstance(key, str):
            raise _NoValue
        return key

    def _skip(self, mark: str) -> bool:
        self._skip_space()  # not read again if the mark is another
        before = self.position
        if self._next()["mark"] == mark:
            return True
        self.position = before
        return False

    def _expect(self, mark: str) -> None:
        if not self._skip(mark):
            raise _NoValue

    def _next(self) -> re.Match:
        self._skip_space()
        token = TOKEN.match(self.text, self.position)
        if token is None:
            raise _NoValue
        if token.lastgroup == "unfinished":
            raise _Unfinished
        self.position = token.end()
        return token

    def _skip_space(self) -> None:
        self.position = SPACE.match(self.text, self.position).end()
        while comment := COMMENT.match(self.text, self.position):
            end = comment.end()
            if comment.group() == "/*":
                end = self.text.find("*/", end) + 2
                if end == 1:
                    raise _Unfinished
            self.position = SPACE.match(self.text, end).end()


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
