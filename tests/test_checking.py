"""Checking a whole training set, and leaving out what cannot be used."""

import itertools

import pytest
from training_set import record, rectangle, save, write_metadata, write_set

from shapescenes import models
from tokencompose_core.checking import check, kept_records
from tokencompose_core.dataset import TokenComposeDataset
from tokencompose_core.formats import MetadataRecords
from tokencompose_core.records import DatasetError
from tokencompose_core.shards import write_shards


@pytest.fixture(scope="module")
def tokenizer():
    return models.tokenizer()


def set_of(folder, lines):
    return MetadataRecords(write_metadata(folder, lines) / "metadata.jsonl")


def faulty(folder):
    """Lines 1 and 12 are good; each of the others has what its comment says."""
    save(rectangle(mode="RGB"), folder / "good.png")
    good = save(rectangle(), folder / "seg" / "good.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    save(rectangle((8, 8)), folder / "seg" / "small.png")
    save(rectangle(value=0), folder / "seg" / "empty.png")
    (folder / "seg" / "broken.png").write_bytes(good.read_bytes()[:50])
    cat = [("cat", "seg/good.png")]
    return set_of(
        folder,
        [
            record("good.png", "a cat", cat),
            "{",  # malformed
            record("../good.png", "a cat", cat),  # outside
            record("gone.png", "a cat", cat),  # missing
            record("broken.png", "a cat", [("cat", "seg/gone.png")]),  # undecodable, and a missing mask
            record("good.png", "a cat", [("cat", "seg/small.png")]),  # another size
            record("good.png", "a cat", [("cat", "seg/empty.png")]),  # empty
            record("good.png", "a cat", [("cat", "seg/broken.png")]),  # undecodable mask
            record("good.png", "a dog", [("dog", "seg/good.png"), *cat]),  # second noun not in the caption
            record("good.png", "red " * 75 + "cat", cat),  # past the limit
            record("good.png", "a dog", [("cat", "seg/small.png")]),  # two problems of one noun
            record("good.png", "a cat", [("zebra", None), *cat]),  # unused nouns do not matter
        ],
    )


EXPECTED = [
    ("metadata.jsonl:2", "metadata.jsonl", "malformed record", None),
    ("metadata.jsonl:3", "metadata.jsonl", "path outside the set", None),
    ("metadata.jsonl:4", "gone.png", "missing file", None),
    ("metadata.jsonl:5", "broken.png", "undecodable image", None),
    ("metadata.jsonl:5", "seg/gone.png", "missing file", 0),
    ("metadata.jsonl:6", "seg/small.png", "mask of another size", 0),
    ("metadata.jsonl:7", "seg/empty.png", "empty mask", 0),
    ("metadata.jsonl:8", "seg/broken.png", "undecodable image", 0),
    ("metadata.jsonl:9", None, "noun not in the caption", 1),
    ("metadata.jsonl:10", None, "noun past the token limit", 0),
    ("metadata.jsonl:11", None, "noun not in the caption", 0),
    ("metadata.jsonl:11", "seg/small.png", "mask of another size", 0),
]


def test_every_problem_is_listed_with_file_and_line(tmp_path, tokenizer):
    problems = list(check(faulty(tmp_path), tokenizer))
    expected = [(where, str(tmp_path / file) if file else "", kind, noun) for where, file, kind, noun in EXPECTED]
    assert [(p.where, p.file, p.kind, p.noun) for p in problems] == expected
    assert [p.index for p in problems] == [int(p.where.split(":")[1]) - 1 for p in problems]


def test_what_is_said(tmp_path, tokenizer):
    said = [str(problem) for problem in check(faulty(tmp_path), tokenizer)]
    assert said[5] == "metadata.jsonl:6: mask of another size: seg/small.png is 8 × 8, the image is 80 × 60"
    assert said[8] == "metadata.jsonl:9: noun not in the caption: 'cat' is not in 'a dog'"


def test_a_good_set_has_no_problem_and_progress_is_told(tmp_path, tokenizer):
    records = MetadataRecords(write_set(tmp_path, 4) / "metadata.jsonl")
    told = []
    assert list(check(records, tokenizer, lambda *progress: told.append(progress))) == []
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert kept_records(records, []) is records


def test_nouns_that_can_be_trained_on_are_counted(tmp_path, tokenizer):
    counts = []
    list(check(faulty(tmp_path), tokenizer, grounded=counts.append))
    assert counts == [1, 0, 0, 0, 1, 0, 0, 1]  # of lines 1 and 6 to 12


def test_problems_come_while_the_set_is_read(tmp_path, tokenizer):
    told = []
    problems = check(faulty(tmp_path), tokenizer, lambda *progress: told.append(progress))
    next(problems)
    assert told == [(1, 12)]


def test_refusing_counts_by_kind_and_shows_the_first(tmp_path, tokenizer):
    records = faulty(tmp_path)
    with pytest.raises(DatasetError) as error:
        kept_records(records, check(records, tokenizer))
    said = str(error.value)
    assert said.startswith("10 of 12 records have problems: ")
    for counted in ("2 × missing file", "2 × mask of another size", "2 × noun not in the caption", "1 × empty mask"):
        assert counted in said
    assert "metadata.jsonl:2: malformed record" in said and "metadata.jsonl:6" not in said
    assert "skip" in said


def test_skipping_leaves_out_records_and_nouns(tmp_path, tokenizer):
    records = faulty(tmp_path)
    kept = kept_records(records, check(records, tokenizer), "skip")
    assert [entry.where.split(":")[1] for entry in kept] == ["1", "6", "7", "8", "9", "10", "11", "12"]
    grounded = [[noun for noun, mask in entry.nouns if mask] for entry in kept]
    assert grounded == [["cat"], [], [], [], ["dog"], [], [], ["cat"]]
    assert list(check(kept, tokenizer)) == []
    examples = TokenComposeDataset(kept, (32, 32), tokenizer)
    assert [len(examples[i]["tokens"]) for i in range(len(examples))] == [len(nouns) for nouns in grounded]
    assert not any(examples[i]["problems"] for i in range(len(examples)))


def test_training_meets_what_the_check_lists(tmp_path, tokenizer):
    """Without a check nothing else happens: each problem is told once an epoch and training goes on."""
    records = faulty(tmp_path)
    examples = TokenComposeDataset(records, (32, 32), tokenizer)
    told = set(itertools.chain.from_iterable(examples[i]["problems"] for i in range(len(examples))))
    stopped_at_the_first = {"metadata.jsonl:5": 1, "metadata.jsonl:11": 1}
    listed = {}
    for problem in check(records, tokenizer):
        listed.setdefault(problem.where, []).append(problem)
    expected = {p for where, found in listed.items() for p in found[: stopped_at_the_first.get(where)]}
    assert told == expected


def test_a_set_with_nothing_left_is_refused(tmp_path, tokenizer):
    records = set_of(tmp_path, ["{", record("gone.png")])
    with pytest.raises(DatasetError, match="nothing is left to train on: 2 of 2 records"):
        kept_records(records, check(records, tokenizer), "skip")


def test_shards_are_checked_too(tmp_path, tokenizer):
    folder = write_set(tmp_path / "set", 5)
    save(rectangle(value=0), folder / "seg" / "3" / "cat.png")
    shards = write_shards(MetadataRecords(folder / "metadata.jsonl"), tmp_path / "shards", 2)
    told = []
    (problem,) = check(shards, tokenizer, lambda *progress: told.append(progress))
    assert (problem.index, problem.where, problem.kind) == (3, "shard-000001.tar:000000003", "empty mask")
    assert told[-1] == (5, 5)
    assert kept_records(shards, [problem], "skip") is shards
    with pytest.raises(DatasetError, match="1 × empty mask"):
        kept_records(shards, [problem])
