"""The training nodes in a real ComfyUI: the library's losses, the host's models untouched."""

from dataclasses import asdict

import host_server
import pytest
import torch

from shapescenes import models
from shapescenes.drawing import draw
from shapescenes.world import training_scene
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.nouns import noun_tokens
from tokencompose_core.training import TrainSettings, train

HOSTS = host_server.find_hosts()

pytestmark = pytest.mark.skipif(not HOSTS, reason=host_server.NO_HOST)


def examples() -> list[dict]:
    found = []
    for i in range(4):
        scene = training_scene(9, i, (0, 1, 0, 0))
        nouns = [f"{item.kind.colour} {item.kind.shape}" for item in scene.objects]
        tokens = noun_tokens(models.tokenizer(), scene.prompt.caption, nouns, chunk=32)
        masks = dict(zip(nouns, zip(scene.masks(), tokens, strict=True), strict=True))
        found.append(
            {
                "image": torch.from_numpy(draw(scene, "flat", i)).permute(2, 0, 1).float() / 127.5 - 1,
                "caption": scene.prompt.caption,
                "tokens": [sum(occurrences, []) for _, occurrences in masks.values()],
                "masks": torch.stack([torch.from_numpy(mask) for mask, _ in masks.values()]),
                "key": str(i),
            }
        )
    return found


def reference() -> dict:
    """The losses of three steps on all weights of the bundled model, by the library and diffusers."""
    model = DiffusersModel(models.pipelines()[0], checkpointing=False)
    model.network.requires_grad_(True)
    settings = TrainSettings(
        steps=3, batch_size=2, accumulation=1, learning_rate=1e-4, token_weight=0.1, pixel_weight=0.05
    )
    batch, reports = examples(), []
    train(model, lambda first: iter([batch[:2], batch[2:], batch[:2]]), settings, report=reports.append)
    return {
        "examples": batch,
        "settings": asdict(settings),
        "factors": model.factors,
        "losses": [report.losses for report in reports],
    }


@pytest.mark.parametrize("folder", HOSTS, ids=lambda host: host.name)
def test_training_in_the_host(tmp_path, folder):
    file = tmp_path / "reference.pt"
    torch.save(reference(), file)
    host_server.run_checks(folder, "train_checks.py", file)
