"""Recorded maps: what is kept, looking along the axes, files, drawing, metrics. No network runs here."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from realcompo_core.attention.drawing import (
    View,
    pictures,
    select,
    sheet,
    threshold_mask,
)
from realcompo_core.attention.grounding_metrics import (
    as_csv,
    attention_iou,
    concentration,
    grounding_table,
    layout_table,
    layout_targets,
    mask_target,
)
from realcompo_core.attention.losses import share_inside
from realcompo_core.attention.maps import (
    AttentionMaps,
    BranchMaps,
    Keep,
    MapLayer,
    PromptWords,
    WordColumns,
    kept_columns,
    map_bytes,
)
from realcompo_core.attention.recorder import Recorder, token_shares
from realcompo_core.attention.source import AttentionEvent, Layer
from realcompo_core.errors import RealCompoError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.palettes import DIVERGING, PALETTES, colorize

PROMPT = PromptWords([("a", [1]), ("armadillo", [2, 3, 4]), ("sees", [5]), ("armadillo", [6, 7, 8]), ("cat", [9])], 12)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def recording(heads="averaged", steps=(0, 2), batch=2, name="model", seed=0):
    """A branch with a layer of 8x12 and one of 4x6 cells, two words and the rest."""
    layers = [MapLayer("fine", (8, 12)), MapLayer("coarse", (4, 6))]
    words = [WordColumns("red", (0,)), WordColumns("cat", (1, 2)), WordColumns("<end>", (3,))]
    branch = BranchMaps(name, {"positive": words}, layers, {step: 10.0 - step for step in steps})
    for i, layer in enumerate(layers):
        for step in steps:
            shape = batch, 4 if heads == "apart" else 1, *layer.size, 4
            shares = random(*shape, seed=seed + 10 * i + step).softmax(-1).movedim(-1, 2)
            branch.maps["positive", layer.name, step] = shares.half()
    return branch


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("rest", [False, True])
def test_shares_are_those_of_the_softmax_with_repeats_added_up(apart, rest, monkeypatch):
    monkeypatch.setattr("realcompo_core.attention.recorder.SCORES_AT_ONCE", 2 * 3 * 24 * 2)  # two queries at once
    q, k = random(2, 3, 15, 8), random(2, 3, 12, 8, seed=1)
    whole = torch.softmax(q @ torch.cat([k, k], 2).mT * 8**-0.5, -1)
    whole = whole[..., :12] + whole[..., 12:]
    whole = whole if apart else whole.mean(1, keepdim=True)
    found = token_shares(q, torch.cat([k, k], 2), [4, 0, 9], 8**-0.5, 12, apart, rest)
    torch.testing.assert_close(found[:, :, :3], whole[..., [4, 0, 9]].mT)
    assert found.shape[2] == 3 + rest
    if rest:
        torch.testing.assert_close(found.sum(2), torch.ones(2, 3 if apart else 1, 15))


def test_kept_words_share_one_column_for_all_other_tokens():
    columns, words = kept_columns(PROMPT, Keep(), 12)
    assert columns == [0, *range(1, 10)]
    assert [word.text for word in words] == ["<start>", "a", "armadillo", "sees", "armadillo", "cat", "<end>"]
    assert words[2].columns == (2, 3, 4) and words[-1].columns == (10,)


def test_all_tokens_are_kept_with_end_and_padding_apart():
    columns, words = kept_columns(PROMPT, Keep("all"), 12)
    assert columns == list(range(12))
    assert words[0] == WordColumns("<start>", (0,)) and words[-2:] == [
        WordColumns("<end>", (10,)),
        WordColumns("<padding>", (11,)),
    ]


def test_tokens_without_a_prompt_have_numbers():
    columns, words = kept_columns(None, Keep(), 3)
    assert columns == [0, 1, 2] and [word.text for word in words] == ["token 0", "token 1", "token 2"]


def test_default_recording_of_sdxl_at_1024_stays_below_256_mb():
    """A prompt of two full chunks, a negative of one, 30 steps: 11 blocks with cross-attention."""
    sizes = [(64, 64)] * 5 + [(32, 32)] * 6
    step = map_bytes(sizes, 152 + 77)
    kept = -(-30 // Keep().interval(step, 30))
    assert step * kept < 256e6
    assert Keep().interval(map_bytes(sizes, 22 + 2), 30) == 1


def test_a_step_above_the_limit_is_refused_with_both_sizes():
    with pytest.raises(RealCompoError, match="40 MB, and the limit is 30 MB"):
        Keep(limit=30).interval(40_000_000, 10)


def test_mean_over_layers_steps_and_heads_is_that_of_resized_maps():
    branch = recording("apart")
    maps = {key[1:]: value.float().mean(1) for key, value in branch.maps.items()}
    upsampled = torch.nn.functional.interpolate(maps["coarse", 2], (8, 12), mode="bilinear")
    torch.testing.assert_close(branch.token_maps(step=2), (maps["fine", 2] + upsampled) / 2)
    one = branch.token_maps(layer="coarse", step=0, head=3)
    torch.testing.assert_close(one, branch.maps["positive", "coarse", 0][:, 3].float())
    torch.testing.assert_close(branch.token_maps().sum(1), torch.ones(2, 8, 12), atol=2e-3, rtol=0)


def test_a_head_is_that_of_the_layers_that_have_it():
    """SDXL's coarser layers have twice as many heads."""
    branch = recording("apart")
    for step in branch.steps:
        branch.maps["positive", "fine", step] = branch.maps["positive", "fine", step][:, :2]
    assert branch.heads == 4
    coarse = branch.token_maps(layer="coarse", step=0, head=3)
    upsampled = torch.nn.functional.interpolate(coarse, (8, 12), mode="bilinear")
    torch.testing.assert_close(branch.token_maps(step=0, head=3), upsampled)
    assert branch.token_maps(layer="fine", head=3).count_nonzero() == 0


def test_a_word_is_the_mean_of_its_tokens_and_a_phrase_of_its_words():
    branch = recording()
    tokens = branch.token_maps()
    red_cat = branch.find("Red  cat")
    assert red_cat == WordColumns("Red  cat", (0, 1, 2))
    maps = branch.word_maps([branch.find("cat"), red_cat])
    torch.testing.assert_close(maps[:, 0], tokens[:, 1:3].mean(1))
    torch.testing.assert_close(maps[:, 1], tokens[:, :3].mean(1))


def test_phrases_that_a_tokenizer_splits_are_found():
    words = [WordColumns("t", (1,)), WordColumns("-", (2,)), WordColumns("shirt", (3, 4)), WordColumns("t", (5,))]
    branch = BranchMaps("model", {"positive": words})
    assert branch.find("T-shirt").columns == (1, 2, 3, 4)
    with pytest.raises(RealCompoError, match="'shirts' is not in the positive prompt of branch model. Its words: t, -"):
        branch.find("shirts")


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"layer": "middle"}, "layer 'middle'.*there is: fine, coarse"),
        ({"step": 1}, "step 1 .*there is: 0, 2"),
        ({"head": 1}, "head 1 .*there is: 0"),
        ({"conditioning": "negative"}, "conditioning 'negative'.*there is: positive"),
    ],
)
def test_what_was_not_recorded_is_refused_with_what_was(chosen, message):
    with pytest.raises(RealCompoError, match=message):
        recording().token_maps(**chosen)


def test_nothing_recorded_says_what_to_do():
    with pytest.raises(RealCompoError, match="the model that is recorded must sample before"):
        AttentionMaps([BranchMaps("model")]).branch()
    with pytest.raises(RealCompoError, match="no branch 'spatial' was recorded; there is: model"):
        AttentionMaps([recording()]).branch("spatial")


def test_a_saved_recording_is_the_same_when_loaded(tmp_path):
    layout = Layout((LayoutObject("a red cat", (0.0, 0.0, 0.5, 0.5)),), prompt="a red cat")
    maps = AttentionMaps([recording("apart"), recording(name="spatial", seed=5)], layout)
    maps.save(tmp_path / "maps.npz")
    loaded = AttentionMaps.load(tmp_path / "maps.npz")
    assert loaded.layout.to_json() == layout.to_json()
    for before, after in zip(maps.branches, loaded.branches, strict=True):
        assert (before.name, before.words, before.layers, before.noise_levels) == (
            after.name,
            after.words,
            after.layers,
            after.noise_levels,
        )
        assert before.maps.keys() == after.maps.keys()
        assert all(torch.equal(value, after.maps[key]) for key, value in before.maps.items())


@pytest.mark.parametrize("saved", ["m", "m.npz", "m.v2"])
def test_a_name_without_npz_is_saved_with_it_and_loaded_with_or_without(tmp_path, saved):
    recording_of = AttentionMaps([recording()])
    recording_of.save(tmp_path / saved)
    (file,) = tmp_path.iterdir()
    assert file.name == saved.removesuffix(".npz") + ".npz"
    for name in (saved, file.name):
        loaded = AttentionMaps.load(str(tmp_path / name))
        assert loaded.branches[0].maps.keys() == recording_of.branches[0].maps.keys()
    file.rename(tmp_path / "renamed")
    assert AttentionMaps.load(tmp_path / "renamed").branches
    with pytest.raises(RealCompoError, match="nothing.npz holds no attention maps"):
        AttentionMaps.load(tmp_path / "nothing")


def test_a_recording_that_cannot_be_written_leaves_the_older_file(tmp_path, monkeypatch):
    AttentionMaps([recording()]).save(tmp_path / "m.npz")
    before = (tmp_path / "m.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        AttentionMaps([recording(seed=5)]).save(tmp_path / "m.npz")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("m.npz", before)]


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_another_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "other.npz"
    if content is None:
        np.savez(path, header=np.array(json.dumps({"version": 99})))
    else:
        path.write_bytes(content)
    with pytest.raises(RealCompoError, match="other.npz holds no attention maps"):
        AttentionMaps.load(path)


LAYERS = [Layer(f"block.{depth}", "block", "decoder", 0, depth, 1, 3) for depth in range(2)]
SIZE = (3, 5)


def event(layer, q, k, conditioning="positive", scale=8**-0.5):
    return AttentionEvent(layer, conditioning, q, k, scale, slice(0, k.shape[2]), SIZE, "step")


def test_recorder_averages_the_layers_of_a_block_and_replaces_a_step():
    recorder = Recorder("model", Keep("all"), {"positive": None})
    recorder.begin(LAYERS, SIZE, 12, 2, 4)
    q, k = random(4, 2, 3, 15, 8), random(4, 2, 3, 12, 8, seed=1)
    for first, level in ((2, 9.0), (0, 8.0)):
        for i, layer in enumerate(LAYERS):
            recorder.read(event(layer, q[first + i], k[first + i]))
        recorder.end_pass(0, level)
    wanted = torch.softmax(q[:2] @ k[:2].mT * 8**-0.5, -1).mean((0, 2)).mT.unflatten(-1, SIZE)
    (found,) = recorder.branch.maps.values()
    torch.testing.assert_close(found[:, 0].float(), wanted, atol=1e-3, rtol=1e-3)
    assert recorder.branch.noise_levels == {0: 8.0}
    recorder.begin(LAYERS, SIZE, 12, 2, 4)
    assert not recorder.branch.maps


def test_recorder_honours_a_layers_scale_and_reads_the_texts_keys_alone():
    recorder = Recorder("model", Keep("all"), {"positive": None})
    recorder.begin(LAYERS[:1], SIZE, 7, 2, 1)
    q, k = random(2, 3, 15, 8), random(2, 3, 12, 8, seed=1)
    recorder.read(AttentionEvent(LAYERS[0], "positive", q, k, 0.1, slice(0, 7), SIZE, "step"))
    recorder.end_pass(0, 1.0)
    (found,) = recorder.branch.maps.values()
    wanted = torch.softmax(q @ k[:, :, :7].mT * 0.1, -1).mean(1).mT.unflatten(-1, SIZE)
    torch.testing.assert_close(found[:, 0].float(), wanted, atol=1e-3, rtol=1e-3)


def test_a_conditioning_of_which_a_layer_is_missing_is_left_out():
    """A pass that skips layers would otherwise be a step with maps of some layers alone."""
    recorder = Recorder("model", Keep("all"), {"positive": None, "negative": None})
    recorder.begin(LAYERS, SIZE, 12, 2, 1)
    q, k = random(2, 3, 15, 8), random(2, 3, 12, 8, seed=1)
    for layer in LAYERS:
        recorder.read(event(layer, q, k, "positive"))
    recorder.read(event(LAYERS[0], q, k, "negative"))
    recorder.end_pass(0, 1.0)
    assert recorder.branch.conditionings == ["positive"] and recorder.branch.steps == [0]


@pytest.mark.parametrize("layers, names", [("blocks", ["block"]), ("layers", ["block.0", "block.1"])])
def test_a_recording_names_blocks_or_layers(layers, names):
    recorder = Recorder("model", Keep("all", layers), {"positive": None})
    encoder = Layer("other.0", "other", "encoder", 0, 0, 2, 3)
    assert recorder.kept([encoder, *LAYERS]) == [encoder, *LAYERS]
    recorder.begin(LAYERS, SIZE, 12, 2, 1)
    assert [layer.name for layer in recorder.branch.layers] == names
    assert Recorder("model", Keep(layers="decoder"), {}).kept([encoder, *LAYERS]) == LAYERS


def test_maps_of_a_step_that_a_conditioning_or_layer_has_not_are_refused_by_name():
    branch = recording()
    branch.words["negative"] = branch.words["positive"]
    branch.maps["negative", "fine", 0] = branch.maps["positive", "fine", 0]
    with pytest.raises(RealCompoError, match="step 2 of branch model was not recorded.*there is: 0"):
        branch.token_maps("negative", step=2)
    with pytest.raises(RealCompoError, match="layer 'coarse' of branch model was not recorded"):
        branch.token_maps("negative", layer="coarse")
    del branch.maps["positive", "coarse", 2]
    with pytest.raises(RealCompoError, match="layer 'coarse' of branch model was not recorded at step 2"):
        branch.token_maps("positive", layer="coarse", step=2)


def test_fewer_tokens_than_the_prompt_has_are_another_prompt():
    recorder = Recorder("model", Keep(), {"positive": PROMPT})
    recorder.begin(LAYERS, SIZE, 12, 2, 1)
    with pytest.raises(RealCompoError, match="positive prompt of the recording has 12 tokens, and the model reads 10"):
        recorder.read(event(LAYERS[0], random(2, 3, 15, 8), random(2, 3, 10, 8)))


# metrics


def test_share_and_concentration_by_hand():
    maps = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    region = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(share_inside(maps, region), torch.tensor([1.0, 0.375, 0.75]))
    torch.testing.assert_close(concentration(maps), torch.tensor([1.0, 0.0, 0.5]))
    assert share_inside(torch.zeros(2, 2), region) == 0
    assert attention_iou(maps[2], region).item() == pytest.approx(0.5)


def test_table_has_a_row_for_each_object_layer_and_step():
    """A map that is all in the left half of the fine layer, even in the coarse one."""
    layout = Layout(
        (LayoutObject("a cat", (0.0, 0.0, 0.5, 1.0)), LayoutObject("something red", (0.5, 0.0, 1.0, 1.0))),
        prompt="a cat and something red",
    )
    branch = recording(batch=1)
    for (_, layer, _), value in branch.maps.items():
        value[:, :, 1:3] = 0.25
        if layer == "fine":
            value[:, :, 1:3, :, 6:] = 0
    rows = layout_table(AttentionMaps([branch], layout), layers=True, steps=True)
    assert len(rows) == 2 * 3 * 3
    cats = {(row.layer, row.step): row for row in rows if row.label == "a cat"}
    assert cats["fine", 2].share == 1 and cats["fine", "all"].iou == 1
    assert cats["coarse", 0].share == pytest.approx(0.5) and cats["coarse", 0].area == 0.5
    assert cats["coarse", 0].concentration == pytest.approx(0, abs=1e-6)
    assert cats["fine", 0].concentration == pytest.approx(1 - math.log(48) / math.log(96), abs=1e-6)
    lines = as_csv(rows).splitlines()
    assert lines[0] == "branch,item,label,layer,step,share,area,iou,concentration" and len(lines) == 19


def test_objects_that_share_words_are_one_target_with_both_regions():
    words = [WordColumns("two", (0,)), WordColumns("red", (1,)), WordColumns("cats", (2,))]
    branch = recording(batch=1)
    branch.words = {"positive": words}
    layout = Layout(
        (LayoutObject("red cat", (0.0, 0.0, 0.25, 1.0)), LayoutObject("red cat", (0.75, 0.0, 1.0, 1.0))),
        prompt="two red cats",
    )
    (target,) = layout_targets(branch, layout)
    assert set(target.word.columns) >= {1, 2} and target.region(4, 4)[0].tolist() == [1, 0, 0, 1]


def test_masks_are_averaged_to_the_maps():
    mask = torch.zeros(16, 24)
    mask[:, :12] = 1
    branch = recording(batch=1)
    (row,) = grounding_table(branch, [[mask_target(branch, "cat", mask)]])
    own = branch.word_maps([branch.find("cat")])[0, 0]
    assert row.area == 0.5 and row.share == pytest.approx(float(own[:, :6].sum() / own.sum()))


# drawing


def test_colours_go_through_their_stops():
    ends = colorize(np.array([[0.0, 0.5, 1.0]]), DIVERGING)[0]
    assert [tuple(color) for color in ends] == [(84, 39, 136), (247, 247, 247), (179, 88, 6)]
    assert all(len(colors) > 1 for colors in PALETTES.values())


def test_sheets_and_pictures_along_each_axis():
    maps = AttentionMaps([recording("apart"), recording(name="spatial", seed=3)])
    photo = Image.new("RGB", (120, 80), (0, 0, 255))
    for axis, columns in (("words", 1), ("layers", 2), ("steps", 2), ("heads", 4), ("branches", 3)):
        shown = select(maps, axis, ["red", "cat"], View())[1]
        assert shown.maps.shape[:2] == (2, columns) and len(shown.columns) == columns, axis
        rows = pictures(shown, photo, View(), 120)
        assert [len(row) for row in rows] == [columns] * 2 and rows[0][0].size == (120, 80)
        assert sheet(shown, photo, View()).size[0] > 100
    difference = select(maps, "branches", ["red"], View())[0].maps[0]
    torch.testing.assert_close(difference[2], difference[1] - difference[0])
    assert np.asarray(pictures(shown, photo, View(opacity=0.0), 120)[0][0]).reshape(-1, 3).max(0).tolist() == [
        0,
        0,
        255,
    ]


def test_normalised_together_a_weaker_map_is_darker():
    branch = recording(batch=1)
    for value in branch.maps.values():
        value[:, :, 0] = 0.5
        value[:, :, 1:3] = 0.1
    shown = select(AttentionMaps([branch]), "words", ["red", "cat"], View())[0]
    gray = View(palette="gray")
    each, together = (pictures(shown, None, gray._replace(normalise=kind)) for kind in ("each", "together"))
    assert np.asarray(each[0][0]).max() == np.asarray(each[1][0]).max() == 255
    assert np.asarray(together[1][0]).max() == 51


def test_masks_are_where_a_map_reaches_its_threshold():
    maps = torch.tensor([[[0.0, 0.1], [0.39, 1.0]]])
    assert threshold_mask(maps, 0.4, (2, 2)).tolist() == [[[0, 0], [0, 1]]]
    assert threshold_mask(maps[None].expand(2, 3, 2, 2), 0.4, (4, 4)).shape == (2, 3, 4, 4)


def test_an_axis_that_is_not_there_is_refused():
    maps = AttentionMaps([recording()])
    with pytest.raises(RealCompoError, match="axis 'time'"):
        select(maps, "time", [], View())
