import json

import pytest

from benchmarks.published_data import COCO_CAPTIONS, MULTIGEN_PROMPTS
from realcompo_core.errors import PhraseNotInPromptError
from realcompo_core.text.words import count_of, head_noun, match_phrases, noun_words, singular, split_words

PLURALS = (
    "people:person men:man women:woman snowmen:snowman children:child mice:mouse geese:goose feet:foot "
    "teeth:tooth knives:knife wolves:wolf leaves:leaf shelves:shelf bookshelves:bookshelf loaves:loaf "
    "buses:bus octopuses:octopus houses:house vases:vase roses:rose dishes:dish benches:bench boxes:box "
    "glasses:glass dresses:dress cities:city ties:tie cookies:cookie boys:boy tomatoes:tomato shoes:shoe "
    "gloves:glove sizes:size cups:cup Dogs:dog cacti:cactus corgis:corgi"
)
SINGULARS = "sheep fish deer glass bus tennis octopus specimen scissors series lens gas dress person woman slice"


def heads(phrases, prompt):
    """Position of each phrase's head noun, as the number of characters before it."""
    return [match.head[0] for match in match_phrases(phrases, prompt)]


def found(phrase, prompt):
    (match,) = match_phrases([phrase], prompt)
    return [prompt[start:end] for start, end in match.words]


@pytest.mark.parametrize("plural, expected", [pair.split(":") for pair in PLURALS.split()])
def test_singular_of_plurals(plural, expected):
    assert singular(plural) == expected


@pytest.mark.parametrize("word", SINGULARS.split())
def test_singular_keeps_singulars(word):
    assert singular(word) == word


@pytest.mark.parametrize(
    "phrase, expected",
    [
        ("a man with a red hat", "man"),
        ("a cup of coffee", "cup"),
        ("woman wearing a coat", "woman"),
        ("a big brown teddy bear", "bear"),
        ("the dog sitting on the grass", "dog"),
        ("a dog running", "dog"),
        ("a small sleeping cat", "cat"),
        ("a red building", "building"),
        ("a black and white dog", "dog"),
        ("a group of people", "people"),
        ("two pairs of shoes", "shoes"),
        ("a person who rides a horse", "person"),
        ("dog 2", "dog"),
        ("car", "car"),
    ],
)
def test_head_noun(phrase, expected):
    words = phrase.split()
    assert words[head_noun(words)] == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a t-shirt, o'clock.", ["a", "t-shirt", "o'clock"]),
        ("(red:1.2) car", ["red", "car"]),
        ("((a cat)), [dog:0.8] 3 cups", ["a", "cat", "dog", "3", "cups"]),
        ("a man's hat, the man’s dog", ["a", "man", "hat", "the", "man", "dog"]),
        ("teddy_bear/red", ["teddy", "bear", "red"]),
        ("Ein Mädchen, 🐶👩‍🚀!", ["Ein", "Mädchen", "🐶👩‍🚀"]),
        ("猫、犬。", ["猫", "犬"]),
        ("cafe\u0301", ["cafe\u0301"]),
    ],
)
def test_split_words(text, expected):
    assert [word.text for word in split_words(text)] == expected
    assert all(text[slice(*word.span)] == word.text for word in split_words(text))


@pytest.mark.parametrize(
    "phrase, prompt, expected",
    [
        ("a car", "three cars on a road", ["cars"]),
        ("people", "one Person", ["Person"]),
        ("a Red Car", "a shiny red CAR", ["red", "CAR"]),
        ("a red car", "a red vintage car", ["red", "car"]),
        ("a red car", "a (red:1.2) (car:0.9)", ["red", "car"]),
        ("a big, brown dog", "a big, brown dog", ["big", "brown", "dog"]),
        ("a red car", "a red dog, a car", ["car"]),
        ("a red car", "red dog, car", ["car"]),
        ("two red cups", "two red cups", ["red", "cups"]),
        ("a teddy bear", "a bear beside a teddy bear", ["teddy", "bear"]),
        ("a man", "the man's hat", ["man"]),
        ("a white t-shirt", "a boy in a white t-shirt.", ["white", "t-shirt"]),
        ("a café", "a cafe\u0301 in Paris", ["cafe\u0301"]),
        ("🐶", "a 🐶 and a 🐱", ["🐶"]),
        ("🐱", "🐶🐱", ["🐱"]),
        ("猫", "一只猫在沙发上", ["猫"]),
    ],
)
def test_words_of_a_match(phrase, prompt, expected):
    assert found(phrase, prompt) == expected


def test_adjectives_decide_between_occurrences():
    prompt = "a blue cup next to a red cup"
    assert heads(["a red cup", "a blue cup"], prompt) == [25, 7]
    assert heads(["a cup", "a blue cup"], prompt) == [25, 7]


def test_words_after_the_head_decide_too():
    prompt = "a man in a blue hat and a man in a red hat"
    assert heads(["a man in a red hat", "a man in a blue hat"], prompt) == [26, 2]


def test_equal_occurrences_are_taken_in_order():
    assert heads(["a cup", "a cup"], "a cup behind a cup") == [2, 15]


def test_a_number_tells_how_many_phrases_share_an_occurrence():
    prompt = "two cats and a dog next to another cat"
    assert heads(["a cat", "a cat", "a cat", "a dog"], prompt) == [4, 4, 35, 15]


def test_more_phrases_than_the_prompt_announces_share():
    assert heads(["a corgi"] * 3, "two corgis") == [4, 4, 4]
    assert heads(["a cup"] * 2, "a cup") == [2, 2]


def test_phrases_do_not_spill_to_an_occurrence_that_fits_worse():
    assert heads(["a brown dog", "a brown dog"], "two brown dogs and a white dog") == [10, 10]


@pytest.mark.parametrize("phrase", ["a zebra", "art", "", "..."])
def test_missing_phrase_is_named_with_the_prompts_words(phrase):
    with pytest.raises(PhraseNotInPromptError) as error:
        match_phrases(["a cat", phrase], "a cat, in a cart")
    assert repr(phrase) in str(error.value)
    assert "a, cat, in, a, cart" in str(error.value)


def test_nouns_of_real_captions_are_found(published_text):
    for line in published_text(COCO_CAPTIONS).splitlines():
        record = json.loads(line)
        for noun, _ in record["attn_list"]:
            (match,) = match_phrases([noun], record["text"])
            assert record["text"][slice(*match.head)] in noun


def test_categories_of_real_prompts_are_told_apart(published_text):
    for record in json.loads(published_text(MULTIGEN_PROMPTS)):
        phrases = [record[f"obj_{i}_attributes"][0] for i in range(1, record["num_objects"] + 1)]
        matches = match_phrases(phrases, record["text"])
        texts = [record["text"][match.words[0][0] : match.words[-1][1]] for match in matches]
        assert texts == phrases
        assert len({match.head for match in matches}) == len(phrases)


@pytest.mark.parametrize(
    "phrase, number",
    [
        ("a dog", 1),
        ("the tall man with two swords", 1),
        ("four friends", 4),
        ("two happy young dancers", 2),
        ("3 dogs", 3),
        ("a pair of skaters", 2),
        ("a couple", 2),
        ("a group of four friends", 4),
        ("a group of friends", None),
        ("two groups of people", None),
        ("people", None),
        ("some dogs", None),
        ("one sheep", 1),
        ("", 1),
    ],
)
def test_how_many_a_phrase_names(phrase, number):
    assert count_of(phrase) == number


def test_words_up_to_the_noun():
    assert noun_words("two Red cars on a road") == ["two", "red", "car"]
    assert noun_words("!") == []
