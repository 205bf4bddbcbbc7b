"""Learning curves: sizes, nesting, fixed test parts, growth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scset_tools.tl import learning_curve, probe
from scset_tools.tl._learning_curve import _nested
from scset_tools.tl._targets import read_target

QUICK = {"tune": False, "cv": 3}


def make_samples(n: int = 60, n_features: int = 10) -> AnnData:
    rng = np.random.default_rng(0)
    label = rng.permutation(np.arange(n) % 3 == 0).astype(int)
    x = rng.normal(size=(n, n_features)) + 0.8 * label[:, None] * (np.arange(n_features) < 5)
    obs = pd.DataFrame(
        {"label": np.array(["a", "b"])[label], "donor": np.arange(n) // 2}, index=[f"s{i}" for i in range(n)]
    )
    return AnnData(x, obs=obs)


def test_one_row_per_size_subsample_and_fold() -> None:
    table = learning_curve(make_samples(), "label", sizes=(20, 10, 40), n_subsamples=2, groups_key="donor", **QUICK)
    assert table[["size", "subsample", "fold"]].to_numpy().tolist() == [
        [s, r, f] for s in (10, 20, 40) for r in range(2) for f in range(3)
    ]
    assert table["n_train"].equals(table["size"])
    assert set(table["metric"]) == {"balanced_accuracy"}
    assert table["score"].equals(table["balanced_accuracy"])
    assert {"representation", "label", "probe", "auroc", "n_test"} <= set(table)


def test_all_training_samples_give_the_folds_of_probe() -> None:
    samples = make_samples()
    full = learning_curve(samples, "label", sizes=(40,), n_subsamples=1, rng=2, **QUICK)
    alone = probe(samples, "label", n_repeats=1, rng=2, **QUICK).folds
    assert full["n_test"].tolist() == alone["n_test"].tolist()
    np.testing.assert_allclose(full["auroc"], alone["auroc"])


def test_the_default_probe_follows_the_label() -> None:
    samples = make_samples()
    samples.obs["number"] = np.arange(samples.n_obs, dtype=float)
    for label, taken in (("label", "logistic"), ("number", "ridge")):
        table = learning_curve(samples, label, sizes=(20,), n_subsamples=1, **QUICK)
        assert set(table["probe"]) == {taken}


def test_more_samples_score_better() -> None:
    table = learning_curve(make_samples(150), "label", sizes=(6, 100), n_subsamples=4, metric="auroc", **QUICK)
    mean = table.groupby("size")["score"].mean()
    assert mean[100] > mean[6] + 0.05


def test_subsets_are_nested_stratified_and_differ() -> None:
    samples = make_samples()
    labels = read_target(samples, "label")
    train = np.arange(5, 50)
    subsets = [_nested(labels, train, [9, 18, 36], np.random.default_rng(s)) for s in range(20)]
    share = labels.values[train].mean()
    for small, middle, large in subsets:
        assert set(small) <= set(middle) <= set(large) <= set(train)
        assert [len(s) for s in (small, middle, large)] == [9, 18, 36]
        assert abs(labels.values[middle].sum() - 18 * share) <= 1.5
    assert len({tuple(s[0]) for s in subsets}) == 20
    # every training sample has its chance
    assert set(np.concatenate([s[1] for s in subsets])) == set(train)


def test_sizes_are_checked() -> None:
    samples = make_samples()
    with pytest.raises(ValueError, match=r"between 2 and 40, .* but are \[25, 50, 100\]"):
        learning_curve(samples, "label", **QUICK)
    with pytest.raises(ValueError, match="between 2 and 40"):
        learning_curve(samples, "label", sizes=(1, 10), **QUICK)
    with pytest.raises(ValueError, match="n_subsamples=0 must be a whole number of 1 or more"):
        learning_curve(samples, "label", sizes=(10,), n_subsamples=0, **QUICK)
    rare = make_samples()
    rare.obs["label"] = np.where(np.arange(60) < 4, "rare", "usual")
    with pytest.raises(ValueError, match="does not have two different values"):
        learning_curve(rare, "label", sizes=(3,), n_subsamples=5, **QUICK)


def test_distances_and_workers() -> None:
    samples = make_samples(30)
    samples.obsp["d"] = np.linalg.norm(samples.X[:, None] - samples.X[None], axis=2)
    runs = [
        learning_curve(
            samples, "label", obsp_key="d", probe="knn", sizes=(8, 15), n_subsamples=1, cv=2, tune=False, n_jobs=n
        )
        for n in (1, 2)
    ]
    pd.testing.assert_frame_equal(*runs)
    assert set(runs[0]["representation"]) == {"d"}
