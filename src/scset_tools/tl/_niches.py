"""Vectors of niches as one vector per tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers
from scset_tools.profiles import KMeansFractions, Mean

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("mean", "mean_sd", "fractions")
N_NICHES = "n_niches"


@checks_numbers
def aggregate_niches(
    niches: AnnData,
    sample_key: str,
    *,
    method: Literal["mean", "mean_sd", "fractions"] = "mean",
    use_rep: str | None = None,
    n_clusters: int = 8,
    rng: np.random.Generator | int | None = 0,
) -> AnnData:
    """One vector per tissue (or donor, or any column that is constant within niches) from the vectors of its niches.

    Parameters
    ----------
    niches
        One row per niche: what a model or profile gives on the cells of :func:`scset_tools.pp.niches`.
    sample_key
        Column of ``niches.obs`` with the tissue, or the donor with several tissues, of each niche.
    method
        ``"mean"`` of the niches; ``"mean_sd"``: beside it their standard deviation (of one niche: zero), which tells an even tissue from one in
        compartments; ``"fractions"``: the share of niches in each cluster of k-means over the niches of all tissues. The clusters read no
        label, but do read the tissues that are tested later; to keep these unseen, use :class:`scset_tools.profiles.KMeansFractions` on
        training tissues.
    use_rep
        Key of ``niches.obsm``. Default: ``niches.X``.
    n_clusters
        Number of clusters of ``"fractions"``.
    rng
        Seed of the clusters.

    Returns
    -------
    AnnData
        One row per tissue, sorted by name: ``X`` and ``obsm["X_niches"]``, float32; ``obs`` with the columns that are constant within tissues and
        ``n_niches``; ``uns["niches"]`` with the arguments.

    Raises
    ------
    KeyError
        If the column or the representation is not there.
    TypeError
        If not given an AnnData.
    ValueError
        If the method is unknown, a niche has no tissue, values are not finite, or there are fewer niches than clusters.

    Examples
    --------
    >>> import numpy as np, scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=4, n_cells=60)
    >>> cells.obsm["spatial"] = np.random.default_rng(0).random((cells.n_obs, 2))
    >>> niches = sst.profiles.mean(sst.pp.niches(cells, "sample", n_neighbors=9, n_niches=5), sample_key="niche")
    >>> sst.tl.aggregate_niches(niches, "sample").obs["n_niches"].tolist()
    [5, 5, 5, 5]
    """
    _checks.require_anndata(niches, caller="tl.aggregate_niches")
    _checks.require_choice("method", method, METHODS)
    from anndata import AnnData

    values = niches.X if use_rep is None else _checks.require_obsm(niches, use_rep)
    where = "niches.X" if use_rep is None else f"niches.obsm[{use_rep!r}]"
    if values is None:
        msg = f"niches.X is empty. Pass use_rep, one of niches.obsm: {_checks.first(niches.obsm.keys(), 20)}."
        raise ValueError(msg)
    x = _checks.dense(values, where)
    obs = _checks.obs_frame(niches).drop(columns=[_keys.N_CELLS], errors="ignore")
    named = use_rep is None
    var = pd.DataFrame(index=niches.var_names if named else pd.Index([f"{use_rep}_{j}" for j in range(x.shape[1])]))
    rows = AnnData(x.astype(np.float32), obs=obs, var=var)
    if method == "fractions":
        out = KMeansFractions(sample_key=sample_key, n_clusters=n_clusters, rng=rng).fit_transform(rows)
    else:
        out = Mean(sample_key=sample_key).fit_transform(rows)
    if method == "mean_sd":
        out = _with_sd(out, x, niches.obs[sample_key])
    out.obs = out.obs.rename(columns={_keys.N_CELLS: N_NICHES})
    final = AnnData(np.asarray(out.X, dtype=np.float32), obs=out.obs, var=out.var)
    final.obsm[_keys.representation("niches")] = final.X.copy()
    final.uns[_keys.SAMPLE_LEVEL] = out.uns[_keys.SAMPLE_LEVEL]
    final.uns["niches"] = {"method": method, "sample_key": sample_key, "use_rep": use_rep or "X"}
    if method == "fractions":
        final.uns["niches"]["n_clusters"] = n_clusters
    return final


def _with_sd(means: AnnData, x: np.ndarray, sample: pd.Series) -> AnnData:
    """Means, and beside them the standard deviation over the niches of a tissue."""
    from anndata import AnnData

    sd = pd.DataFrame(x, index=sample.astype(str).to_numpy()).groupby(level=0).std(ddof=0).loc[means.obs_names]
    names = [*means.var_names, *(f"{name} sd" for name in means.var_names)]
    both = np.concatenate([np.asarray(means.X), sd.to_numpy()], axis=1)
    out = AnnData(both.astype(np.float32), obs=means.obs, var=pd.DataFrame(index=names))
    out.uns.update(means.uns)
    return out
