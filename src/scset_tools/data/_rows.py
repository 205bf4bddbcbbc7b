"""Read rows of an array in the order asked for, wherever the array lives: plain, finite float32 or an error."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools.data._known import known_of, require_there
from scset_tools.data._reopen import InFile, located
from scset_tools.data._stored_rows import StoredRows

MIN_ROWS_OF_RANGE = 8
"""Fewest rows of a range, on average, for reading by ranges: below, each wanted row is asked for."""
MAX_CSC_BYTES = 2**28
"""Most bytes of a matrix that is stored by columns in a file, for it to be loaded whole: above, it is refused."""


@dataclass(frozen=True)
class Named:
    """How messages name an array, its rows and its columns.

    Attributes
    ----------
    array
        The array, as the user would write it.
    cells, features
        Names of rows and columns. Default: their numbers.
    sample_of
        Name of the sample of a row, if there are samples.
    """

    array: str = "The array"
    cells: Sequence[Any] | np.ndarray | None = None
    features: Sequence[Any] | np.ndarray | None = None
    sample_of: Callable[[int], str] | None = None

    def place(self, row: int, column: int) -> str:
        """A value, by the names of its cell, sample and feature."""
        cell = row if self.cells is None else str(self.cells[row])
        feature = column if self.features is None else str(self.features[column])
        sample = "" if self.sample_of is None else f" of sample {self.sample_of(row)!r}"
        return f"cell {cell!r}{sample}, feature {feature!r}"


class RowReader:
    """Rows of one array as float32, dense or sparse, in the order asked for, repeats allowed.

    What is read is what any reader of the array would get: duplicate entries of a sparse array are summed, a masked value is
    missing, and a value that is missing, infinite, or infinite as float32 raises.

    Parameters
    ----------
    source
        Two-dimensional ndarray, DataFrame, scipy sparse matrix or array, or an out-of-core array: dataset of an h5ad or
        zarr file opened in backed mode, zarr array, dask array (dense or of sparse chunks).
    named
        How messages name it.
    max_gap
        Most rows from one wanted row of an array on disk to the next, for the rows between them to be read along; of a sparse
        array in a file, its chunks say.

    Notes
    -----
    scvi-tools' own reader sorts the rows of backed data, so that cells of several samples read together would land in
    the wrong sample, and returns dask chunks uncast. A CSC matrix is converted to CSR once, at the cost of one copy,
    because picking rows from CSC visits every non-zero value.
    """

    def __init__(self, source: Any, named: Named | None = None, *, max_gap: int = 16) -> None:
        self.max_gap = max_gap
        self.named = named = Named() if named is None else named
        self.source = source = row_major(source, named.array)
        self.is_out_of_core = not (isinstance(source, np.ndarray) or sparse.issparse(source))
        self.n_rows, self.n_features = (int(n) for n in source.shape)
        stored = getattr(source, "_meta", source)  # of a dask array: an empty array of the type of its chunks
        self.is_sparse = sparse.issparse(stored) or getattr(stored, "format", None) == "csr"
        # scipy looks once and remembers; of arrays on disk every piece is looked at
        self._is_canonical = sparse.issparse(source) and bool(source.has_canonical_format)
        self._stored = _stored_rows(source)
        self._released = False  # whether there were rows to be read straight from the file that was closed
        self._vouched: bool | None = None  # whether a store says so, asked at the first reading

    @property
    def picks_rows(self) -> bool:
        """Whether rows that lie apart in a file are picked from what is read of it in any case, so that all may be asked for."""
        return self._stored is not None or bool(getattr(self.source, "picks_rows", False))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "source": located(self.source), "_stored": self._stored is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        source = state["source"]
        self.__dict__.update(state, source=source.open() if isinstance(source, InFile) else source)
        self._stored = _stored_rows(self.source) if state["_stored"] else None

    def release(self) -> None:
        """Close the h5 file that the array is in, if it is in one, until :meth:`reopen`."""
        at = located(self.source)
        if isinstance(at, InFile):
            file = getattr(self.source, "group", self.source).file
            self.source, self._released = at, self._stored is not None
            self._stored = None
            file.close()

    def reopen(self) -> None:
        """Open the file that :meth:`release` closed."""
        if isinstance(self.source, InFile):
            self.source = self.source.open()
            self._stored = _stored_rows(self.source) if self._released else None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Dense rows, shape (len(rows), n_features), float32, C-contiguous."""
        return self._read(rows, self._dense)

    def csr(self, rows: np.ndarray) -> sparse.csr_array:
        """Sparse rows, shape (len(rows), n_features), float32: no row is made dense if the source is sparse.

        Parameters
        ----------
        rows
            Numbers of the rows, in the order wanted.
        """
        return self._read(rows, self._csr)

    def _read(self, rows: np.ndarray, convert: Callable[[Any], Any]) -> Any:
        rows = np.asarray(rows, dtype=np.int64)
        if not self.is_out_of_core:
            return self._finite(convert(self.source[rows]), rows)
        require_there(self.source)
        if len(rows) == 0:
            return convert(np.zeros((0, self.n_features), dtype=np.float32))
        if hasattr(self.source, "picked_from"):  # which reads rows in any order itself
            return self._finite(convert(self.source[rows]), rows)
        if (x := self._from_stored(lambda stored: stored.rows(rows))) is not None:
            return self._finite(convert(x), rows)
        distinct, position = np.unique(rows, return_inverse=True)  # h5py wants increasing, distinct indices
        x = self._finite(self._in_ranges(distinct, convert), distinct)
        in_order = len(distinct) == len(rows) and bool((np.diff(position) > 0).all())
        return x if in_order else x[position]

    def _from_stored(self, read: Callable[[StoredRows], sparse.csr_array]) -> sparse.csr_array | None:
        """What is read of a sparse array in a file; None if this is none, or one whose entries are to be summed first."""
        stored = self._stored  # which another thread may take away
        if stored is None:
            return None
        x = read(stored)
        if self._vouched is None:
            self._vouched = bool(known_of(self.source).get("is_canonical"))
        x.has_canonical_format = self._vouched or x.has_canonical_format
        if not x.has_canonical_format:
            self._stored = None  # summed as they are stored, not as float32
            return None
        return x

    def _in_ranges(self, rows: np.ndarray, convert: Callable[[Any], Any]) -> Any:
        """Ascending rows of an array on disk: range by range where they lie close together, else one by one.

        A range is read whole and the rows are picked in memory, which is far quicker than to ask for each: a cohort stored by
        sample gives one range per sample, also where cells are drawn from it.
        """
        ends = np.flatnonzero(np.diff(rows) > self.max_gap) + 1
        if (len(ends) + 1) * MIN_ROWS_OF_RANGE > len(rows) and len(ends):
            return convert(self.source[rows])
        parts = []
        for part in np.split(rows, ends):
            lo, hi = int(part[0]), int(part[-1]) + 1
            x = _in_memory(self.source[lo:hi])
            parts.append(convert(x if hi - lo == len(part) else x[part - lo]))
        if len(parts) == 1:
            return parts[0]
        return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)

    @staticmethod
    def rows_per_chunk(n_features: int, n_bytes: int = 2**26) -> int:
        """How many dense float32 rows of ``n_features`` fit in ``n_bytes`` (64 MiB), at least one."""
        return max(1, n_bytes // (4 * max(1, n_features)))

    def chunks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive blocks of at most ``size`` rows (default: 64 MiB), as (first row, dense float32 block)."""
        for start, x in self._chunks(size, self._dense):
            yield start, self._finite(x, np.arange(start, start + len(x)))

    def unchecked_chunks(self) -> Iterator[tuple[int, np.ndarray | sparse.csr_array]]:
        """Consecutive blocks as (first row, float32 block), sparse ones of a sparse array, whether they are finite or not."""
        yield from self._chunks(None, self._csr if self.is_sparse else self._dense)

    def _chunks(self, size: int | None, convert: Callable[[Any], Any]) -> Iterator[tuple[int, Any]]:
        size = self.rows_per_chunk(self.n_features) if size is None else size
        for start in range(0, self.n_rows, size):
            require_there(self.source)
            x = self._from_stored(operator.methodcaller("block", start, start + size))
            yield start, convert(self.source[start : start + size] if x is None else x)

    def _dense(self, x: Any) -> np.ndarray:
        x = _in_memory(x)
        if sparse.issparse(x):
            x = self._csr(x).toarray()
        with np.errstate(over="ignore"):  # said with the name of the cell, when looked at
            return np.ascontiguousarray(_checks.filled(x), dtype=np.float32)

    def _csr(self, x: Any) -> sparse.csr_array:
        x = _checks.filled(_in_memory(x))
        if not sparse.issparse(x) and (x.dtype == np.float16 or not x.dtype.isnative):
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)  # of neither does scipy make a sparse array
        is_canonical = self._is_canonical or (isinstance(x, sparse.csr_array) and x.has_canonical_format)
        x = sparse.csr_array(x)
        if is_canonical:
            x.has_canonical_format = True
        elif not x.has_canonical_format:
            # summed in a copy, the array is the user's; and in wide numbers, as small ones would overflow
            x = x.astype(np.float64, copy=True)
            x.sum_duplicates()
        with np.errstate(over="ignore"):
            return x if x.dtype == np.float32 else x.astype(np.float32)

    def _finite(self, x: Any, rows: np.ndarray) -> Any:
        """The block of these rows itself, or a ValueError naming what in it is not finite."""
        row, column = not_finite(x)
        if len(row):
            raise self.complaint(len(row), rows[row[:3]], column[:3])
        return x

    def complaint(self, n: int, rows: np.ndarray, columns: np.ndarray) -> ValueError:
        """The error for values that are not finite.

        Parameters
        ----------
        n
            How many there are.
        rows
            Rows of the first of them.
        columns
            Their columns.
        """
        shown = "; ".join(self.named.place(int(r), int(c)) for r, c in zip(rows, columns, strict=True))
        msg = (
            f"{self.named.array} has {n} values that are not finite (first: {shown}): missing, infinite, or beyond the range "
            "of float32. Impute them, or drop the cells or features they are in."
        )
        return ValueError(msg)


def not_finite(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the values of a block, dense or sparse, that are NaN or infinite."""
    if all_finite(x.data if sparse.issparse(x) else x):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, columns = np.nonzero(~np.isfinite(x.toarray() if sparse.issparse(x) else x))
    return rows, columns


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # what is not finite shows in the sum, which costs no array of its own
            return True
    return bool(np.isfinite(values).all())


def row_major(source: Any, where: str = "The array") -> Any:
    """The array in a form whose rows can be sliced: DataFrames as ndarrays, column-compressed matrices as CSR.

    Raises
    ------
    TypeError
        If it does not hold numbers.
    ValueError
        If it is not two-dimensional, or a dask array of unknown length.
    """
    source = _checks.in_memory(source)
    if isinstance(source, pd.DataFrame):
        return _checks.numbers_of(source, where)
    if isinstance(source, np.matrix):
        source = np.asarray(source)
    shape = tuple(getattr(source, "shape", ()))
    if len(shape) != 2:
        msg = f"{where} must be cells x features, but has shape {shape}."
        raise ValueError(msg)
    if any(n != n for n in shape):  # NaN: dask does not know
        msg = f"{where} is a dask array of unknown chunk sizes. Call its compute_chunk_sizes() first."
        raise ValueError(msg)
    kind = getattr(getattr(source, "dtype", None), "kind", "f")
    if kind == "O" and isinstance(source, np.ndarray):
        try:
            source = _checks.filled(source).astype(np.float64)
        except (TypeError, ValueError) as error:
            msg = f"{where} is of dtype object and holds what is no number: {error}. Convert it to float."
            raise TypeError(msg) from error
    elif kind not in "biuf":
        msg = f"{where} is of dtype {source.dtype}, but must hold real numbers."
        raise TypeError(msg)
    if sparse.issparse(source):
        return source if source.format == "csr" else source.tocsr()
    if getattr(source, "format", None) == "csc":  # a dataset on disk, of which every slice of rows would read all
        n_bytes = _stored_bytes(source)
        if n_bytes > MAX_CSC_BYTES:
            msg = (
                f"{where} is stored by columns (CSC) in a file, of which every batch of cells would read all "
                f"{n_bytes / 2**20:,.0f} MiB. Store it by rows, once: sst.pp.write_store(path, 'cohort.zarr', sample_key=...), or load "
                "it if it fits into memory: adata = adata.to_memory()."
            )
            raise ValueError(msg)
        return source.to_memory().tocsr()
    return _checks.filled(source)


def _stored_rows(source: Any) -> StoredRows | None:
    """The quick way to read a sparse dataset of anndata; None for any other array."""
    is_dataset = getattr(source, "format", None) == "csr" and hasattr(source, "group")
    return StoredRows(source) if is_dataset and source.dtype.kind in "biuf" else None


def _stored_bytes(source: Any) -> int:
    """Bytes of the values and their places of a sparse dataset on disk."""
    parts = (source.group[name] for name in ("data", "indices"))
    return sum(int(part.shape[0]) * part.dtype.itemsize for part in parts)


def _in_memory(x: Any) -> Any:
    return x.compute() if hasattr(x, "compute") else x  # dask
