"""Distances of other tools, joined by the names of the samples, and ours as tables with names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._samples import as_text
from scset_tools.tl._representation import check_distances, get_distances

if TYPE_CHECKING:
    from anndata import AnnData


def read_distances(samples: AnnData, table: pd.DataFrame, *, key_added: str) -> None:
    """Write distances of another tool to ``obsp``, joined by name: a matrix has no names, a table has.

    It is the form in which patpy (``obsm["<method>_distances"]``) and pertpy (``Distance.pairwise``) give distances.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    table
        Distances with the names of samples as index and as columns, in any order. Samples that ``samples`` does not have are left out.
    key_added
        Key of ``obsp``.

    Writes
    ------
    ``obsp[key_added]``, (samples, samples), float32, in the order of ``samples``.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If a sample has no row or column, a name occurs twice, or the values are no distances.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=8, n_cells=30), sample_key="sample")
    >>> sst.tl.distances(samples, "X_mean")
    >>> table = sst.tl.get_distance_table(samples, obsp_key="mean_distances")
    >>> sst.tl.read_distances(samples, table.iloc[::-1], key_added="again")
    >>> bool((samples.obsp["again"] == samples.obsp["mean_distances"]).all())
    True
    """
    _checks.require_anndata(samples, caller="tl.read_distances")
    samples.obsp[_keys.key(key_added)] = in_sample_order(samples, table, name="table").astype(np.float32)


def get_distance_table(
    samples: AnnData, *, use_rep: str | None = None, obsp_key: str | None = None, metric: str = "euclidean"
) -> pd.DataFrame:
    """All distances between samples as a table with their names, which patpy, pertpy and a CSV file can take.

    Parameters
    ----------
    samples, use_rep, obsp_key, metric
        As of :func:`get_distances`.

    Returns
    -------
    DataFrame of shape (n_samples, n_samples) with ``obs_names`` as index and columns.

    Raises
    ------
    KeyError, ValueError
        As of :func:`get_distances`.
    """
    d = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key, metric=metric)
    names = pd.Index(samples.obs_names, name=None)
    return pd.DataFrame(d, index=names, columns=names)


def in_sample_order(samples: AnnData, table: Any, *, name: str) -> np.ndarray:
    """The distances of a table in the order of ``samples``, float64; TypeError or ValueError naming what does not fit."""
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"Distances {name!r} must be a DataFrame with the names of the samples as index and columns, not {type(table).__name__}: a matrix has "
            "no names. Give it those of its tool, in its order."
        )
        raise TypeError(msg)
    rows, columns = pd.Index(as_text(table.index)), pd.Index(as_text(table.columns))
    wanted = pd.Index(as_text(samples.obs_names))
    for axis, there in (("index", rows), ("columns", columns)):
        twice = there[there.duplicated()].unique()
        if len(twice):
            msg = f"Distances {name!r} have {len(twice)} names more than once in the {axis} (first: {_checks.first(twice)})."
            raise ValueError(msg)
        absent = wanted.difference(there)
        if len(absent):
            hint = " The table is numbered, not named." if list(there) == [str(i) for i in range(len(there))] else ""
            msg = (
                f"Distances {name!r} have no {axis[:-1] if axis == 'columns' else 'row'} for {len(absent)} of {len(wanted)} samples "
                f"(first: {_checks.first(absent)}; names there: {_checks.first(there)}).{hint}"
            )
            raise ValueError(msg)
    d = table.to_numpy(dtype=np.float64)[np.ix_(rows.get_indexer(wanted), columns.get_indexer(wanted))]
    check_distances(d, f"distances {name!r}", samples.obs_names)
    return d
