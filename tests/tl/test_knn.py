"""Votes of neighbours: scikit-learn's where nothing is tied, and the same for every order of the rows where something is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from scset_tools.tl._knn import FairNeighborsClassifier, FairNeighborsRegressor


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("metric", ["euclidean", "precomputed"])
def test_without_ties_it_is_scikit_learns(k: int, metric: str) -> None:
    rng = np.random.default_rng(0)
    x, new, y = rng.normal(size=(30, 3)), rng.normal(size=(12, 3)), rng.integers(0, 3, 30)
    if metric == "precomputed":
        x, new = cdist(x, x), cdist(new, x)
    ours, theirs = FairNeighborsClassifier(k, metric=metric).fit(x, y), KNeighborsClassifier(k, metric=metric).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), atol=1e-12)
    votes = np.sort(ours.predict_proba(new), axis=1)
    clear = votes[:, -1] > votes[:, -2] + 1e-9
    assert (ours.predict(new) == theirs.predict(new))[clear].all()
    numbers = rng.normal(size=30)
    expected = KNeighborsRegressor(k, metric=metric).fit(x, numbers).predict(new)
    np.testing.assert_allclose(FairNeighborsRegressor(k, metric=metric).fit(x, numbers).predict(new), expected)


def slow_votes(x: np.ndarray, y: np.ndarray, new: np.ndarray, k: int, n_classes: int) -> np.ndarray:
    """The votes of a row, averaged over many orders of the samples."""
    rng, out = np.random.default_rng(0), np.zeros((len(new), n_classes))
    for _ in range(4000):
        order = rng.permutation(len(x))
        nearest = order[cdist(new, x[order]).argsort(axis=1, kind="stable")[:, :k]]
        out += np.eye(n_classes)[y[nearest]].sum(axis=1)
    return out / 4000 / k


def test_ties_share_the_last_places() -> None:
    rng = np.random.default_rng(1)
    x, new = rng.integers(0, 3, (25, 2)).astype(float), rng.integers(0, 3, (10, 2)).astype(float)
    y = rng.integers(0, 3, 25)
    got = FairNeighborsClassifier(4).fit(x, y).predict_proba(new)
    np.testing.assert_allclose(got, slow_votes(x, y, new, 4, 3), atol=0.03)


@pytest.mark.parametrize("estimator", [FairNeighborsClassifier(3), FairNeighborsRegressor(3)])
def test_the_order_of_the_rows_does_not_matter(estimator: BaseEstimator) -> None:
    rng = np.random.default_rng(2)
    x, new = rng.integers(0, 3, (40, 2)).astype(float), rng.integers(0, 3, (30, 2)).astype(float)
    y = rng.integers(0, 3, 40)
    first = estimator.fit(x, y).predict(new)
    for _ in range(20):
        order = rng.permutation(40)
        np.testing.assert_allclose(estimator.fit(x[order], y[order]).predict(new), first)
