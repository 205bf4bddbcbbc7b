"""How a score grows with the number of labelled samples (scSet Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from scset_tools._numbers import checks_numbers
from scset_tools.tl._estimators import Probe, choose_probe
from scset_tools.tl._probe import check_kind_metric, fit_fold, fold_table, read_input
from scset_tools.tl._result import metrics_of
from scset_tools.tl._splits import Fold, make_folds, read_groups, seed_of, usable_cv
from scset_tools.tl._targets import Target, read_target

if TYPE_CHECKING:
    from anndata import AnnData


@checks_numbers
def learning_curve(
    samples: AnnData,
    label_key: str,
    *,
    sizes: Sequence[int] = (25, 50, 100),
    n_subsamples: int = 5,
    use_rep: str | None = None,
    obsp_key: str | None = None,
    probe: Probe = "auto",
    groups_key: str | None = None,
    cv: int = 5,
    tune: bool = True,
    target: Literal["auto", "class", "ordinal", "continuous", "time_to_event"] = "auto",
    event_key: str | None = None,
    metric: str | None = None,
    rng: np.random.Generator | int | None = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Train on 25, 50, 100 samples; test on the same held-out samples each time.

    The folds are those of the first repeat of :func:`probe`. From the training part of each, ``n_subsamples`` stratified
    subsets are drawn per size; those of one subsample are nested (the 25 are among the 50). A group is never on both
    sides of a fold, but may be cut by the size of a subset.

    Parameters
    ----------
    samples, label_key, use_rep, obsp_key, probe, groups_key, cv, tune, target, event_key
        As in :func:`probe`.
    sizes
        Numbers of training samples.
    n_subsamples
        Subsets per size and fold.
    metric
        Metric to repeat as ``score``. Default: balanced accuracy, mean absolute error, or concordance.
    rng
        Seed or generator.
    n_jobs
        Number of processes. Results do not depend on it.

    Returns
    -------
    One row per size, subsample and fold: ``representation``, ``label``, ``probe``, ``size``, ``subsample``, ``fold``, ``metric``, ``score``, one
    column per metric (NaN where the test part does not define it), ``n_train`` (= ``size``), ``n_test``, ``is_tuned``, ``params``. It is
    what ``pl.learning_curve`` draws.

    Raises
    ------
    ValueError
        As in :func:`probe`; if a size exceeds the smallest training part, or is too small to hold two classes.
    """
    labels = read_target(samples, label_key, target=target, event_key=event_key)
    probe = choose_probe(probe, kind=labels.kind, label_key=label_key, is_distance=obsp_key is not None)
    metric = check_kind_metric(metric, labels.kind)
    x, name = read_input(samples, labels, use_rep=use_rep, obsp_key=obsp_key)
    groups = read_groups(samples, groups_key, labels.rows)
    cv = usable_cv(labels, groups, cv)
    seed = seed_of(rng)
    folds = make_folds(labels.strata(cv), groups, cv=cv, n_repeats=1, seed=seed)
    sizes = sorted({int(size) for size in sizes})
    _check_sizes(sizes, folds)
    cut = [
        Fold(subsample, fold.fold, subset, fold.test)
        for fold in folds
        for subsample in range(n_subsamples)
        for subset in _nested(
            labels,
            fold.train[np.argsort(groups[fold.train], kind="stable")],
            sizes,
            np.random.default_rng((seed, fold.fold, subsample)),
        )
    ]
    for part in cut:
        _check_fits(labels.take(part.train))
    run = {"x": x, "groups": groups, "probe": probe, "tune": tune, "is_distance": obsp_key is not None, "seed": seed}
    fitted = Parallel(n_jobs=n_jobs)(delayed(fit_fold)(labels, part, **run) for part in cut)
    table = fold_table(labels, cut, fitted).rename(columns={"repeat": "subsample"})
    table = table.assign(
        representation=name, label=label_key, probe=probe, size=table["n_train"], metric=metric, score=table[metric]
    )
    head = ["representation", "label", "probe", "size", "subsample", "fold", "metric", "score"]
    table = table[[*head, *metrics_of(table), "n_train", "n_test", "is_tuned", "params"]]
    return table.sort_values(["size", "subsample", "fold"], ignore_index=True)


def _nested(labels: Target, train: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Subsets of ``train``, each within the next, with strata in about the shares of ``train``."""
    strata = labels.take(train).strata(2)
    place = np.empty(len(train))
    for code in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == code))
        # the j-th of m members at (j + u) / m: a prefix of the order has every stratum in its share
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.lexsort((rng.random(len(train)), place))
    return [np.sort(train[order[:size]]) for size in sizes]


def _check_sizes(sizes: Sequence[int], folds: Sequence[Fold]) -> None:
    most = min(len(fold.train) for fold in folds)
    if not sizes or sizes[0] < 2 or sizes[-1] > most:
        msg = (
            f"sizes must be between 2 and {most}, the samples in the smallest training part of {len(folds)} folds, but are "
            f"{list(sizes)}. Pass other sizes, or more folds (cv), which leaves more samples to train on."
        )
        raise ValueError(msg)


def _check_fits(part: Target) -> None:
    if part.is_event is not None:
        is_fit, what = bool(part.is_event.any()), "a seen event"
    else:
        is_fit, what = len(part.levels) > 1, "two different values"
    if not is_fit:
        msg = f"A training subset of {len(part)} samples does not have {what} of {part.key!r}. Pass larger sizes."
        raise ValueError(msg)
