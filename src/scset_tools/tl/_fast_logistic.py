"""The logistic probe of two classes on all folds at once, for permuted labels: the same folds, grid and choice, solved together.

A permutation of a tuned probe fits some hundred models of the same shape, for each of which scikit-learn's pipeline, its checks and an
iterative solver take longer than the arithmetic. Here all training parts of a permutation are one array, and Newton's method solves them
along the path of penalties, from the strongest to the weakest, to the optimum.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from scset_tools.tl._splits import Fold
from scset_tools.tl._targets import Target

_N_STEPS = 50
_TOLERANCE = 1e-7
"""Largest change of a decision value in a step that counts as none: the next step would change it by its square."""


def is_fast(probe: str, labels: Target, folds: list[Fold], *, is_distance: bool) -> bool:
    """Whether :func:`predict_logistic` knows the probe, and every training part has both classes."""
    is_known = probe == "logistic" and labels.kind == "class" and len(labels.classes) == 2 and not is_distance
    return is_known and all(len(np.unique(labels.values[fold.train])) == 2 for fold in folds)


def predict_logistic(
    x: np.ndarray,
    labels: Target,
    folds: list[Fold],
    *,
    inner: list[list[tuple[np.ndarray, np.ndarray]]],
    grid: list[float],
    default: float,
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Standardise, choose the penalty and fit on the training part of each fold; predict its test part.

    Parameters
    ----------
    x
        Vectors, shape (n, features).
    labels
        Two classes.
    folds
        Outer folds; both classes in each training part.
    inner
        Splits of each training part (positions within it) to choose by; none: ``default``.
    grid
        Inverse penalties C, ascending. Balanced accuracy decides, the first of equal ones is taken.
    default
        C where nothing can be chosen.

    Returns
    -------
    For each fold predicted codes (n_test,), probabilities (n_test, 2) and the C taken.
    """
    problems = [(f.train, f.test) for f in folds]
    for fold, splits in zip(folds, inner, strict=True):
        problems += [(fold.train[fit], fold.train[held]) for fit, held in splits]
    costs = sorted({*grid, default})
    decisions = _decisions(x, labels.values.astype(float), problems, costs)  # per problem (costs, n_test)
    out, at = [], len(folds)
    for k, splits in enumerate(inner):
        chosen = costs.index(default)
        if splits:
            scores = np.array(
                [_recalls(decisions[at + j], labels.values[problems[at + j][1]]) for j in range(len(splits))]
            )
            chosen = costs.index(grid[int(np.average(scores[:, [costs.index(c) for c in grid]], axis=0).argmax())])
        at += len(splits)
        decision = decisions[k][chosen]
        share = expit(decision)
        out.append(((decision > 0).astype(np.int64), np.column_stack([1 - share, share]), costs[chosen]))
    return out


def _recalls(decisions: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Balanced accuracy over the classes present, of each row of decisions (costs, n)."""
    hits = (decisions > 0) == (y == 1)
    return np.mean([hits[:, y == c].mean(axis=1) for c in np.unique(y)], axis=0)


def _decisions(
    x: np.ndarray, y: np.ndarray, problems: list[tuple[np.ndarray, np.ndarray]], costs: list[float]
) -> list[np.ndarray]:
    """Decision values of the test part of every problem for every C, a list of (costs, n_test)."""
    prepared = [_coordinates(x[train], x[test]) for train, test in problems]
    n = max(len(train) for train, _ in problems)
    p = max(a.shape[1] for a, _ in prepared) + 1  # the last one is the intercept
    design, is_real = np.zeros((len(problems), n, p)), np.zeros((len(problems), n))
    target = np.zeros((len(problems), n))
    for b, ((train, _), (a, _)) in enumerate(zip(problems, prepared, strict=True)):
        design[b, : len(train), : a.shape[1]], design[b, : len(train), -1] = a, 1
        is_real[b, : len(train)], target[b, : len(train)] = 1, y[train]
    weights = np.zeros((len(problems), p))
    path = []
    for cost in costs:
        weights = _solve(design, is_real, target, weights, cost=cost)
        path.append(weights)
    out = []
    for b, (_, held) in enumerate(prepared):
        coefficients = np.stack([w[b] for w in path])
        out.append(coefficients[:, : held.shape[1]] @ held.T + coefficients[:, -1:])
    return out


def _coordinates(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised by the training part; of more features than samples, coordinates in their span, which change no prediction."""
    mean, variance = train.mean(axis=0), train.var(axis=0)
    # constant up to rounding, as scikit-learn has it: left as it is
    is_constant = (
        variance <= len(train) * np.finfo(float).eps * variance + (len(train) * mean * np.finfo(float).eps) ** 2
    )
    scale = np.where(is_constant, 1.0, np.sqrt(variance))
    train, test = (train - mean) / scale, (test - mean) / scale
    if train.shape[1] <= len(train):
        return train, test
    values, vectors = np.linalg.eigh(train @ train.T)
    kept = values > 1e-12 * max(values[-1], np.finfo(float).tiny)
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, test @ (train.T @ (vectors[:, kept] / root))


def _solve(
    design: np.ndarray, is_real: np.ndarray, target: np.ndarray, weights: np.ndarray, *, cost: float
) -> np.ndarray:
    """Minimise ``|w|^2 / 2 + cost * sum of log-losses`` (no penalty on the intercept) for each problem, from ``weights`` (problems, p)."""
    weights = weights.copy()
    penalty = np.ones(weights.shape[1])
    penalty[-1] = 0
    left = np.arange(len(weights))
    for _ in range(_N_STEPS):
        a, real, y, w = design[left], is_real[left], target[left], weights[left]
        eta = np.einsum("bnp,bp->bn", a, w)
        share = expit(eta)
        gradient = cost * np.einsum("bnp,bn->bp", a, real * (share - y)) + penalty * w
        curvature = cost * real * share * (1 - share)
        hessian = np.matmul((a * curvature[:, :, None]).transpose(0, 2, 1), a)
        hessian[:, np.arange(len(penalty)), np.arange(len(penalty))] += penalty + 1e-12  # unused coordinates stay at 0
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        moved = np.einsum("bnp,bp->bn", a, step)
        before, size = _loss(eta, w, real, y, penalty, cost), np.ones(len(left))
        for _ in range(20):  # Newton's step may go too far where classes are nearly separable
            after = _loss(eta - size[:, None] * moved, w - size[:, None] * step, real, y, penalty, cost)
            is_worse = after > before + 1e-12 * np.abs(before)
            if not is_worse.any():
                break
            size = np.where(is_worse, size / 2, size)
        weights[left] = w - size[:, None] * step
        left = left[np.abs(moved * real).max(axis=1) > _TOLERANCE]
        if not len(left):
            break
    return weights


def _loss(
    eta: np.ndarray, w: np.ndarray, real: np.ndarray, y: np.ndarray, penalty: np.ndarray, cost: float
) -> np.ndarray:
    return cost * (real * (np.logaddexp(0, eta) - y * eta)).sum(axis=1) + 0.5 * (penalty * w**2).sum(axis=1)
