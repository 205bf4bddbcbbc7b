"""A Gaussian mixture of cells with missing values, against scikit-learn, scipy and the truth."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from scset_tools.model._tokens_open import REGULARIZATION, Mixture, marginal_mixture_of


def drawn(n=3000, seed=0):
    """Cells of three kinds with one covariance."""
    rng = np.random.default_rng(seed)
    means = np.array([[0, 0, 0, 0], [3, 3, 0, -2], [-3, 2, 2, 2]], dtype=float)
    root = rng.normal(size=(4, 4)) * 0.3 + 0.6 * np.eye(4)
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return means[kind] + rng.normal(size=(n, 4)) @ root.T, kind, means, root @ root.T


def test_whole_cells_give_the_mixture_of_scikit_learn():
    x, _, _, _ = drawn()
    means, covariance, log_share = (t.numpy() for t in marginal_mixture_of(torch.from_numpy(x), 3))
    reference = GaussianMixture(
        3, covariance_type="tied", reg_covar=REGULARIZATION, means_init=means, random_state=0, max_iter=200
    ).fit(x)
    np.testing.assert_allclose(means, reference.means_, atol=0.03)
    np.testing.assert_allclose(covariance, reference.covariances_, atol=0.03)
    np.testing.assert_allclose(np.exp(log_share), reference.weights_, atol=0.01)


def test_a_step_is_that_of_the_formula():
    rng = np.random.default_rng(1)
    x = drawn(60)[0]
    x[:20, 1] = np.nan
    x[20:45, [0, 3]] = np.nan
    before = Mixture(rng.normal(size=(2, 4)), np.eye(4) + 0.3, np.array([0.4, 0.6]))
    weight, filled, unknown, likelihood = [], [], [], 0.0
    for row in x:
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        s = before.covariance
        density = [
            w * multivariate_normal(c[o], s[np.ix_(o, o)]).pdf(row[o])
            for w, c in zip(before.share, before.means, strict=True)
        ]
        likelihood += np.log(sum(density))
        weight.append(np.array(density) / sum(density))
        gain = s[np.ix_(m, o)] @ np.linalg.inv(s[np.ix_(o, o)])
        of_kinds = np.tile(row, (2, 1))
        of_kinds[:, m] = before.means[:, m] + (row[o] - before.means[:, o]) @ gain.T
        filled.append(of_kinds)
        left = np.zeros((4, 4))
        left[np.ix_(m, m)] = s[np.ix_(m, m)] - gain @ s[np.ix_(o, m)]
        unknown.append(left)
    weight, filled = np.array(weight), np.array(filled)
    means = np.einsum("nk,nkj->kj", weight, filled) / weight.sum(0)[:, None]
    apart = filled - means
    covariance = (
        np.einsum("nk,nki,nkj->ij", weight, apart, apart) + np.sum(unknown, 0)
    ) / 60 + REGULARIZATION * np.eye(4)
    panels, which = np.unique(~np.isnan(x), axis=0, return_inverse=True)
    groups = [(p, x[which.ravel() == i][:, p]) for i, p in enumerate(panels)]
    assert abs(before._step(groups, 60) - likelihood / 60) < 1e-9
    np.testing.assert_allclose(before.means, means, rtol=1e-9)
    np.testing.assert_allclose(before.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(before.share, weight.mean(0), rtol=1e-9)


def test_kinds_are_found_though_no_cell_is_whole():
    x, kind, truth, _ = drawn(6000)
    for start, missing in ((0, [0]), (1500, [1]), (3000, [2]), (4500, [3])):
        x[start : start + 1500, missing] = np.nan
    means = marginal_mixture_of(torch.from_numpy(x), 3)[0].numpy()
    nearest = np.linalg.norm(truth[:, None] - means[None], axis=2).argmin(1)
    assert sorted(nearest) == [0, 1, 2]
    np.testing.assert_allclose(means[nearest], truth, atol=0.25)
    del kind


def test_few_cells_and_equal_cells():
    for x in (torch.zeros(1, 3), torch.ones(5, 3), torch.tensor([[1.0, torch.nan, 0.0], [0.0, torch.nan, 1.0]])):
        found = marginal_mixture_of(x, 4)
        assert all(torch.isfinite(t).all() for t in found)
        assert found[0].shape == (4, 3)
        torch.linalg.cholesky(found[1])
