"""Intervals and corrections against scipy, statsmodels and simulation."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from scset_tools.tl._intervals import (
    benjamini_hochberg,
    bootstrap_draws,
    bounded_interval,
    paired_difference,
    percentile_interval,
    ranking_variance,
    t_interval,
    wilson_interval,
)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_t_interval_is_that_of_statsmodels_and_scipy(n: int, level: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    low, high = t_interval(np.append(values, np.nan), level=level)
    assert (low, high) == pytest.approx(DescrStatsW(values).tconfint_mean(alpha=1 - level))
    assert (low, high) == pytest.approx(stats.t.interval(level, n - 1, values.mean(), stats.sem(values)))


def test_t_interval_needs_two_values() -> None:
    assert np.isnan(t_interval(np.array([1.0, np.nan]))).all()


def test_corrected_interval_is_the_formula_of_nadeau_and_bengio() -> None:
    values = np.array([0.8, 0.7, 0.9, 0.6])
    mean = sum(values) / 4
    sd = (sum((v - mean) ** 2 for v in values) / 3) ** 0.5
    half = stats.t.ppf(0.975, 3) * sd * (1 / 4 + 10 / 40) ** 0.5
    assert t_interval(values, test_train_ratio=10 / 40) == pytest.approx((mean - half, mean + half))


def test_paired_difference_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 12))
    a[3], b[5] = np.nan, np.nan
    both = ~np.isnan(a) & ~np.isnan(b)
    test = stats.ttest_rel(a[both], b[both])
    out = paired_difference(a, b)
    assert out["n"] == 10
    assert out["p_value"] == pytest.approx(test.pvalue)
    assert (out["ci_low"], out["ci_high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert out["difference"] == pytest.approx(np.mean(a[both] - b[both]))
    corrected = paired_difference(a, b, test_train_ratio=0.25)
    t = test.statistic * np.sqrt(1 / 10) / np.sqrt(1 / 10 + 0.25)
    assert corrected["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_differences_without_variance_have_no_test() -> None:
    assert paired_difference(np.ones(4), np.ones(4))["p_value"] == 1.0
    assert np.isnan(paired_difference(np.ones(4), np.zeros(4))["p_value"])
    assert np.isnan(paired_difference(np.ones(1), np.zeros(1))["p_value"])
    assert paired_difference(np.full(3, np.nan), np.ones(3))["n"] == 0


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 10), (8, 8), (40, 64)])
def test_wilson_interval_is_that_of_statsmodels(k: int, n: int) -> None:
    assert wilson_interval(k / n, n, stats.norm.ppf(0.975)) == pytest.approx(proportion_confint(k, n, method="wilson"))


def test_a_bounded_interval_is_wilsons_with_the_trials_that_the_variance_is_worth() -> None:
    values = np.array([0.8, 0.7, 0.9, 0.6])
    m, v, t = values.mean(), values.var(ddof=1) * (1 / 4 + 0.25), stats.t.ppf(0.975, 3)
    n = m * (1 - m) / v
    # the shares p that m does not contradict: (m - p)^2 <= t^2 p (1 - p) / n
    a, b, c = 1 + t**2 / n, -(2 * m + t**2 / n), m**2
    expected = sorted(np.roots([a, b, c]).real)
    assert bounded_interval(values, (0, 1), n_units=50, test_train_ratio=0.25) == pytest.approx(expected)
    low, high = bounded_interval(2 * values - 1, (-1, 1), n_units=50, test_train_ratio=0.25)
    assert ((low + 1) / 2, (high + 1) / 2) == pytest.approx(expected)
    wider = bounded_interval(values, (0, 1), n_units=3, test_train_ratio=0.25)
    assert wider == pytest.approx(wilson_interval(m, 3, t))


def test_perfect_folds_are_as_sure_as_their_samples() -> None:
    for n in (8, 64):
        low, high = bounded_interval(np.ones(25), (0, 1), n_units=n)
        assert (low, high) == pytest.approx((n / (n + stats.t.ppf(0.975, 24) ** 2), 1))
    assert bounded_interval(np.zeros(25), (0, 1), n_units=8)[1] > 0.2


@pytest.mark.parametrize("n", [4, 9, 32])
def test_variance_of_a_ranking_is_that_of_mann_whitney_at_chance(n: int) -> None:
    """Hanley and McNeil's, by a Monte Carlo of their model: exponential scores whose rates are as 1 to p / (1 - p)."""
    assert ranking_variance(0.5, 2 * n) == pytest.approx(1.5 * (2 * n + 1) / (12 * n * n))
    rng, p = np.random.default_rng(n), 0.8
    scores = rng.exponential(size=(20000, n)) * p / (1 - p), rng.exponential(size=(20000, n))
    one, other = (
        np.mean(a[:, :, None] > b[:, None, :], axis=(1, 2)) for a, b in (scores, [1 / s for s in scores[::-1]])
    )
    assert one.mean() == pytest.approx(p, abs=0.01)
    hanley_mcneil = (one.var() + other.var()) / 2  # their formula is not symmetric in the classes; the mean of both is
    assert ranking_variance(p, 2 * n) == pytest.approx((1 + 2 * p * (1 - p)) * hanley_mcneil, rel=0.05)
    assert ranking_variance(1 - p, 2 * n) == pytest.approx(ranking_variance(p, 2 * n))


def test_the_interval_of_a_ranking_holds_every_share_that_is_not_contradicted() -> None:
    rng, grid = np.random.default_rng(0), np.linspace(0, 1, 20001)
    for _ in range(300):
        n_folds, n = rng.integers(2, 26), rng.uniform(2, 80)
        values = np.clip(rng.normal(rng.uniform(), rng.uniform(0, 0.4), n_folds), 0, 1)
        m, v = values.mean(), values.var(ddof=1) * (1 / n_folds + 0.25)
        t = stats.t.ppf(0.975, n_folds - 1)
        binomial = v * grid * (1 - grid) / (m * (1 - m)) if 0 < m < 1 else 0 * grid
        least = (
            np.maximum(binomial, [ranking_variance(p, n) for p in grid])
            if 0 < m < 1
            else np.array([ranking_variance(p, n) for p in grid])
        )
        held = grid[(m - grid) ** 2 <= t**2 * least]
        held = held[(held > 0) & (held < 1)] if m in (0, 1) else held
        low, high = bounded_interval(values, (0, 1), n_units=n, is_ranking=True, test_train_ratio=0.25)
        assert 0 <= low <= m <= high <= 1
        assert (low, high) == pytest.approx((0 if m == 0 else held.min(), 1 if m == 1 else held.max()), abs=1e-4)
        assert high - low > 0.01


def test_auroc_at_chance_is_covered() -> None:
    """300 data sets of 64 samples, of which the interval over folds alone held the truth in 89%."""
    path = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
    coverage = runpy.run_path(str(path))["coverage"]
    options = argparse.Namespace(n_datasets=300, n_features=5, n_visits=1, rare=0.5)
    found = {(r["metric"], r["interval"]): r["coverage"] for r in coverage(64, 0.0, options)}
    assert 0.92 <= found["auroc", "corrected"] <= 0.975
    assert found["auroc", "unbounded"] < 0.92


def test_errors_and_shares_of_variance_keep_to_their_side() -> None:
    values = np.random.default_rng(0).exponential(size=6)
    low, high = bounded_interval(values, (0, np.inf), n_units=20, test_train_ratio=0.3)
    assert 0 < low < values.mean() < high
    assert low * high == pytest.approx(values.mean() ** 2)  # even on the logarithm
    mirrored = bounded_interval(1 - values, (-np.inf, 1), n_units=20, test_train_ratio=0.3)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_differences_stay_in_range_and_have_a_width() -> None:
    out = paired_difference(np.ones(10), np.ones(10), bounds=(0, 1), n_units=20)
    half = stats.t.ppf(0.975, 9) ** 2 / (20 + stats.t.ppf(0.975, 9) ** 2)
    assert (out["ci_low"], out["ci_high"], out["p_value"]) == (pytest.approx(-half), pytest.approx(half), 1.0)
    wild = paired_difference(np.array([1.0, 0.0, 1.0]), np.zeros(3), bounds=(0, 1), n_units=3)
    assert (wild["ci_low"], wild["ci_high"]) == (pytest.approx(-0.7676, abs=1e-3), 1.0)


def test_benjamini_hochberg_is_statsmodels_and_ignores_missing() -> None:
    p = np.random.default_rng(1).uniform(size=20) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])
    with_gap = np.insert(p, 7, np.nan)
    np.testing.assert_allclose(np.delete(benjamini_hochberg(with_gap), 7), multipletests(p, method="fdr_bh")[1])
    assert np.isnan(benjamini_hochberg(with_gap)[7])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_bootstrap_agrees_with_scipy_without_groups() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    draws = bootstrap_draws(lambda i: values[i].mean(), np.arange(60), n_resamples=4000, rng=0)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert percentile_interval(draws[:, 0]) == pytest.approx(tuple(reference), abs=0.03)


def test_bootstrap_draws_whole_groups() -> None:
    groups = np.array([7, 7, 7, 3, 5, 5])
    seen = []
    bootstrap_draws(lambda i: seen.append(i) or np.zeros(2), groups, n_resamples=50, rng=0)
    for positions in seen:
        counts = np.bincount(positions, minlength=6)
        assert counts[0] == counts[1] == counts[2]
        assert counts[4] == counts[5]
        assert counts[0] + counts[3] + counts[4] == 3


def test_bootstrap_of_identical_pairs_is_that_of_the_pairs() -> None:
    """Doubling every sample within its group adds no evidence: the interval must not shrink."""
    values = np.random.default_rng(3).normal(size=40)
    single = bootstrap_draws(lambda i: values[i].mean(), np.arange(40), n_resamples=500, rng=5)
    twice = bootstrap_draws(
        lambda i: np.repeat(values, 2)[i].mean(), np.repeat(np.arange(40), 2), n_resamples=500, rng=5
    )
    np.testing.assert_allclose(single, twice)


def test_percentiles_leave_missing_out() -> None:
    low, high = percentile_interval(np.array([np.nan, *np.arange(101.0)]), level=0.9)
    assert (low, high) == pytest.approx((5.0, 95.0))
    assert np.isnan(percentile_interval(np.array([1.0, np.nan]))).all()
