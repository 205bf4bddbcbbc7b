"""How sure a mean over folds is: intervals, paired differences and corrections, each with its formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

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


def bounded_interval(
    values: np.ndarray,
    bounds: tuple[float, float],
    *,
    n_units: float,
    is_ranking: bool = False,
    level: float = 0.95,
    test_train_ratio: float = 0.0,
) -> tuple[float, float]:
    """Confidence interval of a mean that cannot leave the range of the metric.

    Between two bounds, Wilson's interval: with the mean :math:`m` and its variance :math:`v` as in :func:`t_interval`, both in
    units of the range, it is that of a share :math:`m` of :math:`n = m (1 - m) / v` trials, but of no more than ``n_units``,
    which as many samples that are right or wrong can tell. It is never of zero width, also where all folds are perfect. A share of pairs in
    the right order (AUROC) is less sure near chance: there ``is_ranking`` bounds the variance by :func:`ranking_variance`. With one
    bound, ``mean +- t sd`` on the logarithm of the distance to it.

    Parameters
    ----------
    values
        One value per fold, shape (n,). Missing values are left out.
    bounds
        Smallest and largest possible value; infinite where there is none.
    n_units
        Number of independent samples (groups) behind the values.
    is_ranking
        Whether the metric is a share of pairs, from 0 to 1, rather than of samples.
    level, test_train_ratio
        As in :func:`t_interval`.

    Returns
    -------
    Lower and upper end; NaN for fewer than two values.
    """
    values = _present(values)
    n, (lowest, highest) = len(values), bounds
    if n < 2 or not (np.isfinite(lowest) or np.isfinite(highest)):
        return t_interval(values, level=level, test_train_ratio=test_train_ratio)
    t = stats.t.ppf(0.5 + level / 2, n - 1)
    mean, variance = values.mean(), values.var(ddof=1) * (1 / n + test_train_ratio)
    if np.isfinite(lowest) and np.isfinite(highest):
        width = highest - lowest
        m, v = np.clip((mean - lowest) / width, 0, 1), variance / width**2
        if is_ranking:
            low, high = _ranking_interval(m, v, n_units, t)
        else:
            low, high = wilson_interval(m, min(n_units, m * (1 - m) / v) if v > 0 else n_units, t)
        return float(lowest + width * low), float(lowest + width * high)
    distance = mean - lowest if np.isfinite(lowest) else highest - mean
    if distance <= 0:
        return float(mean), float(mean)
    factor = np.exp(t * np.sqrt(variance) / distance)
    near, far = distance / factor, distance * factor
    return (
        (float(lowest + near), float(lowest + far))
        if np.isfinite(lowest)
        else (float(highest - far), float(highest - near))
    )


def wilson_interval(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a share of ``n`` trials, at the quantile ``z``: all shares that the observed one does not contradict."""
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(max(0.0, min(share, center - half))), float(min(1.0, max(share, center + half)))


def ranking_variance(share: float, n: float) -> float:
    """Variance of a cross-validated AUROC whose expectation is ``share``, from ``n`` samples in two classes.

    That of Hanley and McNeil (1982) for classes of ``n / 2``, taken as symmetric about 0.5, times ``1 + 2 share (1 - share)``:
    each sample is tested by what was learned from the others and teaches what tests them, so that where nothing is learned, what a pair
    of samples has in common counts twice. Rank statistics of a linear probe show a factor of about 1.5 to 1.7 at chance, and none far
    from it (``benchmarks/interval_coverage.py``).

    Parameters
    ----------
    share
        Expected AUROC, between 0 and 1.
    n
        Number of independent samples, ``4 / (1 / n_positive + 1 / n_negative)`` where classes are unequal.
    """
    p = max(share, 1 - share)
    both = (p / (2 - p) + 2 * p**2 / (1 + p)) / 2 - p**2  # covariance of two pairs with a sample in common
    alone = p * (1 - p)
    return (1 + 2 * alone) * 4 * (n * both + max(alone - 2 * both, 0.0)) / n**2


def _ranking_interval(share: float, variance: float, n: float, t: float) -> tuple[float, float]:
    """All expected shares of pairs that the observed one does not contradict, at the quantile ``t``."""
    spread = variance / (share * (1 - share)) if 0 < share < 1 else 0.0

    def excess(p: float) -> float:
        return float((share - p) ** 2 - t**2 * max(spread * p * (1 - p), ranking_variance(p, n)))

    within = min(max(share, 1e-9), 1 - 1e-9)  # at 0 and 1 both sides vanish, which is no end
    low = optimize.brentq(excess, 0.0, within) if share > 0 else 0.0
    high = optimize.brentq(excess, within, 1.0) if share < 1 else 1.0
    return float(low), float(high)


def paired_difference(
    values: np.ndarray,
    baseline: np.ndarray,
    *,
    level: float = 0.95,
    test_train_ratio: float = 0.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    n_units: float = np.inf,
) -> dict[str, float]:
    """Difference of two representations scored on the same folds.

    Parameters
    ----------
    values, baseline
        One value per fold, shape (n,), same folds. A fold where either is missing is left out of both.
    level, test_train_ratio
        As in :func:`t_interval`.
    bounds, n_units
        Of the metric, as in :func:`bounded_interval`: no difference is larger than the range, and where all differences are equal
        the interval is as wide as ``n_units`` samples leave it that none of them tells apart (``t^2 / (n + t^2)`` of the range).

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
    width = bounds[1] - bounds[0]
    if n >= 2 and np.isfinite(width):
        t = stats.t.ppf(0.5 + level / 2, n - 1)
        if sd <= 1e-12 * max(1.0, abs(mean)):
            low, high = (mean + sign * width * t**2 / (n_units + t**2) for sign in (-1, 1))
        low, high = float(max(low, -width)), float(min(high, width))
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


def bonferroni(p_values: np.ndarray) -> np.ndarray:
    """P-values times their number, 1 at most; missing ones stay missing and do not count.

    Parameters
    ----------
    p_values
        Shape (n,).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    return np.minimum(p_values * np.isfinite(p_values).sum(), 1.0)


def _present(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[~np.isnan(values)]
