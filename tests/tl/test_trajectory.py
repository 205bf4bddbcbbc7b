"""Orderings of samples against planted gradients, scikit-learn's PCA, scipy's Spearman and its permutation test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from scset_tools import tl
from scset_tools.tl._trajectory import METHODS


@pytest.fixture
def samples():
    """Samples along a bent line, in random order, with a covariate that follows it."""
    rng = np.random.default_rng(0)
    t = rng.permutation(np.linspace(0, 1, 40))
    x = np.c_[6 * t, 2 * t**2, np.zeros(40)] + 0.05 * rng.normal(size=(40, 3))
    obs = pd.DataFrame({"time": t, "noise": rng.normal(size=40)}, index=[f"s{i}" for i in range(40)])
    obs["grade"] = pd.cut(obs["time"], 4, labels=["none", "mild", "severe", "dead"])
    out = AnnData(x, obs=obs)
    out.obsp["d"] = cdist(x, x)
    return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", [{}, {"obsp_key": "d"}])
def test_planted_order_is_found(samples, method, where):
    root = samples.obs["time"].idxmin() if method == "dpt" else None
    result = tl.trajectory_correlation(samples, "time", method=method, root=root, n_permutations=99, **where)
    assert result.correlation > 0.97
    assert result.p_value == 0.01
    assert result.n_samples == (39 if method == "dpt" else 40)
    rows = samples.obs_names != root
    assert stats.spearmanr(result.ordering[rows], samples.obs["time"][rows]).statistic == pytest.approx(
        result.correlation
    )
    assert (
        tl.trajectory_correlation(samples, "grade", method=method, root=root, n_permutations=0, **where).correlation
        > 0.9
    )


def test_first_component_is_scikit_learns_and_principal_coordinates_agree(samples):
    expected = PCA(1).fit_transform(samples.X)[:, 0]
    by_vectors = tl.trajectory_correlation(samples, "time").ordering
    by_distances = tl.trajectory_correlation(samples, "time", obsp_key="d").ordering
    sign = np.sign(by_vectors @ expected)
    np.testing.assert_allclose(by_vectors, sign * expected, atol=1e-8)
    np.testing.assert_allclose(by_distances, by_vectors, atol=1e-6)


def test_p_value_is_scipys(samples):
    result = tl.trajectory_correlation(samples, "noise", n_permutations=999)
    expected = stats.permutation_test(
        (samples.obs["noise"].to_numpy(),),
        lambda y: abs(stats.spearmanr(result.ordering, y).statistic),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=499,
        rng=np.random.default_rng(1),
    )
    assert result.p_value == pytest.approx(expected.pvalue, abs=0.07)
    assert result.correlation == pytest.approx(expected.statistic)


def test_direction_of_a_component_is_turned_but_not_of_pseudotime(samples):
    samples.obs["back"] = -samples.obs["time"]
    assert tl.trajectory_correlation(samples, "back", n_permutations=0).correlation > 0.97
    first = samples.obs["time"].idxmin()
    assert tl.trajectory_correlation(samples, "back", method="dpt", root=first, n_permutations=0).correlation < -0.97


def test_missing_covariates_take_part_in_the_ordering_only(samples):
    samples.obs["partial"] = samples.obs["time"].where(np.arange(40) % 4 > 0)
    result = tl.trajectory_correlation(samples, "partial", n_permutations=9)
    assert result.n_samples == 30
    assert len(result.ordering) == 40
    use = samples.obs["partial"].notna()
    assert result.correlation == pytest.approx(
        stats.spearmanr(result.ordering[use], samples.obs["partial"][use]).statistic
    )
    assert result.summary().loc[0, "covariate_key"] == "partial"


def test_groups_make_the_test_honest():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(6), 10)
    severity, axis = np.array([2.0, 0, 1, 5, 3, 4]), np.arange(6.0)  # rho 0.66 of six donors
    x = axis[donor][:, None] + 0.01 * rng.normal(size=(60, 1))
    obs = pd.DataFrame({"severity": severity[donor], "donor": donor}, index=[f"s{i}" for i in range(60)])
    samples = AnnData(x, obs=obs)
    alone = tl.trajectory_correlation(samples, "severity", n_permutations=199)
    grouped = tl.trajectory_correlation(samples, "severity", groups_key="donor", n_permutations=199)
    assert alone.correlation == grouped.correlation
    assert alone.p_value < 0.05 < grouped.p_value


def test_random_covariates_give_uniform_p_values():
    rng = np.random.default_rng(0)
    samples = AnnData(rng.normal(size=(15, 4)), obs=pd.DataFrame(index=[f"s{i}" for i in range(15)]))
    p = []
    for _ in range(100):
        samples.obs["y"] = rng.normal(size=15)
        p.append(tl.trajectory_correlation(samples, "y", n_permutations=39).p_value)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_distances_that_are_not_euclidean_are_taken(samples):
    d = cdist(samples.X, samples.X, "cityblock") ** 1.5
    samples.obsp["odd"] = d
    assert tl.trajectory_correlation(samples, "time", obsp_key="odd", n_permutations=0).correlation > 0.95


def test_errors(samples):
    samples.obs["one"] = 1.0
    samples.obs["text"] = "abc"
    samples.obs["few"] = samples.obs["time"].where(np.arange(40) < 2)
    samples.obsm["flat"] = np.ones((40, 2))
    with pytest.raises(ValueError, match="has the same value"):
        tl.trajectory_correlation(samples, "one")
    with pytest.raises(ValueError, match="must hold numbers"):
        tl.trajectory_correlation(samples, "text")
    with pytest.raises(ValueError, match="2 samples have a value"):
        tl.trajectory_correlation(samples, "few")
    with pytest.raises(ValueError, match="All 40 samples have the same representation"):
        tl.trajectory_correlation(samples, "time", use_rep="flat")
    with pytest.raises(ValueError, match="root and method='dpt' belong together"):
        tl.trajectory_correlation(samples, "time", method="dpt")
    with pytest.raises(KeyError, match="root='ghost' is not in"):
        tl.trajectory_correlation(samples, "time", method="dpt", root="ghost")
    with pytest.raises(ValueError, match="method must be one of"):
        tl.trajectory_correlation(samples, "time", method="umap")
    samples.obsm["apart"] = np.repeat([[0.0], [1e6]], 20, axis=0) + np.arange(40)[:, None]
    with pytest.raises(ValueError, match="falls into 2 parts with n_neighbors=3"):
        tl.trajectory_correlation(samples, "time", use_rep="apart", method="diffusion", n_neighbors=3)
