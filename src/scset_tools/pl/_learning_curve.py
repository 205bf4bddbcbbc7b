"""How a score grows with the number of labelled samples (scSet Fig. 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from scset_tools import _checks
from scset_tools._metrics import BOUNDS
from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of
from scset_tools.pl._style import LINES, MARKERS, axes_or_new, colors_for, legend_beside, tidy, turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits()
@checks_numbers
def learning_curve(
    result: object,
    *,
    x: str = "n_train",
    y: str = "score",
    hue: str = "representation",
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Mean score against the number of training samples, one line per representation.

    Parameters
    ----------
    result
        DataFrame (or a result with ``summary()``) with one row per subsample, or one row per size with the intervals
        `ci_low` and `ci_high` already there. With columns `subsample` and `fold` (as from ``tl.learning_curve``), folds are
        averaged first.
    x
        Column with the number of training samples.
    y
        Column with the score.
    hue
        Column with the representation. Without it there is one line.
    level
        Confidence level of the intervals of repeated rows: Student's t with n - 1 degrees of freedom, cut off at the range of the
        metric, if the table names one.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes: means with intervals, single subsamples as small points.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    ValueError
        If it has no rows or no finite score, several labels, probes or metrics, or ``level`` is no confidence level.
    """
    table = table_of(result, [x, y], caller="pl.learning_curve")
    for key in ("label", "probe", "metric"):
        if key in table and table[key].nunique() > 1:
            values = _checks.first(table[key].unique().tolist())
            msg = f"The table holds several {key}s {values}: select the rows of one, table[table[{key!r}] == ...]."
            raise ValueError(msg)
    table = table[np.isfinite(table[y].to_numpy(dtype=float))]
    if not len(table):
        msg = f"No row has a finite {y!r}."
        raise ValueError(msg)
    label = str(table["metric"].iloc[0]) if "metric" in table else y
    if {"subsample", "fold"} <= set(table):
        # the folds of a subsample share most of their samples: one value each, or the intervals were far too short
        keys = [key for key in (hue, x, "subsample") if key in table]
        table = table.groupby(keys, sort=False, observed=True)[y].mean().reset_index()
    names = table[hue].astype(str) if hue in table else pd.Series("", index=table.index)
    order = list(dict.fromkeys(names))
    # lines of one size stand beside each other, so that their intervals can be told apart
    sizes = np.sort(table[x].unique().astype(float))
    # many lines take no more than half the way to the next size, or they would stand at the wrong one
    step = min((sizes[-1] - sizes[0]) / 60, np.diff(sizes).min() / (2 * len(order))) if len(sizes) > 1 else 0.0
    ax = axes_or_new(ax, size=(6.4, 4.0))
    handles = []
    styles = zip(order, colors_for(order), turns(len(order), LINES), turns(len(order), MARKERS), strict=True)
    for i, (name, color, line, marker) in enumerate(styles):
        points = _means(table[names == name], x, y, level=level)
        points[["ci_low", "ci_high"]] = points[["ci_low", "ci_high"]].clip(*BOUNDS.get(label, (-np.inf, np.inf)))
        at = points.index.to_numpy(dtype=float) + (i - (len(order) - 1) / 2) * step
        spread = np.abs(points[["ci_low", "ci_high"]].to_numpy().T - points["mean"].to_numpy())
        container = ax.errorbar(
            at,
            points["mean"].to_numpy(),
            yerr=np.nan_to_num(spread),
            color=color,
            linestyle=line,
            marker=marker,
            markersize=5,
            linewidth=1.8,
            elinewidth=1.1,
            capsize=2.5,
            label=name,
        )
        handles.append(container.lines[0])
        rows = table[names == name]
        if rows[x].duplicated().any():
            offset = (i - (len(order) - 1) / 2) * step
            ax.plot(
                rows[x] + offset + 0.45 * step, rows[y], linestyle="", marker=".", markersize=4, alpha=0.35, color=color
            )
    for handle, name in zip(handles, order, strict=True):
        handle.set_label(name)
    if order != [""]:
        legend_beside(ax, [(hue, handles)])
    ax.set(xlabel="training samples" if x == "n_train" else x.replace("_", " "), ylabel=label.replace("_", " "))
    ax.set_xticks(sorted(table[x].unique()))
    tidy(ax, grid="y")
    return ax


def _means(table: pd.DataFrame, x: str, y: str, *, level: float) -> pd.DataFrame:
    """Mean and interval per size; intervals in the table win, a single row without one has none."""
    grouped = table.groupby(x)[y].agg(["mean", "std", "count"])
    half = (
        stats.t.ppf((1 + level) / 2, np.maximum(grouped["count"] - 1, 1)) * grouped["std"] / np.sqrt(grouped["count"])
    )
    grouped["ci_low"], grouped["ci_high"] = grouped["mean"] - half, grouped["mean"] + half
    if {"ci_low", "ci_high"} <= set(table) and not table[x].duplicated().any():
        given = table.set_index(x)[["ci_low", "ci_high"]].astype(float)
        grouped[["ci_low", "ci_high"]] = given.reindex(grouped.index)
    return grouped
