"""Rows of a sparse matrix in a file: each stretch is read straight to its place in the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from scset_tools.data._shards import Piece, ShardedValues

VALUES_AT_ONCE = 2**24
"""Most values that are read along with wanted ones (128 MiB with their columns), so that memory does not grow with a sample."""
VALUES_OF_PART = 2**18
"""Values that one thread reads at a time."""
MAX_THREADS = 8
VALUES_OF_READ = 2**13
"""Values that are read in the time that it takes to ask for some, of a file that is not in chunks."""
ROWS_PER_RANGE = 4
"""How many stretches of wanted rows a range must hold, on average, to be read whole and picked from in memory."""


class StoredRows:
    """Rows of a CSR matrix in an h5 or zarr file, as float32, in any order.

    What anndata's own slices return, without its work for each slice: boundaries of rows are kept in memory, and values go from
    the file to where they are wanted, those of a zarr file by several threads.

    Parameters
    ----------
    source
        Sparse dataset of anndata, stored by rows.
    """

    def __init__(self, source: Any) -> None:
        group = source.group
        self.shape: tuple[int, int] = tuple(int(n) for n in source.shape)  # type: ignore[assignment]
        self._boundaries = group["indptr"]
        self._values, self._columns = (_array(group[name]) for name in ("data", "indices"))
        # h5 lets one thread at a time into its library
        self._in_threads = isinstance(self._values, _Sharded)

    @cached_property
    def indptr(self) -> np.ndarray:
        """Where the values of each row begin and end, (rows + 1,), int64."""
        return np.asarray(self._boundaries[:], dtype=np.int64)

    def rows(self, rows: np.ndarray) -> sparse.csr_array:
        """Some rows, in the order asked for, repeats allowed; entries as they are stored.

        Parameters
        ----------
        rows
            Their numbers.

        Notes
        -----
        What lies between two wanted rows is read along if it is no more than a chunk of the file, which is decoded whole in any case.
        """
        runs = np.flatnonzero(np.diff(rows) != 1) + 1
        if len(runs) < len(rows) / ROWS_PER_RANGE:
            return self._runs(rows, runs)
        order = np.argsort(rows, kind="stable")
        between = self.indptr[rows[order[1:]]] - self.indptr[rows[order[:-1]] + 1]
        ends = np.flatnonzero(between > max(self._values.chunk, self._columns.chunk)) + 1
        if ROWS_PER_RANGE * (len(ends) + 1) > len(runs):
            return self._runs(rows, runs)
        return self._picked(rows, order, ends)

    def block(self, start: int, stop: int) -> sparse.csr_array:
        """Consecutive rows.

        Parameters
        ----------
        start, stop
            The first, and the one after the last.
        """
        stop = min(stop, self.shape[0])
        out = self._empty(np.diff(self.indptr[start : stop + 1]))
        self._fill(out, np.array([start]), np.array([stop]))
        return out

    def _runs(self, rows: np.ndarray, ends: np.ndarray) -> sparse.csr_array:
        """Rows whose neighbours follow each other, each run read to its place."""
        out = self._empty(self._lengths(rows))
        if len(rows):
            first = np.concatenate([[0], ends])
            self._fill(out, rows[first], rows[first] + np.diff(np.append(first, len(rows))))
        return out

    def _lengths(self, rows: np.ndarray) -> np.ndarray:
        return self.indptr[rows + 1] - self.indptr[rows]

    def _picked(self, rows: np.ndarray, order: np.ndarray, ends: np.ndarray) -> sparse.csr_array:
        """Rows that lie close together: whole ranges are read, and the wanted rows picked in memory.

        Parameters
        ----------
        rows
            Wanted rows.
        order
            What puts them into the order of the file.
        ends
            Where, in this order, a range ends.
        """
        ranges = list(self._bounded(rows, order, ends))
        places = [(int(order[a:b].min()), int(order[a:b].max()) + 1) for a, b in ranges]
        # a sample, asked for in any order of its cells, is one stretch of the result: it is filled as it is wanted
        is_stretch = all(hi - lo == b - a for (lo, hi), (a, b) in zip(places, ranges, strict=True))
        asked = rows if is_stretch else rows[order]
        out = self._empty(self._lengths(asked))
        for place, (a, b) in zip(places, ranges, strict=True):
            lo, hi = place if is_stretch else (a, b)
            start = int(rows[order[a]])
            x = self.block(start, int(rows[order[b - 1]]) + 1)[asked[lo:hi] - start]
            at = slice(int(out.indptr[lo]), int(out.indptr[hi]))
            out.data[at], out.indices[at] = x.data, x.indices
        if is_stretch:
            return out
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return out[back]

    def _bounded(self, rows: np.ndarray, order: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
        """The ranges, those of very large samples in parts."""
        for a, b in pairwise([0, *ends.tolist(), len(order)]):
            wanted = rows[order[a:b]]
            part = (self.indptr[wanted] - self.indptr[wanted[0]]) // VALUES_AT_ONCE
            cuts = (np.flatnonzero(np.diff(part)) + 1 + a).tolist()
            yield from pairwise([a, *cuts, b])

    def _fill(self, out: sparse.csr_array, start: np.ndarray, stop: np.ndarray) -> None:
        """Fill a matrix with ranges of rows, one after the other."""
        start, stop = self.indptr[start], self.indptr[stop]
        place = np.concatenate([[0], np.cumsum(stop - start)])
        ascending = [i for i in np.argsort(start, kind="stable") if stop[i] > start[i]]
        work = [
            call
            for array, target in ((self._values, out.data), (self._columns, out.indices))
            for call in array.calls([(int(start[i]), int(stop[i]), target[place[i] : place[i + 1]]) for i in ascending])
        ]
        n_threads = min(len(work), _n_threads()) if self._in_threads and len(work) > 2 else 1
        if n_threads == 1:
            for read, pieces in work:
                read(pieces)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            for done in [pool.submit(read, pieces) for read, pieces in work]:
                done.result()

    def _empty(self, lengths: np.ndarray) -> sparse.csr_array:
        """A matrix with so many values in each row, to be filled."""
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        n = int(indptr[-1])
        kind = np.int32 if max(n, self.shape[1]) <= np.iinfo(np.int32).max else np.int64
        out = sparse.csr_array((len(lengths), self.shape[1]), dtype=np.float32)
        out.data, out.indices, out.indptr = np.empty(n, np.float32), np.empty(n, kind), indptr.astype(kind)
        return out


def _array(array: Any) -> _Plain | _Sharded:
    """The reader for an array of values in a file."""
    return _Sharded(ShardedValues(array)) if ShardedValues.reads(array) else _Plain(array)


Call = tuple[Callable[[list[Piece]], None], list[Piece]]
"""A function that reads, and what it is to read."""


class _Plain:
    """Reads an array by its own library."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._fills = hasattr(array, "read_direct")  # h5py: without an array of its own in between
        self.chunk = int((array.chunks or (VALUES_OF_READ,))[0])

    def calls(self, pieces: list[Piece]) -> list[Call]:
        return [(self._read, pieces)]

    def _read(self, pieces: list[Piece]) -> None:
        for lo, hi, out in pieces:
            if self._fills and out.dtype == self._array.dtype:
                self._array.read_direct(out, np.s_[lo:hi])
                continue
            with np.errstate(over="ignore"):  # infinite as float32: said where values are looked at
                out[:] = self._array[lo:hi]


class _Sharded:
    """Cuts what is to be read of an array in shards into parts for several threads: decoding does not hold them up."""

    def __init__(self, array: ShardedValues) -> None:
        self._array = array
        self.chunk = array.chunk

    def calls(self, pieces: list[Piece]) -> list[Call]:
        return [(self._array.read, part) for part in self._parts(pieces)]

    def _parts(self, pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
        """Neighbours of about the same number of values together; long stretches are cut between two chunks."""
        step = max(1, VALUES_OF_PART // self._array.chunk) * self._array.chunk
        part: list[Piece] = []
        n = 0
        for lo, hi, out in pieces:
            for a, b in pairwise([lo, *range((lo // step + 1) * step, hi, step), hi]):
                part.append((a, b, out[a - lo : b - lo]))
                n += b - a
                if n >= VALUES_OF_PART:
                    yield part
                    part, n = [], 0
        if part:
            yield part


def _n_threads() -> int:
    """As many as there are processors for this process."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_THREADS, n)
