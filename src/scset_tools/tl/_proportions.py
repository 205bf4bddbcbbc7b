"""Are the proportions of the cell types still in the vector of a sample? (MAESTRO section 4.5)"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._estimators import N_INNER_FOLDS
from scset_tools.tl._representation import get_representation
from scset_tools.tl._softmax import SoftmaxRegression
from scset_tools.tl._splits import Fold, make_folds, read_groups, seed_of

if TYPE_CHECKING:
    from anndata import AnnData

_ALPHAS = {
    "linear": (SoftmaxRegression, [100.0, 10.0, 1.0, 0.1, 0.01, 0.001]),
    "ridge": (Ridge, [1e4, 1e3, 1e2, 10.0, 1.0, 0.1]),
    "mlp": (MLPRegressor, [10.0, 1.0, 0.1]),
}


@dataclass(frozen=True, repr=False)
class ProportionResult(ShortRepr):
    """Predicted proportions of cell types.

    Attributes
    ----------
    per_type
        Indexed by cell type: ``mae``, ``mae_of_mean`` (of always predicting the mean of the training part), ``pearson`` (NaN where either
        side is constant), ``mean_proportion``. Means over repeats.
    folds
        One row per fold: ``repeat``, ``fold``, ``mae`` and ``mae_of_mean`` over samples and types, ``n_train``, ``n_test``.
    true
        What was counted, samples x cell types; rows sum to 1.
    predicted
        What was predicted out of fold, mean over repeats: what ``pl.proportions`` draws beside it.
    probe
        What predicted.
    representation
        From what.
    n_missing
        Samples without proportions, left out.
    """

    per_type: pd.DataFrame
    folds: pd.DataFrame
    true: pd.DataFrame
    predicted: pd.DataFrame
    probe: str
    representation: str
    n_missing: int

    def summary(self) -> pd.Series:
        """Means over cell types of ``mae``, ``mae_of_mean`` and ``pearson``."""
        return self.per_type[["mae", "mae_of_mean", "pearson"]].mean()


@checks_numbers
def retrieve_proportions(
    samples: AnnData,
    proportions: pd.DataFrame | str,
    *,
    use_rep: str | None = None,
    probe: Literal["linear", "ridge", "mlp"] = "linear",
    groups_key: str | None = None,
    cv: int = 5,
    n_repeats: int = 1,
    tune: bool = True,
    rng: np.random.Generator | int | None = 0,
    n_jobs: int = 1,
) -> ProportionResult:
    """Predict the proportions of all cell types at once from the vector of a sample.

    MAESTRO trains its one-layer network for three epochs on one 80/20 split; here it is fitted to its optimum, which does
    not depend on a learning rate, on every fold.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    proportions
        DataFrame of samples x cell types (rows are matched by sample name), or a key of ``samples.obsm``. Not negative;
        counts and percentages will do, as rows are divided by their sum. Samples without a row, or with a missing
        value in it, are left out and counted.
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    probe
        ``"linear"``: one layer with softmax output, cross-entropy. ``"ridge"``, ``"mlp"`` (one hidden layer of 32): squared error; negative
        predictions are set to zero and rows divided by their sum.
    groups_key, cv, n_repeats, tune
        As in :func:`probe`; the penalty is tuned for mean absolute error.
    rng
        Seed or generator.
    n_jobs
        Number of processes. Results do not depend on it.

    Returns
    -------
    Errors per cell type and fold, and the predictions; see :class:`ProportionResult`.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If proportions are negative, a row sums to zero, there are fewer than two types, no sample has proportions, there
        is one group, or the representation has missing values.
    """
    if probe not in _ALPHAS:
        msg = f"probe must be one of {tuple(_ALPHAS)}, not {probe!r}."
        raise ValueError(msg)
    p = _read_proportions(samples, proportions)
    rows = samples.obs_names.get_indexer(p.index)
    x = get_representation(samples[rows], use_rep)
    groups = read_groups(samples, groups_key, rows)
    n_groups = len(np.unique(groups))
    if cv < 2 or n_groups < 2:
        msg = f"cv={cv} folds cannot be made of {n_groups} groups of {len(p)} samples with proportions."
        raise ValueError(msg)
    if cv > n_groups:
        warnings.warn(
            f"cv is lowered from {cv} to {n_groups}, because there are {n_groups} groups of {len(p)} samples with proportions.",
            UserWarning,
            stacklevel=2,
        )
        cv = n_groups
    seed = seed_of(rng)
    folds = make_folds(np.zeros(len(p), dtype=np.int64), groups, cv=cv, n_repeats=n_repeats, seed=seed)
    y = p.to_numpy()
    run = {"probe": probe, "tune": tune, "seed": seed}
    fitted = Parallel(n_jobs=n_jobs)(delayed(_fit_fold)(x, y, groups, fold, **run) for fold in folds)
    n_made = folds[-1].repeat + 1
    predicted, of_mean = np.zeros((n_made, *y.shape)), np.zeros((n_made, *y.shape))
    table = []
    for fold, values in zip(folds, fitted, strict=True):
        predicted[fold.repeat, fold.test] = values
        of_mean[fold.repeat, fold.test] = y[fold.train].mean(axis=0)
        errors = {
            "mae": np.abs(values - y[fold.test]).mean(),
            "mae_of_mean": np.abs(y[fold.train].mean(axis=0) - y[fold.test]).mean(),
        }
        sizes = {"n_train": len(fold.train), "n_test": len(fold.test)}
        table.append({"repeat": fold.repeat, "fold": fold.fold, **errors, **sizes})
    per_type = pd.DataFrame(
        {
            "mae": np.abs(predicted - y).mean(axis=(0, 1)),
            "mae_of_mean": np.abs(of_mean - y).mean(axis=(0, 1)),
            "pearson": [np.mean([_pearson(q[:, k], y[:, k]) for q in predicted]) for k in range(y.shape[1])],
            "mean_proportion": y.mean(axis=0),
        },
        index=p.columns,
    )
    mean = pd.DataFrame(predicted.mean(axis=0), index=p.index, columns=p.columns)
    return ProportionResult(
        per_type, pd.DataFrame(table), p, mean, probe, use_rep or "X", n_missing=samples.n_obs - len(p)
    )


def _read_proportions(samples: AnnData, proportions: pd.DataFrame | str) -> pd.DataFrame:
    """Complete rows, in the order of the samples, divided by their sum."""
    _checks.require_anndata(samples, caller="tl.retrieve_proportions")
    if isinstance(proportions, str):
        stored = _checks.require_obsm(samples, proportions)
        if not isinstance(stored, pd.DataFrame):
            stored = pd.DataFrame(_checks.dense(stored, f"samples.obsm[{proportions!r}]"), index=samples.obs_names)
        proportions = stored
    if not isinstance(proportions, pd.DataFrame):
        msg = f"proportions must be a DataFrame (samples x cell types) or a key of obsm, not {type(proportions).__name__}."
        raise TypeError(msg)
    if proportions.index.has_duplicates:
        twice = proportions.index[proportions.index.duplicated()]
        msg = f"proportions has {len(twice)} samples twice (first: {_checks.first(twice)})."
        raise ValueError(msg)
    p = proportions.reindex(samples.obs_names).astype(float).dropna()
    p.columns = p.columns.astype(str)
    if len(p) == 0:
        msg = (
            f"No sample has proportions: the names in proportions {_checks.first(proportions.index)} are not those of "
            f"samples.obs_names {_checks.first(samples.obs_names)}, or every row has a missing value."
        )
        raise ValueError(msg)
    if p.shape[1] < 2:
        msg = f"proportions has {p.shape[1]} cell type: at least two are needed."
        raise ValueError(msg)
    is_bad = (p < 0).any(axis=1) | (p.sum(axis=1) <= 0) | ~np.isfinite(p).all(axis=1)
    if is_bad.any():
        msg = f"Proportions are negative, infinite or all zero in {is_bad.sum()} samples: {_checks.first(p.index[is_bad])}."
        raise ValueError(msg)
    return p.div(p.sum(axis=1), axis=0)


def _fit_fold(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, fold: Fold, *, probe: str, tune: bool, seed: int
) -> np.ndarray:
    """Proportions of the test part, shape (n_test, n_types)."""
    kind, alphas = _ALPHAS[probe]
    fold_seed = int(np.random.default_rng((seed, fold.repeat, fold.fold)).integers(2**31))
    model = kind(alpha=1.0)
    if probe == "mlp":
        model.set_params(hidden_layer_sizes=(32,), solver="lbfgs", max_iter=200, random_state=fold_seed)
    steps: list[tuple[str, Any]] = [("scale", StandardScaler())]
    if probe != "mlp" and x.shape[1] > len(fold.train):
        # an L2 penalty keeps the weights in the span of the training vectors: same predictions, fewer numbers
        steps.append(("rotate", PCA(svd_solver="full")))
    estimator: Any = Pipeline([*steps, ("probe", model)])
    n_inner = min(N_INNER_FOLDS, len(np.unique(groups[fold.train])))
    with (
        threadpool_limits(1),
        config_context(assume_finite=True, skip_parameter_validation=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        if tune and n_inner > 1:
            strata = np.zeros(len(fold.train), dtype=np.int64)
            inner = make_folds(strata, groups[fold.train], cv=n_inner, n_repeats=1, seed=fold_seed)
            splits = [(f.train, f.test) for f in inner]
            estimator = GridSearchCV(
                estimator, {"probe__alpha": alphas}, scoring=_score, cv=splits, error_score="raise"
            )
        estimator.fit(x[fold.train], y[fold.train])
        return _to_proportions(estimator.predict(x[fold.test]))


def _score(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    return -float(np.abs(_to_proportions(estimator.predict(x)) - y).mean())


def _to_proportions(values: np.ndarray) -> np.ndarray:
    """Not negative, rows sum to 1; a row without a positive value becomes uniform."""
    values = np.clip(values, 0, None)
    total = values.sum(axis=1, keepdims=True)
    return np.where(total > 0, values / np.where(total > 0, total, 1), 1 / values.shape[1])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
