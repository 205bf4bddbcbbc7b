"""Labels without meaning, and the scores of features under them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from scset_tools._permutation import permute_labels


def against_null(score: pd.Series, null: pd.DataFrame) -> pd.DataFrame:
    """Compare scores of features with their scores under permuted labels.

    Parameters
    ----------
    score
        One number per feature.
    null
        (features, permutations), two or more permutations.

    Returns
    -------
    DataFrame indexed as ``score``, with ``score``, ``z``, ``p_value`` and ``p_adjusted``; see :class:`TrustResult`.
    """
    v = null.loc[score.index].to_numpy(dtype=np.float64)
    n = v.shape[1]
    fudge = np.median(v.std(axis=1, ddof=1)) or np.finfo(float).tiny
    z = (score.to_numpy() - v.mean(axis=1)) / (v.std(axis=1, ddof=1) + fudge)
    # each permutation against the others, as the real labels stand against all of them
    mean = (v.sum(axis=1, keepdims=True) - v) / (n - 1)
    left = np.stack([np.delete(v, b, axis=1).std(axis=1, ddof=1 if n > 2 else 0) for b in range(n)], axis=1)
    z_null = np.sort(np.abs((v - mean) / (left + fudge)).ravel())
    n_beyond = len(z_null) - np.searchsorted(z_null, np.abs(z), side="left")
    p = (1 + n_beyond) / (1 + len(z_null))
    return pd.DataFrame(
        {"score": score, "z": z, "p_value": p, "p_adjusted": stats.false_discovery_control(p)}, index=score.index
    )


def labelings(labels: np.ndarray, groups: np.ndarray | None, *, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Up to ``n`` distinct permutations of the labels that say something else than the labels.

    Parameters
    ----------
    labels
        Class of each sample, (samples,).
    groups
        Donor of each sample, (samples,): donors exchange their labels whole, and shuffle them within. Default: all samples alike.
    n
        How many.
    rng
        Generator.
    """
    classes = np.unique(labels)
    real = {tuple(labels)}
    if len(classes) == 2:
        real.add(tuple(np.where(labels == classes[0], classes[1], classes[0])))
    out: dict[tuple, np.ndarray] = {}
    codes, of_group = np.unique(labels, return_inverse=True)[1], np.arange(len(labels)) if groups is None else groups
    for _ in range(100 * n):  # where few labelings exist, drawing on would never end
        drawn = labels[permute_labels(codes, of_group, rng)]
        if tuple(drawn) not in real:
            out.setdefault(tuple(drawn), drawn)
        if len(out) == n:
            break
    return list(out.values())
