"""How vectors of samples are spread: along how many directions, and between samples or between draws of their cells."""

from __future__ import annotations

import numpy as np

COLLAPSED = 1.5
"""Effective rank below which vectors are called collapsed: next to one direction."""


def effective_rank(vectors: np.ndarray) -> float:
    r"""Number of directions along which vectors vary: the participation ratio of the eigenvalues of their covariance.

    :math:`(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2`: 1 if all lie on a line, k if k directions carry as much each.

    Parameters
    ----------
    vectors
        (samples, features).

    Returns
    -------
    At least 1 and at most the smaller of features and samples less one; 0 if all vectors are the same.
    """
    x = np.asarray(vectors, dtype=np.float64)
    size = np.abs(x).max(initial=0.0)
    x = x - x.mean(axis=0)
    if not np.abs(x).max(initial=0.0) > 1e-6 * size:  # below what float32 can tell from rounding
        return 0.0
    x /= np.abs(x).max()
    inner = x.T @ x if x.shape[1] < x.shape[0] else x @ x.T  # both have the eigenvalues that are not zero
    return float(np.trace(inner) ** 2 / np.square(inner).sum())


def share_between(first: np.ndarray, second: np.ndarray) -> float:
    r"""Share of the variance of vectors that lies between samples, and not between two draws of their cells.

    The intraclass correlation of a one-way analysis of variance with two draws of each sample, over all features together:
    :math:`(B - W) / (B + W)` with the mean squares :math:`B` between and :math:`W` within samples.

    Parameters
    ----------
    first, second
        Vectors of the same samples from two draws of as many cells, (samples, features).

    Returns
    -------
    1 if draws agree, 0 if they differ as samples do (it can fall below); NaN if nothing varies or there is one sample.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n, mean = len(a), (a + b) / 2
    if n < 2:
        return float("nan")
    between = 2 * np.square(mean - mean.mean(axis=0)).sum() / (n - 1)
    within = np.square(a - b).sum() / 2 / n
    return float((between - within) / (between + within)) if between + within > 0 else float("nan")
