"""How good is each representation for each label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scset_tools import _checks
from scset_tools.pl._bars import grouped_bars
from scset_tools.pl._inputs import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def benchmark_bars(result: object, *, metric: str | None = None, ax: Axes | None = None) -> Axes:
    """Bars with intervals: a group per label (and probe, if there are several), a bar per representation.

    Parameters
    ----------
    result
        A result with ``summary()``, or such a DataFrame: columns `representation`, `label`, `metric`, `mean`, and where
        there are any `probe`, `ci_low`, `ci_high`.
    metric
        Metric to draw. Default: the first of the table.
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
    table = table_of(result, ["representation", "label", "metric", "mean"], caller="pl.benchmark_bars")
    known = list(dict.fromkeys(table["metric"].astype(str)))
    metric = known[0] if metric is None else metric
    if metric not in known:
        msg = f"metric={metric!r} is not in the table. Metrics: {_checks.first(known, 20)}."
        raise KeyError(msg)
    table = table[table["metric"].astype(str) == metric].copy()
    has_probes = "probe" in table and table["probe"].nunique() > 1
    if has_probes:
        table["label"] = table["label"].astype(str) + "\n" + table["probe"].astype(str)
    twice = table.duplicated(["label", "representation"])
    if twice.any():
        culprit = table.loc[twice, ["label", "representation"]].iloc[0].tolist()
        msg = f"{twice.sum()} bars have more than one row in the table (first: {culprit}): pass its summary, not the folds."
        raise ValueError(msg)
    ax = grouped_bars(table, group="label", hue="representation", value="mean", ax=ax)
    ax.set_xlabel(metric.replace("_", " "))
    return ax
