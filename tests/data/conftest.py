"""A small table of cells, and its registration with the fields of this room."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scvi import REGISTRY_KEYS

from scset_tools.data._feature_fields import CellLayerField
from scset_tools.data._fields import CellBatchField, SampleField, SampleLabelField
from scset_tools.data._manager import SampleManager

SIZES = {"a": 5, "b": 1, "c": 12, "d": 7}


@pytest.fixture
def adata() -> ad.AnnData:
    """Samples a to d of 5, 1, 12 and 7 cells in shuffled rows, labels by sample, batches and studies."""
    rng = np.random.default_rng(0)
    samples = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    obs = pd.DataFrame(
        {
            "sample": samples,
            "condition": np.where(np.isin(samples, ["a", "c"]), "case", "control"),
            "study": np.where(np.isin(samples, ["a", "b"]), "s0", "s1"),
            "batch": rng.choice(["b0", "b1"], len(samples)),
            "age": pd.Series(samples).map({"a": 30, "b": 41, "c": 52, "d": 63}).to_numpy(),
        },
        index=[f"cell{i}" for i in range(len(samples))],
    )
    var = pd.DataFrame(index=["g0", "g1", "g2"])
    return ad.AnnData(rng.random((len(samples), 3)).astype(np.float32) + 1, obs=obs, var=var)


@pytest.fixture
def register() -> Callable[..., SampleManager]:
    """Register an AnnData by its sample column, with labels and batches if asked."""

    def call(adata: ad.AnnData, *, labels_key: str | None = None, batch_key: str | None = None) -> SampleManager:
        fields = [
            SampleField(REGISTRY_KEYS.SAMPLE_KEY, "sample"),
            *([SampleLabelField(REGISTRY_KEYS.LABELS_KEY, labels_key, "sample")] if labels_key else []),
            *([CellBatchField(REGISTRY_KEYS.BATCH_KEY, batch_key)] if batch_key else []),
            CellLayerField(REGISTRY_KEYS.X_KEY, None),
        ]
        manager = SampleManager(fields=fields, setup_method_args={})
        manager.register_fields(adata)
        return manager

    return call
