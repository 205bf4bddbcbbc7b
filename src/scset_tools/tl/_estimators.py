"""The probes: one small estimator per name, tuned and scaled on the training part of a fold only.

To add a probe, write a function that returns an estimator and its grid, and enter it in ``PROBES``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from scset_tools import _checks
from scset_tools._metrics import class_metrics, number_metrics, ordinal_metrics, survival_metrics
from scset_tools.tl._knn import FairNeighborsClassifier, FairNeighborsRegressor
from scset_tools.tl._splits import make_folds
from scset_tools.tl._targets import Target

N_INNER_FOLDS = 3
_NUMBERS = ("ordinal", "continuous")
Grid = dict[str, list[Any]]
Probe = Literal["auto", "logistic", "ridge", "mlp", "knn", "svc", "cox"]


@dataclass(frozen=True)
class Prediction:
    """What a fitted probe says about the test part.

    Attributes
    ----------
    values
        Predicted class codes, numbers, or risks (higher: earlier event), shape (n_test,).
    scores
        Probability or decision value of every class, shape (n_test, n_classes); no columns for other kinds.
    params
        The chosen hyperparameters, or those by default.
    is_tuned
        False if tuning was off or impossible: no inner split had what it takes on both sides.
    """

    values: np.ndarray
    scores: np.ndarray
    params: dict[str, Any]
    is_tuned: bool

    def metrics(self, test: Target, levels: np.ndarray) -> dict[str, float]:
        """All metrics of the kind of target; ``levels`` are those of the whole label."""
        return score(test, self.values, self.scores, levels=levels)


def score(target: Target, values: np.ndarray, scores: np.ndarray, *, levels: np.ndarray) -> dict[str, float]:
    """All metrics of the kind of ``target`` for predictions aligned with it."""
    if target.kind == "class":
        return class_metrics(target.values, values.astype(np.int64), scores)
    if target.kind == "ordinal":
        return ordinal_metrics(target.values, values, levels)
    if target.is_event is not None:
        return survival_metrics(target.values, target.is_event, values)
    return number_metrics(target.values, values)


def _logistic(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    return LogisticRegression(max_iter=2000, tol=1e-6), {"C": [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]}


def _ridge(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    grid = {"alpha": [1e4, 1e3, 1e2, 10.0, 1.0, 0.1]}
    return (RidgeClassifier(alpha=10.0) if kind == "class" else Ridge(alpha=10.0)), grid


def _mlp(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    network = MLPClassifier if kind == "class" else MLPRegressor
    # L-BFGS: full batches suit tens to hundreds of samples, and leave no learning rate to tune
    estimator = network(hidden_layer_sizes=(32,), solver="lbfgs", alpha=1.0, max_iter=200, random_state=seed)
    return estimator, {"alpha": [10.0, 1.0, 0.1]}


def _knn(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    neighbors = FairNeighborsClassifier if kind == "class" else FairNeighborsRegressor
    return neighbors(n_neighbors=5), {"n_neighbors": [15, 10, 7, 5, 3, 1]}


def _svc(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    return (SVC() if kind == "class" else SVR()), {"C": [0.1, 1.0, 10.0, 100.0]}


def _cox(kind: str, seed: int) -> tuple[BaseEstimator, Grid]:
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return CoxPHSurvivalAnalysis(alpha=10.0), {"alpha": [1e3, 1e2, 10.0, 1.0]}


PROBES: dict[str, tuple[Callable[[str, int], tuple[BaseEstimator, Grid]], tuple[str, ...]]] = {
    "logistic": (_logistic, ("class", "ordinal")),
    "ridge": (_ridge, ("class", *_NUMBERS)),
    "mlp": (_mlp, ("class", *_NUMBERS)),
    "knn": (_knn, ("class", *_NUMBERS)),
    "svc": (_svc, ("class", *_NUMBERS)),
    "cox": (_cox, ("time_to_event",)),
}
"""Name -> builder (kind, seed) and the kinds of target that it predicts."""

DISTANCE_PROBES = ("knn", "svc")
_AUTO = {"class": "logistic", "ordinal": "logistic", "continuous": "ridge", "time_to_event": "cox"}
"""Kind of target -> linear probe of vectors that ``"auto"`` stands for."""
_ROTATED = ("logistic", "ridge", "cox")


def auto_probe(kind: str, *, is_distance: bool) -> str:
    """The probe that ``"auto"`` stands for: the linear one of vectors; of distances the nearest neighbours, where they predict this kind."""
    return "knn" if is_distance and kind in PROBES["knn"][1] else _AUTO[kind]


def choose_probe(probe: str, *, kind: str, label_key: str, is_distance: bool) -> Probe:
    """The name of the probe, ``"auto"`` resolved; ValueError if it is unknown, or does not fit the target or the input."""
    if probe == "auto":
        probe = auto_probe(kind, is_distance=is_distance)
    if probe not in PROBES:
        msg = f"probe must be one of {('auto', *PROBES)}, not {probe!r}."
        raise ValueError(msg)
    if kind not in PROBES[probe][1]:
        fitting = tuple(name for name, (_, kinds) in PROBES.items() if kind in kinds)
        msg = (
            f"probe={probe!r} predicts {' or '.join(PROBES[probe][1])} targets, but {label_key!r} is read as {kind!r}. "
            f"Pass probe='auto' or one of {fitting}, or another target=."
        )
        raise ValueError(msg)
    if is_distance and probe not in DISTANCE_PROBES:
        on_distances = tuple(p for p in DISTANCE_PROBES if kind in PROBES[p][1])
        way_out = (
            f"on a distance matrix (obsp_key) use one of {on_distances}"
            if on_distances
            else "pass use_rep instead of obsp_key"
        )
        msg = f"probe={probe!r} needs vectors; {way_out}."
        raise ValueError(msg)
    return cast("Probe", probe)


def check_grid(grid: Mapping[str, Sequence[Any]] | None, *, probe: str, kind: str, tune: bool) -> Grid:
    """The values to choose from: the probe's own, some of which may be replaced; ValueError for what it does not have."""
    own = PROBES[probe][0](kind, 0)[1]
    if grid is None:
        return own
    if not tune:
        msg = f"grid={dict(grid)} is what tuning chooses from, but tune=False."
        raise ValueError(msg)
    unknown = [name for name in grid if name not in own]
    if unknown or not all(len(values) for values in grid.values()):
        msg = f"grid={dict(grid)}: probe={probe!r} chooses values of {_checks.first(own)}, at least one of each."
        raise ValueError(msg)
    # ascending penalties first, as ours: of equally good values the first is taken
    strong_first = {name: sorted(values, reverse=name in ("alpha", "n_neighbors")) for name, values in grid.items()}
    return own | strong_first


def fit_predict(
    x: np.ndarray,
    target: Target,
    groups: np.ndarray,
    *,
    train: np.ndarray,
    test: np.ndarray,
    probe: str,
    tune: bool,
    is_distance: bool,
    seed: int,
    n_free: int = 0,
    inner_cv: int = N_INNER_FOLDS,
    grid: Grid | None = None,
) -> Prediction:
    """Scale, tune and fit on ``train``; predict ``test``. Nothing of ``test`` but its vectors is looked at.

    Parameters
    ----------
    x
        Vectors (n, n_features), or distances (n, n), of the labelled samples.
    target, groups
        Labels and group codes, aligned with ``x``.
    train, test
        Positions.
    probe, tune
        Name of the probe; whether to choose its hyperparameters by inner folds that keep groups whole.
    is_distance
        True if ``x`` holds distances.
    seed
        Seed of the inner folds and of the network's first weights.
    n_free
        Number of last columns of ``x`` (covariates) that a linear probe penalises hardly at all.
    inner_cv
        Number of inner folds.
    grid
        Values of hyperparameters to choose from, instead of the probe's own.
    """
    part = target.take(train)
    if part.is_event is not None and not part.is_event.any():  # nothing to learn from: no risk is higher than another
        return Prediction(np.zeros(len(test)), np.zeros((len(test), 0)), {}, is_tuned=False)
    if is_distance:
        x_train, x_test = x[np.ix_(train, train)], x[np.ix_(test, train)]
        if probe == "svc":
            x_train, x_test = _kernel(x_train, x_test)
    else:
        x_train, x_test = x[train], x[test]
    kind = target.kind
    y = _sklearn_y(part, probe)
    # numbers in units of the training part: the margin of SVR and the network's first weights presume a scale
    center, spread = (y.mean(), y.std() or 1.0) if kind in _NUMBERS and y.dtype.kind == "f" else (0.0, 1.0)
    if y.dtype.kind == "f":
        y = (y - center) / spread
    model, own_grid = PROBES[probe][0](kind, seed)
    grid = own_grid if grid is None else grid
    if is_distance:
        model.set_params(**({"metric": "precomputed"} if probe == "knn" else {"kernel": "precomputed"}))
    inner = inner_folds(part, groups[train], seed, n_folds=inner_cv) if tune else []
    n_fit = min((len(fit) for fit, _ in inner), default=len(train))
    if probe == "knn":
        model.set_params(n_neighbors=min(5, len(train)))
        grid = {**grid, "n_neighbors": [k for k in grid["n_neighbors"] if k <= n_fit] or [n_fit]}
    estimator = Pipeline(
        [*_preprocessing(probe, x_train.shape, is_distance=is_distance, n_free=n_free), ("probe", model)]
    )
    with warnings.catch_warnings():
        # the optimiser's last digits change no conclusion here, and a fold is not the place to tell the user
        warnings.simplefilter("ignore", ConvergenceWarning)
        # of a likelihood of 0, where the only events are the last of all
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="sksurv")
        if inner:
            scoring = None if kind == "time_to_event" else (_recall if kind == "class" else _negative_error)
            grid = {f"probe__{name}": values for name, values in grid.items()}
            estimator = GridSearchCV(estimator, grid, scoring=scoring, cv=inner, error_score="raise")
        estimator.fit(x_train, y)
    best = estimator.best_estimator_ if inner else estimator
    chosen = best.named_steps["probe"]
    params = {name.removeprefix("probe__"): chosen.get_params()[name.removeprefix("probe__")] for name in grid}
    if kind == "ordinal" and probe == "logistic":
        # the expected level; codes of the training part stand for its own levels
        values, scores = best.predict_proba(x_test) @ part.levels, np.zeros((len(test), 0))
    else:
        values, scores = _predict(best, x_test, target)
        values = values if kind == "class" else values * spread + center
    return Prediction(values, scores, params, bool(inner))


class FreeColumns(TransformerMixin, BaseEstimator):
    """Multiply the last columns, which is to divide their L2 penalty by the square: few covariates beside many features keep their say.

    Parameters
    ----------
    n_free
        Number of columns.
    factor
        What they are multiplied by.
    """

    def __init__(self, n_free: int, *, factor: float = 10.0) -> None:
        self.n_free, self.factor = n_free, factor

    def fit(self, x: np.ndarray, y: np.ndarray | None = None) -> Self:
        """Learn nothing."""
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Scale a copy, (n, features)."""
        return x * np.where(np.arange(x.shape[1]) < x.shape[1] - self.n_free, 1.0, self.factor)


def _preprocessing(
    probe: str, shape: tuple[int, int], *, is_distance: bool, n_free: int = 0
) -> list[tuple[str, BaseEstimator]]:
    if is_distance:
        return []
    steps: list[tuple[str, BaseEstimator]] = [("scale", StandardScaler())]
    if probe in _ROTATED and n_free:
        steps.append(("free", FreeColumns(n_free)))
    if probe in _ROTATED and shape[1] > shape[0]:
        # An L2 penalty keeps the weights in the span of the training vectors: turning these into their own coordinates
        # changes no prediction, and n numbers per sample are quicker than thousands.
        steps.append(("rotate", PCA(svd_solver="full")))
    return steps


def _kernel(d_train: np.ndarray, d_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel of distances; its width is the median distance within the training part."""
    off_diagonal = d_train[~np.eye(len(d_train), dtype=bool)]
    width = np.median(off_diagonal) if len(off_diagonal) else 1.0
    width = width if width > 0 else 1.0
    return np.exp(-((d_train / width) ** 2)), np.exp(-((d_test / width) ** 2))


def _sklearn_y(part: Target, probe: str) -> np.ndarray:
    if part.is_event is not None:
        from sksurv.util import Surv

        return Surv.from_arrays(part.is_event, part.values)
    if part.kind == "ordinal" and probe == "logistic":
        return np.unique(part.values, return_inverse=True)[1]
    return part.values


def inner_folds(
    part: Target, groups: np.ndarray, seed: int, *, n_folds: int = N_INNER_FOLDS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Grouped folds of the training part, without those that cannot be fitted or scored."""
    n_groups = len(np.unique(groups))
    cv = min(n_folds, n_groups)
    if cv < 2:
        return []
    strata = part.strata(cv)
    cv = max(2, min(cv, np.bincount(strata).max()))
    folds = make_folds(strata, groups, cv=cv, n_repeats=1, seed=seed)
    return [(f.train, f.test) for f in folds if _can_fit(part.take(f.train)) and _can_score(part.take(f.test))]


def _can_fit(part: Target) -> bool:
    return part.is_event.sum() > 1 if part.is_event is not None else len(part.levels) > 1


def _can_score(part: Target) -> bool:
    if part.is_event is None:
        return len(part) > 0
    return not np.isnan(survival_metrics(part.values, part.is_event, np.zeros(len(part)))["concordance"])


def _recall(estimator: BaseEstimator, x: np.ndarray, y: np.ndarray) -> float:
    """Balanced accuracy over the classes present: what tuning maximises for classes."""
    y_pred = estimator.predict(x)
    return float(np.mean([np.mean(y_pred[y == c] == c) for c in np.unique(y)]))


def _negative_error(estimator: BaseEstimator, x: np.ndarray, y: np.ndarray) -> float:
    return -float(mean_absolute_error(y, estimator.predict(x)))


def _predict(model: Pipeline, x: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(model.predict(x))
    if target.kind != "class":
        return values.astype(float), np.zeros((len(x), 0))
    has_proba = hasattr(model, "predict_proba")
    raw = np.asarray(model.predict_proba(x) if has_proba else model.decision_function(x), dtype=float)
    if raw.ndim == 1:
        raw = np.column_stack([-raw, raw])
    # a class that the training part does not have: last in every ranking
    scores = np.full((len(x), len(target.classes)), 0.0 if has_proba else raw.min() - 1.0)
    scores[:, model.classes_] = raw
    return values.astype(np.int64), scores
