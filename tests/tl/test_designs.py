"""Tests of association in a design, against statsmodels and scipy called directly, column by column, and by simulation."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from anndata import AnnData
from scipy import stats

from scset_tools import tl
from scset_tools.tl._designs import read_formula
from scset_tools.tl._linear_tests import eta_interval
from scset_tools.tl._mixed import fit_linear
from scset_tools.tl._paired import wilcoxon_test
from scset_tools.tl._permuted_tests import permute_within

DESIGN_ROWS = ["n", "statistic", "effect", "ci_low", "ci_high", "p_value"]


def cohort(rng, n=30, m=4, missing=0.0):
    """Samples with two classes, three classes, grades, an age and donors of one to three samples."""
    donor = np.sort(rng.integers(0, max(4, n // 2), n))
    obs = pd.DataFrame(
        {
            "two": rng.permutation(np.arange(n) % 2).astype(str),
            "three": rng.choice(list("xyz"), n),
            "grade": pd.Categorical(rng.choice(["lo", "mid", "hi"], n), ["lo", "mid", "hi"], ordered=True),
            "age": rng.normal(50, 10, n),
            "site": rng.choice(["s1", "s2"], n),
            "donor": donor,
        },
        index=[f"s{i}" for i in range(n)],
    )
    x = rng.normal(size=(n, m)) + rng.normal(size=(donor.max() + 1, m))[donor] * rng.choice([0.0, 1.0])
    x[rng.random(x.shape) < missing] = np.nan
    return AnnData(x * 10.0 ** rng.integers(-3, 4, m), obs=obs)


def rows_of(samples, *args, **kwargs):
    return tl.association(samples, *args, **kwargs).set_index("feature").loc[list(samples.var_names)]


def design_of(obs, terms):
    return np.column_stack([np.ones(len(obs)), *terms]).astype(float)


# ---- covariates: ordinary least squares


@pytest.mark.parametrize("seed", range(40))
def test_covariates_are_ordinary_least_squares_of_statsmodels(seed):
    samples = cohort(np.random.default_rng(seed), n=25, m=5, missing=0.1 * (seed % 2))
    is_b, is_s2 = samples.obs["two"] == "1", samples.obs["site"] == "s2"
    out = rows_of(samples, "two", covariates=["age", "site"])
    for j, (_, row) in enumerate(out.iterrows()):
        use = ~np.isnan(samples.X[:, j])
        fit = sm.OLS(samples.X[use, j], design_of(samples.obs, [samples.obs["age"], is_s2, is_b])[use]).fit()
        expected = [use.sum(), fit.tvalues[-1], fit.params[-1], *fit.conf_int()[-1], fit.pvalues[-1]]
        np.testing.assert_allclose(row[DESIGN_ROWS].to_numpy(float), expected, rtol=1e-6)
        assert row["df"] == fit.df_resid
        assert row["standardized"] == pytest.approx(fit.params[-1] / fit.scale**0.5)
        assert row["highest"] == ("1" if fit.params[-1] > 0 else "0")


@pytest.mark.parametrize("seed", range(10))
def test_more_classes_are_the_f_test_of_nested_models(seed):
    samples = cohort(np.random.default_rng(seed))
    out = rows_of(samples, "three", formula="~ three + age")
    reduced = design_of(samples.obs, [samples.obs["age"]])
    full = np.column_stack([reduced, samples.obs["three"] == "y", samples.obs["three"] == "z"])
    for j, (_, row) in enumerate(out.iterrows()):
        fit = sm.OLS(samples.X[:, j], full).fit()
        f, p, _ = fit.compare_f_test(sm.OLS(samples.X[:, j], reduced).fit())
        assert (row["statistic"], row["p_value"]) == (pytest.approx(f), pytest.approx(p))
        assert row["effect"] == pytest.approx(2 * f / (2 * f + fit.df_resid))
        assert row["ci_low"] <= row["effect"] <= 1
        assert row["ci_high"] > row["ci_low"]
        effects = [0.0, *fit.params[-2:]]
        assert row["highest"] == "xyz"[int(np.argmax(effects))]


def test_levels_and_numbers_are_slopes():
    samples = cohort(np.random.default_rng(3))
    for key, values in [("grade", samples.obs["grade"].cat.codes), ("age", samples.obs["age"])]:
        row = rows_of(samples, key, covariates="site").iloc[0]
        fit = sm.OLS(samples.X[:, 0], design_of(samples.obs, [samples.obs["site"] == "s2", values])).fit()
        assert row["effect"] == pytest.approx(fit.params[-1])
        assert row["p_value"] == pytest.approx(fit.pvalues[-1])
        assert row["highest"] == ""


def test_the_interval_of_eta_turns_the_noncentral_f_round():
    f, q, df = 4.2, 2, 27
    ends = np.array(eta_interval(f, q, df, level=0.9))
    noncentrality = ends * 30 / (1 - ends)
    assert stats.ncf.sf(f, q, df, noncentrality[0]) == pytest.approx(0.05)
    assert stats.ncf.cdf(f, q, df, noncentrality[1]) == pytest.approx(0.05)
    assert eta_interval(0.2, q, df, level=0.9)[0] == 0.0


# ---- donors: mixed models


def reference_mixed(y, x, groups):
    """statsmodels' estimates; None where its optimiser gives up. Standard errors from the full covariance matrix of the samples."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = sm.MixedLM(y, x, groups).fit(reml=True)
        except np.linalg.LinAlgError:
            return None
    if any("converge" in str(w.message) or "Gradient" in str(w.message) for w in caught):
        return None
    v = fit.scale * np.eye(len(y)) + fit.cov_re[0, 0] * (groups[:, None] == groups[None, :])
    return fit.fe_params, np.sqrt(np.diag(np.linalg.inv(x.T @ np.linalg.solve(v, x)))), fit.cov_re[0, 0] / fit.scale


def random_mixed(rng):
    sizes = rng.integers(1, 5, rng.integers(6, 15))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    x = np.column_stack([np.ones(len(groups)), rng.normal(size=len(groups)), rng.normal(size=len(sizes))[groups]])
    noise = rng.choice([0.0, 0.5, 1.5]) * rng.normal(size=len(sizes))[groups] + rng.normal(size=len(groups))
    return x @ rng.normal(size=3) + noise, x, groups


def compare_mixed(seeds):
    n_compared = 0
    for seed in seeds:
        y, x, groups = random_mixed(np.random.default_rng(seed))
        expected = reference_mixed(y, x, groups)
        if expected is None:
            continue
        fit = fit_linear(x, y[:, None], groups)
        np.testing.assert_allclose(fit.coefficients[0], expected[0], atol=2e-3)
        np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance[0])), expected[1], rtol=5e-3)
        assert fit.ratio[0] == pytest.approx(expected[2], rel=1e-2, abs=2e-3)
        n_compared += 1
    return n_compared


def test_mixed_models_are_those_of_statsmodels():
    assert compare_mixed(range(30)) >= 20


@pytest.mark.slow
def test_mixed_models_are_those_of_statsmodels_on_a_thousand_inputs():
    assert compare_mixed(range(1000)) >= 700


def test_columns_of_a_mixed_model_are_fitted_as_if_alone():
    rng = np.random.default_rng(0)
    _, x, groups = random_mixed(rng)
    y = rng.normal(size=(len(x), 7)) * 10.0 ** np.arange(-3, 4)
    together = fit_linear(x, y, groups)
    for j in range(7):
        np.testing.assert_allclose(fit_linear(x, y[:, [j]], groups).coefficients[0], together.coefficients[j])


def test_a_label_within_donors_has_more_degrees_of_freedom_than_one_between():
    samples = cohort(np.random.default_rng(1), n=40)
    n_donors = samples.obs["donor"].nunique()
    samples.obs["of_donor"] = np.where(samples.obs["donor"] % 2, "a", "b")
    within, between = (rows_of(samples, key, groups_key="donor").iloc[0] for key in ("two", "of_donor"))
    assert (within["test"], within["n"], within["n_groups"]) == ("mixed", 40, n_donors)
    assert within["df"] == 40 - n_donors - 1
    assert between["df"] == n_donors - 2
    assert rows_of(samples, "of_donor", groups_key="donor", covariates=["age"]).iloc[0]["df"] == n_donors - 2


def test_a_formula_is_its_arguments():
    samples = cohort(np.random.default_rng(5))
    a = tl.association(samples, "two", formula="~ two + age + site + (1 | donor)")
    pd.testing.assert_frame_equal(a, tl.association(samples, "two", covariates=["age", "site"], groups_key="donor"))
    assert read_formula("~ 1 + a + `b c-d` + (1|donor)") == (["a", "b c-d"], "donor")


@pytest.mark.parametrize("is_between", [True, False], ids=["label of the donor", "label of the visit"])
def test_random_labels_are_found_in_one_of_twenty_cases(is_between):
    """Eight donors of three visits who differ as much as their visits do; rank tests and least squares find far too many."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(10), 3)
    y = rng.normal(size=(30, 3000)) + rng.normal(size=(10, 3000))[donor]
    label = donor % 2 if is_between else np.tile([0, 1, 1, 1, 0, 0], 5)
    obs = pd.DataFrame({"label": label.astype(str), "donor": donor.astype(str)}, index=[f"s{i}" for i in range(30)])
    samples = AnnData(y, obs=obs)
    share = (tl.association(samples, "label", groups_key="donor")["p_value"] < 0.05).mean()
    assert 0.035 < share < 0.065
    if is_between:
        assert (tl.association(samples, "label")["p_value"] < 0.05).mean() > 0.12


# ---- pairs


@pytest.mark.parametrize("seed", range(25))
def test_pairs_are_wilcoxon_of_scipy(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 20 if seed % 2 == 0 else 15))
    before, after = rng.normal(size=(2, n, 40 if seed % 2 == 0 or n > 13 else 1)).round(1 if seed % 2 else 6)
    obs = pd.DataFrame({"visit": ["before"] * n + ["after"] * n, "donor": [f"d{i}" for i in [*range(n), *range(n)]]})
    obs.index = [f"s{i}" for i in range(2 * n)]
    samples = AnnData(np.concatenate([before, after]), obs=obs)
    samples = samples[rng.permutation(2 * n)].copy()
    out = rows_of(samples, "visit", paired_by="donor")
    for j, row in enumerate(out.itertuples()):
        d = before[:, j] - after[:, j]  # "before" is the later by alphabet
        expected = stats.wilcoxon(d)
        assert (row.statistic, row.p_value) == (expected.statistic, pytest.approx(expected.pvalue))
        walsh = [(a + b) / 2 for i, a in enumerate(d) for b in d[i:]]
        assert row.effect == pytest.approx(np.median(walsh))
        assert row.n == n


def test_the_paired_interval_holds_what_the_test_does_not_reject():
    d = np.random.default_rng(0).normal(0.5, 1, size=11)
    found = wilcoxon_test(d, level=0.95)
    for end, inside in [(found["ci_low"], 1e-9), (found["ci_high"], -1e-9)]:
        assert stats.wilcoxon(d - end - inside).pvalue > 0.05
        assert stats.wilcoxon(d - end + inside).pvalue <= 0.05
    assert wilcoxon_test(d[:5], level=0.95)["ci_low"] == -np.inf
    assert np.isnan(wilcoxon_test(np.zeros(4), level=0.95)["p_value"])


def test_donors_with_one_class_are_left_out_and_visits_averaged():
    obs = pd.DataFrame({"t": list("abababaabbb"), "donor": [1, 1, 2, 2, 3, 3, 4, 5, 5, 5, 6]})
    obs.index = [f"s{i}" for i in range(11)]
    samples = AnnData(np.arange(11.0)[:, None] ** 2, obs=obs)
    row = tl.association(samples, "t", paired_by="donor").iloc[0]
    assert row["n"] == row["n_groups"] == 4
    assert row["highest"] == "b"
    assert row["p_value"] == stats.wilcoxon([1, 5, 9, (64 + 81) / 2 - 49]).pvalue


# ---- permutations


def test_permutations_within_blocks_are_those_of_the_blocks():
    rng = np.random.default_rng(0)
    blocks, codes = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 0, 0, 1, 1])
    seen = {tuple(codes[permute_within(codes, np.arange(7), blocks, rng=rng, order=np.arange(7))]) for _ in range(400)}
    expected = {(*a, *b) for a in itertools.permutations(codes[:3]) for b in itertools.permutations(codes[3:])}
    assert seen == expected


@pytest.mark.filterwarnings("ignore:.*can be arranged in 36 ways")
def test_the_permutation_p_value_is_the_enumerated_one():
    rng = np.random.default_rng(4)
    obs = pd.DataFrame({"y": list("aabbaabb"), "site": list("11112222")}, index=[f"s{i}" for i in range(8)])
    x = rng.normal(size=(8, 3)) + 2 * (obs["site"] == "2").to_numpy()[:, None]
    out = rows_of(AnnData(x, obs=obs), "y", blocks_key="site", n_permutations=4000)
    ranks, is_b = stats.rankdata(x, axis=0) - 4.5, (obs["y"] == "b").to_numpy()
    halves = [np.isin(np.arange(4), c) for c in itertools.combinations(range(4), 2)]
    null = np.abs(np.stack([np.r_[a, b] @ ranks for a in halves for b in halves]))
    expected = (null >= np.abs(is_b @ ranks) - 1e-9).mean(axis=0)
    np.testing.assert_allclose(out["p_permutation"], expected, atol=0.02)


@pytest.mark.filterwarnings("ignore:8 pairs can trade places")
def test_permuted_signs_are_the_exact_signed_rank_test():
    rng = np.random.default_rng(1)
    obs = pd.DataFrame({"t": ["a", "b"] * 8, "donor": np.repeat(np.arange(8), 2)}, index=[f"s{i}" for i in range(16)])
    out = tl.association(AnnData(rng.normal(size=(16, 20)), obs=obs), "t", paired_by="donor", n_permutations=4000)
    np.testing.assert_allclose(out["p_permutation"], out["p_value"], atol=0.03)


@pytest.mark.parametrize("kwargs", [{"covariates": ["age"]}, {"covariates": ["age"], "groups_key": "donor"}])
def test_permutations_of_linear_tests_agree_with_theory(kwargs):
    samples = cohort(np.random.default_rng(2), n=40, m=12)
    out = tl.association(samples, "two", n_permutations=300, **kwargs)
    np.testing.assert_allclose(out["p_permutation"], out["p_value"], atol=0.12)
    assert stats.spearmanr(out["p_permutation"], out["p_value"]).statistic > 0.95


def test_few_permutations_are_warned_of():
    obs = pd.DataFrame({"t": ["a", "b"] * 4, "donor": np.repeat(np.arange(4), 2)}, index=[f"s{i}" for i in range(8)])
    samples = AnnData(np.random.default_rng(0).normal(size=(8, 2)), obs=obs)
    with pytest.warns(UserWarning, match=r"4 pairs can trade places in 16 ways only: no p-value below 0.12"):
        tl.association(samples, "t", paired_by="donor", n_permutations=99)
    with pytest.warns(UserWarning, match=r"can be arranged in 16 ways only"):
        tl.association(samples, "t", blocks_key="donor", n_permutations=99)


# ---- what cannot be asked


def test_errors():
    samples = cohort(np.random.default_rng(0))
    samples.obs["copy"] = samples.obs["two"].map({"0": "x", "1": "y"})
    samples.obs["own"] = np.arange(samples.n_obs)
    with pytest.raises(ValueError, match=r"'two' cannot be told from \['copy'\] in the 30 samples"):
        tl.association(samples, "two", covariates="copy")
    with pytest.raises(ValueError, match="each has one sample"):
        tl.association(samples, "two", groups_key="own")
    with pytest.raises(ValueError, match=r"has 3 classes.*pass groups_key='donor'"):
        tl.association(samples, "three", paired_by="donor")
    with pytest.raises(ValueError, match="there are no pairs"):
        tl.association(samples, "two", paired_by="own")
    with pytest.raises(ValueError, match="needs no other term"):
        tl.association(samples, "two", paired_by="donor", covariates="age")
    with pytest.raises(ValueError, match="must begin with '~'"):
        tl.association(samples, "two", formula="two + age")
    with pytest.raises(ValueError, match=r"sum of columns with at most one random intercept.*two:age"):
        tl.association(samples, "two", formula="~ two + two:age")
    with pytest.raises(ValueError, match="sum of columns"):
        tl.association(samples, "two", formula="~ two + (1 + age | donor)")
    with pytest.raises(ValueError, match=r"does not have the labels \['three'\]"):
        tl.association(samples, "three", formula="~ two + age")
    with pytest.raises(ValueError, match="not both"):
        tl.association(samples, "two", formula="~ two", covariates="age")
    with pytest.raises(ValueError, match="label and covariate at once"):
        tl.association(samples, "two", covariates=["two", "age"])
    with pytest.raises(ValueError, match="rank test of independent samples"):
        tl.association(samples, "two", covariates="age", test="kruskal")
    with pytest.raises(ValueError, match="which permutations stay within"):
        tl.association(samples, "two", blocks_key="site")
    with pytest.raises(ValueError, match="samples in several blocks of 'site'"):
        tl.association(samples, "two", groups_key="donor", blocks_key="site", n_permutations=9)
    with pytest.raises(KeyError, match="'no' is not a column"):
        tl.association(samples, "two", covariates="no")


def test_columns_without_a_test_are_missing_and_do_not_count():
    samples = cohort(np.random.default_rng(0), n=12, m=3)
    samples.X[:, 1] = 3.0
    samples.X[2:, 2] = np.nan
    out = rows_of(samples, "two", covariates="age")
    assert out["p_value"].isna().tolist() == [False, True, True]
    assert out["p_adjusted"].iloc[0] == out["p_value"].iloc[0]
    assert out["highest"].tolist()[1:] == ["", ""]
