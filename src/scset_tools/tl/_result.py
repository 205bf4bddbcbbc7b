"""Tables that every result of an evaluation has in common: folds in, means with intervals out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._metrics import BOUNDS, METRICS, RANKINGS
from scset_tools.tl._intervals import INTERVALS, bounded_interval

if TYPE_CHECKING:
    from scset_tools.tl._targets import Target


def metrics_of(folds: pd.DataFrame) -> list[str]:
    """The metric columns of a table of folds, in their usual order."""
    known = dict.fromkeys(name for names in METRICS.values() for name in names)
    return [name for name in known if name in folds.columns]


def independent_units(target: Target, groups: np.ndarray) -> dict[str, float]:
    """Number of independent samples behind each metric of a kind of target: what bounds how sure any interval can be.

    Groups count once. A metric that weighs classes equally is as unsure as the rarest makes it: ``K^2 / sum(1 / n_k)`` for ``K``
    classes that occur in ``n_k`` groups. Concordance knows the groups with an event.
    """
    n_groups = float(len(np.unique(groups)))
    out = dict.fromkeys(METRICS[target.kind], n_groups)
    if target.is_event is not None:
        return dict.fromkeys(out, float(len(np.unique(groups[target.is_event]))))
    if target.kind in ("class", "ordinal"):
        n_of = np.array([len(np.unique(groups[target.values == level])) for level in target.levels])
        balanced = len(n_of) ** 2 / np.sum(1 / n_of)
        by_class = ("balanced_accuracy", "f1_macro", "f1_chance_corrected", "auroc", "auprc")
        out |= {name: min(n_groups, float(balanced)) for name in by_class if name in out}
    return out


def summarize(folds: pd.DataFrame, *, interval: str, level: float, n_units: Mapping[str, float]) -> pd.DataFrame:
    """Mean, sd (ddof=1), interval and counts of each metric over the rows of ``folds``; see ``ProbeResult.summary``.

    ``n_units``: from :func:`independent_units`.
    """
    if interval not in INTERVALS[:2]:
        msg = f"interval must be one of {INTERVALS[:2]} here, not {interval!r}."
        raise ValueError(msg)
    ratio = overlap_ratio(folds) if interval == "corrected" else 0.0
    rows = []
    for metric in metrics_of(folds):
        values = folds[metric].to_numpy(dtype=float)
        present = values[~np.isnan(values)]
        units = n_units.get(metric, np.inf)
        low, high = bounded_interval(
            values,
            BOUNDS[metric],
            n_units=units,
            is_ranking=metric in RANKINGS,
            level=level,
            test_train_ratio=ratio,
        )
        rows.append(
            {
                "metric": metric,
                "mean": present.mean() if len(present) else np.nan,
                "sd": present.std(ddof=1) if len(present) > 1 else np.nan,
                "ci_low": low,
                "ci_high": high,
                "n": len(present),
                "n_undefined": len(values) - len(present),
            }
        )
    return pd.DataFrame(rows).set_index("metric")


def overlap_ratio(folds: pd.DataFrame) -> float:
    """Mean size of the test part over that of the training part."""
    return float((folds["n_test"] / folds["n_train"]).mean())


def check_metric(metric: str, folds: pd.DataFrame) -> None:
    """Raise KeyError unless ``metric`` is a column of the table of folds."""
    if metric not in metrics_of(folds):
        msg = f"{metric!r} is not a metric of this result. Metrics: {_checks.first(metrics_of(folds), 20)}."
        raise KeyError(msg)
