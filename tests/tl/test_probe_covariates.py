"""What a representation adds to covariates: nested probes on the same folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from scset_tools import pl, tl

QUICK = {"cv": 4, "n_repeats": 2, "tune": False}


def cohort(seed: int = 0, n: int = 80, n_features: int = 4, own: float = 0.0) -> AnnData:
    """A label that age explains; the representation knows age, and with ``own`` something of its own."""
    rng = np.random.default_rng(seed)
    age = rng.normal(50, 10, n)
    hidden = rng.normal(size=n)
    y = (age - 50) / 10 + own * hidden + 0.7 * rng.normal(size=n) > 0
    x = rng.normal(size=(n, n_features))
    x[:, 0] += (age - 50) / 5
    x[:, 1] += 3 * hidden
    obs = pd.DataFrame({"y": np.where(y, "case", "control"), "age": age, "sex": rng.choice(["f", "m"], n)})
    obs.index = [f"s{i}" for i in range(n)]
    return AnnData(x, obs=obs)


def test_covariates_alone_are_a_probe_of_the_covariates():
    samples = cohort()
    result = tl.probe(samples, "y", covariates=["age", "sex"], **QUICK)
    assert (result.representation, result.covariates) == ("X + age + sex", ("age", "sex"))
    samples.obsm["X_cov"] = np.column_stack([samples.obs["age"], samples.obs["sex"] == "m"]).astype(float)
    plain = tl.probe(samples, "y", use_rep="X_cov", probe="knn", **QUICK)
    nested = tl.probe(samples, "y", covariates=["age", "sex"], probe="knn", **QUICK)
    pd.testing.assert_frame_equal(nested.covariate_folds, plain.folds)
    assert (nested.folds["n_test"] == plain.folds["n_test"]).all()


def test_the_difference_is_the_corrected_paired_test():
    result = tl.probe(cohort(), "y", covariates="age", **QUICK)
    row = result.added().set_index("metric").loc["auroc"]
    d = (result.folds["auroc"] - result.covariate_folds["auroc"]).to_numpy()
    assert row["difference"] == pytest.approx(d.mean())
    assert row["difference"] == pytest.approx(row["with_covariates"] - row["covariates_alone"])
    ratio = (result.folds["n_test"] / result.folds["n_train"]).mean()
    t = d.mean() / (d.std(ddof=1) * np.sqrt(1 / len(d) + ratio))
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), len(d) - 1))
    assert result.added(interval="t").set_index("metric").loc["auroc", "p_value"] < row["p_value"]
    ax = pl.forest(result)
    assert [text.get_text() for text in ax.get_yticklabels()] == result.added()["metric"].tolist()


def test_what_is_added_is_found_and_what_is_not_is_not():
    """The representation predicts the label in both cohorts; in one it does so through age alone."""
    through_age, own = (
        [tl.probe(cohort(seed, own=strength), "y", covariates="age", **QUICK) for seed in range(8)]
        for strength in (0.0, 1.5)
    )
    added = [[r.added().set_index("metric").loc["auroc", "difference"] for r in rs] for rs in (through_age, own)]
    assert np.mean(added[0]) < 0.02
    assert np.mean(added[1]) > 0.08
    alone = [tl.probe(cohort(seed), "y", **QUICK).summary().loc["auroc", "mean"] for seed in range(4)]
    assert np.mean(alone) > 0.7
    assert np.mean([r.added().set_index("metric").loc["auroc", "p_value"] < 0.05 for r in through_age]) <= 0.25


def test_covariates_keep_their_say_beside_many_features():
    samples = cohort(n_features=400)
    samples.X[:, :2] = np.random.default_rng(1).normal(size=(80, 2))  # nothing but noise
    for probe in ("logistic", "ridge"):
        row = tl.probe(samples, "y", covariates="age", probe=probe, cv=4, n_repeats=1).added().set_index("metric")
        assert row.loc["auroc", "with_covariates"] > row.loc["auroc", "covariates_alone"] - 0.12
    samples.obsm["X_both"] = np.column_stack([samples.X, samples.obs["age"]])
    pooled = tl.probe(samples, "y", use_rep="X_both", cv=4, n_repeats=1).summary().loc["auroc", "mean"]
    kept = tl.probe(samples, "y", covariates="age", cv=4, n_repeats=1).summary().loc["auroc", "mean"]
    assert kept > pooled + 0.05


def test_errors():
    samples = cohort()
    samples.obsp["d"] = tl.get_distances(samples)
    with pytest.raises(ValueError, match="without obsp_key and n_permutations: distances are no columns"):
        tl.probe(samples, "y", covariates="age", obsp_key="d", probe="knn")
    with pytest.raises(ValueError, match=r"without obsp_key and n_permutations: use result.added"):
        tl.probe(samples, "y", covariates="age", n_permutations=9)
    with pytest.raises(ValueError, match=r"\['y'\] is what is predicted"):
        tl.probe(samples, "y", covariates=["y"])
    with pytest.raises(ValueError, match="had no covariates"):
        tl.probe(samples, "y", **QUICK).added()
    samples.obs.loc["s3", "age"] = np.nan
    with pytest.raises(ValueError, match=r"missing in 1 of 80 labelled samples \(first: \['s3'\]\)"):
        tl.probe(samples, "y", covariates="age")
