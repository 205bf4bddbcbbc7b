"""What technical properties say of a label, beside what the representation says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from scset_tools.pl._bars import BAR, grouped_bars
from scset_tools.pl._inputs import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def confounding(
    result: object,
    *,
    predictor: str = "predictor",
    target: str = "target",
    value: str = "mean",
    chance: str = "chance",
    ax: Axes | None = None,
) -> Axes:
    """Bars with intervals: a group per target (label, batch), a bar per predictor (representation, batch, depth, ...).

    A label that the number of cells or the batch predicts as well as the representation does proves nothing.

    Parameters
    ----------
    result
        A result with ``summary()``, or a DataFrame with one row per bar.
    predictor, target, value
        Columns with what predicts, what is predicted, and how well. Intervals are read from `ci_low` and `ci_high`.
    chance
        Column with the chance level of the target, drawn as a dashed line across its group, if there is one.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    ValueError
        If it has no rows.
    """
    table = table_of(result, [predictor, target, value], caller="pl.confounding")
    extra = [Line2D([], [], color="black", linestyle="--", label=chance)] if chance in table else []
    ax = grouped_bars(table, group=target, hue=predictor, value=value, ax=ax, extra=extra)
    if chance in table:
        levels = table.groupby(table[target].astype(str), sort=False)[chance].mean()  # in the order of the groups
        rows, x = np.arange(len(levels)), levels.to_numpy(dtype=float)
        known = np.isfinite(x)
        ax.vlines(x[known], rows[known] - BAR / 2 - 0.06, rows[known] + BAR / 2 + 0.06, colors="black", linestyles="--")
    metrics = table["metric"].astype(str).unique() if "metric" in table else []
    ax.set_xlabel(metrics[0].replace("_", " ") if len(metrics) == 1 else value.replace("_", " "))
    return ax
