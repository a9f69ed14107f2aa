"""The words and connectors that `grammar` knows, and the split of a prompt into tokens at the connectors."""

from __future__ import annotations

import re
import unicodedata
from itertools import zip_longest
from typing import NamedTuple

from ..text.words import DETERMINERS, PREPOSITIONS, WEIGHT, split_words
from ..text.words import NUMBERS as SMALL_NUMBERS


def _number_words(start: int, step: int, words: str) -> dict[str, int]:
    return {word: start + step * i for i, word in enumerate(words.split())}


NUMBERS = {
    **SMALL_NUMBERS,
    **_number_words(13, 1, "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
    **_number_words(20, 10, "twenty thirty forty fifty sixty seventy eighty ninety"),
    **{"no": 0, "zero": 0, "trio": 3, "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000},
}
VAGUE_NUMBERS = {"few": 3, "some": 3, "several": 3, "various": 3, "multiple": 3, "many": 5, "numerous": 5, "dozens": 24}
COLLECTIVES = {"group": 3, "bunch": 3, "row": 3, "stack": 3, "pile": 3, "herd": 4, "flock": 4}  # before "of"
ADJECTIVES = set(
    "red orange yellow green cyan blue purple violet pink brown black white gray grey gold golden silver beige maroon "
    "teal turquoise magenta dark light bright pale colorful colourful small tiny little big large huge giant tall "
    "short long wide narrow thin thick round square old young new wooden metal metallic plastic glass leather rubber "
    "fluffy furry shiny striped spotted plaid empty open closed hot cold wet dry clean dirty smooth rough "
    "beautiful cute".split()
)
SCALES = dict.fromkeys("small tiny little miniature".split(), 0.65) | dict.fromkeys("big large huge giant".split(), 1.4)
DEFINITE = {"the", "this", "that", "these", "those", "both"}
PRONOUNS = set("it them him her he she they itself themselves one other others ones".split())
FILLERS = PREPOSITIONS | set("up down out away there here also alone very exactly only just about lots lot".split())
PLACES = set(
    "scene park street road beach forest jungle kitchen room bedroom bathroom garden yard backyard field meadow city "
    "town village countryside desert sea ocean lake river water pond sky air snow grass lawn ground floor wall space "
    "studio office restaurant library classroom night day daytime sunset sunrise dusk dawn rain fog background "
    "backdrop landscape".split()
)
CLOTHES = set("hat cap dress suit shirt t-shirt coat jacket sweater uniform costume helmet hoodie jeans".split())
STYLE = set(
    "quality masterpiece lighting detailed cinematic photorealistic realistic hyperrealistic style render resolution "
    "hd uhd hdr 4k 8k bokeh artstation photography photograph photo focus aesthetic minimalist watercolor "
    "trending".split()
)
POSITIONS = {
    **dict.fromkeys(["left"], "at_left"),
    **dict.fromkeys(["right"], "at_right"),
    **dict.fromkeys(["top", "upper", "background"], "at_top"),  # what is far away is high up
    **dict.fromkeys(["bottom", "lower", "foreground"], "at_bottom"),
    **dict.fromkeys(["middle", "center", "centre"], "at_middle"),
}

_PICTURE = (
    "(?:picture|image|photo|photograph|scene|view|painting|drawing|illustration|rendering|sketch|canvas|frame|"
    "close up|close-up)"
)
_THE_PICTURE = f" (?:the|this) {_PICTURE}"
_DIRECTION = "(?:top|upper|bottom|lower|left|right|middle|center|centre)"
_SIDE = "(?:[ -]hand)?(?: side)?"
_ADVERB = "(?:directly |immediately |right |just |slightly |far |partly |partially )?"
_PHRASE_START = "|".join([*DETERMINERS, *PREPOSITIONS, *NUMBERS, *VAGUE_NUMBERS, r"\d+", "and", ",", r"\."])
_NOUNS_IN_ING = (
    "thing|something|swing|sling|building|lighting|painting|string|spring|ceiling|earring|wedding|drawing|carving|"
    "railing|stocking|pudding"
)

# Kind, value and pattern of tokens; where several patterns match, the first one wins. The value of a relation is its
# name and whether its sides change places: "b below a" is "a above b".
_CONNECTORS = [
    ("ignored", None, "in a (?:row|line)|side by side|(?:next to|beside|near) each other|together(?! with)"),
    ("ignored", None, f"in (?:the|this) {_PICTURE}"),
    ("relation", ("left_of", False), f"(?:(?:on|to|at) )?(?:the )?(?:far )?left{_SIDE} of(?!{_THE_PICTURE})"),
    ("relation", ("left_of", True), f"(?:(?:on|to|at) )?(?:the )?(?:far )?right{_SIDE} of(?!{_THE_PICTURE})"),
    ("relation", ("on", False), f"(?:on|at)(?: the)? top of(?!{_THE_PICTURE})"),
    ("relation", ("inside", False), f"(?:in|at) the (?:middle|center|centre|bottom) of(?!{_THE_PICTURE})"),
    ("relation", ("in_front_of", False), "in front of"),
    ("relation", ("in_front_of", True), "(?:in|at)(?: the)? back of|behind|beyond"),
    ("relation", ("next_to", False), "(?:on|by|at) the side of"),
    (
        "position",
        None,
        rf"(?:on|in|at|to|near|towards?)(?: the)?(?: very| far)? {_DIRECTION}(?:[ -]{_DIRECTION})*{_SIDE}"
        rf"(?: corner| half| part| edge)?(?: of{_THE_PICTURE}|(?! of ))|{_DIRECTION}(?= (?:and|,|\.) | $)",
    ),
    ("position", None, "in the (?:foreground|background)"),
    ("relation", ("above", False), "above|over"),
    ("relation", ("above", True), "below"),
    ("relation", ("under", False), "under|underneath|beneath"),
    ("relation", ("surrounded_by", False), "surrounded by|encircled by|amid|amidst|among|amongst"),
    ("relation", ("surrounded_by", True), "all around|around|surrounding|encircling"),
    ("relation", ("between", False), "in between|between"),
    ("relation", ("inside", True), "filled with|full of|containing"),
    ("relation", ("inside", False), "inside of|inside|within|into|in"),
    ("relation", ("on", False), "on|onto|atop|upon"),
    (
        "relation",
        ("next_to", False),
        "next to|beside|near to|near|nearby|close to|adjacent to|alongside|by|at|against|opposite|along",
    ),
    ("without", None, "without|lacking|free of|devoid of"),
    ("break", None, "along with|together with|accompanied by|with|showing|featuring|including|has|have|having"),
    ("conjunction", "and", "and also|and|or|nor|as well as|plus|while|whereas|but"),
    ("conjunction", ",", ","),
    ("break", None, r"\."),
    (
        "link",
        None,
        "(?:(?:that|which|who) )?(?:is|are)|there (?:is|are)|which|who|sits|stands|lies|placed|located|positioned|"
        "parked|perched|seated|mounted|shown|seen|posed|lays|sleeps|rests|walks|runs|jumps|plays|looks|flies|"
        "swims|hangs|floats|leans|waits|stares|lounges",
    ),
    ("verb", ("on", False), "riding|rides"),
    ("verb", ("inside", True), "wearing|wears"),
    ("verb", ("in_front_of", True), "holding|holds|carrying|carries|eating|drinking|reading|using|hugging|playing"),
    (
        "verb",
        ("next_to", False),
        r"(?<! a )(?<! an )(?<! the )"
        rf"(?!(?:{_NOUNS_IN_ING}) )[a-z]{{2,}}ing(?= (?:{_PHRASE_START}) | $)",
    ),
]
_CONNECTOR = re.compile(
    "|".join(f"(?P<c{i}>(?<= ){_ADVERB}(?:{pattern})(?= ))" for i, (_, _, pattern) in enumerate(_CONNECTORS))
)
_FRAME = re.compile(
    r" (?:please )?(?:(?:draw|generate|create|show|make|paint|imagine)(?: me| us)? )?"
    rf"((?:(?:an?|the|this) )?(?:(?!(?:an?|the|of|on|in|with|,|\.) )\S+ ){{0,4}}?{_PICTURE}s?"
    r"(?: of| with| showing| depicting| containing| featuring| where| in which|(?= without |(?: [,.])? $)))(?= )"
)
_FRAME_END = re.compile(" (?:of|with|showing|depicting|containing|featuring|where|in which)$")


class Token(NamedTuple):
    """A noun phrase or a connector of a prompt.

    `kind` is noun, relation, verb (a relation, too), position, conjunction, break, without, or link ("is", "which").
    `value` is, for a relation or a verb, the relation's name and whether its sides change places; for a conjunction,
    "and" or ",".
    """

    kind: str
    text: str
    value: tuple[str, bool] | str | None = None


def split_prompt(prompt: str) -> tuple[str, list[Token]]:
    """The phrase that names the picture itself, and the tokens of the rest.

    "A photo of a cat on a mat" -> "a photo", [noun "a cat", relation "on", noun "a mat"].
    """
    text = _normalised(prompt)
    start = 0
    while match := _FRAME.match(text, start):
        start = match.end()
    frame = _FRAME_END.sub("", text[:start].strip())
    tokens = []
    end = start
    for match in _CONNECTOR.finditer(text, start):
        tokens.append(Token("noun", text[end : match.start()].strip()))
        kind, value, _ = _CONNECTORS[int(match.lastgroup[1:])]
        tokens.append(Token(kind, match[0], value))
        end = match.end()
    tokens.append(Token("noun", text[end:].strip()))
    tokens = [token for token in tokens if token.text and token.kind != "ignored"]
    return frame, _without_idle_verbs(_with_adjectives_joined(tokens))


def starts_phrase(text: str) -> bool:
    """Whether `text` begins with a determiner or a number."""
    first = text.split()[0]
    return first in DETERMINERS or first in NUMBERS or first in VAGUE_NUMBERS or first.isdecimal()


def _normalised(prompt: str) -> str:
    """Lower-case words and the marks "," and ".", each between single spaces."""
    prompt = unicodedata.normalize("NFKC", re.sub(WEIGHT, ")", prompt)).lower()
    parts = []
    end = 0
    for word in split_words(prompt):
        parts.append(_mark(prompt[end : word.span[0]]))
        if re.search(r"[a-z0-9\u00c0-\u024f]", word.text):  # English only: no other scripts, no emoji
            parts.append(word.text)
        end = word.span[1]
    parts.append(_mark(prompt[end:]))
    return f" {' '.join(part for part in parts if part)} "


def _mark(gap: str) -> str:
    """The connector that the punctuation between two words stands for: ".", ",", "and", or "" for none."""
    if re.search(r"[.;:!?\n]", gap):
        return "."
    if re.search(r"[,|\u2013\u2014]", gap):
        return ","
    return "and" if re.search(r"[&+/]", gap) else ""


def _with_adjectives_joined(tokens: list[Token]) -> list[Token]:
    """ "a red" "and" "white cat" is one noun phrase."""
    joined: list[Token] = []
    for token in tokens:
        kinds = [previous.kind for previous in joined[-2:]] + [token.kind]
        if kinds == ["noun", "conjunction", "noun"] and not starts_phrase(token.text):
            start, conjunction = joined[-2:]
            if start.text.split()[-1] in ADJECTIVES:
                joined[-2:] = []
                token = Token("noun", f"{start.text} {'and ' if conjunction.value == 'and' else ''}{token.text}")
        joined.append(token)
    return joined


def _without_idle_verbs(tokens: list[Token]) -> list[Token]:
    """The tokens without verbs that state no relation: those before anything but a noun, as in "sitting on"."""
    followed = zip_longest(tokens, tokens[1:])
    return [token for token, after in followed if token.kind != "verb" or (after and after.kind == "noun")]
