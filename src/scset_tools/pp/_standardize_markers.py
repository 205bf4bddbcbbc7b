"""Markers of several cohorts on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("moments", "quantile", "none")
N_QUANTILES = 101


@checks_numbers
def standardize_markers(
    adata: AnnData,
    cohort_key: str | None = None,
    *,
    method: Literal["moments", "quantile", "none"] = "moments",
    cofactor: float | Mapping[str, float] | None = None,
    layer: str | None = None,
    like: AnnData | None = None,
    key_added: str = "standardized",
) -> None:
    r"""Bring each marker of each cohort to one location and scale, from its own cells.

    What differs between whole cohorts is removed with it: a label that differs between cohorts and not within them is lost.

    Parameters
    ----------
    adata
        Cells of one or more cohorts, for instance of :func:`concat_panels`; NaN for markers that a cohort lacks.
    cohort_key
        Column of ``adata.obs`` with the cohort (or batch) of each cell. Default: all cells are one.
    method
        ``"moments"``: mean 0 and standard deviation 1. ``"quantile"``: the distribution of a marker becomes the mean of its distributions over the
        cohorts of the fit (Bolstad et al. 2003), which also evens out its shape. ``"none"``: nothing after the cofactor.
    cofactor
        Divides values before :math:`\operatorname{arcsinh}`: about 5 for mass cytometry, 150 for fluorescence; a number, or one for each cohort.
        Default: values are transformed already.
    layer
        Layer to read. Default: ``X``.
    like
        AnnData in which an earlier call wrote the same ``key_added``: its cohorts keep their parameters, and a new cohort is brought to the
        same scale by its own cells. Method and cofactor are those of that call, unless cofactors are given (a new cohort may need its own).
    key_added
        Layer to write to.

    Returns
    -------
    None. Sets:

    ``adata.layers[key_added]`` : values, float32; NaN stays NaN.
    ``adata.uns[key_added]`` : dict of ``method``, ``cohorts``, ``markers``, ``cofactor`` (one per cohort, NaN: none), ``low`` and ``high`` (cohorts x
    markers: mean and standard deviation, or nothing), ``quantiles`` (cohorts x markers x 101) and ``reference`` (markers x 101).

    Raises
    ------
    KeyError
        If a key is missing, ``like`` has no such entry, or a cohort has no cofactor.
    ValueError
        If a value is infinite, a cohort is missing, or no marker is in common with ``like``.

    Examples
    --------
    >>> import numpy as np, scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=4, n_cells=50)
    >>> adata.obs["cohort"] = np.where(adata.obs["sample"].isin(["sample_0", "sample_1"]), "a", "b")
    >>> sst.pp.standardize_markers(adata, "cohort")
    >>> float(abs(adata.layers["standardized"][adata.obs["cohort"] == "a"].mean(0)).max()) < 1e-5
    True
    """
    _checks.require_anndata(adata, caller="pp.standardize_markers")
    _checks.require_choice("method", method, METHODS)
    x = _checks.dense(adata.X if layer is None else _checks.require_layer(adata, layer), "The matrix")
    if np.isinf(x).any():
        row, column = (int(i[0]) for i in np.nonzero(np.isinf(x)))
        msg = f"The value of cell {adata.obs_names[row]!r}, marker {adata.var_names[column]!r} is infinite."
        raise ValueError(msg)
    cohort = np.full(adata.n_obs, "all", dtype=object)
    if cohort_key is not None:
        column = _checks.require_obs(adata, cohort_key)
        _checks.require_no_missing(column, cohort_key)
        cohort = column.astype(str).to_numpy(dtype=object)
    markers, earlier = adata.var_names.astype(str), None if like is None else _fitted(like, key_added)
    if earlier is not None:
        method = str(earlier["method"])  # type: ignore[assignment]
        _require_common(markers, earlier["markers"])
    names = [str(c) for c in pd.unique(pd.Series(cohort))]
    factors = {name: _cofactor(name, cofactor, earlier) for name in names}
    fits = {}
    for name in sorted(names):
        is_own = cohort == name
        if not np.isnan(factors[name]):
            x[is_own] = np.arcsinh(x[is_own] / factors[name])
        fits[name] = _fit(x[is_own], markers, name, method, earlier)
    reference = _reference(fits, markers, earlier)
    for name, fit in fits.items():
        x[cohort == name] = _apply(x[cohort == name], fit, reference, method)
    key = _keys.key(key_added)
    adata.layers[key] = x.astype(np.float32)
    adata.uns[key] = {
        "method": method,
        "cohorts": np.array(list(fits), dtype=str),
        "markers": np.array(markers, dtype=str),
        "cofactor": np.array([factors[name] for name in fits]),
        "low": np.stack([fit["low"] for fit in fits.values()]),
        "high": np.stack([fit["high"] for fit in fits.values()]),
        "quantiles": np.stack([fit["quantiles"] for fit in fits.values()]),
        "reference": reference,
    }


def _fitted(like: AnnData, key_added: str) -> dict[str, Any]:
    key = _keys.key(key_added)
    if key not in like.uns or "reference" not in like.uns[key]:
        msg = f"like.uns has no {key!r} of pp.standardize_markers. Call it on that AnnData first. Keys: {_checks.first(like.uns)}."
        raise KeyError(msg)
    return dict(like.uns[key])


def _require_common(markers: pd.Index, known: np.ndarray) -> None:
    if not len(pd.Index(known).intersection(markers)):
        msg = f"No marker is in common: adata has {_checks.first(markers)}, like has {_checks.first(known)}. See pp.marker_names."
        raise ValueError(msg)


def _cofactor(name: str, cofactor: float | Mapping[str, float] | None, earlier: dict[str, Any] | None) -> float:
    """The cofactor of a cohort; NaN for none."""
    if cofactor is None:
        known = {} if earlier is None else dict(zip(map(str, earlier["cohorts"]), earlier["cofactor"], strict=True))
        if name in known or not known:
            return float(known.get(name, np.nan))
        distinct = set(known.values())
        if len(distinct) == 1 or np.isnan(list(distinct)).all():
            return float(next(iter(distinct)))
        msg = f"Cohort {name!r} is new, and those of `like` have different cofactors ({_checks.first(distinct)}): give cofactor=."
        raise KeyError(msg)
    if isinstance(cofactor, Mapping):
        if name not in cofactor:
            msg = f"cofactor has no entry for cohort {name!r}. Entries: {_checks.first(cofactor)}."
            raise KeyError(msg)
        cofactor = cofactor[name]
    if not cofactor > 0:
        msg = f"The cofactor of cohort {name!r} is {cofactor}, but must be above 0."
        raise ValueError(msg)
    return float(cofactor)


def _fit(
    x: np.ndarray, markers: pd.Index, name: str, method: str, earlier: dict[str, Any] | None
) -> dict[str, np.ndarray]:
    """Mean, standard deviation and quantiles of each marker of a cohort; NaN where it is not measured."""
    n = len(markers)
    fit = {"low": np.full(n, np.nan), "high": np.full(n, np.nan), "quantiles": np.full((n, N_QUANTILES), np.nan)}
    is_measured = ~np.isnan(x).all(axis=0)
    own = x[:, is_measured]
    fit["low"][is_measured], sd = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
    fit["high"][is_measured] = np.where(sd > 1e-9 * np.abs(fit["low"][is_measured]), sd, 1.0)
    if method == "quantile":
        fit["quantiles"][is_measured] = np.nanquantile(own, np.linspace(0, 1, N_QUANTILES), axis=0).T
    known = [] if earlier is None else [str(c) for c in earlier["cohorts"]]
    if name in known:  # a cohort of the fit keeps what was fitted, whatever part of it this is
        row = known.index(name)
        place = pd.Index(earlier["markers"]).get_indexer(markers)  # type: ignore[index]
        for key in fit:
            fit[key][place >= 0] = earlier[key][row][place[place >= 0]]  # type: ignore[index]
    return fit


def _reference(fits: dict[str, dict[str, np.ndarray]], markers: pd.Index, earlier: dict[str, Any] | None) -> np.ndarray:
    """Quantiles that markers are brought to, (markers, 101): the mean over cohorts that measure them."""
    quantiles = np.stack([fit["quantiles"] for fit in fits.values()])
    n = (~np.isnan(quantiles)).sum(axis=0)
    reference = np.where(n > 0, np.nansum(quantiles, axis=0) / np.maximum(n, 1), np.nan)
    if earlier is not None:
        place = pd.Index(earlier["markers"]).get_indexer(markers)
        known = np.asarray(earlier["reference"])[place[place >= 0]]
        reference[place >= 0] = np.where(np.isnan(known), reference[place >= 0], known)
    return reference


def _apply(x: np.ndarray, fit: dict[str, np.ndarray], reference: np.ndarray, method: str) -> np.ndarray:
    if method == "none":
        return x
    if method == "moments":
        return (x - fit["low"]) / fit["high"]
    out = np.full_like(x, np.nan)
    for j in np.flatnonzero(~np.isnan(x).all(axis=0)):
        has = ~np.isnan(x[:, j])
        own = fit["quantiles"][j]
        # equal quantiles are one point: its place is the middle of theirs
        points, first, count = np.unique(own, return_index=True, return_counts=True)
        target = np.array([reference[j][i : i + n].mean() for i, n in zip(first, count, strict=True)])
        out[has, j] = np.interp(x[has, j], points, target)
    return out
