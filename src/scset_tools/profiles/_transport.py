"""Entropic transport between a set of cells and a set of points, both of equal weights."""

from __future__ import annotations

import numpy as np

_MAX_EXPONENT = 300.0
"""exp(-300) is still far from the smallest double; beyond, scaling moves to the logarithmic domain."""


def transport_plan(cost: np.ndarray, epsilon: float) -> np.ndarray:
    """Plan of shape (cells, points) with margins 1/cells and 1/points that minimises cost less epsilon times entropy.

    Parameters
    ----------
    cost
        Shape (cells, points).
    epsilon
        In units of the cost.
    """
    import ot  # slow to load, and only this profile needs it

    n, p = cost.shape
    # the plan does not change when a constant is added to a row or a column; this takes most of the range away
    cost = cost - cost.min(1, keepdims=True)
    cost = cost - cost.min(0, keepdims=True)
    method = "sinkhorn" if cost.max() < _MAX_EXPONENT * epsilon else "sinkhorn_log"
    return ot.sinkhorn(
        np.full(n, 1 / n), np.full(p, 1 / p), cost, epsilon, method=method, numItermax=2000, stopThr=1e-7, warn=False
    )
