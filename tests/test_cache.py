"""Latents and text conditionings on disk: full disks, damaged files."""

import pytest
import torch
from full_disk import files_of_at_most, needs_limits
from torch import nn

from realcompo_core.errors import RealCompoError
from tokencompose_core.cache import CachedModel


class Model:
    """Counts how often it is asked."""

    network = nn.Linear(1, 1)

    def __init__(self):
        self.asked = 0

    def encode(self, images, keys):
        self.asked += 1
        return images * 2, images * 0


@needs_limits
def test_full_disk_is_named_and_the_next_run_goes_on(tmp_path):
    model, images = Model(), torch.randn(1, 3, 64, 64)
    with files_of_at_most(9000), pytest.raises(RealCompoError, match="cache .* cannot be written .*free some room"):
        CachedModel(model, tmp_path / "cache").encode(images, ["a"])
    assert list((tmp_path / "cache").iterdir()) == []
    for _ in range(2):
        mean, _ = CachedModel(model, tmp_path / "cache").encode(images, ["a"])
        assert torch.equal(mean, images * 2) and model.asked == 2


def test_a_damaged_file_is_written_again(tmp_path):
    model, images = Model(), torch.randn(1, 3, 8, 8)
    CachedModel(model, tmp_path).encode(images, ["a"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    for _ in range(2):
        mean, _ = CachedModel(model, tmp_path).encode(images, ["a"])
        assert torch.equal(mean, images * 2) and model.asked == 2
