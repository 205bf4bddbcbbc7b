"""Samples of a registered AnnData as ragged batches."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch.utils.data import Dataset

from scset_tools.data._batch import SampleBatch
from scset_tools.data._fields import CellBatchField, SampleLabelField, SampleNumericField
from scset_tools.data._index import SampleIndex, order_by_name
from scset_tools.data._manager import SampleManager
from scset_tools.data._sparse import SparseRows


class SampleDataset(Dataset):
    """``dataset[epoch, [3, 0, 7]]`` is the :class:`~scset_tools.data._batch.SampleBatch` of samples 3, 0 and 7 in an epoch.

    Indexed by a list of samples, so that a batch costs one read of the array, and by the epoch, because workers that
    outlive an epoch would not see an attribute that is set on their copy.

    The cells of a sample come in an order that is made from their names, and what is drawn for a cell goes by its place in
    this order: a batch is the same whatever the order of the rows. From files, rows are read in the order in which they lie.
    Where nothing is drawn for a cell, :meth:`in_row_order` spares the time that this takes.

    Parameters
    ----------
    manager
        Manager of a registered AnnData.
    n_cells
        Number of cells drawn from each sample, without replacement; a smaller sample gives all it has. Default: all cells.
        The draw depends on (seed, epoch, sample name, names of its cells) alone: not on workers, ranks, batch mates, other samples
        in the file or the order of rows.
    seed
        Seed of the draws.
    sparse
        Whether a sparse array is handed out as :class:`~scset_tools.data._sparse.SparseRows`; a dense one stays dense.
    """

    def __init__(
        self, manager: SampleManager, *, n_cells: int | None = None, seed: int = 0, sparse: bool = False
    ) -> None:
        manager.validate()
        codes = np.asarray(manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel().astype(np.int64)
        names = manager.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY).categorical_mapping
        self.index = SampleIndex.from_codes(codes, names)
        self._manager: SampleManager | None = manager  # until the order of names is asked for
        self._by_name: SampleIndex | None = None
        self._is_in_row_order = False
        self.reader = manager.reader()
        self.n_cells, self.seed = n_cells, int(seed)
        self.is_sparse = sparse and self.reader.is_sparse
        self._ids = [zlib.crc32(str(name).encode()) for name in self.index.names]
        self.labels = {
            key: torch.as_tensor(self.index.first(np.asarray(manager.get_from_registry(key)).ravel()))
            for key in _registered(manager, SampleLabelField, SampleNumericField)
        }
        self._covariates = {
            key: np.asarray(manager.get_from_registry(key)).ravel().astype(np.int64)
            for key in _registered(manager, CellBatchField)
        }

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sizes(self) -> np.ndarray:
        """Number of cells that each sample gives, shape (samples,)."""
        return self.index.sizes if self.n_cells is None else np.minimum(self.index.sizes, self.n_cells)

    @property
    def is_out_of_core(self) -> bool:
        """Whether values are in a file."""
        return self.reader.is_out_of_core

    @property
    def by_name(self) -> SampleIndex:
        """The cells of each sample in the order of their names."""
        if self._by_name is None:
            manager = cast("SampleManager", self._manager)
            codes = np.asarray(manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel()
            self._by_name = SampleIndex.from_codes(codes, self.index.names, by_name=_order_by_name(manager))
            self._manager = None
        return self._by_name

    def in_row_order(self) -> SampleDataset:
        """The same cells in the order in which they lie: for whatever does not depend on the order of a sample's cells.

        Cells that are drawn are the same ones; the order of names is made for draws alone, once for an AnnData.
        """
        out = object.__new__(type(self))  # copy() would prepare it, as for another process
        out.__dict__.update(self.__dict__)
        out._is_in_row_order = True
        return out

    def rows_of(self, sample: int, epoch: int = 0) -> np.ndarray:
        """Rows of the cells drawn from a sample in an epoch, in the order of a batch."""
        return self._drawn(sample, (epoch, self._ids[sample]))

    def _drawn(self, sample: int, key: tuple[int, ...]) -> np.ndarray:
        n = int(self.index.sizes[sample])
        takes_all = self.n_cells is None or n <= self.n_cells
        if takes_all and self._is_in_row_order:
            return self.index.cells(sample)
        rows = self.by_name.cells(sample)
        if takes_all:
            return rows
        rng = np.random.default_rng((self.seed, *key))
        rows = rows[np.sort(rng.choice(n, cast("int", self.n_cells), replace=False))]
        return np.sort(rows) if self._is_in_row_order else rows

    def prepare(self) -> None:
        """Make the order of names, if it is needed: once here, not in each worker."""
        if self.n_cells is not None or not self._is_in_row_order:
            _ = self.by_name

    def __getstate__(self) -> dict[str, Any]:
        self.prepare()
        return {**self.__dict__, "_manager": None}  # the cells stay where they are

    def __getitem__(self, key: tuple[int, Sequence[int]]) -> SampleBatch:
        epoch, samples = key
        return self._batch(samples, [self.rows_of(s, epoch) for s in samples], epoch)

    def chunks(self, sample: int, size: int, epoch: int = 0) -> Iterator[SampleBatch]:
        """One sample in pieces of at most ``size`` cells, in the order of rows: for samples too large for one batch."""
        rows = np.sort(self.rows_of(sample, epoch))
        for start in range(0, len(rows), size):
            yield self._batch([sample], [rows[start : start + size]], epoch)

    def _batch(self, samples: Sequence[int], rows: list[np.ndarray], epoch: int) -> SampleBatch:
        sizes = torch.tensor([len(r) for r in rows], dtype=torch.int64)
        flat = np.concatenate(rows)
        which = torch.as_tensor(np.asarray(samples, dtype=np.int64))
        seeds = [np.random.SeedSequence((self.seed, epoch, self._ids[s])).generate_state(1, np.uint64) for s in samples]
        return SampleBatch(
            x=SparseRows.from_scipy(self.reader.csr(flat)) if self.is_sparse else torch.from_numpy(self.reader(flat)),
            ptr=torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
            sample=which,
            seed=torch.from_numpy((np.concatenate(seeds) >> np.uint64(1)).astype(np.int64)),
            rows=torch.from_numpy(flat),
            labels={k: v[which] for k, v in self.labels.items()},
            covariates={k: torch.from_numpy(v[flat]) for k, v in self._covariates.items()},
        )


class RepeatedDraws(SampleDataset):
    """A dataset in which number ``sample + k * len(dataset)`` is the sample once more, with other cells drawn."""

    def rows_of(self, sample: int, epoch: int = 0) -> np.ndarray:
        """Rows of the cells drawn from a sample in an epoch; a repeat draws anew."""
        repeat, sample = divmod(int(sample), len(self))
        return self._drawn(sample, (epoch, self._ids[sample], *([repeat] if repeat else [])))

    def __getitem__(self, key: tuple[int, Sequence[int]]) -> SampleBatch:
        epoch, numbers = key
        samples = [int(n) % len(self) for n in numbers]
        batch = self._batch(samples, [self.rows_of(n, epoch) for n in numbers], epoch)
        repeat = torch.tensor([int(n) // len(self) for n in numbers], dtype=torch.int64)
        batch.seed = batch.seed ^ (repeat * 0x5DEECE66D)  # what a module draws for a repeat differs as well
        return batch


def _order_by_name(manager: SampleManager) -> np.ndarray:
    """The order of the cells of a manager, remembered for as long as they have the same names."""
    adata: Any = manager.adata
    names = adata.obs_names
    known: tuple[Any, np.ndarray] | None = getattr(manager, "_order_by_name", None)
    if known is None or known[0] is not names:
        known = names, order_by_name(names)
        manager._order_by_name = known
    return known[1]


def _registered(manager: SampleManager, *kinds: type[Any]) -> list[str]:
    """Registry keys of the fields of some kinds."""
    return [field.registry_key for field in manager.fields if isinstance(field, kinds) and not field.is_empty]
