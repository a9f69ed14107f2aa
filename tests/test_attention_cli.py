"""`realcompo attention`, with the bundled model and with tiny ones in folders."""

import csv
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from realcompo_cli.main import Axis, app, attention
from realcompo_core.attention.drawing import AXES, CELL, GAP, LABEL, View, select, sheet
from realcompo_core.attention.maps import AttentionMaps
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.palettes import PALETTES

PROMPT = "a red circle to the left of a blue square"


def run(*arguments):
    return CliRunner().invoke(app, ["attention", *map(str, arguments)], env={"COLUMNS": "1000"})


def made(folder, *arguments) -> Path:
    """The folder that the command filled."""
    result = run(*arguments, "--device", "cpu", "--output", folder)
    assert result.exit_code == 0, result.output
    assert all(str(path) in result.output for path in folder.iterdir())
    return folder


def refusal(tmp_path, monkeypatch, *arguments) -> str:
    """What the panel says; nothing may be drawn or written."""
    monkeypatch.setattr("realcompo_cli.attention.sample", lambda *args: pytest.fail("it began to sample"))
    result = run(*arguments, "--device", "cpu", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    assert not (tmp_path / "out").exists()
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def table(folder) -> list[dict]:
    with (folder / "grounding.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def box_of(picture: Image.Image, channel: int) -> tuple[float, ...]:
    """Where one channel is brighter than the others by far, in 0..1."""
    pixels = np.asarray(picture, dtype=int)
    rows, columns = np.nonzero(pixels[..., channel] > 80 + np.delete(pixels, channel, -1).max(-1))
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return tuple(float(edge / len(pixels)) for edge in edges)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_pipelines):
    """Tiny models as diffusers folders, by name."""
    parent = tmp_path_factory.mktemp("models")
    for name, pipeline in vars(tiny_pipelines).items():
        pipeline.save_pretrained(parent / name)
    return parent


def test_every_axis_has_its_sheet(tmp_path):
    of_one = [axis for axis in Axis if axis is not Axis.branches]
    axes = [part for axis in of_one for part in ("--axis", axis.value)]
    folder = made(tmp_path, PROMPT, "--words", "red circle, blue square", *axes, "--steps", 4, "--every", 2)
    names = {f"attention_{axis.value}.png" for axis in of_one} | {"picture.png", "attention.npz"}
    assert {path.name for path in folder.iterdir()} == names
    assert Image.open(folder / "picture.png").size == (128, 128)
    rows = {"words": 1, "layers": 2, "steps": 2, "heads": 2}
    columns = {"words": 2, "layers": 7, "steps": 2, "heads": 4}
    for axis in of_one:
        size = GAP + columns[axis] * (CELL + GAP), GAP + rows[axis] * (CELL + LABEL + GAP)
        assert Image.open(folder / f"attention_{axis.value}.png").size == size, axis
    branch = AttentionMaps.load(folder / "attention.npz").branch()
    assert (branch.steps, branch.heads, branch.conditionings) == ([0, 2], 4, ["negative", "positive"])


def test_sheets_are_those_of_the_recording(tmp_path):
    folder = made(tmp_path, PROMPT, "--steps", 3, "--axis", "words", "--axis", "layers", "--palette", "turbo")
    maps, picture = AttentionMaps.load(folder / "attention.npz"), Image.open(folder / "picture.png")
    view = View(palette="turbo")
    for axis in ("words", "layers"):
        (shown,) = select(maps, axis, [], view)
        expected = sheet(shown, picture, view)
        assert np.array_equal(np.asarray(Image.open(folder / f"attention_{axis}.png")), np.asarray(expected)), axis


def test_table_says_that_attention_falls_on_its_objects(tmp_path):
    """Boxes are read off the picture, which a second run with them draws again."""
    first = made(tmp_path / "first", PROMPT)
    picture = Image.open(first / "picture.png")
    boxes = {"a red circle": box_of(picture, 0), "a blue square": box_of(picture, 2)}
    layout = tmp_path / "layout.json"
    objects = tuple(LayoutObject(phrase, box) for phrase, box in boxes.items())
    layout.write_text(Layout(objects, prompt=PROMPT).to_json(), encoding="utf-8")
    second = made(tmp_path / "second", PROMPT, "--layout", layout, "--axis", "steps")
    assert (second / "picture.png").read_bytes() == (first / "picture.png").read_bytes()
    assert not (first / "grounding.csv").exists()
    rows = table(second)
    assert len(rows) == 2 * (1 + 12) and {row["layer"] for row in rows} == {"all"}
    for row in rows:
        x0, y0, x1, y1 = boxes[row["label"]]
        assert float(row["area"]) == pytest.approx((x1 - x0) * (y1 - y0), abs=2e-4)
        if row["step"] == "all":
            assert 2 * float(row["area"]) < float(row["share"]) < 1 and float(row["iou"]) > 0.3
    assert AttentionMaps.load(second / "attention.npz").layout.to_json() == layout.read_text(encoding="utf-8")


def test_swapped_boxes_hold_less_attention(tmp_path):
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    means = {}
    for name, boxes in (("as drawn", (left, right)), ("swapped", (right, left))):
        layout = tmp_path / f"{name}.json"
        objects = map(LayoutObject, ("a red circle", "a blue square"), boxes)
        layout.write_text(Layout(tuple(objects), prompt=PROMPT).to_json(), encoding="utf-8")
        # With this seed each shape is in its own half of the picture.
        folder = made(tmp_path / name, PROMPT, "--layout", layout, "--seed", 10)
        rows = table(folder)
        assert len(rows) == 2
        means[name] = [float(row["share"]) for row in rows]
    assert all(drawn > 0.5 > swapped for drawn, swapped in zip(means["as drawn"], means["swapped"], strict=True))
    assert np.add(means["as drawn"], means["swapped"]) == pytest.approx(1, abs=2e-4)


def test_two_models_side_by_side(tmp_path):
    """The same seed and prompt: the first model's picture is the one that it draws alone."""
    layout = tmp_path / "layout.json"
    boxes = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    objects = tuple(map(LayoutObject, ("a red circle", "a blue square"), boxes))
    layout.write_text(Layout(objects, prompt=PROMPT).to_json(), encoding="utf-8")
    options = PROMPT, "--steps", 4, "--layout", layout
    alone, folder = made(tmp_path / "alone", *options), tmp_path / "two"
    result = run(*options, "--compare", "tokencompose", "--device", "cpu", "--output", folder)
    assert result.exit_code == 0, result.output
    names = {"picture_text_to_image.png", "picture_tokencompose.png", "attention_branches.png", "attention.npz"}
    assert {path.name for path in folder.iterdir()} == names | {"grounding.csv", "differences.csv"}
    assert (folder / "picture_text_to_image.png").read_bytes() == (alone / "picture.png").read_bytes()
    rows = {(row["branch"], row["label"]): row for row in table(folder)}
    with (folder / "differences.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            own, other = (rows[name, row["label"]] for name in ("tokencompose", "text_to_image"))
            assert float(row["share"]) == pytest.approx(float(own["share"]) - float(other["share"]), abs=2e-4)
            assert float(row["area"]) == float(own["area"])
    shares = [np.mean([float(row["share"]) for key, row in rows.items() if key[0] == name]) for name in names_of(rows)]
    told = re.search(r"share of attention inside: text_to_image (\S+), tokencompose (\S+) \((\S+)\)", said(result))
    assert [float(number) for number in told.groups()[:2]] == pytest.approx(shares, abs=2e-3)
    assert float(told[3]) == pytest.approx(shares[1] - shares[0], abs=2e-3)


def said(result) -> str:
    """What the terminal shows, without its line breaks."""
    return " ".join(result.output.split())


def names_of(rows: dict) -> list[str]:
    return list(dict.fromkeys(branch for branch, _ in rows))


def test_where_a_model_looks_in_a_picture(tmp_path):
    drawn = made(tmp_path / "drawn", PROMPT, "--size", "192x128")
    options = "--picture", drawn / "picture.png", "--steps", 5
    result = run(PROMPT, *options, "--size", "192x128", "--device", "cpu", "--output", tmp_path / "again")
    assert result.exit_code == 0, result.output
    picture, again = (Image.open(tmp_path / name / "picture.png") for name in ("drawn", "again"))
    assert again.size == (192, 128)
    error = np.square(np.asarray(picture, float) - np.asarray(again, float)).mean()
    told, best = map(float, re.search(r"PSNR of (\S+) dB; by the autoencoder alone (\S+) dB", said(result)).groups())
    assert told == pytest.approx(10 * np.log10(255**2 / error), abs=0.06) and 20 < told < best + 1
    assert AttentionMaps.load(tmp_path / "again" / "attention.npz").branch().steps == list(range(5))
    unguided = made(tmp_path / "unguided", PROMPT, *options, "--cfg", 1, "--compare", "tokencompose")
    assert Image.open(unguided / "picture_tokencompose.png").size == (128, 128)


def test_a_unet_folder_is_compared(tmp_path, folders):
    model = folders / "fidelity"
    options = "a red circle", "--model", model, "--steps", 2, "--words", "circle"
    folder = made(tmp_path, *options, "--compare", model / "unet")
    (one, other) = AttentionMaps.load(folder / "attention.npz").recorded
    assert (one.name, other.name) == ("fidelity", "unet")
    assert all((other.maps[key] == value).all() for key, value in one.maps.items())


def test_what_cannot_be_compared_or_drawn_again(tmp_path, monkeypatch, folders):
    assert "--compare nowhere" in refusal(tmp_path, monkeypatch, PROMPT, "--compare", "nowhere")
    assert "--compare" in refusal(tmp_path, monkeypatch, PROMPT, "--axis", "branches")
    other = "a red circle", "--model", folders / "fidelity", "--compare", folders / "sdxl" / "unet"
    assert "another family" in refusal(tmp_path, monkeypatch, *other)
    own = tmp_path / "own.png"
    Image.new("RGB", (8, 8)).save(own)
    assert "--seed 4 has no meaning" in refusal(tmp_path, monkeypatch, PROMPT, "--picture", own, "--seed", 4)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    message = refusal(tmp_path, monkeypatch, PROMPT, "--picture", text)
    assert "--picture" in message and "cannot be read as a picture" in message


def test_without_guidance_there_is_one_conditioning(tmp_path, monkeypatch):
    folder = made(tmp_path / "made", PROMPT, "--cfg", 1, "--steps", 2)
    assert AttentionMaps.load(folder / "attention.npz").branch().conditionings == ["positive"]
    message = refusal(tmp_path, monkeypatch, PROMPT, "--cfg", 1, "--conditioning", "negative")
    assert "no negative conditioning without guidance (--cfg 1)" in message


def test_words_of_the_negative_prompt(tmp_path):
    options = "--negative", "two stars", "--conditioning", "negative", "--words", "stars", "--steps", 2
    folder = made(tmp_path, PROMPT, *options, "--layers", "decoder", "--size", "192x128")
    branch = AttentionMaps.load(folder / "attention.npz").branch()
    assert [word.text for word in branch.words["negative"]] == ["<start>", "two", "stars", "<end>"]
    assert [layer.name for layer in branch.kept_layers] == ["mid", "up 0.0", "up 0.1", "up 1.0", "up 1.1"]
    assert Image.open(folder / "picture.png").size == (192, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--words", "red circle, cat"),
            "'cat' is not in the positive prompt of branch model. Its words: <start>, a, red",
        ),
        (("--words", "red", "--conditioning", "negative"), "'red' is not in the negative prompt"),
        (("--axis", "heads", "--heads", "averaged"), "--axis heads has nothing to show with --heads averaged"),
        (("--size", "128x100"), "size 128x100 is not divisible by 8"),
        (("--negative", "a dog"), "the bundled model does not know 'dog'. It knows: a, above"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_sampling(tmp_path, monkeypatch, options, message):
    assert message in refusal(tmp_path, monkeypatch, PROMPT, *options)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ((), "the layout has no objects to measure against"),
        ((LayoutObject("a green star", (0.0, 0.0, 0.5, 0.5)),), "a green star"),
    ],
)
def test_a_layout_of_another_prompt_is_refused_before_sampling(tmp_path, monkeypatch, objects, message):
    layout = tmp_path / "layout.json"
    layout.write_text(Layout(objects).to_json(), encoding="utf-8")
    assert message in refusal(tmp_path, monkeypatch, PROMPT, "--layout", layout)


def test_an_axis_that_there_is_not():
    result = run(PROMPT, "--axis", "colours")
    assert result.exit_code == 2 and "'colours' is not one of 'words', 'layers', 'steps', 'heads'" in result.output


def test_options_are_those_of_the_drawing():
    assert get_args(get_type_hints(attention)["palette"]) == tuple(PALETTES)
    assert {axis.value for axis in Axis} == set(AXES)


@pytest.mark.parametrize("model", ["fidelity", "sdxl"])
def test_own_models(tmp_path, folders, model):
    """They have no vocabulary to keep to: "cat" falls apart into letters, and is one word all the same."""
    options = "--model", folders / model, "--steps", 2, "--cfg", 5, "--words", "red cat", "--layers", "layers"
    folder = made(tmp_path, "a red cat", *options, "--axis", "layers", "--heads", "apart")
    branch = AttentionMaps.load(folder / "attention.npz").branch()
    words = {word.text: word.columns for word in branch.words["positive"]}
    assert list(words) == ["<start>", "a", "red", "cat", "<end>"] and len(words["cat"]) > 1
    assert {maps.shape[1] for maps in branch.maps.values()} == {4}
    assert Image.open(folder / "picture.png").size == (128, 128)
    columns = len(branch.kept_layers)
    assert Image.open(folder / "attention_layers.png").size[0] == GAP + columns * (CELL + GAP)


def test_another_kind_of_model_is_refused(tmp_path, folders, monkeypatch):
    message = refusal(tmp_path, monkeypatch, "a cat", "--model", folders / "gligen")
    assert "is a StableDiffusionGLIGENPipeline" in message and "text-to-image" in message


def test_heads_of_unlike_numbers_are_set_side_by_side(tmp_path, monkeypatch, tiny_pipelines):
    """A head that some layers lack is that of the others."""
    monkeypatch.setattr("realcompo_cli.attention.pipelines", lambda: (tiny_pipelines.fidelity, None))
    last = tiny_pipelines.fidelity.unet.up_blocks[-1].attentions[-1].transformer_blocks[0].attn2
    monkeypatch.setattr(last, "heads", 2)
    folder = made(tmp_path, PROMPT, "--axis", "heads", "--steps", 2)
    assert {maps.shape[1] for maps in AttentionMaps.load(folder / "attention.npz").branch().maps.values()} == {2, 4}
    assert Image.open(folder / "attention_heads.png").size[0] == GAP + 4 * (CELL + GAP)


def test_a_device_that_is_not_there(tmp_path):
    result = run(PROMPT, "--device", "warp", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "cannot use device 'warp'" in result.output
