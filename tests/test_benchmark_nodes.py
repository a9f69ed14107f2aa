"""MultiGen Score: host boxes read, names compared, scores by hand; and the node in a real ComfyUI."""

import json

import host_server
import numpy as np
import pytest
from PIL import Image

from realcompo_core.bench.batch_score import read_prompts, score_batch
from realcompo_core.bench.host_boxes import class_key, seen_in_boxes
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.layout.formats import to_bounding_boxes
from realcompo_core.palettes import OBJECTS, color_of

SIZE = (64, 48)


def box(label=None, score=None, x=4, y=8, width=16, height=24, **others) -> dict:
    given = {"label": label, "score": score}
    return {"x": x, "y": y, "width": width, "height": height, **others} | {k: v for k, v in given.items() if v}


def refused(*words: str, **inputs) -> None:
    given = {"boxes": [[box("cat")]], "names": "cat", "pictures": 1, "size": SIZE} | inputs
    with pytest.raises(RealCompoError) as error:
        score_batch(**given)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "a cat", "Cats", " the CAT "),
        ("person", "people"),
        ("a wine glass", "Wine glasses", "wine_glass"),
        ("skis", "a ski"),
        ("a", "A"),  # a name, as there is no other word
        ("猫", " 猫"),
        ("?!", "?!"),
    ],
)
def test_names_of_one_class_have_one_key(names):
    assert len({class_key(name) for name in names}) == 1


def test_names_of_other_classes_have_other_keys():
    assert len({class_key(name) for name in ("cat", "cathedral", "hot dog", "dog", "glass", "wine glass")}) == 6


def test_boxes_become_detections_with_the_names_that_were_asked_for():
    boxes = [[box("Cats", 0.5)], [], [box("sofa", 0.25, x=1.5), box("cat")]]
    first, second, third = seen_in_boxes(boxes, ["a cat"], 3, *SIZE)
    assert first.detections == (("a cat", (4, 8, 20, 32), 0.5, ""),) and (first.width, first.height) == SIZE
    assert second.detections == ()
    assert third.detections == (("sofa", (1.5, 8, 17.5, 32), 0.25, ""), ("a cat", (4, 8, 20, 32), 1.0, ""))


@pytest.mark.parametrize(
    "boxes",
    [
        box("cat"),
        [box("cat")],
        [[box("cat")]],
        (box("cat"),),
        [box(metadata={"desc": "a cat", "text": ""})],
        [box(metadata={"desc": "", "text": "cat"})],
        to_bounding_boxes(Layout((LayoutObject("a cat", (0, 0, 0.5, 0.5)),)), *SIZE),
    ],
)
def test_one_picture_may_have_a_list_or_a_single_box(boxes):
    assert [d.name for d in seen_in_boxes(boxes, ["cat"], 1, *SIZE)[0].detections] == ["cat"]


def test_scores_of_three_pictures_by_hand():
    boxes = [
        [box("cat", 0.9), box("dog", 0.8), box("cat", 0.7)],
        [box("dogs", 0.9), box("cat", 0.1), box("person", 0.9)],  # the threshold itself does not count
        None,
    ]
    score = score_batch(boxes, "a cat, a dog", 3, SIZE)
    assert [(m.name, round(m.value, 2), m.count, m.std) for m in score.metrics] == [
        ("MG1", 66.67, 3, None),
        ("MG2", 33.33, 3, None),
    ]
    assert score.share == 0.5 and score.all_present == pytest.approx(1 / 3) and not score.notes
    assert score.table() == (
        "| score | % of pictures |\n| --- | --- |\n| MG1 | 66.67 |\n| MG2 | 33.33 |\n\n"
        "| class | found in % | of pictures |\n| --- | --- | --- |\n| dog | 66.67 | 3 |\n| cat | 33.33 | 3 |\n\n"
        "| picture | found | missing |\n| --- | --- | --- |\n"
        "| 0 | cat, dog | – |\n| 1 | dog | cat |\n| 2 | – | cat, dog |"
    )


def test_each_picture_may_have_names_of_its_own_in_one_spelling():
    boxes = [[box("cat")], [box("cat"), box("dog")]]
    score = score_batch(boxes, "a Cat\n\nThe dogs, cats, a bird\n", 2, SIZE)
    assert list(score.found.values()) == [{"Cat": True}, {"dogs": True, "Cat": True, "bird": False}]
    assert [round(m.value) for m in score.metrics] == [100, 100, 0]  # each of the pictures with so many names
    assert score.share == pytest.approx(5 / 6) and score.all_present == 0.5


def test_a_name_that_is_given_twice_counts_once():
    assert score_batch([box("cat")], "a cat, cats", 1, SIZE).all_present == 1


def test_pictures_of_a_prompt_are_the_rounds_of_the_spread():
    """Two prompts with two pictures each: cat in round 0 of both, in round 1 of neither."""
    boxes = [[box("cat")], [], [box("cat")], []]
    (mg1,) = score_batch(boxes, "cat", 4, SIZE, pictures_per_prompt=2).metrics
    assert (mg1.value, mg1.std, str(mg1)) == (50, 50, "50.00 ± 50.00")
    (even,) = score_batch([[box("cat")], [], [], [box("cat")]], "cat", 4, SIZE, pictures_per_prompt=2).metrics
    assert (even.value, even.std) == (50, 0)


@pytest.mark.parametrize("names", ["cat\ndog", "cat\ncat\ndog\na dog"])
def test_names_may_be_of_each_prompt_or_of_each_picture(names):
    assert [p.names for p in read_prompts(names, 4, 2)] == [("cat",), ("dog",)]


def test_a_name_that_no_label_has_is_told_with_the_labels():
    boxes = [[box("couch")], [box("dog", 0.01)]]
    score = score_batch(boxes, "sofa, dog", 2, SIZE)
    assert score.notes == ("no box of any picture is labelled sofa; other labels are: couch",)
    assert score.table().startswith("Note: no box of any picture is labelled sofa")
    many = score_batch([[box(f"thing {i:02}") for i in range(30)]], "sofa", 1, SIZE)
    assert many.notes[0].endswith("thing 19 … (30 in all)")
    (alone,) = score_batch([box("dog")], "sofa, dogs", 1, SIZE).notes
    assert alone == "no box of any picture is labelled sofa; there is no other label"
    assert score_batch([], "sofa", 1, SIZE).notes == ("no picture has a box",)


def test_a_bar_in_a_name_does_not_break_the_table():
    assert "| a\\|b | 100.00 | 1 |" in score_batch([box("a|b")], "a|b", 1, SIZE).table()


NAN = float("nan")


@pytest.mark.parametrize(
    "words, inputs",
    [
        (("of 2 pictures", "image has 3"), {"boxes": [[box("cat")], []], "pictures": 3}),
        (("one list of 1", "3 pictures"), {"boxes": [box("cat")], "pictures": 3}),
        (("one list of 0", "3 pictures"), {"boxes": [], "pictures": 3}),
        (("box 1 of picture 0", "no label", "RT-DETR"), {"boxes": [[box("cat"), box()]]}),
        (("no label", "7"), {"boxes": [[box(7)]]}),
        (("box 0 of picture 0", "not finite"), {"boxes": [[box("cat", x=NAN)]]}),
        (("not finite",), {"boxes": [[box("cat", NAN)]]}),
        (("not finite",), {"boxes": [[box("cat", width=float("inf"))]]}),
        (("score 87",), {"boxes": [[box("cat", 87)]]}),
        (("x is missing",), {"boxes": [[{"y": 1, "width": 2, "height": 3, "label": "cat"}]]}),
        (("expected {x, y",), {"boxes": [["cat"]]}),
        (("expected a list",), {"boxes": "cat"}),
        (("expected a list",), {"boxes": None}),
        (("names: empty",), {"names": " \n"}),
        (("names no class",), {"names": "cat\n, ,"}),
        (("names: 2 lines for 3 pictures", "one for each"), {"names": "cat\ndog", "boxes": [[]] * 3, "pictures": 3}),
        (
            ("3 lines for 4 pictures", "each of the 2 prompts"),
            {"names": "cat\ndog\ncat", "boxes": [[]] * 4, "pictures": 4, "pictures_per_prompt": 2},
        ),
        (
            ("pictures of prompt 0 differ",),
            {"names": "cat\ndog", "boxes": [[]] * 2, "pictures": 2, "pictures_per_prompt": 2},
        ),
        (
            ("pictures_per_prompt: 2", "3 pictures"),
            {"boxes": [[]] * 3, "pictures": 3, "pictures_per_prompt": 2},
        ),
        (("pictures_per_prompt: 0",), {"pictures_per_prompt": 0}),
        (("threshold: 1,",), {"threshold": 1}),
        (("threshold: -0.1",), {"threshold": -0.1}),
        (("threshold: nan",), {"threshold": NAN}),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(words, inputs):
    refused(*words, **inputs)


def test_a_class_has_one_colour_in_all_pictures_and_others_are_not_drawn():
    boxes = [
        [box("dog", 0.9), box("tree", 0.9, x=40)],
        [box("cat", 0.9), box("dog", 0.9, x=30), box("dog", 0.05, x=50)],
    ]
    score = score_batch(boxes, "cat, dog", 2, SIZE)
    first, second = (np.asarray(p) for p in score.draw([Image.new("RGB", SIZE, "white")] * 2))
    times = first.shape[1] // SIZE[0]
    assert first.shape == second.shape == (SIZE[1] * times, SIZE[0] * times, 3) and times > 1

    def colors(picture) -> set:
        found = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
        return {index for index, color in enumerate(OBJECTS) if color in found}

    cat, dog = 0, 1
    assert colors(first) == {dog} and colors(second) == {cat, dog}
    edge = 20 * times  # a row with no label
    assert tuple(second[edge, 4 * times]) == color_of(cat) and tuple(second[edge, 30 * times]) == color_of(dog)
    assert tuple(second[edge, 50 * times]) == tuple(first[edge, 40 * times]) == (255, 255, 255)


def test_boxes_that_reach_outside_are_drawn_to_the_border():
    boxes = [box("cat", x=-20, y=-20, width=400, height=400), box("cat", x=900), box("cat", width=0)]
    (drawn,) = score_batch(boxes, "cat", 1, SIZE).draw([Image.new("RGB", SIZE)])
    assert np.asarray(drawn).any()


def test_node_in_the_host(host_folder):
    host_server.run_checks(host_folder, "benchmark_checks.py")


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def scored(boxes, names: str, batch: int = 1, **widgets) -> dict:
    """A graph that scores grey pictures; each output of MultiGen Score that is a value is shown."""
    widgets = {"threshold": 0.1, "pictures_per_prompt": 1} | widgets
    score = node("RealCompoMultiGenScore", image=["image", 0], boxes=boxes, names=names, **widgets)
    return {
        "image": node("EmptyImage", width=256, height=256, batch_size=batch, color=0x808080),
        "score": score,
        "save": node("PreviewImage", images=["score", 3]),
        **{name: node("PreviewAny", source=["score", i]) for i, name in enumerate(("table", "found", "all_present"))},
    }


def test_a_graph_scores_itself_by_labelled_boxes(host):
    """LLM Layout's boxes have labels, as a detector's: one flat list of one picture."""
    workflow = scored(["layout", 1], "red circle, blue squares, star")
    sentence = "a red circle to the left of a blue square"
    workflow["layout"] = node(
        "RealCompoLLMLayout", prompt=sentence, width=256, height=256, provider="rules", seed=0, timeout=60.0
    )
    outputs = host.run(workflow)
    (shown,), (table,) = outputs["score"]["text"], outputs["table"]["text"]
    assert shown == table and "| MG3 | 0.00 |" in table and "| 0 | red circle, blue squares | star |" in table
    assert "Note: no box of any picture is labelled star" in table
    assert float(outputs["found"]["text"][0]) == pytest.approx(2 / 3)
    assert float(outputs["all_present"]["text"][0]) == 0
    for name in ("save", "score"):
        assert np.asarray(Image.open(host.file(outputs[name]["images"][0]))).std() > 10


def test_a_batch_has_a_list_for_each_picture(host):
    """As detectors give them, which need models; a list in a request is a link, unless it is wrapped."""
    boxes = {"__value__": [[box("cat", 0.9)], [], [box("cat", 0.9), box("dog", 0.05)]]}
    outputs = host.run(scored(boxes, "a cat, a dog", batch=3))
    assert "| MG1 | 66.67 |" in outputs["table"]["text"][0] and "| 2 | cat | dog |" in outputs["table"]["text"][0]
    assert len(outputs["save"]["images"]) == 3


@pytest.mark.parametrize("kind", ["PrimitiveBoundingBox", "CreateBoundingBoxes"])
def test_boxes_of_the_host_without_labels_are_refused(host, kind):
    if kind not in host.get("/object_info"):
        pytest.skip(f"this ComfyUI has no {kind}")
    drawn = {"x": 0.1, "y": 0.1, "w": 0.5, "h": 0.5, "metadata": {"type": "obj", "desc": "a cat"}}
    inputs = {
        "PrimitiveBoundingBox": {"x": 8, "y": 8, "width": 64, "height": 64},
        "CreateBoundingBoxes": {"width": 256, "height": 256, "editor_state": {"__value__": [drawn]}},
    }
    workflow = scored(["boxes", int(kind == "CreateBoundingBoxes")], "cat")
    workflow["boxes"] = node(kind, **inputs[kind])
    entry = host.wait(host.queue(workflow))
    message = host_server.error_of(entry)
    assert "has no label" in message and "RT-DETR" in message, json.dumps(entry["status"])[:500]
