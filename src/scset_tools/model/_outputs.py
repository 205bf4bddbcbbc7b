"""From scores of cells to AnnData, and what is written beside vectors."""

from __future__ import annotations

from typing import Any

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


def provenance_of(model: Any) -> dict[str, Any]:
    """Where vectors come from: the model, versions, set-up, arguments, and the samples it was trained on."""
    from scset_tools import __version__

    return {
        "model": type(model).__name__,
        "version": __version__,
        "scvi_version": model.registry["scvi_version"],
        "setup_args": model.registry["setup_args"],
        "modality": model.modality_,
        "modalities": None if model.joined_ is None else list(model.joined_["modalities"]),
        "init_params": model.init_params_["non_kwargs"],
        "is_trained": bool(model.is_trained_),
        "run": model.run_name,
        "train_samples": getattr(model, "train_samples_", None),
        "validation_samples": getattr(model, "validation_samples_", None),
    }
