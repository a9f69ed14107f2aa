"""What MultiGen Score gives, run by the host's own Python in the host's folder: see `test_benchmark_nodes.py`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

sys.argv = ["main.py", "--cpu", "--temp-directory", tempfile.mkdtemp()]
sys.path.insert(0, os.getcwd())

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401  before the host's `nodes` lets comfy/utils.py hide it
from pack import load_nodes  # noqa: E402

folder_paths.set_temp_directory(sys.argv[-1])
SCORE = asyncio.run(load_nodes())["RealCompoMultiGenScore"]
WIDGETS = {"threshold": 0.1, "pictures_per_prompt": 1}


def box(label: str | None = None, **others) -> dict:
    """As RT-DETR gives it."""
    named = {"label": label} if label else {}
    return {"x": 10.5, "y": 20.0, "width": 40.0, "height": 30.25, **named, "score": 0.75} | others


def scored(boxes, names: str, batch: int = 1, channels: int = 3, **widgets):
    """The node's outputs and what it shows."""
    image = torch.full((batch, 96, 128, channels), 0.5)
    result = SCORE.execute(image=image, boxes=boxes, names=names, **(WIDGETS | widgets))
    return *result.args, result.ui


def refused(*words: str, **inputs) -> None:
    try:
        scored(**inputs)
    except ValueError as error:
        assert all(word in str(error) for word in words), str(error)
        return
    raise AssertionError(f"{inputs} was not refused")


def check_a_batch_with_a_list_for_each_picture():
    boxes = [[box("cat"), box("dog")], [box("dog")], []]
    table, found, all_present, preview, ui = scored(boxes, "a cat, a dog", batch=3)
    assert "| MG1 | 66.67 |" in table and "| MG2 | 33.33 |" in table and "| 1 | dog | cat |" in table, table
    assert (found, round(all_present, 4)) == (0.5, 0.3333)
    assert preview.dtype == torch.float32 and preview.shape == (3, 480, 640, 3), preview.shape
    changed = (preview - preview[2]).abs().amax((1, 2, 3))
    assert changed[0] > 0.3 and changed[1] > 0.3 and preview[2].std() < 0.01
    assert ui["text"] == (table,) and len(ui["images"]) == 3


def check_a_flat_list_and_a_single_box_are_of_one_picture():
    for boxes in ([box("cat")], box("cat")):
        assert scored(boxes, "cat")[1:3] == (1.0, 1.0)
    refused("3 pictures", boxes=[box("cat")], names="cat", batch=3)
    refused("of 2 pictures", "image has 3", boxes=[[], []], names="cat", batch=3)


def check_labels_in_metadata_and_boxes_without_a_score_count():
    described = {"x": 1, "y": 2, "width": 3, "height": 4, "metadata": {"type": "obj", "desc": "a cat", "text": ""}}
    assert scored([described], "cats", threshold=0.99)[2] == 1.0
    refused("has no label", boxes=[box()], names="cat")


def check_only_larger_scores_than_the_threshold_count():
    assert scored([box("cat")], "cat", threshold=0.75)[2] == 0.0
    assert scored([box("cat")], "cat", threshold=0.74)[2] == 1.0


def check_rounds_have_a_spread():
    table = scored([[box("cat")], []], "cat", batch=2, pictures_per_prompt=2)[0]
    assert "| MG1 | 50.00 ± 50.00 |" in table, table


def check_pictures_with_an_alpha_channel_are_drawn_without_it():
    assert scored([box("cat")], "cat", channels=4)[3].shape[-1] == 3


def check_a_word_that_the_detector_does_not_use_is_told():
    table = scored([box("couch")], "sofa")[0]
    assert table.startswith("Note: no box of any picture is labelled sofa; other labels are: couch"), table


def check_the_hosts_own_detector_is_understood():
    """RT-DETR with random weights, which finds anything anywhere. ComfyUI 0.8.0 has no detector."""
    try:
        from comfy.ldm.rt_detr.rtdetr_v4 import RTv4
        from comfy_extras.nodes_rtdetr import RTDETR_detect
    except ImportError:
        return
    torch.manual_seed(0)
    network = RTv4(operations=comfy.ops.disable_weight_init, dtype=torch.float32, device="cpu")
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            value.fill_(1)
        elif value.is_floating_point():
            value.normal_(0, max(1, value[:1].numel()) ** -0.5)
    model = comfy.sd.load_diffusion_model_state_dict(network.state_dict())
    settings = {"threshold": 0.0, "class_name": "all", "max_detections": 4}
    boxes = RTDETR_detect.execute(model=model, image=torch.rand(2, 96, 128, 3), **settings).args[0]
    assert [len(own) for own in boxes] == [4, 4]
    names = "\n".join(f"a {own[0]['label']}" for own in boxes)
    lowest = min(own[0]["score"] for own in boxes)
    assert lowest > 0 and scored(boxes, names, batch=2, threshold=lowest / 2)[2] == 1.0


def main() -> None:
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            with torch.inference_mode():
                check()
            print("ok", name)


main()
