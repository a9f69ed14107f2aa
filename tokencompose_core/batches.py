"""The batches of examples that one process of a training run takes, from any position in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import DataLoader

from .dataset import Size, TokenComposeDataset
from .order import EpochOrder
from .records import Problem, Record
from .runtime import Runtime
from .shards import ShardSet
from .stream import ShardDataset
from .training import TrainSettings


def training_batches(
    records: Sequence[Record] | ShardSet,
    size: Size,
    tokenizer: Callable,
    settings: TrainSettings,
    runtime: Runtime,
    workers: int = 0,
    on_problem: Callable[[Problem], None] = lambda problem: None,
) -> Callable[[int], Iterator[list[dict]]]:
    """What `train` takes as `batches`.

    `workers` processes read ahead. `on_problem` is called for each record that cannot be read any more.
    """
    chunk = tokenizer.model_max_length

    def batches(first: int) -> Iterator[list[dict]]:
        options = {"num_workers": workers, "collate_fn": list}
        if isinstance(records, ShardSet):
            place = {"seed": settings.seed, "rank": runtime.rank, "world_size": runtime.processes, "start": first}
            stream = ShardDataset(records, size, tokenizer, batch_size=settings.batch_size, chunk=chunk, **place)
            loader = DataLoader(stream, batch_size=settings.batch_size, **options)
        else:
            order = EpochOrder(len(records), settings.seed, runtime.rank, runtime.processes)
            dataset = TokenComposeDataset(records, size, tokenizer, chunk=chunk)
            loader = DataLoader(dataset, batch_sampler=order.batches(settings.batch_size, first), **options)
        for examples in loader:
            for example in examples:
                for problem in example["problems"]:
                    on_problem(problem)
            yield examples

    return batches
