"""In which order a training run sees the records."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class EpochOrder:
    """An endless shuffled order of `size` records, shared by `world_size` processes of which this is number `rank`.

    Each epoch is a permutation of its own, drawn from (seed, epoch); epochs follow one another without a gap, so every
    record comes exactly once an epoch, over all processes together. A step takes `batch_size` records for each process.
    The order is a function of the seed and the position alone: a run goes on at any step, and with another number of
    processes it sees the same records in the same steps if `batch_size` × `world_size` stays the same.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self._epoch: int | None = None
        self._order = np.empty(0, int)

    def batch(self, step: int, batch_size: int) -> list[int]:
        """Indices of this process's records in step `step`, counted from 0."""
        start = (step * self.world_size + self.rank) * batch_size
        return [self._at(position) for position in range(start, start + batch_size)]

    def batches(self, batch_size: int, start: int = 0) -> Iterator[list[int]]:
        """The batches of all steps from `start` on, without end: a `DataLoader`'s `batch_sampler`."""
        step = start
        while True:
            yield self.batch(step, batch_size)
            step += 1

    def epoch(self, step: int, batch_size: int) -> tuple[int, int]:
        """(epoch, position in it) of the first record, over all processes, of step `step`."""
        return divmod(step * self.world_size * batch_size, self.size)

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return int(self._order[place])
