"""The history of a training run: full disks, cut lines, figures that are no numbers."""

import json
import math

import pytest
from full_disk import files_of_at_most, needs_limits

from realcompo_cli.history import History
from realcompo_core.errors import RealCompoError


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@needs_limits
def test_full_disk_is_named_and_its_cut_line_is_mended(tmp_path):
    """Every rerun died with JSONDecodeError until somebody removed the line."""
    path = tmp_path / "run" / "history.jsonl"
    history = History(path, 0)
    with files_of_at_most(70):
        history.add(1, {"loss": 0.1234567})
        history.add(2, {"loss": 0.1234567})
        with pytest.raises(RealCompoError, match="history.jsonl cannot be written .File too large.*free some room"):
            history.add(3, {"loss": 0.1234567})
    assert not path.read_bytes().endswith(b"\n")
    history = History(path, 2)
    history.add(3, {"loss": 0.5})
    assert steps(path) == [1, 2, 3]


def test_the_checkpoint_decides_what_is_kept(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n\n[1]\n{"no": 1}\n{"step": 2, "share": NaN}\n{"step": 3}\n{"step": 4')
    History(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2, "share": null}\n'


def test_figures_that_are_not_finite_are_null(tmp_path):
    path = tmp_path / "history.jsonl"
    History(path, 0).add(1, {"share": math.nan, "norm": math.inf, "loss": 0.5})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "share": None,
        "norm": None,
        "loss": 0.5,
    }


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RealCompoError, match="history .* cannot be written"):
        History(tmp_path / "run" / "history.jsonl", 0)
