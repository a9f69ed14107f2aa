"""Every benchmark from its published format to its report, with pictures of noise and tiny random models."""

import json

import killed_bench
import pytest
import tiny_bench_models
from test_bench_runs import invoke, prompt

from realcompo_cli.bench.drawing import draw
from realcompo_cli.bench.layouts import Layouts
from realcompo_cli.bench.run import Request, Run, Shard

RELATED = [
    prompt(i, "cat", "dog") | {"rel_type": relation} for i, relation in enumerate(("above", "to the left of", "and"))
]
GENEVAL = [
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
    {
        "tag": "counting",
        "include": [{"class": "dog", "count": 2}],
        "exclude": [{"class": "dog", "count": 3}],
        "prompt": "a photo of two dogs",
    },
]
GENEVAL2 = [
    {
        "prompt": "two red cats",
        "atom_count": 3,
        "vqa_list": [["How many cats are in the image?", "two"], ["Are the cats red?", "Yes"]],
        "skills": ["count", "attribute"],
    }
]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


CASES = {  # benchmark, file, its content, what looks, a metric, a picture, what the official code reads
    "multigen": (
        "multigen-coco",
        "p.json",
        json.dumps([prompt(0, "cat", "dog", "cup")]),
        "owlv2",
        "MG2",
        "0_1.png",
        "results.json",
    ),
    "visor": ("visor", "p.json", json.dumps(RELATED), "owlvit", "VISOR cond", "1_1.png", "results.json"),
    "geneval": (
        "geneval",
        "p.jsonl",
        lines(GENEVAL),
        "owlv2 clip",
        "color attr",
        "00001/samples/0001.png",
        "results.jsonl",
    ),
    "geneval2": ("geneval2", "p.jsonl", lines(GENEVAL2), "llava", "Soft-TIFA GM", "0_1.png", "score_lists.json"),
    "color": (
        "t2i-compbench",
        "color_val.txt",
        "a red cat and a blue dog\n",
        "blip owlvit",
        "BLIP-VQA",
        "samples/a red cat and a blue dog_000001.png",
        None,
    ),
    "spatial": (
        "t2i-compbench",
        "spatial_val.txt",
        "a cat on the left of a dog\n",
        "grounding_dino",
        "2D-spatial",
        "samples/a cat on the left of a dog_000000.png",
        None,
    ),
    "numeracy": (
        "t2i-compbench",
        "numeracy_val.txt",
        "two cats\n",
        "owlv2",
        "numeracy",
        "samples/two cats_000001.png",
        None,
    ),
    "actions": (
        "t2i-compbench",
        "non_spatial_val.txt",
        "a cat chases a dog.\n",
        "clip",
        "CLIPScore",
        "samples/a cat chases a dog._000001.png",
        None,
    ),
    "complex": (
        "t2i-compbench",
        "complex_val.txt",
        "The red cat is near the blue dog.\n",
        "blip owlv2 clip",
        "3-in-1",
        "samples/The red cat is near the blue dog._000001.png",
        None,
    ),
    "own": ("prompts", "own.txt", "a cat and a dog\n", "owlvit clip", "all objects", "0_1.png", None),
}
WHAT = {"blip": "vqa", "llava": "vqa", "clip": "clip"}
WHAT |= dict.fromkeys(("owlvit", "owlv2", "grounding_dino"), "detector")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    found = {f"owl{name}": tiny_bench_models.owl(root / name, version) for name, version in (("vit", 1), ("v2", 2))}
    others = ("blip", "llava", "clip", "grounding_dino")
    return found | {name: getattr(tiny_bench_models, name)(root / name) for name in others}


@pytest.mark.parametrize("case", CASES)
def test_from_prompts_to_report(models, tmp_path, case):
    benchmark, name, content, looking, metric, picture, official = CASES[case]
    (tmp_path / name).write_text(content)
    if case == "complex":
        (tmp_path / "complex_val_spatial.txt").write_text(content)
        (tmp_path / "complex_val_action.txt").write_text("")
    run = Run.open(tmp_path / "run", Request(benchmark, tmp_path / name, {"name": "noise"}, pictures=2), "test")
    draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
    assert (run.folder / "pictures" / picture).exists()
    given = {what: "none" for what in run.benchmark.models} | {WHAT[name]: models[name] for name in looking.split()}
    options = [word for what, spec in given.items() for word in (f"--{what}", spec)]
    for arguments in (("detect", run.folder, *options, "--device", "cpu"), ("score", run.folder)):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
    scores = json.loads((run.folder / "scores.json").read_text())
    assert scores["scored"] == scores["pictures"] == len(run.pictures)
    assert scores["models"].keys() == {WHAT[name] for name in looking.split()}
    values = {m["name"]: m for m in scores["scores"]["metrics"]}
    assert metric in values
    if case not in ("visor", "geneval"):  # of which noise has no picture that a conditional metric is about
        assert -1 <= values[metric]["value"] <= 100 and values[metric]["count"] == len(run.pictures)
    unmeasured = " ".join(scores["scores"]["missing"])
    assert ("--detector" in unmeasured) == (case == "actions")
    assert official is None or (run.folder / "official" / official).exists()
    assert invoke("report", run.folder, "--output", tmp_path / "report").exit_code == 0
    assert metric in (tmp_path / "report" / "report.md").read_text()
