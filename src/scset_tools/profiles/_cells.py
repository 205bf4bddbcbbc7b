"""What a profile sees of an AnnData: the cells of the samples in use, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools.data._index import SampleIndex, order_by_name
from scset_tools.data._rows import Named, RowReader

BLOCK_VALUES = 2**23
"""Most values in a dense block (32 MB of float32), so that memory does not grow with cells or genes."""
BLOCK_ROWS = 65_536
ROWS_OF_FILE = 8_192
"""Rows of a sparse array on disk that are read at once: of 28,000 genes, 1,400 of them expressed, 90 MB."""


@dataclass(frozen=True)
class Cells:
    """Cells grouped by sample; the only view of the data that the algorithms of this room have.

    Attributes
    ----------
    source
        Array of cells x features, wherever it lives; None for profiles that do not look at it.
    obs
        ``adata.obs``, one row per row of ``source``.
    codes
        Number of the sample of each row, shape (rows,), int64; -1 for rows that are not in use.
    names
        Names of the samples in use, shape (samples,), strings.
    features
        Names of the columns of ``source``.
    named
        How messages name ``source``.
    """

    source: Any
    obs: pd.DataFrame
    codes: np.ndarray
    names: np.ndarray
    features: pd.Index
    named: Named | None = None

    @cached_property
    def reader(self) -> RowReader:
        """Reader of ``source``; made once, because a CSC matrix is converted when it is made."""
        return RowReader(self.source, self.named)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row numbers of the cells in use, ascending."""
        return np.flatnonzero(self.codes >= 0)

    @property
    def n_cells(self) -> int:
        """Number of cells in use."""
        return len(self.rows)

    @property
    def n_samples(self) -> int:
        """Number of samples in use."""
        return len(self.names)

    @property
    def n_features(self) -> int:
        """Number of columns of ``source``."""
        return len(self.features)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of cells of each sample, shape (samples,)."""
        return np.bincount(self.codes[self.rows], minlength=self.n_samples)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All cells in use in storage order, as (row numbers, dense float32 block)."""
        for rows in self._windows(self._block_rows()):
            yield rows, self._at(rows, self.reader)

    def _at(self, rows: np.ndarray, read: Callable[[np.ndarray], Any]) -> Any:
        """Rows of one stretch, read by a call of the reader."""
        if not self.reader.is_out_of_core or self.reader.picks_rows or rows[-1] - rows[0] == len(rows) - 1:
            return read(rows)
        # one slice, then a choice in memory: picking scattered rows on disk is far slower
        return read(np.arange(rows[0], rows[-1] + 1))[rows - rows[0]]

    def by_sample(self) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
        """Each sample's number and its cells, in dense blocks in storage order."""
        index = SampleIndex.from_codes(self.codes[self.rows], self.names)
        for i in range(self.n_samples):
            yield i, self._read(self.rows[index.cells(i)])

    def _read(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        size = self._block_rows()
        for start in range(0, len(rows), size):
            yield self.reader(rows[start : start + size])

    def _block_rows(self) -> int:
        return int(np.clip(BLOCK_VALUES // max(self.n_features, 1), 1, BLOCK_ROWS))

    def draw(self, n: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """At most ``n`` cells, drawn uniformly without replacement, as (row numbers, dense block).

        They come in the order of a hash of their names, so that what is fitted to them does not know the order of rows; they
        are read in storage order.
        """
        by_name = order_by_name(self.obs.index)
        rows = by_name[self.codes[by_name] >= 0]
        if n is not None and n < len(rows):
            rows = rows[np.sort(rng.choice(len(rows), n, replace=False, shuffle=False))]
        codes = np.full_like(self.codes, -1)
        codes[rows] = self.codes[rows]
        drawn = replace(self, codes=codes)
        drawn.__dict__["reader"] = self.reader
        x = np.empty((len(rows), self.n_features), dtype=np.float32)
        place = np.argsort(rows)
        start = 0
        for block_rows, block in drawn.blocks():
            x[place[start : start + len(block_rows)]] = block
            start += len(block_rows)
        return rows, x

    def sums(self, groups: np.ndarray, n_groups: int) -> np.ndarray:
        """Sum over the cells in use of each group, shape (n_groups, features), float64.

        ``groups (rows,)`` has a group number for every row in use. One pass over the cells, in which sparse data are never made
        dense.
        """
        total = GroupSums(n_groups, self.n_features)
        if self.reader.is_sparse:
            for rows in self._windows(ROWS_OF_FILE if self.reader.is_out_of_core else BLOCK_ROWS):
                total.add(groups[rows], self._at(rows, self.reader.csr))
        else:
            for rows, x in self.blocks():
                total.add(groups[rows], x)
        return total.sums

    def column(self, key: str) -> pd.Series:
        """Column of ``obs`` for the cells in use; KeyError or ValueError if it is not there or not complete."""
        values = _checks.obs_column(self.obs, key)
        if self.n_cells < len(values):
            values = values.iloc[self.rows]
        missing = values.isna().to_numpy()
        if missing.any():
            msg = (
                f"adata.obs[{key!r}] is missing for {missing.sum()} of {len(values)} cells "
                f"(first: {_checks.first(values.index[missing])}). Give these cells a value of their own "
                f"(adata.obs[{key!r}] = adata.obs[{key!r}].astype(object).fillna('unassigned')) or drop them."
            )
            raise ValueError(msg)
        return values

    def _windows(self, size: int) -> Iterator[np.ndarray]:
        """Rows in use within each stretch of about ``size`` rows that has any; chunks of dask are not cut, to be computed once."""
        edges = np.arange(0, len(self.codes) + size, size)
        chunks = getattr(self.source, "chunks", None) if hasattr(self.source, "dask") else None
        if chunks is not None:
            ends = np.cumsum([0, *chunks[0]])
            # of the ends of chunks the last before each edge; a longer chunk is one stretch
            edges = np.unique(np.append(ends[np.maximum(np.searchsorted(ends, edges, side="right") - 1, 0)], ends[-1]))
        bounds = np.searchsorted(self.rows, edges)
        for start, stop in pairwise(bounds):
            if stop > start:
                yield self.rows[start:stop]


class GroupSums:
    """Sums of rows by group, accumulated over blocks in float64.

    The same product with an indicator matrix as :func:`scanpy.get.aggregate`, which takes neither files, zarr nor dask
    arrays and wants all rows at once.
    """

    def __init__(self, n_groups: int, n_features: int) -> None:
        self.sums = np.zeros((n_groups, n_features))

    def add(self, groups: np.ndarray, x: np.ndarray | sparse.csr_array) -> None:
        """Add the rows of ``x (cells, features)`` to the sums of ``groups (cells,)``."""
        # a block holds few of the groups: a product over all of them would cost n_groups x n_features per block
        present, position = np.unique(groups, return_inverse=True)
        n = len(groups)
        indicator = sparse.csr_matrix((np.ones(n), (position, np.arange(n))), shape=(len(present), n))
        product = indicator @ x
        self.sums[present] += product.toarray() if sparse.issparse(product) else product
