"""From representations and scores of cells to AnnData; attributions write themselves (``*_attributions.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools import _checks, _keys


def sample_adata(
    representation: pd.DataFrame, adata: AnnData, *, sample_key: str, name: str, provenance: dict[str, Any]
) -> AnnData:
    """A sample-level AnnData: one row per sample, the representation as ``X`` and ``obsm["X_<name>"]``.

    Parameters
    ----------
    representation
        One row per sample, indexed by sample name.
    adata
        The cells; columns of ``obs`` that are constant within samples go along.
    sample_key
        Column of ``adata.obs`` with the sample of each cell.
    name
        Prefix of what is written.
    provenance
        Written to ``uns[name]`` in types that h5ad can hold.
    """
    obs = _checks.sample_obs(adata, sample_key).loc[representation.index.astype(str)]
    x = representation.to_numpy(dtype=np.float32)
    out = AnnData(x, obs=obs, var=pd.DataFrame(index=_keys.features(name, x.shape[1])))
    out.obsm[_keys.representation(name)] = x.copy()
    out.uns[name] = writable(provenance)
    return out


def write_cell_scores(adata: AnnData, scores: pd.DataFrame, key: str) -> None:
    """Scores per cell: their mean over columns to ``obs[key]`` (float32), all columns to ``obsm[key]``.

    Aligned by ``obs_names``; cells without a score get NaN. ``X`` is not touched.
    """
    # names of cells may repeat, as after a concatenation: then only the order tells them apart
    aligned = scores if scores.index.equals(adata.obs_names) else scores.reindex(adata.obs_names)
    adata.obs[key] = aligned.mean(axis=1).to_numpy(dtype=np.float32)
    adata.obsm[key] = aligned.set_axis(aligned.columns.astype(str), axis=1)


def writable(value: Any) -> Any:
    """The value in types that h5ad can hold: without None, tuples as lists, everything else as text."""
    if isinstance(value, dict):
        return {str(k): writable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple | set):
        return np.asarray([v if isinstance(v, int | float | np.number) else str(v) for v in value])
    if isinstance(value, str | bool | int | float | np.ndarray | np.generic):
        return value
    return str(value)
