"""Batch correction of samples: known effects, statsmodels' coefficients, and what a fold may learn from."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from anndata import AnnData

from scset_tools import pp, tl
from scset_tools._correction import LinearCorrection


def cohort(n: int = 60, *, shift: float = 4.0, share: float = 0.5, seed: int = 0, p: int = 4) -> AnnData:
    """A label in the first feature, two batches that differ in all; ``share`` of the cases are in the first batch."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    batch = np.arange(n) // 2 % 10 < np.where(y == 1, 10 * share, 10 * (1 - share)).round()
    x = rng.normal(size=(n, p)) + shift * batch[:, None]
    x[:, 0] += 2 * y
    obs = pd.DataFrame({"y": np.array(["control", "case"])[y], "batch": np.array(["b1", "b2"])[batch.astype(int)]})
    obs["age"] = rng.normal(50, 10, n)
    obs.index = [f"s{i}" for i in range(n)]
    return AnnData(x.astype(np.float32), obs=obs, obsm={"X_rep": x.copy()})


def test_what_is_subtracted_is_the_batch_term_of_statsmodels():
    samples = cohort(share=0.7)
    assert pp.correct_samples(samples, "batch", covariates=["y", "age"], use_rep="X_rep") is None
    x, out = samples.obsm["X_rep"], samples.obsm["X_rep_corrected"]
    is_b2 = (samples.obs["batch"] == "b2").to_numpy(float)
    design = sm.add_constant(np.column_stack([is_b2, samples.obs["y"] == "control", samples.obs["age"]]).astype(float))
    for j in range(4):
        effect = sm.OLS(x[:, j], design).fit().params[1]
        np.testing.assert_allclose(out[:, j], x[:, j] - effect * (is_b2 - is_b2.mean()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out.mean(axis=0), x.mean(axis=0), rtol=1e-4)
    assert samples.uns["X_rep_corrected"]["method"] == "linear"


def test_without_the_label_an_unbalanced_batch_takes_it_along():
    samples = cohort(400, share=0.8)
    gap = {}
    for name, covariates in (("kept", "y"), ("blamed", None)):
        pp.correct_samples(samples, "batch", covariates=covariates, key_added=name)
        out, is_case = samples.obsm[name][:, 0], (samples.obs["y"] == "case").to_numpy()
        gap[name] = out[is_case].mean() - out[~is_case].mean()
    assert gap["kept"] == pytest.approx(2, abs=0.3)
    assert gap["blamed"] < 1.4


def test_errors(monkeypatch):
    samples = cohort()
    with pytest.raises(ValueError, match="method='magic' is not one of"):
        pp.correct_samples(samples, "batch", method="magic")
    samples.obs["one"], samples.obs["copy"] = "x", samples.obs["batch"].map({"b1": "u", "b2": "v"})
    with pytest.raises(ValueError, match=r"has one batch in the 60 samples"):
        pp.correct_samples(samples, "one")
    with pytest.raises(ValueError, match=r"covariates cannot be told from obs\['batch'\]"):
        pp.correct_samples(samples, "batch", covariates="copy")
    samples.obs["gap"] = samples.obs["batch"].where(np.arange(60) != 3)
    with pytest.raises(ValueError, match=r"missing for 1 of 60 samples \(first: \['s3'\]\)"):
        pp.correct_samples(samples, "gap")
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(ImportError, match=r"pip install harmonypy. Or use method='linear'"):
        pp.correct_samples(samples, "batch", method="harmony")
    with pytest.raises(ValueError, match="takes no covariates"):
        pp.correct_samples(samples, "batch", method="harmony", covariates="age")


@pytest.mark.parametrize("is_turned", [False, True])
def test_harmony_in_either_orientation(is_turned, monkeypatch):
    samples = cohort()

    def run_harmony(x, meta, keys, **_):
        assert (meta["batch"].to_numpy() == samples.obs["batch"].to_numpy()).all()
        return SimpleNamespace(Z_corr=(x + 1).T if is_turned else x + 1)

    monkeypatch.setitem(sys.modules, "harmonypy", SimpleNamespace(run_harmony=run_harmony))
    pp.correct_samples(samples, "batch", method="harmony", use_rep="X_rep")
    np.testing.assert_allclose(samples.obsm["X_rep_corrected"], samples.obsm["X_rep"] + 1, rtol=1e-5)


def test_a_new_batch_is_refused():
    samples = cohort()
    model = LinearCorrection().fit(samples.obsm["X_rep"], samples.obs["batch"])
    with pytest.raises(ValueError, match=r"Batches \['b3'\] of obs\['batch'\] are not among those"):
        model.transform(samples.obsm["X_rep"], samples.obs["batch"].replace("b2", "b3"))


# ---- in a benchmark

QUICK = {"cv": 4, "n_repeats": 2, "tune": False, "progress": False, "metric": "balanced_accuracy"}


def test_the_cost_on_the_label_and_the_gain_stand_in_one_table():
    samples = cohort(80)
    result = tl.benchmark(samples, ["X_rep"], ["y", "batch"], baseline="X_rep", batch_key="batch", **QUICK)
    table = result.summary().set_index(["label", "representation"])["mean"]
    assert table["batch", "X_rep"] > 0.95
    assert table["batch", "X_rep, corrected"] < 0.7
    assert table["y", "X_rep, corrected"] > 0.75
    assert result.differences()["representation"].tolist() == ["X_rep, corrected"] * 2
    plain = tl.benchmark(samples, ["X_rep"], ["y"], **QUICK).results
    assert (
        result.results.query("label == 'y' and representation == 'X_rep'")["auroc"].tolist() == plain["auroc"].tolist()
    )


def test_random_vectors_stay_at_chance():
    """Corrected with the label kept over all samples, noise predicts the label of an unbalanced cohort; here it does not."""
    within, over_all = [], []
    for seed in range(4):
        samples = cohort(40, shift=0.0, share=0.8, seed=seed)
        samples.obsm["X_rep"] = np.random.default_rng(seed + 50).normal(size=(40, 60))
        options = QUICK | {"metric": "auroc", "n_repeats": 1}
        result = tl.benchmark(samples, ["X_rep"], "y", batch_key="batch", **options)
        within.append(result.summary().set_index("representation").loc["X_rep, corrected", "mean"])
        pp.correct_samples(samples, "batch", covariates="y", use_rep="X_rep")
        leaked = tl.benchmark(samples, ["X_rep_corrected"], "y", **options)
        over_all.append(leaked.summary()["mean"].iloc[0])
    assert np.mean(within) < 0.58
    assert np.mean(over_all) > np.mean(within) + 0.08


def test_a_label_that_is_kept_is_refused():
    with pytest.raises(ValueError, match=r"batch_covariates \['y'\] are predicted as well"):
        tl.benchmark(cohort(40), ["X_rep"], "y", batch_key="batch", batch_covariates="y", **QUICK)


def test_test_samples_teach_the_correction_nothing():
    from scset_tools.tl._corrected import FoldCorrection

    samples = cohort(40)
    x, train = samples.obsm["X_rep"], np.arange(0, 40, 2)
    args = (samples, np.arange(40), "batch")
    before = FoldCorrection.of(*args, covariates=["y"])(x, train, name="X_rep")
    changed = samples.copy()
    held = np.setdiff1d(np.arange(40), train)
    changed.obs.iloc[held, 0] = "case"
    x_changed = x.copy()
    x_changed[held[1:]] += 100
    after = FoldCorrection.of(changed, *args[1:], covariates=["y"])(x_changed, train, name="X_rep")
    np.testing.assert_array_equal(after[train], before[train])
    np.testing.assert_array_equal(after[held[0]], before[held[0]])


def test_batches_that_are_held_out_whole_are_refused():
    samples = cohort(40)
    with pytest.raises(ValueError, match="Representation 'X_rep' cannot be corrected in a fold"):
        tl.benchmark(samples, ["X_rep"], "y", batch_key="batch", groups_key="batch", **QUICK | {"cv": 2})
    with pytest.raises(ValueError, match="pass batch_key as well"):
        tl.benchmark(samples, ["X_rep"], "y", batch_covariates="age", **QUICK)
