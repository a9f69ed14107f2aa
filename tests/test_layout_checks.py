"""The checker of layouts on layouts made by hand: right ones pass, each kind of wrong one is told."""

import json
from pathlib import Path

import pytest

from benchmarks.layout_checks import (
    KINDS,
    RELATIONS,
    Expected,
    counts,
    holds,
    is_meant,
    noun_words,
    phrase_problems,
    problems,
    same_noun,
    words_of,
)
from realcompo_core.layout import Layout, LayoutObject

PROMPT = "two black cats and a white dog to the left of a red car, no birds"
CAR = ("a red car", (0.6, 0.4, 0.95, 0.7))
DOG = ("a white dog", (0.05, 0.45, 0.25, 0.7))
CATS = [("a black cat", (0.3, 0.3, 0.5, 0.5)), ("a black cat", (0.3, 0.55, 0.5, 0.75))]
EXPECTED = Expected(
    PROMPT,
    objects={"cat": 2, "dog": 1, "car": 1},
    relations=[("cat|dog", "left_of", "car")],
    comparisons=[("cat", "more", "dog")],
    attributes={"black cat": 2, "red car": 1},
    sizes=[("cat", "smaller", "car")],
    absent=["bird"],
)


def made(*objects, **scene):
    return Layout(tuple(LayoutObject(phrase, box) for phrase, box in objects), **{"negative": "birds"} | scene)


def kinds(layout, expected=EXPECTED):
    return sorted({problem.kind for problem in problems(expected, layout)})


def test_right_layout_has_no_problem():
    assert problems(EXPECTED, made(*CATS, DOG, CAR)) == []


WRONG = [
    ("refused", None),
    ("count", made(CATS[0], DOG, CAR)),
    ("count", made(*CATS, ("a black cat", (0.05, 0.05, 0.2, 0.2)), DOG, CAR)),
    ("extra", made(*CATS, DOG, CAR, ("the left", (0.05, 0.05, 0.2, 0.2)))),
    ("comparison", made(CATS[0], DOG, CAR)),
    ("relation", made(*CATS, DOG, ("a red car", (0.0, 0.05, 0.5, 0.25)))),
    ("relation", made(*CATS, DOG)),
    ("attribute", made(*CATS, DOG, ("a car", CAR[1]))),
    ("attribute", made(CATS[0], ("a cat", CATS[1][1]), DOG, CAR)),
    ("size", made(("a black cat", (0.0, 0.1, 0.5, 0.4)), CATS[1], DOG, CAR)),
    ("absent", made(*CATS, DOG, CAR, negative="")),
    ("absent", made(*CATS, DOG, CAR, ("birds", (0.4, 0.0, 0.6, 0.2)))),
    ("phrase", made(*CATS, DOG, ("a fast car", CAR[1]))),
    ("phrase", made(*CATS, DOG, CAR, ("a white", (0.4, 0.0, 0.6, 0.2)))),
    ("absurd", made(*CATS, ("a white dog", (0.05, 0.02, 0.1, 0.9)), CAR)),
    ("absurd", made(("a white dog", (0.4, 0.4, 0.55, 0.55)))),
    ("absurd", made(CATS[0], CATS[0], DOG, CAR)),
    ("absurd", made(*CATS, ("a white dog", (0.3, 0.3, 0.31, 0.5)), CAR)),
    ("absurd", made(CATS[0], ("a black cat", (0.31, 0.31, 0.42, 0.42)), DOG, CAR)),
]


@pytest.mark.parametrize("kind, layout", WRONG)
def test_each_kind_of_wrong_layout_is_told(kind, layout):
    assert kind in kinds(layout)


def test_refusals_and_warnings():
    asked = Expected("ein hund", refused=True)
    assert kinds(None, asked) == []
    assert kinds(made(("hund", (0, 0, 1, 1))), asked) == ["not refused"]
    asked = Expected("a dog left of", objects={"dog": 1}, warns_about="Left of")
    dog = ("a dog", (0.2, 0.2, 0.8, 0.8))
    assert kinds(made(dog), asked) == ["warning"]
    assert kinds(made(dog, warnings=("what stands after 'left of'?",)), asked) == []


def test_optional_objects_are_asked_for_relations_only_if_they_are_there():
    asked = Expected("a boat on a lake", objects={"boat": 1}, may=["lake"], relations=[("boat", "on|inside", "lake")])
    boat = ("a boat", (0.4, 0.4, 0.6, 0.6))
    assert kinds(made(boat), asked) == []
    assert kinds(made(boat, ("a lake", (0.1, 0.5, 0.9, 0.9))), asked) == []
    assert kinds(made(boat, ("a lake", (0.1, 0.7, 0.9, 0.9))), asked) == ["relation"]


def test_strangers_may_not_hide_each_other_and_friends_may():
    big, small = ("a car", (0.1, 0.1, 0.9, 0.9)), ("a dog", (0.3, 0.3, 0.5, 0.5))
    asked = Expected("a car and a dog", objects={"car": 1, "dog": 1})
    assert kinds(made(big, small), asked) == ["absurd"]
    asked = Expected("a dog in a car", objects={"car": 1, "dog": 1}, relations=[("dog", "inside", "car")])
    assert kinds(made(big, small), asked) == []
    asked = Expected("a car, a dog and more", objects={"car": 1, "dog": 1}, nothing_else=False)
    assert kinds(made(big, small), asked) == []


# Layouts drawn by hand

DATA = Path(__file__).parent / "data"
EVERYDAY = {
    entry["prompt"]: Expected.from_dict(entry)
    for entry in json.loads((DATA / "everyday_prompts.json").read_text(encoding="utf-8"))
}
BY_HAND = [
    (EVERYDAY[entry["prompt"]], entry["objects"])
    for entry in json.loads((DATA / "everyday_layouts.json").read_text(encoding="utf-8"))
]
UPRIGHT = {"on", "above", "riding", "wearing", "under", "below"}


@pytest.mark.parametrize("expected, objects", BY_HAND, ids=lambda value: getattr(value, "prompt", ""))
def test_sensible_layouts_of_everyday_prompts_hold(expected, objects):
    assert problems(expected, made(*objects)) == []


@pytest.mark.parametrize("expected, objects", BY_HAND, ids=lambda value: getattr(value, "prompt", ""))
def test_everyday_layouts_made_worse_are_told(expected, objects):
    for i, (phrase, _) in enumerate(objects):
        layout = made(*objects[:i], *objects[i + 1 :])
        optional = any(is_meant(reference, LayoutObject(phrase, (0, 0, 1, 1))) for reference in expected.may)
        uncounted = any("+" in str(count) for count in expected.objects.values())
        assert problems(expected, layout) or optional or uncounted, f"without {phrase!r}"
    assert "extra" in kinds(made(*objects, ("a walrus", (0, 0, 0.2, 0.2))), expected)
    if any(set(name.split("|")) <= UPRIGHT for _, name, *_ in expected.relations):
        upside_down = [(phrase, (x0, 1 - y1, x1, 1 - y0)) for phrase, (x0, y0, x1, y1) in objects]
        assert "relation" in kinds(made(*upside_down), expected), "upside down"


# Relations

A = (0.4, 0.4, 0.6, 0.6)
PERSON, HORSE = (0.35, 0.1, 0.6, 0.6), (0.2, 0.45, 0.8, 0.95)
RIGHT_AND_WRONG = {  # of an "a" and a "b"
    "left_of": [((0.1, 0.4, 0.3, 0.6), A), (A, (0.1, 0.4, 0.3, 0.6)), ((0.1, 0.0, 0.3, 0.1), (0.4, 0.8, 0.6, 1.0))],
    "right_of": [((0.7, 0.4, 0.9, 0.6), A), (A, (0.7, 0.4, 0.9, 0.6)), ((0.5, 0.4, 0.7, 0.6), A)],
    "above": [((0.4, 0.1, 0.6, 0.3), A), (A, (0.4, 0.1, 0.6, 0.3)), ((0.4, 0.3, 0.6, 0.5), A)],
    "below": [((0.4, 0.7, 0.6, 0.9), A), (A, (0.4, 0.7, 0.6, 0.9)), ((0.0, 0.5, 0.2, 0.7), A)],
    "higher_than": [((0.0, 0.1, 0.1, 0.3), A), ((0.0, 0.5, 0.1, 0.7), A)],
    "lower_than": [((0.0, 0.5, 0.1, 0.7), A), ((0.0, 0.1, 0.1, 0.3), A)],
    "on": [
        ((0.45, 0.2, 0.55, 0.42), A),
        ((0.45, 0.1, 0.55, 0.3), A),
        ((0.45, 0.5, 0.55, 0.8), A),
        ((0.0, 0.2, 0.2, 0.42), A),
    ],
    "under": [
        ((0.4, 0.6, 0.6, 0.8), A),
        ((0.45, 0.5, 0.55, 0.6), A),
        ((0.4, 0.2, 0.6, 0.4), A),
        ((0.7, 0.6, 0.9, 0.8), A),
    ],
    "inside": [((0.45, 0.45, 0.55, 0.55), A), (A, (0.45, 0.45, 0.55, 0.55)), ((0.55, 0.55, 0.75, 0.75), A)],
    "in_front_of": [((0.45, 0.5, 0.6, 0.65), A), (A, (0.45, 0.5, 0.6, 0.65)), ((0.7, 0.5, 0.9, 0.7), A)],
    "behind": [(A, (0.45, 0.5, 0.6, 0.65)), ((0.45, 0.5, 0.6, 0.65), A), ((0.3, 0.3, 0.7, 0.7), A)],
    "next_to": [
        ((0.65, 0.4, 0.85, 0.6), A),
        ((0.9, 0.4, 1.0, 0.6), A),
        ((0.42, 0.42, 0.58, 0.58), A),
        ((0.4, 0.7, 0.6, 0.9), A),
    ],
    "near": [((0.4, 0.7, 0.6, 0.9), A), ((0.0, 0.4, 0.1, 0.6), A)],
    "riding": [(PERSON, HORSE), (HORSE, PERSON), ((0.35, 0.0, 0.6, 0.3), HORSE), ((0.35, 0.5, 0.6, 0.9), HORSE)],
    "part_of": [((0.45, 0.42, 0.55, 0.5), A), ((0.55, 0.4, 0.75, 0.5), A), (A, (0.45, 0.42, 0.55, 0.5))],
    "holding": [
        (PERSON, (0.5, 0.3, 0.65, 0.4)),
        (PERSON, (0.7, 0.3, 0.8, 0.4)),
        (PERSON, (0.4, 0.6, 0.5, 0.7)),
        (PERSON, (0.42, 0.1, 0.53, 0.25)),
        (PERSON, HORSE),
    ],
    "wearing": [(PERSON, (0.35, 0.2, 0.6, 0.5)), (PERSON, (0.7, 0.2, 0.8, 0.3)), (PERSON, (0.2, 0.2, 0.8, 0.5))],
    "at_left": [((0.1, 0.4, 0.3, 0.6), A), (A, A)],
    "at_right": [((0.7, 0.4, 0.9, 0.6), A), (A, A)],
    "at_top": [((0.4, 0.1, 0.6, 0.3), A), (A, A)],
    "at_bottom": [((0.4, 0.7, 0.6, 0.9), A), (A, A)],
    "at_middle": [(A, (0, 0, 0.1, 0.1)), ((0.7, 0.4, 0.9, 0.6), A)],
}  # the first pair is right, the others are wrong; "under" has two right ones


def related(name, first, second, nouns=("a cat", "a box")):
    relation = (nouns[0].split()[-1], name, nouns[1].split()[-1])
    return holds(relation[:2] if name.startswith("at_") else relation, made((nouns[0], first), (nouns[1], second)))


@pytest.mark.parametrize("name", RIGHT_AND_WRONG)
def test_relations(name):
    right = 2 if name == "under" else 1
    answers = [related(name, *pair) for pair in RIGHT_AND_WRONG[name]]
    assert answers == [True] * right + [False] * (len(answers) - right)


def test_every_relation_of_two_is_tested():
    assert RELATIONS == RIGHT_AND_WRONG.keys() | {"between", "surrounded_by"}


def test_between_and_surrounded_by():
    row = [("a cat", (0.4, 0.4, 0.6, 0.6)), ("a dog", (0.0, 0.4, 0.2, 0.6)), ("a dog", (0.8, 0.4, 1.0, 0.6))]
    assert holds(("cat", "between", "dog"), made(*row))
    assert holds(("cat", "surrounded_by", "dog"), made(*row))
    assert not holds(
        ("cat", "between", "dog"), made(("a cat", (0.4, 0.8, 0.6, 1.0)), row[1], ("a dog", (0.4, 0.0, 0.6, 0.2)))
    )
    assert not holds(("dog", "between", "cat", "dog"), made(*row[:2]))
    assert not holds(("cat", "surrounded_by", "dog"), made(row[0], row[1], ("a dog", (0.05, 0.4, 0.25, 0.6))))


@pytest.mark.parametrize(
    "worn, place",
    [("a hat", 0.05), ("a scarf", 0.3), ("boots", 0.9)],
)
def test_worn_things_are_where_they_belong(worn, place):
    person = (0.3, 0.1, 0.7, 0.9)
    for share in (0.05, 0.3, 0.9):
        middle = 0.1 + 0.8 * share
        box = (0.4, middle - 0.05, 0.6, middle + 0.05)
        hat_on_neck = worn == "a hat" and share == 0.3  # a wide brim may come down so far
        scarf_on_head = worn == "a scarf" and share == 0.05
        expected = share == place or hat_on_neck or scarf_on_head
        assert related("wearing", person, box, ("a person", worn)) == expected


def test_an_umbrella_may_be_over_the_head_and_a_cup_may_not():
    person, over = (0.4, 0.4, 0.6, 0.9), (0.35, 0.15, 0.65, 0.4)
    assert related("holding", person, over, ("a woman", "an umbrella"))
    assert not related("holding", person, over, ("a woman", "a cup"))


def test_each_of_the_first_needs_one_of_the_second_unless_some():
    boys = [("a boy", PERSON), ("a boy", (0.85, 0.3, 0.98, 0.9))]
    layout = made(*boys, ("a horse", HORSE))
    assert not holds(("boy", "riding", "horse"), layout)
    assert holds(("some boy", "riding", "horse"), layout)
    assert not holds(("some boy", "riding", "bull"), layout)


def test_some_pair_of_one_noun_is_of_two_objects():
    assert not holds(("some dog", "near", "dog"), made(DOG))
    assert holds(("some dog", "near", "dog"), made(DOG, ("a dog", (0.3, 0.45, 0.5, 0.7))))


def test_every_kind_has_a_case():
    assert {kind for kind, _ in WRONG} | {"not refused", "warning"} == set(KINDS)


@pytest.mark.parametrize(
    "phrase, noun",
    [
        ("two pairs of red shoes", "red shoes"),
        ("half a dozen eggs", "eggs"),
        ("a dozen of brown eggs", "brown eggs"),
        ("a cup of coffee", "cup"),
        ("a man with a hat", "man"),
        ("the striped rug was", "striped rug"),
        ("1girl", "girl"),
        ("a meal for the team", "meal"),
        ("a herd of five zebras", "zebras"),
        ("a watering can", "watering can"),
        ("a man's red hat", "man red hat"),
        ("a", ""),
    ],
)
def test_noun_of_a_phrase(phrase, noun):
    assert " ".join(noun_words(phrase)) == noun


def test_words_have_no_weights_and_no_marks():
    assert words_of("(red hat:1.3), [[t-shirt]] 2boys 8k") == ["red", "hat", "t-shirt", "2", "boys", "8k"]


@pytest.mark.parametrize("one, other", [("cats", "cat"), ("city", "cities"), ("knives", "knife"), ("men", "man")])
def test_same_noun_in_either_number(one, other):
    assert same_noun(one, other) and same_noun(other, one)
    assert not same_noun(one, "dog")


@pytest.mark.parametrize(
    "phrase, right",
    [
        ("a red cat", True),
        ("three red cats", True),
        ("red cats", True),
        ("a cat", True),
        ("a blue cat", False),
        ("red", False),
        ("a red cat sat", False),
        ("a cat red", False),
        ("a mat", True),
        ("cats was", False),
        ("on the mat", False),
    ],
)
def test_phrases_are_spans_of_the_prompt(phrase, right):
    found = phrase_problems("Three (red:1.2) cats was on the mat", made((phrase, A)))
    assert (found == []) == right


def test_counts():
    assert [n for n in range(6) if counts(2, n)] == [2]
    assert [n for n in range(6) if counts("3+", n)] == [3, 4, 5]
    assert [n for n in range(6) if counts("1-2", n)] == [1, 2]


def test_unknown_fields_and_relations_of_a_file_are_named():
    with pytest.raises(ValueError, match=r"unknown fields \['object'\] for prompt 'a cat'"):
        Expected.from_dict({"prompt": "a cat", "object": {"cat": 1}})
    with pytest.raises(ValueError, match=r"unknown relations \['onto'\] for prompt 'a cat'"):
        Expected.from_dict(json.loads('{"prompt": "a cat", "relations": [["cat", "on|onto", "mat"]]}'))
