"""Write the values of a cohort block by block, and learn on the way what there is to know of them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm.auto import tqdm

from scset_tools._panels import PANELS, PanelCount, panels_of
from scset_tools.data._known import KNOWN, fingerprint
from scset_tools.pp._store_writer import DenseWriter, SparseWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scset_tools.pp._store_sources import Source

BYTES_PER_VALUE = 16
"""Of working memory for each stored value of a block: in its place, and what is read and compressed of it at a time."""
TOTAL, N_FEATURES = "store_total", "store_n_features"
"""Columns of ``obs`` with the sum of the values of a cell, and how many are not 0."""
VALUES_AT_ONCE = 2**20
"""Values of a block that are looked at together."""
ROWS_AT_ONCE = 8_192
"""Rows of a source among which those of a block are looked for."""


class StoreRun:
    """The writing of values, block by block, and what is learned of them on the way.

    Parameters
    ----------
    part
        Folder to write to.
    sources
        Where values come from.
    features
        Columns of the store.
    origin, row
        Source of each cell of the store and its row there, (cells,).
    codes, samples
        Number of the sample of each cell, (cells,), and the names of the samples.
    max_bytes
        Memory for a block.
    settings
        What tells one run from another, beside all this.
    is_open
        Whether a sample may lack markers: its values are NaN there.
    """

    def __init__(
        self,
        part: Path,
        sources: list[Source],
        features: pd.Index,
        *,
        origin: np.ndarray,
        row: np.ndarray,
        codes: np.ndarray,
        samples: np.ndarray,
        max_bytes: int,
        settings: str,
        is_open: bool = False,
    ) -> None:
        self.part, self.sources, self.features, self.origin, self.row = part, sources, features, origin, row
        self.codes, self.samples, self.is_open = codes, samples, is_open
        self.is_sparse = all(s.reader.is_sparse for s in sources) and not is_open
        self.n_stored = (
            _n_stored(sources, origin, row) if self.is_sparse else np.full(len(row), len(features), np.int32)
        )
        self.blocks = _blocks(self.n_stored, max_bytes)
        stamp = json.dumps([settings, self.blocks, list(features), *(s.stamp for s in sources)])
        self.stamp = f"{zlib.crc32(row.data, zlib.crc32(origin.data, zlib.crc32(stamp.encode()))):08x}"
        columns = [features.get_indexer(s.features) for s in sources]
        self.columns = [None if np.array_equal(c, np.arange(len(features))) else c for c in columns]
        n, d = len(row), len(features)
        self.total, self.n_features, self.is_counts = np.zeros(n), np.zeros(n, np.int64), True
        self.panels = PanelCount(len(samples), d) if is_open else None
        said = [panels_of(s.panels, samples, s.features) for s in sources] if is_open else []
        self.unsaid = [None if m.all() else ~m for m in said]
        self.n_learned, self.mean, self.square = 0, np.zeros(d), np.zeros(d)
        self.least: np.floating = np.float32(0)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of each feature."""
        return np.sqrt(self.square / max(1, self.n_learned))

    def begin(self, obs: pd.DataFrame) -> None:
        """Write the cells without their values, so that they need not be held while these are read.

        Parameters
        ----------
        obs
            Cells of the store.
        """
        import zarr

        self._state = self._read_state()
        if self._state is None:
            shutil.rmtree(self.part, ignore_errors=True)
        self.root: Any = zarr.open_group(self.part, mode="a", zarr_format=3)
        self._write_element("obs", obs.drop(columns=[TOTAL, N_FEATURES], errors="ignore"))

    def write(self, *, progress: bool) -> None:
        """Write all blocks that were not written before."""
        state, done = self._state, 0
        if state is not None:
            done = int(state["done"])
            self.is_counts, self.mean, self.square = bool(state["is_counts"]), state["mean"], state["square"]
            self.least = np.float32(state["least"][()])
            if self.panels is not None:
                self.panels.n_missing, self.panels.n_cells = state["n_missing"], state["n_cells"]
            self.n_learned = n_done = len(state["total"])
            self.total[:n_done], self.n_features[:n_done] = state["total"], state["n_features"]
        d = len(self.features)
        self.writer = (
            SparseWriter(self.root.require_group("X"), d, state=state)
            if self.is_sparse
            else DenseWriter(self.root, (len(self.row), d), state=state)
        )
        bar = tqdm(
            total=len(self.row),
            initial=sum(hi - lo for lo, hi in self.blocks[:done]),
            unit=" cells",
            disable=not progress,
        )
        with bar:
            for number, (lo, hi) in enumerate(self.blocks[done:], start=done + 1):
                x = self._block(lo, hi)
                self._learn(x, lo)
                self.writer.append(x)
                del x  # before the next one is read
                self._write_state(number, slice(lo, hi))
                bar.update(hi - lo)

    def _block(self, lo: int, hi: int) -> Any:
        """The cells lo to hi of the store, with its features."""
        if self.is_sparse:
            return self._sparse_block(lo, hi)
        out = np.empty((hi - lo, len(self.features)), np.float32)
        for number, place, rows in self._pieces(lo, hi):
            x = self.sources[number].reader(rows)
            unsaid = self.unsaid[number] if self.is_open else None
            if unsaid is not None:  # a source may say what was not measured and hold zeros
                x[unsaid[self.codes[lo + place]]] = np.nan
            columns = self.columns[number]
            if columns is not None:
                is_kept = columns >= 0
                wide = np.full((len(x), len(self.features)), np.nan if self.is_open else 0, np.float32)
                wide[:, columns[is_kept]] = x[:, is_kept]
                x = wide
            out[place] = x
        return out

    def _sparse_block(self, lo: int, hi: int) -> sparse.csr_array:
        """The same in compressed rows: each value goes from what is read at a time to its place, all are held once."""
        start = np.concatenate([np.zeros(1, np.int64), self.n_stored[lo:hi].cumsum(dtype=np.int64)])
        lengths = np.zeros(hi - lo, np.int64)
        data, columns = np.empty(start[-1], np.float32), np.empty(start[-1], np.int32)
        for number, place, rows in self._pieces(lo, hi):
            x = self._aligned(self.sources[number].reader.csr(rows), number)
            lengths[place] = np.diff(x.indptr)
            at = np.repeat(start[place] - x.indptr[:-1], lengths[place]) + np.arange(x.nnz)
            data[at], columns[at] = x.data, x.indices
        indptr = np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])
        if indptr[-1] < start[-1]:  # fewer than were stored: some stood twice, or are of features that are left out
            at = np.repeat(start[:-1] - indptr[:-1], lengths) + np.arange(indptr[-1])
            data, columns = data[at], columns[at]
        out = sparse.csr_array((hi - lo, len(self.features)), dtype=np.float32)
        out.data, out.indices, out.indptr = data, columns, indptr
        out.has_canonical_format = True
        return out

    def _pieces(self, lo: int, hi: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Source, places in the block and rows in the source of a few cells at a time, all of the block in the end."""
        for number in np.unique(self.origin[lo:hi]).tolist():
            place = np.flatnonzero(self.origin[lo:hi] == number)
            rows = self.row[lo:hi][place]
            order = np.argsort(rows, kind="stable")
            place, rows = place[order], rows[order]
            with self.sources[number].reader.opened():
                for at in _windows(rows):
                    yield number, place[at], rows[at]

    def _aligned(self, x: sparse.csr_array, number: int) -> sparse.csr_array:
        columns = self.columns[number]
        if columns is None:
            return x
        is_kept = columns >= 0
        x = x[:, np.flatnonzero(is_kept)]
        out = sparse.csr_array((x.data, columns[is_kept][x.indices], x.indptr), shape=(x.shape[0], len(self.features)))
        out.sort_indices()
        return out

    def _learn(self, x: Any, lo: int) -> None:
        """Take note of a block that begins with cell lo, a part at a time: what is computed of it is larger than itself."""
        ends = x.indptr[1:] if self.is_sparse else x.shape[1] * np.arange(1, len(x) + 1)
        parts = (np.flatnonzero(np.diff(ends // VALUES_AT_ONCE)) + 1).tolist()
        for a, b in itertools.pairwise([0, *parts, len(ends)]):
            self._learn_part(_rows_of(x, a, b) if self.is_sparse else x[a:b], lo + a, lo + b)
        if self.panels is not None:
            self._measured()  # samples that lack a marker in some of their cells are told before all is written

    def _learn_part(self, x: Any, lo: int, hi: int) -> None:
        if self.panels is not None:
            is_missing = np.isnan(x)
            self.panels.add(is_missing, self.codes[lo:hi])
            x = np.where(is_missing, 0, x)  # which changes no sum, no number of features and no answer below
        self.total[lo:hi] = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()
        self.n_features[lo:hi] = np.asarray((x != 0).sum(axis=1)).ravel()
        values = x.data if self.is_sparse else x
        self.is_counts = self.is_counts and bool(((values >= 0) & (values == np.round(values))).all())
        self.least = np.minimum(self.least, np.min(values, initial=0))
        # sums of squares about the mean, of this part and then merged: those about zero would lose the digits of a feature
        # that hardly varies
        n, d = hi - lo, len(self.features)
        if self.is_sparse:
            mean = np.bincount(x.indices, x.data, minlength=d) / n  # scipy's own sum is one of float32
            square: np.ndarray = np.bincount(x.indices, (x.data - mean[x.indices]) ** 2, minlength=d)
            square += (n - np.bincount(x.indices, minlength=d)) * mean**2
        else:
            mean = x.mean(axis=0, dtype=np.float64)
            square = np.square(x - mean).sum(axis=0)
        apart, total = mean - self.mean, self.n_learned + n
        self.square += square + apart**2 * (self.n_learned * n / total)
        self.mean += apart * (n / total)
        self.n_learned = total

    def _measured(self) -> np.ndarray:
        """Whether each sample has each marker, (samples, markers), by what was written so far."""
        return self.panels.measured(self.samples, self.features, where="The cohort")  # type: ignore[union-attr]

    # ---- going on after a stop

    @property
    def _progress(self) -> Path:
        """Folder of what a later run needs: a file for each block, and one that says how many of them count."""
        return self.part / "progress"

    def _block_file(self, number: int) -> Path:
        return self._progress / f"block{number:06d}.npz"

    def _write_state(self, done: int, rows: slice) -> None:
        self._progress.mkdir(exist_ok=True)
        # of its cells alone: all of them with every block would make the writing of a large cohort quadratic
        arrays: dict[str, Any] = {"total": self.total[rows], "n_features": self.n_features[rows], **self.writer.last()}
        np.savez(self._block_file(done), **arrays)
        panels = {} if self.panels is None else {"n_missing": self.panels.n_missing, "n_cells": self.panels.n_cells}
        new = self._progress / "state.new.npz"
        np.savez(
            new,
            stamp=np.array(self.stamp),
            done=np.array(done),
            is_counts=np.array(self.is_counts),
            least=np.array(self.least),
            mean=self.mean,
            square=self.square,
            **cast("dict[str, Any]", {**panels, **self.writer.state()}),
        )
        os.replace(new, self._progress / "state.npz")

    def _read_state(self) -> dict[str, np.ndarray] | None:
        """The state of a run with the same sources and arguments that was stopped."""
        try:
            state = _loaded(self._progress / "state.npz")
            if str(state.get("stamp")) != self.stamp:
                return None
            blocks = [_loaded(self._block_file(i)) for i in range(1, int(state["done"]) + 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return state | {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def _write_element(self, name: str, element: Any) -> None:
        import anndata
        from anndata.io import write_elem

        *folder, key = name.split("/")  # anndata 0.13 takes no slash in a key
        with anndata.settings.override(auto_shard_zarr_v3=True):  # without it anndata warns of its next default
            write_elem(self.root["/".join(folder)] if folder else self.root, key, element)

    def close(self, features: pd.Index, store: dict[str, Any]) -> None:
        """Write the rest: features, and what is known of the cells and their values."""
        import zarr

        uns: dict[str, Any] = {"store": store}
        is_finite = True
        if self.panels is not None:
            measured = self._measured()
            uns[PANELS] = {
                "sample": self.samples.astype(str),
                "marker": np.asarray(features, dtype=str),
                "measured": measured,
            }
            is_finite = bool(measured.all())
            if not is_finite:  # of all cells, zeros for what was not measured: no one's moments
                del store["feature_mean"], store["feature_sd"]
        self.writer.close()
        elements = {"var": pd.DataFrame(index=features), "uns": uns}
        elements |= {f"obs/{TOTAL}": self.total, f"obs/{N_FEATURES}": self.n_features}
        for name, element in {**elements, **{k: {} for k in ("layers", "obsm", "varm", "obsp", "varp")}}.items():
            self._write_element(name, element)
        columns = self.root["obs"].attrs
        columns["column-order"] = [*columns["column-order"], TOTAL, N_FEATURES]
        self.root.attrs.update(
            {
                "encoding-type": "anndata",
                "encoding-version": "0.1.0",
                # values that were looked at here are not looked at again
                KNOWN: {
                    "is_finite": is_finite,
                    "is_canonical": True,
                    "fingerprint": fingerprint(self.part / "X"),
                    "has_zero_cells": bool((self.n_features == 0).any()),
                    "has_negative_values": bool(self.least < 0),
                    "shape": [len(self.row), len(features)],
                },
            }
        )
        shutil.rmtree(self._progress)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(self.part)  # what opens it lazily asks for it


def _rows_of(x: sparse.csr_array, lo: int, hi: int) -> sparse.csr_array:
    """Consecutive rows, without a copy: scipy's slice makes one, of the indices of all rows."""
    at = slice(int(x.indptr[lo]), int(x.indptr[hi]))
    out = sparse.csr_array((hi - lo, x.shape[1]), dtype=x.dtype)
    out.data, out.indices, out.indptr = x.data[at], x.indices[at], (x.indptr[lo : hi + 1] - at.start).astype(np.int32)
    return out


def _loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def _windows(rows: np.ndarray) -> Iterator[slice]:
    """Runs of ascending rows of a source that lie within ``ROWS_AT_ONCE`` of each other."""
    ends = np.flatnonzero(np.diff(rows // ROWS_AT_ONCE)) + 1
    bounds = [0, *ends.tolist(), len(rows)]
    for lo, hi in itertools.pairwise(bounds):
        if hi > lo:
            yield slice(lo, hi)


def _n_stored(sources: list[Source], origin: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Number of values that are stored for each cell of the store."""
    out = np.zeros(len(row), dtype=np.int32)
    for number, source in enumerate(sources):
        is_own = origin == number
        with source.reader.opened() as values:
            out[is_own] = _stored_per_row(values)[row[is_own]]
    return out


def _blocks(n_stored: np.ndarray, max_bytes: int) -> list[tuple[int, int]]:
    """Consecutive cells of the store that fit into memory together."""
    block = np.cumsum(n_stored, dtype=np.int64) * BYTES_PER_VALUE // max(1, max_bytes)
    ends = np.flatnonzero(np.diff(block)) + 1
    bounds = [0, *ends.tolist(), len(n_stored)]
    return [(lo, hi) for lo, hi in itertools.pairwise(bounds) if hi > lo]


def _stored_per_row(values: Any) -> np.ndarray:
    """Number of stored values of each row of a sparse array, in memory or on disk."""
    indptr = getattr(values, "indptr", None)
    if indptr is None:
        indptr = getattr(values, "group", {}).get("indptr", None)
    if indptr is None:  # dask: not known before it is computed
        return np.full(int(values.shape[0]), int(values.shape[1]), dtype=np.int64)
    return np.diff(np.asarray(indptr[:], dtype=np.int64))
