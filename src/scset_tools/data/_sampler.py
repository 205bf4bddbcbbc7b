"""Which samples go into which batch, on which rank."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
from torch.utils.data import DistributedSampler

N_ORDERS = 16
"""How many orders are looked at to fix the number of batches."""


class SampleBatchSampler(DistributedSampler):
    """Batches of sample numbers as ``(epoch, samples)``, the same number of batches on every rank and in every epoch.

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
    groups
        Number of the group of each of ``samples``: every group then has the same share of an epoch, whose length stays, from its begin
        to its end. Of a larger group some samples are left out, others in each epoch; those of a smaller one come several times, as far from each other as can be. Number
        ``sample + k * len(sizes)`` is a sample for the k-th time more: other cells are drawn (:class:`~scset_tools.data._dataset.RepeatedDraws`).
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
        groups: np.ndarray | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        # super().__init__ would ask for an initialised process group
        self.samples, self.sizes = np.asarray(samples, dtype=np.int64), np.asarray(sizes)
        self._n_samples = len(self.sizes)
        self.batch_size, self.max_cells = batch_size, max_cells
        self.shuffle, self.seed, self.groups = shuffle, int(seed), groups
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0
        self.sizes = np.tile(self.sizes, self._most_times())
        # Lightning counts batches once and drops what an epoch has beyond that, but with max_cells their number depends on
        # the order: take the most of some orders, and let no epoch need more
        orders = [
            self._order(epoch)
            for epoch in range(N_ORDERS if shuffle and (max_cells is not None or groups is not None) else 1)
        ]
        n_batches = [len(self._fill(order)) for order in orders]
        self._fallback = orders[int(np.argmax(n_batches))]
        self._n_batches = -(-max(n_batches) // num_replicas) * num_replicas  # of all ranks together

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        # a generator, so that the epoch is read at the first batch: on resuming, Lightning makes the iterator before it
        # calls set_epoch
        epoch = self.epoch if self.shuffle else 0
        for batch in self._deal(epoch):
            yield epoch, batch

    def __len__(self) -> int:
        return self._n_batches // self.num_replicas

    def _most_times(self) -> int:
        """How often a sample may come in an epoch."""
        if self.groups is None or not len(self.samples):
            return 1
        counts = np.unique(self.groups, return_counts=True)[1]
        return int(1 + len(self.samples) // len(counts) // counts.min())

    def _order(self, epoch: int) -> list[int]:
        order = self.samples
        if self.shuffle:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(order) if self.groups is None else self._evenly(rng)
        return order.tolist()

    def _evenly(self, rng: np.random.Generator) -> np.ndarray:
        """As many numbers as there are samples, equally many of each group, but for a rest that is dealt out at random."""
        groups = [self.samples[self.groups == g] for g in np.unique(self.groups)]  # type: ignore[arg-type]
        quota = np.full(len(groups), len(self.samples) // len(groups))
        quota[rng.permutation(len(groups))[: len(self.samples) % len(groups)]] += 1
        numbers, places = [], []
        for own, n in zip(groups, quota, strict=True):
            turn = np.arange(n)
            # one order, gone through again and again: a sample beside itself in a batch would be alike for no reason but the draw
            numbers.append(rng.permutation(own)[turn % len(own)] + turn // len(own) * self._n_samples)
            places.append((turn + rng.random(n)) / n)
        return np.concatenate(numbers)[np.argsort(np.concatenate(places), kind="stable")]

    def _n_cells(self, batch: list[int]) -> int:
        return int(self.sizes[batch].sum())

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

    def _deal(self, epoch: int) -> list[list[int]]:
        batches = self._fill(self._order(epoch))
        if len(batches) > self._n_batches:
            batches = self._fill(self._fallback)
        # a rank with one batch fewer would hang the others: cut the heaviest batches in two, so that every sample still
        # counts once per epoch, and repeat batches only where there are more of them than samples
        while len(batches) < self._n_batches:
            heaviest = max((b for b in batches if len(b) > 1), key=self._n_cells, default=None)
            if heaviest is None:
                break
            at, half = batches.index(heaviest), len(heaviest) // 2
            batches[at : at + 1] = [heaviest[:half], heaviest[half:]]
        batches = list(islice(cycle(batches), self._n_batches))
        return batches[self.rank :: self.num_replicas]
