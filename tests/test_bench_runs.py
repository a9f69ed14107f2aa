"""`realcompo bench`: runs that are stopped, damaged or asked for anew, and what is said about them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killed_bench
import numpy as np
import pytest
from full_disk import files_of_at_most, needs_limits
from PIL import Image
from typer.testing import CliRunner

from realcompo_cli.bench.detectors import LoadedDetector
from realcompo_cli.bench.drawing import IN_A_ROW, draw
from realcompo_cli.bench.layouts import Layouts
from realcompo_cli.bench.looking import Experts, check_names, chosen, look, read_picture
from realcompo_cli.bench.report import markdown, page, published_beside, read_runs
from realcompo_cli.bench.run import Request, Run, RunError, Shard
from realcompo_cli.bench.scoring import score
from realcompo_cli.main import app
from realcompo_core.bench.prompts import PromptFileError
from realcompo_core.bench.scores import Picture
from realcompo_core.bench.seen import Detection
from realcompo_core.errors import RealCompoError

CLASSES = ["cat", "dog", "cup", "kite", "boat", "bed", "cow"]
DIGEST = LoadedDetector("digest", {"model": "digest"}, killed_bench.find, lambda names: [], 0.01)


def prompt(index, *names):
    attributes = {f"obj_{i}_attributes": [name] for i, name in enumerate(names, 1)}
    text = f"a photo of {', '.join(names)}"
    return {"unique_id": index, "num_objects": len(names), **attributes, "text": text}


def write_prompts(folder, count=4, name="own.json"):
    records = [prompt(i, *(CLASSES[(i + k) % len(CLASSES)] for k in range(3))) for i in range(count)]
    (folder / name).write_text(json.dumps(records))
    return folder / name


@pytest.fixture
def request_of(tmp_path):
    """`request_of(**changed)`: two pictures of four prompts, drawn as noise."""

    def make(**changed):
        prompts = tmp_path / "own.json"
        if not prompts.exists():
            write_prompts(tmp_path)
        return Request(
            **{"benchmark": "multigen-coco", "prompts": prompts, "source": {"name": "noise"}, "pictures": 2} | changed
        )

    return make


@pytest.fixture
def drawn(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(), "test")
    draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
    return run


def looked_at(run):
    run.keep_experts(Experts(DIGEST).identity)
    look(run, Experts(DIGEST), Shard(), lambda _: None)
    return run


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def said(result):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


# Kills and full disks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_20_moments_is_that_of_an_uninterrupted_one(tmp_path):
    write_prompts(tmp_path, killed_bench.PROMPTS)
    script = Path(killed_bench.__file__)
    command = [sys.executable, str(script), str(tmp_path), "20", "3"]
    paths = os.pathsep.join(map(str, (script.parents[1], script.parent)))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=300)
    assert done.returncode == 0, done.stderr
    killed, drawings = map(int, done.stdout.split()[-2:])
    assert killed >= 5  # the others had finished
    whole, again = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    assert len(whole.pictures) == 2 * killed_bench.PROMPTS <= drawings <= len(whole.pictures) + killed
    for picture, path in whole.pictures.items():
        assert again.pictures[picture].read_bytes() == path.read_bytes()
    assert again.seen() == whole.seen()
    scores = [json.loads((run.folder / "scores.json").read_text()) for run in (whole, again)]
    for each in scores:
        each["scores"]["groups"].pop("What a picture costs")
        del each["run"]
    assert scores[0] == scores[1]
    assert not list(again.pictures_folder.rglob("*.part"))
    for part in again.folder.rglob("*.part"):  # of killed processes, and swept when they are old
        os.utime(part, (0, 0))
    killed_bench.go_on(again.folder, tmp_path / "own.json", tmp_path / "log.txt")
    assert not list(tmp_path.rglob("*.part"))
    assert len((tmp_path / "log.txt").read_text().splitlines()) == drawings


def test_parts_of_killed_writers_are_swept_when_they_are_old(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(), "test")
    old, young = (run.folder / "prompts" / f"own.json.{name}.part" for name in ("old", "young"))
    for part in (old, young):
        part.write_text("{")
    os.utime(old, (0, 0))
    Run.open(tmp_path / "run", request_of(), "test")
    assert young.exists() and not old.exists()  # another process may be writing the young one


@needs_limits
def test_a_full_disk_stops_drawing_and_the_run_goes_on_later(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(), "test")
    source = killed_bench.Source(tmp_path / "log.txt")
    with files_of_at_most(6000), pytest.raises(RealCompoError, match=r"cannot write .*0_0\.png.*File too large"):
        draw(run, source, Layouts(), Shard(), lambda _: None)
    assert not list(run.folder.rglob("*.png")) and not list(run.folder.rglob("*.part"))
    assert draw(run, source, Layouts(), Shard(), lambda _: None) == 0
    assert len(list(run.folder.rglob("*.png"))) == 8


@needs_limits
def test_a_full_disk_stops_looking_and_no_half_line_is_read(drawn):
    with files_of_at_most(600), pytest.raises(RealCompoError, match="list of what was seen .* free some room"):
        looked_at(drawn)
    lines = next((drawn.folder / "seen").glob("*.jsonl")).read_bytes()
    assert not lines.endswith(b"\n") and len(lines) == 600
    before = drawn.seen()
    assert 0 < len(before) < 8
    after = looked_at(drawn).seen()
    assert len(after) == 8 and before.items() <= after.items()


# Damage.


def test_what_cannot_be_scored_is_named_and_counted(tmp_path, request_of):
    records = json.loads(write_prompts(tmp_path).read_text())
    del records[2]["obj_2_attributes"]
    (tmp_path / "own.json").write_text(json.dumps(records))
    run = Run.open(tmp_path / "run", request_of(), "test")
    draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
    whole = run.pictures[Picture(0, 0)].read_bytes()
    run.pictures[Picture(0, 0)].write_bytes(whole[: len(whole) // 2])
    run.pictures[Picture(1, 1)].unlink()
    Image.new("RGB", (32, 48)).save(run.pictures[Picture(3, 0)])
    scored = score(looked_at(run), "test")
    told = dict(scored.problems)
    assert told.pop("own.json, entry 2") == "has no 'obj_2_attributes'"
    assert told.pop("0_0.png").startswith("unreadable: image file is truncated")
    assert told.pop("1_1.png") == "missing"
    assert told.pop("3_0.png") == "32×48 pixels, where most have 96×64; scored as it is"
    assert not told
    assert (scored.scored, scored.pictures) == (4, 8)
    assert {metric.count for metric in scored.scores.metrics} == {4}
    assert "0_0.png: unreadable" in markdown(read_runs([run.folder]), "test")


def test_a_picture_that_changes_after_it_was_looked_at_does_not_count(drawn):
    looked_at(drawn)
    Image.new("RGB", (96, 64), "red").save(drawn.pictures[Picture(1, 0)])
    assert Picture(1, 0) not in drawn.seen()
    assert dict(score(drawn, "test").problems)["1_0.png"].startswith("not looked at: run `realcompo bench detect`")
    assert len(looked_at(drawn).seen()) == 8


def test_a_run_that_was_copied_needs_no_second_look(drawn):
    looked_at(drawn)
    path = drawn.pictures[Picture(0, 1)]
    os.utime(path, (1, 1))
    assert len(drawn.seen()) == 8


def test_pictures_that_fail_are_told_and_tried_again(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(), "test")

    class Moody(killed_bench.Source):
        def draw(self, job):
            if job.seed % 1000:
                raise RealCompoError("no second picture today")
            return super().draw(job)

    assert draw(run, Moody(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None) == 4
    assert dict(score(looked_at(run), "test").problems)["2_1.png"] == "not made: no second picture today"
    assert draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None) == 0
    assert not score(looked_at(run), "test").problems


def test_a_source_that_always_fails_is_given_up(tmp_path, request_of):
    write_prompts(tmp_path, 40)
    run = Run.open(tmp_path / "run", request_of(), "test")

    class Broken(killed_bench.Source):
        def draw(self, job):
            raise RealCompoError("broken")

    with pytest.raises(RealCompoError, match=f"{IN_A_ROW} pictures in a row could not be made. The last: broken"):
        draw(run, Broken(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)


# Requests.


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is 0, not 1"),
        ({"source": {"name": "other"}}, "source.name is"),
        ({"pictures": 3}, "pictures is 2"),
    ],
)
def test_another_request_does_not_mix_with_a_run(drawn, request_of, changed, named):
    with pytest.raises(RunError, match=f"has another run: its {named}.*another folder"):
        Run.open(drawn.folder, request_of(**changed), "test")


def test_more_prompts_of_the_same_run_are_added(tmp_path, request_of):
    source = killed_bench.Source(tmp_path / "log.txt")
    for limit, pictures in ((2, 4), (None, 8)):
        run = Run.open(tmp_path / "run", request_of(limit=limit), "test")
        draw(run, source, Layouts(), Shard(), lambda _: None)
        assert len(list(run.folder.rglob("*.png"))) == len(run.pictures) == pictures
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 8


def test_other_models_do_not_go_on_where_others_looked(drawn):
    looked_at(drawn)
    other = LoadedDetector("another", {"model": "x"}, killed_bench.find, lambda names: [], 0.01)
    with pytest.raises(RunError, match="looked at with another detector.name: .digest., not .another.. Remove"):
        drawn.keep_experts(Experts(other).identity)


def test_shards_are_the_whole_run(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(), "test")
    source, parts = killed_bench.Source(tmp_path / "log.txt"), [Shard.parse(f"{i}/3") for i in (1, 2, 3)]
    for part in parts:
        draw(run, source, Layouts(), part, lambda _: None)
    assert len(list(run.folder.rglob("*.png"))) == len(run.generated()) == 8
    for part in parts[0].split(0, 2), parts[0].split(1, 2), *parts[1:]:  # a part over two GPUs
        look(run, Experts(DIGEST), part, lambda _: None)
    assert len(run.seen()) == 8
    for wrong in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(RealCompoError, match="write for example 2/8"):
            Shard.parse(wrong)


def test_seeds_are_those_that_the_help_tells(drawn):
    assert {p: e["seed"] for p, e in drawn.generated().items()} == {
        p: 1000 * p.index + p.number for p in drawn.pictures
    }


def test_a_detector_that_does_not_know_a_name_is_refused(drawn):
    closed = LoadedDetector("coco", {}, killed_bench.find, lambda names: [n for n in names if n == "kite"], 0.01)
    with pytest.raises(RealCompoError, match="detector coco does not know 'kite': .*--labels"):
        check_names(Experts(closed), drawn.benchmark, drawn.prompts)


def test_models_are_the_official_ones_and_none_leaves_one_out(drawn):
    assert chosen(drawn.benchmark, {}) == {"detector": "google/owlv2-large-patch14-ensemble"}
    with pytest.raises(RealCompoError, match="--detector none: without it nothing of MultiGen"):
        chosen(drawn.benchmark, {"detector": "none"})
    with pytest.raises(RealCompoError, match="--vqa x has no meaning with MultiGen"):
        chosen(drawn.benchmark, {"vqa": "x"})


# The command.


def test_a_folder_of_pictures_is_scored_by_the_command(tmp_path):
    """Drawings of the world's own scenes show all that they should; other pictures do not."""
    from shapescenes.benchmark import scenes_file
    from shapescenes.drawing import draw as draw_scene
    from shapescenes.world import held_out_scenes

    for index, scene in enumerate(held_out_scenes(6)):
        picture = draw_scene(scene if index != 4 else held_out_scenes(40)[30], "rendered", 7 + index)
        (tmp_path / "made").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "made" / f"{index}_0.png")
    (tmp_path / "scenes.jsonl").write_text(scenes_file(6))
    given = ("--benchmark", "shapescenes", "--prompts", tmp_path / "scenes.jsonl", "--source", tmp_path / "made")
    result = invoke("all", tmp_path / "out", *given, "--device", "cpu")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "out" / "made" / "scores.json").read_text())
    values = {metric["name"]: metric["value"] for metric in scores["scores"]["metrics"]}
    assert values["exact scenes"] == pytest.approx(100 * 5 / 6)
    assert not list((tmp_path / "out").rglob("?_0.png"))  # they are looked at where they are
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| exact scenes ↑ | 83.33 |" in report and str(tmp_path / "made") in report
    html = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/jpeg" in html and "83.33" in html
    with Image.open(tmp_path / "out" / "made.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--benchmark", "nothing"], "--benchmark is 'nothing': choose one of multigen-coco"),
        (["--benchmark", "shapescenes", "--source", "shapescenes:best"], "choose one of text_to_image"),
        (["--benchmark", "shapescenes", "--source", "nowhere"], "there is no such file or folder"),
        (["--benchmark", "shapescenes", "--set", "seed=3"], "--set seed has no meaning"),
        (["--benchmark", "shapescenes", "--set", "steps=none"], "steps is 'none'"),
        (["--benchmark", "shapescenes", "--place", "prompt=6.text"], "--place says nothing about"),
        (["--benchmark", "shapescenes", "--server", "http://x"], "--server says nothing about"),
        (["--benchmark", "shapescenes", "--lora", "own.json"], "--lora says nothing about"),
        (["--benchmark", "shapescenes", "--shard", "3/2"], "--shard is '3/2'"),
        (["--benchmark", "shapescenes", "--category", "color"], "has no meaning"),
        (
            ["--benchmark", "shapescenes", "--source", "shapescenes:text_to_image", "--provider", "rules"],
            "reads no layout",
        ),
        (["--benchmark", "geneval", "--source", "shapescenes:balanced", "--prompts", "own.json"], "tag"),
    ],
)
def test_what_says_nothing_is_refused_by_name(tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path)
    result = invoke("generate", "run", "--device", "cpu", *arguments)
    assert result.exit_code == 1 and named in said(result), said(result)
    assert not list(tmp_path.rglob("*.png"))


def test_a_file_is_a_benchmark_of_its_own(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbfa cat on a chair\r\nsleeping\r\n\r\nthree dogs\r\n")
    (tmp_path / "made").mkdir()
    for index, number in ((0, 0), (2, 0)):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "made" / f"{index}_{number}.png")
    given = ("--benchmark", tmp_path / "mine.txt", "--source", tmp_path / "made", "--pictures", 1)
    result = invoke("generate", tmp_path / "run", *given)
    assert result.exit_code == 0 and "2 of 2 pictures" in said(result), said(result)
    assert "mine.txt, line 2: 'sleeping' names no object" in said(result)
    run = Run(tmp_path / "run")
    assert [p.names for p in run.prompts] == [("cat", "chair"), ("dog",)]


def test_official_prompts_need_a_network_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from realcompo_cli.bench import prompt_files

    monkeypatch.setattr(prompt_files, "FETCHED_WITHIN", 1)
    origin = prompt_files.Origin("file.json", address="http://127.0.0.1:9/")
    with pytest.raises(RealCompoError, match="cannot fetch http://127.0.0.1:9/file.json: .* --prompts file.json"):
        prompt_files.fetched(origin)
    with pytest.raises(PromptFileError, match="names no category"):
        Request("t2i-compbench", write_prompts(tmp_path, name="x.json"), {}).document()


# The report.


def reported(tmp_path, request_of, name, **changed):
    run = Run.open(tmp_path / name, request_of(**changed), f"realcompo bench generate {name}")
    draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
    score(looked_at(run), f"realcompo bench score {name}")
    return tmp_path / name


def test_runs_stand_side_by_side_with_what_made_them(tmp_path, request_of):
    runs = read_runs([reported(tmp_path, request_of, "one"), reported(tmp_path, request_of, "two", seed=5)])
    told = markdown(runs, "realcompo bench report one two")
    assert "|  | one | two |" in told and "population standard deviation" in told
    for text in ("realcompo bench generate two", "realcompo bench score one", "5 + 1000 · prompt", "digest", "SHA-256"):
        assert text in told, text
    html = page(runs, "realcompo bench report one two", {})
    first = runs[0].scores.metrics[0]
    assert f"<td>{first}</td>" in html and "<th>two</th>" in html


def test_published_figures_are_shown_in_their_setting_alone(tmp_path, request_of, published_text):
    runs = read_runs([reported(tmp_path, request_of, "one")])
    assert published_beside(runs) == (
        None,
        "Wang et al. 2024 (TokenCompose), table 1 has figures of another setting than one: 4 prompts, not 1000.",
    )
    official = tmp_path / "official.json"
    official.write_text(published_text("multigen_coco_5x1000.json"))
    request = request_of(prompts=official, pictures=10)
    run = Run.open(tmp_path / "whole", request, "test")
    document = {
        "asked": run.asked,
        "models": {"detector": {"name": "google/owlv2-large-patch14-ensemble"}},
        "scores": {"metrics": [], "groups": {}, "missing": []},
        **{"pictures": 10000, "scored": 10000, "success": [], "problems": [], "commands": [], "versions": ""},
    }
    (run.folder / "scores.json").write_text(json.dumps(document))
    known, sentence = published_beside(read_runs([run.folder]))
    assert known.rows["TokenCompose"]["MG3"] == "76.16 ± 1.04" and "their own" in sentence
    document["scored"] = 9999
    (run.folder / "scores.json").write_text(json.dumps(document))
    assert published_beside(read_runs([run.folder]))[1].endswith("only 9999 of 10000 pictures are scored.")
    assert "*76.16 ± 1.04*" not in markdown(read_runs([run.folder]), "test")


def test_runs_of_several_benchmarks_do_not_stand_in_one_table(tmp_path, request_of):
    folders = [
        reported(tmp_path, request_of, "one"),
        reported(tmp_path, request_of, "ade", benchmark="multigen-ade20k"),
    ]
    with pytest.raises(RealCompoError, match="several benchmarks .multigen-ade20k, multigen-coco."):
        read_runs(folders)


# Found by trying.


def test_a_picture_looked_at_by_another_shard_before_it_changed_is_seen_again(drawn):
    drawn.keep_experts(Experts(DIGEST).identity)
    for part in (Shard(0, 2), Shard(1, 2)):
        look(drawn, Experts(DIGEST), part, lambda _: None)
    Image.new("RGB", (96, 64), "red").save(drawn.pictures[Picture(1, 0)])
    look(drawn, Experts(DIGEST), Shard(), lambda _: None)
    assert len(drawn.seen()) == 8 and not score(drawn, "test").problems


def test_a_picture_that_breaks_later_says_so(drawn):
    looked_at(drawn)
    path = drawn.pictures[Picture(1, 0)]
    path.write_bytes(path.read_bytes()[:500])
    looked_at(drawn)
    assert dict(score(drawn, "test").problems)["1_0.png"].startswith("unreadable")


def test_a_model_that_gives_no_number_is_told(drawn):
    def find(picture, names):
        return [Detection(names[0], (0, 0, 9, 9), float("inf"))]

    look(drawn, Experts(replace(DIGEST, find=find)), Shard(), lambda _: None)
    assert not drawn.seen()
    with pytest.raises(RealCompoError, match="no picture of .* has been looked at"):
        score(drawn, "test")


def test_prompts_may_be_called_like_a_file_of_the_run(tmp_path, request_of):
    run = Run.open(tmp_path / "run", request_of(prompts=write_prompts(tmp_path, name="scores.json")), "test")
    draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
    score(looked_at(run), "test")
    assert score(Run(run.folder), "test").scored == 8


def test_files_beside_the_pictures_grow_with_the_run(tmp_path, request_of):
    for limit in (1, 3):
        run = Run.open(tmp_path / "run", request_of(layout="geneval", limit=limit), "test")
        assert len(list(run.folder.rglob("metadata.jsonl"))) == limit


def test_pictures_are_read_as_a_viewer_shows_them(tmp_path):
    grey = Image.fromarray(np.array([[0, 20000, 40000, 65535]], np.uint16))
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    for name, picture, pixels in (
        ("grey.png", grey, [(v, v, v) for v in (0, 78, 156, 255)]),
        ("clear.png", clear, [(255, 255, 255), (255, 0, 0)]),
    ):
        picture.save(tmp_path / name)
        read = read_picture(tmp_path / name)
        assert [read.getpixel((x, 0)) for x in range(read.width)] == pixels
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "numbers.tiff")
    with pytest.raises(RealCompoError, match="mode is F"):
        read_picture(tmp_path / "numbers.tiff")


def test_a_folder_without_the_pictures_says_how_they_are_named(tmp_path):
    (tmp_path / "made").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "made" / "0_0.jpg")
    given = ("--benchmark", write_prompts(tmp_path), "--source", tmp_path / "made")
    result = invoke("generate", tmp_path / "run", *given)
    assert result.exit_code == 1 and "the first is 0_0.png, and there is 0_0.jpg" in said(result)


def test_scores_of_runs_that_are_not_alike_or_not_new_are_told(tmp_path, request_of):
    folders = [reported(tmp_path, request_of, "one"), reported(tmp_path, request_of, "two", limit=2, seed=5)]
    told = markdown(read_runs(folders), "test")
    assert "not of one setting: they differ in limit, seed." in told and "| pictures scored | 8 of 8 | 4 of 4 |" in told
    next(iter(Run(folders[0]).pictures.values())).unlink()
    assert "7 pictures are seen now: the scores are older" in markdown(read_runs(folders), "test")


def test_what_is_damaged_is_named(tmp_path, request_of):
    folder = reported(tmp_path, request_of, "one")
    for name, content in (("scores.json", "{}"), ("seen/models.json", "[1]"), ("run.json", '{"asked": {}}')):
        whole = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(RealCompoError, match=f"{name} is damaged"):
            markdown(read_runs([folder]), "test")
            _ = Run(folder).experts
        (folder / name).write_text(whole)
