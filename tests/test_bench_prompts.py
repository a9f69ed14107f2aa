"""Files of prompts, what is kept of a picture, names of pictures, published settings, and how prompts are read."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.published_data import MULTIGEN_PROMPTS
from realcompo_core.bench.folders import FOLDERS, all_pictures
from realcompo_core.bench.geneval import GenEval
from realcompo_core.bench.geneval2 import GenEval2
from realcompo_core.bench.multigen import MultiGen
from realcompo_core.bench.own_prompts import OwnPrompts, kind_of_file
from realcompo_core.bench.prompts import Prompt, PromptFileError
from realcompo_core.bench.published import (
    GENEVAL,
    MULTIGEN_ADE20K,
    MULTIGEN_COCO,
    T2I_COMPBENCH,
    VISOR,
    digest_of,
    published_for,
)
from realcompo_core.bench.registry import NAMES, benchmark_of
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Detection, Seen
from realcompo_core.bench.t2i_compbench import T2ICompBench, counts_of, pair_around, pair_of, without_adjectives
from realcompo_core.bench.visor import Visor
from realcompo_core.errors import RealCompoError
from realcompo_core.text.noun_chunks import chunk_text, noun_chunks
from shapescenes.benchmark import ShapeScenes, scenes_file

TWO = {"text": "a cat and a dog", "num_objects": 2, "obj_1_attributes": ["cat"], "obj_2_attributes": ["dog", "red"]}
BESIDE = TWO | {"text": "a cat to the left of a dog", "rel_type": "to the left of"}
ALONE = {
    "text": "a cat",
    "num_objects": 1,
    "obj_1_attributes": ["cat"],
    "obj_2_attributes": [None],
    "rel_type": "single",
}
COUNTED = {
    "tag": "counting",
    "include": [{"class": "cat", "count": 2}],
    "exclude": [{"class": "cat", "count": 3}],
    "prompt": "a photo of two cats",
}
PLACED = {
    "tag": "position",
    "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
    "prompt": "a photo of a cat left of a dog",
}
ASKED = {
    "prompt": "two cats",
    "atom_count": 2,
    "vqa_list": [["How many cats are in the image?", "two"], ["Are there any cats in the image?", "Yes"]],
    "skills": ["count", "object"],
}


def changed(record, **others):
    """With other values; None takes a key away."""
    return {key: value for key, value in (record | others).items() if value is not None}


def written(folder, records, name="prompts.json"):
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records), encoding="utf-8")
    else:
        path.write_text(json.dumps(records), encoding="utf-8")
    return path


def scene(**others):
    return changed(json.loads(scenes_file(3).splitlines()[-1]), **others)


def test_the_published_prompts_of_multigen(tmp_path, published_text):
    path = tmp_path / "prompts.json"
    path.write_text(published_text(MULTIGEN_PROMPTS), encoding="utf-8")
    file = MultiGen("COCO").read(path)
    assert len(file.prompts) == 1000 and file.problems == ()
    assert all(len(set(prompt.names)) == 5 for prompt in file.prompts)
    assert digest_of(file.prompts) == MULTIGEN_COCO.digest
    records = json.loads(path.read_text(encoding="utf-8"))
    assert [(p.index, p.text, p.record) for p in file.prompts] == [
        (i, record["text"], record) for i, record in enumerate(records)
    ]
    assert [p.names[0] for p in file.prompts] == [record["obj_1_attributes"][0] for record in records]
    assert MULTIGEN_COCO.difference(file.prompts, 10, dict(MultiGen("COCO").models)) is None
    assert kind_of_file(path) == "multigen-coco"


def test_prompts_of_each_benchmark(tmp_path):
    (prompt,) = MultiGen("ADE20K").read(written(tmp_path, [TWO])).prompts
    assert prompt == Prompt(0, "a cat and a dog", ("cat", "dog"), TWO)
    (prompt,) = Visor().read(written(tmp_path, [BESIDE])).prompts
    assert prompt == Prompt(0, "a cat to the left of a dog", ("cat", "dog"), BESIDE)
    file = GenEval().read(written(tmp_path, [COUNTED, PLACED], "prompts.jsonl"))
    assert file.prompts == (
        Prompt(0, "a photo of two cats", ("cat",), COUNTED),
        Prompt(1, "a photo of a cat left of a dog", ("dog", "cat"), PLACED),
    )
    (prompt,) = GenEval2().read(written(tmp_path, [ASKED], "prompts.jsonl")).prompts
    assert prompt == Prompt(0, "two cats", (), ASKED)
    (tmp_path / "color_val.txt").write_text("A red cat.\r\n\r\na blue dog  \r\n")
    file = T2ICompBench.of_file(tmp_path / "color_val.txt").read(tmp_path / "color_val.txt")
    assert [(p.index, p.text, p.names) for p in file.prompts] == [
        (0, "A red cat.", ("cat",)),
        (1, "a blue dog", ("dog",)),
    ]
    (tmp_path / "scenes.jsonl").write_text(scenes_file(2))
    file = ShapeScenes().read(tmp_path / "scenes.jsonl")
    assert [p.record for p in file.prompts] == [json.loads(line) for line in scenes_file(2).splitlines()]


def test_visor_keeps_the_indices_of_prompts_with_a_relation(tmp_path):
    both = TWO | {"rel_type": "and"}
    file = Visor().read(written(tmp_path, [both, BESIDE, ALONE, BESIDE]))
    assert [p.index for p in file.prompts] == [1, 3] and file.problems == ()
    with pytest.raises(PromptFileError, match="no prompt of .* has a rel_type of to the left of"):
        Visor().read(written(tmp_path, [both, ALONE]))


BAD = [
    (MultiGen("COCO"), TWO, "no record", ["cat"]),
    (MultiGen("COCO"), TWO, "has no 'text'", changed(TWO, text=None)),
    (MultiGen("COCO"), TWO, "text is 7", changed(TWO, text=7)),
    (MultiGen("COCO"), TWO, "text is ' '", changed(TWO, text=" ")),
    (MultiGen("COCO"), TWO, "surrogates not allowed", changed(TWO, text="a cat \ud83d")),
    (MultiGen("COCO"), TWO, "num_objects is '2'", changed(TWO, num_objects="2")),
    (MultiGen("COCO"), TWO, "num_objects is 0", changed(TWO, num_objects=0)),
    (MultiGen("COCO"), TWO, "has no 'obj_3_attributes'", changed(TWO, num_objects=3)),
    (MultiGen("COCO"), TWO, "obj_1_attributes is 'cat'", changed(TWO, obj_1_attributes="cat")),
    (MultiGen("COCO"), TWO, "obj_2_attributes is None", changed(TWO, obj_2_attributes=[None])),
    (Visor(), BESIDE, "has no 'rel_type'", TWO),
    (Visor(), BESIDE, "rel_type is 'behind'", changed(BESIDE, rel_type="behind")),
    (Visor(), BESIDE, "between two objects, and there are 1", changed(ALONE, rel_type="above")),
    (GenEval(), COUNTED, "no JSON", '{"tag": "counting",\n'),
    (GenEval(), COUNTED, "no JSON", "[" * 100_000 + "\n"),
    (GenEval(), COUNTED, "no record", "[1]\n"),
    (GenEval(), COUNTED, "has no 'tag'", changed(COUNTED, tag=None)),
    (GenEval(), COUNTED, "tag is 'numbers'", changed(COUNTED, tag="numbers")),
    (GenEval(), COUNTED, "has no 'prompt'", changed(COUNTED, prompt=None)),
    (GenEval(), COUNTED, "include is empty", {"tag": "counting", "prompt": "x", "include": []}),
    (GenEval(), COUNTED, "has no 'count'", changed(COUNTED, include=[{"class": "cat"}])),
    (GenEval(), COUNTED, "count is 0", changed(COUNTED, include=[{"class": "cat", "count": 0}])),
    (GenEval(), COUNTED, "count is 2.5", changed(COUNTED, exclude=[{"class": "cat", "count": 2.5}])),
    (GenEval(), COUNTED, "class is ''", changed(COUNTED, include=[{"class": "", "count": 1}])),
    (GenEval(), COUNTED, "color is 'beige'", changed(COUNTED, include=[{"class": "c", "count": 1, "color": "beige"}])),
    *(
        (GenEval(), COUNTED, f"position is {position!r}", changed(PLACED, include=[*PLACED["include"][:1], clause]))
        for position in (["behind", 0], ["left of", 1], ["left of", 0.0], ["left of", -1], ["left of"])
        for clause in [{"class": "cat", "count": 1, "position": position}]
    ),
    (GenEval2(), ASKED, "has no 'vqa_list'", changed(ASKED, vqa_list=None)),
    (GenEval2(), ASKED, "vqa_list is empty", changed(ASKED, vqa_list=[], skills=[])),
    (GenEval2(), ASKED, "2 questions and 1 skills", changed(ASKED, skills=["count"])),
    (GenEval2(), ASKED, "skill 'number'", changed(ASKED, skills=["number", "object"])),
    (GenEval2(), ASKED, "vqa_list: ['x']", changed(ASKED, vqa_list=[["x"], ["y", "z"]])),
    (GenEval2(), ASKED, "answer is 2", changed(ASKED, vqa_list=[["x", 2], ["y", "z"]])),
    (GenEval2(), ASKED, "atom_count is inf", changed(ASKED, atom_count=math.inf)),
    (ShapeScenes(), scene(), "has no 'objects'", scene(objects=None)),
    (ShapeScenes(), scene(), "relations [{", scene(relations=[{"subject": 0, "word": "above", "other": 9}])),
    (OwnPrompts(), {"prompt": "a cat"}, "has no 'prompt'", {"title": "a cat"}),
    (OwnPrompts(), {"prompt": "a cat"}, "names no object", {"prompt": "running quickly"}),
    (OwnPrompts(), {"prompt": "a cat"}, "objects is []", {"prompt": "a cat", "objects": []}),
    (OwnPrompts(), {"prompt": "a cat"}, "objects is 3", {"prompt": "a cat", "objects": [3]}),
    (OwnPrompts(), {"prompt": "a cat"}, "no record", ["a cat"]),
]


@pytest.mark.parametrize(("benchmark", "good", "said", "bad"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_a_bad_record_is_named_and_the_others_keep_their_indices(tmp_path, benchmark, good, said, bad):
    by_line = isinstance(benchmark, (GenEval, GenEval2, ShapeScenes))
    path = written(tmp_path, [good, bad, good], "prompts.jsonl" if by_line else "prompts.json")
    file = benchmark.read(path)
    assert [(p.index, p.record) for p in file.prompts] == [(0, good), (2, good)]
    (problem,) = file.problems
    assert problem.where == f"prompts.{'jsonl, line 2' if by_line else 'json, entry 1'}"
    assert said in problem.what
    with pytest.raises(PromptFileError, match=f"there is no prompt in .*{path.name}"):
        benchmark.read(written(tmp_path, [bad], path.name))


@pytest.mark.parametrize(
    ("category", "good", "bad", "said"),
    [
        ("color", "a red cat", "running quickly", "'running quickly' has no noun to ask for"),
        ("spatial", "a dog near a cat", "a dog and a cat", "does not say where one object is"),
        ("spatial", "a dog near a cat", "near the dog", "does not say where one object is"),
        ("numeracy", "two dogs", "no dogs", "'no dogs' counts nothing"),
    ],
)
def test_a_bad_line_of_t2i_compbench_is_named(tmp_path, category, good, bad, said):
    path = tmp_path / f"{category}_val.txt"
    path.write_text(f"{good}\n\n{bad}\n{good}\n")
    file = T2ICompBench.of_file(path).read(path)
    assert [p.index for p in file.prompts] == [0, 2]
    (problem,) = file.problems
    assert problem.where == f"{path.name}, line 3" and said in problem.what


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "is no JSON"),
        ("a.json", b'{"text": "a cat"}', "holds dict: a list of prompts was expected"),
        ("a.json", b'{"prompt": "a cat"}\n{"prompt": "a dog"}\n', "is no JSON"),  # JSON lines
        ("a.json", b"[]", "there is no prompt"),
        ("a.json", b"a cat\n", "is no JSON"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.jsonl", b"\n \n", "there is no prompt"),
        ("a.jsonl", b'[\n {\n  "prompt": "a cat"\n }\n]\n', "line 1: no JSON"),  # a list of JSON
        ("a.txt", b"", "there is no prompt"),
        ("a.txt", "ein Kätzchen".encode("latin-1"), "cannot read the prompts"),
        ("a.json", '["ein Kätzchen"]'.encode("utf-16"), "cannot read the prompts"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptFileError) as refused:
        OwnPrompts().read(tmp_path / name)
    assert said in str(refused.value) and str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize("read", [OwnPrompts().read, kind_of_file])
def test_what_is_no_file_is_refused(tmp_path, read):
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "folder.json", tmp_path / "absent.json"):
        with pytest.raises(PromptFileError, match="cannot read the prompts"):
            read(path)


def test_a_byte_order_mark_is_no_part_of_the_prompts(tmp_path):
    for name, content in (("a.txt", "a cat\r\n"), ("a.json", '["a cat"]'), ("a.jsonl", '"a cat"\n')):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        file = OwnPrompts().read(tmp_path / name)
        assert [p.text for p in file.prompts] == ["a cat"]
        assert file.digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert kind_of_file(written(tmp_path, ["\ufeff", ASKED], "b.jsonl")) == "geneval2"


def test_line_separators_of_unicode_are_no_ends_of_lines(tmp_path):
    records = [{"prompt": "a cat\u2028on a mat"}, {"prompt": "a dog"}, {"prompt": "a\x85cup"}]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    file = OwnPrompts().read(tmp_path / "a.jsonl")
    assert [(p.index, p.text) for p in file.prompts] == [(i, record["prompt"]) for i, record in enumerate(records)]


def test_suffixes_in_capitals_are_the_same(tmp_path):
    assert kind_of_file(written(tmp_path, [BESIDE], "A.JSON")) == "visor"
    (tmp_path / "B.JSONL").write_text(json.dumps({"prompt": "a cat"}))
    assert OwnPrompts().read(tmp_path / "B.JSONL").prompts[0].text == "a cat"


def test_own_prompts_with_and_without_objects(tmp_path):
    lines = [
        {"prompt": " a red cat ", "objects": ["red cat", "mat", "red cat"], "seed": 3},
        {"text": "two dogs on a wooden bench"},
        {"caption": "A WOMAN"},
        "three cups",
    ]
    file = OwnPrompts().read(written(tmp_path, lines))
    assert [(p.text, p.names) for p in file.prompts] == [
        ("a red cat", ("red cat", "mat")),
        ("two dogs on a wooden bench", ("dog", "bench")),
        ("A WOMAN", ("woman",)),
        ("three cups", ("cup",)),
    ]
    assert file.prompts[0].record == lines[0] and OwnPrompts().wanted(file.prompts[1]).texts == (lines[1]["text"],)
    (tmp_path / "a.txt").write_text("three cups\n\n  two dogs\n")
    assert [(p.index, p.text) for p in OwnPrompts().read(tmp_path / "a.txt").prompts] == [
        (0, "three cups"),
        (1, "two dogs"),
    ]


@pytest.mark.parametrize(
    ("name", "records", "kind"),
    [
        ("a.json", [BESIDE], "visor"),
        ("a.json", [TWO, BESIDE], "multigen-coco"),
        ("a.jsonl", [ASKED], "geneval2"),
        ("a.jsonl", ["\n", COUNTED], "geneval"),
        ("a.json", ["a cat"], "prompts"),
        ("a.json", [], "prompts"),
        ("a.json", {"prompt": "a cat"}, "prompts"),
        ("a.jsonl", [{"prompt": "a cat", "tag": "counting"}], "prompts"),
        ("a.jsonl", ["a cat\n"], "prompts"),
        ("a.jsonl", ["[" * 100_000], "prompts"),
        ("a.jsonl", [], "prompts"),
        ("ade20k_5.json", [TWO], "multigen-ade20k"),
        ("ade20k_5.json", [BESIDE], "visor"),
        ("color_val.txt", ["a cat"], "t2i-compbench"),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_name_or_first_record(tmp_path, name, records, kind):
    path = written(tmp_path, records, name)
    assert kind_of_file(path) == kind


def test_a_file_of_another_kind_is_no_file_of_prompts(tmp_path):
    (tmp_path / "prompts.csv").write_text("a cat")
    with pytest.raises(PromptFileError, match="prompts.csv is no file of prompts: expected one of .json, .jsonl, .txt"):
        kind_of_file(tmp_path / "prompts.csv")


def test_categories_are_read_from_the_official_names_of_files(tmp_path):
    names = {"color_val.txt": "color", "non_spatial.txt": "non_spatial", "numeracy_train.txt": "numeracy"}
    assert {name: benchmark_of("t2i-compbench", tmp_path / name).category for name in names} == names
    assert benchmark_of("t2i-compbench", tmp_path / "mine.txt", "shape").category == "shape"
    with pytest.raises(PromptFileError, match="3d_spatial_val.txt is scored by estimated depth"):
        benchmark_of("t2i-compbench", tmp_path / "3d_spatial_val.txt")
    with pytest.raises(PromptFileError, match="mine.txt names no category .* give --category"):
        benchmark_of("t2i-compbench", tmp_path / "mine.txt")
    with pytest.raises(PromptFileError, match="category is 'colour': choose one of color, shape"):
        benchmark_of("t2i-compbench", tmp_path / "mine.txt", "colour")


def test_benchmarks_have_the_names_that_they_are_asked_for_by(tmp_path):
    for name in NAMES:
        assert benchmark_of(name, tmp_path / "color_val.txt").name == name
    with pytest.raises(RealCompoError, match="benchmark is 'coco': choose one of multigen-coco, .*t2i-compbench"):
        benchmark_of("coco", tmp_path)
    with pytest.raises(RealCompoError, match="category 'color' has no meaning with visor"):
        benchmark_of("visor", tmp_path, "color")


def test_lists_of_complex_prompts_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "complex_val.txt").write_text("The red cat sat next to the small dog.")
    (tmp_path / "complex_val_action.txt").write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(PromptFileError, match="cannot read the prompts .*complex_val_action.txt"):
        T2ICompBench("complex").read(tmp_path / "complex_val.txt")


CATS = [Prompt(0, "a cat"), Prompt(3, "two cats", record=COUNTED)]


@pytest.mark.parametrize(
    ("layout", "paths"),
    [
        ("multigen", ["0_0.png", "0_1.png", "3_0.png", "3_1.png"]),
        ("geneval2", ["0_0.png", "0_1.png", "3_0.png", "3_1.png"]),
        (
            "geneval",
            [f"{prompt}/samples/{number}.png" for prompt in ("00000", "00003") for number in ("0000", "0001")],
        ),
        (
            "t2i-compbench",
            [f"samples/{name}.png" for name in ("a cat_000000", "a cat_000001", "two cats_000006", "two cats_000007")],
        ),
    ],
)
def test_pictures_are_named_as_each_official_code_expects(layout, paths):
    folders = FOLDERS[layout]
    assert [str(folders.path(prompt, number, 2)) for prompt in CATS for number in range(2)] == paths


def test_files_that_belong_to_the_pictures():
    files = {
        layout: {str(path): content for path, content in folders.companions(CATS, 2)}
        for layout, folders in FOLDERS.items()
    }
    assert files["multigen"] == files["t2i-compbench"] == {}
    assert {path: json.loads(content) for path, content in files["geneval"].items()} == {
        "00000/metadata.jsonl": {"prompt": "a cat"},
        "00003/metadata.jsonl": COUNTED,
    }
    assert "\n" not in files["geneval"]["00003/metadata.jsonl"]
    ((path, content),) = files["geneval2"].items()
    assert path == "image_paths.json" and json.loads(content) == {"a cat": "0_0.png", "two cats": "3_0.png"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a cat/dog", "cannot be part of a file's name"),
        ("a cat\\dog", "cannot be part of a file's name"),
        ("a cat\0", "cannot be part of a file's name"),
        ("a cat_dog", "has an underscore"),
    ],
)
def test_prompts_that_are_no_names_are_refused_with_a_way_out(text, said):
    folders = FOLDERS["t2i-compbench"]
    with pytest.raises(RealCompoError, match="prompt 5 ") as refused:
        folders.path(Prompt(5, text), 0, 1)
    assert said in str(refused.value) and "--layout multigen" in str(refused.value)
    assert str(FOLDERS["multigen"].path(Prompt(5, text), 0, 1)) == "5_0.png"


def test_prompts_may_be_as_long_as_names_of_files():
    folders, longest = FOLDERS["t2i-compbench"], "ä" * 122  # 244 bytes; number and suffix are 11 more
    assert len(folders.path(Prompt(5, longest), 0, 1).name.encode()) == 255
    with pytest.raises(RealCompoError, match="prompt 5 cannot be part of a file's name, .* choose --layout multigen"):
        folders.path(Prompt(5, f"{longest}a"), 0, 1)


def test_first_pictures_of_all_prompts_come_before_second_ones():
    assert all_pictures(iter(CATS), 2) == [Picture(0, 0), Picture(3, 0), Picture(0, 1), Picture(3, 1)]


shares = st.floats(0, 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
boxes = st.tuples(*[st.floats(-50, 4000)] * 4)


@given(
    st.builds(
        Seen,
        st.integers(1, 4000),
        st.integers(1, 4000),
        st.lists(st.builds(Detection, texts, boxes, shares, texts), max_size=4).map(tuple),
        st.dictionaries(st.tuples(texts, texts), shares, max_size=3),
        st.dictionaries(texts, st.floats(-1, 1), max_size=3),
        st.booleans(),
    )
)
def test_what_was_seen_is_kept_to_a_hundredth_of_a_pixel_and_a_millionth(seen):
    again = Seen.from_json(json.loads(json.dumps(seen.to_json())))
    assert (again.width, again.height, again.detected) == (seen.width, seen.height, seen.detected)
    assert [(d.name, d.colour) for d in again.detections] == [(d.name, d.colour) for d in seen.detections]
    for one, other in zip(again.detections, seen.detections, strict=True):
        assert one.box == pytest.approx(other.box, abs=0.0051) and one.score == pytest.approx(other.score, abs=5.1e-7)
    assert again.answers == pytest.approx(seen.answers, abs=5.1e-7)
    assert again.likeness == pytest.approx(seen.likeness, abs=5.1e-7)
    assert again.to_json() == seen.to_json()


def test_what_is_written_of_a_picture():
    cat = Detection("cat", (1.234, 5.678, 9.999, 10), 0.12345678, "red")
    seen = Seen(64, 48, (cat, Detection("dog", (0, 0, 1, 1), 0.5)), {("a cat?", "yes"): 1 / 3}, {"a cat": 1 / 7})
    assert seen.to_json() == {
        "size": [64, 48],
        "detected": True,
        "detections": [
            {"name": "cat", "box": [1.23, 5.68, 10.0, 10], "score": 0.123457, "colour": "red"},
            {"name": "dog", "box": [0, 0, 1, 1], "score": 0.5},
        ],
        "answers": [["a cat?", "yes", 0.333333]],
        "likeness": {"a cat": 0.142857},
    }


GOOD = Seen(64, 48, (Detection("cat", (1, 2, 3, 4), 0.5),), {("a cat?", "yes"): 0.5}, {"a cat": 0.25}).to_json()
CAT = GOOD["detections"][0]


@pytest.mark.parametrize(
    "damage",
    [
        {"size": None},
        {"size": [64]},
        {"size": [64, math.inf]},
        {"size": ["wide", 48]},
        {"detections": None},
        {"detections": ["cat"]},
        {"detections": [changed(CAT, name=None)]},
        {"detections": [changed(CAT, box=None)]},
        {"detections": [changed(CAT, box=[1, 2, 3])]},
        {"detections": [changed(CAT, box=[1, 2, 3, math.nan])]},
        {"detections": [changed(CAT, box=[1, 2, 3, [4]])]},
        {"detections": [changed(CAT, score=None)]},
        {"detections": [changed(CAT, score="high")]},
        {"detections": [changed(CAT, score=math.nan)]},
        {"answers": [["a cat?", 0.5]]},
        {"answers": [["a cat?", "yes", math.nan]]},
        {"answers": 3},
        {"likeness": {"a cat": math.inf}},
        {"likeness": {"a cat": "close"}},
        {"likeness": ["a cat"]},
    ],
    ids=str,
)
def test_damaged_lines_are_refused(damage):
    assert Seen.from_json(GOOD).detections[0].name == "cat"
    with pytest.raises((KeyError, TypeError, ValueError)):
        Seen.from_json(changed(GOOD, **damage))


def test_lines_without_answers_are_of_pictures_that_nobody_was_asked_about():
    seen = Seen.from_json({"size": [64, 48], "detections": []})
    assert seen.answers == {} and seen.likeness == {} and seen.detected


def test_detections_above_a_threshold_come_surest_first():
    low, high, dog = Detection("cat", (0, 0, 1, 1), 0.2), Detection("cat", (0, 0, 1, 1), 0.9), Detection("dog", (), 0.5)
    seen = Seen(64, 48, (low, dog, high))
    assert seen.above(0.1) == [high, dog, low] and seen.above(0.2) == [high, dog]
    assert seen.above(0.1, "cat") == [high, low] and seen.names_above(0.5) == {"cat"}


def test_published_figures_hold_for_their_own_setting_only():
    prompts = [Prompt(i, f"prompt {i}") for i in range(25280)]
    models = {"detector": "google/owlvit-base-patch32"}
    visor = replace(VISOR, digest=digest_of(prompts))
    assert VISOR.difference(prompts, 4, models) == "other prompts" and visor.difference(prompts, 4, models) is None
    assert visor.difference(prompts[1:], 4, models) == "25279 prompts, not 25280"
    assert visor.difference(prompts, 1, models) == "1 pictures of each prompt, not 4"
    assert visor.difference(prompts, 4, {}) == "detector none, not google/owlvit-base-patch32"
    assert visor.difference(prompts, 4, {"detector": "x"}) == "detector x, not google/owlvit-base-patch32"
    assert visor.difference(prompts, 4, models | {"clip": "any"}) is None
    assert MULTIGEN_COCO.difference(prompts[:1000], 10, {}) == "other prompts"
    assert digest_of(CATS) == hashlib.sha256(b"a cat\ntwo cats").hexdigest()
    assert digest_of(CATS[::-1]) != digest_of(CATS)


def test_published_figures_of_each_benchmark():
    known = {
        "multigen-coco": MULTIGEN_COCO,
        "multigen-ade20k": MULTIGEN_ADE20K,
        "visor": VISOR,
        "geneval": GENEVAL,
        "geneval2": None,
        "prompts": None,
    }
    assert {name: published_for(name, None) for name in known} == known
    for category in ("color", "shape", "texture", "non_spatial"):
        assert published_for("t2i-compbench", category) is T2I_COMPBENCH[category]
        assert T2ICompBench(category).models.items() >= T2I_COMPBENCH[category].models.items()
    assert published_for("t2i-compbench", "spatial") is published_for("t2i-compbench", None) is None
    benchmarks = {"multigen-coco": MultiGen("COCO"), "visor": Visor(), "geneval": GenEval()}
    for name, benchmark in benchmarks.items():
        assert benchmark.pictures == known[name].pictures and benchmark.models == known[name].models


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("a green bench and a blue bowl", ["a green bench", "a blue bowl"]),
        ("A bathroom with green tile and a red shower curtain.", ["A bathroom", "green tile", "a red shower curtain"]),
        ("a dog on the left of a cat", ["a dog", "the left", "a cat"]),
        ("dogs, cats and birds", ["dogs", "cats", "birds"]),
        ("She gave her brother a book about Paris.", ["She", "her brother", "a book", "Paris"]),
        ("A man is riding a horse, a brown one.", ["A man", "a horse", "a brown one"]),
        ("a woman's hat and his shoes", ["a woman's hat", "his shoes"]),
        ("A photo of a New York street", ["A photo", "a New York street"]),
        ("There are three cups on the old wooden table.", ["three cups", "the old wooden table"]),
        ("This is a cat.", ["This", "a cat"]),
        ("What is on the table?", ["What", "the table"]),
        ("I like both.", ["I", "both"]),
        ("The cat that I saw yesterday slept.", ["The cat", "that", "I"]),
        (
            "Two hot dogs sit on a white paper plate near a soda cup which are sitting on a green picnic table",
            ["Two hot dogs", "a white paper plate", "a soda cup", "which", "a green picnic table"],
        ),
        ("A book called Our Crowd sitting on a bench.", ["A book", "Our Crowd", "a bench"]),
        ("running quickly", []),
        ("red", []),
        ("", []),
    ],
)
def test_noun_chunks_are_those_of_spacy(text, chunks):
    """As spaCy 3.8 has them with en_core_web_sm 3.8."""
    assert [chunk_text(chunk, text) for chunk in noun_chunks(text)] == chunks


@given(st.text(max_size=40) | st.lists(st.sampled_from("a the dog that barks , . and of Bob".split())).map(" ".join))
def test_noun_chunks_of_any_text_do_not_overlap(text):
    spans = [(chunk[0].start, chunk[-1].end) for chunk in noun_chunks(text)]
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges) and all(start < end for start, end in spans)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("three cats and two dogs", (("cat", 3), ("dog", 2))),
        ("a man and seven televisions", (("person", 1), ("tv", 7))),
        ("two wine glasses, an old wooden chair and a ship", (("wine glass", 2), ("chair", 1), ("boat", 1))),
        ("Four green apples.", (("apple", 4),)),
        ("eight paintings", (("picture", 8),)),
        ("the dogs", ()),
        ("five", ()),
    ],
)
def test_counts_of_a_prompt(text, counts):
    assert counts_of(text) == counts


def test_pairs_of_a_prompt():
    assert pair_of("a dog on the left of a cat") == ("dog", "cat")
    assert pair_of("a woman on the top of a sailing ship") == ("person", "ship")
    assert pair_of("a dog") is None
    assert pair_around("The red cat sat next to the small dog.") == ("cat", "dog")
    assert pair_around("A boy stood near a tree.") == ("person", "tree")
    assert pair_around("The blue book was on top of the red bookshelf.") == ("book", "bookshelf")  # read as a name
    assert pair_around("The yellow cone was suspended in mid-air near the orange pyramid and the green cylinder.") == (
        "air",
        "cylinder",  # the pyramid is read as a name
    )
    assert pair_around("The cup near the bed and next to the chair.") is None
    assert pair_around("The cat sat on the mat.") is None


def test_texts_without_adjectives():
    assert without_adjectives("The fresh vegetables grew in the rich soil.") == "The vegetables grew in the soil ."
    assert without_adjectives("A bigger dog chased the smallest, oldest cat!") == "A dog chased the , cat !"
    assert without_adjectives("red") == ""


def test_nouns_are_looked_for_without_what_they_are_made_of():
    benchmark = T2ICompBench("texture")
    assert benchmark.parse(0, "a metal spoon and a glass table").names == ("spoon", "table")
    assert benchmark.parse(0, "two wine glasses on the left side of a girl").names == ("wine glass", "person")
