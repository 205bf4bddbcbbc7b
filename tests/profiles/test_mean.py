from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

from scset_tools import profiles


def test_mean_equals_scanpy_aggregate(adata: ad.AnnData) -> None:
    ours = profiles.mean(adata, sample_key="sample")
    theirs = sc.get.aggregate(adata, "sample", "mean")
    np.testing.assert_allclose(ours.X, theirs[ours.obs_names].layers["mean"], rtol=1e-5, atol=1e-6)
    assert list(ours.var_names) == list(adata.var_names)


@pytest.mark.parametrize(("args", "key"), [({"layer": "double"}, "layer"), ({"use_rep": "X_rep"}, "rep")])
def test_mean_of_a_layer_and_of_a_representation(adata: ad.AnnData, args: dict, key: str) -> None:
    values = adata.layers["double"] if key == "layer" else adata.obsm["X_rep"]
    expected = [values[(adata.obs["sample"] == s).to_numpy()].mean(0) for s in sorted(adata.obs["sample"].unique())]
    np.testing.assert_allclose(profiles.mean(adata, sample_key="sample", **args).X, expected, rtol=1e-5, atol=1e-6)


def test_mean_sums_in_double_precision() -> None:
    # float32 sums of many equal large numbers drift; the mean of equal numbers must be that number
    x = np.full((200_000, 1), 16_777_217.0 / 3, dtype=np.float32)
    samples = profiles.mean(ad.AnnData(x, obs={"s": ["a"] * len(x)}), sample_key="s")
    assert samples.X[0, 0] == x[0, 0]


def test_mean_per_type_equals_loop_and_fills_absent_types(adata: ad.AnnData) -> None:
    train = ["s0", "s1", "s2", "s4"]
    out = (
        profiles.MeanPerType(sample_key="sample", cell_type_key="cell_type").fit(adata, samples=train).transform(adata)
    )
    types = ["B", "NK", "T", "rare"]
    cell = {
        (s, t): adata.X[((adata.obs["sample"] == s) & (adata.obs["cell_type"] == t)).to_numpy()]
        for s in out.obs_names
        for t in types
    }
    expected = np.empty((6, 4, 5))
    for j, t in enumerate(types):
        fill = np.mean([cell[s, t].mean(0) for s in train if len(cell[s, t])], axis=0)
        for i, s in enumerate(out.obs_names):
            expected[i, j] = cell[s, t].mean(0) if len(cell[s, t]) else fill
    np.testing.assert_allclose(out.X, expected.reshape(6, -1), rtol=1e-4, atol=1e-5)
    assert out.var_names[5] == "NK:g0"


def test_mean_per_type_of_a_type_that_no_training_sample_has(adata: ad.AnnData) -> None:
    profile = profiles.MeanPerType(sample_key="sample", cell_type_key="cell_type", cell_types=["rare", "B", "T", "NK"])
    out = profile.fit(adata, samples=["s1", "s3"]).transform(adata)
    overall = np.mean([adata.X[(adata.obs["sample"] == s).to_numpy()].mean(0) for s in ("s1", "s3")], axis=0)
    np.testing.assert_allclose(out["s1", :5].X[0], overall, rtol=1e-5, atol=1e-6)
    assert not np.allclose(out["s0", :5].X[0], overall)
