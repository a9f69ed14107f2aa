"""Part-of-speech tags and dependencies of English, offline: the weights of a published parser, run in numpy.

The weights are those of spaCy's pipeline en_core_web_sm 3.8.0 (Explosion AI, MIT licence, see `english.LICENSE.txt`):
hashed embeddings of each token's form, four convolutions over three tokens each (spaCy's `MultiHashEmbed` and
`MaxoutWindowEncoder`), a linear tagger, and an arc-eager transition parser with a move that ends a sentence (Nivre
2003; Honnibal & Johnson 2014). They are 3.3 MB in half precision, so that a bare clone of this project reads English
without spaCy's compiled packages. `tests/data/parses.json` holds what spaCy itself says.

Tags are the Penn Treebank's, labels are ClearNLP's (nsubj, dobj, prep, pobj, relcl, …).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent
CONTRACTED = "(?:n['’]t|['’](?:s|re|ll|ve|d|m))"
TOKEN = re.compile(
    rf"""(?:\w\.){{2,}}                       # e.g.
       | \d+(?:[.,]\d+)*\w*                 # 1,000 and 2boys
       | n['’]t\b | ['’](?:s|re|ll|ve|d|m)\b
       | [^\W\d_](?:(?!{CONTRACTED}\b)[^\W_])*  # words; "close-up" is three tokens
       | \.{{2,}} | [^\w\s] | _+""",
    re.VERBOSE | re.IGNORECASE,
)
LAYERS = 4  # of the convolution
MASK = 2**64 - 1
SERIAL_PRODUCT = 200_000  # multiplications that OpenBLAS makes in one thread


@dataclass(frozen=True)
class Token:
    """A word or mark of a text. `head` is the index of the token that it depends on, its own for a root."""

    text: str
    start: int
    end: int
    tag: str
    label: str
    head: int


def tokens_of(text: str) -> list[tuple[str, int, int]]:
    """The words and marks of `text` as (form, start, end)."""
    return [(match[0], *match.span()) for match in TOKEN.finditer(text)]


def parse(tokens: Sequence[tuple[str, int, int]]) -> list[Token]:
    """`tokens` (form, start, end) tagged and parsed, in time linear in their number: about 0.2 ms a token.

    A form may differ from what stands in the text: "beside" for "to the left of" is parsed as one preposition.
    """
    return _model().parse(tokens) if tokens else []


@cache
def _model() -> _Model:
    return _Model(load_file(FOLDER / "english.safetensors"), json.loads((FOLDER / "english.json").read_text("utf-8")))


class _Model:
    """`weights` by the names in the file, shapes as there; `names` are the tags and moves."""

    def __init__(self, weights: dict[str, np.ndarray], names: dict):
        self.norms = dict(zip(weights.pop("norm.keys").tolist(), weights.pop("norm.values").tolist(), strict=True))
        self.weights = {name: value.astype(np.float32) for name, value in weights.items()}
        self.seeds, self.tags, self.symbols = names["seeds"], names["tags"], names["symbols"]
        self.moves = [tuple(move.split("-", 1)) if "-" in move else (move, "") for move in names["moves"]]
        self.kinds = np.array(["SDLRB".index(kind) for kind, _ in self.moves])

    def parse(self, tokens: Sequence[tuple[str, int, int]]) -> list[Token]:
        words = [form for form, _, _ in tokens]
        spaced = [end < start for (_, _, end), (_, start, _) in pairwise(tokens)] + [False]
        vectors = self._encode(self._embed(words, spaced))
        w = self.weights
        tags = (vectors @ w["tag.weight"].T + w["tag.bias"]).argmax(1)
        heads, labels = self._arcs(vectors)
        return [
            Token(*token, self.tags[tag], label, head)
            for token, tag, label, head in zip(tokens, tags, labels, heads, strict=True)
        ]

    # Vectors of the tokens.

    def _embed(self, words: list[str], spaced: list[bool]) -> np.ndarray:
        """(tokens, 6 · 96): each attribute's hash picks four rows of its table, which are added."""
        columns = [
            [self._norm(word) for word in words],
            [self._id(word[0]) for word in words],
            [self._id(word[-3:]) for word in words],
            [self._id(_shape(word)) for word in words],
            list(map(int, spaced)),
            [0] * len(words),  # whether it is white space
        ]
        embedded = []
        for i, (ids, seed) in enumerate(zip(columns, self.seeds, strict=True)):
            table = self.weights[f"embed.{i}"]
            rows = np.array([_four_hashes(key, seed) for key in ids]) % len(table)
            embedded.append(table[rows].sum(1))
        return np.concatenate(embedded, 1)

    def _encode(self, x: np.ndarray) -> np.ndarray:
        """(tokens, 96): a maxout layer of the token's own embedding, then four over windows of three, residual.

        As in training, the text lies between four zeros on either side, which the layers change too.
        """
        x = np.pad(self._maxout(0, x), ((LAYERS, LAYERS), (0, 0)))
        for layer in range(1, LAYERS + 1):
            padded = np.pad(x, ((1, 1), (0, 0)))
            x = x + self._maxout(layer, np.concatenate([padded[:-2], x, padded[2:]], 1))
        return x[LAYERS:-LAYERS]

    def _maxout(self, layer: int, x: np.ndarray) -> np.ndarray:
        w = {name: self.weights[f"encode.{layer}.{name}"] for name in ("weight", "bias", "norm.weight", "norm.bias")}
        best = (_product(x, w["weight"]) + w["bias"]).max(2)
        normal = (best - best.mean(1, keepdims=True)) / np.sqrt(best.var(1, keepdims=True) + 1e-8)
        return normal * w["norm.weight"] + w["norm.bias"]

    def _norm(self, word: str) -> int:
        """The id of the word's norm: American spelling, "not" for "n't", else lower case."""
        for form in (word, word.lower()):
            if (norm := self.norms.get(self._id(form))) is not None:
                return norm
        return self._id(word.lower())

    def _id(self, text: str) -> int:
        return self.symbols.get(text) or _hash(text.encode())

    # Transitions.

    def _arcs(self, vectors: np.ndarray) -> tuple[list[int], list[str]]:
        """Head and label of each token, greedily: the best move that the state allows, to the end."""
        w = self.weights
        x = vectors @ w["state.input.weight"].T + w["state.input.bias"]
        features = _product(x, w["state.weight"])
        features = np.concatenate([features, w["state.missing"][None]])  # the last is that of no token
        places = np.arange(features.shape[1])
        state = _State(len(vectors))
        while not state.final:
            hidden = (features[state.context(), places].sum(0) + w["state.bias"]).max(1)
            scores = w["move.weight"] @ hidden + w["move.bias"]
            valid = state.valid()
            if not any(valid):
                break
            move = int(np.where(np.array(valid)[self.kinds], scores, -np.inf).argmax())
            state.do(*self.moves[move])
        return _lifted(state)


class _State:
    """Stack, buffer and arcs so far. In the buffer come first the tokens that were put back."""

    def __init__(self, length: int):
        self.length = length
        self.stack: list[int] = []
        self.put_back: list[int] = []
        self.next = 0
        self.heads = [-1] * length
        self.labels = [""] * length
        self.left: list[list[int]] = [[] for _ in range(length)]  # children, in the order of their arcs
        self.right: list[list[int]] = [[] for _ in range(length)]
        self.starts: set[int] = set()  # of sentences
        self.was_put_back = [False] * length

    @property
    def final(self) -> bool:
        return not self.stack and not self._remaining()

    def _remaining(self) -> int:
        return self.length - self.next + len(self.put_back)

    def _buffer(self, i: int) -> int:
        if i < len(self.put_back):
            return self.put_back[-1 - i]
        at = self.next + i - len(self.put_back)
        return at if at < self.length else -1

    def context(self) -> list[int]:
        """The eight tokens that the next move depends on, -1 for none."""
        first, second = self._buffer(0), self._buffer(1)
        top, under, third = (self.stack[-i] if len(self.stack) >= i else -1 for i in (1, 2, 3))

        def last(children: list[list[int]], token: int) -> int:
            return children[token][-1] if token >= 0 and children[token] else -1

        return [first, second, top, under, third, last(self.left, first), last(self.left, top), last(self.right, top)]

    def valid(self) -> tuple[bool, ...]:
        """Whether shift, reduce, left arc, right arc and break are possible."""
        first, second, remaining = self._buffer(0), self._buffer(1), self._remaining()
        arc = bool(self.stack) and remaining > 0 and first not in self.starts
        shift = not self.stack or (remaining >= 2 and first not in self.starts and not self.was_put_back[first])
        breaks = remaining >= 2 and second == first + 1 and second not in self.starts
        return shift, bool(self.stack), arc, arc, breaks

    def do(self, move: str, label: str) -> None:
        first = self._buffer(0)
        if move == "S":
            self._push()
        elif move == "D":
            token = self.stack.pop()
            if self.heads[token] < 0 and self.stack:
                self.was_put_back[token] = True
                self.put_back.append(token)
        elif move == "L":
            self._arc(first, self.stack.pop(), label)
            self.was_put_back[first] = False
        elif move == "R":
            self._arc(self.stack[-1], first, label)
            self._push()
        else:
            self.starts.add(self._buffer(1))

    def _push(self) -> None:
        if self.put_back:
            self.stack.append(self.put_back.pop())
        elif self.next < self.length:
            self.stack.append(self.next)
            self.next += 1

    def _arc(self, head: int, child: int, label: str) -> None:
        if self.heads[child] >= 0:
            for children in (self.left, self.right):
                if child in children[self.heads[child]]:
                    children[self.heads[child]].remove(child)
        (self.left if head > child else self.right)[head].append(child)
        self.heads[child], self.labels[child] = head, label


def _product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(rows, n) and (…, n) -> (rows, …). A few rows at a time, so that BLAS does not wake its threads for so little."""
    flat = weight.reshape(-1, weight.shape[-1]).T
    rows = max(1, SERIAL_PRODUCT // flat.size)
    parts = [x[start : start + rows] @ flat for start in range(0, len(x), rows)]
    return np.concatenate(parts).reshape(len(x), *weight.shape[:-1])


def _lifted(state: _State) -> tuple[list[int], list[str]]:
    """Heads and labels. "X||Y" says that the head is a Y below the one found (Nivre & Nilsson 2005)."""
    heads = [head if head >= 0 else i for i, head in enumerate(state.heads)]
    labels = [label if head != i else "ROOT" for i, (label, head) in enumerate(zip(state.labels, heads, strict=True))]
    for i, label in enumerate(labels):
        if "||" in label:
            labels[i], wanted = label.split("||")
            level, seen = [heads[i]], set()
            while level:
                below = [j for j in range(len(heads)) if heads[j] in level and j not in seen and heads[j] != j]
                found = [j for j in below if labels[j] == wanted and j != i]
                if found:
                    heads[i] = found[0]
                    break
                seen.update(below)
                level = [j for j in below if j != i]
    return heads, labels


def _shape(word: str) -> str:
    """ "Apple2" -> "Xxxxd": the kinds of its characters, of equal ones in a row at most four."""
    if len(word) >= 100:
        return "LONG"
    kinds = ["X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else c for c in word]
    return "".join(kind for i, kind in enumerate(kinds) if i < 4 or any(k != kind for k in kinds[i - 4 : i]))


def _hash(data: bytes) -> int:
    """MurmurHash64A with seed 1 (Appleby)."""
    m = 0xC6A4A7935BD1E995
    h = 1 ^ (len(data) * m & MASK)
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        k = int.from_bytes(data[i : i + 8], "little") * m & MASK
        h = (h ^ ((k ^ k >> 47) * m & MASK)) * m & MASK
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & MASK
    h = (h ^ h >> 47) * m & MASK
    return h ^ h >> 47


def _four_hashes(key: int, seed: int) -> list[int]:
    """Four 32-bit hashes of a 64-bit key: MurmurHash3_x64_128 of eight bytes, without its last rotations."""
    a = key * 0x87C37B91114253D5 & MASK
    a = (a << 31 | a >> 33) & MASK
    a = a * 0x4CF5AD432745937F & MASK ^ seed ^ 8
    b = seed ^ 8
    a = a + b & MASK
    b = a + b & MASK
    a, b = _mixed(a), _mixed(b)
    a = a + b & MASK
    b = a + b & MASK
    return [a & 0xFFFFFFFF, a >> 32, b & 0xFFFFFFFF, b >> 32]


def _mixed(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33
