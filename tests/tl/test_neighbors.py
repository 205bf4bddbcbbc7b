"""Neighbour tables and k-nearest-neighbour accuracy, against slow loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import cdist
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from scset_tools import tl
from scset_tools.tl import _neighbors


def make_samples(n=40, n_features=3, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_features))
    label = np.array([f"c{v}" for v in rng.integers(n_classes, size=n)])
    obs = pd.DataFrame({"label": label, "donor": [f"d{i // 2}" for i in range(n)]}, index=[f"s{i}" for i in range(n)])
    samples = AnnData(x, obs=obs)
    samples.obsp["d"] = cdist(x, x)
    return samples


def slow_table(samples, k, groups_key=None):
    """For each sample the k nearest others, counted one by one."""
    label, x = samples.obs["label"].to_numpy(), samples.X
    classes = sorted(set(label))
    table = pd.DataFrame(0.0, index=classes, columns=classes)
    for i in range(len(x)):
        others = [
            j
            for j in range(len(x))
            if j != i and (groups_key is None or samples.obs[groups_key].iloc[j] != samples.obs[groups_key].iloc[i])
        ]
        others.sort(key=lambda j: np.linalg.norm(x[i] - x[j]))
        for j in others[:k]:
            table.loc[label[i], label[j]] += 1
    return table.div(table.sum(axis=1), axis=0)


@pytest.mark.parametrize("groups_key", [None, "donor"])
@pytest.mark.parametrize("k", [1, 4])
def test_table_is_the_slow_loop(k, groups_key):
    samples = make_samples()
    result = tl.neighbor_table(samples, "label", n_neighbors=k, groups_key=groups_key)
    np.testing.assert_allclose(result.proportions, slow_table(samples, k, groups_key))
    by_distance = tl.neighbor_table(samples, "label", obsp_key="d", n_neighbors=k, groups_key=groups_key)
    pd.testing.assert_frame_equal(by_distance.proportions, result.proportions)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "seuclidean", "mahalanobis"])
@pytest.mark.parametrize("at_once", [1, 40 * 7], ids=["a row", "seven rows"])
def test_many_samples_are_taken_by_rows(monkeypatch, metric, at_once):
    samples = make_samples()
    samples.obs["label"] = samples.obs["label"].where(np.arange(40) % 9 > 0)
    how = {"n_neighbors": 3, "groups_key": "donor", "metric": metric}
    whole = tl.neighbor_table(samples, "label", **how)
    monkeypatch.setattr(_neighbors, "DISTANCES_AT_ONCE", at_once)
    parts = tl.neighbor_table(samples, "label", **how)
    for name in ("proportions", "chance", "samples"):
        pd.testing.assert_frame_equal(getattr(parts, name), getattr(whole, name))
    assert parts.n_missing == whole.n_missing == 5
    stored = tl.neighbor_table(samples, "label", obsp_key="d", n_neighbors=3, groups_key="donor")
    if metric == "euclidean":
        pd.testing.assert_frame_equal(stored.samples, whole.samples)


def test_table_names_the_nearest_sample_and_sums_up():
    samples = make_samples()
    result = tl.neighbor_table(samples, "label")
    d = samples.obsp["d"] + np.diag(np.full(40, np.inf))
    assert list(result.samples["nearest"]) == list(samples.obs_names[d.argmin(axis=1)])
    same = samples.obs["label"].to_numpy()[d.argmin(axis=1)] == samples.obs["label"].to_numpy()
    summary = result.summary()
    assert summary.loc["all samples", "share_same"] == pytest.approx(same.mean())
    n = samples.obs["label"].value_counts().sort_index().to_numpy()
    np.testing.assert_allclose(summary["chance"].iloc[:-1], (n - 1) / 39)
    assert summary.loc["all samples", "n_samples"] == 40


def test_chance_is_the_mean_over_random_labels():
    samples = make_samples()
    rng = np.random.default_rng(1)
    expected = tl.neighbor_table(samples, "label").chance.to_numpy()
    tables = []
    for _ in range(300):
        samples.obs["label"] = rng.permutation(samples.obs["label"].to_numpy())
        tables.append(tl.neighbor_table(samples, "label").proportions.to_numpy())
    np.testing.assert_allclose(np.mean(tables, axis=0), expected, atol=0.04)


def test_ties_are_shared_whatever_the_order_of_the_rows():
    samples = AnnData(np.zeros((4, 1)), obs=pd.DataFrame({"label": ["a", "a", "b", "b"]}, index=list("wxyz")))
    table = tl.neighbor_table(samples, "label").proportions
    np.testing.assert_allclose(table, [[1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    turned = tl.neighbor_table(samples[::-1].copy(), "label").proportions
    pd.testing.assert_frame_equal(turned, table)


def test_missing_labels_are_left_out_as_neighbours_too():
    samples = make_samples()
    samples.obs["partial"] = samples.obs["label"].where(np.arange(40) % 3 > 0)
    result = tl.neighbor_table(samples, "partial")
    rest = tl.neighbor_table(samples[np.arange(40) % 3 > 0].copy(), "label")
    np.testing.assert_allclose(result.proportions, rest.proportions)
    assert result.n_missing == 14


def test_one_class_is_always_its_own_neighbour():
    samples = make_samples(n_classes=1)
    result = tl.neighbor_table(samples, "label")
    assert result.proportions.to_numpy().tolist() == [[1.0]]
    assert result.chance.to_numpy() == pytest.approx(np.ones((1, 1)))


def test_more_neighbours_than_samples_use_all():
    samples = make_samples(n=5)
    result = tl.neighbor_table(samples, "label", n_neighbors=50)
    np.testing.assert_allclose(result.proportions, result.chance)


def test_table_errors():
    samples = make_samples()
    samples.obs["empty"] = np.nan
    samples.obs["one"] = "x"
    samples.obs["gap"] = [None, *["a", "b"] * 19, "a"]
    with pytest.raises(KeyError, match="'nope' is not a column"):
        tl.neighbor_table(samples, "nope")
    with pytest.raises(ValueError, match="has a value for 0 of 40 samples"):
        tl.neighbor_table(samples, "empty")
    with pytest.raises(ValueError, match="40 of 40 samples have no permitted neighbour"):
        tl.neighbor_table(samples, "label", groups_key="one")
    with pytest.raises(ValueError, match="is missing for 1 of 40"):
        tl.neighbor_table(samples, "label", groups_key="gap")
    with pytest.raises(ValueError, match="n_neighbors=0 must be a whole number of 1 or more"):
        tl.neighbor_table(samples, "label", n_neighbors=0)


@pytest.mark.parametrize("k", [1, 5])
def test_held_out_accuracy_is_scikit_learns(k):
    samples = make_samples(n=60, n_classes=2)
    held_out = samples.obs_names[::3]
    is_test = samples.obs_names.isin(held_out)
    y = samples.obs["label"].to_numpy()
    predicted = KNeighborsClassifier(k).fit(samples.X[~is_test], y[~is_test]).predict(samples.X[is_test])
    out = tl.neighbor_accuracy(samples, "label", n_neighbors=k, held_out=held_out)
    assert out.loc["label", "accuracy"] == pytest.approx(np.mean(predicted == y[is_test]))
    assert out.loc["label", "balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y[is_test], predicted))
    assert out.loc["label", "n_samples"] == 20


def test_leave_one_group_out_is_a_loop_over_groups():
    samples = make_samples(n=60, n_classes=2)
    y, donor = samples.obs["label"].to_numpy(), samples.obs["donor"].to_numpy()
    right = []
    for g in np.unique(donor):
        model = KNeighborsClassifier(3).fit(samples.X[donor != g], y[donor != g])
        right += list(model.predict(samples.X[donor == g]) == y[donor == g])
    out = tl.neighbor_accuracy(samples, ["label"], n_neighbors=3, groups_key="donor")
    assert out.loc["label", "accuracy"] == pytest.approx(np.mean(right))


def test_planted_disease_is_seen_and_study_is_not():
    rng = np.random.default_rng(0)
    disease, study = np.repeat([0, 1], 30), np.tile([0, 1, 2], 20)
    x = np.c_[disease * 20 + rng.normal(size=60), rng.normal(size=60)]
    samples = AnnData(x, obs=pd.DataFrame({"disease": disease, "study": study}, index=[f"s{i}" for i in range(60)]))
    out = tl.neighbor_accuracy(samples, ["disease", "study"])
    assert out.loc["disease", "accuracy"] == 1.0
    assert out.loc["study", "accuracy"] < 0.5
    assert out.loc["study", "chance_balanced"] == pytest.approx(1 / 3)
    assert out.loc["study", "majority"] == pytest.approx(1 / 3)


def test_tied_votes_go_to_the_nearer_class():
    x = np.array([[0.0], [1.0], [-2.0]])
    samples = AnnData(x, obs=pd.DataFrame({"label": ["b", "b", "a"]}, index=list("xyz")))
    out = tl.neighbor_accuracy(samples, "label", n_neighbors=2, held_out=["x"])
    assert out.loc["label", "accuracy"] == 1.0


def test_accuracy_errors():
    samples = make_samples()
    samples.obs["study"] = samples.obs["label"]
    samples.obs["one"] = "x"
    with pytest.raises(ValueError, match="every class lies in a single group"):
        tl.neighbor_accuracy(samples, "label", groups_key="study")
    with pytest.raises(ValueError, match="has a single class"):
        tl.neighbor_accuracy(samples, "one")
    with pytest.raises(KeyError, match=r"held_out names 1 of 2 samples that are not .*ghost"):
        tl.neighbor_accuracy(samples, "label", held_out=["s1", "ghost"])
