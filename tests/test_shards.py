"""Training sets as tar shards: written whole or not at all, read as a stream that a run can go on with."""

import json
import tarfile
from io import BytesIO
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from training_set import record, rectangle, save, write_metadata, write_set

from shapescenes import models
from tokencompose_core.dataset import load_example
from tokencompose_core.formats import MetadataRecords
from tokencompose_core.records import DatasetError, Record, RecordError, each_record
from tokencompose_core.shards import ShardSet, write_shards
from tokencompose_core.stream import ShardDataset

SIZE = (16, 16)


@pytest.fixture(scope="module")
def tokenizer():
    return models.tokenizer()


def written(tmp_path, count=10, per_shard=3):
    records = MetadataRecords(write_set(tmp_path / "set", count) / "metadata.jsonl")
    return records, write_shards(records, tmp_path / "shards", per_shard)


def content(entry):
    """A record without its names, which are those of the place it lies in."""
    nouns = [(noun, mask and entry.read(mask)) for noun, mask in entry.nouns]
    return entry.caption, entry.read(entry.image), nouns


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def files_of(key, caption="a cat", attn_list=(("cat", "0.mask.png"),)):
    image, mask = BytesIO(), BytesIO()
    rectangle(mode="RGB").save(image, "PNG")
    rectangle().save(mask, "PNG")
    return {
        f"{key}.png": image.getvalue(),
        f"{key}.txt": caption.encode(),
        f"{key}.json": json.dumps({"attn_list": list(attn_list)}).encode(),
        f"{key}.0.mask.png": mask.getvalue(),
    }


def make_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


# Writing


def test_what_is_written_is_read(tmp_path):
    records, shards = written(tmp_path)
    assert [path.name for path in shards.paths] == [f"shard-00000{i}.tar" for i in range(4)]
    assert shards.counts == [3, 3, 3, 1] and len(shards) == 10
    found = list(shards.each())
    assert [content(entry) for entry in found] == [content(entry) for entry in records]
    assert found[4].where == "shard-000001.tar:000000004"


def test_the_files_of_a_record_follow_one_another_under_its_key(tmp_path):
    _, shards = written(tmp_path, 2)
    with tarfile.open(shards.paths[0]) as tar:
        names = tar.getnames()
    assert names == [f"00000000{i}.{suffix}" for i in range(2) for suffix in ("png", "txt", "json", "0.mask.png")]


def test_the_same_records_give_the_same_bytes(tmp_path):
    records, first = written(tmp_path)
    again = write_shards(records, tmp_path / "again", 3)
    assert [path.read_bytes() for path in again.paths] == [path.read_bytes() for path in first.paths]


def test_shards_are_written_from_shards(tmp_path):
    records, shards = written(tmp_path)
    joined = write_shards(shards.each(), tmp_path / "joined", 100)
    assert joined.counts == [10]
    assert [content(entry) for entry in joined.each()] == [content(entry) for entry in records]


@pytest.mark.parametrize("broken", ["image", "mask"])
def test_a_writer_that_fails_leaves_nothing(tmp_path, broken):
    folder = write_set(tmp_path / "set", 5)
    (folder / ("4.png" if broken == "image" else "seg/4/cat.png")).write_bytes(b"cut off")
    with pytest.raises(RecordError, match="metadata.jsonl:5: undecodable image"):
        write_shards(MetadataRecords(folder / "metadata.jsonl"), tmp_path / "shards", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_error_among_the_records_and_no_record_leave_nothing(tmp_path):
    records = MetadataRecords(write_metadata(tmp_path / "set", ["{"]) / "metadata.jsonl")
    for bad in (records, each_record(records)):
        with pytest.raises(RecordError, match="metadata.jsonl:1: malformed record"):
            write_shards(bad, tmp_path / "shards")
    with pytest.raises(DatasetError, match="no record"):
        write_shards([], tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    records = MetadataRecords(write_set(tmp_path / "set") / "metadata.jsonl")
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(DatasetError, match="shards: No space left on device"):
        write_shards(records, tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_nothing_is_overwritten(tmp_path):
    records = MetadataRecords(write_set(tmp_path / "set") / "metadata.jsonl")
    (tmp_path / "empty").mkdir()
    assert len(write_shards(records, tmp_path / "empty")) == 3
    with pytest.raises(DatasetError, match="empty is there already"):
        write_shards(records, tmp_path / "empty")
    (tmp_path / "new.part").mkdir()
    with pytest.raises(DatasetError, match="new.part"):
        write_shards(records, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Reading


def test_shards_of_other_writers(tmp_path):
    """No index, folders inside, suffixes in upper case, files that are none of ours, one key in two folders."""
    files = files_of("some/a") | {"some/a.embedding.npy": b"?"} | files_of("other/a", "a cup", [["cup", None]])
    files = {name.replace(".png", ".PNG") if name.startswith("other") else name: data for name, data in files.items()}
    first, second = ShardSet([make_shard(tmp_path / "s.tar", files)]).each()
    assert content(first) == ("a cat", files["some/a.png"], [("cat", files["some/a.0.mask.png"])])
    assert content(second) == ("a cup", files["other/a.PNG"], [("cup", None)])
    assert (first.where, second.where) == ("s.tar:some/a", "s.tar:other/a")


def test_dots_in_keys_are_part_of_the_suffix(tmp_path):
    """So it is in WebDataset; the error names what was found."""
    (error,) = ShardSet([make_shard(tmp_path / "a.tar", files_of("a.b"))]).each()
    assert error.kind == "malformed record" and "b.png, b.txt, b.json, b.0.mask.png" in str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a.png": None}, "expected one image, not 0"),
        ({"a.jpg": b"another"}, "expected one image, not 2"),
        ({"a.txt": None}, "a.txt is missing"),
        ({"a.txt": b"\xff"}, "caption: not UTF-8"),
        ({"a.json": None}, "a.json is missing"),
        ({"a.json": b"{"}, "no JSON"),
        ({"a.json": b"[]"}, "expected an object"),
        ({"a.json": b"{}"}, "attn_list: None"),
        ({"a.json": b'{"attn_list": [["cat", 1]]}'}, "attn_list[0][1]: 1"),
    ],
)
def test_a_malformed_record_is_named_and_spoils_no_other(tmp_path, change, said):
    bad = {name: data for name, data in (files_of("a") | change).items() if data is not None}
    shards = ShardSet([make_shard(tmp_path / "s.tar", {**files_of("0"), **bad, **files_of("z")})])
    first, error, last = shards.each()
    assert (first.where, error.where, last.where) == ("s.tar:0", "s.tar:a", "s.tar:z")
    assert error.kind == "malformed record" and said in str(error)


def test_a_mask_that_is_not_in_the_shard_is_the_nouns_problem(tmp_path):
    files = files_of("a", attn_list=[["cat", "7.mask.png"]])
    (entry,) = ShardSet([make_shard(tmp_path / "s.tar", files)]).each()
    with pytest.raises(RecordError, match="missing file: s.tar/a.7.mask.png: not there"):
        entry.read(entry.nouns[0].mask, 0)


@pytest.mark.parametrize("cut", [-512, -100, 0, 10])
def test_a_shard_that_is_cut_off_gives_what_is_there_and_an_error_for_the_rest(tmp_path, cut):
    _, shards = written(tmp_path, 6, per_shard=6)
    path = shards.paths[0]
    with tarfile.open(path) as tar:
        member = tar.getmember("000000003.png")
    path.write_bytes(path.read_bytes()[: member.offset_data + cut])
    found = list(shards.each())
    good = [entry for entry in found if isinstance(entry, Record)]
    errors = found[len(good) :]
    assert len(good) in (2, 3) and len(errors) == 6 - len(good)
    assert {(error.kind, error.file) for error in errors} == {("unreadable shard", str(path))}
    assert "record 6 of 6" in str(errors[-1])
    counted = list(ShardSet([path]).each())  # without an index nobody knows how many are lost
    assert [getattr(entry, "kind", "") for entry in counted] == [""] * len(good) + ["unreadable shard"]


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    _, shards = written(tmp_path, 6, per_shard=6)
    with tarfile.open(shards.paths[0]) as tar:
        place = tar.getmember("000000003.png").offset
    data = bytearray(shards.paths[0].read_bytes())
    data[place : place + 100] = b"\xff" * 100
    shards.paths[0].write_bytes(data)
    *good, error = ShardSet([shards.paths[0]]).each()
    assert all(isinstance(entry, Record) for entry in good) and len(good) in (2, 3)
    assert error.kind == "unreadable shard" and f"damaged or cut off at byte {place}" in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=20), end=st.none() | st.integers(0, 9000)
)
def test_damage_gives_records_and_record_errors_only(tmp_path_factory, edits, end):
    path = make_shard(tmp_path_factory.getbasetemp() / "s.tar", {**files_of("a"), **files_of("b")})
    data = bytearray(path.read_bytes())
    for place, value in edits:
        data[place % 9000] = value
    path.write_bytes(data[:end])
    try:
        shards = ShardSet([path])
    except DatasetError:
        return  # not a single record
    found = list(shards.each())
    assert len(found) == len(shards) and all(isinstance(entry, Record | RecordError) for entry in found)


def test_a_sparse_file_is_not_unpacked(tmp_path):
    """Its few bytes may stand for terabytes of zeros."""
    path = make_shard(tmp_path / "s.tar", files_of("a"))
    data = bytearray(path.read_bytes())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    with tarfile.open(path) as tar:
        assert tar.getmembers()[0].issparse()
    (error,) = ShardSet([path]).each()
    assert "expected one image, not 0" in str(error)


def test_reading_starts_anywhere(tmp_path):
    _, shards = written(tmp_path, 7, per_shard=7)
    everything = list(shards.each())
    for start in range(8):
        assert list(shards.read(0, start)) == everything[start:]


def test_headers_of_a_shard_are_not_kept(tmp_path, monkeypatch):
    most = 0
    following = tarfile.TarFile.next

    def next_member(tar):
        nonlocal most
        most = max(most, len(tar.members))
        return following(tar)

    _, shards = written(tmp_path, 20, per_shard=20)
    monkeypatch.setattr(tarfile.TarFile, "next", next_member)
    assert len(list(shards.each())) == 20
    assert most <= 1


@pytest.mark.parametrize("change", ["removed", "added", "grown", "unreadable"])
def test_an_index_of_other_shards_is_refused(tmp_path, change):
    _, shards = written(tmp_path)
    folder = shards.paths[0].parent
    if change == "removed":
        shards.paths[1].unlink()
    elif change == "added":
        make_shard(folder / "shard-000009.tar", files_of("a"))
    elif change == "grown":
        shards.paths[1].write_bytes(shards.paths[1].read_bytes() + b"\0" * 512)
    else:
        (folder / "shards.json").write_text('{"shards": 5}')
    with pytest.raises(DatasetError, match="shards.json"):
        ShardSet(folder)
    (folder / "shards.json").unlink()
    ShardSet(folder)


def test_no_shard_and_shards_without_a_record(tmp_path):
    make_shard(tmp_path / "a.tar", {})
    for source in (tmp_path, [tmp_path / "a.tar"], tmp_path / "nowhere", []):
        with pytest.raises(DatasetError, match="no shard with a record"):
            ShardSet(source)


def test_fingerprint_is_that_of_the_shards(tmp_path):
    records, shards = written(tmp_path)
    before = shards.fingerprint()
    moved = shards.paths[0].parent.rename(tmp_path / "moved")
    assert ShardSet(moved).fingerprint() == before
    assert write_shards(records, tmp_path / "other", 4).fingerprint() != before


# Streaming


def stream(shards, tokenizer, workers=0, **options):
    """The places of the records that a loader gives, without end."""
    options = {"batch_size": 2, "seed": 1, "block": 4} | options
    loader = DataLoader(
        ShardDataset(shards, SIZE, tokenizer, **options), options["batch_size"], num_workers=workers, collate_fn=list
    )
    return (example["where"] for batch in loader for example in batch)


def test_every_record_once_an_epoch_and_another_order_in_the_next(tmp_path, tokenizer):
    _, shards = written(tmp_path)
    places = sorted(entry.where for entry in shards.each())
    first, second = (list(islice(stream(shards, tokenizer), n, n + 10)) for n in (0, 10))
    assert sorted(first) == sorted(second) == places
    assert first != second != places
    assert first != list(islice(stream(shards, tokenizer, seed=2), 10))


def test_a_single_shard_is_shuffled_anew_in_every_epoch(tmp_path, tokenizer):
    _, shards = written(tmp_path, 8, per_shard=8)
    first, second = (list(islice(stream(shards, tokenizer, block=8), n, n + 8)) for n in (0, 8))
    assert first != second and sorted(first) == sorted(second)


def test_an_example_is_that_of_the_record(tmp_path, tokenizer):
    _, shards = written(tmp_path)
    known = {entry.where: entry for entry in shards.each()}
    for example in islice(ShardDataset(shards, SIZE, tokenizer, batch_size=1), 10):
        expected, _ = load_example(known[example["where"]], SIZE, tokenizer)
        assert (example["image"] == expected["image"]).all() and (example["masks"] == expected["masks"]).all()
        assert example["problems"] == []


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_an_epoch_without_repeats(tmp_path, tokenizer, world_size):
    _, shards = written(tmp_path, 12)
    share = 12 // world_size
    seen = []
    for rank in range(world_size):
        seen += islice(stream(shards, tokenizer, rank=rank, world_size=world_size), share)
    assert sorted(seen) == sorted(entry.where for entry in shards.each())


def test_workers_share_an_epoch_without_repeats(tmp_path, tokenizer):
    _, shards = written(tmp_path, 12)
    seen = list(islice(stream(shards, tokenizer, workers=2), 12))
    assert sorted(seen) == sorted(entry.where for entry in shards.each())


@pytest.mark.parametrize("start", range(14))
def test_a_stream_goes_on_where_it_was(tmp_path, tokenizer, start):
    _, shards = written(tmp_path)
    uninterrupted = list(islice(stream(shards, tokenizer), 2 * start + 12))
    assert list(islice(stream(shards, tokenizer, start=start), 12)) == uninterrupted[2 * start :]


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_stream_of_workers_goes_on_where_it_was(tmp_path, tokenizer, start):
    _, shards = written(tmp_path, 14)
    uninterrupted = list(islice(stream(shards, tokenizer, workers=2), 2 * start + 12))
    assert list(islice(stream(shards, tokenizer, workers=2, start=start), 12)) == uninterrupted[2 * start :]


def test_a_record_that_cannot_be_read_is_replaced_by_the_next(tmp_path, tokenizer):
    """Also where a run goes on in between, so no position depends on what was read before it."""
    folder = write_set(tmp_path / "set", 9)
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    records = MetadataRecords(write_metadata(folder, lines) / "metadata.jsonl")
    shards = write_shards(records, tmp_path / "shards", 3)
    order = list(islice(ShardDataset(shards, SIZE, tokenizer, batch_size=1, block=4), 18))
    bad = {order[i]["where"] for i in (2, 3, 8)}
    good_from = [next(e["where"] for e in order[i:] if e["where"] not in bad) for i in range(9)]

    for path in shards.paths:
        data = path.read_bytes()
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                key, _, suffix = member.name.partition(".")
                if suffix == "png" and f"{path.name}:{key}" in bad:
                    data = data[: member.offset_data] + b"x" * 40 + data[member.offset_data + 40 :]
        path.write_bytes(data)
    for start in range(9):
        examples = ShardDataset(shards, SIZE, tokenizer, batch_size=1, block=4, start=start)
        found = list(islice(examples, 9 - start))
        assert [example["where"] for example in found] == good_from[start:]
    examples = list(islice(ShardDataset(shards, SIZE, tokenizer, batch_size=1, block=4), 4))
    assert [[problem.where for problem in e["problems"]] for e in examples] == [
        [],
        [],
        [order[2]["where"], order[3]["where"]],
        [],
    ]
    everything = {entry.where: index for index, entry in enumerate(shards.each())}
    assert all(everything[problem.where] == problem.index for e in examples for problem in e["problems"])


def test_a_set_without_a_good_record_ends_with_an_error(tmp_path, tokenizer):
    shard = make_shard(tmp_path / "a.tar", {"a.txt": b"a cat", "b.txt": b"a cat"})
    with pytest.raises(DatasetError, match="no record of these shards can be read. The first: a.tar:[ab]: malformed"):
        next(iter(ShardDataset(ShardSet([shard]), SIZE, tokenizer, batch_size=1)))


def test_more_workers_than_shards_are_refused(tmp_path, tokenizer):
    _, shards = written(tmp_path)
    with pytest.raises(DatasetError, match="4 shards cannot feed 5 processes with 1 workers each"):
        next(iter(ShardDataset(shards, SIZE, tokenizer, batch_size=1, world_size=5)))


def test_no_more_than_a_block_is_held_and_nothing_is_read_to_step_over(tmp_path, tokenizer, monkeypatch):
    _, shards = written(tmp_path, 24, per_shard=8)
    read = []
    plain = ShardSet.read

    def counting(self, shard, start=0):
        for entry in plain(self, shard, start):
            read.append(entry.where)
            yield entry

    monkeypatch.setattr(ShardSet, "read", counting)
    examples = iter(ShardDataset(shards, SIZE, tokenizer, batch_size=1, block=4))
    for count in range(1, 25):
        next(examples)
        assert len(read) <= count + 3
    read.clear()
    next(iter(ShardDataset(shards, SIZE, tokenizer, batch_size=1, block=4, start=24 * 50 + 21)))
    assert len(read) == 4


def test_images_of_every_format_are_copied(tmp_path):
    folder = tmp_path / "set"
    names = ["a.png", "b.jpg", "c.webp", "d.bmp", "e.gif", "f.tif"]
    for name in names:
        save(rectangle(mode="L" if name == "e.gif" else "RGB"), folder / name)
    save(rectangle(mode="RGB"), folder / "g.jpg").rename(folder / "g.png")  # a wrong name does not matter
    lines = [record(name, "a cat", []) for name in [*names, "g.png"]]
    records = MetadataRecords(write_metadata(folder, lines) / "metadata.jsonl")
    shards = write_shards(records, tmp_path / "shards")
    with tarfile.open(shards.paths[0]) as tar:
        suffixes = [name.split(".")[1] for name in tar.getnames()][::3]
    assert suffixes == ["png", "jpg", "webp", "bmp", "gif", "tif", "jpg"]
    assert [content(entry) for entry in shards.each()] == [content(entry) for entry in records]
    assert np.array_equal([len(entry.nouns) for entry in shards.each()], [0] * 7)
