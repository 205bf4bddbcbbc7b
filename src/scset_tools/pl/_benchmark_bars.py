"""How good is each representation for each label."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pandas as pd

from scset_tools import _checks
from scset_tools.pl._bars import grouped_bars
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits()
def benchmark_bars(result: Any, *, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Bars with intervals: a group per label (and probe, if there are several), a bar per representation.

    Parameters
    ----------
    result
        A result with ``summary()``, or such a DataFrame: columns `representation`, `label`, `metric`, `mean`, and where
        there are any `probe`, `ci_low`, `ci_high`.
    metric
        Metric to draw. Default: the first of each label; where labels differ in it (classes and numbers), it stands below
        the label.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. Bars start at zero, so that their lengths can be compared.

    Raises
    ------
    TypeError, KeyError
        If it is no such table, or has no such metric.
    ValueError
        If the table is empty, or has two rows for one bar.
    """
    if metric is not None and not isinstance(result, pd.DataFrame) and _asks_for_metric(result):
        result = result.summary(metric=metric)
    table = table_of(result, ["representation", "label", "metric", "mean"], caller="pl.benchmark_bars")
    table = table.assign(**{column: table[column].astype(str) for column in ("label", "metric")})
    known = list(dict.fromkeys(table["metric"]))
    if metric is not None and metric not in known:
        msg = f"metric={metric!r} is not in the table. Metrics: {_checks.first(known, 20)}."
        raise KeyError(msg)
    wanted = table.groupby("label")["metric"].transform("first") if metric is None else metric
    table = table[table["metric"] == wanted].copy()
    drawn = list(dict.fromkeys(table["metric"]))
    if len(drawn) > 1:
        table["label"] += "\n" + table["metric"].str.replace("_", " ")
    has_probes = "probe" in table and table["probe"].nunique() > 1
    if has_probes:
        table["label"] += "\n" + table["probe"].astype(str)
    twice = table.duplicated(["label", "representation"])
    if twice.any():
        culprit = table.loc[twice, ["label", "representation"]].iloc[0].tolist()
        msg = f"{twice.sum()} bars have more than one row in the table (first: {culprit}): pass its summary, not the folds."
        raise ValueError(msg)
    ax = grouped_bars(table, group="label", hue="representation", value="mean", ax=ax)
    ax.set_xlabel(drawn[0].replace("_", " ") if len(drawn) == 1 else "score")
    return ax


def _asks_for_metric(result: Any) -> bool:
    """Whether the summary can be had for a metric of choice."""
    summary = getattr(result, "summary", None)
    return callable(summary) and "metric" in inspect.signature(summary).parameters
