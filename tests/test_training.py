"""The training loop on a tiny pipeline: what one step computes, exact resume, interruption, checkpoints."""

import copy
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from realcompo_core.errors import RealCompoError
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.identity import model_fingerprint
from tokencompose_core.losses import grounding_losses, noun_targets
from tokencompose_core.order import EpochOrder
from tokencompose_core.runtime import Runtime
from tokencompose_core.supervision import SupervisedAttention
from tokencompose_core.training import TrainSettings, rate_factor, sample_generator, supervised_layers, train

SETTINGS = TrainSettings(
    steps=6, batch_size=2, accumulation=2, learning_rate=1e-3, token_weight=0.1, pixel_weight=0.05, checkpoint_every=2
)


def example(i):
    generator = torch.Generator().manual_seed(i)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 4:30] = masks[1, 20:60, 30 : 50 + i] = True
    image = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    return {
        "image": image,
        "caption": "a red circle and a blue square",
        "tokens": [[3], [7]],
        "masks": masks,
        "key": str(i),
    }


EXAMPLES = [example(i) for i in range(5)]


def batches(settings=SETTINGS, rank=0, processes=1):
    order = EpochOrder(len(EXAMPLES), settings.seed, rank, processes)
    return lambda first: ([EXAMPLES[i] for i in part] for part in order.batches(settings.batch_size, first))


@pytest.fixture
def model(tiny_pipelines):
    pipeline = copy.copy(tiny_pipelines.fidelity)
    pipeline.unet = copy.deepcopy(pipeline.unet)
    pipeline.unet.requires_grad_(True)
    return DiffusersModel(pipeline, checkpointing=False)


def run(model, settings=SETTINGS, **options):
    """The reports of a run and the trained weights."""
    reports = []
    done = train(model, batches(settings), settings, report=reports.append, **options)
    assert done == (reports[-1].step if reports else done)
    return reports, {name: p.detach().clone() for name, p in model.network.named_parameters()}


def test_one_step_is_equation_7_by_hand(model):
    """The total loss (docs/method.md, T3): noise, loss and AdamW step written out without the loop."""
    settings = replace(SETTINGS, steps=1, batch_size=2, accumulation=1, max_grad_norm=1e9)
    own = copy.deepcopy(model)
    reports, trained = run(model, settings)
    chosen = [EXAMPLES[i] for i in EpochOrder(5, 0).batch(0, 2)]
    generators = [sample_generator(0, b) for b in range(2)]
    [torch.rand((), generator=g) for g in generators]
    images = torch.stack([e["image"] for e in chosen])
    t = torch.cat([torch.randint(1000, (1,), generator=g) for g in generators])
    latents, std = own.encode(images, ["", ""])
    drawn = [torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]) for _ in range(2)]
    latents, noise = latents + std * drawn[0], drawn[1]
    noisy = own.pipeline.scheduler.add_noise(latents, noise, t)
    text = own.embed([e["caption"] for e in chosen], (64, 64))
    wanted = noun_targets([e["tokens"] for e in chosen], [e["masks"] for e in chosen])
    optimizer = torch.optim.AdamW(own.network.parameters(), lr=settings.learning_rate)
    with SupervisedAttention(own.attention, supervised_layers(own.attention)).recording(
        wanted.columns, tuple(latents.shape[-2:])
    ) as maps:
        ldm = torch.nn.functional.mse_loss(own.network(noisy, t, **text).sample, noise)
        grounding = grounding_losses(maps, wanted)
        loss = ldm + 0.1 * grounding.token.mean() + 0.05 * grounding.pixel.mean()
        loss.backward()
    optimizer.step()
    assert reports[0].losses["total"] == pytest.approx(loss.item(), rel=1e-5)
    assert reports[0].losses["ldm"] == pytest.approx(ldm.item(), rel=1e-5)
    for name, p in own.network.named_parameters():
        torch.testing.assert_close(trained[name], p.detach(), rtol=1e-4, atol=1e-6)


def test_accumulation_and_batch_size_share_one_gradient(model):
    """Two batches of one are one batch of two."""
    other = copy.deepcopy(model)
    settings = replace(SETTINGS, steps=3)
    wide, a = run(model, replace(settings, batch_size=4, accumulation=1))
    narrow, b = run(other, replace(settings, batch_size=1, accumulation=4))
    for one, two in zip(wide, narrow, strict=True):
        assert one.losses == pytest.approx(two.losses, rel=1e-4)
        assert one.gradient_norm == pytest.approx(two.gradient_norm, rel=1e-3)


def test_gradient_checkpointing_changes_nothing(model):
    other = copy.deepcopy(model)
    other.network.enable_gradient_checkpointing()
    settings = replace(SETTINGS, steps=2)
    plain, a = run(model, settings)
    recomputed, b = run(other, settings)
    for one, two in zip(plain, recomputed, strict=True):
        assert one.losses == pytest.approx(two.losses, rel=1e-5)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("stopped_after", [2, 3])
def test_resume_is_exact(model, tmp_path, ema, stopped_after):
    """Curve and weights of a run that was stopped, in a new process as it were, are those of one that was not."""
    settings = replace(SETTINGS, ema=ema, schedule="cosine", warmup=2, caption_dropout=0.3)
    first, again = copy.deepcopy(model), copy.deepcopy(model)
    whole, expected = run(model, settings)
    reports = []
    stop = lambda: len(reports) == stopped_after  # noqa: E731
    train(first, batches(settings), settings, Checkpoints(tmp_path), report=reports.append, stop=stop)
    assert len(reports) == stopped_after
    rest, found = run(again, settings, checkpoints=Checkpoints(tmp_path))
    assert [*reports, *rest] == whole
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_resume_goes_on_from_an_older_checkpoint_after_a_crash(model, tmp_path):
    """Killed between two checkpoints: the steps since the last one are made again, the same."""
    again = copy.deepcopy(model)

    def crash(report):
        if report.step == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(model, batches(), SETTINGS, Checkpoints(tmp_path), report=crash)
    reports, _ = run(again, checkpoints=Checkpoints(tmp_path))
    assert [r.step for r in reports] == [5, 6]


def test_other_settings_or_data_are_not_resumed(model, tmp_path):
    settings = replace(SETTINGS, steps=2)
    run(model, settings, checkpoints=Checkpoints(tmp_path, fingerprint="a"))
    with pytest.raises(RealCompoError, match="learning_rate 0.001 there, 0.5 now"):
        run(model, replace(settings, learning_rate=0.5), checkpoints=Checkpoints(tmp_path, fingerprint="a"))
    with pytest.raises(RealCompoError, match="the training data"):
        run(model, settings, checkpoints=Checkpoints(tmp_path, fingerprint="b"))
    reports, _ = run(model, replace(settings, steps=3), checkpoints=Checkpoints(tmp_path, fingerprint="a"))
    assert [r.step for r in reports] == [3]


@pytest.mark.parametrize("changed", ["value", "name", "shape"])
def test_fingerprint_tells_models_apart(model, changed):
    own = dict(model.network.named_parameters())
    other = dict(own)
    name = next(iter(own))
    if changed == "value":
        other[name] = own[name].detach() + 1e-6
    elif changed == "name":
        other = {("x" if key == name else key): weight for key, weight in own.items()}
    else:
        other[name] = own[name].detach()[None]
    assert model_fingerprint(own.items()) == model_fingerprint(copy.deepcopy(own).items())
    assert model_fingerprint(own.items()) != model_fingerprint(other.items())


def test_last_checkpoints_are_kept(model, tmp_path):
    run(model, replace(SETTINGS, checkpoint_every=1), checkpoints=Checkpoints(tmp_path, keep=2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000005.pt", "checkpoint-000006.pt"]


def test_full_disk_names_the_file_and_leaves_the_older_one(model, tmp_path, monkeypatch):
    run(model, replace(SETTINGS, steps=2), checkpoints=Checkpoints(tmp_path))
    save = torch.save

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RealCompoError, match=r"checkpoint-000004.*No space left.*go on from checkpoint-000002"):
        run(model, checkpoints=Checkpoints(tmp_path))
    monkeypatch.setattr(torch, "save", save)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000002.pt"]
    assert Checkpoints(tmp_path).latest({}, ())["step"] == 2


def test_ema_is_what_the_network_holds_at_the_end_and_in_validation(model):
    seen = {}
    settings = replace(SETTINGS, steps=2, ema=0.9, validate_every=2)

    def validate(step):
        seen[step] = {name: p.detach().clone() for name, p in model.network.named_parameters()}

    own = copy.deepcopy(model)
    _, averaged = run(model, settings, validate=validate)
    _, last = run(own, replace(settings, ema=None, validate_every=0))
    assert list(seen) == [2]
    assert all(torch.equal(seen[2][name], averaged[name]) for name in averaged)
    assert not all(torch.equal(last[name], averaged[name]) for name in averaged)


def test_captions_that_are_dropped_cost_no_grounding(model):
    reports, _ = run(model, replace(SETTINGS, steps=1, caption_dropout=1.0))
    assert reports[0].losses["token"] == reports[0].losses["pixel"] == 0 and reports[0].losses["ldm"] > 0


def test_without_grounding_weights_nothing_is_recorded(model, monkeypatch):
    monkeypatch.setattr(SupervisedAttention, "recording", lambda *args: pytest.fail("recorded"))
    run(model, replace(SETTINGS, steps=1, token_weight=0, pixel_weight=0))


def test_grounding_moves_attention_into_the_masks(model):
    """The point of it all, on five random pictures."""
    reports, _ = run(model, replace(SETTINGS, steps=25, accumulation=1, token_weight=1.0, batch_size=5))
    assert reports[-1].losses["token"] < 0.5 * reports[0].losses["token"]
    assert reports[-1].losses["share"] > reports[0].losses["share"] + 0.2


def test_bad_settings_are_named(model):
    with pytest.raises(RealCompoError, match="schedule is 'cubic'"):
        TrainSettings(schedule="cubic")
    with pytest.raises(RealCompoError, match="accumulation is 0"):
        TrainSettings(accumulation=0)
    with pytest.raises(RealCompoError, match=r"factors is \(16,\).*\[1, 2\]"):
        run(model, replace(SETTINGS, factors=(16,)))
    model.network.requires_grad_(False)
    with pytest.raises(RealCompoError, match="nothing to train"):
        run(model)


def test_rates_warm_up_and_fall():
    settings = replace(SETTINGS, steps=12, warmup=2, schedule="linear")
    assert [rate_factor(i, settings) for i in (0, 1, 2, 7)] == [0.5, 1.0, 1.0, 0.5]
    assert rate_factor(7, replace(settings, schedule="cosine")) == pytest.approx(0.5)
    assert rate_factor(11, replace(settings, schedule="constant")) == 1


class GradientFault:
    """A model whose output is as it should be, and whose gradient is multiplied by `factor` from batch `first` on."""

    def __init__(self, model, first, factor=float("nan")):
        self._model, self._first, self._factor, self.batches = model, first, factor, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, *args):
        output = self._model.predict(*args)
        self.batches += 1
        if self.batches > self._first:
            output.register_hook(lambda gradient: gradient * self._factor)
        return output


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_step(model, tmp_path, factor):
    """The loss is finite, so it tells nothing: weights and the older checkpoint stay as they are."""
    faulty = GradientFault(model, first=4, factor=factor)  # two batches make a step
    before, reports = {}, []

    def report(step):
        reports.append(step)
        before.update({name: p.detach().clone() for name, p in model.network.named_parameters()})

    message = r"gradient's norm is (nan|inf) at step 3.*learning_rate 0.001, precision fp32.*a lower learning_rate"
    with pytest.raises(RealCompoError, match=message):
        train(faulty, batches(), SETTINGS, Checkpoints(tmp_path), report=report)
    assert [r.step for r in reports] == [1, 2]
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002.pt"]
    saved = Checkpoints(tmp_path).latest({}, ())["network"]
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_a_loss_that_is_not_finite_stops_before_the_step(model, monkeypatch):
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *args: predict(*args) * float("inf"))
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    with pytest.raises(RealCompoError, match="loss is (nan|inf) at step 1.*learning_rate 0.001, precision fp32"):
        run(model)
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


class ScalingRuntime(Runtime):
    """fp16's gradient scaler with a first scale that makes the gradient overflow, on computations in fp32."""

    def __init__(self, scale):
        super().__init__()
        self._scaler = torch.amp.GradScaler("cpu", init_scale=scale)


def test_steps_whose_scaled_gradient_overflows_are_left_out_by_the_scaler(model):
    """fp16 begins like that: the scale falls until gradients fit, and the run goes on."""
    settings = replace(SETTINGS, precision="fp16", steps=4)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    faulty = GradientFault(model, first=0)
    steps = []

    def report(step):
        steps.append(step)
        if step.step == 2:
            assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())
            faulty._first = 1000

    train(faulty, batches(), settings, runtime=ScalingRuntime(4.0), report=report)
    assert [math.isfinite(step.gradient_norm) for step in steps] == [False, False, True, True]
    assert all(p.isfinite().all() for p in model.network.parameters())
    assert not all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


def test_a_scaler_does_not_hide_a_gradient_that_is_never_finite(model, tmp_path):
    """At a scale of 1 nothing is left that the scale could be to blame for."""
    settings = replace(SETTINGS, precision="fp16", steps=6)
    with pytest.raises(RealCompoError, match="norm is nan at step 3.*precision fp16.*bf16 or fp32"):
        train(GradientFault(model, 0), batches(), settings, Checkpoints(tmp_path), runtime=ScalingRuntime(4.0))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000002.pt"]


class ReplacingRuntime(Runtime):
    """Gives the network other parameters in `prepare`, as a wrapper may, and the optimizer with them."""

    def prepare(self, network, optimizer):
        replaced = {}
        for module in network.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    module._parameters[name] = replaced[parameter] = nn.Parameter(parameter.detach().clone())
        for group in optimizer.param_groups:
            group["params"] = [replaced[parameter] for parameter in group["params"]]
        return network, optimizer

    def clip(self, parameters, optimizer, most):
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert {id(p) for p in parameters} == trained
        return super().clip(parameters, optimizer, most)


def test_parameters_that_prepare_puts_in_place_are_clipped_and_averaged(model):
    settings = replace(SETTINGS, steps=3, ema=0.9, max_grad_norm=0.01)
    other = copy.deepcopy(model)
    expected_reports, expected = run(model, settings)
    reports, found = run(other, settings, runtime=ReplacingRuntime())
    assert reports == expected_reports
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_killed_in_the_middle_of_a_checkpoint_leaves_the_older_one(tmp_path):
    """SIGKILL: nothing of the process runs any more, so nothing can be tidied up."""
    script = f"""
import os, signal, sys
import torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tokencompose_core.checkpoints import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save({{"step": 1, "settings": {{}}, "weights": torch.ones(1000)}})
save = torch.save
def half(state, file):
    save(state, file)
    file.truncate(file.tell() // 2)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
checkpoints.save({{"step": 2, "settings": {{}}, "weights": torch.ones(1000)}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000001.pt", "checkpoint-000002.pt.part"]
    state = Checkpoints(tmp_path).latest({}, ())
    assert state["step"] == 1 and torch.equal(state["weights"], torch.ones(1000))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000001.pt"]
