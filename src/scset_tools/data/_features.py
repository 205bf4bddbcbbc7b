"""One pass over the features of all cells: are they usable, and what is their scale?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scset_tools import _checks
from scset_tools.data._rows import RowReader, row_major


def describe_source(*, layer: str | None = None, use_rep: str | None = None) -> str:
    """How messages name the array that a model reads."""
    if use_rep is not None:
        return f"adata.obsm[{use_rep!r}]"
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def check_features(
    source: Any, *, where: str, names: pd.Index, cells: pd.Index, forbid_zero_cells: bool = False
) -> None:
    """Raise ValueError for values that are not finite and, if asked, for cells whose features are all zero.

    Parameters
    ----------
    source
        Array of cells x features in any storage that :class:`~scset_tools.data._rows.RowReader` reads.
    where
        How to name the array in a message.
    names, cells
        Names of features and cells, for the message.
    forbid_zero_cells
        Whether a cell without any signal is an error: it has no direction, so cosine similarity to it means nothing.
    """
    n_bad, n_zero = 0, 0
    first_bad: list[str] = []
    first_zero: list[str] = []
    for start, block in _stored_blocks(source):
        values = block.data if sparse.issparse(block) else block
        if not np.isfinite(values).all():
            row, column = np.nonzero(~np.isfinite(block.toarray() if sparse.issparse(block) else block))
            n_bad += len(row)
            first_bad += [f"cell {cells[start + r]!r}, {names[c]!r}" for r, c in zip(row[:3], column[:3], strict=True)]
        if forbid_zero_cells:
            is_zero = np.asarray((block != 0).sum(axis=1)).ravel() == 0
            n_zero += int(is_zero.sum())
            first_zero += list(cells[start + np.flatnonzero(is_zero)[: _checks.SHOW]])
    if n_bad:
        msg = (
            f"{where} has {n_bad} values that are not finite (first: {'; '.join(first_bad[:3])}). "
            "Impute them, or drop the cells or features they are in."
        )
        raise ValueError(msg)
    if n_zero:
        msg = (
            f"{where} has {n_zero} cells whose features are all zero (first: {_checks.first(first_zero)}): cosine "
            "similarity to them is undefined. Drop them, for instance with scanpy.pp.filter_cells(adata, min_genes=1)."
        )
        raise ValueError(msg)


def feature_moments(source: Any, groups: np.ndarray | None = None, n_groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over cells, by group of cells.

    Parameters
    ----------
    source
        Array of cells x features, read in blocks.
    groups
        Number of the group of each cell, shape (cells,). Default: all in one.
    n_groups
        Number of groups.

    Returns
    -------
    Mean and standard deviation, each (n_groups, features), float32. A feature without spread gets the standard deviation 1,
    so that dividing by it leaves it at zero.
    """
    reader = RowReader(source)
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
    sd = np.sqrt(squares / np.maximum(count, 1)[:, None])
    sd[sd <= 1e-9 * np.abs(mean)] = 1.0  # far below the resolution of float32: the feature is constant
    return mean.astype(np.float32), sd.astype(np.float32)


def _stored_blocks(source: Any) -> Any:
    """Blocks of rows as they are stored: sparse stays sparse, and nothing larger than a block is made dense."""
    source = row_major(source)
    n_rows, n_features = source.shape
    size = RowReader.rows_per_chunk(n_features)
    for start in range(0, n_rows, size):
        block = source[start : start + size]
        yield start, block.compute() if hasattr(block, "compute") else block
