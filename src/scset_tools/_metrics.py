"""Scores of predictions, one function per kind of target; what a test part cannot tell is NaN, never left out.

The definitions are scikit-learn's, and tests hold every score against it. They are written out because its input checks
take some 10 ms per test part, more than many fits, and a bootstrap scores hundreds of draws.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

_LABEL_METRICS = ("accuracy", "balanced_accuracy", "f1_weighted", "f1_macro", "f1_chance_corrected")
METRICS: dict[str, tuple[str, ...]] = {
    "class": (*_LABEL_METRICS, "auroc", "auprc"),
    "ordinal": ("mae", "r2", "spearman", *_LABEL_METRICS),
    "continuous": ("mae", "r2", "spearman"),
    "time_to_event": ("concordance",),
}
PRIMARY = {"class": "balanced_accuracy", "ordinal": "mae", "continuous": "mae", "time_to_event": "concordance"}
"""What permutations and comparisons use unless told otherwise."""

BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys((*_LABEL_METRICS, "auroc", "auprc", "concordance"), (0.0, 1.0)),
    "spearman": (-1.0, 1.0),
    "mae": (0.0, np.inf),
    "r2": (-np.inf, 1.0),
}
"""Smallest and largest possible value of each metric."""

RANKINGS = frozenset({"auroc"})
"""Metrics that are a share of pairs of samples in the right order, whose evidence is less than that of as many samples near chance."""

LOWER_IS_BETTER = frozenset({"mae"})


def class_metrics(y_true: np.ndarray, y_pred: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Scores of predicted classes.

    Parameters
    ----------
    y_true, y_pred
        Class codes, shape (n,).
    scores
        Probability or decision value of every class, shape (n, n_classes).

    Returns
    -------
    ``accuracy``; ``balanced_accuracy`` (mean recall of the classes in ``y_true``); ``f1_weighted``; ``f1_macro``;
    ``f1_chance_corrected`` (see :func:`chance_corrected_f1`); ``auroc`` and ``auprc`` (average precision): of the second class
    for two classes, otherwise the mean over one-versus-rest of the classes in ``y_true``. The last two are NaN if
    ``y_true`` has one class.
    """
    n_classes = scores.shape[1]
    out = label_metrics(y_true, y_pred, n_classes)
    present = np.unique(y_true)
    if len(present) < 2:
        return out | {"auroc": float("nan"), "auprc": float("nan")}
    positives = [1] if n_classes == 2 else present.tolist()
    out["auroc"] = float(np.mean([_auroc(y_true == c, scores[:, c]) for c in positives]))
    out["auprc"] = float(np.mean([_average_precision(y_true == c, scores[:, c]) for c in positives]))
    return out


def number_metrics(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    """``mae``, ``r2`` and ``spearman`` of predicted numbers; the last two are NaN where either side is constant."""
    is_varied = len(y_true) > 1 and np.ptp(y_true) > 0
    rank = stats.spearmanr(y_true, y_pred).statistic if is_varied and np.ptp(y_pred) > 0 else np.nan
    return {
        "mae": float(np.abs(y_true - y_pred).mean()),
        "r2": float(1 - ((y_true - y_pred) ** 2).sum() / ((y_true - y_true.mean()) ** 2).sum())
        if is_varied
        else np.nan,
        "spearman": float(rank),
    }


def ordinal_metrics(y_true: np.ndarray, y_pred: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    """Those of numbers, and those of classes after moving each prediction to the nearest level (the lower at a tie).

    ``levels``: all levels of the label, ascending, shape (n_levels,); ``y_true`` takes no others.
    """
    nearest = np.abs(np.asarray(y_pred)[:, None] - levels[None, :]).argmin(axis=1)
    return number_metrics(y_true, y_pred) | label_metrics(np.searchsorted(levels, y_true), nearest, len(levels))


def survival_metrics(times: np.ndarray, is_event: np.ndarray, risk: np.ndarray) -> dict[str, float]:
    """``concordance``: share of comparable pairs in which the earlier event has the higher risk; NaN without a pair."""
    from sksurv.metrics import concordance_index_censored

    if not is_event.any():
        return {"concordance": float("nan")}
    first_event = times[is_event].min()
    if not ((times > first_event) | ((times == first_event) & ~is_event)).any():
        return {"concordance": float("nan")}
    return {"concordance": float(concordance_index_censored(is_event, times, risk)[0])}


def chance_corrected_f1(f1: float, n_classes: int) -> float:
    """``L / (L - 1) * (F1 - 1 / L)``, clipped at 0: 0 for guessing among ``L`` equally likely classes, 1 for no error."""
    return max(0.0, n_classes / (n_classes - 1) * (f1 - 1 / n_classes))


def label_metrics(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> dict[str, float]:
    """The scores of :func:`class_metrics` that need no probabilities, of class codes (n,)."""
    n_true = np.bincount(y_true, minlength=n_classes)
    n_pred = np.bincount(y_pred, minlength=n_classes)
    n_hit = np.bincount(y_true[y_true == y_pred], minlength=n_classes)
    is_true, is_seen = n_true > 0, n_true + n_pred > 0  # a class in neither has no F1
    f1 = 2 * n_hit[is_seen] / (n_true + n_pred)[is_seen]
    f1_macro = float(f1.mean())
    return {
        "accuracy": float(n_hit.sum() / len(y_true)),
        "balanced_accuracy": float((n_hit[is_true] / n_true[is_true]).mean()),
        "f1_weighted": float(np.average(f1, weights=n_true[is_seen])),
        "f1_macro": f1_macro,
        "f1_chance_corrected": chance_corrected_f1(f1_macro, n_classes),
    }


def _auroc(is_positive: np.ndarray, scores: np.ndarray) -> float:
    """Share of pairs (positive, negative) in which the positive scores higher; ties count half."""
    n_positive = int(is_positive.sum())
    n_pairs = n_positive * (len(scores) - n_positive)
    return float((stats.rankdata(scores)[is_positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)


def _average_precision(is_positive: np.ndarray, scores: np.ndarray) -> float:
    """Sum over thresholds of precision times the recall gained; samples of one score cross the threshold together."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # last sample of each distinct score
    return float((np.diff(hits[last], prepend=0) * hits[last] / (last + 1)).sum() / hits[-1])
