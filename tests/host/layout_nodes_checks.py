"""What the layout nodes give, run by the host's own Python in the host's folder: see `test_layout_nodes.py`."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.gligen  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401  before the host's `nodes` lets comfy/utils.py hide it
from comfy_execution.graph_utils import ExecutionBlocker  # noqa: E402
from pack import ROOT, load_nodes  # noqa: E402

PROMPT = "a red circle to the left of a blue square"
REPLY = (
    '[{"phrase": "a red circle", "box": [0.125, 0.25, 0.5, 0.75]}, {"phrase": "a blue square", "box": [0.5, 0, 1, 1]}]'
)
SIZE = {"width": 256, "height": 128}


NODES = asyncio.run(load_nodes())

from realcompo_core.errors import Cancelled  # noqa: E402  importable once the pack is loaded
from realcompo_core.providers.text import parse_reply  # noqa: E402


def call(name: str, **inputs):
    """The node's outputs and what it shows."""
    result = NODES[f"RealCompo{name}"].execute(**inputs)
    result = asyncio.run(result) if inspect.iscoroutine(result) else result
    return result.args, result.ui


def fails(name: str, *words: str, **inputs) -> None:
    """The node refuses the inputs with a message that holds all `words`."""
    try:
        call(name, **inputs)
    except Exception as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{missing} not in {type(error).__name__}: {error}"
    else:
        raise AssertionError(f"{name} accepted {inputs}")


def llm_layout(**inputs):
    return call("LLMLayout", **{"prompt": PROMPT, **SIZE, "provider": "rules", "seed": 0, **inputs})


def layout_of(*objects):
    """A layout from (phrase, box) pairs."""
    data = {"version": 1, "objects": [{"phrase": phrase, "box": box} for phrase, box in objects]}
    return call("LayoutFromJSON", layout_json=json.dumps(data))[0][0]


class Clip:
    """A text encoder whose pooled phrases have `width` numbers; counts what it encodes."""

    cond_stage_model = torch.nn.Identity()

    def __init__(self, width=768):
        self.width = width
        self.texts = []

    def tokenize(self, text, **_):
        self.texts.append(text)
        return text

    def encode_from_tokens(self, tokens, return_pooled):
        assert return_pooled == "unprojected"
        return torch.zeros(1, 77, 8), torch.full((1, self.width), float(len(tokens)))

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.full((1, 77, 8), float(len(tokens))), {}]]

    def generate(self, tokens, **options):
        return self.cond_stage_model.generate(tokens, **options)

    def decode(self, reply):
        return reply


class LanguageModel(Clip):
    """A clip that can write: the given replies, the last one for ever."""

    def __init__(self, *replies):
        super().__init__()
        left = list(replies)
        self.cond_stage_model = SimpleNamespace(
            generate=lambda tokens, **options: left.pop(0) if len(left) > 1 else left[0]
        )


def gligen(width=768):
    net = comfy.gligen.PositionNet(width, 768)
    return SimpleNamespace(model=comfy.gligen.Gligen([], net, 768))


def encoded(**values):
    return [[torch.zeros(1, 77, 8), values]]


def check_schemas():
    for node in NODES.values():
        if not node.__module__.endswith((".layout_nodes", ".conditioning_nodes")):
            continue
        schema = node.GET_SCHEMA()
        assert schema.category == "RealCompo" and schema.display_name and schema.description
        assert all(item.tooltip for item in [*schema.inputs, *schema.outputs]), schema.node_id
        assert (ROOT / "web" / "docs" / f"{schema.node_id}.md").is_file(), f"no help page for {schema.node_id}"
        node.GET_NODE_INFO_V1()
    inputs = NODES["RealCompoLLMLayout"].INPUT_TYPES()
    assert inputs["optional"]["timeout"][1]["advanced"] is True
    assert inputs["required"]["provider"][1]["options"][:2] == ["rules", "text"]


def check_rules_layout_in_every_form():
    (layout, boxes, elements, preview, prompt), shown = llm_layout()
    assert prompt == layout.prompt == PROMPT
    assert [item.phrase for item in layout.objects] == ["a red circle", "a blue square"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert boxes[0]["label"] == boxes[0]["metadata"]["desc"] == "a red circle"
    assert {type(boxes[0][key]) for key in ("x", "y", "width", "height")} == {int}
    assert set(json.loads(elements)[0]) == {"type", "bbox", "desc"}
    assert preview.shape == (1, 512, 1024, 3) and preview.dtype == torch.float32 and 0.1 < preview.mean() < 1
    assert json.loads(shown["text"][0]) == layout.to_dict() and len(shown["images"]) == 1


def check_reply_comes_before_clip_and_clip_before_provider():
    model = LanguageModel(REPLY)
    (layout, *_), shown = llm_layout(provider="nobody", clip=model)
    assert layout.objects[0].box == (0.125, 0.25, 0.5, 0.75) and shown["text"] == (REPLY,)
    assert PROMPT in model.texts[0] and "256 x 128" in model.texts[0]
    other = REPLY.replace("0.125", "0.25")
    (layout, *_), _ = llm_layout(provider="nobody", clip=Clip(), reply=other)
    assert layout.objects[0].box[0] == 0.25


def check_a_bad_reply_of_clip_is_corrected_once():
    renamed = REPLY.replace("a blue square", "a blue dog")
    model = LanguageModel(renamed, REPLY)
    (layout, *_), shown = llm_layout(clip=model)
    assert len(layout.objects) == 2 and len(model.texts) == 2
    assert model.texts[1].startswith(model.texts[0]) and renamed in model.texts[1] and "a blue dog" in model.texts[1]
    assert "corrected" in shown["text"][0] and shown["text"][0].endswith(REPLY)
    fails(
        "LLMLayout",
        *("unusable reply", "'a blue dog' is not in the prompt", "no list of objects"),
        **{"prompt": PROMPT, **SIZE, "provider": "rules", "seed": 0, "clip": LanguageModel(renamed, "no")},
    )


def check_an_instruction_changes_the_connected_layout():
    (before, *_), _ = llm_layout()
    (moved, boxes, *_, prompt), shown = llm_layout(prompt="unused", layout=before, instruction="swap both objects")
    assert prompt == moved.prompt == PROMPT and boxes[0]["x"] > boxes[1]["x"] and "Note" not in shown["text"][0]
    (more, *_, prompt), shown = llm_layout(layout=before, instruction="add a red ball")
    assert prompt == more.prompt == f"{PROMPT}, a red ball" and prompt in shown["text"][0]

    reply = REPLY.replace("0.125", "0.25")
    model = LanguageModel(reply)
    (by_clip, *_), _ = llm_layout(layout=before, instruction="move the circle right", clip=model)
    assert by_clip.objects[0].box[0] == 0.25 and "move the circle right" in model.texts[0]
    (by_reply, *_), _ = llm_layout(layout=before, reply=reply)
    assert by_reply.to_dict() == by_clip.to_dict()


def check_a_layout_and_an_instruction_want_each_other():
    (before, *_), _ = llm_layout()
    (same, *_, prompt), shown = llm_layout(layout=before, instruction=" ", clip=LanguageModel("never asked"))
    assert [item.box for item in same.objects] == [item.box for item in before.objects] and prompt == PROMPT
    assert "no instruction" in shown["text"][0]
    nameless = layout_of(("a red circle", [0.5, 0.5, 0.8, 0.8]))
    (named, *_, prompt), _ = llm_layout(layout=nameless, instruction="")
    assert named.prompt == prompt == PROMPT, "a layout without a prompt gets the node's"
    ask = {"prompt": PROMPT, **SIZE, "provider": "rules", "seed": 0}
    fails("LLMLayout", "instruction", "connect the layout", **ask, instruction="move the circle")
    fails(
        "LLMLayout", "'a cat' is not in the prompt", **ask, layout=layout_of(("a cat", [0, 0, 1, 1])), instruction="x"
    )
    fails("LLMLayout", "cannot read", "paint it", "swap X and Y", **ask, layout=before, instruction="paint it")


def check_format_decides_the_order_of_a_reply_s_boxes():
    reply = (
        '[{"label": "a red circle", "bbox": [10, 20, 99, 90]}, {"label": "a blue square", "bbox": [30, 10, 60, 112]}]'
    )
    box_of = {"auto": (10, 20, 99, 90), "xyxy": (10, 20, 99, 90), "xywh": (10, 20, 109, 110), "yxyx": (20, 10, 90, 99)}
    for given in (dict(reply=reply), dict(clip=LanguageModel(reply))):
        for format, (x0, y0, x1, y1) in box_of.items():
            (layout, *_), shown = llm_layout(**given, width=128, height=128, format=format)
            assert layout.objects[0].box == (x0 / 128, y0 / 128, x1 / 128, y1 / 128), (format, layout.objects)
            assert ("Note: The boxes are read as" in shown["text"][0]) == (format == "auto"), shown


def check_wrong_replies_and_models():
    ask = {"prompt": PROMPT, **SIZE, "provider": "rules", "seed": 0}
    fails("LLMLayout", "unusable reply", "cannot draw", **ask, reply="Sorry, I cannot draw.")
    fails("LLMLayout", "clip", "Identity", "language model", **ask, clip=Clip())
    fails("LLMLayout", "'nobody'", "rules, text", "providers.json", **{**ask, "provider": "nobody"})
    fails("LLMLayout", "reply", **{**ask, "provider": "text"})


def check_validation_explains_a_provider_of_another_machine():
    validate = NODES["RealCompoLLMLayout"].validate_inputs
    assert validate(provider="rules") is True
    message = validate(provider="my-server")
    assert all(word in message for word in ("'my-server'", "rules, text", "~/.config/realcompo/providers.json"))
    assert "reply" in validate(provider="text")
    assert validate(provider="my-server", reply=None) is True, "a linked reply needs no provider"
    assert validate(provider=None) is True


class SlowProvider:
    """Stands in for a language model's server: answers at once, or works until it is cancelled."""

    answers = True

    def __init__(self, name, seed, timeout, format, cancelled, on_reply):
        self.cancelled, self.on_reply = cancelled, on_reply

    def propose(self, prompt, size):
        while not self.answers:
            if self.cancelled():
                SlowProvider.answers = True
                raise Cancelled
            time.sleep(0.01)
        self.on_reply(REPLY)
        return parse_reply(REPLY, prompt, size)


@contextmanager
def slow_provider(answers: bool):
    module = sys.modules[NODES["RealCompoLLMLayout"].__module__]
    with patch.object(module, "get_provider", SlowProvider), patch.object(SlowProvider, "answers", answers):
        yield


def check_a_provider_s_reply_is_shown():
    with slow_provider(answers=True):
        (layout, *_), shown = llm_layout(provider="local")
    assert len(layout.objects) == 2 and shown["text"] == (REPLY,)


def check_interrupt_reaches_the_provider():
    threading.Timer(0.3, comfy.model_management.interrupt_current_processing).start()
    start = time.monotonic()
    try:
        with slow_provider(answers=False):
            llm_layout(provider="local")
    except comfy.model_management.InterruptProcessingException:
        assert time.monotonic() - start < 1.3
    else:
        raise AssertionError("not interrupted")
    finally:
        comfy.model_management.interrupt_current_processing(False)


def check_provider_ends_when_the_host_drops_the_node():
    """Otherwise the host would wait for its thread."""

    async def drop():
        execute = NODES["RealCompoLLMLayout"].execute(PROMPT, **SIZE, provider="local", seed=0)
        await asyncio.wait_for(execute, 0.3)

    start = time.monotonic()
    try:
        with slow_provider(answers=False):
            asyncio.run(drop())
    except asyncio.TimeoutError:
        assert time.monotonic() - start < 1.3
    else:
        raise AssertionError("not dropped")


def check_layout_from_boxes():
    (layout, boxes, elements, *_), _ = llm_layout(reply=REPLY)
    phrases = [item.phrase for item in layout.objects]
    for data in (boxes, [boxes], json.dumps(boxes), json.loads(elements), elements):
        (found,), _ = call("LayoutFromBoxes", boxes=data, **SIZE, prompt=PROMPT)
        assert [item.phrase for item in found.objects] == phrases and found.prompt == PROMPT
        assert torch.allclose(torch.tensor(found.objects[0].box), torch.tensor(layout.objects[0].box), atol=1e-3)
    (named,), _ = call("LayoutFromBoxes", boxes=boxes, **SIZE, phrases="a cat\na red, striped dog")
    assert [item.phrase for item in named.objects] == ["a cat", "a red, striped dog"]
    (second,), _ = call("LayoutFromBoxes", boxes=[boxes, boxes[:1]], **SIZE, image=1)
    assert len(second.objects) == 1
    fails("LayoutFromBoxes", "2 boxes", "3 phrases", boxes=boxes, **SIZE, phrases="a, b, c")
    fails("LayoutFromBoxes", "a red circle", "a, cat", boxes=boxes, **SIZE, prompt="a cat")
    fails("LayoutFromBoxes", "no JSON", boxes="left", **SIZE)
    fails("LayoutFromBoxes", "expected", boxes="[1, 2]", **SIZE)


def check_layout_from_masks():
    masks = torch.zeros(2, 8, 16)
    masks[0, 2:4, :8] = 1
    masks[1, :, 12:] = 1
    (layout,), _ = call("LayoutFromMasks", masks=masks, phrases="a cat, a dog")
    assert [item.box for item in layout.objects] == [(0, 0.25, 0.5, 0.5), (0.75, 0, 1, 1)]
    fails(
        "LayoutFromMasks",
        "a dog",
        "nothing inside",
        masks=masks * torch.tensor([1, 0])[:, None, None],
        phrases="a cat, a dog",
    )
    fails("LayoutFromMasks", "2 masks", "3 phrases", masks=masks, phrases="a, b, c")
    for one in (masks[0], masks[:1], masks[:1, None]):
        (layout,), _ = call("LayoutFromMasks", masks=one, phrases="a cat")
        assert layout.objects[0].box == (0, 0.25, 0.5, 0.5)


def check_layout_from_keypoints():
    points = [128.0, 32.0, 1.0, 192.0, 96.0, 1.0, 0.0, 0.0, 0.1]
    pose = [{"canvas_width": 256, "canvas_height": 128, "people": [{"pose_keypoints_2d": points}]}]
    (layout,), _ = call("LayoutFromKeypoints", keypoints=pose, phrases="a dancer")
    (person,) = layout.objects
    assert person.box[0] < 0.5 < 0.75 < person.box[2] and len(person.keypoints) == 3
    fails("LayoutFromKeypoints", "1 people", "2 phrases", keypoints=pose, phrases="a dancer, a cat")
    fails("LayoutFromKeypoints", "min_confidence", keypoints=pose, phrases="a dancer", min_confidence=1.0)
    fails("LayoutFromKeypoints", "keypoints[0] has no people", keypoints=[{"people": []}], phrases="a dancer")


def openpose_file(*lefts) -> dict:
    """What the OpenPose program writes: 25 joints a person in pixels of a 256 x 128 picture, here on two lines."""
    joints = [[(x + 4 * (i % 2), 4.0 + 4 * i, 0.9) for i in range(25)] for x in lefts]
    people = [{"pose_keypoints_2d": [v for joint in person for v in joint]} for person in joints]
    return {"version": 1.3, "people": people}


def check_openpose_file_and_choice_of_people():
    text, size = json.dumps(openpose_file(40, 120, 200)), {"width": 256, "height": 128}
    (layout,), _ = call("LayoutFromKeypoints", keypoints=text, phrases="two dancers, a boy", **size)
    assert [item.phrase for item in layout.objects] == ["two dancers", "two dancers", "a boy"]
    assert all(len(item.keypoints) == 18 for item in layout.objects)
    (chosen,), _ = call("LayoutFromKeypoints", keypoints=text, phrases="a boy, a girl", people="2, 0", **size)
    assert [round(item.keypoints[0][0] * 256) for item in chosen.objects] == [200, 40]
    (boxed,), _ = call("LayoutFromKeypoints", keypoints=text, phrases="people", region="box", **size)
    assert {item.region for item in boxed.objects} == {"box"}
    fails("LayoutFromKeypoints", "width and height", keypoints=text, phrases="people")
    fails("LayoutFromKeypoints", "3 people", "2 phrases", "'0+1, 2'", keypoints=text, phrases="a boy, a girl", **size)
    fails("LayoutFromKeypoints", "no person 3", keypoints=text, phrases="a boy", people="3", **size)


def check_segmentation_picture_and_index_mask():
    scene = layout_of(("a red car", [0.25, 0.5, 0.75, 1]), ("the sky", [0, 0, 1, 0.5]))
    (picture,), _ = call("ControlPicture", layout=scene, kind="segmentation (ADE20K)", width=64, height=32)
    assert picture.shape == (1, 32, 64, 3) and picture.dtype == torch.float32
    assert (picture[0, 0, 0] * 255).round().tolist() == [6, 230, 230]
    batch = torch.cat([torch.zeros_like(picture), picture])
    (layout,), _ = call("LayoutFromSegmentation", phrases="a car, the sky", picture=batch, image=1)
    assert [item.box for item in layout.objects] == [(0.25, 0.5, 0.75, 1), (0, 0, 1, 0.5)]
    (by_hand,), _ = call("LayoutFromSegmentation", phrases="a gizmo=car", picture=picture)
    assert [item.phrase for item in by_hand.objects] == ["a gizmo"]
    (every,), _ = call("LayoutFromSegmentation", phrases="", picture=picture)
    assert {item.phrase for item in every.objects} == {"car", "sky"}

    mask = torch.tensor([[[0, 0, 3, 3], [7, 7, 3, 3]]]) / 255
    (layout,), _ = call("LayoutFromSegmentation", phrases="7=a cat, 3=a dog", index_mask=mask)
    assert [(item.phrase, item.box) for item in layout.objects] == [
        ("a cat", (0, 0.5, 0.5, 1)),
        ("a dog", (0.5, 0, 1, 1)),
    ]
    fails("LayoutFromSegmentation", "picture or index_mask", phrases="a cat")
    fails("LayoutFromSegmentation", "not both", phrases="a cat", picture=picture, index_mask=mask)
    fails("LayoutFromSegmentation", "no image 2", phrases="a cat", picture=batch, image=2)
    fails("LayoutFromSegmentation", "a cat", "animal", "sky", phrases="a cat", picture=picture)
    fails("LayoutFromSegmentation", "no 1", "0, 3, 7", phrases="a cat", index_mask=mask)
    fails(
        "LayoutFromSegmentation", "(90, 90, 90)", "tolerance", phrases="", picture=torch.full((1, 16, 16, 3), 90 / 255)
    )
    fails(
        "LayoutFromSegmentation", "'the sky' is not in the prompt", phrases="the sky", picture=picture, prompt="a cat"
    )


def check_control_pictures():
    shapes = layout_of(("two red circles", [0, 0, 0.5, 1]))
    (picture,), _ = call("ControlPicture", layout=shapes, kind="segmentation (ShapeScenes)", width=64, height=32)
    assert picture[0, :, :32].sum() > 0 and picture[0, :, 32:].sum() == 0
    drawing = {"width": 64, "height": 32, "kind": "segmentation (ADE20K)"}
    (picture,), _ = call("ControlPicture", layout=shapes, classes="circle=ball", **drawing)
    assert (picture[0, 0, 0] * 255).round().tolist() == [255, 0, 163]
    fails("ControlPicture", "two red circles", "'circle=", layout=shapes, **drawing)
    fails("ControlPicture", "classes", "ball", layout=shapes, classes="ball", **drawing)

    file = openpose_file(40, 200)
    (posed,), _ = call("LayoutFromKeypoints", keypoints=file, phrases="two dancers", width=256, height=128)
    drawing["kind"] = "openpose"
    (picture,), _ = call("ControlPicture", layout=posed, **drawing)
    assert picture.shape == (1, 32, 64, 3) and (picture[0, :, :32] > 0).any() and (picture[0, :, 32:] > 0).any()
    fails("ControlPicture", "none of its objects has keypoints", layout=shapes, **drawing)
    fails("ControlPicture", "classes", layout=posed, classes="a=b", **drawing)


def check_json_and_preview():
    layout = layout_of(("a red circle", [0, 0, 0.5, 1]))
    (alone, text), shown = call("LayoutPreview", layout=layout, **SIZE)
    assert alone.shape == (1, 512, 1024, 3) and len(shown.as_dict()["images"]) == 1
    (again,), _ = call("LayoutFromJSON", layout_json=text, prompt=PROMPT)
    assert again.objects[0].box == (0, 0, 0.5, 1) and again.prompt == PROMPT
    photos = torch.stack([torch.zeros(64, 96, 3), torch.ones(64, 96, 3)])
    (over, _), _ = call("LayoutPreview", layout=layout, **SIZE, background=photos)
    assert over.shape == (2, 512, 768, 3) and over[0].mean() < over[1].mean()
    fails("LayoutFromJSON", "no JSON", layout_json="a cat")
    fails("LayoutFromJSON", "a red circle", layout_json=text, prompt="a cat")


def grounding_inputs(layout, **inputs) -> dict:
    defaults = {"conditioning": encoded(), "clip": Clip(), "gligen": gligen(), "strength": 1.0, **SIZE}
    return {"layout": layout, **defaults, **inputs}


def apply_gligen(layout, **inputs):
    return call("ApplyLayoutGLIGEN", **grounding_inputs(layout, **inputs))[0]


def check_gligen_boxes_phrases_and_size():
    layout = layout_of(
        ("a red circle", [0.125, 0.25, 0.5, 0.75]), ("a dog", [0.5, 0, 1, 1]), ("a red circle", [0, 0, 0.001, 0.001])
    )
    clip, grounding = Clip(), gligen()
    before = encoded()
    (entry,), negative = apply_gligen(layout, conditioning=before, clip=clip, gligen=grounding)
    kind, model, positions = entry[1]["gligen"]
    assert kind == "position" and model is grounding and "gligen" not in before[0][1]
    assert [position[1:] for position in positions] == [(8, 12, 4, 4), (16, 16, 0, 16), (1, 1, 0, 0)]
    assert [int(position[0][0, 0]) for position in positions] == [12, 5, 12] and len(clip.texts) == 2
    assert "start_percent" not in entry[1] and isinstance(negative, ExecutionBlocker)

    tokens = grounding.model.set_position((2, 4, 16, 32), positions, "cpu")
    assert callable(tokens), "the host's GLIGEN takes the positions"
    (entry,), _ = apply_gligen(layout, latent={"samples": torch.zeros(1, 4, 32, 64)})
    assert entry[1]["gligen"][2][0][1:] == (16, 24, 8, 8)


def check_gligen_appends():
    layout = layout_of(("a red circle", [0, 0, 0.5, 1]))
    once, _ = apply_gligen(layout)
    (twice,), _ = apply_gligen(layout, conditioning=once)
    assert len(twice[1]["gligen"][2]) == 2 and len(once[0][1]["gligen"][2]) == 1
    thirty = layout_of(*[("a dot", [0, 0, 0.5, 1])] * 30)
    fails(
        "ApplyLayoutGLIGEN",
        "30 objects",
        "already has 1",
        layout=thirty,
        conditioning=once,
        clip=Clip(),
        gligen=gligen(),
        strength=1.0,
        **SIZE,
    )
    same = encoded()
    assert apply_gligen(layout_of(), conditioning=same)[0] is same, "a layout without objects grounds nothing"


def check_gligen_strength_is_a_share_of_sampling():
    layout = layout_of(("a red circle", [0, 0, 0.5, 1]))
    positive, negative = apply_gligen(layout, strength=0.4, negative=encoded())
    for conditioning, kind in ((positive, "position"), (negative, "empty")):
        early, late = (entry[1] for entry in conditioning)
        assert early["gligen"][0] == kind and (early["start_percent"], early["end_percent"]) == (0, 0.4)
        assert "gligen" not in late and 0.4 < late["start_percent"] < 0.4001 and late["end_percent"] == 1
    ranged = encoded(start_percent=0.5, end_percent=0.8)
    assert apply_gligen(layout, strength=0.4, conditioning=ranged, negative=encoded())[0] == ranged
    same = encoded()
    assert apply_gligen(layout, strength=0.0, conditioning=same)[0] is same
    fails(
        "ApplyLayoutGLIGEN",
        "strength 0.4",
        "negative",
        layout=layout,
        conditioning=encoded(),
        clip=Clip(),
        gligen=gligen(),
        strength=0.4,
        **SIZE,
    )


def check_host_keeps_the_negative_as_it_is():
    """The host puts the positive's boxes into a negative that has no grounding of its own."""
    positive, negative = apply_gligen(layout_of(("a dog", [0, 0, 0.5, 1])), strength=0.4, negative=encoded())
    flat = [[entry[1].copy() for entry in conditioning] for conditioning in (positive, negative)]
    comfy.samplers.apply_empty_x_to_equal_area(flat[0], flat[1], "gligen", lambda found, x: found[x])
    assert [entry.get("gligen", ("none",))[0] for entry in flat[1]] == ["empty", "none"]


def check_gligen_of_another_family():
    layout = layout_of(("a dog", [0, 0, 0.5, 1]))
    fails("ApplyLayoutGLIGEN", "SD1.x", "768", "SDXL", "1280", **grounding_inputs(layout, clip=Clip(1280)))
    fails("ApplyLayoutGLIGEN", "SD2.x", "1024", "SD1.x", **grounding_inputs(layout, gligen=gligen(1024)))


def check_regions():
    layout = layout_of(("a dog", [0, 0.25, 0.5, 0.75]), ("a speck", [0, 0, 0.001, 0.001]))
    whole = encoded()
    (conditioning,), _ = call("ApplyLayoutRegions", conditioning=whole, layout=layout, clip=Clip(), strength=0.7)
    assert conditioning[0] is whole[0], "the whole prompt comes first"
    dog, speck = (entry[1] for entry in conditioning[1:])
    mask = dog["mask"][0]
    height, width = mask.shape
    assert mask[height // 4 : height * 3 // 4, : width // 2].min() == 1 and mask.mean() == 0.25
    assert dog["mask_strength"] == 0.7 and dog["set_area_to_bounds"] is False
    assert conditioning[1][0][0, 0, 0] == len("a dog") and speck["mask"].max() > 0

    masks = torch.zeros(1, 8, 16)
    masks[0, :2, :2] = 1
    (masked,), _ = call("LayoutFromMasks", masks=masks, phrases="a dog")
    (conditioning,), _ = call(
        "ApplyLayoutRegions", conditioning=whole, layout=masked, clip=Clip(), strength=1.0, set_cond_area="mask bounds"
    )
    assert torch.equal(conditioning[1][1]["mask"], masks) and conditioning[1][1]["set_area_to_bounds"] is True

    points = [64.0, 32.0, 1.0, 192.0, 32.0, 1.0]
    pose = {"canvas_width": 256, "canvas_height": 128, "people": [{"pose_keypoints_2d": points}]}
    (posed,), _ = call("LayoutFromKeypoints", keypoints=pose, phrases="a dancer")
    (dancers,), _ = call("ApplyLayoutRegions", conditioning=whole, layout=posed, clip=Clip(), strength=1.0)
    mask = dancers[1][1]["mask"][0]
    height, width = mask.shape
    joint, between = mask[height // 4, width // 4], mask[height // 4, width // 2]
    assert joint == 1 and between == 0, "the region is around the joints, not the box"
    comfy.samplers.resolve_areas_and_cond_masks_multidim([entry[1] for entry in conditioning], (8, 16), "cpu")


def main() -> None:
    checks = {name: check for name, check in globals().items() if name.startswith("check_")}
    failed = 0
    for name, check in checks.items():
        try:
            with torch.inference_mode():  # as the host runs nodes
                check()
            print(f"passed {name}", flush=True)
        except Exception:
            failed += 1
            traceback.print_exc(file=sys.stdout)
            print(f"FAILED {name}", flush=True)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
