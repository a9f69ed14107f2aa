import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from realcompo_cli.main import app
from realcompo_core.layout import Layout, LayoutObject

FILES = {"layout.json", "layout.png", "fidelity.png", "spatial.png", "balanced.png", "report.png", "report.html"}
PROMPT = "a red circle to the left of a blue square"


def run(*arguments, **kwargs):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **kwargs)


def flat(text):
    """A panel's text without frame and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def glued(text):
    """The same without any space: a long path is broken anywhere."""
    return flat(text).replace(" ", "")


@pytest.fixture
def random_models(monkeypatch):
    """The bundled models with random weights."""
    from shapescenes import judge, models

    def load(name):
        torch.manual_seed(0)
        parts = {"vae": models.vae, "text_encoder": models.text_encoder, "unet": models.unet, "judge": judge.Judge}
        return parts[name]().state_dict() if name in parts else models.unet(gated=True).state_dict()

    monkeypatch.setattr(models, "load", load)
    monkeypatch.setattr(judge, "load", load)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_help_loads_no_heavy_library():
    code = (
        "import sys\nfrom realcompo_cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "providers" in result.stdout and result.stdout.rstrip().endswith("[]")


def test_runs_as_a_module():
    command = [sys.executable, "-m", "realcompo_cli", "generate", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "--spatial" in result.stdout


def test_layout_from_a_reply(tmp_path):
    reply = tmp_path / "reply.txt"
    reply.write_text("Sure! [{'phrase': 'a cat', 'box': [0.1, 0.2, 0.5, 0.9]}]", encoding="utf-8")
    picture, data = tmp_path / "new" / "l.png", tmp_path / "l.json"
    result = run("layout", "a cat", "--reply", reply, "--size", "300x200", "--output", picture, "--json", data)
    assert result.exit_code == 0, result.output
    assert "a cat" in result.output and "0.900" in result.output
    assert Image.open(picture).size == (300, 200)
    assert Layout.from_json(data.read_text(encoding="utf-8")).objects[0].box == (0.1, 0.2, 0.5, 0.9)


def test_layout_takes_the_format_of_a_reply(tmp_path):
    files = ("--output", tmp_path / "layout.png", "--json", tmp_path / "layout.json")
    reply = "[{'label': 'a cat', 'bbox': [100, 150, 250, 300]}]"
    boxes = {}
    for format in ("auto", "xyxy", "xywh", "yxyx"):
        result = run("layout", "a cat", "--reply", "-", "--format", format, *files, input=reply)
        assert result.exit_code == 0, result.output
        found = json.loads((tmp_path / "layout.json").read_text(encoding="utf-8"))
        boxes[format] = [round(edge * 512) for edge in found["objects"][0]["box"]]
        assert (format == "auto") == ("warnings" in found) == ("note: The boxes are read as" in result.stderr)
    assert boxes == {
        "auto": [100, 150, 250, 300],
        "xyxy": [100, 150, 250, 300],
        "xywh": [100, 150, 350, 450],
        "yxyx": [150, 100, 300, 250],
    }
    result = run("layout", "a cat", "--format", "xywh", *files)
    assert result.exit_code != 0 and "--format says nothing about the provider rules" in result.stderr


def test_layout_prints_the_schema_of_its_files_and_asks_for_no_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("layout", "--schema")
    assert result.exit_code == 0 and names(tmp_path) == set()
    schema = json.loads(result.stdout)
    jsonschema.validate(Layout((LayoutObject("a cat", (0, 0, 1, 1)),)).to_dict(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1}, schema)


def test_layout_from_standard_input_notes_what_it_clipped(tmp_path):
    with_overhang = "[('a cat', [0.1, 0.2, 1.05, 0.9])]"
    files = "--output", tmp_path / "l.png", "--json", tmp_path / "l.json"
    result = run("layout", "a cat", "--reply", "-", *files, input=with_overhang)
    assert result.exit_code == 0 and "clipped" in result.output


def test_layout_is_changed_by_instructions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = LayoutObject("a cat", (0.6, 0.5, 0.8, 0.9)), LayoutObject("a dog", (0.1, 0.5, 0.3, 0.9))
    Path("first.json").write_text(Layout(objects, prompt="a cat and a dog").to_json())
    turns = ("--instruction", "move the cat to the left", "--instruction", "move it up")
    result = run("layout", "--from", "first.json", *turns)
    assert result.exit_code == 0, result.output
    layout = Layout.from_json(Path("layout.json").read_text())
    assert [item.box for item in layout.objects] == [(0.4, 0.3, 0.6, 0.7), (0.1, 0.5, 0.3, 0.9)]
    assert layout.prompt == "a cat and a dog"
    result = run("layout", "--from", "layout.json", "--instruction", "add a red ball")
    assert result.exit_code == 0 and "note: the prompt to encode has changed" in flat(result.output), result.output
    assert Layout.from_json(Path("layout.json").read_text()).prompt == "a cat and a dog, a red ball"


def test_layout_is_changed_by_a_reply(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = torch.ones(4, 4).numpy()
    first = Layout((LayoutObject("a cat", (0.0, 0.0, 1.0, 1.0), mask),), prompt="a cat")
    Path("first.json").write_text(first.to_json())
    reply = '[{"phrase": "a cat", "box": [0.0, 0.5, 1.0, 1.0]}]'
    result = run("layout", "--from", "first.json", "--reply", "-", input=reply)
    assert result.exit_code == 0, result.output
    [cat] = Layout.from_json(Path("layout.json").read_text()).objects
    assert cat.box == (0.0, 0.5, 1.0, 1.0) and cat.mask.tolist() == [[False] * 4] * 2 + [[True] * 4] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what the picture shows"),
        (("a cat", "--instruction", "move it"), "give it with --from"),
        (("--from", "layout.json"), "say what to change with --instruction"),
        (("--from", "layout.json", "--instruction", "paint it red"), "cannot read the instruction 'paint it red'"),
        (("a dog", "--from", "layout.json", "--instruction", "move the cat left"), "'a cat' is not in the prompt"),
    ],
)
def test_layouts_and_instructions_want_each_other(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("layout.json").write_text(Layout((LayoutObject("a cat", (0, 0, 1, 1)),), prompt="a cat").to_json())
    result = run("layout", *arguments)
    assert result.exit_code in (1, 2) and message in flat(result.output), result.output
    assert names(tmp_path) == {"layout.json"}


@pytest.fixture
def pose_file(tmp_path):
    """Three people as the OpenPose program writes them, in a picture of 300 x 200 pixels."""
    people = [[v for i in range(18) for v in (x + i % 2 * 20, 20 + 9 * i, 0.9)] for x in (20, 120, 220)]
    path = tmp_path / "pose_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": points} for points in people]}))
    return path


def test_layout_from_keypoints_and_its_stick_figures(tmp_path, pose_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompt = "two dancers and a boy"
    result = run("layout-from", pose_file, prompt, "--phrases", "two dancers, a boy", "--canvas", "300x200")
    assert result.exit_code == 0 and "two dancers" in result.output, result.output
    layout = Layout.from_json(Path("layout.json").read_text())
    assert [item.phrase for item in layout.objects] == [
        "two dancers",
        "two dancers",
        "a boy",
    ] and layout.prompt == prompt
    chosen = ("--people", "2, 0", "--region", "box", "--canvas", "300x200")
    result = run("layout-from", pose_file, "a girl and a boy", "--phrases", "a girl, a boy", *chosen)
    assert result.exit_code == 0, result.output
    layout = Layout.from_json(Path("layout.json").read_text())
    assert layout.objects[0].box[0] > 0.5 > layout.objects[1].box[0] and layout.objects[0].region == "box"
    result = run("control-picture", "layout.json", "--kind", "openpose", "--size", "150x100", "--output", "pose.png")
    assert result.exit_code == 0, result.output
    picture = Image.open("pose.png")
    assert picture.size == (150, 100) and picture.getpixel((110, 10)) == (255, 0, 0), "the girl's nose"
    assert picture.crop((60, 0, 100, 100)).getextrema() == ((0, 0),) * 3


def test_layout_from_a_segmentation_that_control_picture_drew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = LayoutObject("a gizmo", (0, 0.5, 0.5, 1)), LayoutObject("the sky", (0, 0, 1, 0.5))
    Path("layout.json").write_text(Layout(objects).to_json())
    result = run("control-picture", "layout.json", "--classes", "gizmo=toy", "--size", "64x32")
    assert result.exit_code == 0 and Image.open("control.png").size == (64, 32), result.output
    phrases = "a gizmo=toy, the sky"
    result = run("layout-from", "control.png", "a gizmo under the sky", "--phrases", phrases, "--json", "again.json")
    assert result.exit_code == 0, result.output
    again = Layout.from_json(Path("again.json").read_text())
    assert [(item.phrase, item.box) for item in again.objects] == [(item.phrase, item.box) for item in objects]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("layout-from", "pose_keypoints.json", "boys", "--phrases", "boys"), "give the picture's width and height"),
        (("layout-from", "pose_keypoints.json", "boys", "--phrases", "a boy, a boy"), "3 people but 2 phrases"),
        (("layout-from", "pose_keypoints.json", "boys", "--phrases", "boys", "--palette", "ADE20K"), "--palette says"),
        (("layout-from", "text.png", "boys", "--phrases", "boys"), "cannot read the segmentation text.png"),
        (("layout-from", "text.png", "boys", "--phrases", "boys", "--people", "0"), "--people says nothing"),
        (("control-picture", "layout.json", "--kind", "openpose"), "none of its objects has keypoints"),
        (("control-picture", "layout.json", "--kind", "openpose", "--classes", "a=b"), "--classes says nothing"),
        (("control-picture", "layout.json"), "'a gizmo' is none of the palette's 150 classes"),
    ],
)
def test_layouts_and_control_pictures_that_cannot_be(tmp_path, pose_file, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    Path("layout.json").write_text(Layout((LayoutObject("a gizmo", (0, 0, 1, 1)),)).to_json())
    result = run(*arguments)
    assert result.exit_code in (1, 2) and message in flat(result.output), result.output
    assert names(tmp_path) == {"text.png", "layout.json", "pose_keypoints.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--provider", "nobody"), "no layout provider 'nobody'"),
        (("--output", "{tmp}/file/l.png"), "cannot write"),
    ],
)
def test_errors_are_one_panel(tmp_path, arguments, message):
    (tmp_path / "file").write_text("not a folder")
    result = run("layout", "a cat", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 1
    assert "╭─ error" in result.output and message in flat(result.output) and "Traceback" not in result.output


def test_prompt_is_never_read_as_markup(tmp_path):
    files = "--output", tmp_path / "l.png", "--json", tmp_path / "l.json"
    result = run("layout", "a cat [/red]", "--reply", "-", *files, input="[('a cat', [0, 0, 1, 1])]")
    assert result.exit_code == 0 and "[/red]" in result.output


@pytest.mark.parametrize("size", ["512", "0x10", "ax5", "512x99999"])
def test_size_that_is_none(size):
    result = run("layout", "a cat", "--size", size)
    assert result.exit_code == 2 and "is no size" in flat(result.output)


def test_providers_shows_profiles_but_no_key(tmp_path, monkeypatch):
    path = tmp_path / "providers.json"
    mine = '{"url": "http://localhost:1/v1", "model": "m", "key": "secret-key"}'
    path.write_text(f'{{"mine": {mine}, "bad": {{"url": "x"}}}}')
    monkeypatch.setenv("REALCOMPO_PROVIDERS", str(path))
    result = run("providers", env={"COLUMNS": "300"})
    assert result.exit_code == 0 and "secret-key" not in result.output
    assert "m at http://localhost:1/v1, with key" in result.output and "no http address" in result.output
    assert "providers.json" in glued(result.output)


def test_demo_writes_pictures_and_report(tmp_path, random_models):
    result = run("demo", PROMPT, "--steps", 4, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == FILES
    assert all(str(name) in result.output.replace("\n", "") for name in FILES)
    assert Image.open(tmp_path / "balanced.png").size == (128, 128)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)|url\((?!#)|@import|<link|<script', page), "external resources"
    for text in (PROMPT, "Judge:", "Loss", "4 steps of", "torch"):
        assert text in page


def test_demo_repeats_itself(tmp_path, random_models):
    for name in ("one", "two"):
        assert run("demo", "a red circle", "--steps", 2, "--seed", 3, "--output", tmp_path / name).exit_code == 0
    pictures = [(tmp_path / name / "balanced.png").read_bytes() for name in ("one", "two")]
    assert pictures[0] == pictures[1]


def test_demo_of_an_absence_says_that_nothing_was_balanced(tmp_path, random_models):
    result = run("demo", "a scene without red circles", "--steps", 2, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == FILES - {"fidelity.png", "spatial.png"}
    assert "no objects" in flat(result.output)
    assert "no objects" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_weights_fixed_by_region(tmp_path, random_models):
    """All of the spatial branch on the objects and none elsewhere is neither branch alone, and the report says so."""
    common = ("demo", PROMPT, "--steps", 2, "--mode", "fixed", "--output", tmp_path, "--spatial-weight", 1)
    result = run(*common, "--spatial-weight-outside", 0)
    assert result.exit_code == 0, result.output
    pictures = {name: Image.open(tmp_path / f"{name}.png").tobytes() for name in ("fidelity", "spatial", "balanced")}
    assert len(set(pictures.values())) == 3
    assert "weight is 1 on the objects, 0 elsewhere" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert run(*common).exit_code == 0
    assert Image.open(tmp_path / "balanced.png").tobytes() == pictures["spatial"]


@pytest.mark.parametrize("option", ["--spatial-weight", "--spatial-weight-outside"])
def test_a_weight_without_the_mode_that_has_it_is_refused(tmp_path, random_models, option):
    result = run("demo", PROMPT, option, 0.5, "--output", tmp_path)
    assert result.exit_code == 1 and f"{option} 0.5 has no meaning with --mode one_pass" in flat(result.output)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--t0", 0.25, "--t1", 0.5), ("the spatial branch alone until 25%", "then balanced until 50%")),
        (("--mode", "lookahead", "--t1", 1), ("lookahead", "balanced to the end<")),
        (
            ("--mode", "fixed", "--spatial-weight", 0.8, "--schedule", "linear", "--t0", 0.25),
            (
                "alone until 25% of the steps, then the spatial branch&#x27;s weight 0.8 everywhere, falling to 0 "
                "everywhere (linear) until 60% of the steps, then the fidelity branch alone",
            ),
        ),
        (
            ("--mode", "fixed", "--schedule", "step", "--t1", 0.5),
            ("fixed, the spatial branch&#x27;s weight 0.5 everywhere until 50% of the steps, then the fidelity",),
        ),
    ],
)
def test_phases_are_options_and_the_report_says_them(tmp_path, random_models, arguments, facts):
    result = run("demo", PROMPT, "--steps", 4, *arguments, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [fact for fact in facts if fact not in page] == []


def test_a_step_schedule_that_ends_at_once_is_the_fidelity_branch(tmp_path, random_models):
    fixed = "--mode", "fixed", "--schedule", "step", "--spatial-weight", 1
    assert run("demo", PROMPT, "--steps", 2, *fixed, "--t1", 0, "--output", tmp_path).exit_code == 0
    pictures = {name: Image.open(tmp_path / f"{name}.png").tobytes() for name in ("fidelity", "spatial", "balanced")}
    assert pictures["balanced"] == pictures["fidelity"] != pictures["spatial"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedule", "linear"), "--schedule linear has no meaning with --mode one_pass: take --mode fixed"),
        (
            ("--mode", "fixed", "--t0", 0.2),
            "--t0 0.2 has no meaning with --schedule constant: take --schedule step, linear",
        ),
        (("--mode", "fixed", "--t1", 0.2), "--t1 0.2 has no meaning with --schedule constant"),
    ],
)
def test_a_phase_without_meaning_is_refused(tmp_path, random_models, arguments, message):
    result = run("demo", PROMPT, *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 1 and message in flat(result.output)
    assert not (tmp_path / "out").exists()


SWEEP = "sweep", PROMPT, "--x", "t0=0,0.5", "--y", "beta=0.3,1", "--set", "steps=2"


def table(folder: Path) -> list[dict]:
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def samplings(monkeypatch):
    """The settings of every call of the pipeline."""
    from realcompo_core.diffusers import RealCompoPipeline

    calls, call = [], RealCompoPipeline.__call__

    def counted(self, *args, **kwargs):
        calls.append(kwargs)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(RealCompoPipeline, "__call__", counted)
    return calls


def test_report_names_the_layout_guidance_that_the_branch_had(tmp_path, random_models):
    for system, moves in (("v1", "one move"), ("v3", "up to 5 moves")):
        assert run("demo", PROMPT, "--steps", 2, "--system", system, "--output", tmp_path).exit_code == 0
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"Layout Guidance</dt><dd>{moves} of the spatial branch" in page


def test_sweep_draws_every_cell_once(tmp_path, random_models, samplings):
    result = run(*SWEEP, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == {"cells", "sweep.png", "sweep.csv", "sweep.json"}
    assert [(call["balance"].t0, call["beta"]) for call in samplings] == [(0, 0.3), (0.5, 0.3), (0, 1), (0.5, 1)]
    rows = table(tmp_path)
    assert [(row["t0"], row["beta"]) for row in rows] == [("0", "0.3"), ("0.5", "0.3"), ("0", "1"), ("0.5", "1")]
    assert all(0 <= int(row["found"]) <= int(row["objects"]) == 2 for row in rows)
    grid = Image.open(tmp_path / "sweep.png")
    assert grid.size[0] > 2 * 256 and grid.size[1] > 2 * 256
    document = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert document["axes"] == {"t0": ["0", "0.5"], "beta": ["0.3", "1"]} and document["settings"]["steps"] == 2
    assert "spatial_weight" not in document["settings"], "which this mode has not"

    cell = tmp_path / rows[1]["picture"]
    assert run("demo", PROMPT, "--steps", 2, "--t0", 0.5, "--output", tmp_path / "demo").exit_code == 0
    last = tmp_path / rows[3]["picture"]
    assert Image.open(last).tobytes() == Image.open(tmp_path / "demo" / "balanced.png").convert("RGB").tobytes()
    assert Image.open(cell).size == (128, 128)


def test_sweep_runs_only_what_is_not_there(tmp_path, random_models, samplings):
    assert run(*SWEEP, "--output", tmp_path).exit_code == 0
    before = table(tmp_path)
    samplings.clear()
    again = run("sweep", PROMPT, "--x", "t0=0,0.5,0.25", "--y", "beta=1", "--set", "steps=2", "--output", tmp_path)
    assert again.exit_code == 0 and "2 of 3 cells are there already" in again.output
    assert [call["balance"].t0 for call in samplings] == [0.25]
    assert [row["picture"] for row in table(tmp_path)[:2]] == [row["picture"] for row in before[2:]]
    samplings.clear()
    assert run(*SWEEP, "--set", "seed=8", "--output", tmp_path).exit_code == 0
    assert len(samplings) == 4, "another seed is another picture"


def test_stopped_sweep_keeps_what_is_finished_and_goes_on(tmp_path, random_models, samplings, monkeypatch):
    from realcompo_cli.sweep import JudgedPicture

    numbers = JudgedPicture.numbers

    def stopped(self, subject, arguments, *args):
        if len(samplings) == 3:
            raise KeyboardInterrupt
        return numbers(self, subject, arguments, *args)

    with monkeypatch.context() as patch:
        patch.setattr(JudgedPicture, "numbers", stopped)
        result = run(*SWEEP, "--output", tmp_path)
    assert result.exit_code == 130 and "Kept:" in result.output and "sweep.png" in result.output.replace("\n", "")
    assert len(table(tmp_path)) == 2
    samplings.clear()
    assert run(*SWEEP, "--output", tmp_path).exit_code == 0
    assert len(samplings) == 2 and len(table(tmp_path)) == 4


def test_sweep_with_held_out_scenes_gives_accuracy_and_realism(tmp_path, random_models, samplings):
    given = "--set", "steps=1", "--set", "layout-guidance=0.4"
    result = run("sweep", PROMPT, "--x", "t1=0,1", *given, "--prompts", 22, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert {call["balance"].layout_guidance.until for call in samplings} == {0.4}
    # For each cell: its picture, then the scenes in two batches.
    assert [call["seed"] for call in samplings] == [7, 7, 27] * 2
    for row in table(tmp_path):
        assert 0 <= float(row["accuracy_all"]) <= 1 and float(row["realism"]) > 0
    document = (tmp_path / "sweep.json").read_text(encoding="utf-8")
    assert "22 held-out scenes" in document and "until=0.4" in document


def test_sweep_of_own_models_says_what_it_can_measure(tmp_path, folder, samplings):
    """Attention and the difference from the fidelity model's own picture, which is drawn once for each guidance."""
    models = "--fidelity", folder, "--spatial", folder, "--device", "cpu", "--set", "layers=2", "--set", "steps=3"
    axes = "--x", "mode=one_pass,fixed", "--y", "cfg=1,3"
    result = run("sweep", PROMPT, *axes, *models, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(samplings) == 4 + 2
    rows = table(tmp_path / "out")
    assert [row["attention_inside"] == "" for row in rows] == [False, True, False, True]
    # Without GLIGEN both models are one, so that nothing is lost of the fidelity model's picture.
    assert [float(row["difference"]) for row in rows] == [0.0] * 4
    assert "RMS difference" in (tmp_path / "out" / "sweep.json").read_text(encoding="utf-8")


def test_sweep_forgets_cells_of_models_that_changed(tmp_path, folder, samplings):
    models = "--fidelity", folder, "--spatial", folder, "--device", "cpu", "--set", "layers=2", "--set", "steps=1"
    command = "sweep", PROMPT, "--x", "t0=0", *models, "--output", tmp_path / "out"
    assert run(*command).exit_code == 0
    samplings.clear()
    assert run(*command).exit_code == 0 and not samplings
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert run(*command).exit_code == 0 and samplings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--x", "t0"), "--x is 't0': write a setting and its values, such as t0=0,0.2,0.4"),
        (("--x", "t0=0", "--set", "steps"), "--set is 'steps': write a setting and its value"),
        (("--x", "width=64"), "'width' is no setting that can be swept"),
        (("--x", "t0=0", "--set", "rate=1", "--set", "rate=2"), "--set has rate twice"),
        (("--x", "layers=2,7"), "layers=7 matches none"),
        (("--x", "layout-guidance=0,0.4", "--system", "v3"), "the spatial branch has Layout Guidance of its own"),
        (("--x", "t0=0", "--dtype", "fp16"), "--dtype has no meaning with the bundled models"),
        (("--x", "t0=0", "--fidelity", "."), "no spatial branch: name a model"),
        (("--x", "t0=0", "--fidelity", ".", "--spatial", ".", "--prompts", 9), "no judge can tell"),
    ],
)
def test_sweep_refuses_before_it_samples(tmp_path, random_models, samplings, arguments, message):
    result = run("sweep", PROMPT, *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 1 and message in flat(result.output)
    assert not samplings and not (tmp_path / "out").exists()


def test_sweep_without_objects_is_refused(tmp_path, random_models):
    result = run("sweep", "a scene without red circles", "--x", "t0=0", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "the layout has no objects" in flat(result.output)


def test_demo_names_the_words_it_does_not_know(tmp_path):
    result = run("demo", "a red cat and a circle", "--output", tmp_path / "out")
    message = flat(result.output)
    assert result.exit_code == 1 and "'cat'" in message and "'red'" not in message
    assert "triangle" in message and "purple" in message
    assert not (tmp_path / "out").exists()


def test_stopped_demo_says_what_it_kept(tmp_path, random_models, monkeypatch):
    from realcompo_cli import runs

    sample = runs.sample

    def stopped(pipeline, name, *args):
        if name == "spatial":
            raise KeyboardInterrupt
        return sample(pipeline, name, *args)

    monkeypatch.setattr(runs, "sample", stopped)
    result = run("demo", PROMPT, "--steps", 2, "--output", tmp_path)
    assert result.exit_code == 130 and "Kept:" in result.output and "Traceback" not in result.output
    assert names(tmp_path) == {"layout.json", "layout.png", "fidelity.png"}
    assert "fidelity.png" in result.output.replace("\n", "")


@pytest.fixture
def folder(tmp_path, random_models):
    from shapescenes.models import pipelines

    pipelines()[0].save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_generate_with_own_models_and_layout(tmp_path, folder):
    layout = tmp_path / "given.json"
    layout.write_text(Layout((LayoutObject("a circle", (0.1, 0.1, 0.6, 0.6)),)).to_json(), encoding="utf-8")
    options = "--layout", layout, "--steps", 2, "--size", "128x192", "--device", "cpu", "--output", tmp_path / "out"
    result = run("generate", "a red circle", "--fidelity", folder, "--spatial", folder, *options)
    # 4, the default of `layers`, does not exist in so small a network.
    assert result.exit_code == 1 and "layers=4 matches none" in flat(result.output)
    result = run("generate", "a red circle", "--fidelity", folder, "--spatial", folder, *options, "--layers", 2)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == FILES - {"fidelity.png", "spatial.png"}
    assert Image.open(tmp_path / "out" / "balanced.png").size == (128, 192)


def test_generate_names_the_model_it_cannot_load(tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 100)
    options = "--device", "cpu", "--output", tmp_path / "out"
    for path in (tmp_path / "empty", broken):
        result = run("generate", "a cat", "--fidelity", path, "--spatial", path, *options, env={"COLUMNS": "1000"})
        assert result.exit_code == 1 and f"cannotload{path}" in glued(result.output), result.output
        assert "diffusers folder" in flat(result.output)


def test_generate_names_a_device_that_is_not_there(tmp_path, folder):
    options = "--device", "warp", "--output", tmp_path / "out"
    result = run("generate", "a circle", "--fidelity", folder, "--spatial", folder, *options)
    assert result.exit_code == 1 and "'warp'" in result.output and "best one here" in flat(result.output)


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    from realcompo_cli.files import Files, OutputError

    files = Files(tmp_path)
    files.write("a.txt", "old")

    def disk_is_full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_is_full)
    with pytest.raises(OutputError, match="a.txt: No space left"):
        files.write("a.txt", "new")
    assert names(tmp_path) == {"a.txt"} and (tmp_path / "a.txt").read_text() == "old"
