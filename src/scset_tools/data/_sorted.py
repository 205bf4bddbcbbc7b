"""Files in which the cells of a sample lie apart, and what to say of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from scset_tools.data._features import stored_as

MIN_CELLS = 20_000
"""Fewest cells for which the order of a file is worth a word."""
MAX_PIECES = 2
"""Most pieces of a sample, on average, of a file that counts as sorted."""

_WARNED: set[Any] = set()


def warn_if_unsorted(source: Any, codes: np.ndarray, *, sample_key: str) -> None:
    """Warn, once for a file, if batches of samples have to be picked from all over it.

    Parameters
    ----------
    source
        Array of cells x features; one in memory has no order that matters.
    codes
        Number of the sample of each cell, shape (cells,).
    sample_key
        Column of ``adata.obs`` that they come from.
    """
    if len(codes) < MIN_CELLS or isinstance(source, np.ndarray):
        return
    n_pieces = 1 + int((codes[1:] != codes[:-1]).sum())
    n_samples = int(codes.max(initial=-1)) + 1
    if n_pieces <= MAX_PIECES * n_samples:
        return
    stored = stored_as(source)
    if stored is None or stored in _WARNED:
        return
    _WARNED.add(stored)
    path = stored[0]
    msg = (
        f"The cells of a sample lie apart in {path}: {n_samples} samples in {n_pieces:,} pieces, so that batches are picked from all "
        "over the file. Sort it once and batches come several times quicker: "
        f"sst.pp.write_store({path!r}, 'cohort.zarr', sample_key={sample_key!r}), or in a shell "
        f"scset-tools prepare {path} -s {sample_key} -o cohort.zarr; then adata = sst.pp.read_store('cohort.zarr')."
    )
    warnings.warn(msg, UserWarning, stacklevel=4)
