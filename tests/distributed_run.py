"""A few steps of training, as one process of those that `accelerate launch` starts: see `test_distributed.py`."""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from realcompo_core.errors import RealCompoError
from shapescenes.models import pipelines
from tokencompose_core.checkpoints import Checkpoints
from tokencompose_core.diffusers_model import DiffusersModel
from tokencompose_core.order import EpochOrder
from tokencompose_core.training import TrainSettings, train

torch.set_num_threads(1)


class FaultyModel(DiffusersModel):
    """The second of two processes gets a gradient that is not a number in its fifth batch; all losses are finite."""

    batches = 0

    def predict(self, *args):
        output = super().predict(*args)
        self.batches += 1
        if self.batches == 5 and os.environ.get("RANK") == "1":
            output.register_hook(lambda gradient: gradient * float("nan"))
        return output


def main(folder: str, batch_size: int, steps: int, faulty: bool = False) -> None:
    pipeline = pipelines()[0]
    pipeline.unet.requires_grad_(True)
    settings = TrainSettings(
        steps=steps, batch_size=batch_size, accumulation=2, learning_rate=1e-3, token_weight=0.1, checkpoint_every=2
    )
    if "LOCAL_RANK" in os.environ:
        from tokencompose_core.distributed import AccelerateRuntime as Runtime
    else:
        from tokencompose_core.runtime import Runtime
    runtime = Runtime()
    masks = torch.zeros(1, 128, 128, dtype=torch.bool)
    masks[:, 32:96, 20:80] = True
    examples = [
        {
            "image": torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(i)) * 2 - 1,
            "caption": "a red circle",
            "tokens": [[3]],
            "masks": masks,
            "key": str(i),
        }
        for i in range(7)
    ]
    order = EpochOrder(len(examples), settings.seed, runtime.rank, runtime.processes)
    reports = []
    error = ""
    try:
        train(
            (FaultyModel if faulty else DiffusersModel)(pipeline, checkpointing=False),
            lambda first: ([examples[i] for i in part] for part in order.batches(batch_size, first)),
            settings,
            Checkpoints(Path(folder) / "checkpoints"),
            runtime,
            reports.append,
        )
    except RealCompoError as refusal:
        error = str(refusal)
    curve = [{"step": r.step, **r.losses} for r in reports]
    weights = {name: float(p.detach().double().sum()) for name, p in pipeline.unet.named_parameters()}
    (Path(folder) / f"rank{runtime.rank}.json").write_text(
        json.dumps({"curve": curve, "weights": weights, "error": error})
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), faulty="faulty" in sys.argv)
