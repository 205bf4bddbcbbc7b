"""Scores of cells averaged over the cells of each type in each sample: what Fig. 4a of PaSCient shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from anndata import AnnData


def group_scores(adata: AnnData, key: str, *, groupby: str, sample_key: str, is_absolute: bool = False) -> pd.DataFrame:
    """Mean score of the cells of each group in each sample; reports only.

    Takes any score of cells in ``obs``: attributions, attention, an expression. To test them against a covariate of the samples,
    put the table into a sample-level AnnData and use :func:`scset_tools.tl.association` (PaSCient Fig. 5b, App. K)::

        samples.obsm["importance"] = table.loc[samples.obs_names]
        sst.tl.association(samples, "severity", use_rep="importance")

    Parameters
    ----------
    adata
        Cells.
    key
        Numeric column of ``adata.obs``; cells where it is missing (not drawn) are left out.
    groupby
        Column of ``adata.obs`` with the type of each cell; cells without one are left out.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    is_absolute
        Whether to average the size of the scores, without their sign: how much cells matter, for or against (PaSCient Fig. 5b).

    Returns
    -------
    DataFrame
        (samples, groups); groups by their mean over samples, largest first; NaN where a sample has no scored cell of a group.
        Samples without any scored cell are left out.

    Raises
    ------
    KeyError
        If a column does not exist.
    TypeError
        If the score is not numeric.
    ValueError
        If no cell has a score, a group and a sample.
    """
    _checks.require_anndata(adata, caller="tl.group_scores")
    score, group, sample = (_checks.require_obs(adata, k) for k in (key, groupby, sample_key))
    if not pd.api.types.is_numeric_dtype(score.dtype):
        msg = f"adata.obs[{key!r}] must be numeric, but holds {score.dtype} values."
        raise TypeError(msg)
    is_known = (score.notna() & group.notna() & sample.notna()).to_numpy()
    if not is_known.any():
        msg = f"No cell has a score ({key!r}), a group ({groupby!r}) and a sample ({sample_key!r})."
        raise ValueError(msg)
    keys = [sample[is_known].astype(str).to_numpy(), group[is_known].astype(str).to_numpy()]
    table = (
        score[is_known].astype(np.float64).pipe(lambda s: s.abs() if is_absolute else s).groupby(keys).mean().unstack()
    )
    order = table.mean(axis=0).sort_values(ascending=False, kind="stable").index
    return table[order].rename_axis(index=sample_key, columns=groupby)
