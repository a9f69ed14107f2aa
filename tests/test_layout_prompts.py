"""Published prompt files: what is read from them, and the benchmark over them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.layout_prompts import of_entry, of_sentence, read_prompts
from benchmarks.published_data import LMD_REPLIES, MULTIGEN_PROMPTS

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "layouts.py"


@pytest.mark.parametrize(
    "sentence, objects, relations, attributes",
    [
        ("a bee on side of a clock", {"bee": 1, "clock": 1}, [("some bee", "next_to", "clock")], {}),
        ("a dog on the top of a dog", {"dog": 2}, [("some dog", "above|on", "dog")], {}),
        ("a car hidden by a hot dog", {"car": 1, "hot dog": 1}, [("some car", "behind", "hot dog")], {}),
        (
            "a red backpack and a blue book",
            {"backpack": 1, "book": 1},
            [],
            {"red backpack": 1, "blue book": 1},
        ),
        (
            "rubber gloves and a round slice of bread",
            {"gloves": "1-2", "slice|bread": 1},
            [],
            {"rubber gloves": "1-2", "round slice|round bread": 1},
        ),
        (
            "The red hat was on top of the brown coat rack.",
            {"hat": "1+", "rack": "1+"},
            [("some hat", "above|on", "rack")],
            {"red hat": "1+", "brown rack": "1+"},
        ),
        ("four tents", {"tents": 4}, [], {}),
        ("two apples, one bag and four clocks", {"apples": 2, "bag": 1, "clocks": 4}, [], {}),
        ("a fish, two lemons, and a vase were here", {"fish": 1, "lemons": 2, "vase": 1}, [], {}),
        ("four trains carried four people", {"trains": 4, "people": 4}, [], {}),
        ("six people gathered for a picnic", {"people": 6}, [], {}),
        ("A realistic photo of a scene with three bowls", {"bowls": 3}, [], {}),
        (
            "A realistic photo of a scene with a cat on the left and a dog on the right",
            {"cat": 1, "dog": 1},
            [("cat", "at_left"), ("dog", "at_right")],
            {},
        ),
    ],
)
def test_sentences_of_fixed_form(sentence, objects, relations, attributes):
    expected = of_sentence(sentence)
    assert (expected.objects, list(expected.relations), expected.attributes) == (objects, relations, attributes)


@pytest.mark.parametrize(
    "sentence",
    [
        "A man is holding a compass and navigating through the wilderness.",
        "A bathroom with white tile and a beige toilet.",
        "The fresh omelet cooked the fluffy eggs and the crisp vegetables.",
        "Two hot dogs sit on a plate near a cup while a bike and a silver car are parked nearby.",
        "a cat",
    ],
)
def test_other_sentences_expect_nothing(sentence):
    assert not of_sentence(sentence).labelled


def test_nsr_counting():
    entry = {"prompt": "two sheeps", "num_object": [["sheep", 2]], "sub-type": "single-category", "type": "template"}
    assert of_entry(entry).objects == {"sheep|lamb|ram": 2}
    entry = {"prompt": "", "num_object": [["car", 2], ["dog", 1]], "sub-type": "comparison"}
    expected = of_entry(entry)
    assert expected.objects == {"car": 2, "dog|puppy": "1+"}
    assert expected.comparisons == [("car", "more", "dog|puppy")]
    equal = of_entry(entry | {"num_object": [["car", 1], ["dog", 1]]})
    assert (equal.objects, list(equal.comparisons)) == ({"car": 1, "dog|puppy": 1}, [])


def test_nsr_spatial():
    entry = {"prompt": "", "obj1": ["cat", []], "obj2": ["tv", []], "relation": "bottom", "type": "natural"}
    expected = of_entry(entry)
    assert expected.relations == [("some cat|kitten|kitty", "below|under", "tv|television|monitor")]
    assert not expected.nothing_else
    assert of_entry(entry | {"type": "template"}).nothing_else


def test_multigen():
    entry = {"num_objects": 2, "obj_1_attributes": ["bear"], "obj_2_attributes": ["teddy bear"], "text": "a photo of …"}
    assert of_entry(entry).objects == {"bear": 2, "teddy bear": 1}


@pytest.mark.parametrize("name, number", [(MULTIGEN_PROMPTS, 1000), (LMD_REPLIES, 250)])
def test_published_files_are_labelled_throughout(name, number, published_text, tmp_path):
    (tmp_path / name).write_text(published_text(name), encoding="utf-8")
    expectations = read_prompts(tmp_path / name)
    assert len(expectations) == number
    assert all(expected.labelled for expected in expectations)


@pytest.mark.parametrize("text", ["[{]", '[{"text": "a cat"}]', "[]", '[{"obj1": 1}]'])
def test_a_file_in_no_known_format_is_named(tmp_path, text):
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="prompts.json"):
        read_prompts(path)


def test_benchmark_prints_shares_failures_and_sheets(tmp_path):
    prompts = tmp_path / "spatial_val.txt"
    prompts.write_text("a cat on the left of a dog\n三匹の猫\n\na photo\n")
    sheet, output = tmp_path / "sheet.png", tmp_path / "results.json"
    command = [
        sys.executable,
        str(SCRIPT),
        str(prompts),
        "--failures",
        "5",
        "--sheet",
        str(sheet),
        "--output",
        str(output),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    *_, last = done.stdout.strip().splitlines()
    row = json.loads(last)["files"]["spatial_val.txt"]
    assert (row["prompts"], row["labelled"], row["refused"], row["satisfied"]) == (3, 1, 2, 1.0)
    assert "三匹の猫" in done.stdout and "refused: " in done.stdout
    page = Image.open(tmp_path / "sheet_1.png")
    assert page.width > page.height and len(page.getcolors(1 << 24)) > 10
    saved = json.loads(output.read_text())
    assert [bool(each["layout"]) for each in saved["results"]["spatial_val.txt"]] == [True, False, False]


def test_benchmark_writes_nothing_unless_asked(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat")
    subprocess.run(
        [sys.executable, str(SCRIPT), str(prompts)], cwd=tmp_path, check=True, timeout=300, capture_output=True
    )
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_benchmark_names_a_file_that_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "none.txt"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode and "none.txt" in done.stderr and "Traceback" not in done.stderr
