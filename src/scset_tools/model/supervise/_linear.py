"""Linear heads on fixed vectors, solved to the optimum: the losses are convex, and a penalty is chosen by cross-validation."""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from scset_tools.model.supervise._heads import Head

PENALTIES = tuple(10.0**k for k in range(-2, 7))
"""Inverse strengths of the penalty that are tried (ScSet, appendix D)."""
MAX_STEPS = 1000


def fit_linear(
    head: Head, vectors: np.ndarray, y: np.ndarray, *, penalty: float | None, groups: np.ndarray | None, seed: int
) -> float:
    r"""Fit a linear head to vectors: :math:`C \sum_i \ell_i + \tfrac12 \lVert W \rVert^2` at its minimum.

    The terms are those of scikit-learn: with two classes ``W`` is the one row of log-odds. Biases and thresholds are not penalised.

    Parameters
    ----------
    head
        Changed in place; standardised and prepared before.
    vectors
        (n, n_latent).
    y
        Labels of :class:`Head`, none of them missing.
    penalty
        :math:`C`, the inverse strength. None: that of ``PENALTIES`` with the lowest loss of held-out samples in up to five
        folds, which keep groups whole; of a time to an event the cross-validated partial likelihood (Verweij & van Houwelingen 1993).
    groups
        Group of each, (n,), or None.
    seed
        Seed of the folds.

    Returns
    -------
    The inverse strength.
    """
    z, target = torch.from_numpy(vectors).double(), torch.from_numpy(y)
    if penalty is None:
        penalty = _choose(head, z, target, groups=groups, seed=seed)
    _solve(head, z, target, penalty)
    return penalty


def _solve(head: Head, z: torch.Tensor, y: torch.Tensor, penalty: float, start: np.ndarray | None = None) -> np.ndarray:
    """Minimise by L-BFGS in double precision; the weights, as one vector."""
    own = copy.deepcopy(head).double().cpu().train()
    parameters = [p for p in own.parameters() if p.requires_grad]
    n = own.n_judged(y)[0]
    # of two classes the rows are w / 2 and -w / 2, whose squares add up to half of that of w
    is_pair = own.kind == "class" and len(own.classes) == 2
    weight = 0.5 * (2.0 if is_pair else 1.0) / (penalty * max(n, 1))
    scale = 0.5 if own.kind == "continuous" else 1.0  # half of the square, as in ridge regression

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        _put(parameters, flat)
        loss = scale * own.loss(own(z), y).double() + weight * own.linear.weight.square().sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        return float(loss.detach()), np.concatenate([g.detach().numpy().ravel() for g in filled])

    if start is None:
        with torch.no_grad():
            own.linear.weight.zero_()
            own.linear.bias.zero_()
        start = np.concatenate([p.detach().numpy().ravel() for p in parameters])
    found = minimize(
        value, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "ftol": 1e-13, "gtol": 1e-8}
    )
    _put(parameters, found.x)
    with torch.no_grad():
        for mine, solved in zip([p for p in head.parameters() if p.requires_grad], parameters, strict=True):
            mine.copy_(solved)
    return found.x


@torch.no_grad()
def _put(parameters: list[torch.nn.Parameter], flat: np.ndarray) -> None:
    start = 0
    for p in parameters:
        p.copy_(torch.from_numpy(flat[start : start + p.numel()]).view_as(p))
        start += p.numel()


def _choose(head: Head, z: torch.Tensor, y: torch.Tensor, *, groups: np.ndarray | None, seed: int) -> float:
    """The penalty with the lowest loss of held-out samples; 1 where nothing can be held out."""
    folds = _folds(head, y, groups, seed)
    if not folds:
        return 1.0
    total = np.zeros(len(PENALTIES))
    for train, test in folds:
        fold = copy.deepcopy(head)
        start: np.ndarray | None = None
        for k, penalty in enumerate(PENALTIES):  # from the strongest: each starts where the last one ended
            start = _solve(fold, z[train], y[train], penalty, start)
            total[k] += _held_out(copy.deepcopy(fold).double(), z, y, train=train, test=test)
    return PENALTIES[int(total.argmin())]


@torch.no_grad()
def _held_out(head: Head, z: torch.Tensor, y: torch.Tensor, *, train: np.ndarray, test: np.ndarray) -> float:
    def summed(rows: np.ndarray) -> float:
        return float(head.loss(head(z[rows]), y[rows])) * head.n_judged(y[rows])[0]

    if head.kind != "time_to_event":
        return summed(test)
    return summed(np.concatenate([train, test])) - summed(train)


def _folds(head: Head, y: torch.Tensor, groups: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    values = y.numpy()
    strata = {"continuous": None, "time_to_event": values[:, 1] if values.ndim > 1 else None}.get(head.kind, values)
    n = len(values) if groups is None else len(np.unique(groups))
    n_folds = min(5, n if strata is None else min(n, int(np.unique(strata, return_counts=True)[1].min())))
    if n_folds < 2:
        return []
    if groups is not None:
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        strata = np.zeros(len(values)) if strata is None else strata
    else:
        folds = (KFold if strata is None else StratifiedKFold)(n_folds, shuffle=True, random_state=seed)
    parts = [
        (train, test) for train, test in folds.split(np.zeros(len(values)), strata, groups) if len(train) and len(test)
    ]
    if head.kind == "time_to_event":
        return [(a, b) for a, b in parts if values[a, 1].any() and values[b, 1].any()]
    return (
        parts
        if strata is None or head.kind == "continuous"
        else [(a, b) for a, b in parts if len(np.unique(strata[a])) == len(np.unique(strata))]
    )
