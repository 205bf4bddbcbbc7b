"""How sure a mean over folds is: intervals, paired differences and corrections, each with its formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

INTERVALS = ("corrected", "t", "bootstrap")


def t_interval(values: np.ndarray, *, level: float = 0.95, test_train_ratio: float = 0.0) -> tuple[float, float]:
    """Confidence interval of a mean: ``mean +- t(n - 1) * sd * sqrt(1 / n + test_train_ratio)``, with ``sd`` at ddof=1.

    Parameters
    ----------
    values
        One value per fold, shape (n,). Missing values are left out.
    level
        Confidence level, between 0 and 1.
    test_train_ratio
        Size of the test part over that of the training part. Zero gives the textbook interval, which takes the folds as
        independent and is too narrow, because training parts overlap. The ratio adds the variance of Nadeau and Bengio
        (2003), used for repeated cross-validation by Bouckaert and Frank (2004).

    Returns
    -------
    Lower and upper end; NaN for fewer than two values.
    """
    values = _present(values)
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) * np.sqrt(1 / n + test_train_ratio)
    return float(values.mean() - half), float(values.mean() + half)


def paired_difference(
    values: np.ndarray, baseline: np.ndarray, *, level: float = 0.95, test_train_ratio: float = 0.0
) -> dict[str, float]:
    """Difference of two representations scored on the same folds.

    Parameters
    ----------
    values, baseline
        One value per fold, shape (n,), same folds. A fold where either is missing is left out of both.
    level, test_train_ratio
        As in :func:`t_interval`.

    Returns
    -------
    ``difference`` (values - baseline), ``sd``, ``ci_low``, ``ci_high``, ``p_value`` (two-sided paired t-test with the same
    variance as the interval) and ``n``. Where all differences are equal, the p-value is 1 if they are zero, NaN otherwise:
    no variance, no test.
    """
    d = _present(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float))
    n = len(d)
    low, high = t_interval(d, level=level, test_train_ratio=test_train_ratio)
    mean, sd = (float(d.mean()) if n else np.nan), (float(d.std(ddof=1)) if n > 1 else np.nan)
    if n < 2:
        p = np.nan
    elif sd <= 1e-12 * max(1.0, abs(mean)):
        p = 1.0 if abs(mean) <= 1e-12 else np.nan
    else:
        p = float(2 * stats.t.sf(abs(mean) / (sd * np.sqrt(1 / n + test_train_ratio)), n - 1))
    return {"difference": mean, "sd": sd, "ci_low": low, "ci_high": high, "p_value": p, "n": n}


def bootstrap_draws(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: np.ndarray,
    *,
    n_resamples: int = 500,
    rng: np.random.Generator | int | None = 0,
) -> np.ndarray:
    """Statistics of samples redrawn with replacement, whole groups at a time.

    Parameters
    ----------
    statistic
        Takes positions (with repetitions) and returns numbers of shape (n_statistics,).
    groups
        Group code of each position, shape (n,).
    n_resamples
        Number of draws.
    rng
        Seed or generator.

    Returns
    -------
    Shape (n_resamples, n_statistics).
    """
    rng = np.random.default_rng(rng)
    unique, codes = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(codes == g) for g in range(len(unique))]
    drawn = rng.integers(len(unique), size=(n_resamples, len(unique)))
    return np.stack([np.atleast_1d(statistic(np.concatenate([members[g] for g in row]))) for row in drawn])


def percentile_interval(draws: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper percentile of draws, shape (n,); missing draws are left out; NaN for fewer than two."""
    draws = _present(draws)
    if len(draws) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted to control the false discovery rate; missing ones stay missing and do not count."""
    p = np.asarray(p_values, dtype=float)
    out = np.full(p.shape, np.nan)
    is_present = ~np.isnan(p)
    if is_present.any():
        out[is_present] = stats.false_discovery_control(p[is_present], method="bh")
    return out


def _present(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[~np.isnan(values)]
