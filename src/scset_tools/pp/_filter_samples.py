"""Samples that are too small or too large, left out with their numbers said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks, _samples
from scset_tools._numbers import checks_numbers

if TYPE_CHECKING:
    from anndata import AnnData


@checks_numbers
def filter_samples(
    adata: AnnData, sample_key: str, *, min_cells: int | None = None, max_cells: int | None = None
) -> AnnData:
    """Cells of the samples that have enough of them, and not too many; prints what was left out (scSet leaves out samples below 128 cells).

    Parameters
    ----------
    adata
        Annotated data matrix of cells.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    min_cells
        Samples with fewer cells are left out.
    max_cells
        Samples with more cells are left out. To keep them and read fewer of their cells, draw: ``n_cells`` of the models.

    Returns
    -------
    AnnData
        The cells of the samples that stay, as a copy in the order of ``adata``; a view if ``adata`` is backed.

    Raises
    ------
    KeyError
        If the column is not there.
    TypeError
        If not given an AnnData.
    ValueError
        If neither bound is given, they contradict each other, a cell has no sample, or no sample stays.

    Examples
    --------
    >>> import scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=6, n_cells=(20, 60))
    >>> kept = sst.pp.filter_samples(cells, "sample", min_cells=1)
    Samples kept: 6 of 6; cells kept: ...
    """
    _checks.require_anndata(adata, caller="pp.filter_samples")
    if min_cells is None and max_cells is None:
        msg = "pp.filter_samples was given neither min_cells nor max_cells: it would keep every sample."
        raise ValueError(msg)
    low, high = min_cells or 0, np.inf if max_cells is None else max_cells
    if low < 0 or high < max(low, 1):
        msg = f"min_cells={min_cells} and max_cells={max_cells} leave no size of a sample that is kept."
        raise ValueError(msg)
    column = _checks.require_obs(adata, sample_key)
    _checks.require_no_missing(column, sample_key)
    codes, names = _samples.sample_codes(column, sample_key)
    sizes = np.bincount(codes, minlength=len(names))
    is_kept = (sizes >= low) & (sizes <= high)
    out = {f"below {min_cells} cells": sizes < low, f"above {max_cells} cells": sizes > high}
    said = [
        f"{rows.sum()} {what}: {_checks.first(f'{n} ({s})' for n, s in zip(names[rows], sizes[rows], strict=True))}"
        for what, rows in out.items()
        if rows.any()
    ]
    if not is_kept.any():
        msg = (
            f"No sample of {len(names)} stays with min_cells={min_cells} and max_cells={max_cells}: {'; '.join(said)}."
        )
        raise ValueError(msg)
    told = [f"Samples kept: {is_kept.sum()} of {len(names)}", f"cells kept: {sizes[is_kept].sum()} of {len(codes)}"]
    sys.stdout.write("; ".join([*told, *said]) + "\n")  # the caller asked to be told
    kept = adata[is_kept[codes]]
    return kept if adata.isbacked else kept.copy()
