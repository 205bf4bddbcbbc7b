"""Spread of vectors against closed forms and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from scset_tools._spread import effective_rank, share_between


@pytest.mark.parametrize(
    ("eigenvalues", "rank"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([3.0, 0.0, 0.0, 0.0], 1.0),
        ([4.0, 2.0, 1.0, 1.0], 64 / 22),
        ([1e-12, 1e-12, 0, 0], 2.0),
    ],
)
@pytest.mark.parametrize("n_features", [4, 200], ids=["tall", "wide"])
def test_effective_rank_is_the_participation_ratio(eigenvalues, rank, n_features):
    # vectors with exactly this covariance: orthonormal columns of mean zero, scaled, turned and moved
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(np.column_stack([np.ones(50), rng.normal(size=(50, 4))]))[0][:, 1:]
    turn = ortho_group.rvs(n_features, random_state=0)[:4]
    x = columns * np.sqrt(eigenvalues) @ turn
    x += 0.1 * np.abs(x).max()
    assert effective_rank(x) == pytest.approx(rank, rel=1e-6)
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert effective_rank(x) == pytest.approx(values.sum() ** 2 / np.square(values).sum(), rel=1e-6)


def test_vectors_that_are_the_same_have_no_rank():
    assert effective_rank(np.full((5, 3), 7.0)) == 0
    assert effective_rank(np.full((5, 3), 7.0) + 1e-7 * np.random.default_rng(0).normal(size=(5, 3))) == 0
    assert effective_rank(np.zeros((1, 3))) == 0


def test_share_between_is_the_intraclass_correlation():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30, 4)) + 2 * rng.normal(size=(30, 4))
    between = within = 0.0
    everything = np.concatenate([first, second]).mean(axis=0)
    for a, b in zip(first, second, strict=True):
        mean = (a + b) / 2
        between += 2 * ((mean - everything) ** 2).sum() / 29
        within += (((a - mean) ** 2).sum() + ((b - mean) ** 2).sum()) / 30
    assert share_between(first, second) == pytest.approx((between - within) / (between + within))
    # 4 of 5 parts of the variance are between samples
    many = rng.normal(size=(2, 20_000, 3)) + 2 * rng.normal(size=(20_000, 3))
    assert share_between(*many) == pytest.approx(0.8, abs=0.01)


def test_share_between_at_its_ends():
    x = np.random.default_rng(0).normal(size=(10, 3))
    assert share_between(x, x) == 1
    assert share_between(x, -x) < 0
    assert np.isnan(share_between(np.ones((4, 2)), np.ones((4, 2))))
    assert np.isnan(share_between(x[:1], x[:1] + 1))
