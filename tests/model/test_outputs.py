"""Results as AnnData: aligned, and in types that a file can hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from _cohort import make_cohort

from scset_tools.model._outputs import write_cell_scores


def test_cell_scores_are_aligned_by_name_and_x_is_not_touched():
    adata = make_cohort()
    x = adata.X
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.random((adata.n_obs, 2)), index=adata.obs_names, columns=[0, 1])
    write_cell_scores(adata, scores.sample(frac=1, random_state=0), "toy_attention")
    np.testing.assert_allclose(adata.obs["toy_attention"], scores.mean(axis=1), rtol=1e-6)
    assert adata.obs["toy_attention"].dtype == np.float32
    np.testing.assert_array_equal(adata.obsm["toy_attention"], scores)
    assert list(adata.obsm["toy_attention"].columns) == ["0", "1"]
    assert adata.X is x
    write_cell_scores(adata, scores.iloc[:5], "toy_attention")
    assert adata.obs["toy_attention"].notna().sum() == 5


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_cell_names_may_repeat():
    adata = make_cohort()
    adata.obs_names = ["same"] * adata.n_obs
    scores = pd.DataFrame({"head_0": np.arange(adata.n_obs, dtype=float)}, index=adata.obs_names)
    write_cell_scores(adata, scores, "toy_attention")
    assert adata.obs["toy_attention"].tolist() == list(range(adata.n_obs))
