"""A one-layer network with softmax output for proportions, fitted to its optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, RegressorMixin

if TYPE_CHECKING:
    from typing import Self


class SoftmaxRegression(RegressorMixin, BaseEstimator):
    """Proportions ``softmax(x W + b)``, by least cross-entropy to the true proportions ``p``.

    Minimised, by L-BFGS: ``-sum_ik p_ik log softmax_k(x_i W + b) + alpha / 2 |W|^2``, which is convex. For one-hot ``p`` it is
    multinomial logistic regression with ``C = 1 / alpha``.

    Parameters
    ----------
    alpha
        L2 penalty of the weights; the intercept has none.
    max_iter
        Most iterations.

    Attributes
    ----------
    coef_
        Weights, shape (n_features, n_types).
    intercept_
        Shape (n_types,).
    """

    def __init__(self, alpha: float = 1.0, *, max_iter: int = 1000) -> None:
        self.alpha = alpha
        self.max_iter = max_iter

    def fit(self, x: np.ndarray, p: np.ndarray) -> Self:
        """Fit to vectors (n, n_features) and proportions (n, n_types)."""
        n_features, n_types = x.shape[1], p.shape[1]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w, b = flat[:-n_types].reshape(n_features, n_types), flat[-n_types:]
            z = x @ w + b  # (n, n_types)
            residual = softmax(z, axis=1) * p.sum(axis=1, keepdims=True) - p
            value = -(p * log_softmax(z, axis=1)).sum() + 0.5 * self.alpha * (w**2).sum()
            return value, np.concatenate([(x.T @ residual + self.alpha * w).ravel(), residual.sum(axis=0)])

        start = np.zeros((n_features + 1) * n_types)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": self.max_iter, "gtol": 1e-6})
        self.coef_ = found.x[:-n_types].reshape(n_features, n_types)
        self.intercept_ = found.x[-n_types:]
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Proportions (n, n_types); rows sum to 1."""
        return softmax(x @ self.coef_ + self.intercept_, axis=1)
