"""Which samples go into which batch, on which rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DistributedSampler


class SampleBatchSampler(DistributedSampler):
    """Batches of sample numbers as ``(epoch, samples)``, the same number of batches on every rank.

    A ``DistributedSampler``, so that Lightning neither replaces nor wraps it, to be passed as ``sampler=`` with
    ``batch_size=None``: that is where Lightning looks for ``set_epoch``.

    Parameters
    ----------
    samples
        Numbers of the samples to go through, shape (n,).
    sizes
        Number of cells of every sample in the data, indexed by sample number.
    batch_size
        Most samples in a batch.
    max_cells
        Most cells in a batch; a sample larger than that has a batch to itself.
    shuffle, seed
        Whether to go through the samples in an order drawn anew from ``(seed, epoch)``.
    num_replicas, rank
        Number of processes, and which of them this is.
    """

    def __init__(
        self,
        samples: np.ndarray,
        sizes: np.ndarray,
        *,
        batch_size: int = 16,
        max_cells: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        # super().__init__ would ask for an initialised process group
        self.samples, self.sizes = np.asarray(samples, dtype=np.int64), np.asarray(sizes)
        self.batch_size, self.max_cells = batch_size, max_cells
        self.shuffle, self.seed = shuffle, int(seed)
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        # a generator, so that the epoch is read at the first batch: on resuming, Lightning makes the iterator before it
        # calls set_epoch
        epoch = self.epoch if self.shuffle else 0
        for batch in self._plan():
            yield epoch, batch

    def __len__(self) -> int:
        return len(self._plan())

    def _plan(self) -> list[list[int]]:
        order = self.samples
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        return self._deal(self._fill(order.tolist()))

    def _fill(self, order: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        cells = 0
        for sample in order:
            n = int(self.sizes[sample])
            is_full = not batches or len(batches[-1]) == self.batch_size
            is_heavy = self.max_cells is not None and cells + n > self.max_cells
            if is_full or is_heavy:
                batches.append([])
                cells = 0
            batches[-1].append(sample)
            cells += n
        return batches

    def _deal(self, batches: list[list[int]]) -> list[list[int]]:
        # a rank with one batch fewer would hang the others: cut the heaviest batches in two, so that every sample still
        # counts once per epoch, and repeat one only when there are fewer samples than ranks
        while batches and len(batches) % self.num_replicas:
            heaviest = max(range(len(batches)), key=lambda b: (len(batches[b]) > 1, self.sizes[batches[b]].sum()))
            batch = batches.pop(heaviest)
            half = len(batch) // 2
            batches[heaviest:heaviest] = [batch[:half], batch[half:]] if half else [batch, batch]
        return batches[self.rank :: self.num_replicas]
