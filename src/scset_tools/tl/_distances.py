"""Write all distances between samples, for whatever works on a matrix of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from scset_tools import _keys
from scset_tools.tl._representation import get_representation, require_defined

if TYPE_CHECKING:
    from anndata import AnnData


_ROWS = 256


def distances(
    samples: AnnData, use_rep: str | None = None, *, metric: str = "euclidean", key_added: str | None = None
) -> None:
    """Write all distances between samples to ``obsp``.

    Functions of :mod:`scset_tools.tl` and :mod:`scset_tools.pl` that take ``obsp_key`` read them, next to matrices of other
    tools, and so does whatever else works on distances (PERMANOVA, dendrograms, patpy's evaluation).

    Parameters
    ----------
    samples
        Sample-level AnnData: one row per sample.
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    metric
        Metric of :func:`scipy.spatial.distance.pdist`: ``"euclidean"``, ``"cosine"``, ``"correlation"``, ...
    key_added
        Default: ``"maestro_distances"`` for ``use_rep="X_maestro"``, and ``"sample_distances"`` for ``X``: what scanpy writes
        to ``"distances"`` is a neighbour graph.

    Writes
    ------
    ``obsp[key_added]``, (samples, samples), float32, symmetric with a diagonal of zeros; ``uns[key_added]`` with `use_rep` and
    `metric`.

    Raises
    ------
    KeyError
        If there is no such representation.
    ValueError
        If values are missing, or the metric is unknown or not defined for some samples.

    Examples
    --------
    >>> import scset_tools as sst
    >>> samples = sst.profiles.mean(sst.datasets.composition_cohort(n_samples=8, n_cells=30), sample_key="sample")
    >>> sst.tl.distances(samples, "X_mean", metric="cosine")
    >>> samples.obsp["mean_distances"].shape
    (8, 8)
    """
    x = get_representation(samples, use_rep)
    out = np.empty((len(x), len(x)), dtype=np.float32)
    for start in range(0, len(x), _ROWS):  # what is held at once are the result and these rows, in double precision
        rows = slice(start, start + _ROWS)
        out[rows] = cdist(x[rows], x, metric=metric, **metric_scales(x, metric))
    np.fill_diagonal(out, 0)
    require_defined(out, metric, samples.obs_names)
    key = _keys.key(key_added or _keys.distances(use_rep))
    samples.obsp[key] = out
    samples.uns[key] = {"use_rep": use_rep or "X", "metric": metric}


def metric_scales(x: np.ndarray, metric: str) -> dict[str, np.ndarray]:
    """What a metric takes from all samples, and would otherwise take from the rows of a block."""
    if metric == "seuclidean":
        return {"V": x.var(axis=0, ddof=1)}
    if metric == "mahalanobis":
        return {"VI": np.linalg.inv(np.cov(x.T)).T.copy()}
    return {}
