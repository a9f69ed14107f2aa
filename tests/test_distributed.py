"""Two CPU processes against one with twice the batch, and the command line in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_set import write_set

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).parent / "distributed_run.py"


def launch(folder: Path, processes: int, batch_size: int, steps: int, *flags: str) -> list[dict]:
    """What each process wrote."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable]
    if processes > 1:  # accelerate's own launcher starts several CPU processes only through MPI
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [SCRIPT, folder, str(batch_size), str(steps), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_learn_what_one_with_twice_the_batch_does(tmp_path):
    """Curves and weights are the same, and only the main process writes checkpoints."""
    (single,) = launch(tmp_path / "one", 1, 2, steps=4)
    both = launch(tmp_path / "two", 2, 1, steps=4)
    for process in both:
        assert [entry["step"] for entry in process["curve"]] == [1, 2, 3, 4]
        for ours, one in zip(process["curve"], single["curve"], strict=True):
            assert ours == pytest.approx(one, rel=1e-3)
        assert process["weights"] == pytest.approx(single["weights"], rel=1e-3, abs=1e-2)
    names = sorted(path.name for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert names == ["checkpoint-000002.pt", "checkpoint-000004.pt"]


def test_a_gradient_that_is_not_finite_in_one_process_stops_all(tmp_path):
    both = launch(tmp_path, 2, 1, 4, "faulty")
    for process in both:
        assert [entry["step"] for entry in process["curve"]] == [1, 2]
        assert "gradient's norm is nan at step 3" in process["error"]
        assert all(weight == weight for weight in process["weights"].values())  # no NaN
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-000002.pt"]


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "realcompo_cli", "train"]
ACCELERATE = ["accelerate.commands.launch", "--num_processes", "2", "--cpu", "-m", "realcompo_cli", "train"]
OPTIONS = "--size 64x64 --batch-size 1 --accumulation 1 --steps 1 --no-checkpointing".split()


def command(launcher: list, *options: object, **variables: str) -> tuple[int, str]:
    """Exit code, and what all processes of a command printed, without line breaks and boxes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, launcher), *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        env=environment,
    )
    return done.returncode, " ".join(done.stdout.replace("│", " ").split())


def test_torchrun_trains_in_as_many_processes_as_it_says(tmp_path):
    data = write_set(tmp_path / "set", 4)
    code, said = command(TORCHRUN, data, "--output", tmp_path / "run", "--device", "cpu", *OPTIONS)
    assert code == 0, said
    assert said.count("Training in") == 1 and "Training in 2 processes, this one on cpu" in said
    assert (tmp_path / "run" / "unet").exists()


def test_errors_are_shown_once_not_once_a_process(tmp_path):
    data = write_set(tmp_path / "set", 4)
    code, said = command(TORCHRUN, data, "--output", tmp_path / "run", "--model", "nowhere", *OPTIONS)
    assert code != 0 and said.count("there is no model nowhere") == 1, said
    code, said = command(TORCHRUN, data, "--output", tmp_path / "run", "--device", "cpu", "--factor", 99, *OPTIONS)
    assert code != 0 and said.count("factors is (99,)") == 1, said


def test_accelerate_on_a_cpu_says_that_it_started_one_process(tmp_path):
    """It is asked for two, and starts one without a word."""
    data = write_set(tmp_path / "set", 4)
    code, said = command(ACCELERATE, data, "--output", tmp_path / "run", *OPTIONS)
    assert code == 0, said
    assert "Training in 1 process on cpu, fp32. accelerate starts no more on a CPU; torchrun" in said


@pytest.mark.parametrize(
    ("variable", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")]
)
def test_divided_networks_are_refused_by_name(tmp_path, variable, name):
    data = write_set(tmp_path / "set", 4)
    code, said = command(
        TORCHRUN, data, "--output", tmp_path / "run", "--device", "cpu", *OPTIONS, **{variable: "true"}
    )
    assert code != 0 and said.count(f"accelerate is configured for {name}") == 1, said


def test_a_device_for_all_processes_is_refused(tmp_path):
    data = write_set(tmp_path / "set", 4)
    code, said = command(
        TORCHRUN, data, "--output", tmp_path / "run", "--device", "cuda", *OPTIONS, ACCELERATE_USE_CPU="true"
    )
    assert code != 0 and "device is 'cuda': of several processes each takes its own, here cpu" in said, said
