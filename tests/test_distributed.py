"""Two CPU processes against one with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
