"""The neighbour score of the SPARE benchmark as it is published, and the same question without its flaws.

Source: Shitov, Moghareh Dehkordi and Luecken (2025), "Benchmarking Sample Representations from Single-Cell Data" (LMRL workshop at ICLR);
the published implementation is ``patpy.tl.evaluation`` (``predict_knn`` and ``evaluate_prediction``).
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from scset_tools.tl._intervals import bootstrap_draws, percentile_interval
from scset_tools.tl._neighbors import neighbor_weights, vote
from scset_tools.tl._permuted_tests import permute_within

TASKS = ("classification", "regression", "ranking")


def published_score(distances: np.ndarray, y: np.ndarray, *, task: str, n_neighbors: int) -> float:
    """SPARE's score of one covariate, 0 to 1: chance-corrected macro F1 of classes, Spearman's rho of numbers, both cut off at 0.

    Each sample is predicted by its nearest neighbours, weighted by the inverse of their distance; it is kept from itself by setting the
    diagonal to the largest distance. NaN where rho is not defined.

    Parameters
    ----------
    distances
        Shape (n, n).
    y
        Class codes or numbers, none missing, shape (n,).
    task
        ``"classification"``, ``"regression"`` or ``"ranking"`` (numbers, as regression).
    n_neighbors
        Neighbours; 3 in the publication.
    """
    d = distances.copy()
    np.fill_diagonal(d, d.max())
    kind = KNeighborsClassifier if task == "classification" else KNeighborsRegressor
    k = min(n_neighbors, len(d))
    predicted = kind(n_neighbors=k, metric="precomputed", weights="distance").fit(d, y).predict(d)
    if task != "classification":
        rho = spearman(y, predicted[:, None])[0]
        return float(np.clip(rho, 0, 1))
    n_classes = len(np.unique(y))
    if n_classes == 1:
        return 0.0
    return float(np.clip((mean_f1(y, predicted) - 1 / n_classes) / (1 - 1 / n_classes), 0, 1))


def mean_f1(y: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 of the classes that occur among true and predicted codes."""
    n = max(int(y.max()), int(predicted.max())) + 1
    true, guessed, hit = (np.bincount(v, minlength=n) for v in (y, predicted, y[y == predicted]))
    occurs = true + guessed > 0
    return float(np.mean(2 * hit[occurs] / (true + guessed)[occurs]))


def spearman(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Spearman's rho of ``y`` (n,) or (n, m) with each column of ``predicted`` (n, m); NaN where either is constant."""
    a, b = (stats.rankdata(v.reshape(len(v), -1), axis=0) for v in (y, predicted))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def corrected_score(
    distances: np.ndarray,
    y: np.ndarray,
    *,
    task: str,
    n_neighbors: int,
    is_candidate: np.ndarray,
    groups: np.ndarray,
    order: np.ndarray,
    names: object,
    n_permutations: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, float]:
    """The same question asked so that chance is 0: neighbours of other donors only, ties shared, chance from permuted labels.

    Parameters
    ----------
    distances, y, task, n_neighbors
        As of :func:`published_score`.
    is_candidate
        Which sample (column) may be a neighbour of which (row), (n, n).
    groups
        Donor codes, shape (n,): they exchange their labels whole, and are drawn whole for the interval.
    order
        Rank of each sample by name, shape (n,).
    names
        Names of the samples, for messages.
    n_permutations, seed
        Permuted labels; the same ones for every representation.
    level
        Of the interval.

    Returns
    -------
    ``raw`` (macro F1 or rho), ``chance`` (its mean over permuted labels), ``corrected`` = (raw - chance) / (1 - chance), ``ci_low`` and ``ci_high``
    of that (donors redrawn among the predictions), and ``p_value`` (one-sided).
    """
    weights = neighbor_weights(distances, n_neighbors, is_candidate=is_candidate, names=names)
    weights /= weights.sum(axis=1, keepdims=True)
    codes = np.unique(y, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    everyone = np.zeros(len(y))
    moved = [permute_within(codes, groups, everyone, rng=rng, order=order) for _ in range(n_permutations)]
    if task == "classification":
        predicted = vote(weights, distances, codes)
        raw = mean_f1(codes, predicted)
        null = np.array([mean_f1(codes[m], vote(weights, distances, codes[m])) for m in moved])
        draws = bootstrap_draws(
            lambda i: np.array([mean_f1(codes[i], predicted[i])]), groups, n_resamples=200, rng=seed
        )
    else:
        scale = max(float(np.abs(y).max()), np.finfo(float).tiny)

        def predict(values: np.ndarray) -> np.ndarray:
            """Means of neighbours; those that are equal but for the rounding of a sum, which goes by rows, are one."""
            return np.round(weights @ values / scale, 10)

        numbers = predict(y)
        raw = float(np.nan_to_num(spearman(y, numbers[:, None])[0]))
        shuffled = y[np.array(moved, dtype=int).reshape(n_permutations, len(y))].T
        null = np.nan_to_num(spearman(shuffled, predict(shuffled))) if n_permutations else np.zeros(0)
        draws = bootstrap_draws(lambda i: spearman(y[i], numbers[i][:, None]), groups, n_resamples=200, rng=seed)
    chance = float(null.mean()) if n_permutations else float("nan")
    low, high = percentile_interval(draws[:, 0], level=level)

    def over_chance(value: float) -> float:
        return (value - chance) / (1 - chance)

    p_value = (1 + np.sum(null >= raw - 1e-12)) / (1 + n_permutations) if n_permutations else np.nan
    ends = {"ci_low": over_chance(low), "ci_high": over_chance(high)}
    return {"raw": raw, "chance": chance, "corrected": over_chance(raw), **ends, "p_value": float(p_value)}
