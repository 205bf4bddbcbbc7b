"""Votes of nearest neighbours in which samples at the same distance count the same, whatever the order of their rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.neighbors import NearestNeighbors

_TOLERANCE = 1e-9
"""Relative difference up to which two distances are one: rounding depends on where a row stands."""


class _FairNeighbors(BaseEstimator):
    """Fitted vectors (n, features) or, with ``metric="precomputed"``, distances to them."""

    def __init__(self, n_neighbors: int = 5, *, metric: str = "euclidean") -> None:
        self.n_neighbors, self.metric = n_neighbors, metric

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"  # both axes are cut by cross-validation
        return tags

    def _remember(self, x: np.ndarray) -> None:
        self.x_ = np.asarray(x, dtype=np.float64)

    def _mean_of_neighbors(self, x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean value of the neighbours (n_new, columns), and mean distance weighed by value, of the same shape.

        ``n_neighbors`` are taken; those tied for the last places share them.
        """
        x, k = np.asarray(x, dtype=np.float64), min(self.n_neighbors, len(self.x_))
        mean, far = np.empty((len(x), values.shape[1])), np.empty((len(x), values.shape[1]))
        is_tied = np.ones(len(x), dtype=bool)
        if self.metric != "precomputed" and k < len(self.x_):
            d, nearest = NearestNeighbors(n_neighbors=k + 1, metric=self.metric).fit(self.x_).kneighbors(x)
            is_tied = d[:, k] <= d[:, k - 1] * (1 + _TOLERANCE)
            chosen = values[nearest[~is_tied, :k]]  # (rows, k, columns)
            mean[~is_tied] = chosen.mean(axis=1)
            far[~is_tied] = (chosen * d[~is_tied, :k, None]).mean(axis=1)
        for part in np.array_split(np.flatnonzero(is_tied), max(1, is_tied.sum() * len(self.x_) // 2**24)):
            d = x[part] if self.metric == "precomputed" else cdist(x[part], self.x_, metric=self.metric)
            last = np.partition(d, k - 1, axis=1)[:, k - 1 : k]
            is_last = np.abs(d - last) <= _TOLERANCE * last
            is_inside = (d < last) & ~is_last
            share = is_inside + is_last * (k - is_inside.sum(1, keepdims=True)) / is_last.sum(1, keepdims=True)
            mean[part], far[part] = share @ values / k, (share * d) @ values / k
        return mean, far


class FairNeighborsClassifier(ClassifierMixin, _FairNeighbors):
    """k-nearest-neighbour vote; a tied vote goes to the class whose voters are nearer on average, then to the first by name.

    Parameters
    ----------
    n_neighbors
        Neighbours that vote. Those at the same distance as the last one share what is left of the votes.
    metric
        Metric of :func:`scipy.spatial.distance.cdist`, or ``"precomputed"``.
    """

    def fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Remember samples and classes."""
        self._remember(x)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.is_class_ = np.eye(len(self.classes_))[codes]
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Share of the votes for each class, (n_new, classes)."""
        return self._mean_of_neighbors(x, self.is_class_)[0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class voted for, (n_new,)."""
        votes, far = self._mean_of_neighbors(x, self.is_class_)
        is_top = votes >= votes.max(axis=1, keepdims=True) - 1e-9
        distance = np.where(is_top, far / np.where(votes > 0, votes, 1), np.inf)
        nearest = distance <= distance.min(axis=1, keepdims=True) * (1 + _TOLERANCE)
        return self.classes_[nearest.argmax(axis=1)]


class FairNeighborsRegressor(RegressorMixin, _FairNeighbors):
    """Mean over the nearest neighbours; those at the same distance as the last one share its place.

    Parameters
    ----------
    n_neighbors, metric
        As of :class:`FairNeighborsClassifier`.
    """

    def fit(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Remember samples and values."""
        self._remember(x)
        self.y_ = np.asarray(y, dtype=np.float64)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Mean value of the neighbours, (n_new,)."""
        return self._mean_of_neighbors(x, self.y_[:, None])[0][:, 0]
