"""Write all distances between samples, for whatever works on a matrix of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _keys
from scset_tools.tl._representation import get_distances

if TYPE_CHECKING:
    from anndata import AnnData


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
    matrix = get_distances(samples, use_rep=use_rep, metric=metric)
    key = _keys.key(key_added or _keys.distances(use_rep))
    samples.obsp[key] = matrix.astype(np.float32)
    samples.uns[key] = {"use_rep": use_rep or "X", "metric": metric}
