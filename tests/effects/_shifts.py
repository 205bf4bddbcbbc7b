"""Whether vectors of samples say how the cells of each kind are shifted."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV


def r2_of_shifts(vectors: np.ndarray, cohort) -> float:
    """R2 of ridge regression to the shifts of each kind of cells, on the last third of the samples."""
    y = np.asarray(cohort.uns["truth"]["effect"]).reshape(len(vectors), -1)
    n = 2 * len(y) // 3
    vectors = (vectors - vectors[:n].mean(0)) / (vectors[:n].std(0) + 1e-8)
    predicted = RidgeCV(np.logspace(-2, 4, 13)).fit(vectors[:n], y[:n]).predict(vectors[n:])
    return 1 - np.square(y[n:] - predicted).sum() / np.square(y[n:] - y[:n].mean(0)).sum()
