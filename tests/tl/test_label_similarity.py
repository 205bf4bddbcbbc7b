"""Correlation of mean vectors against numpy's."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst


def samples():
    rng = np.random.default_rng(0)
    disease = np.array(["flu", "flu", "covid", "covid", "healthy", "healthy", "rare", None], dtype=object)
    tissue = np.array(["lung", "blood"] * 4)
    obs = pd.DataFrame({"disease": disease, "tissue": tissue}, index=[f"s{i}" for i in range(8)])
    return ad.AnnData(rng.normal(size=(8, 6)).astype(np.float32), obs=obs, obsm={"X_rep": rng.normal(size=(8, 4))})


@pytest.mark.parametrize("use_rep", [None, "X_rep"])
def test_equal_to_numpy(use_rep):
    data = samples()
    x = data.X if use_rep is None else data.obsm[use_rep]
    names = ["covid", "flu", "healthy", "rare"]
    means = [x[(data.obs["disease"] == n).to_numpy()].mean(0) for n in names]
    table = sst.tl.label_similarity(data, "disease", use_rep=use_rep)
    assert list(table.index) == list(table.columns) == names
    np.testing.assert_allclose(table, np.corrcoef(means), atol=1e-6)


def test_pairs_of_labels_and_few_samples():
    data = samples()
    table = sst.tl.label_similarity(data, ["disease", "tissue"])
    assert len(table) == 7
    assert "flu | lung" in table.index
    assert list(sst.tl.label_similarity(data, "disease", min_samples=2).index) == ["covid", "flu", "healthy"]
    with pytest.raises(ValueError, match="needs two labels with at least min_samples=3 samples"):
        sst.tl.label_similarity(data, "disease", min_samples=3)


def test_a_constant_mean_has_no_correlation():
    data = samples()
    data.X[6] = 1.0
    table = sst.tl.label_similarity(data, "disease")
    assert table.loc["rare"].isna().all()
    assert table.loc["flu", "covid"] == table.loc["covid", "flu"]
