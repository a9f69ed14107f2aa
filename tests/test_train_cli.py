"""`realcompo prepare`, `check`, `shards` and `train`, on drawn scenes and the bundled model."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from realcompo_cli.main import app
from shapescenes.drawing import draw
from shapescenes.models import pipelines
from shapescenes.world import training_scene

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = "--size 128x128 --batch-size 2 --accumulation 1 --learning-rate 1e-3 --no-checkpointing --device cpu".split()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flat(text):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture
def scenes(tmp_path):
    """Five scenes as images, captions and masks of each shape, as a user would have them."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for i in range(5):
        scene = training_scene(9, i, (0, 1, 0, 0))
        Image.fromarray(draw(scene, "rendered", i)).save(images / f"{i}.png")
        (images / f"{i}.txt").write_text(scene.prompt.caption)
        (masks / str(i)).mkdir(parents=True)
        for item, mask in zip(scene.objects, scene.masks(), strict=True):
            Image.fromarray(mask.astype(np.uint8) * 255).save(masks / str(i) / f"{item.kind.shape}.png")
    return images, masks


@pytest.fixture
def data(scenes, tmp_path):
    """`scenes` as a set in the official format."""
    images, masks = scenes
    lines = []
    for path in sorted(images.glob("*.txt")):
        found = sorted((masks / path.stem).iterdir())
        nouns = [[mask.stem, str(mask.relative_to(tmp_path))] for mask in found if mask.stem in path.read_text()]
        lines.append({"file_name": f"images/{path.stem}.png", "text": path.read_text(), "attn_list": nouns})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "metadata.jsonl"


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_prepared_set_passes_the_check(scenes, tmp_path):
    pytest.importorskip("HanTa", reason="the default tagger is HanTa")
    images, masks = scenes
    result = run("prepare", images, "--masks", masks, "--output", tmp_path / "set", "--device", "cpu")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()]
    assert len(records) == 5 and any(mask for record in records for _, mask in record["attn_list"])
    result = run("check", tmp_path / "set")
    assert result.exit_code == 0 and "5 records, no problem." in flat(result.output), result.output


def test_check_lists_every_problem_and_ends_with_1(data, tmp_path):
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    result = run("check", data)
    text = flat(result.output)
    assert result.exit_code == 1
    assert "metadata.jsonl:2: missing file" in text and "metadata.jsonl:4: undecodable image" in text
    assert "2 of 5 records have problems" in text


def test_set_is_written_as_shards_and_read_again(data, tmp_path):
    folder = tmp_path / "shards"
    result = run("shards", data, "--output", folder, "--per-shard", 2)
    assert result.exit_code == 0 and "5 records in 3 shards" in flat(result.output), result.output
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".tar", ".tar", ".tar"]
    result = run("check", folder)
    assert result.exit_code == 0 and "5 records, no problem." in flat(result.output), result.output
    result = run("train", folder, "--output", tmp_path / "run", "--steps", 1, *OPTIONS)
    assert result.exit_code == 0, result.output
    result = run("shards", folder, "--output", tmp_path / "joined")
    assert result.exit_code == 0 and "5 records in 1 shard." in flat(result.output), result.output


def test_shards_of_a_broken_set_are_not_written(data, tmp_path):
    (tmp_path / "images" / "1.png").unlink()
    result = run("shards", data, "--output", tmp_path / "shards")
    assert result.exit_code == 1 and "metadata.jsonl:2: missing file" in flat(result.output)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("shards")]
    result = run("shards", data, "--output", tmp_path / "images")
    assert result.exit_code == 1 and "is there already" in flat(result.output)


def test_training_refuses_bad_records_or_skips_them(data, tmp_path):
    (tmp_path / "images" / "1.png").unlink()
    result = run("train", data, "--output", tmp_path / "run", "--steps", 1, *OPTIONS)
    assert result.exit_code == 1 and "1 × missing file" in flat(result.output)
    result = run("train", data, "--output", tmp_path / "run", "--steps", 1, "--on-problem", "skip", *OPTIONS)
    assert result.exit_code == 0, result.output


def test_run_leaves_model_history_pictures_and_goes_on(data, tmp_path):
    folder = tmp_path / "run"
    words = ["--validation", 1, "--validate-every", 2, "--prompt", "a red circle", "--cache", *OPTIONS]
    result = run("train", data, "--output", folder, "--steps", 2, *words)
    assert result.exit_code == 0, result.output
    steps = [entry for entry in history(folder) if "ldm" in entry]
    assert [entry["step"] for entry in steps] == [1, 2]
    (validated,) = [entry for entry in history(folder) if "validation/ldm" in entry]
    assert {"validation/share", "validation/miou/16", "validation/miou/8"} <= validated.keys()
    assert Image.open(folder / "validation" / "step-000002-0.png").size == (128, 128)
    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["realcompo.step"]) == 2
    result = run("train", data, "--output", folder, "--steps", 3, *words)
    assert result.exit_code == 0, result.output
    assert [entry["step"] for entry in history(folder) if "ldm" in entry] == [1, 2, 3]


def test_lora_is_saved_as_such(data, tmp_path):
    result = run("train", data, "--output", tmp_path / "run", "--steps", 1, "--lora", 2, *OPTIONS)
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "run" / "lora.safetensors", "pt") as file:
        names = list(file.keys())
        assert json.loads(file.metadata()["realcompo.step"]) == 1
    assert names and all(name.startswith("unet.") and ".lora_" in name for name in names)


def test_a_set_that_is_not_checked_is_told_of_when_it_is_met(data, tmp_path):
    options = ["--no-check", "--steps", 3, *OPTIONS]
    (tmp_path / "images" / "1.png").unlink()
    result = run("train", data, "--output", tmp_path / "run", *options)
    assert result.exit_code == 0 and "left out: metadata.jsonl:2: missing file" in flat(result.output), result.output
    assert "Warning" not in result.output
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("".join(json.dumps({**line, "attn_list": []}) + "\n" for line in lines))
    result = run("train", data, "--output", tmp_path / "bare", *options)
    assert result.exit_code == 0 and "Warning: in 3 steps no noun of this set has a mask" in flat(result.output)


@pytest.mark.parametrize("rank", [0, 2])
def test_run_that_was_stopped_writes_the_very_same_files(data, tmp_path, monkeypatch, rank):
    """Byte for byte: the weights were the same, the order in the header was not."""
    options = ["--steps", 3, "--lora", rank, "--checkpoint-every", 1, *OPTIONS]
    assert run("train", data, "--output", tmp_path / "whole", *options).exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr("realcompo_cli.training._stop_on_interrupt", lambda tell: nullcontext(lambda: True))
        for _ in range(2):
            assert run("train", data, "--output", tmp_path / "stopped", *options).exit_code == 130
    assert run("train", data, "--output", tmp_path / "stopped", *options).exit_code == 0
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.safetensors"))
    assert [path.name for path in files] == ["lora.safetensors" if rank else "diffusion_pytorch_model.safetensors"]
    for path in files:
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "stopped" / path).read_bytes()


@pytest.fixture
def other_model(tmp_path):
    """A diffusers folder with the bundled model, its UNet and autoencoder slightly changed."""
    pipeline = copy.deepcopy(pipelines()[0])
    with torch.no_grad():
        for module in (pipeline.unet, pipeline.vae):
            for parameter in module.parameters():
                parameter.mul_(1.01)
    pipeline.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_another_model_size_rank_or_validation_does_not_go_on(data, tmp_path, other_model):
    """Each difference is named; `--lora 4` and then 8 was a traceback, the others were silent.

    So is another number of records held out, as it changes what is trained on.
    """
    folder = tmp_path / "run"
    result = run("train", data, "--output", folder, "--steps", 1, "--lora", 4, *OPTIONS)
    assert result.exit_code == 0, result.output
    for options, message in (
        (["--lora", 8], "LoRA rank 4 there, 8 now"),
        ([], "LoRA rank 4 there, 0 now"),
        (["--lora", 4, "--size", "64x128"], "size (height, width) (128, 128) there, (128, 64) now"),
        (["--lora", 4, "--model", other_model], "model weights"),
        (["--lora", 4, "--validation", 2], "records held out for validation 0 there, 2 now"),
    ):
        result = run("train", data, "--output", folder, "--steps", 2, *OPTIONS, *options)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
        assert message in flat(result.output) and "of another run" in flat(result.output)
    result = run("train", data, "--output", folder, "--steps", 2, "--lora", 4, *OPTIONS)
    assert result.exit_code == 0 and [entry["step"] for entry in history(folder)] == [1, 2], result.output


def test_another_model_has_a_cache_of_its_own(data, tmp_path, other_model):
    """A run that was stopped before its first checkpoint leaves its latents and texts behind."""
    folder, fresh = tmp_path / "run", tmp_path / "fresh"
    options = ["--steps", 1, "--cache", *OPTIONS]
    run("train", data, "--output", folder, *options)
    shutil.rmtree(folder / "checkpoints")
    for output in (folder, fresh):
        result = run("train", data, "--output", output, "--model", other_model, *options)
        assert result.exit_code == 0, result.output
    assert history(folder)[-1]["ldm"] == history(fresh)[-1]["ldm"]
    assert len(list((folder / "cache").iterdir())) == 2 and len(list((fresh / "cache").iterdir())) == 1


def test_checkpoint_of_an_older_version_goes_on_with_a_warning(data, tmp_path):
    """It does not say its model, size and rank. Weights that do not fit are refused nonetheless."""
    folder = tmp_path / "run"
    run("train", data, "--output", folder, "--steps", 1, "--lora", 4, *OPTIONS)
    path = folder / "checkpoints" / "checkpoint-000001.pt"
    state = torch.load(path, weights_only=True)
    for name in ("rank", "size", "model", "validation", "workers"):
        del state["settings"][name]
    torch.save(state, path)
    for options in (["--lora", 8], []):
        with pytest.warns(UserWarning, match="does not say its LoRA rank, size .height, width., model weights"):
            result = run("train", data, "--output", folder, "--steps", 2, *OPTIONS, *options)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
        assert "of another model or LoRA rank" in flat(result.output)
    with pytest.warns(UserWarning, match="goes on from it"):
        result = run("train", data, "--output", folder, "--steps", 2, "--lora", 4, *OPTIONS)
    assert result.exit_code == 0 and [entry["step"] for entry in history(folder)] == [1, 2], result.output


def test_history_that_was_cut_off_does_not_stop_the_run(data, tmp_path):
    folder = tmp_path / "run"
    run("train", data, "--output", folder, "--steps", 1, *OPTIONS)
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 2, "tot')
    result = run("train", data, "--output", folder, "--steps", 2, *OPTIONS)
    assert result.exit_code == 0 and [entry["step"] for entry in history(folder)] == [1, 2], result.output


def test_set_without_masks_is_warned_of(data, tmp_path):
    """It passed the check and trained with "inside nan"; the history held NaN, which is no JSON."""
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    bare = [{**line, "attn_list": [[noun, None] for noun, _ in line["attn_list"]]} for line in lines]
    assert f"{sum(len(line['attn_list']) for line in lines)} nouns with a mask" in flat(run("check", data).output)
    data.write_text("".join(json.dumps(line) + "\n" for line in bare))
    result = run("check", data)
    assert result.exit_code == 0 and "Warning: no noun of this set has a mask" in flat(result.output)
    result = run("train", data, "--output", tmp_path / "run", "--steps", 1, *OPTIONS)
    assert result.exit_code == 0 and "Warning: no noun of this set has a mask" in flat(result.output)
    assert "nan" not in result.output.lower() and history(tmp_path / "run")[0]["share"] is None
    result = run(
        "train", data, "--output", tmp_path / "none", "--steps", 1, "--token-weight", 0, "--pixel-weight", 0, *OPTIONS
    )
    assert result.exit_code == 0 and "Warning" not in result.output


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--preset", "sd1.4"], (512, 512)),
        (["--preset", "sd2.1"], (768, 768)),
        (["--preset", "sdxl"], (1024, 1024)),
        (["--preset", "sd2.1", "--size", "512x640"], (640, 512)),
    ],
)
def test_presets_set_the_size(data, tmp_path, monkeypatch, options, size):
    """sd2.1 and sdxl trained at 512, where the paper has 768 and SDXL is made for 1024."""
    asked = []

    class Asked(Exception):
        pass

    def trained(pipeline, settings, *rest):
        asked.append(settings.size)
        raise Asked

    monkeypatch.setattr("realcompo_cli.training.TrainingRun", trained)
    assert isinstance(run("train", data, "--output", tmp_path / "run", *options).exception, Asked) and asked == [size]


def test_shards_go_on_with_the_same_workers_only(data, tmp_path):
    """Their order depends on the number of workers: some records came twice, others not at all."""
    run("shards", data, "--output", tmp_path / "shards", "--per-shard", 2)
    words = ["train", tmp_path / "shards", "--output", tmp_path / "run", *OPTIONS]
    assert run(*words, "--steps", 1, "--workers", 1).exit_code == 0
    result = run(*words, "--steps", 2, "--workers", 2)
    assert result.exit_code == 1 and "workers that read shards 1 there, 2 now" in flat(result.output)


def test_mistakes_are_named(data, tmp_path):
    result = run("train", data, "--output", tmp_path / "run", "--model", "nowhere")
    assert result.exit_code == 1 and "there is no model nowhere" in flat(result.output)
    result = run("train", data, "--output", tmp_path / "run", "--size", "100x20")
    assert result.exit_code == 2 and "'100x20' is no size" in flat(result.output)
    result = run("train", data, "--output", tmp_path / "run", "--validation", 5, *OPTIONS)
    assert result.exit_code == 1 and "validation is 5 of 5 records" in flat(result.output)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_saves_and_leaves_with_a_code_of_its_own(data, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "realcompo_cli", "train", data, "--output", folder, "--steps", "100000", *OPTIONS]
    process = subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and not (folder / "history.jsonl").exists():
        time.sleep(0.1)
    while process.poll() is None and len(history(folder)) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output.decode()
    done = history(folder)[-1]["step"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"checkpoint-{done:06}.pt"]
    assert f"Stopped after {done} of 100000 steps" in flat(output.decode())
