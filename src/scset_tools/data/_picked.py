"""Columns of an array by their numbers, picked as rows are read: genes in another order cost no copy of the cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from scset_tools.data._rows import RowReader


class PickedColumns:
    """Cells x features of another array, of which each row is put into the order of a model as it is read.

    :class:`~scset_tools.data._rows.RowReader` reads it like any array.

    Parameters
    ----------
    source
        Array of cells x columns, wherever it lives.
    columns
        Column of each feature, -1 for one that there is none of, which is zero; none twice; (features,).
    """

    dtype = np.dtype(np.float32)

    def __init__(self, source: Any, columns: np.ndarray) -> None:
        self.picked_from = source
        self.columns = np.asarray(columns, dtype=np.int64)
        self._reader = _AsStored(source)
        self.shape = (self._reader.n_rows, len(self.columns))
        self.format = "csr" if self._reader.is_sparse else "dense"
        self.picks_rows = self._reader.picks_rows
        self._feature = np.full(self._reader.n_features, -1, dtype=np.int64)  # of each column
        self._feature[self.columns[self.columns >= 0]] = np.flatnonzero(self.columns >= 0)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray | sparse.csr_array:
        """Rows in the order asked for, float32; whether values are finite is for the reader to see."""
        if isinstance(rows, slice):
            return self._pick(self._reader.stretch(*rows.indices(self.shape[0])[:2]))
        return self._pick(self._reader.as_stored(rows))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "picked_from": None}  # the reader knows how an open file is found again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.picked_from = self._reader.source

    def _pick(self, x: Any) -> np.ndarray | sparse.csr_array:
        if not sparse.issparse(x):
            out = np.zeros((x.shape[0], len(self.columns)), dtype=np.float32)
            is_there = self.columns >= 0
            out[:, is_there] = x[:, self.columns[is_there]]
            return out
        feature = self._feature[x.indices]
        is_read = feature >= 0
        ends = np.concatenate([[0], np.cumsum(is_read)])[x.indptr]
        out = sparse.csr_array((x.data[is_read], feature[is_read], ends), shape=(x.shape[0], len(self.columns)))
        out.sort_indices()
        return out


class _AsStored(RowReader):
    """Rows of the whole array; what of them is read, and must be finite, is another's concern."""

    def as_stored(self, rows: np.ndarray) -> Any:
        """Rows, sparse if the array is."""
        return self._read(rows, self._convert)

    def stretch(self, start: int, stop: int) -> Any:
        """Consecutive rows, sparse if the array is."""
        x = self._from_stored(lambda stored: stored.block(start, stop))
        return self._convert(self.source[start:stop] if x is None else x)

    @property
    def _convert(self) -> Callable[[Any], Any]:
        return self._csr if self.is_sparse else self._dense

    def _finite(self, x: Any, rows: np.ndarray) -> Any:
        del rows
        return x
