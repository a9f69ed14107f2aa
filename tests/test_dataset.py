"""From records to training examples: crops, masks, tokens of nouns, and the order in which they come."""

import os
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from training_set import BOX, record, rectangle, save, write_metadata, write_set

from shapescenes import models
from tokencompose_core.dataset import (
    TokenComposeDataset,
    grounded_tokens,
    load_example,
)
from tokencompose_core.formats import FolderRecords, MetadataRecords
from tokencompose_core.nouns import noun_tokens
from tokencompose_core.order import EpochOrder
from tokencompose_core.pictures import crop_image, crop_mask, read_image, read_mask
from tokencompose_core.records import DatasetError, NounMask, Record, RecordError, Source

SIZE = (32, 32)
CAT = [("cat", rectangle())]


@pytest.fixture(scope="module")
def tokenizer():
    return models.tokenizer()


def png(picture, format="PNG", **options):
    data = BytesIO()
    picture.save(data, format, **options)
    return data.getvalue()


def example_record(caption="a cat", nouns=CAT, image=None):
    """A record in memory; a mask is a picture, bytes or None."""

    def source(name, content):
        return Source(name, data=content if isinstance(content, bytes) else png(content))

    masks = (NounMask(noun, None if mask is None else source(f"{noun}.png", mask)) for noun, mask in nouns)
    return Record(source("image", image or rectangle(mode="RGB")), caption, tuple(masks), "here:1")


def spelled(tokenizer, caption, indices):
    ids = tokenizer(caption)["input_ids"]
    return tokenizer.decode([ids[i] for i in indices]).strip()


# Crops


@pytest.mark.parametrize("size", [(64, 64), (96, 48), (40, 88), (300, 200)])
@pytest.mark.parametrize("source", [(123, 77), (77, 123), (100, 100), (640, 480), (50, 400), (400, 50)])
def test_crop_is_resizing_to_cover_and_cutting_out_the_middle(source, size):
    width, height = source
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    scale = max(size[0] / width, size[1] / height)
    cover = [max(s, int(side * scale + 1e-9)) for s, side in zip(size, source, strict=True)]
    left, top = (round((c - s) / 2) for c, s in zip(cover, size, strict=True))
    whole = noise.resize(cover, Image.Resampling.BILINEAR).crop((left, top, left + size[0], top + size[1]))
    expected = torch.from_numpy(np.array(whole)).permute(2, 0, 1) / 255 * 2 - 1
    found = crop_image(noise, size)
    assert found.shape == (3, size[1], size[0])
    assert (found - expected).abs().max() <= 1.01 / 127.5  # rounding between the two directions of the resize


@pytest.mark.parametrize("size", [(64, 64), (96, 48), (40, 88), (256, 256)])
@pytest.mark.parametrize("source", [(123, 77), (77, 123), (640, 480), (480, 641)])
@pytest.mark.parametrize("seed", range(4))
def test_masks_stay_on_their_objects(source, size, seed):
    """The picture shows its own mask: inside of the crop's mask is what is not black."""
    draw = random.Random(seed)
    left, right = sorted(draw.sample(range(source[0] + 1), 2))
    top, bottom = sorted(draw.sample(range(source[1] + 1), 2))
    shape = rectangle(source, (left, top, right, bottom))
    mask = crop_mask(np.asarray(shape) > 0, size)
    lit = crop_image(shape.convert("RGB"), size)[0] > -1
    assert mask.dtype == torch.bool and mask.shape == size[::-1]
    assert torch.equal(mask, lit)


def test_an_image_of_the_size_itself_is_taken_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    found = crop_image(Image.fromarray(noise), (64, 48))
    assert torch.equal(((found + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(noise))
    assert found.min() == -1 and found.max() == 1


def test_a_very_long_picture_needs_no_more_memory_than_its_crop():
    line = Image.new("RGB", (60_000, 1), "white")  # resized to cover, it would be 46 gigabytes
    assert (crop_image(line, (512, 512)) == 1).all()


# Masks


@pytest.mark.parametrize(
    "mask",
    [
        rectangle(mode="1"),
        rectangle(value=1),
        rectangle(value=200),
        rectangle(mode="RGB"),
        rectangle(mode="RGBA"),  # as the official release saves them
        rectangle(mode="P"),
        Image.fromarray(np.asarray(rectangle()).astype(np.uint16) * 257),
        Image.merge("RGB", [rectangle(value=0), rectangle(value=0), rectangle(value=90)]),
        Image.merge("LA", [rectangle(value=255, box=(0, 0, 80, 60)), rectangle()]),  # cut out
    ],
    ids=lambda mask: mask.mode,
)
def test_masks_of_every_mode(mask):
    found = read_mask(example_record(nouns=[("cat", mask)]), 0, (80, 60))
    left, top, right, bottom = BOX
    expected = np.zeros((60, 80), bool)
    expected[top:bottom, left:right] = True
    assert found.dtype == bool and (found == expected).all()


@pytest.mark.parametrize("colour", [(128, 0, 0), (64, 0, 0), (192, 128, 128)])
def test_masks_in_the_colours_of_pascal_voc(colour):
    """Its contours are brighter than most of its classes, and belong to none."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 20:50] = 255
    labels[12:38, 22:48] = 1
    mask = Image.fromarray(labels)
    mask.putpalette([0, 0, 0, *colour, *[0] * 253 * 3, 224, 224, 192])
    assert (read_mask(example_record(nouns=[("cat", mask)]), 0, (80, 60)) == (labels == 1)).all()


def test_compression_noise_is_outside():
    noisy = np.asarray(rectangle()) // 255 * 220 + np.random.default_rng(0).integers(0, 30, (60, 80), dtype=np.uint8)
    found = read_mask(example_record(nouns=[("cat", Image.fromarray(noisy.astype(np.uint8)))]), 0, None)
    assert (found == (np.asarray(rectangle()) > 0)).all()


@pytest.mark.parametrize(
    ("mask", "kind", "said"),
    [
        (rectangle((60, 80)), "mask of another size", "60 × 80, the image is 80 × 60"),
        (rectangle(value=0), "empty mask", "'cat'"),
        (b"no picture", "undecodable image", "cat.png (10 bytes)"),
        (b"", "undecodable image", "cat.png (0 bytes)"),
        (png(rectangle())[:60], "undecodable image", "cat.png"),
    ],
)
def test_a_bad_mask_is_named_with_its_noun(mask, kind, said):
    with pytest.raises(RecordError) as error:
        read_mask(example_record(nouns=[("dog", None), ("cat", mask)]), 1, (80, 60))
    assert (error.value.kind, error.value.noun, error.value.where) == (kind, 1, "here:1")
    assert said in str(error.value)


def test_image_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    shown = rectangle(mode="RGB")
    stored = shown.transpose(Image.Transpose.ROTATE_90)
    found = read_image(example_record(image=png(stored, exif=exif)))
    assert found.size == (80, 60) and (np.asarray(found) == np.asarray(shown)).all()


def test_postscript_is_not_run():
    code = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    Image.open(BytesIO(code))  # it would be taken for a picture
    with pytest.raises(RecordError, match="undecodable image: .* none of BMP, GIF, JPEG, PNG, TIFF, WEBP"):
        read_image(example_record(image=code))


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RecordError, match="undecodable image: image .*4800 pixels"):
        read_image(example_record(image=rectangle(mode="RGB")))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no device files")
@pytest.mark.parametrize("name", ["a.png", "a.txt"])
def test_a_link_to_a_device_is_refused(tmp_path, name):
    """/dev/null here, and /dev/zero, which has no end, alike."""
    (tmp_path / "a.png").write_bytes(png(rectangle(mode="RGB")))
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(os.devnull)
    with pytest.raises(RecordError, match=f"{name}.*not a regular file"):
        read_image(FolderRecords(tmp_path)[0])


PICTURES = [png(rectangle(mode="RGB"), format) for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.sampled_from(PICTURES) | st.binary(),
    edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
    end=st.none() | st.integers(0, 2000),
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_a_picture_or_a_record_error(data, edits, end):
    damaged = bytearray(data)
    for place, value in edits:
        if damaged:
            damaged[place % len(damaged)] = value
    damaged = bytes(damaged[:end])
    damaged = example_record(image=damaged or b" ", nouns=[("cat", damaged)])
    for read in (lambda: read_image(damaged), lambda: read_mask(damaged, 0, None)):
        try:
            read()
        except RecordError as error:
            assert error.kind in ("undecodable image", "empty mask")


# Tokens


@pytest.mark.parametrize(
    ("caption", "noun", "expected"),
    [
        ("A Teddy Bear on a cup", "teddy bear", ["teddy bear"]),
        ("a cat, a dog and a cat", "cat", ["cat", "cat"]),
        ("a man's lap", "man", ["man"]),
        ("a man's lap", "lap", ["lap"]),
        ("bananas on top of the crust.", "crust.", ["crust"]),  # as the official records have it
        ("two cats", "cat", ["cats"]),
        ("a cat among cats", "cat", ["cat"]),
        ("a cat among cats", "cats", ["cats"]),
        ("  a cafe\u0301 and a cat", "CAF\u00c9", ["café"]),
        ("a caf\u00e9", "cafe\u0301", ["café"]),
        ("a white t-shirt", "t-shirt", ["t - shirt"]),
        ("a (red:1.2) cup", "cup", ["cup"]),
        ("a category", "cat", []),
        ("bear teddy", "teddy bear", []),
        ("a cat", "", []),
        ("", "cat", []),
    ],
)
def test_tokens_of_a_noun(tokenizer, caption, noun, expected):
    (found,) = noun_tokens(tokenizer, caption, [noun])
    assert [spelled(tokenizer, caption.strip(), tokens) for tokens in found] == expected


def test_a_noun_inside_of_a_longer_one_is_not_meant(tokenizer):
    """Three of the official records are so."""
    caption = "a red train on a train track"
    red, train, track = noun_tokens(tokenizer, caption, ["red", "train", "train track"])
    assert [[spelled(tokenizer, caption, tokens) for tokens in found] for found in (red, train, track)] == [
        ["red"],
        ["train"],
        ["train track"],
    ]
    assert train[0][-1] < track[0][0]
    only = noun_tokens(tokenizer, "a train track", ["train", "train track"])
    assert set(only[0][0]) < set(only[1][0])


def test_the_token_limit(tokenizer):
    nouns = [("circle", rectangle()), ("square", rectangle()), ("star", None)]
    caption = "red " * 74 + "circle square star"
    assert len(tokenizer(caption)["input_ids"]) == 2 + 77
    circle, square = grounded_tokens(example_record(caption, nouns), tokenizer).values()
    assert circle == [75]
    assert (square.kind, square.noun) == ("noun past the token limit", 1)
    assert "'square' is past the 75 tokens" in str(square)
    shorter = grounded_tokens(example_record("red circle square", nouns), tokenizer, chunk=4)
    assert shorter[0] == [2] and "past the 2 tokens" in str(shorter[1])


def test_occurrences_past_the_limit_do_not_count(tokenizer):
    found = grounded_tokens(example_record("red cup " + "a " * 80 + "red", [("red", rectangle())]), tokenizer)
    assert found == {0: [1]}


def test_a_caption_that_cannot_be_traced_is_named():
    def contextual(text, **options):
        return {"input_ids": [0] if isinstance(text, str) else [[1, 2]] * len(text)}

    with pytest.raises(RecordError, match="here:1: unreadable caption: .*'a cat'"):
        grounded_tokens(example_record("a cat"), contextual)


# Examples


def test_an_example(tokenizer):
    left, right = rectangle((80, 60), (10, 0, 40, 60)), rectangle((80, 60), (40, 0, 70, 60))
    record = example_record("a cat and a cup, a cup", [("cup", right), ("dog", None), ("cat", left)])
    example, errors = load_example(record, (60, 60), tokenizer)
    assert not errors
    assert example["image"].shape == (3, 60, 60) and example["image"].dtype == torch.float32
    assert example["nouns"] == ["cup", "cat"]
    words = [spelled(tokenizer, record.caption, tokens) for tokens in example["tokens"]]
    assert words == ["cup cup", "cat"]
    assert example["masks"].dtype == torch.bool and example["masks"].shape == (2, 60, 60)
    columns = example["masks"].all(1)
    assert columns[0].tolist() == [False] * 30 + [True] * 30
    assert columns[1].tolist() == [True] * 30 + [False] * 30
    assert (example["caption"], example["key"], example["where"]) == (record.caption, record.key, "here:1")


def test_nouns_outside_of_the_crop_are_left_out(tokenizer):
    wide = rectangle((200, 60), mode="RGB")
    nouns = [("cat", rectangle((200, 60), (0, 0, 20, 60))), ("cup", rectangle((200, 60), (90, 0, 110, 60)))]
    example, errors = load_example(example_record("a cat and a cup", nouns, wide), SIZE, tokenizer)
    assert (example["nouns"], len(example["masks"]), errors) == (["cup"], 1, [])


def test_nouns_of_the_same_tokens_are_joined(tokenizer):
    nouns = [("cat", rectangle(box=(10, 0, 30, 60))), ("Cat", rectangle(box=(50, 0, 70, 60)))]
    example, _ = load_example(example_record("a cat", nouns), (60, 60), tokenizer)
    assert (example["nouns"], len(example["tokens"])) == (["cat"], 1)
    assert example["masks"][0].all(0).nonzero().flatten().tolist() == [*range(20), *range(40, 60)]


def test_a_record_without_nouns_is_an_example(tokenizer):
    example, errors = load_example(example_record("a cat", []), (48, 32), tokenizer)
    assert (example["tokens"], example["masks"].shape, errors) == ([], (0, 32, 48), [])


def test_a_bad_noun_is_left_out_and_told(tokenizer):
    nouns = [("zebra", rectangle()), ("cat", rectangle()), ("cup", b"broken")]
    example, errors = load_example(example_record("a cat and a cup", nouns), SIZE, tokenizer)
    assert example["nouns"] == ["cat"]
    assert [(error.kind, error.noun) for error in errors] == [("noun not in the caption", 0), ("undecodable image", 2)]


def dataset(folder, tokenizer, size=SIZE):
    return TokenComposeDataset(MetadataRecords(folder / "metadata.jsonl"), size, tokenizer)


def test_a_record_that_breaks_is_replaced_by_the_next_and_told(tmp_path, tokenizer):
    examples = dataset(write_set(tmp_path, 4), tokenizer)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(b"cut off")
    (tmp_path / "seg" / "3" / "cat.png").unlink()
    example = examples[1]
    assert (example["where"], example["nouns"]) == ("metadata.jsonl:4", [])
    told = [(problem.index, problem.kind) for problem in example["problems"]]
    assert told == [(1, "missing file"), (2, "undecodable image"), (3, "missing file")]
    assert (examples[0]["where"], examples[0]["problems"]) == ("metadata.jsonl:1", [])
    (tmp_path / "3.png").unlink()
    assert examples[3]["where"] == "metadata.jsonl:1"  # the next after the last


def test_no_record_left_is_an_error(tmp_path, tokenizer):
    examples = dataset(write_set(tmp_path, 3), tokenizer)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    with pytest.raises(DatasetError, match="none of 3 records can be read. The first: metadata.jsonl:2: missing file"):
        examples[1]


def test_examples_have_one_size_and_their_own_nouns(tmp_path, tokenizer):
    examples = dataset(write_set(tmp_path, 3), tokenizer, (48, 32))
    (tmp_path / "seg" / "1" / "cat.png").unlink()
    batch = [examples[i] for i in range(3)]
    assert {tuple(example["image"].shape) for example in batch} == {(3, 32, 48)}
    assert [len(example["masks"]) for example in batch] == [len(example["tokens"]) for example in batch] == [1, 0, 1]
    assert [example["caption"] for example in batch] == [f"picture {i} of a cat" for i in range(3)]
    assert [problem.index for example in batch for problem in example["problems"]] == [1]


# Order


@pytest.mark.parametrize("size", [1, 7, 24])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_record_once_an_epoch_over_all_processes(size, batch_size, world_size):
    orders = [EpochOrder(size, 5, rank, world_size) for rank in range(world_size)]
    seen = [i for step in range(5 * size) for order in orders for i in order.batch(step, batch_size)]
    epochs = [seen[start : start + size] for start in range(0, len(seen), size)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert size == 1 or epochs[0] != epochs[1]


def test_order_depends_on_the_seed():
    assert EpochOrder(50, 0).batch(0, 50) != EpochOrder(50, 1).batch(0, 50)


@pytest.mark.parametrize("step", [0, 1, 6, 7, 30])
def test_order_goes_on_at_any_step(step):
    run = EpochOrder(10, 3, 1, 2).batches(3)
    uninterrupted = [next(run) for _ in range(step + 5)]
    resumed = EpochOrder(10, 3, 1, 2).batches(3, start=step)
    assert [next(resumed) for _ in range(5)] == uninterrupted[step:]


def test_the_number_of_processes_may_change():
    def step(world_size, batch_size, number):
        return [i for r in range(world_size) for i in EpochOrder(10, 3, r, world_size).batch(number, batch_size)]

    assert [step(4, 1, n) for n in range(9)] == [step(2, 2, n) for n in range(9)] == [step(1, 4, n) for n in range(9)]


def test_epoch_of_a_step():
    order = EpochOrder(10, 3, 1, 2)
    assert [order.epoch(step, 3) for step in (0, 1, 2, 5)] == [(0, 0), (0, 6), (1, 2), (3, 0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_takes_the_order(tmp_path, tokenizer, workers):
    examples = dataset(write_set(tmp_path, 6), tokenizer)
    order = EpochOrder(6, 0)
    loader = DataLoader(examples, batch_sampler=order.batches(2, start=1), num_workers=workers, collate_fn=list)
    for step, batch in zip(range(1, 5), loader, strict=False):
        assert [example["where"] for example in batch] == [f"metadata.jsonl:{i + 1}" for i in order.batch(step, 2)]


def test_records_that_do_not_name_an_image_are_replaced_too(tmp_path, tokenizer):
    save(rectangle(mode="RGB"), tmp_path / "a.png")
    folder = write_metadata(tmp_path, ["{", record(text="a cat", nouns=[("cat", None)])])
    example = dataset(Path(folder), tokenizer)[0]
    assert example["where"] == "metadata.jsonl:2"
    assert [str(problem).split(": ")[:2] for problem in example["problems"]] == [
        ["metadata.jsonl:1", "malformed record"]
    ]
