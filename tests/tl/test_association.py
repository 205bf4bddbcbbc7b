"""Rank tests per column, against scipy column by column and statsmodels' correction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats
from statsmodels.stats.multitest import multipletests

from scset_tools import tl


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    x[:, 1] = x[:, 1].round()  # ties
    obs = pd.DataFrame(
        {
            "two": np.where(np.arange(40) % 3 == 0, "b", "a"),
            "three": np.array(["x", "y", "z"])[np.arange(40) % 3],
            "grade": pd.Categorical(
                np.array(["low", "mid", "high"])[rng.integers(3, size=40)], ["low", "mid", "high"], ordered=True
            ),
            "age": rng.integers(20, 80, size=40).astype(float),
        },
        index=[f"s{i}" for i in range(40)],
    )
    x[:, 0] += 2 * (obs["two"] == "b")
    x[:, 2] += obs["age"] / 20
    return AnnData(x, obs=obs)


def by_feature(table, samples):
    return table.set_index("feature").loc[list(samples.var_names)]


def test_two_classes_are_mann_whitney(samples):
    out = by_feature(tl.association(samples, "two"), samples)
    is_b = (samples.obs["two"] == "b").to_numpy()
    for j, row in enumerate(out.itertuples()):
        b, a = samples.X[is_b, j], samples.X[~is_b, j]
        expected = stats.mannwhitneyu(b, a)
        assert row.p_value == pytest.approx(expected.pvalue)
        assert row.statistic == expected.statistic
        pairs = np.sign(b[:, None] - a[None, :])
        assert row.effect == pytest.approx(pairs.mean())
        ranks = stats.rankdata(samples.X[:, j])
        assert row.highest == ("b" if ranks[is_b].mean() > ranks[~is_b].mean() else "a")
    assert (out["test"] == "rank_sum").all()
    assert out["p_adjusted"].idxmin() == "0"
    assert out.loc["0", "highest"] == "b"


@pytest.mark.parametrize("correction", ["bonferroni", "benjamini_hochberg"])
def test_two_classes_by_means_are_welch(samples, correction):
    samples.X[3, 2] = np.nan
    samples.X[:, 5] = 1.0
    out = by_feature(tl.association(samples, "two", test="t", correction=correction), samples)
    is_b = (samples.obs["two"] == "b").to_numpy()
    for j, row in enumerate(out.itertuples()):
        b, a = (x[~np.isnan(x)] for x in (samples.X[is_b, j], samples.X[~is_b, j]))
        if j == 5:
            assert np.isnan([row.p_value, row.effect, row.p_adjusted]).all()
            continue
        expected = stats.ttest_ind(b, a, equal_var=False)
        np.testing.assert_allclose([row.statistic, row.p_value], [expected.statistic, expected.pvalue])
        n = np.array([len(a), len(b)]) - 1
        pooled = np.sqrt((n[0] * a.var(ddof=1) + n[1] * b.var(ddof=1)) / n.sum())
        assert row.effect == pytest.approx((b.mean() - a.mean()) / pooled)
        assert row.highest == ("b" if b.mean() > a.mean() else "a")
        assert row.effect_name == "cohen_d"
    name = "fdr_bh" if correction == "benjamini_hochberg" else correction
    p = out["p_value"].to_numpy()[:5]
    np.testing.assert_allclose(out["p_adjusted"].to_numpy()[:5], multipletests(p, method=name)[1])


def test_a_class_of_one_sample_has_no_t(samples):
    samples.obs["lone"] = ["x"] + ["y"] * 39
    assert tl.association(samples, "lone", test="t")["p_value"].isna().all()
    with pytest.raises(ValueError, match="The t-test needs two classes"):
        tl.association(samples, "three", test="t")
    with pytest.raises(ValueError, match="with test='t' leave them out"):
        tl.association(samples, "two", test="t", n_permutations=9)
    with pytest.raises(ValueError, match="correction='holm' is not one of"):
        tl.association(samples, "two", correction="holm")


def test_three_classes_are_kruskal_wallis(samples):
    out = by_feature(tl.association(samples, "three"), samples)
    for j, row in enumerate(out.itertuples()):
        groups = [samples.X[samples.obs["three"] == c, j] for c in "xyz"]
        expected = stats.kruskal(*groups)
        assert row.p_value == pytest.approx(expected.pvalue)
        assert row.effect == pytest.approx(expected.statistic / 39)
        n = [len(g) for g in groups]
        ranks = stats.rankdata(np.concatenate(groups))
        means = [r.mean() for r in np.split(ranks, np.cumsum(n)[:-1])]
        assert row.highest == "xyz"[int(np.argmax(means))]


@pytest.mark.parametrize("key", ["grade", "age"])
def test_ordinal_labels_are_spearman(samples, key):
    out = by_feature(tl.association(samples, key), samples)
    y = samples.obs["grade"].cat.codes if key == "grade" else samples.obs["age"]
    for j, row in enumerate(out.itertuples()):
        expected = stats.spearmanr(samples.X[:, j], y)
        assert row.effect == pytest.approx(expected.statistic)
        assert row.p_value == pytest.approx(expected.pvalue)
    assert (out["highest"] == "").all()


def test_correction_is_over_all_rows_of_the_call(samples):
    out = tl.association(samples, ["two", "three", "age"])
    assert len(out) == 18
    assert out["p_value"].is_monotonic_increasing
    np.testing.assert_allclose(out["p_adjusted"], multipletests(out["p_value"], method="fdr_bh")[1])
    alone = tl.association(samples, "two")["p_adjusted"].min()
    assert out.loc[out["label_key"] == "two", "p_adjusted"].min() > alone


def test_missing_values_are_left_out_per_column(samples):
    samples.X[:7, 3] = np.nan
    samples.X[20:, 4] = np.nan
    samples.obs["two"] = samples.obs["two"].where(np.arange(40) != 30)
    out = by_feature(tl.association(samples, "two"), samples)
    for j in range(6):
        use = np.isfinite(samples.X[:, j]) & samples.obs["two"].notna().to_numpy()
        x, is_b = samples.X[use, j], (samples.obs["two"] == "b").to_numpy()[use]
        assert out["n"].iloc[j] == use.sum()
        assert out["p_value"].iloc[j] == pytest.approx(stats.mannwhitneyu(x[is_b], x[~is_b]).pvalue)


def test_constant_and_one_sided_columns_do_not_count(samples):
    plain = by_feature(tl.association(samples, "two"), samples)
    x = np.c_[samples.X, np.ones(40), np.where(samples.obs["two"] == "a", np.arange(40), np.nan), np.full(40, np.nan)]
    wide = AnnData(x, obs=samples.obs)
    out = by_feature(tl.association(wide, "two"), wide)
    assert out["p_value"].iloc[6:].isna().all()
    assert out["p_adjusted"].iloc[6:].isna().all()
    assert out["n"].iloc[8] == 0
    np.testing.assert_allclose(out["p_adjusted"].iloc[:6], plain["p_adjusted"])


def test_sparse_obsm_and_obs_give_the_same(samples):
    expected = by_feature(tl.association(samples, "two"), samples)["p_value"].to_numpy()
    samples.obsm["X_rep"] = samples.X.copy()
    samples.obsm["frame"] = pd.DataFrame(samples.X, index=samples.obs_names, columns=list("abcdef"))
    samples.obs[[f"v{j}" for j in range(6)]] = samples.X
    for table, names in [
        (tl.association(samples, "two", use_rep="X_rep"), [f"X_rep_{j}" for j in range(6)]),
        (tl.association(samples, "two", use_rep="frame"), list("abcdef")),
        (tl.association(samples, "two", obs_keys=[f"v{j}" for j in range(6)]), [f"v{j}" for j in range(6)]),
        (tl.association(AnnData(sparse.csr_matrix(samples.X), obs=samples.obs), "two"), list("012345")),
    ]:
        np.testing.assert_allclose(table.set_index("feature").loc[names, "p_value"], expected)


def test_random_labels_give_few_discoveries():
    rng = np.random.default_rng(0)
    samples = AnnData(
        rng.normal(size=(30, 400)),
        obs=pd.DataFrame({"y": rng.permutation(list("ab") * 15)}, index=[f"s{i}" for i in range(30)]),
    )
    out = tl.association(samples, "y")
    assert 0.02 < (out["p_value"] < 0.05).mean() < 0.09
    assert (out["p_adjusted"] < 0.05).sum() == 0


def test_errors(samples):
    samples.obs["one"] = "x"
    with pytest.raises(ValueError, match="has 1 distinct values in 40 labelled samples"):
        tl.association(samples, "one")
    with pytest.raises(ValueError, match=r"needs two classes, but samples.obs\['three'\] has 3"):
        tl.association(samples, "three", test="rank_sum")
    with pytest.raises(ValueError, match="has no order"):
        tl.association(samples, "three", test="spearman")
    with pytest.raises(ValueError, match="must hold numbers to be tested"):
        tl.association(samples, "two", obs_keys=["three"])
    with pytest.raises(ValueError, match="not both"):
        tl.association(samples, "two", obs_keys=["age"], use_rep="X_rep")
    with pytest.raises(ValueError, match="test must be one of"):
        tl.association(samples, "two", test="z")
    with pytest.raises(KeyError, match=r"'X_no' is not in adata.obsm"):
        tl.association(samples, "two", use_rep="X_no")
    with pytest.raises(KeyError, match="'no' is not a column"):
        tl.association(samples, "no")


def random_input(rng):
    """A few samples and columns: ties, missing values, small groups, columns of one value."""
    n, m = int(rng.integers(4, 25)), 5
    x = rng.normal(size=(n, m))
    x[:, 1] = x[:, 1].round()
    x[:, 2] = rng.integers(0, 2, n)
    x[rng.random(n) < 0.2, 3] = np.nan
    x[:, 4] = np.where(rng.random(n) < 0.9, 0.0, x[:, 4])
    y = np.concatenate([[0, 1], rng.integers(0, 2, n - 2)])
    obs = pd.DataFrame({"two": np.array(list("ab"))[y], "three": rng.choice(list("xyz"), n), "age": rng.permutation(n)})
    obs.index = [f"s{i}" for i in range(n)]
    return AnnData(x, obs=obs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", range(10))
def test_a_thousand_columns_are_those_of_scipy_one_at_a_time(block):
    n_tested = 0
    for seed in range(7):
        samples = random_input(np.random.default_rng((block, seed)))
        for key in ("two", "three", "age"):
            if samples.obs[key].nunique() < 2:
                continue
            out = tl.association(samples, key).set_index("feature")
            for name in samples.var_names:
                x, y = samples[:, name].X[:, 0], samples.obs[key].to_numpy()
                x, y = x[~np.isnan(x)], y[~np.isnan(x)]
                got = out.loc[name, "p_value"]
                groups = [x[y == c] for c in np.unique(y)]
                if len(x) == 0 or np.ptp(x) == 0 or len(groups) < 2 or (key == "age" and len(x) < 3):
                    assert np.isnan(got)
                    continue
                if key == "age":
                    expected = stats.spearmanr(x, y.astype(float))
                elif samples.obs[key].nunique() == 2:
                    expected = stats.mannwhitneyu(groups[1], groups[0])
                else:
                    expected = stats.kruskal(*groups)
                assert got == pytest.approx(expected.pvalue, abs=1e-7)  # rounding, where rho is 1
                assert out.loc[name, "statistic"] == pytest.approx(expected.statistic)
                n_tested += 1
    assert n_tested > 80
