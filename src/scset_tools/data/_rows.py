"""Read rows of an array in the order asked for, wherever the array lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse


class RowReader:
    """Rows of one array as float32, dense or sparse, in the order asked for, repeats allowed.

    Parameters
    ----------
    source
        Two-dimensional ndarray, DataFrame, scipy sparse matrix or array, or an out-of-core array: dataset of an h5ad or
        zarr file opened in backed mode, zarr array, dask array (dense or of sparse chunks).

    Notes
    -----
    scvi-tools' own reader sorts the rows of backed data, so that cells of several samples read together would land in
    the wrong sample, and returns dask chunks uncast. A CSC matrix is converted to CSR once, at the cost of one copy,
    because picking rows from CSC visits every non-zero value.
    """

    def __init__(self, source: Any) -> None:
        self.source = source = row_major(source)
        self.is_out_of_core = not (isinstance(source, np.ndarray) or sparse.issparse(source))
        self.n_rows, self.n_features = (int(n) for n in source.shape)
        stored = getattr(source, "_meta", source)  # of a dask array: an empty array of the type of its chunks
        self.is_sparse = sparse.issparse(stored) or getattr(stored, "format", None) == "csr"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Dense rows, shape (len(rows), n_features), float32, C-contiguous."""
        return self._read(rows, _dense)

    def csr(self, rows: np.ndarray) -> sparse.csr_array:
        """Sparse rows, shape (len(rows), n_features), float32: no row is made dense if the source is sparse.

        Parameters
        ----------
        rows
            Numbers of the rows, in the order wanted.
        """
        return self._read(rows, _csr)

    def _read(self, rows: np.ndarray, convert: Callable[[Any], Any]) -> Any:
        rows = np.asarray(rows, dtype=np.int64)
        if not self.is_out_of_core:
            return convert(self.source[rows])
        if len(rows) == 0:
            return convert(np.zeros((0, self.n_features), dtype=np.float32))
        distinct, position = np.unique(rows, return_inverse=True)  # h5py wants increasing, distinct indices
        lo, hi = int(distinct[0]), int(distinct[-1]) + 1
        is_one_piece = hi - lo == len(distinct)  # a file stored by sample: one slice is far quicker than fancy indices
        x = convert(self.source[lo:hi] if is_one_piece else self.source[distinct])
        in_order = len(distinct) == len(rows) and bool((np.diff(position) > 0).all())
        return x if in_order else x[position]

    @staticmethod
    def rows_per_chunk(n_features: int, n_bytes: int = 2**26) -> int:
        """How many dense float32 rows of ``n_features`` fit in ``n_bytes`` (64 MiB), at least one."""
        return max(1, n_bytes // (4 * max(1, n_features)))

    def chunks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive blocks of at most ``size`` rows (default: 64 MiB), as (first row, dense float32 block)."""
        size = self.rows_per_chunk(self.n_features) if size is None else size
        for start in range(0, self.n_rows, size):
            yield start, _dense(self.source[start : start + size])


def row_major(source: Any) -> Any:
    """The array in a form whose rows can be sliced: DataFrames as ndarrays, column-compressed matrices as CSR."""
    if isinstance(source, pd.DataFrame):
        return source.to_numpy()
    if sparse.issparse(source):
        return source if source.format == "csr" else source.tocsr()
    if getattr(source, "format", None) == "csc":  # a dataset on disk, of which every slice of rows would read all
        return source.to_memory().tocsr()
    return source


def _csr(x: Any) -> sparse.csr_array:
    if hasattr(x, "compute"):  # dask
        x = x.compute()
    return sparse.csr_array(x, dtype=np.float32)


def _dense(x: Any) -> np.ndarray:
    if hasattr(x, "compute"):  # dask
        x = x.compute()
    if sparse.issparse(x):
        x = x.toarray()
    return np.ascontiguousarray(x, dtype=np.float32)
