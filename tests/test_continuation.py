"""What a language model's revision keeps of the layout before: masks, poses, exact boxes, and the prompt."""

import numpy as np
import pytest

from realcompo_core.errors import PhraseNotInPromptError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.providers.continuation import continued

LEFT, RIGHT = (0.1, 0.2, 0.3, 0.6), (0.6, 0.2, 0.8, 0.6)
MASK = np.zeros((10, 10))
MASK[2:6, 1:3] = 1  # LEFT


def layout(*objects, prompt="two cats and a dog", **scene):
    return Layout(tuple(LayoutObject(*item) for item in objects), prompt=prompt, **scene)


def test_of_several_with_one_phrase_each_continues_the_nearest():
    old = layout(("a cat", LEFT, MASK), ("a cat", RIGHT))
    new = continued(old, layout(("a cat", (0.55, 0.2, 0.75, 0.6)), ("The cat", (0.1, 0.3, 0.3, 0.7))))
    right, left = new.objects
    assert right.mask is None and right.box == (0.55, 0.2, 0.75, 0.6)
    assert np.argwhere(left.mask > 0.5).tolist() == [[y, x] for y in range(3, 7) for x in (1, 2)]
    assert (left.phrase, new.prompt, new.warnings) == ("a cat", "two cats and a dog", ())


def test_a_box_that_was_rounded_leaves_the_object_as_it_was():
    old = layout(("a dog", (1 / 3, 0.2, 2 / 3, 0.6), None, ((0.5, 0.3, 1.0),), "box"))
    [dog] = continued(old, layout(("a dog", (0.333, 0.2, 0.667, 0.6)))).objects
    assert dog is old.objects[0]


def test_the_scene_is_kept_where_the_reply_does_not_speak_of_it():
    old = layout(("a dog", LEFT), background="a park", negative="people")
    new = continued(old, layout(("a dog", RIGHT), negative="cars"))
    assert (new.background, new.negative) == ("a park", "cars")


def test_added_and_removed_objects_are_told_with_what_the_reply_s_own_warnings_say():
    old = layout(("a cat", LEFT), ("a dog", RIGHT))
    new = continued(old, layout(("a cat", LEFT), ("a red ball", RIGHT), warnings=("clipped",)))
    assert new.prompt == "two cats and a dog, a red ball"
    clipped, prompt, removed = new.warnings
    assert clipped == "clipped" and new.prompt in prompt and "'a dog'" in removed


def test_a_second_one_of_two_is_named_already():
    new = continued(layout(("a cat", LEFT)), layout(("a cat", LEFT), ("a cat", RIGHT)))
    assert new.prompt == "two cats and a dog" and len(new.objects) == 2


def test_a_layout_without_a_prompt_gets_none():
    new = continued(layout(("a cat", LEFT), prompt=""), layout(("an owl", LEFT), prompt=""))
    assert (new.prompt, new.warnings) == ("", ())


def test_a_phrase_that_the_prompt_never_had_is_an_error_still():
    with pytest.raises(PhraseNotInPromptError, match="an owl"):
        continued(layout(("an owl", LEFT)), layout(("an owl", RIGHT)))
