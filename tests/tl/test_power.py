"""Power against studies that are simulated anew, its parts against closed forms, and its plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.optimize import lsq_linear

from scset_tools import pl, tl
from scset_tools.tl._power import _Curve, _fit, _line


def study(n: int, seed: int, *, shift: float = 1.0, n_visits: int = 1) -> AnnData:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 4))
    x[:, 0] += shift * y
    donor = np.repeat(np.arange(n), n_visits)
    x = x[donor] + 0.2 * rng.normal(size=(len(donor), 4))
    obs = pd.DataFrame(
        {"y": np.array(["a", "b"])[y][donor], "donor": donor}, index=[f"s{i}" for i in range(len(donor))]
    )
    return AnnData(x, obs=obs)


def test_power_is_that_of_new_studies():
    """A pilot of 80; the truth from studies of 32 donors, each against the same critical value."""
    result = tl.power(study(80, 0), "y", [32, 80, 160], n_draws=25)
    row = result.table.set_index("n_samples").loc[32]
    scores = [
        tl.probe(study(32, 100 + i), "y", n_repeats=1, tune=False).folds["balanced_accuracy"].mean() for i in range(60)
    ]
    truth = np.mean(np.array(scores) > row["critical"])
    assert row["ci_low"] - 0.03 < np.mean(scores) < row["ci_high"] + 0.03
    assert abs(row["power"] - truth) < 0.25
    assert row["power_low"] - 0.1 <= truth <= row["power_high"] + 0.1
    assert result.table["power"].is_monotonic_increasing
    assert result.table["is_extrapolated"].tolist() == [False, False, True]
    needed = result.n_needed(0.8)
    assert needed["low"] <= needed["n_samples"] <= needed["high"]
    assert result._curves[0].power([needed["n_samples"]], 0.05)[0] >= 0.8


def test_the_default_probe_follows_the_label():
    pilot = study(16, 0)
    pilot.obs["number"] = np.arange(pilot.n_obs, dtype=float)
    taken = {key: tl.power(pilot, key, [20], cv=2, n_draws=3).probe for key in ("y", "number")}
    assert taken == {"y": "logistic", "number": "ridge"}


def test_without_an_effect_power_is_the_level():
    found = [tl.power(study(40, seed, shift=0.0), "y", [40], n_draws=8).table.iloc[0] for seed in range(3)]
    assert np.mean([row["power"] for row in found]) < 0.3
    assert all(row["power_low"] < 0.2 for row in found)


def test_the_power_of_a_curve_is_the_closed_form():
    curve = _Curve(0.9, 2.0, 1.0, 0.5, 0.5, 0.4, 0.0, 1.0)
    n = 40.0
    critical = 0.5 + 1.6448536 * np.sqrt(0.4 / n)
    expected = stats.norm.cdf((0.9 - 2 / n - critical) / np.sqrt(0.5 / n))
    assert curve.power(np.array([n]), 0.05)[0] == pytest.approx(expected, rel=1e-6)
    assert _Curve(2.0, 0.0, 1.0, 0.5, 0.5, 0.4, 0.0, 1.0).score(np.array([9.0]))[0] == 1.0
    assert _Curve(0.9, 4.0, 1.0, 0.5, 0.5, 0.4, 0.0, 1.0).score(np.array([4.0]))[0] == 0.0
    unsure = _Curve(0.9, 0.0, 1.0, 0.5, 0.5, 2.0, 0.0, 1.0)  # 1.08 would be needed
    assert unsure.critical(np.array([16.0]), 0.05)[0] == 1.0
    assert unsure.power(np.array([16.0]), 0.05)[0] == pytest.approx(
        stats.norm.sf((0.5 + 1.6448536 * np.sqrt(2 / 16) - 0.9) / np.sqrt(0.5 / 16)), rel=1e-6
    )


def test_the_curve_finds_what_made_the_scores():
    rng = np.random.default_rng(0)
    sizes = np.repeat([20, 30, 45, 60, 80], 4000)
    score = 0.9 - 1.5 * sizes**-0.8 + rng.normal(size=len(sizes)) * np.sqrt(0.3 / sizes * (1 - sizes / 80.0))
    null = 0.5 + rng.normal(size=len(sizes)) * np.sqrt(0.25 / sizes)
    draws = [(float(n), score[sizes == n], null[sizes == n]) for n in np.unique(sizes)]
    curve = _fit(draws, 80, (0.0, 1.0))
    np.testing.assert_allclose(
        curve.score(np.array([40.0, 160.0])), 0.9 - 1.5 * np.array([40.0, 160.0]) ** -0.8, atol=0.01
    )
    assert (curve.spread, curve.null_spread, curve.chance) == pytest.approx((0.3, 0.25, 0.5), rel=0.05)


def test_a_curve_keeps_to_its_bounds():
    """It neither falls with n nor ends above the best possible score; the reference is scipy's bounded least squares."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y, w = -(np.array([10.0, 20, 40, 80]) ** -0.5), rng.normal(0.9, 0.1, 4), rng.uniform(1, 3, 4)
        design = np.column_stack([np.ones(4), x]) * np.sqrt(w)[:, None]
        expected = lsq_linear(design, y * np.sqrt(w), bounds=([-np.inf, 0], [1.0, np.inf])).x
        got = _line(x, y, w, most=1.0)
        cost = [np.sum(w * (y - a - b * x) ** 2) for a, b in (got, expected)]
        assert cost[0] <= cost[1] + 1e-6
        assert got[0] <= 1.0 + 1e-12
        assert got[1] >= 0


def test_donors_are_counted_not_their_visits():
    options = {"n_draws": 4, "cv": 3}
    result = tl.power(study(16, 0, n_visits=3), "y", [16], groups_key="donor", **options)
    assert result.n_pilot == 16
    assert result.pilot["n_samples"].max() == 16
    pd.testing.assert_frame_equal(
        result.pilot, tl.power(study(16, 0, n_visits=3), "y", [16], groups_key="donor", **options).pilot
    )


def test_errors_and_plot():
    with pytest.raises(ValueError, match=r"The pilot has 10 samples with a label \(at least 12 are needed\)"):
        tl.power(study(10, 0), "y", [20])
    with pytest.raises(ValueError, match="at least 4 each"):
        tl.power(study(20, 0), "y", [2])
    with pytest.raises(ValueError, match="alpha must lie between"):
        tl.power(study(20, 0), "y", [20], alpha=0.9)
    table = pd.DataFrame({"n_samples": [10, 20, 40], "power": [0.2, 0.5, 0.9], "is_extrapolated": [False, False, True]})
    ax = pl.power(table.assign(power_low=0.1, power_high=0.95))
    solid, dashed, line = ax.lines
    assert (solid.get_xdata().tolist(), dashed.get_xdata().tolist()) == ([10, 20], [20, 40])
    assert list(line.get_ydata()) == [0.8, 0.8]
