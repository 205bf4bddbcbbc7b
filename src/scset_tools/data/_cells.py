"""Cells as their expressed genes: the batches of models that read genes rather than samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy import sparse

from scset_tools import _checks
from scset_tools.data._batch import with_host, with_numbers
from scset_tools.data._dataset import SampleDataset
from scset_tools.data._manager import SampleManager

if TYPE_CHECKING:
    from anndata import AnnData

_STEP = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that the seeds of the cells of a sample are all different."""


@dataclass  # not frozen: Lightning sets the fields of a copy when it changes the precision of its input
class CellBatch:
    """A ragged batch of cells: the expressed genes of cell ``i`` are ``gene[ptr[i]:ptr[i + 1]]``, ascending.

    Attributes
    ----------
    gene, value
        Number and value of each expressed gene, (tokens,), int64 and float32. No value is zero.
    ptr
        Where each cell begins and ends, (cells + 1,), int64.
    seed
        Seed of each cell for whatever a module draws: a function of (seed, epoch, sample name, place of the cell in the order
        of names of its sample), (cells,), int64.
    rows
        Row of each cell in the AnnData, (cells,), int64.
    sample, sample_ptr
        Number of each sample, (samples,), and where its cells begin and end, (samples + 1,), if the cells are those of
        whole samples; empty if cells of any samples are mixed.
    """

    gene: torch.Tensor
    value: torch.Tensor
    ptr: torch.Tensor
    seed: torch.Tensor
    rows: torch.Tensor
    sample: torch.Tensor
    sample_ptr: torch.Tensor

    def __post_init__(self) -> None:
        with_numbers(self.ptr)
        with_numbers(self.sample_ptr)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CellBatch:
        """The same batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> CellBatch:
        """The same batch in page-locked memory."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, move: Any) -> CellBatch:
        moved = {f.name: move(getattr(self, f.name)) for f in fields(self)}
        for name in ("ptr", "sample_ptr"):
            with_numbers(moved[name], like=getattr(self, name))
        for name in ("sample", "rows"):
            with_host(moved[name], like=getattr(self, name))
        return CellBatch(**moved)


class ExpressedGenes:
    """Expressed genes of any rows, checked as they are read.

    Parameters
    ----------
    dataset
        Whose reader and samples are used.
    gene_ids
        Number that each feature has in the vocabulary of the model, -1 where it has none, (features,). Default: its column.
    expect_counts
        Whether a value that is no whole number is an error.
    cells
        Names of the cells, for messages.
    """

    def __init__(
        self, dataset: SampleDataset, gene_ids: np.ndarray | None, *, expect_counts: bool, cells: Sequence[str]
    ) -> None:
        self._read, self.n_rows, self._n_features = dataset.reader.csr, dataset.reader.n_rows, dataset.reader.n_features
        self._gene_ids = None if gene_ids is None else np.asarray(gene_ids, dtype=np.int64)
        self._expect_counts, self._cells = expect_counts, cells

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Genes, values (both (tokens,)) and boundaries (len(rows) + 1,) of the cells in these rows."""
        x = self._read(rows)
        x.eliminate_zeros()
        x.sort_indices()
        self._check_values(x, rows)
        gene, value, ptr = x.indices.astype(np.int64), x.data, x.indptr.astype(np.int64)
        if self._gene_ids is not None:
            gene = self._gene_ids[gene]
            is_known = gene >= 0
            ptr = np.concatenate([[0], np.cumsum(is_known)])[ptr]
            gene, value = gene[is_known], value[is_known]
            cell = np.repeat(np.arange(len(rows)), np.diff(ptr))
            order = np.lexsort((gene, cell))  # the order of the vocabulary is not that of the columns
            gene, value = gene[order], value[order]
        if len(empty := np.flatnonzero(np.diff(ptr) == 0)):
            what = "expressed gene" if self._gene_ids is None else "expressed gene that the model knows"
            msg = (
                f"{len(empty)} of {len(rows)} cells have no {what} (first: {self._names(rows[empty])}). "
                "Drop them, for instance with scanpy.pp.filter_cells(adata, min_genes=1)."
            )
            raise ValueError(msg)
        return gene, value, ptr

    def counts(self) -> np.ndarray:
        """Number of expressed genes of every cell, (cells,); checks all values on the way."""
        size = max(1, 2**24 // max(1, self._n_features))
        blocks = (np.arange(start, min(start + size, self.n_rows)) for start in range(0, self.n_rows, size))
        return np.concatenate([np.diff(self(rows)[2]) for rows in blocks] or [np.zeros(0, np.int64)])

    def _check_values(self, x: sparse.csr_array, rows: np.ndarray) -> None:
        is_negative = x.data < 0
        if is_negative.any():
            at = self._cell_at(x, rows, is_negative)
            msg = (
                f"{is_negative.sum()} values are negative (first: {x.data[is_negative][:3]} of cells {at}), but a value is how "
                "strongly a gene is expressed. Give counts, or logarithms of normalised counts with values='normalized'."
            )
            raise ValueError(msg)
        is_broken = x.data != np.rint(x.data) if self._expect_counts else np.zeros(0, bool)
        if is_broken.any():
            at = self._cell_at(x, rows, is_broken)
            msg = (
                f"Counts are expected, but {is_broken.sum()} of {len(x.data)} values are no whole numbers (first: "
                f"{x.data[is_broken][:3]} of cells {at}). Give the counts (layer='counts'), or build the model with "
                "values='normalized' if these are logarithms of normalised counts."
            )
            raise ValueError(msg)

    def _cell_at(self, x: sparse.csr_array, rows: np.ndarray, is_culprit: np.ndarray) -> str:
        place = np.searchsorted(x.indptr, np.flatnonzero(is_culprit)[:100], side="right") - 1
        return self._names(rows[np.unique(place)])

    def _names(self, rows: np.ndarray) -> str:
        return _checks.first([self._cells[int(r)] for r in rows[: _checks.SHOW + 1]])


class GeneDataset(SampleDataset):
    """``dataset[epoch, [3, 0]]`` are all cells of samples 3 and 0 as a :class:`CellBatch`.

    Parameters
    ----------
    manager, n_cells, seed
        As for :class:`~scset_tools.data._dataset.SampleDataset`.
    gene_ids, expect_counts
        As for :class:`ExpressedGenes`.
    """

    def __init__(
        self,
        manager: SampleManager,
        *,
        n_cells: int | None = None,
        seed: int = 0,
        gene_ids: np.ndarray | None = None,
        expect_counts: bool = False,
    ) -> None:
        super().__init__(manager, n_cells=n_cells, seed=seed)
        self.genes = ExpressedGenes(
            self, gene_ids, expect_counts=expect_counts, cells=cast("AnnData", manager.adata).obs_names
        )
        self._sample_and_place: tuple[np.ndarray, np.ndarray] | None = None
        self._seeds_of: tuple[int, np.ndarray] | None = None

    def _batch(self, samples: Sequence[int], rows: list[np.ndarray], epoch: int) -> Any:
        sizes = np.array([0, *(len(r) for r in rows)], dtype=np.int64)
        return self.cells(np.concatenate(rows), epoch, samples=samples, sample_ptr=np.cumsum(sizes))

    def cells(
        self,
        rows: np.ndarray,
        epoch: int = 0,
        *,
        samples: Sequence[int] = (),
        sample_ptr: np.ndarray | None = None,
    ) -> CellBatch:
        """The cells in these rows, in this order.

        Parameters
        ----------
        rows
            Rows of the AnnData, (cells,).
        epoch
            Epoch, for the seeds.
        samples, sample_ptr
            Which samples the cells make up, if whole ones.
        """
        gene, value, ptr = self.genes(rows)
        return CellBatch(
            gene=torch.from_numpy(gene),
            value=torch.from_numpy(value),
            ptr=torch.from_numpy(ptr),
            seed=torch.from_numpy(self._seeds(rows, epoch)),
            rows=torch.from_numpy(rows),
            sample=torch.as_tensor(np.asarray(samples, dtype=np.int64)),
            sample_ptr=torch.from_numpy(np.zeros(1, np.int64) if sample_ptr is None else sample_ptr),
        )

    def _seeds(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        if self._seeds_of is None or self._seeds_of[0] != epoch:
            keys = [np.random.SeedSequence((self.seed, epoch, i)).generate_state(1, np.uint64)[0] for i in self._ids]
            self._seeds_of = epoch, np.asarray(keys, dtype=np.uint64)
        sample, place = self._places()
        # modules hash their seeds, so neighbours in this sequence share nothing
        return (self._seeds_of[1][sample[rows]] + place[rows] * _STEP).view(np.int64)

    @property
    def sample_of_row(self) -> np.ndarray:
        """Number of the sample of each cell, (cells,)."""
        return self._places()[0]

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Sample of each cell, and its place in it; by name, unless nothing is drawn."""
        if self._sample_and_place is None:
            index = self.index if self._is_in_row_order else self.by_name
            sample, place = np.empty(self.reader.n_rows, np.int64), np.empty(self.reader.n_rows, np.uint64)
            sample[index.order] = np.repeat(np.arange(len(index)), index.sizes)
            place[index.order] = np.concatenate([np.arange(n) for n in index.sizes]).astype(np.uint64)
            self._sample_and_place = sample, place
        return self._sample_and_place


class MixedCellDataset(GeneDataset):
    """``dataset[epoch, rows]`` are the cells in these rows, of any samples, as a :class:`CellBatch`.

    Takes the arguments of :class:`GeneDataset`.
    """

    # its batches are of cells, like those of GeneDataset
    def __getitem__(self, key: tuple[int, Sequence[int]]) -> CellBatch:  # type: ignore[override]
        epoch, rows = key
        return self.cells(np.asarray(rows, dtype=np.int64), epoch)
