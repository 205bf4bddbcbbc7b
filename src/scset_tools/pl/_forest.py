"""Differences and effects with their intervals: one line per comparison, zero marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of
from scset_tools.pl._style import axes_or_new, background, colors_of, ink, name_size, row_height, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALUES = ("difference", "effect", "score", "mean")
NAMES = ("label", "label_key", "probe", "representation", "feature", "predictor", "metric")


@habits()
@checks_numbers
def forest(
    result: object,
    *,
    value: str | None = None,
    names: list[str] | None = None,
    level: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """A point with its interval per row, zero as a line: what is told from it is filled.

    Parameters
    ----------
    result
        A result with ``differences()`` (of ``tl.benchmark``) or ``added()`` (of ``tl.probe`` with covariates), or a DataFrame with
        ``ci_low``, ``ci_high`` and the value, such as that of ``tl.association`` in a design.
    value
        Column with the value. Default: the first of ``difference``, ``effect``, ``score``, ``mean``.
    names
        Columns that name a row. Default: those of ``label``, ``probe``, ``representation``, ``feature`` and their like that differ between rows.
    level
        Rows whose ``p_adjusted`` (else ``p_value``) lies below are filled; without such a column those whose interval leaves zero out.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes, first row on top. Infinite ends of intervals run to the edge.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    ValueError
        If no row has a finite value.
    """
    for method in ("differences", "added"):
        if not isinstance(result, pd.DataFrame) and callable(getattr(result, method, None)):
            result = getattr(result, method)()
    table = table_of(result, ["ci_low", "ci_high"], caller="pl.forest")
    found = [value] if value is not None else [column for column in VALUES if column in table]
    if not found or found[0] not in table:
        msg = f"pl.forest needs a column with the value ({value or ', '.join(VALUES)}). Columns: {_checks.first(table.columns, 20)}."
        raise KeyError(msg)
    table = table[np.isfinite(table[found[0]].to_numpy(dtype=float))]
    if not len(table):
        msg = f"No row has a finite {found[0]!r}."
        raise ValueError(msg)
    x, low, high = (table[column].to_numpy(dtype=float) for column in (found[0], "ci_low", "ci_high"))
    p = next((table[c].to_numpy(dtype=float) for c in ("p_adjusted", "p_value") if c in table), None)
    is_told = (low > 0) | (high < 0) if p is None else p < level
    ends = np.concatenate([x, low[np.isfinite(low)], high[np.isfinite(high)], [0.0]])
    edge = 0.06 * (np.ptp(ends) or 1.0)
    left, right = ends.min() - edge, ends.max() + edge
    y = np.arange(len(table))
    each = row_height(len(table), 0.3)
    ax = axes_or_new(ax, size=(6.4, 1.2 + each * len(table)))
    color = colors_of(1)[0]
    ax.hlines(
        y,
        np.clip(np.nan_to_num(low, nan=np.inf), left, x),
        np.clip(np.nan_to_num(high, nan=-np.inf), x, right),
        color=color,
    )
    ax.plot(x[is_told], y[is_told], "o", color=color, markersize=7)
    ax.plot(x[~is_told], y[~is_told], "o", color=color, markersize=7, markerfacecolor=background())
    ax.axvline(0, color=ink(0.7), linewidth=0.8)
    ax.set_yticks(y, _row_names(table, names), fontsize=name_size(each))
    ax.set(ylim=(len(table) - 0.5, -0.5), xlim=(left, right), xlabel=_title(table, found[0]))
    tidy(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return ax


def _row_names(table: pd.DataFrame, names: list[str] | None) -> list[str]:
    columns = names or [c for c in NAMES if c in table and table[c].nunique() > 1]
    columns = columns or [c for c in ("feature", "representation", *NAMES) if c in table][:1]
    absent = [c for c in columns if c not in table]
    if absent:
        msg = f"names {_checks.first(absent)} are not columns of the table: {_checks.first(table.columns, 20)}."
        raise KeyError(msg)
    return (
        [", ".join(map(str, row)) for row in table[columns].to_numpy(dtype=object)]
        if columns
        else [str(i) for i in table.index]
    )


def _title(table: pd.DataFrame, value: str) -> str:
    kinds: Sequence[str] = next((table[c].astype(str).unique() for c in ("metric", "effect_name") if c in table), [])
    what = f"{value} in {kinds[0]}" if len(kinds) == 1 and value != "effect" else kinds[0] if len(kinds) == 1 else value
    if "baseline" in table and table["baseline"].nunique() == 1:
        what = f"{what}, to {table['baseline'].iloc[0]}"
    return what.replace("_", " ")
