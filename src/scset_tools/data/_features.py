"""One pass over the features of all cells: are they usable, and what is their scale?"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from scset_tools import _checks
from scset_tools.data._known import files_in, known_of
from scset_tools.data._rows import Named, RowReader, all_finite, not_finite


def describe_source(*, layer: str | None = None, use_rep: str | None = None) -> str:
    """How messages name the array that a model reads."""
    if use_rep is not None:
        return f"adata.obsm[{use_rep!r}]"
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def check_features(source: Any, named: Named, *, forbid_zero_cells: bool = False) -> None:
    """Raise for an array that holds anything but finite numbers and, if asked, for cells whose features are all zero.

    An array in a file is read for this once: as long as the file is not written to, the next model takes it as it is. What
    :func:`scset_tools.pp.write_store` wrote, it has looked at.

    Parameters
    ----------
    source
        Array of cells x features in any storage that :class:`~scset_tools.data._rows.RowReader` reads.
    named
        How messages name the array, its cells and its features.
    forbid_zero_cells
        Whether a cell without any signal is an error: it has no direction, so cosine similarity to it means nothing.
    """
    stored = stored_as(source)
    if stored is not None and (stored, forbid_zero_cells) in _SOUND:
        return
    if _is_vouched(source, forbid_zero_cells=forbid_zero_cells):
        return
    reader = RowReader(source, named)
    if _is_finite_in_memory(reader) and not forbid_zero_cells:
        return
    n_bad, n_zero = 0, 0
    bad_rows, bad_columns = np.zeros(0, np.int64), np.zeros(0, np.int64)
    first_zero: list[str] = []
    for start, block in reader.unchecked_chunks():
        row, column = not_finite(block)
        n_bad += len(row)
        bad_rows = np.concatenate([bad_rows, start + row])[:3]
        bad_columns = np.concatenate([bad_columns, column])[:3]
        if forbid_zero_cells:
            is_zero = np.asarray((block != 0).sum(axis=1)).ravel() == 0
            n_zero += int(is_zero.sum())
            if named.cells is not None:
                first_zero += [str(named.cells[start + i]) for i in np.flatnonzero(is_zero)[: _checks.SHOW]]
    if n_bad:
        raise reader.complaint(n_bad, bad_rows, bad_columns)
    if n_zero:
        msg = (
            f"{named.array} has {n_zero} cells whose features are all zero (first: {_checks.first(first_zero)}): cosine "
            "similarity to them is undefined. Drop them, for instance with scanpy.pp.filter_cells(adata, min_genes=1)."
        )
        raise ValueError(msg)
    if stored is not None:
        _SOUND.update({(stored, forbid_zero_cells), (stored, False)})


_SOUND: set[tuple[Any, bool]] = set()
"""Arrays in files that were found sound in this process."""


def _is_vouched(source: Any, *, forbid_zero_cells: bool) -> bool:
    """Whether this is the ``X`` of a store of ours, whose values were checked as they were written."""
    known = known_of(source)
    return bool(known.get("is_finite")) and not (forbid_zero_cells and known.get("has_zero_cells", True))


def _is_finite_in_memory(reader: RowReader) -> bool:
    """Whether all values of an array in memory are finite, from its stored values alone; False if that says nothing."""
    source = reader.source
    if reader.is_out_of_core or (sparse.issparse(source) and not source.has_canonical_format):
        return False
    values = source.data if sparse.issparse(source) else source
    if values.dtype.kind in "biu":
        return True
    size = max(1, 2**24 // max(1, int(np.prod(values.shape[1:]))))
    with np.errstate(over="ignore"):
        pieces = (values[i : i + size].astype(np.float32, copy=False) for i in range(0, len(values), size))
        return all(map(all_finite, pieces))


def stored_as(source: Any) -> tuple[Any, ...] | None:
    """What tells an array in a file from all others and from itself after a change; None for an array in memory."""
    if hasattr(source, "picked_from"):  # some columns of it
        whole = stored_as(source.picked_from)
        return None if whole is None else (*whole, zlib.crc32(source.columns.tobytes()))
    source = getattr(source, "group", source)  # a sparse array of anndata
    file, store = getattr(source, "file", None), getattr(source, "store", None)
    name = file.filename if file is not None else getattr(store, "root", getattr(store, "path", None))
    if not isinstance(name, str | os.PathLike):
        return None
    root = Path(name)
    stats = [root.stat()] if root.is_file() else [file.stat() for file in files_in(root)] if root.is_dir() else []
    if not stats:
        return None
    written = max(s.st_mtime_ns for s in stats), sum(s.st_size for s in stats), len(stats), stats[0].st_ino
    return str(root.resolve()), str(getattr(source, "name", "")), *written


def feature_moments(source: Any, groups: np.ndarray | None = None, n_groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over cells, by group of cells.

    Parameters
    ----------
    source
        Array of cells x features, or its reader; read in blocks. A store of :func:`scset_tools.pp.write_store` has those of all
        cells, and is not read for them.
    groups
        Number of the group of each cell, shape (cells,). Default: all in one.
    n_groups
        Number of groups.

    Returns
    -------
    Mean and standard deviation, each (n_groups, features), float32. A feature without spread gets the standard deviation 1,
    so that dividing by it leaves it at zero.
    """
    reader = source if isinstance(source, RowReader) else RowReader(source)
    known = {} if groups is not None and n_groups > 1 else known_of(reader.source)
    if known and "uns/store/feature_sd" in known["root"]:
        mean, sd = (np.asarray(known["root"][f"uns/store/feature_{name}"])[None] for name in ("mean", "sd"))
        return _usable(mean, sd.copy())
    count = np.zeros(n_groups)
    mean = np.zeros((n_groups, reader.n_features))
    squares = np.zeros((n_groups, reader.n_features))  # sum of squares about the mean
    for start, block in reader.chunks():
        group = np.zeros(len(block), dtype=np.int64) if groups is None else groups[start : start + len(block)]
        for g in np.unique(group):
            x = block[group == g].astype(np.float64)
            n, m = len(x), x.mean(axis=0)
            # merging means and squares about them loses no digits, however far a group lies from zero
            apart = m - mean[g]
            squares[g] += ((x - m) ** 2).sum(axis=0) + apart**2 * (count[g] * n / (count[g] + n))
            mean[g] += apart * (n / (count[g] + n))
            count[g] += n
    return _usable(mean, np.sqrt(squares / np.maximum(count, 1)[:, None]))


def _usable(mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sd[sd <= 1e-9 * np.abs(mean)] = 1.0  # far below the resolution of float32: the feature is constant
    return mean.astype(np.float32), sd.astype(np.float32)
