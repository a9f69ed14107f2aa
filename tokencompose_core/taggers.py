"""The nouns of an English caption and where they stand in it: the words that TokenCompose grounds in the image.

Nouns are Penn's NN, NNS, NNP and NNPS. Adjacent ones make one noun, "chocolate spread", as in the official training
data; anything between them, be it a comma or a possessive ending, keeps them apart: "man's lap" is "man" and "lap".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import NamedTuple

from realcompo_core.errors import RealCompoError


class TaggerError(RealCompoError):
    """A part-of-speech tagger that is unknown, not installed or without its model."""


class Noun(NamedTuple):
    """`text`: the words with one space between them. `start`, `end` (exclusive): characters of the caption."""

    text: str
    start: int
    end: int


class TaggedWord(NamedTuple):
    """A word, punctuation mark or possessive ending: characters `start` to `end` (exclusive) of the caption."""

    start: int
    end: int
    is_noun: bool


Tagger = Callable[[str], list[TaggedWord]]
"""Caption -> all its words and punctuation marks in order."""


def extract_nouns(caption: str, tagger: Tagger | str = "default") -> list[Noun]:
    """All nouns of `caption` in its order; one that occurs twice is there twice.

    Raises TaggerError for a tagger's name that `get_tagger` cannot serve.
    """
    words = (get_tagger(tagger) if isinstance(tagger, str) else tagger)(caption)
    runs = [list(run) for is_noun, run in groupby(words, key=lambda word: word.is_noun) if is_noun]
    spans = [(run[0].start, run[-1].end) for run in runs]
    return [Noun(" ".join(caption[start:end].split()), start, end) for start, end in spans]


@cache
def get_tagger(name: str) -> Tagger:
    """HanTa, which works offline ("default"), the official "flair", or "spacy"; loaded once. Raises TaggerError."""
    if name not in TAGGERS:
        raise TaggerError(f"unknown tagger {name!r}: choose one of {', '.join(map(repr, TAGGERS))}")
    load, install, get_model = TAGGERS[name]
    try:
        return load()
    except ImportError as error:
        raise TaggerError(f"tagger {name!r} cannot be imported ({error}): {install}") from error
    except OSError as error:
        raise TaggerError(f"tagger {name!r} cannot load its model ({error}): {get_model}") from error


_CONTRACTION = r"n['\u2019]t\b|['\u2019](?:s|d|m|ll|re|ve)\b"
# Contractions are cut as taggers know them: does|n't, man|'s. Other inner hyphens and apostrophes belong to the word.
_WORD = re.compile(
    rf"\w+?(?=n['\u2019]t\b)|{_CONTRACTION}|\w+(?:(?!{_CONTRACTION})[-\u2010\u2011'\u2019]\w+)*|\S", re.IGNORECASE
)

# HanTa's English tags are C5, those of the British National Corpus. What Penn's NN* covers is there: common nouns
# (NN0, NN1, NN2), names (NP0), indefinite pronouns (PNI: someone, lots) and words outside the corpus' lexicon (UNC),
# which Penn taggers take for nouns, too: giraffe.
_C5_NOUNS = {"NN", "NN0", "NN1", "NN2", "NP0", "PNI", "UNC"}


def _load_hanta() -> Tagger:
    from HanTa.HanoverTagger import HanoverTagger

    model = HanoverTagger("morphmodel_en.pgz")

    def tag_words(caption: str) -> list[TaggedWord]:
        words = list(_WORD.finditer(caption))
        tags = model.tag_sent([word[0].replace("\u2019", "'") for word in words], taglevel=0)
        return [
            TaggedWord(*word.span(), tag in _C5_NOUNS and word[0][0].isalnum())
            for word, tag in zip(words, tags, strict=True)
        ]

    return tag_words


def _load_flair() -> Tagger:
    from flair.data import Sentence
    from flair.models import SequenceTagger

    model = SequenceTagger.load("flair/pos-english")

    def tag_words(caption: str) -> list[TaggedWord]:
        sentence = Sentence(caption)
        model.predict(sentence)
        tags = [word.get_label(model.label_type).value for word in sentence]
        return [
            TaggedWord(word.start_position, word.end_position, tag.startswith("NN"))
            for word, tag in zip(sentence, tags, strict=True)
        ]

    return tag_words


def _load_spacy() -> Tagger:
    import spacy

    model = spacy.load("en_core_web_sm", enable=["tok2vec", "tagger"])

    def tag_words(caption: str) -> list[TaggedWord]:
        words = [word for word in model(caption) if not word.is_space]
        return [TaggedWord(word.idx, word.idx + len(word), word.tag_.startswith("NN")) for word in words]

    return tag_words


TAGGERS: dict[str, tuple[Callable[[], Tagger], str, str]] = {
    "default": (_load_hanta, "pip install HanTa", "pip install --force-reinstall HanTa"),
    "flair": (
        _load_flair,
        "pip install flair, in an environment of its own: it needs transformers < 5",
        "its first use downloads flair/pos-english from huggingface.co",
    ),
    "spacy": (_load_spacy, "pip install spacy", "python -m spacy download en_core_web_sm"),
}
"""Name -> what loads the tagger, how to install its package, how to get its model."""
