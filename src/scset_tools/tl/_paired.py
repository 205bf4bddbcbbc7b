"""Two classes compared within donors: Wilcoxon's signed ranks, with the Hodges-Lehmann difference and its interval."""

from __future__ import annotations

import numpy as np
from scipy import stats

_N_ENUMERATED = 13
"""Pairs up to which scipy's default is exact with ties as well."""


def pair_differences(x: np.ndarray, codes: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Mean of class 1 less mean of class 0 of every donor who has both, (pairs, m); ``x`` (n, m) may miss values."""
    out = []
    for donor in np.unique(donors[donors >= 0]):
        first, second = x[(donors == donor) & (codes == 0)], x[(donors == donor) & (codes == 1)]
        if len(first) and len(second):
            out.append(_mean(second) - _mean(first))
    return np.stack(out) if out else np.zeros((0, x.shape[1]))


def _mean(x: np.ndarray) -> np.ndarray:
    """Mean over rows without missing values; NaN where all are missing."""
    n = (~np.isnan(x)).sum(axis=0)
    return np.where(n > 0, np.nansum(x, axis=0) / np.maximum(n, 1), np.nan)


def wilcoxon_test(differences: np.ndarray, *, level: float) -> dict[str, float]:
    """Signed-rank test of the differences of one column, shape (pairs,), none missing.

    Returns
    -------
    ``statistic`` (the smaller rank sum, as scipy has it), ``effect`` (Hodges-Lehmann: median of the means of all pairs of
    differences), ``ci_low`` and ``ci_high`` (its exact interval; infinite where too few pairs allow none), ``standardized`` (matched
    rank-biserial correlation) and ``p_value`` (exact up to 50 pairs without ties, and up to 13 with them, as by default in scipy). NaN where all differences are zero.
    """
    n = len(differences)
    if n == 0 or not np.any(differences):
        return dict.fromkeys(("statistic", "effect", "ci_low", "ci_high", "standardized", "p_value"), float("nan"))
    kept = np.abs(differences[differences != 0])
    is_tied = n <= _N_ENUMERATED and (len(kept) < n or len(np.unique(kept)) < n)
    # with few pairs and ties scipy goes through all 2^n signs, which takes a second for each column
    result = stats.wilcoxon(differences, method="asymptotic" if is_tied else "auto")
    walsh = np.sort(((differences[:, None] + differences[None, :]) / 2)[np.triu_indices(n)])
    low, high = _walsh_interval(walsh, n, level=level)
    signed = signed_ranks(differences[:, None])[:, 0]
    return {
        "statistic": float(result.statistic),
        "effect": float(np.median(walsh)),
        "ci_low": low,
        "ci_high": high,
        "standardized": float(signed.sum() / np.abs(signed).sum()),
        "p_value": _exact_p_value(signed) if is_tied else float(result.pvalue),
    }


def _exact_p_value(signed: np.ndarray) -> float:
    """Two-sided p-value over all 2^n signs of the ranks, shape (pairs,), from the number of subsets of the ranks with each sum."""
    ranks = np.rint(2 * np.abs(signed)).astype(int)  # halves, where ranks tie
    counts = np.ones(1)
    for rank in ranks:
        counts = np.concatenate([counts, np.zeros(rank)]) + np.concatenate([np.zeros(rank), counts])
    observed = ranks[signed > 0].sum()
    tails = counts[: observed + 1].sum(), counts[observed:].sum()
    return float(min(1.0, 2 * min(tails) / counts.sum()))


def signed_ranks(differences: np.ndarray) -> np.ndarray:
    """Ranks of the absolute differences with their signs, (pairs, m); zeros have none."""
    size = np.where(differences == 0, np.nan, np.abs(differences))
    return np.nan_to_num(np.sign(differences) * stats.rankdata(size, axis=0, nan_policy="omit"))


def _walsh_interval(walsh: np.ndarray, n: int, *, level: float) -> tuple[float, float]:
    """Ends of the interval that the signed-rank test does not reject, from the sorted means of all pairs."""
    if n <= 50:
        counts = np.ones(1)
        for rank in range(1, n + 1):  # number of subsets of the ranks with each sum
            counts = np.concatenate([counts, np.zeros(rank)]) + np.concatenate([np.zeros(rank), counts])
        below = np.cumsum(counts) / 2.0**n
        k = int(np.searchsorted(below, (1 - level) / 2, side="right"))
    else:
        mean, sd = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        k = int(np.floor(mean - stats.norm.ppf(0.5 + level / 2) * sd))
    return (float("-inf"), float("inf")) if k == 0 else (float(walsh[k - 1]), float(walsh[-k]))
