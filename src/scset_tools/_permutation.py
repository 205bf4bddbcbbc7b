"""Labels under the null hypothesis: which rearrangements a design allows, a draw of them, and the smallest p-value they can give."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from itertools import permutations

import numpy as np
import pandas as pd


def permute_labels(
    codes: np.ndarray, groups: np.ndarray, rng: np.random.Generator, *, order: np.ndarray | None = None
) -> np.ndarray:
    """Positions ``p`` such that ``labels[p]`` are labels under the null hypothesis that they say nothing about the samples.

    Groups (donors) exchange their labels whole: each takes over the make-up of another one and spreads it over its own
    samples at random. Where the sizes differ, as many of each label are taken as come nearest to the other group's shares, so that a
    group of one label stays one, a mixed one mixed, and a paired design keeps its pairs. Samples of one group are no
    independent evidence and are never exchanged with those of another one by one.

    Parameters
    ----------
    codes
        Label codes, shape (n,): only their order and which are equal matter.
    groups
        Group codes, shape (n,).
    rng
        Generator.
    order
        Rank of each sample by name, shape (n,), so that the order of the rows means nothing among samples of one group and label.

    Returns
    -------
    Shape (n,), int64. With groups of unequal sizes a position may occur several times, or never.
    """
    members = _members(codes, groups, order)
    out = np.empty(len(codes), dtype=np.int64)
    if len(members) == len(codes):
        one = np.concatenate(members)
        out[one] = rng.permutation(one)
        return out
    for to, source in zip(members, rng.permutation(len(members)), strict=True):
        given = members[source]  # by label
        if len(given) == len(to):
            out[to] = rng.permutation(given)
        else:  # every n-th of the sorted labels, from a random start: their shares up to one sample
            steps = (np.arange(len(to)) + rng.random()) * len(given) / len(to)
            out[to] = rng.permutation(given[np.minimum(steps.astype(np.int64), len(given) - 1)])
    return out


def n_rearrangements(codes: np.ndarray, groups: np.ndarray) -> float:
    """Number of different labelings that :func:`permute_labels` draws from; at most 1e18.

    Where groups differ in size *and* have mixed labels, rounding adds some that are not counted.
    """
    members, make_up = _make_up(codes, groups)
    kinds = pd.Series(list(map(tuple, make_up))).value_counts()
    log_n = math.lgamma(len(members) + 1) - sum(math.lgamma(k + 1) for k in kinds)
    for m, shares in zip(members, make_up, strict=True):
        log_n += math.lgamma(len(m) + 1) - sum(math.lgamma(k + 1) for k in np.rint(shares * len(m)))
    return float(round(math.exp(min(log_n, math.log(1e18)))))


def smallest_p(codes: np.ndarray, groups: np.ndarray, *, is_class: bool) -> float:
    """The smallest p-value that permutations can give, were all labelings tried.

    Classes that trade places without changing how many groups are made up alike (two classes with as many donors each) make
    labelings that no classifier can tell from the true one: they count as often.
    """
    n_alike = 1
    make_up = _make_up(codes, groups)[1]
    if is_class and make_up.shape[1] <= 6:
        true = Counter(map(tuple, make_up))
        n_alike = sum(
            Counter(map(tuple, make_up[:, order])) == true for order in map(list, permutations(range(make_up.shape[1])))
        )
    return min(1.0, n_alike / n_rearrangements(codes, groups))


def warn_of_few_rearrangements(
    codes: np.ndarray, groups: np.ndarray, n_permutations: int, *, label_key: str, is_class: bool
) -> None:
    """Warn with the smallest p-value that can be reached, if so many permutations promise a smaller one."""
    p = smallest_p(codes, groups, is_class=is_class) if n_permutations else 0.0
    if p > 1 / (1 + n_permutations):
        n_groups = len(np.unique(groups))
        unit = "samples" if n_groups == len(codes) else f"groups of {len(codes)} samples"
        warnings.warn(
            f"The labels {label_key!r} of {n_groups} {unit} can be arranged in {n_rearrangements(codes, groups):.0f} ways only: "
            f"no p-value below {p:.2g} can be reached, however many permutations are made ({n_permutations} were asked for).",
            UserWarning,
            stacklevel=3,
        )


def _make_up(codes: np.ndarray, groups: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Positions of each group, and its share of each label, (groups, labels)."""
    codes = pd.factorize(np.asarray(codes))[0]
    members = _members(codes, groups)
    return members, np.stack([np.bincount(codes[m], minlength=codes.max() + 1) / len(m) for m in members])


def _members(codes: np.ndarray, groups: np.ndarray, order: np.ndarray | None = None) -> list[np.ndarray]:
    """Positions of each group, by label, then by ``order``; groups by their code."""
    group_codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    rows = np.lexsort((np.arange(len(group_codes)) if order is None else order, codes, group_codes))
    return np.split(rows, np.flatnonzero(np.diff(group_codes[rows])) + 1)
