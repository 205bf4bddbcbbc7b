"""From scores of cells to AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scset_tools._samples import as_text


def aligned_cells(adata: AnnData, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores in the order of ``adata.obs_names``; cells without a score get NaN."""
    # names of cells may repeat, as after a concatenation: then only the order tells them apart
    is_in_order = np.array_equal(as_text(scores.index), as_text(adata.obs_names))
    return scores.set_axis(adata.obs_names) if is_in_order else scores.reindex(adata.obs_names)


def write_cell_scores(adata: AnnData, scores: pd.DataFrame, key: str) -> None:
    """Scores per cell: their mean over columns to ``obs[key]`` (float32), all columns to ``obsm[key]``.

    Aligned by ``obs_names``; cells without a score get NaN. ``X`` is not touched.
    """
    aligned = aligned_cells(adata, scores)
    adata.obs[key] = aligned.mean(axis=1).to_numpy(dtype=np.float32)
    adata.obsm[key] = aligned.set_axis(aligned.columns.astype(str), axis=1)
