"""Layouts changed by rules: boxes worked out by hand, whom words mean, and what stays as it was."""

import random
from contextlib import suppress

import numpy as np
import pytest
from endless import ends

from realcompo_core.errors import LayoutError, ProviderError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.changes import in_box, mirrored
from realcompo_core.providers import RulesProvider
from realcompo_core.providers.references import find
from realcompo_core.providers.revision import revise

SIZE = (512, 512)
CAT, BROWN, BLACK, SOFA = (0.6, 0.5, 0.8, 0.9), (0.1, 0.5, 0.3, 0.8), (0.35, 0.6, 0.5, 0.8), (0.2, 0.4, 0.9, 0.95)
PROMPT = "a cat, a brown dog and a black dog on a sofa"


def scene(**boxes):
    named = {"a cat": CAT, "a brown dog": BROWN, "a black dog": BLACK, "a sofa": SOFA} | boxes
    return Layout(tuple(LayoutObject(phrase, box) for phrase, box in named.items()), "a room", prompt=PROMPT)


def after(instruction, layout=None, size=SIZE):
    return revise(layout or scene(), instruction, size)


def boxes(layout):
    return {item.phrase: tuple(round(edge, 3) for edge in item.box) for item in layout.objects}


# By hand: a step is 0.2 of the picture, a little 0.1, much 0.35; the margin 0.02, the gap 0.03.
@pytest.mark.parametrize(
    ("instruction", "phrase", "box"),
    [
        ("move the cat to the left", "a cat", (0.4, 0.5, 0.6, 0.9)),
        ("Please move the cat a little to the left.", "a cat", (0.5, 0.5, 0.7, 0.9)),
        ("shift the cat left a bit", "a cat", (0.5, 0.5, 0.7, 0.9)),
        ("move the cat much further left", "a cat", (0.25, 0.5, 0.45, 0.9)),
        ("move the cat all the way to the left", "a cat", (0.02, 0.5, 0.22, 0.9)),
        ("move the cat up by 25 %", "a cat", (0.6, 0.25, 0.8, 0.65)),
        ("move the cat 128 pixels left", "a cat", (0.35, 0.5, 0.55, 0.9)),
        ("move the cat left by 64 px", "a cat", (0.475, 0.5, 0.675, 0.9)),
        ("raise the cat", "a cat", (0.6, 0.3, 0.8, 0.7)),
        ("move the cat up and left", "a cat", (0.4, 0.3, 0.6, 0.7)),
        ("put the cat on the left", "a cat", (0.02, 0.5, 0.22, 0.9)),
        ("move the cat to the left side of the picture", "a cat", (0.02, 0.5, 0.22, 0.9)),
        ("move the cat to the top", "a cat", (0.6, 0.02, 0.8, 0.42)),
        ("move the cat to the top right corner", "a cat", (0.78, 0.02, 0.98, 0.42)),
        ("put the cat in the middle", "a cat", (0.4, 0.3, 0.6, 0.7)),
        ("center the cat", "a cat", (0.4, 0.3, 0.6, 0.7)),
        ("move the cat to the right of the brown dog", "a cat", (0.33, 0.5, 0.53, 0.9)),
        ("move the cat above the black dog", "a cat", (0.325, 0.17, 0.525, 0.57)),
        ("put the brown dog on the cat", "a brown dog", (0.6, 0.23, 0.8, 0.53)),
        ("put the black dog into the sofa", "a black dog", BLACK),
        ("move the black dog next to the cat", "a black dog", (0.42, 0.6, 0.57, 0.8)),
        ("move the brown dog in front of the cat", "a brown dog", (0.6, 0.675, 0.8, 0.975)),
        ("move the brown dog behind the cat", "a brown dog", (0.6, 0.35, 0.8, 0.65)),
        ("make the black dog twice as big", "a black dog", (0.275, 0.5, 0.575, 0.9)),
        ("make the black dog half the size", "a black dog", (0.3875, 0.65, 0.4625, 0.75)),
        ("double the width of the black dog", "a black dog", (0.275, 0.6, 0.575, 0.8)),
        ("make the cat bigger", "a cat", (0.575, 0.45, 0.825, 0.95)),
        ("make the cat a little wider", "a cat", (0.59, 0.5, 0.81, 0.9)),
        ("make the cat 50 % taller", "a cat", (0.6, 0.4, 0.8, 1.0)),
        ("make the cat taller by 50 %", "a cat", (0.6, 0.4, 0.8, 1.0)),
        ("scale the cat by 0.5", "a cat", (0.65, 0.6, 0.75, 0.8)),
        ("shrink the cat by 50 %", "a cat", (0.65, 0.6, 0.75, 0.8)),
        ("make the cat shorter", "a cat", (0.6, 0.54, 0.8, 0.86)),
    ],
)
def test_one_object_moves_as_worked_out_and_the_others_stay(instruction, phrase, box):
    changed = after(instruction)
    assert boxes(changed) == boxes(scene()) | {phrase: pytest.approx(box, abs=1e-3)}
    assert (changed.prompt, changed.background) == (PROMPT, "a room")
    changed.validate(PROMPT)


@pytest.mark.parametrize(
    ("instruction", "moved"),
    [
        ("move both dogs up", {"a brown dog": (0.1, 0.3, 0.3, 0.6), "a black dog": (0.35, 0.4, 0.5, 0.6)}),
        (
            "move the dogs to the right side",
            {"a brown dog": (0.58, 0.5, 0.78, 0.8), "a black dog": (0.83, 0.6, 0.98, 0.8)},
        ),
        ("swap the cat and the brown dog", {"a cat": (0.1, 0.4, 0.3, 0.8), "a brown dog": (0.6, 0.6, 0.8, 0.9)}),
        ("swap both dogs", {"a brown dog": (0.325, 0.5, 0.525, 0.8), "a black dog": (0.125, 0.6, 0.275, 0.8)}),
        (
            "mirror everything",
            {"a cat": (0.2, 0.5, 0.4, 0.9), "a brown dog": (0.7, 0.5, 0.9, 0.8), "a black dog": (0.5, 0.6, 0.65, 0.8)}
            | {"a sofa": (0.1, 0.4, 0.8, 0.95)},
        ),
        ("flip the cat upside down", {"a cat": (0.6, 0.1, 0.8, 0.5)}),
        ("move the cat left and make it half as tall", {"a cat": (0.4, 0.6, 0.6, 0.8)}),
        ("move the cat left\nmove it up", {"a cat": (0.4, 0.3, 0.6, 0.7)}),
        ("put the cat below the brown dog", {"a brown dog": (0.1, 0.25, 0.3, 0.55), "a cat": (0.1, 0.58, 0.3, 0.98)}),
        # The dog gives way: 0.2 + 0.03 + 0.02 are needed on its left, it has 0.1.
        (
            "move the cat to the left of the brown dog",
            {"a cat": (0.02, 0.5, 0.22, 0.9), "a brown dog": (0.25, 0.5, 0.45, 0.8)},
        ),
    ],
)
def test_several_objects_and_several_clauses(instruction, moved):
    assert boxes(after(instruction)) == boxes(scene()) | {
        phrase: pytest.approx(box, abs=1e-3) for phrase, box in moved.items()
    }


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        ("the cat", "a cat"),
        ("CAT", "a cat"),
        ("the brown dog", "a brown dog"),
        ("the left dog", "a brown dog"),
        ("the second dog", "a black dog"),
        ("the second dog from the right", "a brown dog"),
        ("the dog on the right", "a black dog"),
        ("the biggest dog", "a brown dog"),
        ("the smallest object", "a black dog"),
        ("the upper one", "a brown dog"),
        ("both dogs", "a brown dog, a black dog"),
        ("the dogs", "a brown dog, a black dog"),
        ("all of the dogs", "a brown dog, a black dog"),
        ("the cat and the black dog", "a black dog, a cat"),
        ("everything", "a brown dog, a black dog, a sofa, a cat"),
    ],
)
def test_whom_words_mean(words, phrases):
    objects = dict(enumerate(scene().objects))
    assert ", ".join(objects[i].phrase for i in find(words, objects)) == phrases


def test_the_plain_one_and_the_first_words_of_a_compound():
    layout = Layout(tuple(LayoutObject(phrase, CAT) for phrase in ("a cat", "a black cat", "a teddy bear", "红色的球")))
    objects = dict(enumerate(layout.objects))
    assert [find(words, objects) for words in ("the cat", "the black cat", "the teddy", "红色的球")] == [
        [0],
        [1],
        [2],
        [3],
    ]
    assert find("both cats", objects) == [0, 1] and find("the right cat", objects) == [0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("the horse", "no object fits 'the horse'"),
        ("the white cat", "no object fits 'the white cat'"),
        ("the dog", "'the dog' can be any of 2 objects.*'the second dog'"),
        ("three dogs", "'three dogs' are 3, but 2 objects fit"),
        ("the third dog", "no object fits"),
        ("it", "no object fits 'it'"),
        ("the cat and the horse", "no object fits"),
        ("the left", "no object fits"),
    ],
)
def test_words_that_mean_none_or_one_of_several_list_the_objects(words, message):
    with pytest.raises(ProviderError, match=message) as caught:
        find(words, dict(enumerate(scene().objects)))
    assert "'a brown dog' at [0.1, 0.5, 0.3, 0.8]" in str(caught.value)


def test_removed_objects_are_gone_and_the_prompt_is_spoken_of():
    changed = after("remove the black dog")
    assert list(boxes(changed)) == ["a cat", "a brown dog", "a sofa"]
    [warning] = changed.warnings
    assert "'a black dog'" in warning and "prompt" in warning and changed.prompt == PROMPT
    assert after("delete everything").objects == ()


def test_added_objects_take_free_room_and_extend_the_prompt():
    changed = after("add a red ball")
    ball = changed.objects[-1]
    assert ball.phrase == "a red ball" and changed.prompt == f"{PROMPT}, a red ball"
    assert [changed.prompt in warning for warning in changed.warnings] == [True]
    for other in changed.objects[:-1]:
        apart = ball.box[2] <= other.box[0] or other.box[2] <= ball.box[0] or ball.box[3] <= other.box[1]
        assert apart, f"{ball.box} meets {other.box}"


def test_added_objects_are_as_large_as_the_others_and_square_in_pixels():
    one = Layout((LayoutObject("a cat", (0.0, 0.4, 0.25, 0.9)),), prompt="a cat")  # 256 x 256 pixels
    ball = after("add a ball", one, (1024, 512)).objects[-1]
    sides = (ball.box[2] - ball.box[0]) * 1024, (ball.box[3] - ball.box[1]) * 512
    assert sides == pytest.approx((0.4 * 512, 0.4 * 512), abs=1)  # at most 0.4 of the shorter side
    empty = after("add a ball", Layout(prompt="a beach"))
    assert empty.objects[0].box == (0.375, 0.375, 0.625, 0.625) and empty.prompt == "a beach, a ball"


@pytest.mark.parametrize(
    ("instruction", "holds"),
    [
        ("add a ball on the left", lambda ball: ball[0] == 0.02),
        ("add a ball in the bottom right corner", lambda ball: ball[2] == ball[3] == 0.98),
        ("add a ball above the cat", lambda ball: ball[3] == 0.47 and ball[0] + ball[2] == pytest.approx(1.4)),
        ("add a hat on the cat", lambda hat: hat[3] > 0.5 > hat[1] and hat[2] - hat[0] <= 0.14 + 1e-6),
        ("add a man in a suit next to the cat", lambda man: man[2] == 0.57 and man[3] == pytest.approx(0.9)),
    ],
)
def test_added_objects_are_put_where_the_words_say(instruction, holds):
    assert holds(after(instruction).objects[-1].box)


def test_what_is_added_on_something_stands_beside_what_is_there():
    table, bowl = LayoutObject("a table", (0.1, 0.6, 0.9, 0.95)), LayoutObject("a bowl", (0.45, 0.4, 0.55, 0.62))
    lamp = after("add a lamp on the table", Layout((table, bowl), prompt="a bowl on a table")).objects[-1].box
    assert lamp[2] <= 0.45 or lamp[0] >= 0.55, "not in the bowl"
    assert 0.1 <= lamp[0] and lamp[2] <= 0.9 and lamp[1] < 0.6 < lamp[3]


def test_pronouns_without_a_noun_before_them():
    two = Layout((LayoutObject("a cat", CAT), LayoutObject("a dog", BROWN)), prompt="a cat and a dog")
    assert boxes(after("swap them", two)) == boxes(after("swap the cat and the dog", two))
    one = Layout(two.objects[:1], prompt="a cat")
    assert boxes(after("move it left", one)) == boxes(after("move the cat left", one))


def test_several_are_added_at_once():
    changed = after("add two red foxes above the sofa")
    one, two = changed.objects[-2:]
    assert one.phrase == two.phrase == "a red fox" and one.box[2] < two.box[0] and one.box[3] == two.box[3]
    assert changed.prompt == f"{PROMPT}, two red foxes"
    assert [item.phrase for item in after("add an owl and a mouse").objects[-2:]] == ["an owl", "a mouse"]


@pytest.mark.parametrize(
    ("prompt", "objects", "added", "expected"),
    [
        ("a cat and a dog", ["a cat"], "a dog", "a cat and a dog"),  # it is named and was not in the layout
        ("a cat and a dog.", ["a cat", "a dog"], "a dog", "a cat and a dog, a dog"),  # the prompt's is another one
        ("a cat and two dogs", ["a cat", "a dog"], "a dog", "a cat and two dogs"),
        ("a blue ball", ["a blue ball"], "a red ball", "a blue ball, a red ball"),
        ("a red ball", [], "two red balls", "a red ball, two red balls"),
        ("", ["a cat"], "a dog", ""),
    ],
)
def test_the_prompt_is_extended_by_what_it_lacks(prompt, objects, added, expected):
    layout = Layout(tuple(LayoutObject(phrase, CAT) for phrase in objects), prompt=prompt)
    changed = after(f"add {added}", layout)
    assert changed.prompt == expected
    assert any("prompt to encode has changed" in warning for warning in changed.warnings) == (expected != prompt)


@pytest.mark.parametrize(
    ("instruction", "warning"),
    [
        ("move the brown dog left by 20 %", "'a brown dog' moved by 8% only: the left border"),
        ("move the cat to the left of the brown dog", "'a brown dog' moved aside by 15%"),
        ("make the sofa three times as big", "became 1.43 times as big, not 3.00"),
        ("put the cat inside the brown dog", "'a cat' made smaller, to 68%"),
        ("move the cat far right and move it far right", "'move it far right' changes nothing"),
        ("move the cat all the way down and move it down", "'a cat' moved by 0% only: the lower border"),
        ("add a ball in the middle of the picture", "cover each other"),
        ("put the black dog inside the sofa", "changes nothing"),
    ],
)
def test_what_could_not_be_done_in_full_is_warned_about(instruction, warning):
    assert any(warning in note for note in after(instruction).warnings), after(instruction).warnings


@pytest.mark.parametrize(
    "instruction", ["paint the cat red", "déplace le chat à gauche", "make the cat happy", "move the cat", "the cat"]
)
def test_instructions_of_another_form_list_the_forms_and_name_language_models(instruction, monkeypatch, tmp_path):
    (tmp_path / "p.json").write_text('{"ollama": {"url": "http://localhost:11434/v1", "model": "m"}}')
    monkeypatch.setenv("REALCOMPO_PROVIDERS", str(tmp_path / "p.json"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ProviderError) as caught:
        after(instruction)
    message = str(caught.value)
    assert repr(instruction) in message and "swap X and Y" in message and "'ollama'" in message


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("", "is empty"),
        (" ,. ", "is empty"),
        ("move the cat left, paint it red", "no object fits|cannot read"),
        ("move the cat next to the cat", "where it is itself"),
        ("swap the cat and the cat", "with itself"),
        ("swap everything", "two can be swapped, but here are 5"),
        ("make the cat 0 times as big", "cannot be made 0 times"),
        ("make the cat bigger by 5 pixels", "by per cent"),
        ("add a hat on the horse", "no object fits 'the horse'"),
        ("add a", "cannot add 'a': name what to add"),
        ("add 999999999 balls", "up to 30 objects"),
        ("put the cat inside the speck", "no room for 'a cat' inside 'a speck'"),
    ],
)
def test_what_cannot_be_done_is_refused(instruction, message):
    speck = LayoutObject("a speck", (0.0, 0.0, 0.01, 0.01))
    layout = Layout((*scene().objects, speck), prompt=f"{PROMPT}, a speck")
    with pytest.raises(ProviderError, match=message):
        after(instruction, layout)


def test_too_many_objects_are_the_layout_s_own_error():
    with pytest.raises(LayoutError, match="31 objects"):
        after("add 27 balls")


OPPOSITES = [
    ("move {} left", "move {} right"),
    ("raise {} a little", "lower {} a little"),
    ("make {} bigger", "make {} smaller"),
    ("make {} much wider", "make {} much narrower"),
    ("make {} twice as tall", "make {} half as tall"),
    ("mirror {}", "mirror {}"),
]


@pytest.mark.parametrize(("there", "back"), OPPOSITES)
def test_an_instruction_and_its_opposite_cancel(there, back):
    draw = random.Random(0)
    for _ in range(50):
        low = draw.uniform(0.42, 0.44), draw.uniform(0.42, 0.44)
        box = (*low, low[0] + draw.uniform(0.05, 0.15), low[1] + draw.uniform(0.05, 0.15))
        layout = Layout((LayoutObject("a cat", box), LayoutObject("a dog", BROWN)), prompt="a cat and a dog")
        moved = after(there.format("the cat"), layout)
        assert moved.objects[0].box != pytest.approx(box, abs=1e-6) and moved.objects[1] is layout.objects[1]
        assert after(back.format("the cat"), moved).objects[0].box == pytest.approx(box, abs=1e-5)


def test_random_instructions_end_in_valid_layouts_or_named_errors():
    draw = random.Random(1)
    words = (
        "move put make swap remove add mirror raise scale the a cat dog brown black sofa both second it left right top "
        "to of on next above in and then bigger twice half as big by 10 % a little far , . corner everything"
    ).split()
    done = 0
    for _ in range(3000):
        instruction = " ".join(draw.choices(words, k=draw.randint(1, 9)))
        try:
            after(instruction).validate()
        except ProviderError:
            continue
        done += 1
    assert done > 50


def test_every_form_ends_on_long_words():
    for verb in ("move", "make", "add", "swap", "mirror", "scale", "take"):
        with ends(), suppress(ProviderError):
            after(f"{verb} {'to the left of ' * 19} and ?")
        with ends(), pytest.raises(ProviderError, match="has no end within 300 characters"):
            after(f"{verb} {'to the left of ' * 10_000}")


def test_masks_and_keypoints_go_with_the_box():
    mask = np.zeros((10, 10))
    mask[5:9, 6:8] = 1  # the cat's box
    keypoints = ((0.6, 0.5, 1.0), (0.8, 0.9, 0.2))
    item = LayoutObject("a cat", CAT, mask, keypoints, region="box")
    moved = in_box(item, (0.1, 0.1, 0.3, 0.5))
    assert np.argwhere(moved.mask > 0.5).tolist() == [[y, x] for y in range(1, 5) for x in range(1, 3)]
    assert [tuple(round(v, 6) for v in point) for point in moved.keypoints] == [(0.1, 0.1, 1.0), (0.3, 0.5, 0.2)]
    assert (moved.phrase, moved.region) == ("a cat", "box")
    larger = in_box(item, (0.2, 0.2, 0.6, 1.0))
    assert (larger.mask > 0.5).sum() == 4 * 8 and larger.mask[2:10, 2:6].all()
    assert in_box(item, CAT) is item


def test_a_mask_of_which_nothing_is_left_is_dropped_with_a_warning():
    mask = np.zeros((4, 4))
    mask[2:, 2:] = 1
    layout = Layout((LayoutObject("a cat", (0.5, 0.5, 1.0, 1.0), mask),), prompt="a cat")
    changed = after("scale the cat by 0.1", layout)
    assert changed.objects[0].mask is None
    assert any("lost its mask" in warning for warning in changed.warnings)


def test_what_is_there_already_is_not_touched_by_rounding():
    layout = Layout((LayoutObject("a cat", (1 / 3, 1 / 3, 2 / 3, 2 / 3)),), prompt="a cat")
    changed = after("center the cat", layout)
    assert changed.objects[0] is layout.objects[0] and "changes nothing" in changed.warnings[0]


def test_a_mirrored_person_keeps_its_right_hand():
    """The nose stays the nose; the right wrist (4) becomes where the left one (7) was, seen in a mirror."""
    keypoints = tuple((0.01 * i, 0.02 * i, 1.0) for i in range(18))
    person = mirrored(LayoutObject("a man", (0.0, 0.0, 0.4, 0.5), np.eye(4), keypoints))
    assert person.box == (0.6, 0.0, 1.0, 0.5)
    assert person.keypoints[0] == (1.0, 0.0, 1.0)
    assert person.keypoints[4] == pytest.approx((1 - 0.07, 0.14, 1.0))
    assert person.keypoints[7] == pytest.approx((1 - 0.04, 0.08, 1.0))
    assert np.array_equal(person.mask, np.eye(4)[:, ::-1])
    again = mirrored(person)
    assert np.allclose(again.keypoints, keypoints) and again.box == pytest.approx((0.0, 0.0, 0.4, 0.5))


def test_the_provider_revises_what_it_proposed():
    rules = RulesProvider()
    layout = rules.propose("a cat to the right of a dog", SIZE)
    changed = rules.revise(layout, "swap the cat and the dog", SIZE)
    assert boxes(changed)["a cat"][0] < boxes(changed)["a dog"][0]
