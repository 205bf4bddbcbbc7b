"""Names of markers, cohorts with different panels as one, and their scales."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scset_tools import pp


def cohort(markers, *, samples=("p1", "p2"), n=40, seed=0, scale=1.0, shift=0.0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 1.0, (n * len(samples), len(markers))) * scale + shift
    obs = pd.DataFrame({"sample": np.repeat(samples, n)}, index=[f"c{i}" for i in range(n * len(samples))])
    return ad.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=list(markers)))


def test_marker_names_says_what_was_matched():
    table = pp.marker_names(["CD3E", "CD3-FITC", "mine", "SSC-A"], synonyms={"mine": "CD4"})
    assert table["marker"].tolist() == ["CD3", "CD3", "CD4", "SSC-A"]
    assert table["is_known"].tolist() == [True, True, True, False]
    assert table["is_twice"].tolist() == [True, True, False, False]
    assert table.loc["SSC-A", "kind"] == "scatter"
    assert pp.marker_names(cohort(["CD3"])).index.tolist() == ["CD3"]


def test_cohorts_with_different_panels_become_one(tmp_path):
    a, b = cohort(["CD3", "CD4-FITC", "FSC-A"]), cohort(["CD19", "cd3e"], seed=1)
    both = pp.concat_panels({"a": a, "b": b}, sample_key="sample", cohort_key="study")
    assert list(both.var_names) == ["CD3", "CD4", "CD19"]
    assert both.obs["sample"].cat.categories.tolist() == ["a-p1", "a-p2", "b-p1", "b-p2"]
    assert both.obs_names.is_unique
    assert both.obs["study"].value_counts().to_dict() == {"a": 80, "b": 80}
    of_a, of_b = both[both.obs["study"] == "a"].X, both[both.obs["study"] == "b"].X
    np.testing.assert_array_equal(of_a[:, :2], a.X[:, :2])
    np.testing.assert_array_equal(of_b[:, [2, 0]], b.X)
    assert np.isnan(of_a[:, 2]).all()
    assert np.isnan(of_b[:, 1]).all()
    assert both.var["n_cohorts"].tolist() == [2, 1, 1]
    assert both.var["n_samples"].tolist() == [4, 2, 2]
    both.write_h5ad(tmp_path / "a.h5ad")
    entry = ad.read_h5ad(tmp_path / "a.h5ad").uns["panels"]
    np.testing.assert_array_equal(entry["measured"], [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]])
    assert list(entry["sample"]) == ["a-p1", "a-p2", "b-p1", "b-p2"]


def test_what_cannot_be_joined_is_told():
    a = cohort(["CD3", "CD4"])
    with pytest.raises(ValueError, match=r"Cohort 'a' has no marker in common .*'CD3', 'CD4'.*'CD19'.*synonyms"):
        pp.concat_panels({"a": a, "b": cohort(["CD19"])}, sample_key="sample")
    with pytest.raises(
        ValueError, match=r"1 markers of cohort 'b' stand in more than one column, first 'CD3': \['CD3', 'CD3E'\]"
    ):
        pp.concat_panels({"a": a, "b": cohort(["CD3", "CD3E"])}, sample_key="sample")
    with pytest.raises(KeyError, match="'donor' is not a column"):
        pp.concat_panels({"a": a}, sample_key="donor")
    with pytest.raises(TypeError, match="takes an AnnData, but was given ndarray"):
        pp.concat_panels({"a": a.X}, sample_key="sample")
    with pytest.raises(ValueError, match="needs at least one cohort"):
        pp.concat_panels([], sample_key="sample")
    a.X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"marker 'CD4' in 1 of 40 cells of sample '0-p1'.*whole sample"):
        pp.concat_panels([a], sample_key="sample")
    a.X[:, 0], a.X[0, 1] = 1.0, np.inf
    with pytest.raises(ValueError, match="cell '0-c0', marker 'CD4' is infinite"):
        pp.concat_panels([a], sample_key="sample")


def two_cohorts() -> ad.AnnData:
    return pp.concat_panels(
        {"a": cohort(["CD3", "CD4"]), "b": cohort(["CD3", "CD19"], seed=1, scale=3, shift=5)}, sample_key="sample"
    )


def test_moments_are_those_of_each_cohort_and_marker():
    adata = two_cohorts()
    assert pp.standardize_markers(adata, "cohort") is None
    z = adata.layers["standardized"]
    for name in "ab":
        own = (adata.obs["cohort"] == name).to_numpy()
        x = adata.X[own]
        wanted = (x - x.mean(0)) / x.std(0)  # NaN for what the cohort lacks
        np.testing.assert_allclose(z[own], wanted, atol=1e-5)
    assert np.isnan(z).sum() == np.isnan(adata.X).sum() == 160


def test_quantiles_become_the_mean_of_the_cohorts():
    adata = two_cohorts()
    pp.standardize_markers(adata, "cohort", method="quantile")
    z = adata.layers["standardized"]
    is_a = (adata.obs["cohort"] == "a").to_numpy()
    grid = np.linspace(0, 100, 11)
    of_a, of_b = np.percentile(z[is_a, 0], grid), np.percentile(z[~is_a, 0], grid)
    wanted = (np.percentile(adata.X[is_a, 0], grid) + np.percentile(adata.X[~is_a, 0], grid)) / 2
    np.testing.assert_allclose(of_a, wanted, rtol=0.02)
    np.testing.assert_allclose(of_b, wanted, rtol=0.02)
    np.testing.assert_array_equal(np.argsort(z[is_a, 0]), np.argsort(adata.X[is_a, 0]))


def test_cofactors_are_those_of_the_technology():
    adata = two_cohorts()
    pp.standardize_markers(adata, "cohort", method="none", cofactor={"a": 5.0, "b": 150.0})
    factor = np.where(adata.obs["cohort"] == "a", 5.0, 150.0)[:, None]
    np.testing.assert_allclose(adata.layers["standardized"], np.arcsinh(adata.X / factor), rtol=1e-6)


@pytest.mark.parametrize("method", ["moments", "quantile"])
def test_what_was_fitted_serves_again(method, tmp_path):
    adata = two_cohorts()
    pp.standardize_markers(adata, "cohort", method=method, cofactor=5.0)
    adata.write_h5ad(tmp_path / "a.h5ad")
    known = ad.read_h5ad(tmp_path / "a.h5ad")
    part = adata[(adata.obs["sample"] == "b-p1").to_numpy()][:, ["CD19", "CD3"]].copy()
    before = part.layers.pop("standardized")
    pp.standardize_markers(part, "cohort", like=known)
    np.testing.assert_allclose(part.layers["standardized"], before, rtol=1e-5, atol=1e-5)
    # a new cohort comes to the same scale by its own cells
    new = cohort(["CD3"], seed=5, scale=20, shift=3)
    new.obs["cohort"] = "new"
    pp.standardize_markers(new, "cohort", like=known)
    of_new, of_old = new.layers["standardized"][:, 0], adata.layers["standardized"][:, 0]
    assert abs(np.median(of_new) - np.median(of_old)) < 0.25 * of_old.std()
    assert new.uns["standardized"]["cofactor"].tolist() == [5.0]


def test_messages_of_standardize_markers():
    adata = two_cohorts()
    with pytest.raises(KeyError, match="cofactor has no entry for cohort 'b'"):
        pp.standardize_markers(adata, "cohort", cofactor={"a": 5.0})
    with pytest.raises(ValueError, match="cofactor=-1 must be a finite number above 0"):
        pp.standardize_markers(adata, "cohort", cofactor=-1)
    with pytest.raises(KeyError, match=r"no 'standardized' of pp\.standardize_markers"):
        pp.standardize_markers(adata, "cohort", like=two_cohorts())
    with pytest.raises(ValueError, match="method='z' is not one of"):
        pp.standardize_markers(adata, method="z")
    pp.standardize_markers(adata, "cohort", cofactor={"a": 5.0, "b": 150.0})
    new = cohort(["CD3"])
    new.obs["cohort"] = "new"
    with pytest.raises(KeyError, match=r"Cohort 'new' is new, and those of `like` have different cofactors"):
        pp.standardize_markers(new, "cohort", like=adata)
    other = cohort(["CD99"])
    other.obs["cohort"] = "a"
    with pytest.raises(ValueError, match="No marker is in common"):
        pp.standardize_markers(other, "cohort", like=adata)
