"""Mean scores of cell types by sample against a loop, and on to a test against a covariate."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scset_tools as sst


def cells(n_samples=10, n=30):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "sample": np.repeat([f"s{i}" for i in range(n_samples)], n),
            "cell_type": rng.choice(["A", "B", "C"], n_samples * n),
            "severity": np.repeat(["mild"] * (n_samples // 2) + ["severe"] * (n_samples - n_samples // 2), n),
        },
        index=[f"c{i}" for i in range(n_samples * n)],
    )
    is_b = (obs["cell_type"] == "B").to_numpy()
    is_severe = (obs["severity"] == "severe").to_numpy()
    obs["score"] = rng.normal(size=len(obs)) + 1.0 * (obs["cell_type"] == "C") + 3.0 * (is_b & is_severe)
    return ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)


def test_means_equal_a_loop_and_groups_are_ranked():
    adata = cells()
    adata.obs.loc[(adata.obs["sample"] == "s2") & (adata.obs["cell_type"] == "A"), "score"] = np.nan
    adata.obs.loc["c0", "cell_type"] = np.nan
    table = sst.tl.group_scores(adata, "score", groupby="cell_type", sample_key="sample")
    for sample in table.index:
        for group in table.columns:
            own = [
                row.score
                for row in adata.obs.itertuples()
                if row.sample == sample and row.cell_type == group and not np.isnan(row.score)
            ]
            expected = sum(own) / len(own) if own else np.nan
            assert table.loc[sample, group] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(table.loc["s2", "A"])
    assert table.mean().tolist() == sorted(table.mean(), reverse=True)


def test_the_type_that_goes_with_severity_is_found():
    adata = cells()
    table = sst.tl.group_scores(adata, "score", groupby="cell_type", sample_key="sample")
    obs = adata.obs.groupby("sample")[["severity"]].first()
    samples = ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)
    samples.obsm["importance"] = table.loc[samples.obs_names]
    found = sst.tl.association(samples, "severity", use_rep="importance")
    assert found["feature"].iloc[0] == "B"
    assert found["p_adjusted"].iloc[0] < 0.05
    assert found["effect"].iloc[0] == 1.0  # every severe sample above every mild one


def test_bad_input():
    adata = cells()
    with pytest.raises(KeyError, match="'attention' is not a column"):
        sst.tl.group_scores(adata, "attention", groupby="cell_type", sample_key="sample")
    with pytest.raises(TypeError, match=r"'severity'\] must be numeric"):
        sst.tl.group_scores(adata, "severity", groupby="cell_type", sample_key="sample")
    adata.obs["score"] = np.nan
    with pytest.raises(ValueError, match="No cell has a score"):
        sst.tl.group_scores(adata, "score", groupby="cell_type", sample_key="sample")


def test_the_size_of_scores_has_no_sign():
    adata = cells()
    table = sst.tl.group_scores(adata, "score", groupby="cell_type", sample_key="sample", is_absolute=True)
    expected = adata.obs.assign(score=adata.obs["score"].abs()).groupby(["sample", "cell_type"])["score"].mean()
    for (sample, group), value in expected.items():
        np.testing.assert_allclose(table.loc[sample, group], value)
