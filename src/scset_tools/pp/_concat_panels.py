"""Cohorts with different markers as one AnnData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks, _markers
from scset_tools._panels import PANELS, panels_entry

if TYPE_CHECKING:
    from anndata import AnnData


def concat_panels(
    cohorts: Mapping[str, AnnData] | Sequence[AnnData],
    *,
    sample_key: str,
    cohort_key: str = "cohort",
    layer: str | None = None,
    synonyms: Mapping[str, str] | None = None,
    rename: bool = True,
) -> AnnData:
    """Join cohorts whose panels differ: all their markers, with NaN where a cohort lacks one.

    Parameters
    ----------
    cohorts
        AnnData of cells by the name of their cohort, or without names (``"0"``, ``"1"``, ...). A matrix may hold NaN for markers that some
        samples lack.
    sample_key
        Column of each ``obs`` with the sample of each cell.
    cohort_key
        Column to write the name of the cohort to.
    layer
        Layer to take the values from. Default: ``X``.
    synonyms
        Further names of markers; see :func:`marker_names`.
    rename
        Whether markers get the names of :func:`marker_names`, so that ``CD3E`` and ``CD3-FITC`` are one. False: names count as they are.

    Returns
    -------
    AnnData with dense float32 ``X``; ``obs`` has the columns of all cohorts, ``cohort_key``, and the names of samples and cells after that of
    their cohort (``"Krieg-patient 1"``). ``uns["panels"]`` records the markers of each sample (``sample``, ``marker``, ``measured``), and
    ``var`` in how many cohorts (``n_cohorts``) and samples (``n_samples``) a marker is measured. Scatter and time are left out.

    Raises
    ------
    ValueError
        If a cohort has no marker in common with any other, two of its columns are the same marker, or a marker is missing for a part of
        the cells of a sample.
    KeyError
        If ``sample_key`` or ``layer`` is missing.
    TypeError
        If a cohort is no AnnData.

    Examples
    --------
    >>> import scset_tools as sst
    >>> a = sst.datasets.perturbation_cohort(n_samples=4, n_cells=30)
    >>> b = a[:, 3:].copy()
    >>> both = sst.pp.concat_panels({"a": a, "b": b}, sample_key="sample")
    >>> both.obs["sample"].nunique(), int(both.var["n_cohorts"].min())
    (8, 1)
    """
    import anndata

    named: dict[str, AnnData] = dict(
        cohorts if isinstance(cohorts, Mapping) else {str(i): adata for i, adata in enumerate(cohorts)}
    )
    if not named:
        msg = "concat_panels needs at least one cohort, but was given none."
        raise ValueError(msg)
    columns: dict[str, pd.Index] = {}
    for name, adata in named.items():
        _checks.require_anndata(adata, caller="pp.concat_panels")
        _checks.require_no_missing(_checks.require_obs(adata, sample_key), sample_key)
        columns[name] = _columns(adata, name, synonyms, rename=rename)
    _require_common(columns)
    markers = pd.Index(list(dict.fromkeys(marker for own in columns.values() for marker in own.dropna())))
    tables, values = [], []
    for name, adata in named.items():
        own = columns[name]
        source = adata.X if layer is None else _checks.require_layer(adata, layer)
        keep = own.notna()
        x = np.full((adata.n_obs, len(markers)), np.nan, dtype=np.float32)
        x[:, markers.get_indexer(own[keep])] = _checks.dense(source, f"The matrix of cohort {name!r}")[:, keep]
        values.append(x)
        obs = _checks.obs_frame(adata).copy()
        obs[sample_key] = [f"{name}-{sample}" for sample in obs[sample_key].astype(str)]
        obs[cohort_key] = name
        obs.index = pd.Index([f"{name}-{cell}" for cell in adata.obs_names])
        tables.append(obs)
    table = pd.concat(tables)
    for key in (sample_key, cohort_key):
        table[key] = pd.Categorical(table[key])
    x = np.concatenate(values)
    entry = panels_entry(x, samples=table[sample_key].astype(str).to_numpy(), markers=markers, cells=table.index)
    measured = pd.DataFrame(entry["measured"], index=entry["sample"])
    n_cohorts = measured.groupby(table.drop_duplicates(sample_key).set_index(sample_key)[cohort_key].astype(str)).any()
    var = pd.DataFrame({"n_cohorts": n_cohorts.sum().to_numpy(), "n_samples": measured.sum().to_numpy()}, index=markers)
    return anndata.AnnData(x, obs=table, var=var, uns={PANELS: entry})


def _columns(adata: AnnData, name: str, synonyms: Mapping[str, str] | None, *, rename: bool) -> pd.Index:
    """The marker of each column, None for scatter and time."""
    given = [str(column) for column in adata.var_names]
    is_marker = [_markers.channel_kind(column) == "marker" for column in given]
    kept = [column for column, is_kept in zip(given, is_marker, strict=True) if is_kept]
    clashes: dict[str, Any] = (
        _markers.twice(kept, synonyms) if rename else {c: [c] for c in pd.Index(kept)[pd.Index(kept).duplicated()]}
    )
    if clashes:
        marker, names = next(iter(clashes.items()))
        msg = (
            f"{len(clashes)} markers of cohort {name!r} stand in more than one column, first {marker!r}: {_checks.first(names)}. "
            "Drop all but one of the columns, or give synonyms= that tell them apart."
        )
        raise ValueError(msg)
    new = [
        (_markers.marker_of(column, synonyms)[0] if rename else column) if is_kept else None
        for column, is_kept in zip(given, is_marker, strict=True)
    ]
    return pd.Index(new, dtype=object)


def _require_common(columns: Mapping[str, pd.Index]) -> None:
    """Raise if a cohort shares no marker with any other."""
    for name, own in columns.items():
        others = {m for other, markers in columns.items() if other != name for m in markers.dropna()}
        if len(columns) > 1 and not others & set(own.dropna()):
            msg = (
                f"Cohort {name!r} has no marker in common with the others: it has {_checks.first(own.dropna())}, they have "
                f"{_checks.first(sorted(others))}. Names that mean the same are joined by synonyms={{'name': 'marker'}}."
            )
            raise ValueError(msg)
