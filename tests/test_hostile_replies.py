"""Replies as models write them at their worst. Each gives the layout that it means, a warning, or a refusal.

Never silently another layout: what a reply means is said here by hand, not by the parser.
"""

import json
import random
import re
from contextlib import suppress
from itertools import product

import pytest
from endless import ends
from fuzzed_text import BAD, CAT, DOG, GOOD, LINE, PROMPT, SIZES, WRAPPERS, fuzzed_reply, listed, tuples, written

from benchmarks.published_data import LMD_REPLIES
from realcompo_core.errors import ReplyError
from realcompo_core.layout import Layout
from realcompo_core.providers.text import FORMATS, parse_reply


def is_meant(layout: Layout) -> bool:
    """Whether the layout has the cat and the dog where they were written, within a hundredth of the picture."""
    found = {item.phrase.lower().split()[-1]: item.box for item in layout.objects}
    if len(layout.objects) != 2 or found.keys() != {"cat", "dog"}:
        return False
    return all(
        abs(a - b) <= 0.01
        for box, meant in ((found["cat"], CAT), (found["dog"], DOG))
        for a, b in zip(box, meant, strict=True)
    )


def quiet(reply, size=(512, 512), **options):
    layout = parse_reply(reply, PROMPT, size, **options)
    assert is_meant(layout), layout.objects
    assert not layout.warnings, layout.warnings


@pytest.mark.parametrize(
    "reply",
    {
        "own JSON": json.dumps({"reasoning": "…", "objects": json.loads(listed(written(), "phrase", "box"))}),
        "RealCompo": tuples(written()),
        "LMD": tuples(written("xywh", 512, 512)) + "\nBackground prompt: a park\nNegative prompt: ",
        "LMD without its lines": tuples(written("xywh", 512, 512)),
        "pixels": listed(written("xyxy", 512, 512)),
        "Gemini": f"```json\n{listed(written('yxyx', 1000, 1000), box='box_2d')}\n```",
        "Gemini in fractions": listed(written("yxyx"), box="box_2d"),
        "Qwen in thousandths": listed(written("xyxy", 1000, 1000), box="bbox_2d"),
        "Qwen in pixels": listed(written("xyxy", 512, 512), box="bbox_2d"),
        "Qwen with marks": "<ref>a cat</ref><box>(100,200),(400,800)</box>"
        "<ref>a dog</ref><box>(500,250),(900,750)</box>",
        "Ideogram": json.dumps({"elements": json.loads(listed(written("yxyx", 1000, 1000), "desc", type="obj"))}),
        "nested": json.dumps({"layout": {"objects": json.loads(listed(written(), "object"))}}),
        "items": json.dumps({"items": json.loads(listed(written(), "name", "Bounding Box"))}),
        "phrases to boxes": json.dumps({"objects": dict(zip(("a cat", "a dog"), written(), strict=True))}),
        "phrases to coordinates": '{"a cat": {"left": 51, "top": 102, "right": 205, "bottom": 410},'
        ' "a dog": {"left": 256, "top": 128, "right": 461, "bottom": 384}}',
        "position and size": '[{"name": "a cat", "position": {"x": 51, "y": 102}, "size": {"w": 154, "h": 307}},'
        ' {"name": "a dog", "position": {"x": 256, "y": 128}, "size": {"w": 205, "h": 256}}]',
        "phrases beside boxes": json.dumps({"labels": ["a cat", "a dog"], "boxes": written()}),
        "named order": listed(written("xywh"), box="bbox_xywh"),
        "centres": '[{"label": "a cat", "cx": 0.25, "cy": 0.5, "w": 0.3, "h": 0.6},'
        ' {"label": "a dog", "cx": 0.7, "cy": 0.5, "w": 0.4, "h": 0.5}]',
        "strings": listed([[str(number) for number in box] for box in written()]),
        "percent signs": listed([[f"{number}%" for number in box] for box in written("xyxy", 100, 100)]),
        "bare percent signs": "[('a cat', [10%, 20%, 40%, 80%]), ('a dog', [50%, 25%, 90%, 75%])]",
        "pixel signs": listed([[f"{number}px" for number in box] for box in written("xyxy", 512, 512)]),
        "box as text": listed(["51, 102, 205, 410", "256 128 461 384"]),
        "flat tuples": "[('a cat', 0.1, 0.2, 0.4, 0.8), ('a dog', 0.5, 0.25, 0.9, 0.75)]",
        "comments": "{ // left, top, right, bottom\n'objects': [ # two\n{'phrase': 'a cat', /* left */ 'box': "
        "[0.1, 0.2, 0.4, 0.8],}, {'phrase': 'a dog', 'box': [0.5, 0.25, 0.9, 0.75]},],}",
        "curly quotes": "[{“phrase”: “a cat”, “box”: [0.1, 0.2, 0.4, 0.8]}, "
        "{‘phrase’: ‘a dog’, ‘box’: [.5, .25, .9, .75]}]",
        "keys without quotes": "const layout = [{phrase: 'a cat', box: [0.1, 0.2, 0.4, 0.8]}, "
        "{phrase: 'a dog', box: [0.5, 0.25, 0.9, 0.75]}];",
        "one object a line": "\n".join(json.dumps(item) for item in json.loads(listed(written(), "phrase", "box"))),
        "code": f"```python\nlayout = {GOOD}  # left and right\ndraw(layout)\n```\nRun it with Python 3.",
        "table": "| object | x1 | y1 | x2 | y2 |\n|---|---|---|---|---|\n| a cat | 0.1 | 0.2 | 0.4 | 0.8 |\n"
        "| a dog | 0.5 | 0.25 | 0.9 | 0.75 |\n\nBoth fit.",
        "table with units": "| # | Object | x (px) | y (px) | Width (px) | Height (px) |\n|:-|:-|-:|-:|-:|-:|\n"
        "| 1 | **a cat** | 51 | 102 | 154 | 307 |\n| 2 | a dog | 256 | 128 | 205 | 256 |",
        "table that names the order": "| Object | Box [x, y, w, h] |\n|---|---|\n| a cat | [51, 102, 154, 307] |\n"
        "| a dog | [256, 128, 205, 256] |",
        "lines": "cat: (51, 102, 205, 410)\ndog: (256, 128, 461, 384)\n",
        "bullets": "The layout:\n- **a cat**: [0.1, 0.2, 0.4, 0.8] (left)\n- **a dog**: [0.5, 0.25, 0.9, 0.75] (right)",
        "named on lines": "1. a cat: x=51, y=102, w=154, h=307\n2. a dog: x=256, y=128, w=205, h=256\n",
        "sentence": "The cat is at (51, 102, 205, 410) and the dog is placed at (256, 128, 461, 384).",
        "box below its phrase": "Cat:\n  Bounding box: [0.1, 0.2, 0.4, 0.8]\n"
        "Dog:\n  Bounding box: [0.5, 0.25, 0.9, 0.75]\n",
        "assignments": "cat = [51, 102, 205, 410]\ndog = [256, 128, 461, 384]\n",
        "calls": "draw('a cat', 51, 102, 205, 410)\ndraw('a dog', 256, 128, 461, 384)",
        "canvas of another size": "On a 1024x768 canvas:\n" + listed(written("xyxy", 1024, 768)),
        "canvas in JSON": json.dumps(
            {"canvas": {"width": 640, "height": 480}, "boxes": json.loads(listed(written("xyxy", 640, 480)))}
        ),
        "centres in words": f"[cx, cy, width, height]: {listed([[0.25, 0.5, 0.3, 0.6], [0.7, 0.5, 0.4, 0.5]])}",
        "two corners": "a cat: (51, 102) to (205, 410)\na dog: (256, 128) to (461, 384)\n",
        "CSS": "cat {height: 307px; width: 154px; top: 102px; left: 51px; }\n"
        "dog {height: 256px; width: 205px; top: 128px; left: 256px; }",
        "YAML": "```yaml\nobjects:\n  - phrase: a cat\n    box: [0.1, 0.2, 0.4, 0.8]\n  - phrase: a dog\n"
        "    box: [0.5, 0.25, 0.9, 0.75]\n```",
        "YAML with coordinates": "- name: a cat\n  x: 51\n  y: 102\n  width: 154\n  height: 307\n- name: a dog\n"
        "  x: 256\n  y: 128\n  width: 205\n  height: 256\n",
        "phrases as headings": "**A cat**\n- x: 51\n- y: 102\n- width: 154\n- height: 307\n\n**A dog**\n- x: 256\n"
        "- y: 128\n- width: 205\n- height: 256\n",
        "order in words": f"Each box is [x, y, width, height].\n{listed(written('xywh'))}",
        "unit in words": f"Coordinates go from 0 to 1000:\n{listed(written('xyxy', 1000, 1000))}",
        "twice the same": f"{GOOD}\nAs JSON:\n{listed(written(), 'phrase', 'box')}",
        "reasoning": f"<thinking>Perhaps {BAD}?</thinking>\n{GOOD}",
        "reasoning without its start": f"Perhaps {BAD}?</think>{GOOD}",
        "reasoning begins again": f"{GOOD}<think>Or {BAD}",
        "gpt-oss": f"<|channel|>analysis<|message|>Try {BAD}<|end|><|channel|>final<|message|>{GOOD}",
        "draft": f"First draft: {BAD}\nFinal layout: {GOOD}",
        "example": f'For example: [{{"phrase": "a cow", "box": [0, 0, 1, 1]}}]\n\nYour layout:\n{GOOD}',
        "avoided": f"I avoided bad overlaps, with a dog instead of a second cat:\n{GOOD}\nNo changes were needed.",
        "apology": f"My earlier layout was wrong. {GOOD}",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_what_models_write_is_read_without_a_word(reply):
    quiet(reply[1])


@pytest.mark.parametrize(
    "reply",
    [
        f"A bad answer would be:\n```\n{BAD}\n```\nThe answer:\n{GOOD}",
        f"{GOOD}\n\nA bad answer would be {BAD}.",
        f"{GOOD}\nDon't do this:\n```python\n{BAD}\n```",
        f"Wrong: {BAD}\nRight: {GOOD}",
        f"Right: {GOOD}\nWrong (the cat hides the dog): {BAD}",
        f"Instead of {BAD} use {GOOD}",
        f"Use {GOOD} instead of {BAD}.",
        f"{GOOD}\n\n## Bad example\n\nHere the dog is thin:\n```json\n{BAD}\n```",
        f"{BAD} would be wrong, so: {GOOD}",
        f"{GOOD}\n{BAD} is a bad layout.",
        f"bad_layout = {BAD}\nlayout = {GOOD}",
        f"layout = {GOOD}\nbad_layout = {BAD}",
        f"{GOOD}\n{BAD}  # wrong",
        f"{GOOD}\n{BAD} (do not use this)",
        f"<bad_example>{BAD}</bad_example><answer>{GOOD}</answer>",
        f"<answer>{GOOD}</answer><bad_example>{BAD}</bad_example>",
        f"{GOOD}\nThis would be a poor choice: {BAD}",
        f"{GOOD}\nNever answer like {BAD}",
        f"❌ {BAD}\n✅ {GOOD}",
        f"✅ {GOOD}\n❌ {BAD}",
        f"Not like this: {BAD}. Like this: {GOOD}",
        f"{GOOD}\nCommon mistakes to avoid:\n{BAD}",
        f"{GOOD}\nFor instance {BAD} would not be good.",
        f"{GOOD}\nAn incorrect version would look like this:\n\n{BAD}",
        json.dumps({"objects": json.loads(listed(written())), "bad_example": json.loads(listed([[0, 0, 1, 1]] * 2))}),
        json.dumps(
            [
                {"verdict": "good", "objects": json.loads(listed(written()))},
                {"verdict": "bad", "objects": [["a", [0, 0, 1, 1]]]},
            ]
        ),
        f"{GOOD}\nIt would be a mistake to write {BAD}.",
        f"{GOOD}\nA worse answer: {BAD}",
        f"~~{BAD}~~\n{GOOD}",
        f"{GOOD}\n<!-- {BAD} -->",
        f"```python\n# Right\nlayout = {GOOD}\n\n# Wrong: the dog is thin\nlayout = {BAD}\n```",
        "\n".join(
            [json.dumps(item) for item in json.loads(listed(written()))]
            + ["Bad example:", listed([[0, 0, 1, 1]] * 2)[1:-1]]
        ),
        "cat: (51, 102, 205, 410)\ndog: (256, 128, 461, 384)\n\nA bad answer would be:\ncat: (0, 0, 512, 512)\n",
        "Wrong:\n- name: a cat\n  box: [0, 0, 1, 1]\n\nRight:\n- name: a cat\n  box: [0.1, 0.2, 0.4, 0.8]\n"
        "- name: a dog\n  box: [0.5, 0.25, 0.9, 0.75]\n",
        "| object | box |\n|--|--|\n| a cat | [0.1, 0.2, 0.4, 0.8] |\n| a dog | [0.5, 0.25, 0.9, 0.75] |\n\n"
        "A bad answer would be:\n\n| object | box |\n|--|--|\n| a cat | [0, 0, 1, 1] |\n",
    ],
)
def test_rejected_example_never_wins(reply):
    quiet(reply)


def test_reply_with_nothing_but_a_rejected_example_is_refused():
    with pytest.raises(ReplyError, match="calls wrong"):
        parse_reply(f"A bad answer would be {BAD}.", PROMPT)


@pytest.mark.parametrize(
    ("reply", "size", "said"),
    [
        (listed(written("xyxy", 100, 100)), (512, 512), "percent"),
        (tuples(written("xyxy", 1000, 1000)), (512, 512), "thousandths"),
        (listed(written("xywh", 512, 512)), (512, 512), "xywh.*'a dog' would have no area.*format"),
        (listed(written("xywh")), (512, 512), "xywh.*format"),
        (listed(written("xywh"), "phrase", "box"), (512, 512), "xywh.*'a dog' would have no area.*format"),
        (listed(written("xyxy", 512, 512)), (1024, 1024), "pixels of 512 x 512.*1024 x 1024"),
        (listed(written("xyxy", 768, 768)), (768, 768), "768 x 768.*thousandths"),
        (tuples(written("xyxy", 512, 512)) + LINE, (512, 512), "xyxy.*xywh.*outside"),
        (f"{BAD}\nCorrected, as the dog was too thin: {GOOD}", (512, 512), "several layouts.*a cat"),
        (f"{GOOD}\nAlternatively: {BAD}", (512, 512), "several layouts"),
        (f"{GOOD}\nAnd once more: [('a cat', [0, 0, 1, 1]), ('a do", (512, 512), "breaks off"),
        (
            '```json\n[{"label": "a cat", "bbox": [0.1, 0.2, 0.4, 0.8]}]\n```\nand\n'
            '```json\n[{"label": "a dog", "bbox": [0.5, 0.25, 0.9, 0.75]}]\n```',
            (512, 512),
            "taken together",
        ),
    ],
)
def test_what_is_assumed_is_said(reply, size, said):
    layout = parse_reply(reply, PROMPT, size)
    assert is_meant(layout), (layout.objects, layout.warnings)
    (warning,) = layout.warnings
    assert re.search(said, warning) and warning.endswith((".", "…")), warning


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            '[{"label": "a cat", "bbox": [0.1, 0.1, 0.4, 0.5]}, {"label": "a dog", "bbox": [0.4, 0.4, 0.5, 0.6]}]',
            "xywh",
        ),
        ("[('a cat', [100, 100, 200, 250]), ('a dog', [200, 150, 300, 350])]", "xyxy.*xywh"),
        ("[('a cat', [60, 80, 90, 95]), ('a dog', [20, 30, 50, 80])]", "percent"),
        (f"{GOOD}\nor\n{BAD}", "several layouts"),
        (f"{GOOD}\nOn second thought:\ncat: (0.0, 0.0, 0.5, 0.5)\ndog: (0.5, 0.5, 1.0, 1.0)\n", "several layouts"),
        (f"{GOOD}\nCorrection: ('a dog', [0.5, 0.5, 0.7, 0.9])", "several layouts"),
        (listed([[10, 20, 40, 80], [256, 128, 461, 384]]), "'a cat'.*could be percent"),
        (tuples([written()[1]] * 2).replace("cat", "dog"), "'a dog' is there more than once"),
        ("a cat: x=51, y=102, w=154, h=307\na dog: x=256, y=128, w=205, h=25", "ends with a number"),
        (listed([[205, 410, 51, 102], [256, 128, 461, 384]]), "xywh.*'a cat' would have no area"),
        ("[('a cat', [205, 410, 51, 92]), ('a dog', [56, 128, 261, 384])]", "corners of 'a cat' may be swapped"),
        (listed([[0.25, 0.5, 0.3, 0.4], [0.7, 0.5, 0.3, 0.5]]), "xywh.*'a cat' would have no area"),
        (listed(written("xyxy", 16, 16)), "'a cat' is tiny"),
        ("[('a cat', [0.1, 0.2, 0.1002, 0.8]), ('a dog', [0.5, 0.25, 0.9, 0.75])]", "'a cat' is tiny"),
        ("[('a cat', [0.1, 0.2, 0.4, 0.8])]", "names a dog, the layout has none"),
        ("[('a cat', [0.1, 0.2, 0.4, 0.8]), ('a dog', [0.5, 0.5, 1.05, 0.9])]", "clipped"),
    ],
)
def test_doubtful_replies_warn(reply, said):
    layout = parse_reply(reply, PROMPT)
    assert any(re.search(said, warning) for warning in layout.warnings), layout.warnings


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("[('a cat', [0.1, 0.2, 0.4, 0.8]), ('a dog', [256, 128, 461, 384])]", "fractions.*'a dog'"),
        ("[('a cat', [0.1, 0.2, 205, 410]), ('a dog', [256, 128, 461, 384])]", "'a cat'.*fractions"),
        ("[('a cat', [0, 0, 1, 1]), ('a dog', [256, 128, 461, 384])]", "'a cat'.*fractions"),
        (listed([["10%", "20%", "40%", "80%"], [256, 128, 461, 384]]), "different units"),
        (listed([["10%", "20%", "205px", "80%"], ["50%", "25%", "90%", "75%"]]), "'a cat'.*mixes units"),
        ("[('a cat', [0.4, 0.8, 0.1, 0.2]), ('a dog', [0.5, 0.25, 0.9, 0.75])]", "'a cat'.*no area.*format"),
        ("[('a cat', [0.1, NaN, 0.4, 0.8]), ('a dog', [0.5, 0.25, 0.9, 0.75])]", "'a cat'.*not finite"),
        ("[('a cat', [-0.3, 0.2, 0.4, 0.8]), ('a dog', [0.5, 0.25, 0.9, 0.75])]", "'a cat'.*outside.*format"),
        (listed([["left", 0, 1, 1], written()[1]]), "'a cat'"),
        ('[{"label": "a cat", "bbox": [0.1, 0.2, 0.4, 0.8]}, {"label": "a dog", "bbox": null}]', "'a dog'"),
        (json.dumps({"labels": ["a cat", "a dog"], "boxes": written()[:1]}), "one of 1 for 2"),
        ("| object | x1 | y1 | x2 | y2 |\n|-|-|-|-|-|\n| a cat | 0.1 | 0.2 | 0.4 | 0.8 |\n| a dog | 0.5 | 0.", "row"),
        ("cat: (51, 102, 205, 410)\ndog: (256, 128, 461)\n", "dog.*four numbers"),
        ("cat: (51, 102, 205, 410)\ndog: (256, 12", "breaks off"),
        (f"For example: {GOOD}\n\nYour layout:\n[('a cat', [0.1, 0.2, 0.4", "breaks off"),
        ("- name: a cat\n  x: 51\n  y: 102\n  width: 154\n  height: 307\n- name: a dog\n  x: 256\n  y: 12", "a dog"),
        (
            '{"left": [{"label": "a cat", "bbox": [0.1 0.2]}], "right": [{"label": "a dog", "bbox": [0, 0, 1, 1]}]}',
            "breaks",
        ),
        (f"The origin is the lower left corner.\n{GOOD}", "upwards.*y downwards"),
        (listed([[0.1, 0.8, 0.4, 0.2], [0.5, 0.75, 0.9, 0.25]]), "'a cat'.*no area"),
        (listed([[0.1, 0.4, 0.2, 0.8], [0.5, 0.9, 0.25, 0.75]]), "'a dog'.*no area"),
        (listed([[0.1, 0.2, 0.4, 0.8, 0.99], [0.5, 0.25, 0.9, 0.75, 0.98]]), "'a cat'.*four numbers"),
        ("cat: (0,1; 0,2; 0,4; 0,8)\ndog: (0.5, 0.25, 0.9, 0.75)", "cat.*four numbers"),
        (f"<think>{GOOD}", "reasoning"),
        ("The cat sits left, the dog right.", "no list of objects"),
    ],
)
def test_replies_that_cannot_be_meant_are_refused(reply, said):
    with pytest.raises(ReplyError, match=f"(?s){said}"):
        parse_reply(reply, PROMPT)


def test_format_decides_where_a_warning_said_so():
    reply = listed([[100, 120, 200, 260], [260, 200, 300, 312]])
    boxes = {format: [item.box for item in parse_reply(reply, PROMPT, format=format).objects] for format in FORMATS[:4]}
    assert boxes["xyxy"][0] == (100 / 512, 120 / 512, 200 / 512, 260 / 512)
    assert boxes["yxyx"][0] == (120 / 512, 100 / 512, 260 / 512, 200 / 512)
    with pytest.raises(ReplyError, match="xywh.*outside"):
        parse_reply(listed(written()), PROMPT, format="xywh")


@pytest.mark.parametrize(
    ("prompt", "phrases", "said"),
    [
        ("three cups on a table", ["a cup"] * 2, ["3 x cup, the layout has 2"]),
        ("three cups on a table", ["three cups"], []),
        ("a red cup, a spoon and a plate", ["a red cup"], ["a spoon", "a plate"]),
        ("a photo of a cat next to a dog", ["a cat", "a dog"], []),
        ("a cat chases a mouse in a garden", ["a cat", "a mouse"], []),
        ("a group of people in front of a house", ["people"], ["a house"]),
        ("a street without a car", [], []),
        ("two dog bowls and a dog", ["a dog bowl"] * 2 + ["a dog"], []),
    ],
)
def test_objects_left_out_are_named(prompt, phrases, said):
    objects = [{"phrase": phrase, "box": [0, 0, 1 - i / 10, 1]} for i, phrase in enumerate(phrases)]
    reply = {"background": "a street", "objects": objects}
    warnings = parse_reply(json.dumps(reply), prompt).warnings
    assert len(warnings) == len(said) and all(map(str.__contains__, warnings, said)), warnings


def test_same_layout_in_every_unit_order_and_wrapping():
    """It comes out the same, or refused, or with a warning; pixels of the size and fractions always come out."""
    read = 0
    for (name, wrap), size, order in product(WRAPPERS.items(), SIZES, ("xyxy", "xywh")):
        for unit in ((1, 1), (100, 100), (1000, 1000), size, (512, 512)):
            reply = wrap(written(order, *unit))
            try:
                layout = parse_reply(reply, PROMPT, size)
            except ReplyError:
                assert order != "xyxy", (reply, size)
                continue
            near = all(
                abs(a - b) <= 0.025  # thousandths and pixels of 1024 are told apart by nobody
                for item, meant in zip(layout.objects, (CAT, DOG), strict=True)
                for a, b in zip(item.box, meant, strict=True)
            )
            assert near or layout.warnings, (name, size, order, unit, reply, layout.objects)
            read += near
    assert read > 300


@pytest.mark.parametrize("size", SIZES)
def test_yxyx_is_read_where_something_says_so(size):
    """Else nothing tells it from the mirrored layout in xyxy."""
    for unit in ((1, 1), (1000, 1000)):
        boxes = written("yxyx", *unit)
        quiet(listed(boxes, box="box_2d"), size)
        quiet(listed(boxes, "desc", type="obj") if unit[0] > 1 else listed(boxes, box="bbox_yxyx"), size)
    quiet(f"Boxes are [ymin, xmin, ymax, xmax].\n{listed(written('yxyx'))}", size)
    quiet(tuples(written("yxyx")), size, format="yxyx")


def test_ten_thousand_damaged_replies_raise_nothing_but_reply_errors():
    rng = random.Random(0)
    read = 0
    for _ in range(10_000):
        reply, *given = fuzzed_reply(rng)
        try:
            layout = parse_reply(reply, *given)
        except ReplyError as error:
            assert error.reply == reply
        else:
            read += 1
            Layout.from_json(layout.to_json())
    assert 1000 < read < 9000


def test_cut_off_replies_never_pass_for_the_whole():
    """Wherever a reply with two objects ends, it gives both, or a refusal, or a warning."""
    for wrap in WRAPPERS.values():
        reply = wrap(written("xyxy", 512, 512)).rstrip()
        for end in range(len(reply)):
            try:
                layout = parse_reply(reply[:end], PROMPT)
            except ReplyError:
                continue
            assert is_meant(layout) or layout.warnings, (reply[:end], layout.objects)


def test_published_replies_without_their_background_line(published_text):
    """LMD's tuples are LMD's with and without the line, or a warning says what was assumed."""
    for prompt, texts in json.loads(published_text(LMD_REPLIES)).items():
        for text in texts:
            whole = parse_reply(text, prompt)
            bare = parse_reply(text.partition("\nBackground")[0], prompt)
            assumed = [warning for warning in bare.warnings if "clipped" not in warning]
            assert assumed or [item.box for item in bare.objects] == [item.box for item in whole.objects], text


@pytest.mark.parametrize(
    "piece",
    [
        "a cat: (1, 2, 3, 4)\n",
        "| object | x1 | y1 | x2 | y2 |\n| a | 1 | 2 | 3 | 4 |\n",
        "- name: a cat\n  x: 1\n",
        "wrong: [('a cat', [0, 0, 1, 1])]\n",
        "{'a': [{'b': ",
        "[ # x ",
        "[1 // ",
        "[ /* ",
        "x, y, width, ",
        "# heading\n**bold:**\n",
        "<ref>a</ref><box>",
        "“",
        "1024 x ",
        "background prompt: ",
        "x = y = ",
        "  \n",
    ],
)
def test_long_replies_take_linear_time(piece):
    with ends(), suppress(ReplyError):
        parse_reply(piece * (900_000 // len(piece)), PROMPT)
