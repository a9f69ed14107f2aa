import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokencompose_core.taggers import Noun, TaggedWord, TaggerError, extract_nouns, get_tagger

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "noun_agreement.py"


@pytest.fixture(autouse=True)
def fresh_taggers():
    """No tagger that another test has loaded or faked."""
    get_tagger.cache_clear()
    yield
    get_tagger.cache_clear()


def texts(caption, tagger="default"):
    return [noun.text for noun in extract_nouns(caption, tagger)]


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("A cat sitting on a couch with two remote controls.", ["cat", "couch", "controls"]),
        ("Dogs chase a small red ball", ["Dogs", "ball"]),
        ("bread with chocolate spread", ["bread", "chocolate spread"]),
        ("a kitchen table, chairs and a lamp", ["kitchen table", "chairs", "lamp"]),
        ("a woman's hat on the chefs' table", ["woman", "hat", "chefs", "table"]),
        ("a woman\u2019s hat", ["woman", "hat"]),
        ("a man in Paris next to Peter", ["man", "Paris", "Peter"]),
        ("someone holds a double-decker bus", ["someone", "double-decker bus"]),
        ("A giraffe eats leaves.", ["giraffe", "leaves"]),
        ("a dog that doesn't like the cat", ["dog", "cat"]),
        ("a dog that doesn\u2019t like the cat", ["dog", "cat"]),
        ("a cat behind a cat", ["cat", "cat"]),
        ("It is very small!", []),
        ("= ++ \U0001f431 !!!", []),
        ("", []),
    ],
)
def test_nouns(caption, expected):
    assert texts(caption) == expected


def test_spans_are_characters_of_the_caption():
    caption = " A cat's  kitchen\n table."
    assert extract_nouns(caption) == [Noun("cat", 3, 6), Noun("kitchen table", 10, 24)]
    assert caption[10:24] == "kitchen\n table"


def test_a_tagger_of_ones_own():
    def capitals(caption):
        starts = [i for i, letter in enumerate(caption) if letter != " "]
        return [TaggedWord(i, i + 1, caption[i].isupper()) for i in starts]

    assert extract_nouns("A B c D", capitals) == [Noun("A B", 0, 3), Noun("D", 6, 7)]


def test_unknown_tagger_is_named():
    with pytest.raises(TaggerError, match="'nltk'.*'default', 'flair', 'spacy'"):
        extract_nouns("a cat", "nltk")


@pytest.mark.parametrize(
    "name, module, way_out",
    [
        ("default", "HanTa", "pip install HanTa"),
        ("flair", "flair", "pip install flair"),
        ("spacy", "spacy", "pip install spacy"),
    ],
)
def test_missing_package_names_the_pip_command(monkeypatch, name, module, way_out):
    for loaded in [found for found in sys.modules if found.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TaggerError, match=f"{name!r}.*{way_out}"):
        extract_nouns("a cat", name)


# Stand-ins with the few names of flair and spaCy that are used: their models are no part of their packages.


def test_flair(monkeypatch):
    class Sentence(list):
        def __init__(self, text):
            spans = {"a": (0, 1), "toy": (2, 5), "car": (6, 9)}
            assert text == "a toy car"
            super().__init__(SimpleNamespace(text=t, start_position=s, end_position=e) for t, (s, e) in spans.items())

    class SequenceTagger:
        label_type = "pos"

        @classmethod
        def load(cls, model):
            assert model == "flair/pos-english"
            return cls()

        def predict(self, sentence):
            for word, tag in zip(sentence, ["DT", "NN", "NNS"], strict=True):
                labels = {"pos": SimpleNamespace(value=tag)}
                word.get_label = labels.__getitem__

    monkeypatch.setitem(sys.modules, "flair", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "flair.data", SimpleNamespace(Sentence=Sentence))
    monkeypatch.setitem(sys.modules, "flair.models", SimpleNamespace(SequenceTagger=SequenceTagger))
    assert extract_nouns("a toy car", "flair") == [Noun("toy car", 2, 9)]


class SpacyWord(str):
    def __new__(cls, text, idx, tag):
        word = super().__new__(cls, text)
        word.idx, word.tag_, word.is_space = idx, tag, text.isspace()
        return word


def test_spacy_joins_across_its_space_words(monkeypatch):
    words = [SpacyWord("toy", 0, "NN"), SpacyWord(" ", 4, "_SP"), SpacyWord("car", 5, "NNP"), SpacyWord("is", 9, "VBZ")]
    fake = SimpleNamespace(load=lambda name, enable: lambda caption: words)
    monkeypatch.setitem(sys.modules, "spacy", fake)
    assert extract_nouns("toy  car is", "spacy") == [Noun("toy car", 0, 8)]


def test_missing_model_names_the_command(monkeypatch):
    def load(name, enable):
        raise OSError(f"[E050] Can't find model {name!r}")

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))
    with pytest.raises(TaggerError, match="E050.*python -m spacy download en_core_web_sm"):
        get_tagger("spacy")


def agreement(tmp_path, lines):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(path), "--taggers", "default"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


def test_agreement_is_counted_over_sets_of_whole_nouns(tmp_path):
    records = [
        ("a cat behind a cat", ["cat"]),  # 1 hit: ours twice counts once
        ("bread with chocolate spread", ["Bread", "chocolate", "spread"]),  # none: neither case nor compound
        ("a dog and a ball", ["dog"]),  # 1 hit of 2
        ("a lamp", ["lamp", "light"]),  # 1 hit, 1 missed
    ]
    lines = [json.dumps({"text": text, "attn_list": [[noun, None] for noun in nouns]}) for text, nouns in records]
    done = agreement(tmp_path, lines)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["records"], result["official_nouns"]) == (4, 7)
    scores = result["taggers"]["default"]  # 3 hits, 6 ours, 7 official; words: 5 hits, 7 ours, 7 official
    assert scores["precision"] == pytest.approx(3 / 6, abs=1e-4)
    assert scores["recall"] == pytest.approx(3 / 7, abs=1e-4)
    assert scores["f1"] == pytest.approx(6 / 13, abs=1e-4)
    assert scores["f1_first_half"] == pytest.approx(2 / 7, abs=1e-4)
    assert scores["f1_second_half"] == pytest.approx(4 / 6, abs=1e-4)
    assert scores["words_f1"] == pytest.approx(10 / 14, abs=1e-4)


def test_agreement_names_a_line_that_is_no_record(tmp_path):
    done = agreement(tmp_path, ['{"text": "a cat", "attn_list": []}', '{"text": "a dog"}'])
    assert done.returncode != 0 and "line 2" in done.stderr and "attn_list" in done.stderr
