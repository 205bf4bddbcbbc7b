"""The one-layer softmax network against scikit-learn and its own optimality condition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression

from scset_tools.tl._softmax import SoftmaxRegression


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_one_hot_targets_are_multinomial_logistic_regression(alpha: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(3, size=60)
    ours = SoftmaxRegression(alpha).fit(x, np.eye(3)[y])
    reference = LogisticRegression(C=1 / alpha, tol=1e-8, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(ours.predict(x), reference.predict_proba(x), atol=1e-4)


def test_fit_is_the_minimum_of_the_stated_loss() -> None:
    rng = np.random.default_rng(1)
    x, p, alpha = rng.normal(size=(20, 3)), rng.dirichlet(np.ones(4), size=20), 0.5

    def loss(flat: np.ndarray) -> float:
        w, b = flat[:12].reshape(3, 4), flat[12:]
        total = 0.5 * alpha * np.sum(w**2)
        for i in range(20):
            z = x[i] @ w + b
            total -= np.sum(p[i] * (z - np.log(np.sum(np.exp(z)))))
        return total

    model = SoftmaxRegression(alpha).fit(x, p)
    best = np.concatenate([model.coef_.ravel(), model.intercept_])
    assert check_grad(loss, lambda _: np.zeros(16), best) < 1e-3
    assert all(loss(best + 0.05 * rng.normal(size=16)) > loss(best) for _ in range(20))
    np.testing.assert_allclose(model.predict(x).sum(axis=1), 1)


def test_without_information_the_mean_is_predicted() -> None:
    p = np.random.default_rng(2).dirichlet(np.ones(3), size=10)
    model = SoftmaxRegression(1.0).fit(np.zeros((10, 2)), p)
    np.testing.assert_allclose(model.predict(np.zeros((1, 2)))[0], p.mean(axis=0), atol=1e-5)
