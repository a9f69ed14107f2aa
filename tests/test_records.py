"""Reading the formats of training sets: the official release's, a plain folder, Hugging Face datasets."""

import json
import os
import pickle
from io import BytesIO
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_set import record, rectangle, save, write_metadata, write_set

from tokencompose_core.formats import FolderRecords, HuggingFaceRecords, MetadataRecords, open_records
from tokencompose_core.records import DatasetError, Record, RecordError, each_record, fingerprint
from tokencompose_core.shards import ShardSet, write_shards

RELEASED = """\
{"file_name": "000000000142.jpg", "text": "Plate with a piece of bread, dark chocolate spread, bananas and a carton of \
Silk.", "attn_list": [["piece", "seg/000000000142/mask_000000000142_piece.png"], ["chocolate spread", \
"seg/000000000142/mask_000000000142_chocolate_spread.png"]]}
{"file_name": "000000000443.jpg", "text": "A cat is lying on its back in a man's lap.", "attn_list": [["cat", \
"seg/000000000443/mask_000000000443_cat.png"], ["lap", null]]}
"""


def test_lines_of_the_official_release(tmp_path):
    (tmp_path / "metadata.jsonl").write_text(RELEASED)
    plate, cat = MetadataRecords(tmp_path / "metadata.jsonl")
    assert plate.caption.startswith("Plate with a piece of bread")
    assert [noun for noun, _ in plate.nouns] == ["piece", "chocolate spread"]
    assert plate.nouns[1].mask.name == "seg/000000000142/mask_000000000142_chocolate_spread.png"
    assert (cat.image.name, cat.nouns[1].mask, cat.where) == ("000000000443.jpg", None, "metadata.jsonl:2")


@pytest.mark.parametrize(
    ("metadata", "mask", "given"),
    [
        ("set", "set/seg/a/cat.png", None),
        ("set/train", "set/seg/a/cat.png", None),
        ("data/coco_gsam_img/train", "data/coco_gsam_seg/a/cat.png", None),  # as the release unpacks
        ("set", "elsewhere/seg/a/cat.png", "elsewhere"),
        ("set", "elsewhere/a/cat.png", "elsewhere"),
    ],
)
def test_places_of_masks(tmp_path, metadata, mask, given):
    write_metadata(tmp_path / metadata, [record()])
    path = save(rectangle(), tmp_path / mask)
    (found,) = MetadataRecords(tmp_path / metadata / "metadata.jsonl", given and tmp_path / given)
    assert found.read(found.nouns[0].mask) == path.read_bytes()


def test_a_missing_mask_says_where_it_was_sought(tmp_path):
    folder = write_metadata(tmp_path / "img" / "train", [record()])
    (found,) = MetadataRecords(folder / "metadata.jsonl")
    with pytest.raises(RecordError) as error:
        found.read(found.nouns[0].mask, 0)
    assert (error.value.kind, error.value.where, error.value.noun) == ("missing file", "metadata.jsonl:1", 0)
    for place in ("img/train/seg/a/cat.png", "img/seg/a/cat.png", "coco_gsam_seg/a/cat.png"):
        assert str(tmp_path / place) in str(error.value)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../secret.png", "a/../../b.png", "C:\\a.png", "C:a.png", "a\\..\\..\\b.png", "\\\\host\\a.png"],
)
@pytest.mark.parametrize("field", ["file_name", "mask"])
def test_paths_that_leave_the_set_are_refused(tmp_path, path, field):
    bad = record(path) if field == "file_name" else record(nouns=[("cat", path)])
    records = MetadataRecords(write_metadata(tmp_path, [record(), bad]) / "metadata.jsonl")
    with pytest.raises(RecordError) as error:
        records[1]
    assert (error.value.kind, error.value.where) == ("path outside the set", "metadata.jsonl:2")
    assert json.dumps(path)[1:-1] in str(error.value) or path in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "expected an object"),
        ("[" * 100_000, "no JSON"),
        ('{"text": "a cat", "attn_list": []}', "file_name: None"),
        ('{"file_name": "", "text": "a cat", "attn_list": []}', "file_name: ''"),
        ('{"file_name": "a\\u0000.png", "text": "a cat", "attn_list": []}', "expected a path"),
        ('{"file_name": "a.png", "text": 5, "attn_list": []}', "text: 5"),
        ('{"file_name": "a.png", "text": "\\ud83d", "attn_list": []}', "half a character"),
        ('{"file_name": "a.png", "text": "a cat"}', "attn_list: None"),
        ('{"file_name": "a.png", "text": "a cat", "attn_list": ["cat"]}', "attn_list[0]: 'cat'"),
        ('{"file_name": "a.png", "text": "a cat", "attn_list": [["cat", 3]]}', "attn_list[0][1]: 3"),
        ('{"file_name": "a.png", "text": "a cat", "attn_list": [[null, null]]}', "attn_list[0][0]: None"),
    ],
)
def test_a_malformed_line_is_named_and_spoils_no_other(tmp_path, line, said):
    records = MetadataRecords(write_metadata(tmp_path, [record(), line, record("b.png")]) / "metadata.jsonl")
    first, error, last = each_record(records)
    assert (first.image.name, last.image.name, last.where) == ("a.png", "b.png", "metadata.jsonl:3")
    assert (error.kind, error.where, error.file) == ("malformed record", "metadata.jsonl:2", str(records.path))
    assert said in str(error)


def test_masks_of_a_plain_folder_have_any_format(tmp_path):
    for file in ("cat.jpg", "red_cup.TIF", "table.PNG", "notes.txt"):
        (tmp_path / "masks" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / "a" / file).write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a cat")
    (found,) = open_records(tmp_path)
    assert [noun for noun, _ in found.nouns] == ["cat", "red cup", "table"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {}, optional={"file_name": JSON, "text": JSON, "attn_list": JSON | st.lists(st.tuples(JSON, JSON), max_size=3)}
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(line=RECORDS.map(json.dumps).map(str.encode) | st.binary(min_size=1))
def test_a_line_is_a_record_or_a_record_error(tmp_path_factory, line):
    path = tmp_path_factory.getbasetemp() / "metadata.jsonl"
    path.write_bytes(b'{"file_name": "a.png", "text": "", "attn_list": []}\n' + line)
    for entry in each_record(MetadataRecords(path)):
        assert isinstance(entry, Record | RecordError)


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{json.dumps(record())}\r\n\r\n{json.dumps(record('b.png'))}\r\n".encode())
    assert [(entry.image.name, entry.where) for entry in MetadataRecords(path)] == [
        ("a.png", "metadata.jsonl:1"),
        ("b.png", "metadata.jsonl:3"),
    ]


def test_a_line_separator_inside_of_text_ends_no_line(tmp_path):
    records = MetadataRecords(
        write_metadata(tmp_path, ['{"file_name": "a.png", "text": "a\u2028b", "attn_list": []}']) / "metadata.jsonl"
    )
    assert [entry.caption for entry in records] == ["a\u2028b"]


@pytest.mark.parametrize("content", [None, b"", b"\n \n"])
def test_metadata_without_a_record(tmp_path, content):
    if content is not None:
        (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(DatasetError, match="metadata.jsonl"):
        MetadataRecords(tmp_path / "metadata.jsonl")


def test_keys_follow_the_record_not_its_place(tmp_path):
    lines = [record(), record(text="another caption"), record("b.png"), record(nouns=[("cat", None)])]
    here = MetadataRecords(write_metadata(tmp_path / "here", lines) / "metadata.jsonl")
    there = MetadataRecords(write_metadata(tmp_path / "there", [*lines[::-1], lines[0]]) / "metadata.jsonl")
    keys = [entry.key for entry in here]
    assert len(set(keys)) == 4
    assert [entry.key for entry in there] == [*keys[::-1], keys[0]]


def test_fingerprint_is_that_of_names_text_sizes_and_times(tmp_path):
    def of(folder):
        return fingerprint(each_record(MetadataRecords(folder / "metadata.jsonl")))

    first, moved = write_set(tmp_path / "a"), tmp_path / "b"
    before = of(first)
    first.rename(moved)
    assert of(moved) == before

    changes = [
        lambda: os.utime(moved / "1.png", ns=(1, 1)),
        lambda: save(rectangle(box=(0, 0, 1, 1)), moved / "seg" / "2" / "cat.png"),
        lambda: (moved / "0.png").unlink(),
        lambda: write_metadata(moved, [record(), "{"]),
        lambda: write_metadata(moved, ["{", record()]),
    ]
    seen = {before}
    for change in changes:
        change()
        seen.add(of(moved))
    assert len(seen) == len(changes) + 1


def test_plain_folder(tmp_path):
    save(rectangle(), tmp_path / "b.webp")
    save(rectangle(), tmp_path / "a.JPG")
    (tmp_path / "a.txt").write_text("a teddy bear\n", encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text("a dog")
    mask = save(rectangle(), tmp_path / "masks" / "a" / "teddy_bear.png")
    (tmp_path / "masks" / "a" / "._teddy_bear.png").write_bytes(b"left by a file manager")
    first, second = FolderRecords(tmp_path)
    assert (first.image.name, first.caption, first.where) == ("a.JPG", "a teddy bear", "a.JPG")
    assert [(noun, first.read(source)) for noun, source in first.nouns] == [("teddy bear", mask.read_bytes())]
    assert (second.caption, second.nouns) == ("a dog", ())


def test_a_folder_with_parts_missing_loses_none_of_them(tmp_path):
    save(rectangle(), tmp_path / "captionless.png")
    (tmp_path / "imageless.txt").write_text("a cat")
    save(rectangle(), tmp_path / "masks" / "masked" / "cat.png")
    save(rectangle(), tmp_path / "twice.png")
    save(rectangle(), tmp_path / "twice.jpg")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    found = {str(getattr(entry, "where", "")): entry for entry in each_record(FolderRecords(tmp_path))}
    assert found["captionless.png"].kind == "missing file" and "captionless.txt" in str(found["captionless.png"])
    assert found["masked.jpg"].kind == "missing file" and "masked.txt" in str(found["masked.jpg"])
    assert found["latin.jpg"].kind == "malformed record" and "UTF-8" in str(found["latin.jpg"])
    assert found["twice.jpg"].kind == "malformed record" and "twice.jpg, twice.png" in str(found["twice.jpg"])
    with pytest.raises(RecordError, match="missing file: imageless.jpg"):
        found["imageless.jpg"].read(found["imageless.jpg"].image)
    assert len(found) == 5


def encoded(picture):
    data = BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


class Table:
    """What is used of a `datasets.Dataset`: `features`, and rows as Arrow tables, in which images are not decoded."""

    def __init__(self, **columns):
        self.features = dict.fromkeys(columns)
        self._columns, self._arrow = columns, False

    def with_format(self, kind):
        assert kind == "arrow"
        table = Table(**self._columns)
        table._arrow = True
        return table

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, index):
        row = {name: column[index] for name, column in self._columns.items()}
        if isinstance(row["text"], Exception):
            raise row["text"]
        return SimpleNamespace(to_pylist=lambda: [row]) if self._arrow else row


def test_rows_with_masks_as_images():
    png = encoded(rectangle())
    (found,) = HuggingFaceRecords(
        Table(
            image=[{"bytes": png, "path": None}],
            text=["a cat and a cup"],
            nouns=[["cat", "cup"]],
            masks=[[{"bytes": png, "path": "cat.png"}, None]],
        )
    )
    assert (found.caption, found.where) == ("a cat and a cup", "row 0")
    assert found.read(found.image) == found.read(found.nouns[0].mask) == png
    assert [(noun, mask is None) for noun, mask in found.nouns] == [("cat", False), ("cup", True)]


def test_rows_with_masks_as_paths(tmp_path):
    image = save(rectangle(), tmp_path / "a.png")
    mask = save(rectangle(), tmp_path / "masks" / "a" / "cat.png")
    rows = Table(
        image=[{"bytes": None, "path": str(image)}] * 2,
        text=["a cat"] * 2,
        attn_list=[[["cat", "seg/a/cat.png"]], [["cat", "../a.png"]]],
    )
    found, error = each_record(HuggingFaceRecords(rows, tmp_path / "masks"))
    assert found.read(found.image) == image.read_bytes()
    assert found.read(found.nouns[0].mask) == mask.read_bytes()
    assert (error.kind, error.where) == ("path outside the set", "row 1")


def test_bad_rows_are_named_and_spoil_no_other():
    good = {"bytes": encoded(rectangle()), "path": None}
    rows = Table(
        image=[good, None, good, good, good, {"bytes": None, "path": None}],
        text=["a cat", "a cat", None, "a cat", OSError("cut off"), "a cat"],
        nouns=[["cat"]] * 6,
        masks=[[good], [good], [good], [], [good], [good]],
    )
    first, *errors = each_record(HuggingFaceRecords(rows))
    assert isinstance(first, Record)
    assert [error.where for error in errors] == [f"row {i}" for i in range(1, 6)]
    assert {error.kind for error in errors} == {"malformed record"}
    for error, said in zip(
        errors, ["image: null", "text: None", "one length", "cut off", "bytes or a path"], strict=True
    ):
        assert said in str(error)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"train": Table(image=[], text=[])}, "one split"),
        (SimpleNamespace(features={"image": None, "text": None, "attn_list": None}), "not streamed"),
        (Table(picture=[], text=[], attn_list=[]), "picture"),
        (Table(image=[], text=[]), "attn_list"),
        (Table(image=[], text=[], attn_list=[]), "relative to"),
    ],
)
def test_other_tables_are_refused(dataset, said):
    with pytest.raises(DatasetError, match=said):
        HuggingFaceRecords(dataset)


def test_open_records_knows_every_format(tmp_path):
    official = write_set(tmp_path / "official")
    write_set(tmp_path / "parent" / "train")
    save(rectangle(), tmp_path / "plain" / "a.png")
    shards = write_shards(MetadataRecords(official / "metadata.jsonl"), tmp_path / "shards")
    table = Table(image=[None], text=[""], nouns=[[]], masks=[[]])
    for source, kind in [
        (official / "metadata.jsonl", MetadataRecords),
        (str(official), MetadataRecords),
        (tmp_path / "parent", MetadataRecords),
        (tmp_path / "plain", FolderRecords),
        (shards.paths[0].parent, ShardSet),
        (table, HuggingFaceRecords),
    ]:
        assert type(open_records(source)) is kind
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(DatasetError, match=str(nothing)):
            open_records(nothing)


def test_records_travel_to_other_processes(tmp_path):
    records = MetadataRecords(write_set(tmp_path) / "metadata.jsonl")
    assert list(pickle.loads(pickle.dumps(records))) == list(records)
