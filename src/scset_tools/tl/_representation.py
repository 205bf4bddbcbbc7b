"""Read one representation, or all distances, of a sample-level AnnData: the only door of this room for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial.distance import pdist, squareform

from scset_tools import _checks

if TYPE_CHECKING:
    from anndata import AnnData


def get_representation(samples: AnnData, use_rep: str | None = None) -> np.ndarray:
    """The vectors of all samples.

    Parameters
    ----------
    samples
        Sample-level AnnData: one row per sample.
    use_rep
        Key of ``samples.obsm``. ``None`` or ``"X"``: ``samples.X``.

    Returns
    -------
    Array of shape (n_samples, n_features), float64, a copy. Sparse matrices and DataFrames are made dense.

    Raises
    ------
    KeyError
        If there is no such key, or no ``X``.
    ValueError
        If there are no samples or no features, if the entry is not a matrix of numbers with one row per sample, or if
        values are missing or infinite (the message names the samples).
    """
    _checks.require_anndata(samples, caller="tl")
    if use_rep is None or (use_rep == "X" and "X" not in samples.obsm):
        name, values = "samples.X", samples.X
        if values is None:
            msg = f"samples.X is empty. Pass use_rep, one of samples.obsm: {_checks.first(samples.obsm.keys(), 20)}."
            raise KeyError(msg)
    else:
        name, values = f"samples.obsm[{use_rep!r}]", _checks.require_obsm(samples, use_rep)
    x = _checks.dense(values, name)
    if x.ndim != 2 or x.shape[0] != samples.n_obs:
        msg = f"{name} must have shape (n_samples={samples.n_obs}, n_features), but has shape {x.shape}."
        raise ValueError(msg)
    if x.size == 0:
        msg = f"{name} has shape {x.shape}: there is nothing to evaluate."
        raise ValueError(msg)
    is_bad = ~np.isfinite(x).all(axis=1)
    if is_bad.any():
        msg = (
            f"{name} has missing or infinite values in {is_bad.sum()} of {len(x)} samples "
            f"(first: {_checks.first(samples.obs_names[is_bad])}). Leave these samples out, or fill the values in."
        )
        raise ValueError(msg)
    return x


def get_distances(
    samples: AnnData, *, use_rep: str | None = None, obsp_key: str | None = None, metric: str = "euclidean"
) -> np.ndarray:
    """All distances between samples: a stored matrix, or computed from a representation.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    use_rep
        Representation to compute distances of; see :func:`get_representation`. Not with ``obsp_key``.
    obsp_key
        Key of ``samples.obsp`` with a full matrix of distances (larger = less alike), not a neighbour graph.
    metric
        Metric of :func:`scipy.spatial.distance.pdist` for a representation. Not used with ``obsp_key``.

    Returns
    -------
    Array of shape (n_samples, n_samples), float64, symmetric, diagonal as stored (zero if computed).

    Raises
    ------
    KeyError
        If there is no such key.
    ValueError
        If both keys are given, or if the stored matrix has missing or negative values, is not symmetric, or leaves pairs
        out (a sparse neighbour graph).
    """
    if obsp_key is None:
        x = get_representation(samples, use_rep)
        d = squareform(pdist(x, metric=metric), checks=False) if len(x) > 1 else np.zeros((1, 1))
        require_defined(d, metric, samples.obs_names)
        return d
    _checks.require_anndata(samples, caller="tl")
    if use_rep is not None:
        msg = f"Pass use_rep ({use_rep!r}) or obsp_key ({obsp_key!r}), not both: distances come from one of them."
        raise ValueError(msg)
    if obsp_key not in samples.obsp:
        msg = f"{obsp_key!r} is not in samples.obsp. Keys: {_checks.first(samples.obsp.keys(), 20)}."
        raise KeyError(msg)
    stored, name = samples.obsp[obsp_key], f"samples.obsp[{obsp_key!r}]"
    n = samples.n_obs
    if sparse.issparse(stored):
        _require_all_pairs(stored, name)
    d = _checks.dense(stored, name)
    if d.shape != (n, n):
        msg = f"{name} must have shape (n_samples, n_samples) = ({n}, {n}), but has shape {d.shape}."
        raise ValueError(msg)
    check_distances(d, name, samples.obs_names)
    return d


def require_defined(d: np.ndarray, metric: str, names: pd.Index) -> None:
    """Raise ValueError naming the samples for which computed distances (n, n) are not defined."""
    is_bad = ~np.isfinite(d).all(axis=1)
    if is_bad.any():
        bad = names[is_bad]
        msg = (
            f"The {metric!r} distance is not defined for {len(bad)} of {len(d)} samples (first: {_checks.first(bad)}), "
            "for example because their vectors are constant. Choose another metric, or leave these samples out."
        )
        raise ValueError(msg)


def _require_all_pairs(stored: sparse.spmatrix, name: str) -> None:
    """A pair that a sparse matrix does not store reads as distance zero: the nearest of all. Refuse that."""
    coo = stored.tocoo()
    n_pairs, n_wanted = int((coo.row != coo.col).sum()), stored.shape[0] * (stored.shape[0] - 1)
    if n_pairs < n_wanted:
        msg = (
            f"{name} is sparse and stores {n_pairs} of {n_wanted} pairs of samples: a neighbour graph, whose missing "
            "pairs would read as distance zero. Store the full matrix of distances."
        )
        raise ValueError(msg)


def check_distances(d: np.ndarray, name: str, sample_names: pd.Index) -> None:
    """Raise ValueError naming the samples for anything that is not a matrix of distances."""
    is_bad = ~np.isfinite(d).all(axis=1)
    if is_bad.any():
        msg = (
            f"{name} has missing or infinite values in {is_bad.sum()} of {len(d)} rows "
            f"(first: {_checks.first(sample_names[is_bad])}). Leave these samples out."
        )
        raise ValueError(msg)
    tolerance = 1e-3 * max(float(np.abs(d).max()), np.finfo(float).tiny)
    if d.min() < -tolerance:
        row = int(d.min(axis=1).argmin())
        msg = (
            f"{name} has negative values (smallest {d.min():.4g}, in the row of sample {str(sample_names[row])!r}): "
            "it must hold distances, not similarities. Convert it first, e.g. 1 - similarity."
        )
        raise ValueError(msg)
    gap = np.abs(d - d.T)
    if gap.max() > tolerance:
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        msg = (
            f"{name} is not symmetric: samples {str(sample_names[i])!r} and {str(sample_names[j])!r} are {d[i, j]:.4g} apart one "
            f"way and {d[j, i]:.4g} the other. Symmetrise it first: (d + d.T) / 2."
        )
        raise ValueError(msg)
    too_far = np.diag(d) > d.mean()
    if too_far.any():
        msg = (
            f"{name} puts {too_far.sum()} of {len(d)} samples farther from themselves than the mean distance "
            f"(first: {_checks.first(sample_names[too_far])}): it looks like a matrix of similarities. Convert it first."
        )
        raise ValueError(msg)
