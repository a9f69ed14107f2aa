"""The dependency parser against spaCy's own parses with the same weights, and what it must not do."""

import json
from pathlib import Path

import pytest
from endless import ends
from hypothesis import given
from hypothesis import strategies as st

from realcompo_core.text.parser import parse, tokens_of

PARSES = json.loads((Path(__file__).parent / "data" / "parses.json").read_text(encoding="utf-8"))


def parsed(text):
    return [[token.text, token.tag, token.label, token.head] for token in parse(tokens_of(text))]


def test_every_token_is_as_spacy_has_it():
    assert len(PARSES) == 95 and sum(len(entry["tokens"]) for entry in PARSES) > 1000
    wrong = {entry["text"]: parsed(entry["text"]) for entry in PARSES if parsed(entry["text"]) != entry["tokens"]}
    assert wrong == {}


def test_tokens_are_pieces_of_the_text():
    text = "She's \"t-shirt\" isn't 1,000 px (U.S.)…"
    tokens = tokens_of(text)
    assert [form for form, _, _ in tokens] == [text[start:end] for _, start, end in tokens]
    assert "".join(form for form, _, _ in tokens) == text.replace(" ", "")
    assert [form for form, _, _ in tokens][:5] == ["She", "'s", '"', "t", "-"]


def test_a_form_may_stand_for_several_words():
    text = "a circle to the left of a square"
    tokens = [("a", 0, 1), ("circle", 2, 8), ("beside", 9, 23), ("a", 24, 25), ("square", 26, 32)]
    circle, beside, square = (parse(tokens)[i] for i in (1, 2, 4))
    assert text[beside.start : beside.end] == "to the left of"
    assert (beside.label, beside.head, square.label, square.head) == ("prep", 1, "pobj", 2)
    assert circle.label == "ROOT"


@given(
    st.text(max_size=60) | st.lists(st.sampled_from("a the dog barks , . and of 7 é 猫 's n't".split())).map(" ".join)
)
def test_any_text_gives_a_forest(text):
    tokens = parse(tokens_of(text))
    for i, token in enumerate(tokens):
        assert 0 <= token.head < len(tokens) and (token.label == "ROOT") == (token.head == i)
        seen = set()
        while tokens[i].head != i:
            assert i not in seen
            seen.add(i)
            i = tokens[i].head


@pytest.mark.parametrize("text", ["a " * 2000, "(" * 2000, "dog, " * 1000, "x" * 4000])
def test_long_text_ends(text):
    with ends():
        parse(tokens_of(text))
