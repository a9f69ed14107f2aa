"""`realcompo bench`: style, FID by another's package, and attention mIoU."""

import json
import sys
from types import ModuleType

import killed_bench
import numpy as np
import pytest
import torch
from PIL import Image
from test_bench_runs import DIGEST, invoke, said, write_prompts
from test_generate import folder, models, random_models  # noqa: F401 - fixtures
from training_set import write_metadata

from realcompo_cli.bench import grounding
from realcompo_cli.bench.drawing import draw
from realcompo_cli.bench.fidelity import fid_and_kid
from realcompo_cli.bench.layouts import Layouts
from realcompo_cli.bench.looking import Experts, look
from realcompo_cli.bench.run import Request, Run, Shard
from realcompo_cli.bench.scoring import STYLE, score
from realcompo_cli.bench.style import load_encoder, style_metrics
from realcompo_core.bench.style import cosine_distance, gram, gram_distance
from realcompo_core.errors import RealCompoError
from shapescenes.drawing import draw as draw_scene
from shapescenes.world import held_out_scenes


@pytest.fixture
def run_of(tmp_path):
    """`run_of(name, seed)`: two pictures of noise of four prompts, looked at."""

    def make(name, seed=0, texts=4):
        prompts = write_prompts(tmp_path, texts)
        run = Run.open(
            tmp_path / name, Request("multigen-coco", prompts, {"name": name}, pictures=2, seed=seed), "test"
        )
        draw(run, killed_bench.Source(tmp_path / "log.txt"), Layouts(), Shard(), lambda _: None)
        look(run, Experts(DIGEST), Shard(), lambda _: None)
        return run

    return make


# Style.


def test_gram_matrices_and_their_distance_by_hand():
    features = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]])  # two channels, four places
    assert gram(features).tolist() == [[14 / 4, 5 / 4], [5 / 4, 3 / 4]]
    one, two = torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert gram_distance([two, one], [one, one]) == pytest.approx(((4 + 9) ** 0.5 / 2**0.5) / 2)
    assert cosine_distance(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(1 - 0.5**0.5)


def test_where_things_are_is_no_matter_of_style():
    maps = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))
    assert gram_distance([gram(maps.flip(-1).roll(3, -2))], [gram(maps)]) == pytest.approx(0, abs=1e-6)


def test_real_and_flat_scenes_are_of_two_styles(tmp_path):
    encoder = load_encoder(None, "shapescenes", "cpu")
    scenes = held_out_scenes(7)[3:]
    real, again, flat = (
        [encoder.features(Image.fromarray(draw_scene(s, style, seed + i))) for i, s in enumerate(scenes)]
        for style, seed in (("rendered", 0), ("rendered", 50), ("flat", 0))
    )
    same = np.mean([encoder.distance(a, b) for a, b in zip(again, real, strict=True)])
    other = np.mean([encoder.distance(a, b) for a, b in zip(flat, real, strict=True)])
    assert other > 1.5 * same > 0


def test_distance_to_a_style_is_measured_prompt_by_prompt(run_of):
    alone, moved = run_of("alone"), run_of("moved", seed=9)
    encoder = load_encoder("shapescenes", "multigen-coco", "cpu")
    own, among = style_metrics(alone, list(alone.pictures), alone.folder, encoder)
    assert own.value == 0 and own.count == 8 and among.value > 0
    away = score(moved, "test", reference=alone.folder, encoder=encoder).scores.groups[STYLE][0]
    assert away.name.startswith("distance to the style of alone, by the judge") and away.value > 0 and away.lower
    for path in alone.pictures.values():
        path.unlink()
    with pytest.raises(RealCompoError, match="has no picture of the prompts"):
        style_metrics(moved, list(moved.pictures), alone.folder, encoder)


def test_an_encoder_without_a_reference_is_refused(run_of):
    result = invoke("score", run_of("alone").folder, "--encoder", "shapescenes")
    assert result.exit_code == 1 and "--encoder shapescenes has no meaning without --reference" in said(result)


# FID and KID.


def test_the_package_is_given_all_pictures_as_bytes(run_of, tmp_path, monkeypatch):
    run, given = run_of("run"), {}

    def calculate_metrics(**arguments):
        given.update(arguments)
        names = ("frechet_inception_distance", "kernel_inception_distance_mean", "kernel_inception_distance_std")
        return dict(zip(names, (12.5, 0.003, 0.001), strict=True))

    package = ModuleType("torch_fidelity")
    package.calculate_metrics = calculate_metrics
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    real = tmp_path / "real"
    real.mkdir()
    for i in range(3):
        Image.new("RGB", (40 + i, 30), (i, 0, 255)).save(real / f"{i}.png")
    fid, kid = fid_and_kid(list(run.pictures.values()), real, None)
    assert (fid.value, fid.count, kid.value, kid.std) == (12.5, 8, 3.0, 1.0)
    ours, theirs = given["input1"], given["input2"]
    assert len(ours) == 8 and len(theirs) == 3 and given["kid_subset_size"] == 3 and given["batch_size"] == 1
    first = np.asarray(Image.open(next(iter(run.pictures.values())))).transpose(2, 0, 1)
    assert ours[0].dtype == torch.uint8 and (ours[0].numpy() == first).all()
    assert theirs[2][:, 0, 0].tolist() == [2, 0, 255]


def test_without_the_package_it_is_named(run_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RealCompoError, match="pip install torch-fidelity"):
        fid_and_kid(list(run_of("run").pictures.values()), tmp_path, None)


# Attention mIoU.


@pytest.fixture
def outlined(tmp_path):
    """Two scenes with the masks of their first shapes; the second one's mask is not there."""
    records = []
    for index, scene in enumerate(held_out_scenes(2)):
        Image.fromarray(draw_scene(scene, "rendered", index)).save(tmp_path / f"{index}.png")
        mask = f"seg/{index}/shape.png"
        if index == 0:
            (tmp_path / "seg" / "0").mkdir(parents=True)
            Image.fromarray(scene.masks()[0]).save(tmp_path / mask)
        shape = scene.prompt.kinds[0].shape
        records.append({"file_name": f"{index}.png", "text": scene.prompt.caption, "attn_list": [[shape, mask]]})
    return write_metadata(tmp_path, records)


def test_attention_iou_of_two_models_on_outlined_pictures(outlined, tmp_path, monkeypatch):
    results = tmp_path / "results"
    given = ("attention", outlined, "--steps", 2, "--device", "cpu", "--output", results)
    result = invoke(*given)
    assert result.exit_code == 0, result.output
    assert "missing file" in said(result)
    for name in ("text_to_image", "tokencompose"):
        measured, failed = map(json.loads, (results / f"{name}.jsonl").read_text().splitlines())
        assert failed["where"] == "metadata.jsonl:2" and "missing file" in failed["problem"]
        (noun,) = measured["nouns"]
        assert 0 < noun["iou"] <= 1 and measured["psnr"] > 15
        assert f"{noun['iou']:.4f} (1)" in (results / "attention.md").read_text()

    def never(*_, **__):
        raise AssertionError("this picture was measured before")

    monkeypatch.setattr(grounding, "invert", never)
    assert invoke(*given).exit_code == 0
    other = invoke("attention", outlined, "--steps", 3, "--device", "cpu", "--output", results)
    assert other.exit_code == 1 and "has results of steps 2, not 3" in said(other)


# The user's models.


SMALL = ("--set", "steps=2", "--set", "width=64", "--set", "height=64", "--device", "cpu")


@pytest.mark.parametrize("balanced", [(), ("--layout-guidance",)], ids=["alone", "balanced"])
def test_models_from_the_disk_draw_by_themselves_and_balanced(models, balanced):  # noqa: F811
    (models / "mine.txt").write_text("a red circle and a blue square\n")
    layers = ("--set", "layers=2") if balanced else ()
    given = (
        "--benchmark",
        models / "mine.txt",
        "--source",
        models / "model",
        "--pictures",
        2,
        *SMALL,
        *balanced,
        *layers,
    )
    result = invoke("generate", models / "run", *given)
    assert result.exit_code == 0, result.output
    one, two = (Image.open(path) for path in Run(models / "run").pictures.values())
    assert one.size == two.size == (64, 64) and one.tobytes() != two.tobytes()
    assert (models / "run" / "layouts" / "0.json").exists() == bool(balanced)
    other = invoke("generate", models / "run", *given, "--fidelity-unet", models / "unet")
    assert other.exit_code == 1 and "its source.models.unet is" in said(other)
    again = invoke("generate", models / "other", *given, "--fidelity-unet", models / "unet")
    assert again.exit_code == 0, again.output
    assert Image.open(next(iter(Run(models / "other").pictures.values()))).tobytes() != one.tobytes()


def test_a_model_alone_refuses_what_only_a_balanced_one_knows(models):  # noqa: F811
    (models / "mine.txt").write_text("a red circle\n")
    given = ("--benchmark", models / "mine.txt", "--source", models / "model", "--device", "cpu")
    for options, named in ((("--set", "t0=0.2"), "--set t0"), (("--control", "openpose"), "--control")):
        result = invoke("generate", models / "run", *given, *options)
        assert result.exit_code == 1 and f"{named} has no meaning" in said(result), said(result)
