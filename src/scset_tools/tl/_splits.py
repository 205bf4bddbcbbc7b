"""Repeated, stratified folds of samples that never cut a group (donor, study)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from scset_tools import _checks
from scset_tools._labels import name_of

if TYPE_CHECKING:
    from anndata import AnnData

    from scset_tools.tl._targets import Target

_N_ORDERS = 4
"""Random orders of the groups of which the most even assignment is kept; more would make repeats alike."""


@dataclass(frozen=True)
class Fold:
    """One split. ``train`` and ``test`` are positions among the labelled samples, ascending."""

    repeat: int
    fold: int
    train: np.ndarray
    test: np.ndarray


def seed_of(rng: np.random.Generator | int | None) -> int:
    """One integer that everything random in a call derives from, so that order and workers do not matter."""
    return int(np.random.default_rng(rng).integers(2**31))


def read_groups(samples: AnnData, groups_key: str | None, rows: np.ndarray) -> np.ndarray:
    """Group codes of the given rows, shape (len(rows),); every sample its own group without a key.

    Numbered by name: what is drawn by number does not depend on the order of the rows.

    Raises ValueError if the group of one of these samples is missing.
    """
    if groups_key is None:
        return _ranks([str(name) for name in samples.obs_names[rows]])
    column = _checks.require_obs(samples, groups_key).iloc[rows]
    is_missing = column.isna().to_numpy()
    if is_missing.any():
        msg = (
            f"obs[{groups_key!r}] is missing for {is_missing.sum()} of {len(rows)} labelled samples "
            f"(first: {_checks.first(column.index[is_missing])}). Give them a group, or leave them out."
        )
        raise ValueError(msg)
    codes, values = pd.factorize(column.astype(object))
    return _ranks([name_of(v) for v in values])[codes]


def _ranks(names: list[str]) -> np.ndarray:
    """Place of each name in the order of all, equal ones as they come, (n,), int64."""
    out = np.empty(len(names), dtype=np.int64)
    out[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(len(names))
    return out


def usable_cv(target: Target, groups: np.ndarray, cv: int) -> int:
    """The number of folds that the labels allow.

    ``cv`` is lowered, with a warning, to the number of groups, and to the number of groups of the rarest class (or of groups with
    an event), so that every test part can have every class; not for leave-one-group-out, where none can. A class that occurs in
    one group only is named in a warning and does not lower ``cv``: whenever it is tested, the training part has none of it.

    Raises
    ------
    ValueError
        If ``cv`` is below 2, if there is one group, if fewer than two classes occur in two groups or more, or if events were
        seen in one group only.
    """
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        msg = f"All {len(target)} labelled samples of samples.obs[{target.key!r}] are in one group: nothing can be held out."
        raise ValueError(msg)
    if target.is_event is not None:
        n_rarest, why = _groups_with_events(target, groups)
    elif target.kind == "class":
        n_rarest, why = _groups_of_rarest(target, groups)
    else:
        n_rarest, why = n_groups, ""
    if cv == n_groups or cv <= n_rarest:
        return cv
    if n_rarest >= n_groups:
        why = f"there are {n_groups} groups of {len(target)} labelled samples of samples.obs[{target.key!r}]"
    lowered = min(n_rarest, n_groups)
    warnings.warn(f"cv is lowered from {cv} to {lowered}, because {why}.", UserWarning, stacklevel=3)
    return lowered


def _groups_with_events(target: Target, groups: np.ndarray) -> tuple[int, str]:
    is_event = np.asarray(target.is_event)
    n = len(np.unique(groups[is_event]))
    events = f"the {int(is_event.sum())} seen events of samples.obs[{target.key!r}]"
    if n < 2:
        msg = (
            f"All of {events} are in one group: with it held out there is no event to learn from. Choose other groups, or follow "
            "the samples for longer."
        )
        raise ValueError(msg)
    return n, f"{events} are in {n} groups"


def _groups_of_rarest(target: Target, groups: np.ndarray) -> tuple[int, str]:
    names, codes = np.array(target.classes), target.values
    n_groups_of = np.array([len(np.unique(groups[codes == c])) for c in range(len(names))])
    is_alone = n_groups_of < 2
    if (~is_alone).sum() < 2:
        spread = dict(zip(names.tolist(), n_groups_of.tolist(), strict=True))
        msg = (
            f"Fewer than two classes of samples.obs[{target.key!r}] occur in two groups or more (groups of each: {spread}): the label "
            "cannot be told from the group. Merge classes, or choose other groups."
        )
        raise ValueError(msg)
    if is_alone.any():
        warnings.warn(
            f"{is_alone.sum()} classes of samples.obs[{target.key!r}] occur in one group only: {_checks.first(names[is_alone].tolist())}. They are "
            "kept, but when they are tested no training sample has them, so that they count as errors. "
            "Leave them out or merge them to score the other classes alone.",
            UserWarning,
            stacklevel=4,
        )
    rarest = names[~is_alone][n_groups_of[~is_alone].argmin()]
    n = int(n_groups_of[~is_alone].min())
    return n, f"{str(rarest)!r} of {target.key!r} occurs in {n} groups only"


def make_folds(strata: np.ndarray, groups: np.ndarray, *, cv: int, n_repeats: int, seed: int) -> list[Fold]:
    """Repeated stratified folds that keep groups whole.

    With as many folds as groups there is one way to split (each group left out once), so that one repeat is returned.

    Parameters
    ----------
    strata
        Codes that every fold should have in equal shares, shape (n,).
    groups
        Group codes, shape (n,).
    cv
        Number of folds, at most the number of groups.
    n_repeats
        Number of times all samples are split anew.
    seed
        Seed; the folds depend on it, ``strata`` and ``groups`` alone.

    Returns
    -------
    ``cv * n_repeats`` folds (or ``cv``). In each repeat every sample is tested once.
    """
    unique, codes = np.unique(groups, return_inverse=True)
    if cv == len(unique):
        return [Fold(0, k, np.flatnonzero(codes != k), np.flatnonzero(codes == k)) for k in range(cv)]
    folds = []
    for repeat in range(n_repeats):
        rng = np.random.default_rng((seed, repeat))
        if len(unique) == len(groups):
            fold_of = _assign_samples(strata[np.argsort(codes)], cv, rng)[codes]  # in the order of their numbers
        else:
            fold_of = _assign_groups(strata, codes, cv, rng)[codes]
        folds += [Fold(repeat, k, np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(cv)]
    return folds


def _assign_samples(strata: np.ndarray, cv: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each sample, by scikit-learn's stratified folds."""
    splitter = StratifiedKFold(n_splits=cv, shuffle=True, random_state=int(rng.integers(2**31)))
    fold_of = np.empty(len(strata), dtype=np.int64)
    with warnings.catch_warnings():
        # a class with fewer members than folds has been reported by usable_cv, in our words
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for k, (_, test) in enumerate(splitter.split(np.zeros(len(strata)), strata)):
            fold_of[test] = k
    return fold_of


def _assign_groups(strata: np.ndarray, groups: np.ndarray, cv: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each group: in random order, each to the fold that has least of what the group brings.

    scikit-learn's StratifiedGroupKFold places groups in the order of their label counts and shuffles ties only, so that
    its repeats are often the same split again, and intervals over them too narrow. Here every repeat takes another order;
    of a few orders the one with the most even folds is kept.
    """
    codes = np.unique(strata, return_inverse=True)[1]
    counts = np.zeros((groups.max() + 1, codes.max() + 1))  # (groups, strata)
    np.add.at(counts, (groups, codes), 1)
    weights = 1 / counts.sum(axis=0) ** 2
    best, best_cost = np.zeros(len(counts), dtype=np.int64), np.inf
    for _ in range(_N_ORDERS):
        filled, fold_of = np.zeros((cv, counts.shape[1])), np.empty(len(counts), dtype=np.int64)
        for g in rng.permutation(len(counts)):
            overlap = filled @ (counts[g] * weights)
            # equal overlap: the smaller fold, so that no fold stays empty
            k = np.lexsort((rng.random(cv), filled.sum(axis=1), overlap))[0]
            fold_of[g] = k
            filled[k] += counts[g]
        cost = float((filled**2 @ weights).sum())
        if cost < best_cost - 1e-12:
            best, best_cost = fold_of, cost
    return best
