"""The usual width of a Gaussian kernel: the median distance between two cells."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist

N_CELLS = 2000
"""Enough cells for a median within a few percent, few enough for all pairs at once."""


def median_distance(x: np.ndarray, rng: np.random.Generator) -> float:
    """Median Euclidean distance between two rows of ``x``, over a draw of at most 2,000; 1 if all rows are equal."""
    if len(x) > N_CELLS:
        x = x[rng.choice(len(x), N_CELLS, replace=False)]
    if len(x) < 2:
        return 1.0
    distances = pdist(np.asarray(x, dtype=np.float64))
    median = float(np.median(distances))
    # more than half of the pairs may be ties where most cells express nothing
    return median or float(distances.max()) or 1.0
