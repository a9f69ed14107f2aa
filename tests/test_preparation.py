"""Images and captions to a training set: stages, resumption, bad files."""

import json

import numpy as np
import pytest
from PIL import Image

from realcompo_core.errors import RealCompoError
from tokencompose_core.formats import open_records
from tokencompose_core.preparation import first_caption, masks_from_folder, prepare, read_pictures
from tokencompose_core.records import DatasetError
from tokencompose_core.taggers import TaggedWord


def tagger(caption):
    """Every word but "a" and "on" is a noun, so that no model is needed."""
    words, start = [], 0
    for word in caption.split():
        words.append(TaggedWord(start, start + len(word), word not in ("a", "on")))
        start += len(word) + 1
    return words


def make_masks(image, name, nouns):
    """The upper half for cats, nothing for others."""
    half = np.arange(image.height)[:, None] < image.height // 2
    return [np.broadcast_to(half, (image.height, image.width)) if noun == "cat" else None for noun in nouns]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 12), "red").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a cat on {name}\na dog\n")
    return folder


def made(images, output, choose=first_caption, masks=make_masks, **options):
    return prepare(read_pictures(images), images, output, choose, tagger, masks, **options)


def test_set_is_complete_and_can_be_read(images, tmp_path):
    path = made(images, tmp_path / "set")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "file_name": "a.png",
        "text": "a cat on a",
        "attn_list": [["cat", "seg/a/mask_a_cat.png"]],
    }
    assert lines[1]["attn_list"] == [["cat", "seg/b/mask_b_cat.png"], ["b", None]]
    records = open_records(tmp_path / "set")
    assert len(records) == 3
    mask = np.asarray(Image.open(tmp_path / "set" / lines[0]["attn_list"][0][1]))
    assert mask.shape == (12, 20) and mask[:6].all() and not mask[6:].any()
    assert (tmp_path / "set" / "a.png").exists()


def test_caption_is_the_chosen_one(images, tmp_path):
    path = made(images, tmp_path / "set", choose=lambda image, captions: captions.index("a dog"))
    assert json.loads(path.read_text().splitlines()[0])["text"] == "a dog"


def test_run_that_was_stopped_goes_on_behind_the_last_image(images, tmp_path):
    seen = []

    def stopped(image, name, nouns):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(name)
        return make_masks(image, name, nouns)

    with pytest.raises(KeyboardInterrupt):
        made(images, tmp_path / "set", masks=stopped)
    with (tmp_path / "set" / "stages" / "masks.jsonl").open("a") as file:
        file.write('{"file_name": "c.p')  # a line that a killed process did not finish
    assert not (tmp_path / "set" / "metadata.jsonl").exists()
    again = []
    made(images, tmp_path / "set", masks=lambda *given: again.append(given[1]) or make_masks(*given))
    made(images, tmp_path / "whole")
    assert seen == ["a.png", "b.png"] and again == ["c.png"]
    assert (tmp_path / "set" / "metadata.jsonl").read_text() == (tmp_path / "whole" / "metadata.jsonl").read_text()


def test_image_that_cannot_be_read_is_left_out_and_told(images, tmp_path):
    (images / "b.png").write_bytes(b"no picture")
    told = []
    path = made(images, tmp_path / "set", tell=told.append)
    assert [json.loads(line)["file_name"] for line in path.read_text().splitlines()] == ["a.png", "c.png"]
    assert len(told) == 1 and "b.png" in told[0]
    assert made(images, tmp_path / "set").read_text() == path.read_text()


def test_masks_that_the_user_has(images, tmp_path):
    folder = tmp_path / "masks"
    (folder / "a").mkdir(parents=True)
    Image.new("L", (20, 12), 255).save(folder / "a" / "cat.png")
    path = made(images, tmp_path / "set", masks=masks_from_folder(folder))
    first, second, _ = [json.loads(line)["attn_list"] for line in path.read_text().splitlines()]
    assert first[0][1] and second == [["cat", None], ["b", None]]
    Image.new("L", (10, 12), 255).save(folder / "a" / "cat.png")
    with pytest.raises(RealCompoError, match=r"cat.png is \(10, 12\), its image a.png is \(20, 12\)"):
        made(images, tmp_path / "other", masks=masks_from_folder(folder))


def test_other_images_do_not_continue_a_stage(images, tmp_path):
    made(images, tmp_path / "set")
    (images / "a.png").unlink()
    with pytest.raises(DatasetError, match="captions.jsonl is of other images"):
        made(images, tmp_path / "set")


def test_captions_from_files(images, tmp_path):
    lines = tmp_path / "captions.jsonl"
    lines.write_text('{"file_name": "a.png", "text": "one"}\n{"file_name": "a.png", "text": "two"}\n')
    assert [p.captions for p in read_pictures(images, lines)] == [("one", "two")]
    coco = tmp_path / "coco.json"
    entries = [{"image_id": 7, "caption": "three\n"}]
    coco.write_text(json.dumps({"images": [{"id": 7, "file_name": "b.png"}], "annotations": entries}))
    assert [(p.name, p.captions) for p in read_pictures(images, coco)] == [("b.png", ("three",))]


def test_captions_that_do_not_fit_are_named(images, tmp_path):
    bad = tmp_path / "captions.jsonl"
    bad.write_text("not json")
    with pytest.raises(DatasetError, match="captions.jsonl cannot be read"):
        read_pictures(images, bad)
    bad.write_text('{"file_name": "z.png", "text": "one"}\n')
    with pytest.raises(DatasetError, match="none of the 3 images"):
        read_pictures(images, bad)
    with pytest.raises(DatasetError, match="no folder with images"):
        read_pictures(tmp_path / "nowhere")


def test_full_disk_says_where_and_goes_on_later(images, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(RealCompoError, match="No space left.*goes on from here"):
            made(images, tmp_path / "set")
    assert made(images, tmp_path / "set").exists()
