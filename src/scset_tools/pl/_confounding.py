"""What technical properties say of a label, beside what the representation says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from scset_tools.pl._bars import BAR, grouped_bars
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of
from scset_tools.pl._style import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits()
def confounding(
    result: object,
    *,
    predictor: str = "predictor",
    target: str = "target",
    value: str = "score",
    chance: str = "chance",
    ax: Axes | None = None,
) -> Axes:
    """Bars with intervals: a group per target (label, batch), a bar per predictor (representation, batch, depth, ...).

    A label that the number of cells or the batch predicts as well as the representation does proves nothing.

    Parameters
    ----------
    result
        The result of ``tl.confounding``, or a DataFrame with one row per bar.
    predictor
        Column with what predicts. If a predictor occurs twice for a target, the column `held_out` tells the two apart.
    target
        Column with what is predicted.
    value
        Column with how well. Intervals are read from `ci_low` and `ci_high`. Rows without a value are left out.
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
        If no row has a value, or two rows are the same bar.
    """
    source = result if isinstance(result, pd.DataFrame) else getattr(result, "table", result)
    table = table_of(source, [predictor, target, value], caller="pl.confounding")
    table = table[np.isfinite(table[value].to_numpy(dtype=float))].copy()  # a verdict in words has no bar
    if not len(table):
        msg = f"No row has a finite {value!r}."
        raise ValueError(msg)
    asked_twice = table.loc[table.duplicated([target, predictor]), predictor].unique()
    is_asked_twice = table[predictor].isin(asked_twice)
    if len(asked_twice) and "held_out" in table:
        held_out = table["held_out"].astype(str) + " held out"
        table[predictor] = table[predictor].astype(str).mask(is_asked_twice, table[predictor] + ", " + held_out)
    twice = table.duplicated([target, predictor])
    if twice.any():
        culprit = table.loc[twice, [target, predictor]].iloc[0].tolist()
        msg = f"{twice.sum()} bars have more than one row in the table (first: {culprit}): keep one of each."
        raise ValueError(msg)
    extra = [Line2D([], [], color=ink(), linestyle="--", label=chance)] if chance in table else []
    ax = grouped_bars(table, group=target, hue=predictor, value=value, ax=ax, extra=extra)
    if chance in table:
        levels = table.groupby(table[target].astype(str), sort=False)[chance].mean()  # in the order of the groups
        rows, x = np.arange(len(levels)), levels.to_numpy(dtype=float)
        known = np.isfinite(x)
        ax.vlines(x[known], rows[known] - BAR / 2 - 0.06, rows[known] + BAR / 2 + 0.06, colors=ink(), linestyles="--")
    metrics = table["metric"].astype(str).unique() if "metric" in table else [value]
    ax.set_xlabel(" or ".join(metrics).replace("_", " "))
    return ax
