"""Which markers are measured in which samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scset_tools import _checks

PANELS = "panels"
"""Entry of ``uns``: ``sample`` and ``marker`` (names), ``measured`` (samples x markers, bool)."""

MASK = "_nan_mask"
"""Layer of CytoVI that is zero where a value is missing."""


class PanelCount:
    """Counts of the missing values of each sample and marker, over blocks of cells.

    Parameters
    ----------
    n_samples, n_markers
        Numbers of samples and markers.
    """

    def __init__(self, n_samples: int, n_markers: int) -> None:
        self.n_missing = np.zeros((n_samples, n_markers), dtype=np.int64)
        self.n_cells = np.zeros(n_samples, dtype=np.int64)

    def add(self, is_missing: np.ndarray, codes: np.ndarray) -> None:
        """Count a block.

        Parameters
        ----------
        is_missing
            Which values are missing, (cells, markers).
        codes
            Number of the sample of each cell.
        """
        self.n_cells += np.bincount(codes, minlength=len(self.n_cells))
        for sample in np.unique(codes):
            self.n_missing[sample] += is_missing[codes == sample].sum(axis=0)

    def measured(
        self, samples: Sequence[Any] | np.ndarray, markers: Sequence[Any] | np.ndarray, *, where: str
    ) -> np.ndarray:
        """Whether each marker is measured in each sample, (samples, markers).

        Parameters
        ----------
        samples, markers
            Their names.
        where
            What messages call the matrix.

        Raises
        ------
        ValueError
            If a marker is missing for a part of the cells of a sample, or a sample has no marker.
        """
        partly = (self.n_missing > 0) & (self.n_missing < self.n_cells[:, None])
        if partly.any():
            s, m = (int(i[0]) for i in np.nonzero(partly))
            msg = (
                f"{where} is missing for a part of the cells of a sample, for {int(partly.sum())} pairs of sample and marker (first: marker "
                f"{str(markers[m])!r} in {self.n_missing[s, m]} of {self.n_cells[s]} cells of sample {str(samples[s])!r}). An open panel has a "
                "marker in all cells of a sample or in none: drop these cells, or set the marker to NaN in the whole sample."
            )
            raise ValueError(msg)
        found = self.n_missing == 0
        bare = np.flatnonzero(~found.any(axis=1) & (self.n_cells > 0))
        if len(bare):
            names = [str(samples[int(i)]) for i in bare]
            msg = f"{len(bare)} of {len(found)} samples have no marker at all in {where} (first: {_checks.first(names)}). Leave them out."
            raise ValueError(msg)
        return found


def panels_entry(x: np.ndarray, *, samples: np.ndarray, markers: Iterable[str], cells: Sequence[str]) -> dict[str, Any]:
    """The record of panels of a matrix in memory, for ``uns["panels"]``.

    Parameters
    ----------
    x
        Values with NaN where a marker is not measured, (cells, markers).
    samples
        Name of the sample of each cell.
    markers
        Names of the columns.
    cells
        Names of the rows.

    Raises
    ------
    ValueError
        As :meth:`PanelCount.measured`, and for infinite values.
    """
    markers = np.asarray(list(markers), dtype=str)
    if np.isinf(x).any():
        row, column = (int(i[0]) for i in np.nonzero(np.isinf(x)))
        msg = f"The value of cell {str(cells[row])!r}, marker {str(markers[column])!r} is infinite."
        raise ValueError(msg)
    codes, names = pd.factorize(samples, sort=True)
    count = PanelCount(len(names), len(markers))
    count.add(np.isnan(x), codes)
    names = np.asarray(names, dtype=str)
    return {"sample": names, "marker": markers, "measured": count.measured(names, markers, where="The matrix")}


def panels_of(uns: Any, samples: Sequence[Any] | np.ndarray, markers: Sequence[Any] | np.ndarray) -> np.ndarray:
    """What ``uns["panels"]`` says of these samples and markers, (samples, markers); True for what it does not know.

    Parameters
    ----------
    uns
        Of an AnnData.
    samples, markers
        Their names.

    Raises
    ------
    ValueError
        If the entry is not what :func:`scset_tools.pp.concat_panels` writes.
    """
    found = np.ones((len(samples), len(markers)), dtype=bool)
    if PANELS not in uns:
        return found
    entry = uns[PANELS]
    try:
        known = pd.DataFrame(
            np.asarray(entry["measured"], dtype=bool),
            index=[str(name) for name in entry["sample"]],  # numpy casts text of zarr to no other kind of text
            columns=[str(name) for name in entry["marker"]],
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = (
            f"adata.uns[{PANELS!r}] is not a record of panels ({error}): it must hold 'sample' and 'marker' (names) and 'measured' "
            "(samples x markers, true or false), as pp.concat_panels writes it. Mend or delete it."
        )
        raise ValueError(msg) from error
    rows = known.index.get_indexer(pd.Index([str(s) for s in samples]))
    columns = known.columns.get_indexer(pd.Index([str(m) for m in markers]))
    is_known = (rows >= 0)[:, None] & (columns >= 0)[None]
    return np.where(is_known, known.to_numpy()[np.ix_(rows, columns)], found)
