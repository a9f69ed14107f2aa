"""Training examples from shards, in an order that a resumed run continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from realcompo_core.text.tokens import CHUNK

from .dataset import load_example
from .pictures import Size
from .records import DatasetError, Problem, Record, RecordError
from .shards import ShardSet


class ShardDataset(IterableDataset):
    """Examples without end, as `TokenComposeDataset` gives them, each with its `problems`.

    In every epoch the shards are shuffled and dealt out to all workers of all processes. Each worker reads its shards
    from first to last, and holds and shuffles `block` records at a time. So every record comes once in an epoch of its
    worker. A record that cannot be read is replaced by the next one that can.

    The order is a function of the seed and the position alone. A run goes on after `start` batches, given the same
    `batch_size` and number of workers as its `DataLoader`: whole epochs and shards are stepped over, not read. Raises
    DatasetError when iterated with more workers than shards.
    """

    def __init__(
        self,
        shards: ShardSet,
        size: Size,
        tokenizer: Callable,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        block: int = 256,
        chunk: int = CHUNK,
    ):
        self.shards, self.size, self.tokenizer, self.chunk = shards, size, tokenizer, chunk
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.start, self.block = start, block

    def __iter__(self) -> Iterator[dict]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if len(self.shards.paths) < workers * self.world_size:
            raise DatasetError(
                f"{len(self.shards.paths)} shards cannot feed {self.world_size} processes with {workers} workers each: "
                "use fewer workers, or write smaller shards"
            )
        # A loader asks its workers in turn: batch i is by worker i % workers, and the first one asked now does `start`.
        worker = (self.start + worker) % workers
        batches_done = (self.start - worker + workers - 1) // workers
        entries = self._entries(self.rank * workers + worker, workers * self.world_size, batches_done * self.batch_size)
        return self._examples(entries)

    def _examples(self, entries: Iterator[tuple[int, Record | RecordError]]) -> Iterator[dict]:
        problems: list[Problem] = []
        times = 1
        for index, entry in entries:
            try:
                if isinstance(entry, RecordError):
                    raise entry
                example, errors = load_example(entry, self.size, self.tokenizer, chunk=self.chunk)
            except RecordError as error:
                problems.append(Problem.of(error, index))
                times += 1
                if times > len(self.shards):
                    raise DatasetError(f"no record of these shards can be read. The first: {problems[0]}") from error
                continue
            problems += (Problem.of(error, index) for error in errors)
            for _ in range(times):
                yield example | {"problems": problems}
                problems = []
            times = 1

    def _entries(self, slot: int, slots: int, position: int) -> Iterator[tuple[int, Record | RecordError]]:
        """What worker `slot` of `slots` reads from `position` on, with the index of each record in the set."""
        for epoch in count():
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards.paths))
            shards = order[slot::slots].tolist()
            total = sum(self.shards.counts[shard] for shard in shards)
            if position >= total:
                position -= total
                continue
            first = position // self.block
            for number, entries in enumerate(self._blocks(shards, first * self.block), first):
                order = np.random.default_rng([self.seed, epoch, slot, number]).permutation(len(entries))
                for i in order[max(position - number * self.block, 0) :]:
                    yield entries[i]
            position = 0

    def _blocks(self, shards: list[int], start: int) -> Iterator[list[tuple[int, Record | RecordError]]]:
        """The records of `shards` from `start` on, `block` at a time."""
        entries = self._read(shards, start)
        while entries_of_block := list(islice(entries, self.block)):
            yield entries_of_block

    def _read(self, shards: list[int], start: int) -> Iterator[tuple[int, Record | RecordError]]:
        for shard in shards:
            size = self.shards.counts[shard]
            if start < size:
                first = sum(self.shards.counts[:shard])
                yield from enumerate(self.shards.read(shard, start), first + start)
            start = max(start - size, 0)
