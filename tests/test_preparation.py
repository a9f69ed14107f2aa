"""Images and captions to a training set: stages, resumption, masks of every kind, bad files."""

import json

import numpy as np
import pytest
from PIL import Image
from training_set import rectangle, save

from realcompo_core.errors import RealCompoError
from tokencompose_core.formats import open_records
from tokencompose_core.pictures import read_image, read_mask
from tokencompose_core.preparation import MaskFolder, first_caption, prepare, read_pictures
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
    path, told = told_by(images, tmp_path / "set")
    assert [json.loads(line)["file_name"] for line in path.read_text().splitlines()] == ["a.png", "c.png"]
    assert told == [
        "b.png: undecodable image: b.png (10 bytes): none of BMP, GIF, JPEG, PNG, TIFF, WEBP: left out",
        "2 of 3 images, 2 of 3 nouns with a mask",
    ]
    again, told_again = told_by(images, tmp_path / "set")
    assert again.read_text() == path.read_text() and told_again == told


def told_by(images, output, **options):
    """The path of the metadata, and what was told."""
    told = []
    return made(images, output, tell=told.append, **options), told


def masked(path):
    """For each image its nouns with masks, read as training reads them."""
    return [
        {noun: read_mask(record, i, read_image(record).size) for i, (noun, mask) in enumerate(record.nouns) if mask}
        for record in open_records(path.parent)
    ]


LABELS = rectangle((20, 12), (2, 2, 8, 8), value=8).convert("L")
LABELS.paste(255, (8, 2, 9, 8))  # the contour, as PASCAL VOC has it
VOC = Image.fromarray(np.asarray(LABELS), "L").convert("P", palette=Image.Palette.ADAPTIVE)
VOC.putdata(list(np.asarray(LABELS).flatten()))
VOC.putpalette([0] * 24 + [64, 0, 0] + [0] * (255 * 3 - 27) + [224, 224, 192])
INSIDE = rectangle((20, 12), (2, 2, 8, 8))


@pytest.mark.parametrize(
    ("file", "mask"),
    [
        ("cat.png", INSIDE),
        ("cat.png", Image.merge("RGBA", [Image.new("L", (20, 12), 255)] * 3 + [INSIDE])),
        ("cat.png", rectangle((20, 12), (2, 2, 8, 8), value=1)),
        ("cat.png", Image.fromarray((np.asarray(INSIDE) // 255).astype(np.uint16))),
        ("cat.png", VOC),
        ("cat.bmp", INSIDE),
        ("Cat.png", INSIDE),
        ("CAT.PNG", INSIDE),
    ],
    ids=["white", "cut out", "0 and 1", "low 16 bits", "VOC's palette", "bmp", "Cat.png", "CAT.PNG"],
)
def test_masks_are_read_as_training_reads_them(images, tmp_path, file, mask):
    """An RGBA mask marked the whole picture; the others were null, and nobody said so."""
    save(mask, tmp_path / "masks" / "a" / file)
    path, told = told_by(images, tmp_path / "set", masks=MaskFolder(tmp_path / "masks"))
    assert masked(path)[0].keys() == {"cat"} and told == ["3 of 3 images, 1 of 5 nouns with a mask"]
    assert (masked(path)[0]["cat"] == (np.asarray(INSIDE) > 0)).all()


def test_masks_of_phrases_and_several_of_one_noun_are_used(images, tmp_path):
    (images / "a.txt").write_text("a Red ball on a mat")
    upper, lower = rectangle((20, 12), (0, 0, 20, 4)), rectangle((20, 12), (0, 8, 20, 12))
    for file, mask in (("red_ball.png", upper), ("mat.png", upper), ("mat.jpg", lower)):
        save(mask, tmp_path / "masks" / "a" / file)

    def words(caption):  # "Red" is an adjective
        return [word._replace(is_noun=word.is_noun and caption[word.start] != "R") for word in tagger(caption)]

    path = prepare(
        read_pictures(images), images, tmp_path / "set", first_caption, words, MaskFolder(tmp_path / "masks")
    )
    record = open_records(tmp_path / "set")[0]
    assert [noun for noun, mask in record.nouns if mask] == ["mat", "mat", "red ball"] and record.nouns[
        0
    ].noun == "ball"
    found = [np.asarray(Image.open(path.parent / mask.name)).any(1) for _, mask in record.nouns if mask]
    assert [rows.nonzero()[0][0] for rows in found] == [8, 0, 0]


def test_masks_that_cannot_be_used_are_listed_and_the_rest_goes_on(images, tmp_path):
    """A mask of a wrong size aborted everything; an undecodable one said that the disk was full."""
    masks = tmp_path / "masks"
    for file, mask in (
        ("a/cat.png", rectangle((12, 12), (1, 1, 3, 3))),
        ("a/zebra.png", INSIDE),
        ("b/cat.png", rectangle((20, 12), value=0)),
        ("b/b.png", INSIDE),
        ("z/cat.png", INSIDE),
        ("cat.png", INSIDE),
    ):
        save(mask, masks / file)
    (masks / "c").mkdir()
    (masks / "c" / "cat.png").write_bytes(b"no picture")
    (masks / "c" / "cat.npy").write_bytes(b"numbers")
    expected = [
        "a.png: mask of another size: a/cat.png is 12 × 12, the image is 20 × 12: left out",
        "a.png: noun not in the caption: 'zebra' of a/zebra.png is not in 'a cat on a': left out",
        "b.png: empty mask: b/cat.png marks no pixel for 'cat': left out",
        "c.png: undecodable image: c/cat.png (10 bytes): none of BMP, GIF, JPEG, PNG, TIFF, WEBP: left out",
        "c/cat.npy: none of .png, .bmp, .gif, .jpg, .jpeg, .tif, .tiff, .webp: left out",
        "cat.png: its place is not NAME/NOUN.png: left out",
        "z/cat.png: the set has no image z: left out",
        "3 of 3 images, 1 of 5 nouns with a mask",
    ]
    for _ in range(2):  # what was found before is told again
        path, told = told_by(images, tmp_path / "set", masks=MaskFolder(masks))
        assert told == expected
    assert [list(nouns) for nouns in masked(path)] == [[], ["b"], []]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_of_the_stored_pixels_are_turned_with_their_image(images, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shape = rectangle((20, 12), (2, 2, 8, 5))
    shape.convert("RGB").save(images / "a.png", exif=exif)
    save(shape, tmp_path / "masks" / "a" / "cat.png")
    path, told = told_by(images, tmp_path / "set", masks=MaskFolder(tmp_path / "masks"))
    (mask,) = masked(path)[0].values()
    assert mask.shape == (20, 12) and len(told) == 1
    assert (mask == (np.asarray(read_image(open_records(tmp_path / "set")[0]))[..., 0] > 0)).all()


def test_what_was_mended_is_done_again_and_nothing_else(images, tmp_path):
    masks = tmp_path / "masks"
    for name in "ab":
        save(rectangle((20, 12), (0, 0, 4, 4)), masks / name / "cat.png")
    (images / "c.png").write_bytes(b"no picture")
    asked = []

    def choose(image, captions):
        asked.append(len(captions))
        return 0

    def run():
        asked.clear()
        path, _ = told_by(images, tmp_path / "set", choose=choose, masks=MaskFolder(masks))
        return masked(path), [record.caption for record in open_records(path.parent)]

    run()
    save(INSIDE, masks / "a" / "cat.png")
    found, _ = run()
    assert (found[0]["cat"] == (np.asarray(INSIDE) > 0)).all() and asked == []
    (images / "b.txt").write_text("a mouse")
    found, captions = run()
    assert captions == ["a cat on a", "a mouse"] and not found[1] and asked == [1]
    Image.new("RGB", (12, 20), "blue").save(images / "a.png")
    Image.new("RGB", (20, 12), "blue").save(images / "c.png")
    found, captions = run()
    assert asked == [2, 2] and len(captions) == 3 and found[0] == {}  # of another size now
    assert Image.open(tmp_path / "set" / "a.png").size == (12, 20)
    (images / "a.png").unlink()
    assert run()[1] == ["a mouse", "a cat on c"] and asked == []


def test_other_models_do_not_take_what_was_found_before(images, tmp_path):
    class Masks:
        def __init__(self, identity):
            self.identity = identity

        def __call__(self, image, name, nouns):
            return [np.full((12, 20), self.identity == "large")] * len(nouns)

    assert masked(made(images, tmp_path / "set", masks=Masks("small")))[0] == {}
    assert masked(made(images, tmp_path / "set", masks=Masks("large")))[0].keys() == {"cat"}


def test_results_of_older_versions_are_made_again(images, tmp_path):
    path = made(images, tmp_path / "set")
    expected = path.read_text()
    stage = tmp_path / "set" / "stages" / "masks.jsonl"
    old = [json.loads(line) for line in stage.read_text().splitlines()]
    stage.write_text("".join(json.dumps({"file_name": e["file_name"], "attn_list": []}) + "\n" for e in old))
    assert made(images, tmp_path / "set").read_text() == expected


def test_images_that_are_left_out_before_the_stages_are_told(images, tmp_path):
    told = []
    (images / "b.txt").unlink()
    Image.new("RGB", (20, 12)).save(images / "a.webp")
    assert [picture.name for picture in read_pictures(images, tell=told.append)] == ["a.png", "c.png"]
    assert told[0].startswith("1 (b.png) of 4 images without a caption in ") and told[0].endswith(": left out")
    assert told[1:] == ["a.webp left out: its masks would have the names of a.png's. Rename it"]
    lines = tmp_path / "captions.jsonl"
    lines.write_text(
        "".join(
            f'{{"file_name": "{name}", "text": "{text}"}}\n'
            for name, text in [("a.png", "one"), ("q.png", "two"), ("c.png", " ")]
        )
    )
    told.clear()
    assert [picture.name for picture in read_pictures(images, lines, told.append)] == ["a.png"]
    assert told[0].startswith("3 (a.webp, b.png, c.png) of 4 images without a caption")
    assert told[1].startswith("1 (q.png) with captions in ")


def test_a_byte_order_mark_is_no_part_of_captions(images, tmp_path):
    (images / "a.txt").write_text("a cat\n", encoding="utf-8-sig")
    assert read_pictures(images)[0].captions == ("a cat",)
    lines = tmp_path / "captions.jsonl"
    lines.write_text('{"file_name": "a.png", "text": "one"}\n', encoding="utf-8-sig")
    assert read_pictures(images, lines)[0].captions == ("one",)
    (images / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DatasetError, match="a.txt cannot be read .*save it as UTF-8"):
        read_pictures(images)


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
