"""Language models' replies: the published formats, what models wrap around them, and hostile text."""

import json
import re
from contextlib import suppress

import pytest
from endless import ends
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.published_data import LMD_REPLIES
from realcompo_core.errors import (
    BoxOutsideError,
    EmptyBoxError,
    LayoutError,
    NotFiniteError,
    PhraseNotInPromptError,
    ReplyError,
    TooManyObjectsError,
)
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.providers import TextProvider
from realcompo_core.providers.text import FORMATS, parse_reply

TWO = [("a cat", (0.1, 0.2, 0.4, 0.8)), ("a dog", (0.5, 0.2, 0.9, 0.8))]
JSON = json.dumps({"objects": [{"phrase": phrase, "box": box} for phrase, box in TWO]})
TUPLES = "[('a cat', [0.1, 0.2, 0.4, 0.8]), ('a dog', [0.5, 0.2, 0.9, 0.8])]"


def objects(layout: Layout) -> list[tuple[str, tuple[float, ...]]]:
    return [(item.phrase, tuple(pytest.approx(number) for number in item.box)) for item in layout.objects]


@pytest.mark.parametrize(
    "reply",
    [
        JSON,
        TUPLES,
        f"Sure! Here is the layout (two objects):\n\n```json\n{JSON}\n```\nShall I move the cat [left]?",
        f"It's easy. {TUPLES}\nPosition: [[2], [5]]",
        f"{TUPLES}\nPosition: []",
        json.dumps([{"label": phrase, "bbox": box} for phrase, box in TWO]),
        json.dumps([{"name": "a cat", "box": [0.1, 0.2, 0.4, 0.8]}, {"desc": "a dog", "bounding_box": TWO[1][1]}]),
        json.dumps([["a cat", [0.1, 0.2, 0.4, 0.8]], ["a dog", [0.5, 0.2, 0.9, 0.8]]]),
        '[{"caption": "a cat", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.6},'
        ' {"caption": "a dog", "box": {"x0": 0.5, "y0": 0.2, "x1": 0.9, "y1": 0.8}},]',
        "1. ('a cat', [0.1, 0.2, 0.4, 0.8])\n2. ('a dog', [0.5, 0.2, 0.9, 0.8])",
        "('a cat', [51.2, 102.4, 204.8, 409.6]), ('a dog', [256, 102.4, 460.8, 409.6])",
        f"<think>Maybe [('a cow', [0, 0, 1, 1])]. No.</think>{JSON}",
        f"First draft: [('a cow', [0, 0, 1, 1])]\nBetter:\n{TUPLES}",
        f"{TUPLES}\nAnd once more: [('a cow', [0, 0, 1, 1]), ('a co",
    ],
)
def test_every_way_to_write_the_same_layout(reply):
    assert objects(parse_reply(reply)) == TWO


def test_own_layout_json_keeps_all_its_fields():
    layout = Layout((LayoutObject("a man", (0, 0, 1, 1), keypoints=((0.5, 0.2, 1.0),)),), "a street", "cars", "a man")
    assert parse_reply(f"Here: {layout.to_json()}", "a man").to_dict() == layout.to_dict()


def test_background_and_negative_come_along():
    layout = parse_reply('{"background": "a park", "negative": "dogs", "objects": []}', "a park without dogs")
    assert (layout.objects, layout.background, layout.negative) == ((), "a park", "dogs")
    assert layout.prompt == "a park without dogs"


@pytest.mark.parametrize(
    ("reply", "size", "box"),
    [
        # xyxy is possible, but the line says LMD: x, y, width, height in 512 px, whatever the size
        ("[('a cat', [128, 128, 256, 256])]\nBackground prompt: a room", (1024, 1024), (0.25, 0.25, 0.75, 0.75)),
        ("[('a cat', [256, 256, 128, 128])]", (1024, 1024), (0.5, 0.5, 0.75, 0.75)),
        ("[('a cat', [256, 256, 512, 1024])]", (1024, 2048), (0.25, 0.125, 0.5, 0.5)),
        ('[{"label": "a cat", "bbox": [512, 512, 256, 256]}]', (1024, 1024), (0.5, 0.5, 0.75, 0.75)),
        ('[{"label": "a cat", "x": 100, "y": 50, "w": 200, "h": 100}]', (400, 200), (0.25, 0.25, 0.75, 0.75)),
    ],
)
def test_box_format_and_unit_are_found(reply, size, box):
    assert parse_reply(reply, size=size).objects[0].box == pytest.approx(box)


def test_format_can_be_forced():
    reply = "[('a cat', [128, 128, 256, 256])]"
    assert parse_reply(reply, size=(1024, 1024), format="xyxy").objects[0].box == (0.125, 0.125, 0.25, 0.25)
    assert parse_reply(reply, size=(1024, 1024), format="xywh").objects[0].box == (0.125, 0.125, 0.375, 0.375)
    assert parse_reply(reply, size=(1024, 1024), format="lmd").objects[0].box == (0.25, 0.25, 0.75, 0.75)
    tall = "[('a cat', [128, 256, 512, 512])]"
    assert parse_reply(tall, size=(1024, 1024), format="yxyx").objects[0].box == (0.25, 0.125, 0.5, 0.5)
    with pytest.raises(LayoutError, match="'zxzx'.*auto, xyxy, xywh, yxyx, lmd"):
        parse_reply(reply, format="zxzx")


@pytest.mark.parametrize(
    ("written", "phrase"),
    [
        (r"'a dog\'s bowl'", "a dog's bowl"),
        ('"a cat\'s toy"', "a cat's toy"),
        ("'the dog's bowl'", "the dog's bowl"),
        (r'"a \"stop\" sign"', 'a "stop" sign'),
        (r'"a caf\u00e9 \ud83d\ude00"', "a café 😀"),
        ("'一只猫 [in a hat]'", "一只猫 [in a hat]"),
        ("'__import__(\"os\").abort()'", '__import__("os").abort()'),
    ],
)
def test_phrases_arrive_as_written(written, phrase):
    assert parse_reply(f"[({written}, [0, 0, 1, 1])]").objects[0].phrase == phrase


def test_lmd_replies_all_parse(published_text):
    replies = json.loads(published_text(LMD_REPLIES))
    assert len(replies) == 250
    for prompt, texts in replies.items():
        for text in texts:
            layout = parse_reply(text, prompt)
            assert len(layout.objects) == text.count("("), text
            for item, (x, y, w, h) in zip(
                layout.objects, re.findall(r"\[(\d+), (\d+), (\d+), (\d+)\]", text), strict=True
            ):
                corners = (int(x), int(y), int(x) + int(w), int(y) + int(h))
                assert item.box == pytest.approx([min(edge / 512, 1) for edge in corners]), text
            assert layout.background.startswith("A realistic"), text
            assert layout.negative == text.partition("Negative prompt:")[2].strip(), text
            assert bool(layout.negative) == (" without " in prompt), text
            assert all("clipped" in warning for warning in layout.warnings), (text, layout.warnings)


def test_slightly_outside_is_clipped_with_a_warning():
    layout = parse_reply("[('a cat', [-0.05, 0.5, 0.5, 1.02])]")
    (warning,) = layout.warnings
    assert re.search("'a cat'.*clipped.*5.0%", warning)
    assert layout.objects[0].box == (0, 0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("reply", "cause", "named"),
    [
        ("[('a cat', [0.5, 0.5, 1.2, 1.0])]", BoxOutsideError, "'a cat', box [0.5, 0.5, 1.2, 1.0]"),
        ("[('a cat', [600, 600, 1700, 1700])]", BoxOutsideError, "512 x 512"),
        ("[('a cat', [0.5, 0.5, 0.2, 0.9])]", EmptyBoxError, "a cat"),
        ("[('a cat', [0, 0, NaN, 1])]", NotFiniteError, "a cat"),
        ('[{"phrase": "a cat", "box": [0, 0, 1e999, 1]}]', NotFiniteError, "a cat"),
        (f"[{', '.join(['(`a cat`, [0, 0, 1, 1])'] * 31)}]".replace("`", "'"), TooManyObjectsError, "31"),
        ("[('a cow', [0, 0, 1, 1])]", PhraseNotInPromptError, "a cow"),
        ("[('a cat', [0, 0, 1, 1]), ('a dog', [0, 0, 1])]", LayoutError, "'a dog' has the box [0, 0, 1]"),
        ("[('a cat', [0, 0, 1, 1]), 'a dog']", LayoutError, "'a dog'"),
        ('{"objects": [], "negative": ["dogs"]}', LayoutError, "'negative'"),
        ('{"version": 99, "objects": []}', LayoutError, "99"),
    ],
)
def test_unusable_layouts_are_refused_by_name(reply, cause, named):
    with pytest.raises(ReplyError) as caught:
        parse_reply(reply, "a cat and a dog")
    assert isinstance(caught.value.__cause__, cause)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot draw that.",
        '{"error": "overloaded"}',
        "Position: []",
        "<think>[('a cat', [0, 0, 1, 1])] would be",
        # broken or cut off: what is left of the list must not pass for the whole
        "[('a cat', [0, 0, 1, 1]), ('a dog', [0, 0, 1",
        "[('a cat', [0, 0, 1, 1]), ('a do",
        '{"objects": [{"phrase": "a cat", "box": [0, 0, 1, 1]}, {"phrase": tru',
        "[('a cat', [0, 0, 1, 1]), ('a dog', [0, 0, 1 1]), ('a cow', [0, 0, 1, 1])]",
        "('a cat' [0, 0, 1, 1])\n('a dog', [0, 0, 1, 1])",
    ],
)
def test_replies_without_a_whole_layout_are_quoted(reply):
    with pytest.raises(ReplyError) as caught:
        parse_reply(reply)
    assert repr(reply) in str(caught.value)
    assert caught.value.reply == reply


def test_long_replies_are_quoted_in_part_and_kept_whole():
    reply = "no idea " * 10_000
    with pytest.raises(ReplyError) as caught:
        parse_reply(reply)
    assert len(str(caught.value)) < 1000
    assert caught.value.reply == reply


def test_text_provider_parses_its_reply():
    layout = TextProvider(TUPLES).propose("a cat and a dog", (512, 512))
    assert objects(layout) == TWO
    assert layout.prompt == "a cat and a dog"


@pytest.mark.parametrize(
    "reply",
    [
        "[" * 900_000,
        '{"a":' * 150_000,
        "[1," * 300_000,
        '["["' * 200_000 + ",x",
        "[1," + "[]x," * 200_000,
        "[('" + "\\" * 900_000,
        "['" + "a'b" * 300_000,
        "[" + "9" * 900_000,
        "[" + " " * 900_000 + "x",
        "[ ]" * 300_000 + "x",
        "Background prompt" + " " * 900_000,
        "<think>" * 100_000,
        "[('a cat', [0, 0, 1, 1])]" * 400_000,  # 10 MB
    ],
    ids=lambda reply: reply[:12],
)
def test_bombs_end(reply):
    with ends(), suppress(ReplyError):
        parse_reply(reply)


PIECES = st.sampled_from(
    '[ ] ( ) { } , : \' " \\ \n - . 1 0.5 1e999 NaN -Infinity null True \'a_cat\' "box" "phrase": "objects": '
    "__import__('os').abort() lambda: eval( \\u00e9 \\ud800 <think> </think> ``` 猫 \x00".split(" ")
    + ["('a cat', [0, 0, 9, 9])", '{"phrase": "a", "box": [0, 0, 1, 1]}', "\nBackground prompt: x", '{"version": 1, ']
)
NUMBERS = st.integers() | st.floats() | st.floats(-0.2, 1.2)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("phrase box x y w h".split()), inner),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries({"phrase": st.text(max_size=9) | VALUES, "box": st.lists(NUMBERS, max_size=5) | VALUES})
LAYOUTS = st.fixed_dictionaries(
    {"objects": st.lists(ENTRIES, max_size=4) | VALUES},
    optional={"background": VALUES, "negative": st.text(), "version": st.just(1)},
)
HOSTILE = st.text() | st.lists(PIECES).map("".join) | LAYOUTS.map(json.dumps) | st.lists(ENTRIES).map(repr)


@settings(max_examples=400, deadline=20_000)
@given(HOSTILE, st.sampled_from(["", "a cat"]), st.sampled_from(FORMATS))
def test_hostile_replies_give_a_valid_layout_or_a_reply_error(reply, prompt, format):
    try:
        layout = parse_reply(reply, prompt, format=format)
    except ReplyError as error:
        assert error.reply == reply
    else:
        Layout.from_json(layout.to_json())


@given(st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.tuples(*[st.floats(0, 0.4)] * 2)), max_size=9))
def test_json_replies_survive_the_round_trip(entries):
    written = [{"phrase": phrase, "box": [x, y, x + 0.5, y + 0.5]} for phrase, (x, y) in entries]
    layout = parse_reply("Here it is:\n" + json.dumps({"objects": written}))
    assert [item.phrase for item in layout.objects] == [" ".join(item["phrase"].split()) for item in written]
    assert [list(item.box) for item in layout.objects] == [item["box"] for item in written]
