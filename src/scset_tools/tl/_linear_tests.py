"""Tests of a label in a linear model of every column, with covariates, and with a random intercept where donors repeat."""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

from scset_tools.tl._mixed import fit_linear


def basis(x: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span those of ``x`` (n, p), collinear ones once."""
    if not x.shape[1]:
        return x
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u[:, s > 1e-10 * max(s.max(), np.finfo(float).tiny)]


def with_intercept(covariates: np.ndarray) -> np.ndarray:
    """Basis of intercept and covariates (n, c): as many columns as they have dimensions."""
    spread = covariates.std(axis=0)
    scaled = (covariates - covariates.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return np.column_stack([np.full(len(covariates), len(covariates) ** -0.5), basis(scaled)])


def is_separable(label: np.ndarray, covariates: np.ndarray) -> bool:
    """Whether every column of the label (n, q) says something that covariates (n, c) and the intercept do not."""
    reduced = with_intercept(covariates)
    rest = label - reduced @ (reduced.T @ label)
    scale = np.maximum(np.linalg.norm(label - label.mean(axis=0), axis=0), np.finfo(float).tiny)
    return bool(len(label)) and bool(np.linalg.matrix_rank(rest / scale, tol=1e-8) == label.shape[1])


def containment_df(label: np.ndarray, reduced: np.ndarray, groups: np.ndarray) -> int:
    """Degrees of freedom of the label: between groups if it is constant within all of them, within groups otherwise.

    The rule of "containment" (Pinheiro and Bates 2000, section 2.4.2): with ``G`` groups of ``n`` samples, ``G`` less the terms that are
    constant within groups (the intercept among them), or ``n - G`` less those that are not.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = codes.max() + 1

    def varies(x: np.ndarray) -> np.ndarray:
        means = np.zeros((n_groups, x.shape[1]))
        np.add.at(means, codes, x)
        means /= np.bincount(codes)[:, None]
        return np.abs(x - means[codes]).max(axis=0) > 1e-9 * max(1.0, float(np.abs(x).max()))

    # the covariates are a basis, so that the dimension that varies within groups is counted, not its columns
    within = x_within(reduced, codes)
    n_within = int(np.linalg.matrix_rank(within, tol=1e-8)) if within.size else 0
    if varies(label).any():
        return len(codes) - n_groups - n_within - label.shape[1]
    return n_groups - (reduced.shape[1] - n_within) - label.shape[1]


def x_within(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Deviations of ``x`` (n, p) from the means of the groups."""
    sums = np.zeros((codes.max() + 1, x.shape[1]))
    np.add.at(sums, codes, x)
    return x - (sums / np.bincount(codes)[:, None])[codes]


def linear_test(
    y: np.ndarray,
    label: np.ndarray,
    covariates: np.ndarray,
    *,
    groups: np.ndarray | None,
    level: float,
    ratio: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Test of the label in ``y ~ covariates + label``, for each column of ``y`` (n, m) without missing values.

    With one label column Student's t, and the coefficient with its interval; with several Wald's F, and partial eta squared
    with the interval of the noncentral F (Steiger 2004). ``ratio``: as of :func:`fit_linear`.

    Returns
    -------
    ``statistic``, ``df``, ``effect``, ``ci_low``, ``ci_high``, ``standardized`` (coefficient over the residual standard deviation, that
    between groups included; NaN with several columns), ``p_value`` and ``highest`` (0 for the first class, j for the class of column j - 1),
    each of shape (m,). NaN where no degree of freedom is left.
    """
    reduced = with_intercept(covariates)
    n_columns, q = y.shape[1], label.shape[1]
    df = len(y) - reduced.shape[1] - q if groups is None else containment_df(label, reduced, groups)
    missing = np.full(n_columns, np.nan)
    names = ("statistic", "df", "effect", "ci_low", "ci_high", "standardized", "p_value", "highest")
    if df < 1 or len(y) <= reduced.shape[1] + q or not is_separable(label, covariates):
        return dict.fromkeys(names, missing) | {
            "df": np.full(n_columns, float(max(df, 0))),
            "highest": np.zeros(n_columns, int),
        }
    fit = fit_linear(np.column_stack([reduced, label]), y, groups, ratio=ratio)
    highest = np.column_stack([np.zeros(n_columns), fit.coefficients[:, -q:]]).argmax(axis=1)
    beta, covariance = fit.coefficients[:, -q:], fit.covariance[:, -q:, -q:]
    if q == 1:
        error = np.sqrt(covariance[:, 0, 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            t = beta[:, 0] / error
            standardized = beta[:, 0] / np.sqrt(fit.residual_variance * (1 + fit.ratio))
        half = stats.t.ppf(0.5 + level / 2, df) * error
        effect, p_value = beta[:, 0], 2 * stats.t.sf(np.abs(t), df)
        found = (t, np.full(n_columns, float(df)), effect, effect - half, effect + half, standardized, p_value, highest)
        return dict(zip(names, found, strict=True))
    wald = np.einsum("mq,mq->m", beta, np.linalg.solve(covariance, beta[:, :, None])[:, :, 0]) / q
    ends = np.array([eta_interval(f, q, df, level=level) for f in wald]).reshape(-1, 2).T
    eta = q * wald / (q * wald + df)
    found = (wald, np.full(n_columns, float(df)), eta, *ends, missing, stats.f.sf(wald, q, df), highest)
    return dict(zip(names, found, strict=True))


def eta_interval(f: float, q: int, df: int, *, level: float) -> tuple[float, float]:
    """Interval of the partial eta squared in the population, by turning the noncentral F round (Steiger 2004)."""
    if not np.isfinite(f):
        return float("nan"), float("nan")

    def noncentrality(probability: float) -> float:
        if stats.f.cdf(f, q, df) <= probability:
            return 0.0
        top = 10.0 * (f * q + 10)
        return float(optimize.brentq(lambda nc: stats.ncf.cdf(f, q, df, nc) - probability, 1e-9, top))

    low, high = noncentrality(0.5 + level / 2), noncentrality(0.5 - level / 2)
    n = df + q + 1
    return low / (low + n), high / (high + n)
