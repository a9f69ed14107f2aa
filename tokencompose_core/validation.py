"""Losses and grounding metrics on examples that are held out from training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from .losses import noun_targets
from .metrics import grounding_metrics
from .runtime import Runtime
from .supervision import SupervisedAttention
from .training import TrainableModel, noisy_inputs, sample_generator, supervised_layers

TIMESTEP_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the schedule's length


@torch.no_grad()
def evaluate(model: TrainableModel, examples: Sequence[dict], runtime: Runtime | None = None) -> dict[str, float]:
    """Means over the examples, at five fixed timesteps with a fixed noise: `ldm`, and `grounding_metrics`."""
    runtime = runtime or Runtime()
    supervised = SupervisedAttention(model.attention, supervised_layers(model.attention))
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    was_training = model.network.training
    model.network.eval()
    for number, example in enumerate(examples):
        wanted = noun_targets([example["tokens"]], [example["masks"]]).to(runtime.device)
        for share in TIMESTEP_SHARES:
            timestep = torch.tensor([int(share * len(model.alphas))])
            generators = [sample_generator(0, number)]
            noisy, goal, conditioning = noisy_inputs(
                model, [example], [example["caption"]], generators, timestep, runtime
            )
            has_nouns = bool(wanted.members.any())
            recording = supervised.recording(wanted.columns, tuple(noisy.shape[-2:])) if has_nouns else nullcontext({})
            with recording as maps, runtime.autocast():
                output = model.predict(model.network, noisy, timestep.to(runtime.device), conditioning)
            found = {"ldm": (float((output.float() - goal).square().mean()), 1.0)}
            if has_nouns:
                found |= grounding_metrics(maps, wanted)
            for name, (total, count) in found.items():
                sums[name][0] += total
                sums[name][1] += count
    model.network.train(was_training)
    return {name: total / count for name, (total, count) in sums.items() if count}
