"""Which cells make up which sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._samples import as_text, sample_codes


def order_by_name(names: pd.Index) -> np.ndarray:
    """Rows in the order of a hash of the names of their cells, (cells,), int64.

    What is drawn for the cell at a place of this order is drawn for the cell and not for its row: the same cells in another order
    of rows give the same result. Names that stand for several cells leave these in the order of their rows.

    Parameters
    ----------
    names
        Names of the cells, ``adata.obs_names``.
    """
    hashed = pd.util.hash_array(np.asarray(names.astype(str), dtype=object), categorize=False)
    return np.argsort(hashed, kind="stable")


@dataclass(frozen=True)
class SampleIndex:
    """Cells grouped by sample: ``order[indptr[i]:indptr[i + 1]]`` are the rows of sample ``i``.

    Rows ascend within a sample, unless the cells were named: then they are in the order of :func:`order_by_name`, in which
    nothing can be seen of the order in which they are stored.

    Attributes
    ----------
    names
        Sample names, shape (samples,).
    order
        Row numbers of all cells, grouped by sample, shape (cells,), int64.
    indptr
        Where each sample begins and ends in ``order``, shape (samples + 1,), int64.
    """

    names: np.ndarray
    order: np.ndarray
    indptr: np.ndarray

    @classmethod
    def from_codes(cls, codes: np.ndarray, names: np.ndarray, *, by_name: np.ndarray | None = None) -> SampleIndex:
        """Group cells by the number of their sample.

        Parameters
        ----------
        codes
            Number of the sample of each cell, (cells,).
        names
            Names of the samples, (samples,).
        by_name
            All rows in the order that the cells of a sample are to have, from :func:`order_by_name`. Default: ascending.
        """
        codes, names = np.asarray(codes).ravel(), np.asarray(names)
        if len(codes) and (codes.min() < 0 or codes.max() >= len(names)):
            msg = f"Sample codes must lie in [0, {len(names)}), but span [{codes.min()}, {codes.max()}]."
            raise ValueError(msg)
        sizes = np.bincount(codes, minlength=len(names))
        if len(names) <= np.iinfo(np.uint16).max:
            codes = codes.astype(np.uint16)  # so short numbers are sorted without comparisons
        if by_name is None:
            order = np.argsort(codes, kind="stable")
        else:
            order = by_name[np.argsort(codes[by_name], kind="stable")]
        return cls(names, order, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    @classmethod
    def from_obs(cls, obs: pd.DataFrame, sample_key: str) -> SampleIndex:
        """Group cells by a column; names are sorted, and categories without cells are left out.

        Parameters
        ----------
        obs
            One row per cell.
        sample_key
            Column with the sample of each cell. Must be complete.
        """
        return cls.from_codes(*sample_codes(_checks.obs_column(obs, sample_key), sample_key))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> np.ndarray:
        """Number of cells of each sample, shape (samples,)."""
        return np.diff(self.indptr)

    def cells(self, sample: int) -> np.ndarray:
        """Row numbers of the cells of one sample.

        Parameters
        ----------
        sample
            Number of the sample.
        """
        return self.order[self.indptr[sample] : self.indptr[sample + 1]]

    def cells_of(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        """Row numbers of the cells of several samples, one sample after the other.

        Parameters
        ----------
        samples
            Numbers of the samples.
        """
        if len(samples) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([self.cells(int(i)) for i in samples])

    def positions(self, samples: Sequence | np.ndarray | None) -> np.ndarray:
        """Numbers of the named samples. Names are compared as text; an unknown one raises KeyError, none at all ValueError.

        Parameters
        ----------
        samples
            Names of the samples; None for all.
        """
        if samples is None:
            return np.arange(len(self))
        wanted = pd.Index(as_text([samples] if np.isscalar(samples) else samples))
        if not len(wanted):
            msg = (
                f"`samples` is empty: name some, for instance {_checks.first(self.names, 3)}, or leave it out for all."
            )
            raise ValueError(msg)
        found = pd.Index(as_text(self.names)).get_indexer(wanted)
        if (found < 0).any():
            msg = (
                f"{(found < 0).sum()} of {len(wanted)} samples are not in the data: {_checks.first(wanted[found < 0])}. "
                f"Known samples: {_checks.first(self.names)}."
            )
            raise KeyError(msg)
        return found

    def first(self, values: np.ndarray) -> np.ndarray:
        """The per-sample value of a per-cell column that is constant within samples.

        Parameters
        ----------
        values
            One value per cell, (cells,).
        """
        return np.asarray(values)[self.order[self.indptr[:-1]]]
