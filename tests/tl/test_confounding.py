"""Confounding: statistics against scipy, scikit-learn and slow loops; verdicts on cohorts built to deserve them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, r2_score

from scset_tools import profiles, tl
from scset_tools.tl._confounding import _balanced_accuracy, _r2
from scset_tools.tl._overlap import cramers_v

FAST = {"n_repeats": 1, "cv": 3}


def cohort(*, biology=0.0, batch_effect=0.0, n=36, seed=0):
    """A label balanced over three batches; the first feature follows the label, the second the batch."""
    rng = np.random.default_rng(seed)
    disease, batch = np.arange(n) % 2, (np.arange(n) // 2) % 3
    x = rng.normal(size=(n, 4))
    x[:, 0] += biology * disease
    x[:, 1] += batch_effect * batch
    obs = pd.DataFrame(
        {
            "disease": np.where(disease, "ill", "well"),
            "batch": [f"b{b}" for b in batch],
            "n_cells": rng.integers(100, 1000, size=n),
        },
        index=[f"s{i}" for i in range(n)],
    )
    return AnnData(x, obs=obs)


def row(result, target, predictor, held_out="samples"):
    table = result.table
    is_row = (table["target"] == target) & (table["predictor"] == predictor) & (table["held_out"] == held_out)
    assert is_row.sum() == 1
    return table[is_row].iloc[0]


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(4, size=(2, 25))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are only predicted
        assert _balanced_accuracy(truth, predicted) == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert _r2(truth, predicted) == pytest.approx(r2_score(truth, predicted))
    assert np.isnan(_r2(np.ones(3), np.arange(3)))


def test_cramers_v_is_its_formula():
    table = np.array([[8, 2, 5], [1, 9, 4]])
    n = table.sum()
    chi2 = stats.chi2_contingency(table, correction=False).statistic
    v, corrected = cramers_v(table)
    assert v == pytest.approx(np.sqrt(chi2 / n / 1))
    phi2 = max(0, chi2 / n - (1 * 2) / (n - 1))
    rows, columns = 2 - 1 / (n - 1), 3 - 4 / (n - 1)
    assert corrected == pytest.approx(np.sqrt(phi2 / (min(rows, columns) - 1)))
    assert cramers_v(np.diag([5, 5, 5])) == pytest.approx((1, 1))
    assert cramers_v(np.full((2, 3), 6))[0] == pytest.approx(0)
    assert cramers_v(np.array([[4, 5], [0, 0]])) == (0, 0)


def test_corrected_v_is_near_zero_without_association():
    rng = np.random.default_rng(0)
    plain, corrected = np.mean(
        [cramers_v(rng.multinomial(40, np.full(16, 1 / 16)).reshape(4, 4)) for _ in range(200)], axis=0
    )
    assert plain > 0.2
    assert corrected < 0.12


def test_overlap_of_classes():
    samples = cohort()
    rng = np.random.default_rng(1)
    samples.obs["batch"] = np.where(rng.random(36) < 0.7, samples.obs["disease"], samples.obs["batch"])
    result = tl.confounding(samples, "disease", batch_key="batch", covariate_keys=[], **FAST)
    y, b = samples.obs["disease"], samples.obs["batch"]
    overlap = result.overlap.iloc[0]
    table = pd.crosstab(y, b)
    pd.testing.assert_frame_equal(result.counts, table, check_names=False)
    assert overlap["cramers_v"] == pytest.approx(stats.contingency.association(table.to_numpy(), method="cramer"))
    assert overlap["mutual_information"] == pytest.approx(mutual_info_score(y, b))
    assert overlap["label_explained"] == pytest.approx(mutual_info_score(y, b) / mutual_info_score(y, y))
    assert overlap["batch_explained"] == pytest.approx(mutual_info_score(y, b) / mutual_info_score(b, b))
    expected = stats.chi2_contingency(
        table, correction=False, method=stats.PermutationMethod(n_resamples=999, rng=np.random.default_rng(0))
    )
    assert overlap["p_value"] == pytest.approx(expected.pvalue, abs=0.01)
    mixed = [y[b == name].nunique() > 1 for name in b]
    assert overlap["share_mixed"] == pytest.approx(np.mean(mixed))


def test_overlap_of_numbers_is_eta_squared_of_the_ranks():
    samples = cohort()
    rng = np.random.default_rng(0)
    samples.obs["age"] = rng.normal(size=36) + samples.obs["batch"].str[1].astype(float)
    result = tl.confounding(samples, "age", batch_key="batch", **FAST)
    groups = [samples.obs["age"][samples.obs["batch"] == b] for b in ("b0", "b1", "b2")]
    overlap = result.overlap.iloc[0]
    # Kruskal-Wallis without ties: H = (n - 1) eta squared of the ranks
    assert overlap["eta_squared"] == pytest.approx(stats.kruskal(*groups).statistic / 35)
    assert overlap["p_value"] < 0.05
    assert result.counts.loc["n_samples"].tolist() == [12, 12, 12]
    assert row(result, "age", "batch")["metric"] == "r2"
    assert row(result, "age", "batch")["is_predicted"]
    assert "'batch' alone predicts 'age'" in row(result, "age", "batch")["verdict"]


def test_biology_passes():
    result = tl.confounding(cohort(biology=6), "disease", batch_key="batch", **FAST)
    assert row(result, "disease", "representation", "batch")["score"] > 0.9
    assert "not a matter of batch alone" in row(result, "disease", "representation", "batch")["verdict"]
    for predictor in ("batch", "n_cells", "random vector"):
        assert not row(result, "disease", predictor)["is_predicted"]
    assert not row(result, "batch", "representation")["is_predicted"]
    assert result.verdict.startswith("'disease' is predicted across batches")
    assert result.is_separable
    assert result.overlap.loc[0, "cramers_v"] == pytest.approx(0)


def test_nothing_is_near_chance_and_batch_is_given_away():
    result = tl.confounding(cohort(batch_effect=8, seed=1), "disease", batch_key="batch", **FAST)
    assert row(result, "batch", "representation")["score"] > 0.9
    assert "gives away 'batch'" in row(result, "batch", "representation")["verdict"]
    assert not row(result, "disease", "representation", "batch")["is_predicted"]
    assert result.verdict.startswith("'disease' is near chance")
    summary = result.summary()
    assert len(summary) == len(result.table) + 1
    assert summary["verdict"].str.endswith(".").all()
    assert summary["verdict"].iloc[-1] == result.verdict


def test_label_that_goes_with_the_batch_is_said_so():
    # ten of twelve samples of a batch share its label: learnable by batch alone, not from the other batches
    samples = cohort(batch_effect=8, n=48)
    batch = np.repeat(np.arange(4), 12)
    samples.obs["batch"] = [f"b{b}" for b in batch]
    samples.X = np.eye(4)[batch] * 9 + np.random.default_rng(0).normal(size=(48, 4))
    is_odd = np.arange(48) % 12 >= 10
    samples.obs["disease"] = np.where((batch % 2 == 1) ^ is_odd, "ill", "well")
    result = tl.confounding(samples, "disease", batch_key="batch", **FAST)
    assert row(result, "disease", "batch")["is_predicted"]
    assert row(result, "disease", "representation")["is_predicted"]
    assert not row(result, "disease", "representation", "batch")["is_predicted"]
    assert "not in new ones" in result.verdict
    assert result.overlap.loc[0, "cramers_v"] > 0.6


@pytest.mark.parametrize("is_merged", [False, True])
def test_batch_that_determines_the_label_cannot_be_told_apart(is_merged):
    samples = cohort(biology=6)
    samples.obs["site"] = samples.obs["disease"] + ("" if is_merged else samples.obs["batch"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer folds than asked
        result = tl.confounding(samples, "disease", batch_key="site", **FAST)
    assert not result.is_separable
    assert "cannot be told apart" in result.verdict
    assert "cannot be told apart by any method" in row(result, "disease", "site")["verdict"]
    held_out = row(result, "disease", "representation", "site")
    assert result.overlap.loc[0, "label_explained"] == pytest.approx(1)
    assert result.overlap.loc[0, "share_mixed"] == 0
    if is_merged:
        assert np.isnan(held_out["score"])
        assert held_out["verdict"].startswith("Cannot be asked")


def test_covariate_that_predicts_is_named():
    samples = cohort()
    samples.obs["depth"] = np.where(samples.obs["disease"] == "ill", 5000, 100) + np.arange(36)
    samples.obs["chip"] = np.where(samples.obs["disease"] == "ill", "v3", "v2")
    samples.obs.loc["s0", "chip"] = None
    result = tl.confounding(samples, "disease", batch_key="batch", covariate_keys=["n_cells", "depth", "chip"], **FAST)
    assert row(result, "disease", "depth")["score"] == 1
    assert row(result, "disease", "chip")["score"] == 1
    assert row(result, "disease", "chip")["n_samples"] == 35
    assert not row(result, "disease", "n_cells")["is_predicted"]
    default = tl.confounding(samples, "disease", batch_key="batch", **FAST).table["predictor"].tolist()
    assert default[:4] == ["batch", "n_cells", "depth", "random vector"]


def test_representation_rows_are_probes():
    samples = cohort(biology=2)
    result = tl.confounding(samples, "disease", batch_key="batch", covariate_keys=[], n_repeats=2, cv=3, rng=5)
    again = tl.confounding(samples, "disease", batch_key="batch", covariate_keys=[], n_repeats=2, cv=3, rng=5)
    pd.testing.assert_frame_equal(result.table, again.table)
    held_out = tl.probe(samples, "disease", groups_key="batch", cv=3, n_repeats=2, tune=False, rng=0)
    expected = held_out.repeats()["balanced_accuracy"].mean()  # leave one batch out: no seed in it
    assert row(result, "disease", "representation", "batch")["score"] == pytest.approx(expected)


def test_distances_are_probed_by_neighbours():
    samples = cohort(biology=8)
    samples.obsp["d"] = cdist(samples.X, samples.X)
    samples.X = np.zeros_like(samples.X)
    result = tl.confounding(samples, "disease", batch_key="batch", obsp_key="d", **FAST)
    assert row(result, "disease", "representation", "batch")["score"] > 0.9


def test_missing_labels_and_batches_are_left_out():
    samples = cohort(biology=6)
    samples.obs.loc[["s0", "s1"], "disease"] = None
    samples.obs.loc[["s2", "s3"], "batch"] = None
    samples.X[0] = np.nan
    result = tl.confounding(samples, "disease", batch_key="batch", **FAST)
    assert (result.table["n_samples"] == 32).all()
    assert result.counts.to_numpy().sum() == 32


def test_groups_that_are_the_batches_are_not_used_to_predict_them():
    samples = cohort(biology=6, batch_effect=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tl.confounding(samples, "disease", batch_key="batch", groups_key="batch", **FAST)
    assert (result.table["predictor"] == "representation").sum() == 3
    batch = result.table[result.table["target"] == "batch"].iloc[0]
    assert batch["held_out"] == "samples"
    assert batch["score"] > 0.7


def test_permutations_give_p_values():
    result = tl.confounding(
        cohort(biology=6), "disease", batch_key="batch", covariate_keys=[], n_permutations=4, **FAST
    )
    assert result.table["p_value"].notna().all()
    assert row(result, "disease", "representation")["p_value"] == pytest.approx(0.2)
    assert not row(result, "disease", "representation")["is_predicted"]  # four permutations cannot show more


def test_a_lone_class_warns_once():
    samples = cohort()
    samples.obs["disease"] = samples.obs["disease"].astype(object)
    samples.obs.loc["s0", "disease"] = "rare"
    with pytest.warns(UserWarning, match="occur in one group only") as caught:
        tl.confounding(samples, "disease", batch_key="batch", **FAST)
    assert len(caught) == len({str(w.message) for w in caught})


def test_errors():
    samples = cohort()
    samples.obs["one"] = "x"
    samples.obs["empty"] = np.nan
    with pytest.raises(ValueError, match="has the same value"):
        tl.confounding(samples, "one", batch_key="batch")
    with pytest.raises(ValueError, match=r"samples.obs\['one'\] has the same value in all 36"):
        tl.confounding(samples, "disease", batch_key="one")
    with pytest.raises(ValueError, match="0 of 36 samples have both"):
        tl.confounding(samples, "empty", batch_key="batch")
    with pytest.raises(ValueError, match="are the same column 'batch'"):
        tl.confounding(samples, "batch", batch_key="batch")
    with pytest.raises(KeyError, match="'nope' is not a column"):
        tl.confounding(samples, "disease", batch_key="nope")
    with pytest.raises(KeyError, match="'X_no' is not in"):
        tl.confounding(samples, "disease", batch_key="batch", use_rep="X_no")


def test_pancreas_study_is_given_away_and_sex_is_near_chance(shared_data):
    cells = read_h5ad(shared_data / "pancreas_atlas_hormone2cell.h5ad")
    cells.X = cells.X.log1p()
    samples = profiles.mean(cells, sample_key="donor_id")
    result = tl.confounding(samples, "sex", batch_key="study", **FAST)
    assert row(result, "study", "representation")["score"] > 0.9
    assert not row(result, "sex", "representation", "study")["is_predicted"]
    assert result.verdict.startswith("'sex' is near chance")
    accuracy = tl.neighbor_accuracy(samples, ["study", "sex"], n_neighbors=3)["balanced_accuracy"]
    assert accuracy["study"] > 0.85
    assert accuracy["sex"] < 0.7


def test_krieg_batch_is_learnable_and_does_not_explain_cancer(shared_data):
    cells = read_h5ad(shared_data / "krieg_melanoma_cytof_imubac.h5ad")
    samples = profiles.mean(cells, sample_key="sample")
    result = tl.confounding(samples, "cancer", batch_key="batch", **FAST)
    assert row(result, "batch", "representation")["score"] > 0.95
    assert row(result, "cancer", "representation")["score"] > 0.75
    assert not row(result, "cancer", "batch")["is_predicted"]
    assert "not in new ones" in result.verdict
    assert tl.batch_removal(samples, "batch", n_permutations=19).loc[0, "p_value"] == 0.05


def test_a_batch_that_only_one_class_has_is_named():
    obs = pd.DataFrame({"label": list("ab") * 8, "batch": [1, None] * 8}, index=[f"s{i}" for i in range(16)])
    samples = AnnData(np.random.default_rng(0).normal(size=(16, 3)), obs=obs)
    with pytest.raises(
        ValueError, match=r"same value 'a' in all 8 samples that have a batch: .*'batch'. is missing for 8"
    ):
        tl.confounding(samples, "label", batch_key="batch", cv=2)


def test_keys_that_no_file_holds_are_found_by_their_names():
    samples = cohort(biology=3.0)
    want = tl.confounding(samples, "disease", batch_key="batch", covariate_keys=["n_cells"], **FAST)
    # as a sample-level table holds them
    samples.obs = samples.obs.rename(
        columns={"disease": "disease%2Fstate", "batch": "batch%2Fday", "n_cells": "n%2Fcells"}
    )
    got = tl.confounding(samples, "disease/state", batch_key="batch/day", covariate_keys=["n/cells"], **FAST)
    np.testing.assert_allclose(got.table["score"], want.table["score"])


def test_rows_that_share_a_name_are_rows_of_their_own():
    """Two joined cohorts: numbers are those of the same rows under names of their own."""
    adata = cohort(biology=2.0)
    names = adata.obs_names.copy()
    expected = tl.confounding(adata, "disease", batch_key="batch", rng=0, **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.obs_names = [f"s{i % 18}" for i in range(len(names))]
        got = tl.confounding(adata, "disease", batch_key="batch", rng=0, **FAST)
    pd.testing.assert_frame_equal(got.counts, expected.counts)
    pd.testing.assert_frame_equal(got.overlap, expected.overlap)
