"""Batches of cells with like numbers of expressed genes, from samples that a split keeps whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, DistributedSampler

from scset_tools.data._cells import GeneDataset, MixedCellDataset
from scset_tools.data._manager import SampleManager
from scset_tools.data._splitter import SampleDataSplitter, make_loader

POOL = 32
"""Batches that are sorted by length together: enough that batch mates are alike, few enough that they change."""


class CellBatchSampler(DistributedSampler):
    """Batches of rows as ``(epoch, rows)``; the cells of a batch have like numbers of expressed genes.

    Shuffled cells are taken in pools of some batches, sorted by number of genes within the pool and cut into batches, whose
    order is shuffled in turn. Every cell comes once per epoch, and the number of batches is the same in all epochs.

    Parameters
    ----------
    dataset
        Cells to draw from: gives the rows of a sample in an epoch.
    samples
        Numbers of the samples to go through.
    n_genes
        Number of expressed genes of every cell, (cells,).
    batch_size
        Number of cells in a batch.
    shuffle
        Whether to go through the cells in an order drawn anew in each epoch; otherwise by number of genes.
    group_by_length
        Whether batch mates are alike. False is for comparisons.
    num_replicas, rank
        Number of processes, and which of them this is.
    """

    dataset: MixedCellDataset

    def __init__(
        self,
        dataset: MixedCellDataset,
        samples: np.ndarray,
        n_genes: np.ndarray,
        *,
        batch_size: int,
        shuffle: bool = False,
        group_by_length: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        # super().__init__ would ask for an initialised process group
        self.dataset, self.samples, self.n_genes = dataset, np.asarray(samples, dtype=np.int64), n_genes
        self.batch_size, self.shuffle, self.group_by_length = batch_size, shuffle, group_by_length
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0
        n_cells = int(dataset.sizes[self.samples].sum())
        self._n_batches = -(-n_cells // batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        # a generator, so that the epoch is read at the first batch: on resuming, Lightning makes the iterator before it
        # calls set_epoch
        epoch = self.epoch if self.shuffle else 0
        batches = self._batches(epoch)
        n_even = len(self) * self.num_replicas  # a rank with one batch fewer would hang the others
        for batch in list(islice(cycle(batches), n_even))[self.rank :: self.num_replicas]:
            yield epoch, batch.tolist()

    def __len__(self) -> int:
        return -(-self._n_batches // self.num_replicas)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        rows = np.concatenate([self.dataset.rows_of(int(s), epoch) for s in self.samples])
        rng = np.random.default_rng((self.dataset.seed, epoch))
        if self.shuffle:
            rows = rng.permutation(rows)
        pool = self.batch_size * (POOL if self.shuffle else max(1, self._n_batches))
        if self.group_by_length:
            pools = [rows[i : i + pool] for i in range(0, len(rows), pool)]
            rows = np.concatenate([p[np.argsort(self.n_genes[p], kind="stable")] for p in pools])
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))] if self.shuffle else batches


class CellDataSplitter(SampleDataSplitter):
    """Splits samples like :class:`~scset_tools.data._splitter.SampleDataSplitter`, and loads their cells, mixed.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    gene_ids, expect_counts
        As for :class:`~scset_tools.data._cells.ExpressedGenes`.
    group_by_length
        Whether the cells of a batch have like numbers of expressed genes.
    **kwargs
        As for :class:`~scset_tools.data._splitter.SampleDataSplitter`; ``batch_size`` counts cells.
    """

    def __init__(
        self,
        adata_manager: SampleManager,
        *,
        gene_ids: np.ndarray | None = None,
        expect_counts: bool = False,
        group_by_length: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(adata_manager, **kwargs)
        self._read: dict[str, Any] = {"gene_ids": gene_ids, "expect_counts": expect_counts}
        self._group_by_length = group_by_length
        self._n_genes: np.ndarray | None = None

    def _loader(self, samples: np.ndarray, **how: Any) -> DataLoader:
        self._require_unbalanced("batches of cells of any samples")
        dataset = MixedCellDataset(self.adata_manager, n_cells=self.n_cells, seed=self.seed, **self._read)
        if self._n_genes is None:
            self._n_genes = dataset.genes.counts()
        sampler = CellBatchSampler(
            dataset,
            samples,
            self._n_genes,
            batch_size=self.batch_size,
            group_by_length=self._group_by_length,
            **how,
        )
        return make_loader(dataset, sampler, seed=self.seed, **self.loader_kwargs)


class GeneSampleSplitter(SampleDataSplitter):
    """Splits samples, and loads them whole, as their cells and expressed genes.

    Parameters
    ----------
    adata_manager
        Manager of a registered AnnData.
    gene_ids, expect_counts
        As for :class:`~scset_tools.data._cells.ExpressedGenes`.
    **kwargs
        As for :class:`~scset_tools.data._splitter.SampleDataSplitter`.
    """

    def __init__(
        self,
        adata_manager: SampleManager,
        *,
        gene_ids: np.ndarray | None = None,
        expect_counts: bool = False,
        **kwargs: Any,
    ) -> None:
        self._read: dict[str, Any] = {"gene_ids": gene_ids, "expect_counts": expect_counts}
        super().__init__(adata_manager, **kwargs)

    def _dataset(self) -> GeneDataset:
        return GeneDataset(self.adata_manager, n_cells=self.n_cells, seed=self.seed, **self._read)
