"""Subtypes of samples: hierarchical clustering, written so that a clustermap can be drawn, and compared with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import cut_tree, leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers
from scset_tools.tl._representation import get_distances, get_representation

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("ward", "average", "complete", "single")
_MOST_CLUSTERS = 10
"""The largest number of clusters that is tried if none is given."""


@checks_numbers
def subtypes(
    samples: AnnData,
    *,
    label_keys: str | Sequence[str] = (),
    use_rep: str | None = None,
    obsp_key: str | None = None,
    n_clusters: int | None = None,
    method: str | None = None,
    key_added: str = "subtypes",
) -> None:
    """Cluster samples hierarchically and compare the clusters with labels.

    Labels are only compared: they choose neither the clusters nor their number. Writes into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    label_keys
        Columns of ``samples.obs`` to compare the clusters with. Samples without a value are left out of the comparison.
    use_rep
        Representation, of which distances are Euclidean.
    obsp_key
        Stored distances instead.
    n_clusters
        Number of clusters. Default: the one of 2 to 10 with the largest mean silhouette. Every data set has such a
        number, also one without clusters: look at its silhouette.
    method
        ``"ward"`` (default for a representation), ``"average"`` (default for stored distances), ``"complete"`` or ``"single"``.
        Ward's criterion is defined for vectors and refuses stored distances.
    key_added
        Name of what is written.

    Returns
    -------
    None. Sets:

    ``samples.obs[key_added]`` : categorical of ``"1"``, ``"2"``, ... in the order of the tree, from one end to the other.
    ``samples.uns[key_added]`` : dict of ``linkage`` (n_samples - 1, 4; scipy's format with optimal leaf order, as seaborn's
    ``clustermap(row_linkage=...)`` takes it), ``sample_names`` (the rows it speaks of), ``silhouette`` (DataFrame: ``n_clusters``,
    ``silhouette``), ``scores`` (DataFrame, one row per label: ``ari``, ``nmi``, ``ami``, ``n_samples``, ``n_classes``) and ``params``. Of the
    three scores NMI is not corrected for chance: it rises with the number of clusters.

    Raises
    ------
    ValueError
        If there are fewer than 3 samples, if ``n_clusters`` is not between 1 and the number of samples, or if Ward is asked
        for stored distances.
    """
    if method is None:
        method = "ward" if obsp_key is None else "average"
    if method not in METHODS:
        msg = f"method must be one of {METHODS}, but is {method!r}."
        raise ValueError(msg)
    if method == "ward" and obsp_key is not None:
        msg = f"Ward's criterion needs vectors, not the distances samples.obsp[{obsp_key!r}]. Pass use_rep, or method='average'."
        raise ValueError(msg)
    keys = [label_keys] if isinstance(label_keys, str) else list(label_keys)
    labels = {key: _checks.require_obs(samples, key) for key in keys}  # before any work is done
    if obsp_key is None:
        condensed = pdist(get_representation(samples, use_rep))
    else:
        d = get_distances(samples, use_rep=use_rep, obsp_key=obsp_key)
        condensed = squareform((d + d.T) / 2 * ~np.eye(len(d), dtype=bool))  # exact symmetry, zero diagonal
    n = samples.n_obs
    if n < 3 or (n_clusters is not None and not 1 <= n_clusters <= n):
        msg = f"{n} samples cannot be clustered into {n_clusters or 'any number of'} subtypes: at least 3 samples, and 1 to {n} clusters."
        raise ValueError(msg)
    tree = optimal_leaf_ordering(linkage(condensed, method=method), condensed)
    silhouette = _silhouettes(tree, squareform(condensed))
    if n_clusters is None:
        n_clusters = int(silhouette.loc[silhouette["silhouette"].idxmax(), "n_clusters"])
    codes = _in_tree_order(tree, n_clusters)
    names = [str(i + 1) for i in range(n_clusters)]
    key_added = _keys.key(key_added)
    samples.obs[key_added] = pd.Categorical.from_codes(codes, categories=names)
    params = {"method": method, "n_clusters": n_clusters}
    params |= {k: v for k, v in {"use_rep": use_rep, "obsp_key": obsp_key}.items() if v is not None}
    samples.uns[key_added] = {
        "linkage": tree,
        "sample_names": samples.obs_names.to_numpy(dtype=str).astype(object),
        "silhouette": silhouette,
        "scores": _agreement(codes, labels),
        "params": params,
    }


def _cut(tree: np.ndarray, n_clusters: int) -> np.ndarray:
    """Codes of exactly ``n_clusters`` clusters, (samples,), also where merges are tied."""
    return cut_tree(tree, n_clusters=n_clusters)[:, 0]


def _in_tree_order(tree: np.ndarray, n_clusters: int) -> np.ndarray:
    """Cluster codes numbered by where they first occur along the leaves, so that neighbours in a plot have neighbouring names."""
    codes = _cut(tree, n_clusters)
    order = pd.unique(codes[leaves_list(tree)])
    new = np.empty(n_clusters, dtype=int)
    new[order] = np.arange(n_clusters)
    return new[codes]


def _silhouettes(tree: np.ndarray, d: np.ndarray) -> pd.DataFrame:
    """Mean silhouette of every number of clusters that has one (2 to n - 1) up to ten."""
    tried = range(2, min(_MOST_CLUSTERS, len(d) - 1) + 1)
    scores = [silhouette_score(d, _cut(tree, k), metric="precomputed") for k in tried]
    return pd.DataFrame({"n_clusters": list(tried), "silhouette": scores})


def _agreement(codes: np.ndarray, labels: dict[str, pd.Series]) -> pd.DataFrame:
    """Scores of the clusters against every label, on the samples that have it."""
    columns = ["ari", "nmi", "ami", "n_samples", "n_classes"]
    out = pd.DataFrame(index=pd.Index(list(labels), name="label_key", dtype=object), columns=columns, dtype=float)
    for key, column in labels.items():
        is_known = column.notna().to_numpy()
        truth, found = pd.factorize(column[is_known].astype(object))[0], codes[is_known]
        if len(truth):
            scores = [
                f(truth, found) for f in (adjusted_rand_score, normalized_mutual_info_score, adjusted_mutual_info_score)
            ]
            out.loc[key, columns[:3]] = scores
        out.loc[key, columns[3:]] = [len(truth), len(np.unique(truth))]
    return out.astype({"n_samples": int, "n_classes": int})
