"""How well does a representation predict a label? Nested, grouped cross-validation with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn import config_context
from threadpoolctl import threadpool_limits

from scset_tools._metrics import LOWER_IS_BETTER, METRICS, PRIMARY
from scset_tools._numbers import checks_numbers
from scset_tools._permutation import permute_labels, warn_of_few_rearrangements
from scset_tools.tl._designs import read_covariates
from scset_tools.tl._estimators import (
    N_INNER_FOLDS,
    PROBES,
    Grid,
    Prediction,
    Probe,
    check_grid,
    choose_probe,
    fit_predict,
    inner_folds,
    score,
)
from scset_tools.tl._fast_logistic import is_fast, predict_logistic
from scset_tools.tl._hold_out import hold_out, strata_of
from scset_tools.tl._probe_result import SCORE, ProbeResult
from scset_tools.tl._representation import get_distances, get_representation
from scset_tools.tl._splits import Fold, make_folds, read_groups, seed_of, usable_cv
from scset_tools.tl._targets import Target, read_target

if TYPE_CHECKING:
    from anndata import AnnData


@checks_numbers
def probe(
    samples: AnnData,
    label_key: str,
    *,
    use_rep: str | None = None,
    probe: Probe = "auto",
    groups_key: str | None = None,
    strata_keys: Sequence[str] | str | None = None,
    test_groups: Sequence[Any] | None = None,
    cv: int = 5,
    n_repeats: int = 5,
    tune: bool = True,
    inner_cv: int = N_INNER_FOLDS,
    grid: Mapping[str, Sequence[Any]] | None = None,
    target: Literal["auto", "class", "ordinal", "continuous", "time_to_event"] = "auto",
    event_key: str | None = None,
    obsp_key: str | None = None,
    covariates: Sequence[str] | str | None = None,
    metric: str | None = None,
    n_permutations: int = 0,
    rng: np.random.Generator | int | None = 0,
    n_jobs: int = 1,
) -> ProbeResult:
    """Predict a label of the samples from their representation, by nested cross-validation.

    Scaling, tuning and fitting see the training part of a fold alone; tuning uses inner folds that keep groups
    whole as well.

    Parameters
    ----------
    samples
        Sample-level AnnData: one row per sample, whoever wrote it.
    label_key
        Column of ``samples.obs``. Samples without a label are left out and counted in the result.
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    probe
        ``"auto"``: ``"logistic"`` for classes and ordinal labels, ``"ridge"`` for continuous ones, ``"cox"`` for times to an event, and ``"knn"`` on
        distances; ``result.probe`` says which was taken. By name: ``"logistic"`` (class, ordinal), ``"ridge"``, ``"mlp"`` (one hidden layer of 32), ``"knn"``, ``"svc"`` (Gaussian kernel; all four:
        class, ordinal, continuous) or ``"cox"`` (time-to-event, ridge penalty).
    groups_key
        Column of ``samples.obs`` with the donor or study. A group is never cut by a split, inner ones included.
    strata_keys
        Columns of ``samples.obs``, such as the time point, whose values folds have in equal shares beside those of the label, as far as groups allow.
        Rows may be cells (``tl.probe(cells, "cell_type", use_rep=..., groups_key="donor", strata_keys="time")``). Not with ``n_permutations``.
    test_groups
        Groups (studies) to test on, instead of cross-validation: all others are trained on, once. There is then one fold; the interval of
        ``summary(interval="bootstrap")`` is over samples of the tested groups, and says nothing of other groups. Not with ``n_permutations``.
    cv
        Number of folds, stratified by the label. Lowered with a warning where there are fewer groups, or where a class, or events,
        occur in fewer. As many as there are groups: leave-one-group-out, for which there is one repeat.
    n_repeats
        Number of times the samples are split anew.
    tune
        Choose hyperparameters by inner folds: balanced accuracy for classes, mean absolute error for numbers,
        concordance for times. Otherwise scikit-learn's defaults, or ours where those presume large data.
    inner_cv
        Number of inner folds.
    grid
        Values to choose from, by hyperparameter, instead of our own: ``{"C": 10.0 ** np.arange(-2, 7)}``, with ``inner_cv=5``, is how scSet
        tunes its logistic regression. ``C`` of ``"logistic"`` and ``"svc"``, ``alpha`` of ``"ridge"``, ``"mlp"`` and ``"cox"``, ``n_neighbors`` of
        ``"knn"``. Of equally good values the one with the stronger penalty is taken.
    target
        Kind of the label; ``"auto"`` takes an ordered category as ordinal, numbers with more than two values as continuous,
        the rest as class (as ``setup_anndata`` does), and a label with an ``event_key`` as time-to-event. Ordinal labels are predicted as numbers (the
        expected level for ``"logistic"``).
    event_key
        Column of ``samples.obs``: True or 1 where the event was seen, False or 0 where the sample was censored.
    obsp_key
        Key of ``samples.obsp``: evaluate a distance matrix, with ``"knn"``, or with ``"svc"`` (kernel ``exp(-(d / m)^2)``, ``m`` the median
        distance within the training part). Not with ``use_rep``.
    metric
        Metric of the permutation test. Default: balanced accuracy, mean absolute error, or concordance.
    covariates
        Columns of ``samples.obs`` that are known anyway, such as age: they are read beside the representation, and alone on the
        same folds, so that ``result.added()`` says what the representation adds. Not with ``obsp_key`` or ``n_permutations``.
    n_permutations
        Number of permuted labels, for a p-value; each runs all folds of one repeat, tuning included, and is compared with
        the first repeat. Groups exchange their labels whole, whatever their sizes, and shuffle them within. Where there are too
        few ways to do so, a warning names the smallest p-value that can be reached.
    rng
        Seed or generator.
    n_jobs
        Number of processes. Results do not depend on it.

    Returns
    -------
    Folds, out-of-fold predictions and p-value; see :class:`ProbeResult`.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If the representation has missing values, the label is missing or constant, nothing can be held out, or the probe does
        not fit the label or the input.

    Examples
    --------
    >>> import scset_tools as sst
    >>> cells = sst.datasets.composition_cohort(n_samples=12, n_cells=40)
    >>> samples = sst.profiles.mean(cells, sample_key="sample")
    >>> result = sst.tl.probe(samples, "subtype", groups_key="donor", cv=3, n_repeats=1, tune=False)
    >>> len(result.folds)
    3
    """
    labels = read_target(samples, label_key, target=target, event_key=event_key)
    probe = choose_probe(probe, kind=labels.kind, label_key=label_key, is_distance=obsp_key is not None)
    metric = check_kind_metric(metric, labels.kind)
    x, name = read_input(samples, labels, use_rep=use_rep, obsp_key=obsp_key)
    covariates = [covariates] if isinstance(covariates, str) else list(covariates or ())
    known = None
    if covariates:
        used: dict[str, Any] = {
            "label_key": label_key,
            "event_key": event_key,
            "obsp_key": obsp_key,
            "n_permutations": n_permutations,
        }
        known = read_covariates(samples, labels, covariates, **used)
        x, name = np.column_stack([x, known]), f"{name} + {' + '.join(covariates)}"
    groups = read_groups(samples, groups_key, labels.rows)
    if strata_keys and (n_permutations or test_groups is not None):
        msg = f"strata_keys={strata_keys!r} make the folds of a cross-validation even: leave n_permutations and test_groups out."
        raise ValueError(msg)
    seed = seed_of(rng)
    if test_groups is None:
        cv = usable_cv(labels, groups, cv)
        folds = make_folds(
            strata_of(samples, labels, strata_keys, cv=cv), groups, cv=cv, n_repeats=n_repeats, seed=seed
        )
    else:
        cv, folds = 1, [hold_out(samples, labels, groups_key, test_groups=test_groups, n_permutations=n_permutations)]
    require_events(labels, folds)
    options = check_grid(grid, probe=probe, kind=labels.kind, tune=tune)
    run: dict[str, Any] = {"x": x, "groups": groups, "probe": probe, "tune": tune, "is_distance": obsp_key is not None}
    run |= {"inner_cv": inner_cv, "grid": options}
    if known is not None:
        run["n_free"] = known.shape[1]
        alone = run_parallel(
            [delayed(fit_fold)(labels, f, seed=seed, **run | {"x": known}) for f in folds], n_jobs=n_jobs
        )
    fitted = run_parallel([delayed(fit_fold)(labels, f, seed=seed, **run) for f in folds], n_jobs=n_jobs)
    table = fold_table(labels, folds, fitted)
    null = np.zeros(0)
    if n_permutations:
        codes = labels.codes
        warn_of_few_rearrangements(codes, groups, n_permutations, label_key=label_key, is_class=labels.kind == "class")
        rngs = np.random.default_rng((seed, 1)).spawn(n_permutations)
        run["order"] = read_groups(samples, None, labels.rows)
        null = np.array(
            list(
                run_parallel([delayed(_permuted)(labels, g, cv=cv, metric=metric, **run) for g in rngs], n_jobs=n_jobs)
            )
        )
    # of one fold by hand the samples tested are all there is to draw from
    units, judged = (groups, labels) if test_groups is None else (np.arange(len(labels)), labels.take(folds[0].test))
    return ProbeResult(
        folds=table,
        predictions=_prediction_table(samples, labels, units, folds, fitted),
        label_key=label_key,
        target=labels.kind,
        probe=probe,
        representation=name,
        classes=labels.classes,
        n_samples=len(labels),
        n_missing=labels.n_missing,
        n_groups=len(np.unique(groups)),
        cv=cv,
        n_repeats=int(table["repeat"].nunique()),
        metric=metric,
        p_value=_p_value(table.loc[table["repeat"] == 0, metric], null, metric) if n_permutations else None,
        null=null,
        covariates=tuple(covariates),
        covariate_folds=None if known is None else fold_table(labels, folds, alone),
        _labels=judged,
    )


def check_kind_metric(metric: str | None, kind: str) -> str:
    """The metric asked for, or the usual one of this kind of target; ValueError if it has no such metric."""
    if metric is None:
        return PRIMARY[kind]
    if metric not in METRICS[kind]:
        msg = f"metric={metric!r} is not defined for a {kind!r} target. Choose from {METRICS[kind]}."
        raise ValueError(msg)
    return metric


def read_input(
    samples: AnnData, labels: Target, *, use_rep: str | None, obsp_key: str | None
) -> tuple[np.ndarray, str]:
    """Vectors (n, n_features) or distances (n, n) of the labelled samples, and their name.

    Unlabelled samples are left out before anything is checked: their vectors are never used.
    """
    part = samples if len(labels) == samples.n_obs else samples[labels.rows]
    if obsp_key is None:
        return get_representation(part, use_rep), use_rep or "X"
    return get_distances(part, use_rep=use_rep, obsp_key=obsp_key), obsp_key


def run_parallel(tasks: Iterable[Any], *, n_jobs: int) -> list[Any]:
    """Results of joblib tasks, in order."""
    return Parallel(n_jobs=n_jobs)(tasks)


def require_events(labels: Target, folds: list[Fold]) -> None:
    """Raise ValueError if a training part has no seen event to learn from."""
    if labels.is_event is None:
        return
    bare = [fold for fold in folds if not labels.is_event[fold.train].any()]
    if bare:
        msg = (
            f"{len(bare)} of {len(folds)} training parts have none of the {int(labels.is_event.sum())} seen events of "
            f"{labels.key!r}: they are in too few groups. Pass a larger cv, which leaves more groups to train on, or other groups."
        )
        raise ValueError(msg)


def fit_fold(
    labels: Target,
    fold: Fold,
    *,
    x: np.ndarray,
    groups: np.ndarray,
    probe: str,
    tune: bool,
    is_distance: bool,
    seed: int,
    n_free: int = 0,
    inner_cv: int = N_INNER_FOLDS,
    grid: Grid | None = None,
) -> Prediction:
    """Fit and predict one fold. One BLAS thread, so that results are the same bits for any number of processes."""
    # inputs have been checked once; scikit-learn would check them again in each of some twenty fits
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        return fit_predict(
            x,
            labels,
            groups,
            train=fold.train,
            test=fold.test,
            probe=probe,
            tune=tune,
            is_distance=is_distance,
            seed=fold_seed(seed, fold),
            n_free=n_free,
            inner_cv=inner_cv,
            grid=grid,
        )


def fold_table(labels: Target, folds: list[Fold], fitted: list[Prediction]) -> pd.DataFrame:
    """One row per fold: where, how well, how many."""
    rows = []
    for fold, prediction in zip(folds, fitted, strict=True):
        metrics = score(labels.take(fold.test), prediction.values, prediction.scores, levels=labels.levels)
        sizes = {"n_train": len(fold.train), "n_test": len(fold.test)}
        chosen = ", ".join(f"{k}={v:g}" for k, v in prediction.params.items())
        where = {"repeat": fold.repeat, "fold": fold.fold}
        rows.append({**where, **metrics, **sizes, "is_tuned": prediction.is_tuned, "params": chosen})
    return pd.DataFrame(rows)


def _prediction_table(
    samples: AnnData, labels: Target, groups: np.ndarray, folds: list[Fold], fitted: list[Prediction]
) -> pd.DataFrame:
    """Out-of-fold predictions, within a repeat in the order of the samples."""
    names = np.asarray(samples.obs_names.astype(str))[labels.rows]
    classes = np.array(labels.classes, dtype=object)
    parts = []
    for fold, prediction in zip(folds, fitted, strict=True):
        values = classes[prediction.values] if labels.classes else prediction.values
        truth = labels.values[fold.test]
        part = pd.DataFrame(
            {"sample": names[fold.test], "repeat": fold.repeat, "fold": fold.fold, "group": groups[fold.test]}
        )
        part["y_true"], part["y_pred"] = (classes[truth] if labels.classes else truth), values
        if labels.is_event is not None:
            part["is_event"] = labels.is_event[fold.test]
        for column, name in enumerate(labels.classes):
            part[f"{SCORE}{name}"] = prediction.scores[:, column]
        parts.append(part.set_index(fold.test))
    table = pd.concat(parts)
    order = np.lexsort((table.index.to_numpy(), table["repeat"].to_numpy()))
    return table.iloc[order].reset_index(drop=True)


def _permuted(
    labels: Target,
    rng: np.random.Generator,
    *,
    cv: int,
    metric: str,
    groups: np.ndarray,
    order: np.ndarray | None = None,
    **run: object,
) -> float:
    """Mean score of one repeat with permuted labels; folds are stratified by the permuted ones, as those of the true are."""
    positions = permute_labels(labels.codes, groups, rng, order=order)
    event = None if labels.is_event is None else labels.is_event[positions]
    shuffled = Target(
        labels.key, labels.kind, labels.rows, labels.values[positions], event, labels.classes, labels.n_missing
    )
    return score_once(shuffled, groups, cv=cv, metric=metric, seed=int(rng.integers(2**31)), **run)


def score_once(labels: Target, groups: np.ndarray, *, cv: int, metric: str, seed: int, **run: object) -> float:
    """Mean score over the folds of one repeat; ``run``: ``x``, ``probe``, ``tune`` and ``is_distance`` of :func:`fit_fold`."""
    folds = make_folds(labels.strata(cv), groups, cv=cv, n_repeats=1, seed=seed)
    if is_fast(str(run["probe"]), labels, folds, is_distance=bool(run["is_distance"])):
        fitted = _fit_together(labels, folds, groups=groups, seed=seed, **run)  # type: ignore[arg-type]
    else:
        fitted = [fit_fold(labels, f, groups=groups, seed=seed, **run) for f in folds]  # type: ignore[arg-type]
    return float(fold_table(labels, folds, fitted)[metric].mean())


def _fit_together(
    labels: Target,
    folds: list[Fold],
    *,
    x: np.ndarray,
    groups: np.ndarray,
    tune: bool,
    seed: int,
    inner_cv: int = N_INNER_FOLDS,
    grid: Grid | None = None,
    **run: object,
) -> list[Prediction]:
    """What :func:`fit_fold` gives for each fold of a logistic probe of two classes, all solved at once."""
    seeds = [fold_seed(seed, fold) for fold in folds]
    inner = [
        inner_folds(labels.take(f.train), groups[f.train], s, n_folds=inner_cv) if tune else []
        for f, s in zip(folds, seeds, strict=True)
    ]
    probe, own = PROBES["logistic"][0](labels.kind, seed)
    grid = own if grid is None else grid
    with threadpool_limits(1):
        found = predict_logistic(x, labels, folds, inner=inner, grid=grid["C"], default=probe.C)
    return [
        Prediction(values, scores, {"C": c}, bool(splits))
        for (values, scores, c), splits in zip(found, inner, strict=True)
    ]


def fold_seed(seed: int, fold: Fold) -> int:
    """Seed of what is random within a fold."""
    return int(np.random.default_rng((seed, fold.repeat, fold.fold)).integers(2**31))


def _p_value(observed: pd.Series, null: np.ndarray, metric: str) -> float:
    """``(1 + number of permutations at least as good) / (1 + number)``; undefined ones count as as good."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    value = sign * observed.mean()
    if np.isnan(value):
        return float("nan")
    return float((1 + np.sum(~(sign * null < value - 1e-12))) / (1 + len(null)))
