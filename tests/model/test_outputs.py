"""Results as AnnData: aligned, and in types that a file can hold."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from _cohort import make_cohort

from scset_tools.model._outputs import sample_adata, writable, write_cell_scores


@pytest.fixture
def representation():
    x = np.arange(24, dtype=np.float64).reshape(8, 3)
    return pd.DataFrame(x, index=[f"s{i:02d}" for i in range(8)])


def test_rows_follow_the_representation_and_columns_are_those_of_samples(representation):
    adata = make_cohort()
    order = ["s05", "s00", "s03"]
    out = sample_adata(representation.loc[order], adata, sample_key="sample", name="toy", provenance={"model": "Toy"})
    assert list(out.obs_names) == order
    assert list(out.obs.columns) == ["condition", "study", "age", "n_cells"]
    by_sample = adata.obs.groupby("sample", observed=True)
    assert out.obs["n_cells"].tolist() == by_sample.size().loc[order].tolist()
    assert out.obs["age"].tolist() == by_sample["age"].first().loc[order].tolist()
    assert list(out.var_names) == ["toy_0", "toy_1", "toy_2"]
    assert out.X.dtype == out.obsm["X_toy"].dtype == np.float32
    np.testing.assert_array_equal(out.X, representation.loc[order])
    out.obsm["X_toy"][:] = 0
    assert out.X.any()  # not the same memory


def test_integer_samples_have_text_names(representation):
    adata = make_cohort()
    adata.obs["sample"] = adata.obs["sample"].astype(str).str[1:].astype(int)
    representation.index = [str(i) for i in range(8)]
    out = sample_adata(representation, adata, sample_key="sample", name="toy", provenance={})
    assert list(out.obs_names) == [str(i) for i in range(8)]
    assert out.obs["n_cells"].sum() == adata.n_obs


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


def test_provenance_survives_a_file(tmp_path):
    provenance = {
        "model": "Toy",
        "none": None,
        "nested": {"none": None, "rate": 0.5, "flag": True, 3: "three"},
        "rates": (0.2, 0.4),
        "names": ["a", "b"],
        "mixed": [1, "a"],
        "numbers": [np.int64(1), np.int64(2)],
        "empty": [],
        "text": np.str_("t"),
        "array": np.arange(3),
        "class": int,
    }
    adata = ad.AnnData(np.zeros((1, 1), np.float32), uns={"toy": writable(provenance)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad").uns["toy"]
    assert read["model"] == "Toy"
    assert set(read["nested"]) == {"rate", "flag", "3"}
    assert read["nested"]["rate"] == 0.5
    assert bool(read["nested"]["flag"]) is True
    assert list(read["rates"]) == [0.2, 0.4]
    assert list(read["names"]) == ["a", "b"]
    assert list(read["mixed"]) == ["1", "a"]
    assert list(read["numbers"]) == [1, 2]
    assert len(read["empty"]) == 0
    assert read["text"] == "t"
    assert list(read["array"]) == [0, 1, 2]
    assert read["class"] == "<class 'int'>"
    assert "none" not in read
