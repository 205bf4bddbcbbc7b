"""Tables that every result of an evaluation has in common: folds in, means with intervals out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools.tl._intervals import INTERVALS, t_interval
from scset_tools.tl._metrics import METRICS


def metrics_of(folds: pd.DataFrame) -> list[str]:
    """The metric columns of a table of folds, in their usual order."""
    known = dict.fromkeys(name for names in METRICS.values() for name in names)
    return [name for name in known if name in folds.columns]


def summarize(folds: pd.DataFrame, *, interval: str, level: float) -> pd.DataFrame:
    """Mean, sd (ddof=1), interval and counts of each metric over the rows of ``folds``; see ``ProbeResult.summary``."""
    if interval not in INTERVALS[:2]:
        msg = f"interval must be one of {INTERVALS[:2]} here, not {interval!r}."
        raise ValueError(msg)
    check_level(level)
    ratio = overlap_ratio(folds) if interval == "corrected" else 0.0
    rows = []
    for metric in metrics_of(folds):
        values = folds[metric].to_numpy(dtype=float)
        present = values[~np.isnan(values)]
        low, high = t_interval(values, level=level, test_train_ratio=ratio)
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


def check_level(level: float) -> None:
    """Raise ValueError unless ``level`` is a confidence level."""
    if not 0 < level < 1:
        msg = f"level is a confidence level between 0 and 1 (0.95), not {level}."
        raise ValueError(msg)


def check_metric(metric: str, folds: pd.DataFrame) -> None:
    """Raise KeyError unless ``metric`` is a column of the table of folds."""
    if metric not in metrics_of(folds):
        msg = f"{metric!r} is not a metric of this result. Metrics: {_checks.first(metrics_of(folds), 20)}."
        raise KeyError(msg)
