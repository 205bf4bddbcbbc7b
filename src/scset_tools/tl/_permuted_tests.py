"""P-values of tests of many columns from permuted labels, within blocks and by whole donors where the design says so."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats
from scipy.special import gammaln

from scset_tools import _checks
from scset_tools._permutation import n_rearrangements, permute_labels, smallest_p
from scset_tools.tl._linear_tests import linear_test, with_intercept
from scset_tools.tl._mixed import fit_linear
from scset_tools.tl._paired import signed_ranks


def permute_within(
    codes: np.ndarray, groups: np.ndarray, blocks: np.ndarray, *, rng: np.random.Generator, order: np.ndarray
) -> np.ndarray:
    """As :func:`permute_labels`, apart in each block (n,): positions such that ``labels[positions]`` are permuted ones."""
    out = np.empty(len(codes), dtype=np.int64)
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        out[members] = members[permute_labels(codes[members], groups[members], rng, order=order[members])]
    return out


def require_nested(groups: np.ndarray, blocks: np.ndarray, names: np.ndarray, *, blocks_key: str) -> None:
    """Raise ValueError if a group lies in two blocks: its labels could not be exchanged whole."""
    torn = [g for g in np.unique(groups) if len(np.unique(blocks[groups == g])) > 1]
    if torn:
        culprits = _checks.first(names[np.isin(groups, torn)])
        msg = (
            f"{len(torn)} groups have samples in several blocks of {blocks_key!r} (first samples: {culprits}): labels cannot be exchanged "
            "whole within blocks. Leave blocks_key out, or pass it as a covariate."
        )
        raise ValueError(msg)


def warn_of_few(
    codes: np.ndarray, groups: np.ndarray, blocks: np.ndarray, *, n_permutations: int, label_key: str
) -> None:
    """Warn with the smallest p-value that can be reached, if so many permutations promise a smaller one."""
    parts = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
    n_ways = float(np.prod([n_rearrangements(codes[m], groups[m]) for m in parts]))
    p = 1 / n_ways if len(parts) > 1 else smallest_p(codes, groups, is_class=True)
    _warn(p, n_permutations, f"The labels {label_key!r} can be arranged in {n_ways:.0f} ways only")


def warn_of_few_groupings(groups: np.ndarray, of_size: np.ndarray, n_permutations: int, *, replicate_key: str) -> None:
    """As :func:`warn_of_few`, for replicates: the ways to divide samples into groups (-1: none) of the sizes ``of_size`` (n,)."""
    log_n = gammaln(len(groups) + 1) - gammaln((groups < 0).sum() + 1)
    for size in np.unique(of_size[of_size > 0]):
        n_groups = (of_size == size).sum() // size
        log_n -= n_groups * gammaln(size + 1) + gammaln(n_groups + 1)
    n_ways = round(float(np.exp(min(log_n, 40.0))))
    if n_permutations:
        what = f"The replicates {replicate_key!r} of {len(groups)} samples can be grouped in {n_ways} ways only"
        _warn(1 / n_ways, n_permutations, what)


def _warn(p: float, n_permutations: int, what: str) -> None:
    if p > 1 / (1 + n_permutations):
        warnings.warn(
            f"{what}: no p-value below {p:.2g} can be reached, however many permutations are made ({n_permutations} were asked for).",
            UserWarning,
            stacklevel=6,
        )


def rank_p_values(
    x: np.ndarray,
    y: np.ndarray,
    *,
    is_class: bool,
    order: np.ndarray,
    blocks: np.ndarray,
    n_permutations: int,
    seed: int,
) -> np.ndarray:
    """Of the rank-sum, Kruskal-Wallis (``is_class``) or Spearman test of every column of ``x`` (n, m), two-sided, (m,).

    ``order`` (n,) numbers the samples by name, so that the order of rows means nothing.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(y, return_inverse=True)[1]
    positions = np.stack([permute_within(codes, order, blocks, rng=rng, order=order) for _ in range(n_permutations)])
    ranks = stats.rankdata(x, axis=0)
    ranks -= ranks.mean(axis=0)
    if not is_class:
        given = stats.rankdata(y) - (len(y) + 1) / 2
        return _share(np.abs(given @ ranks), np.abs(given[positions] @ ranks))
    sizes = np.bincount(codes)

    def h(labels: np.ndarray) -> np.ndarray:
        return sum((((labels == c).astype(float) @ ranks) ** 2) / size for c, size in enumerate(sizes))

    return _share(h(codes[None])[0], h(codes[positions]))


def linear_p_values(
    y: np.ndarray,
    label: np.ndarray,
    covariates: np.ndarray,
    *,
    order: np.ndarray,
    groups: np.ndarray | None,
    blocks: np.ndarray,
    n_permutations: int,
    seed: int,
) -> np.ndarray:
    """Of :func:`linear_test`, for every column of ``y`` (n, m).

    Without groups by Freedman and Lane (1983): residuals of the model without the label are permuted. With groups donors exchange
    their labels whole, covariates stay where they are; the variance between donors is that of the model without the label, the same for
    all permutations.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(label, axis=0, return_inverse=True)[1].ravel()
    null = []
    reduced = with_intercept(covariates)
    expected = reduced @ (reduced.T @ y)
    ratio = None if groups is None else fit_linear(reduced, y, groups).ratio
    observed = np.abs(linear_test(y, label, covariates, groups=groups, level=0.95, ratio=ratio)["statistic"])
    for _ in range(n_permutations):
        if groups is None:  # positions of samples, whatever their labels
            moved = permute_within(order, order, blocks, rng=rng, order=order)
            null.append(
                linear_test(expected + (y - expected)[moved], label, covariates, groups=None, level=0.95)["statistic"]
            )
        else:
            moved = permute_within(codes, groups, blocks, rng=rng, order=order)
            found = linear_test(y, label[moved], covariates, groups=groups, level=0.95, ratio=ratio)
            null.append(found["statistic"])
    return _share(observed, np.abs(np.stack(null)))


def paired_p_values(differences: np.ndarray, *, n_permutations: int, seed: int) -> np.ndarray:
    """Of the signed-rank test of every column (pairs, m) without missing values: the classes trade places within pairs."""
    n = len(differences)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations, n))
    ranks = signed_ranks(differences)
    return _share(np.abs(ranks.sum(axis=0)), np.abs(signs @ ranks))


def warn_of_few_pairs(n_pairs: int, n_permutations: int) -> None:
    """As :func:`warn_of_few`, for classes that trade places within pairs."""
    _warn(2.0 ** (1 - n_pairs), n_permutations, f"{n_pairs} pairs can trade places in {2.0**n_pairs:.0f} ways only")


def _share(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """``(1 + permuted at least as large) / (1 + permutations)``, (m,); undefined permutations count as as large."""
    tolerance = 1e-9 * np.maximum(1.0, np.abs(observed))
    p = (1 + (~(null < observed - tolerance)).sum(axis=0)) / (1 + len(null))
    return np.where(np.isnan(observed), np.nan, p)
