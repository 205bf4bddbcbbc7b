"""Predicted against true proportions of cell types (MAESTRO 4.5, scSet appendix H)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import reading_order
from scset_tools.pl._style import MARKERS, axes_or_new, colors_for, ink, legend_beside, point_handle, tidy, turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits()
def proportions(true: pd.DataFrame, predicted: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A point per sample and cell type, with the line on which a perfect prediction lies.

    Parameters
    ----------
    true
        What was counted, samples x cell types. Pairs with a missing value are left out.
    predicted
        What was predicted: the same samples and types in any order.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. Mean absolute error and Pearson correlation of all points stand in the corner.

    Raises
    ------
    TypeError
        If one is no DataFrame.
    ValueError
        If samples or cell types differ, or no pair is left.
    """
    for name, table in (("true", true), ("predicted", predicted)):
        if not isinstance(table, pd.DataFrame):
            msg = f"pl.proportions takes DataFrames of samples x cell types, but {name} is {type(table).__name__}."
            raise TypeError(msg)
    for what, a, b in (("samples", true.index, predicted.index), ("cell types", true.columns, predicted.columns)):
        only = a.symmetric_difference(b)
        if len(only) or a.has_duplicates or b.has_duplicates:
            culprits = only.tolist() or a[a.duplicated()].tolist() or b[b.duplicated()].tolist()
            msg = f"true and predicted must have the same {what}, each once. First culprits: {_checks.first(culprits)}."
            raise ValueError(msg)
    predicted = predicted.loc[true.index, true.columns]
    x, y = true.to_numpy(dtype=float), predicted.to_numpy(dtype=float)
    is_known = np.isfinite(x) & np.isfinite(y)
    if not is_known.any():
        msg = f"No pair of finite values among {len(true)} samples x {true.shape[1]} cell types."
        raise ValueError(msg)

    ax = axes_or_new(ax, size=(7.0, 4.6), is_square=True)
    low, high = min(0.0, y[is_known].min()), max(x[is_known].max(), y[is_known].max()) * 1.05 or 1.0
    ax.axline((0, 0), slope=1, color=ink(0.6), linewidth=1.0, linestyle="--", zorder=1)
    # the order of the columns is the user's; names that were merely sorted read P2, P10
    types = reading_order([str(t) for t in true.columns])
    place = [[str(t) for t in true.columns].index(name) for name in types]
    x, y, is_known = x[:, place], y[:, place], is_known[:, place]
    handles = []
    for j, (name, color, marker) in enumerate(zip(types, colors_for(types), turns(len(types), MARKERS), strict=True)):
        rows = is_known[:, j]
        ax.scatter(x[rows, j], y[rows, j], s=22, c=color, marker=marker, alpha=0.75, linewidths=0, label=name, zorder=2)
        handles.append(point_handle(name, color=color, marker=marker))
    ax.text(0.03, 0.97, _scores(x[is_known], y[is_known]), transform=ax.transAxes, va="top", fontsize="small")
    ax.set(xlabel="true proportion", ylabel="predicted proportion", xlim=(low, high), ylim=(low, high))
    ax.set_aspect("equal")
    legend_beside(ax, [("cell type", handles)])
    tidy(ax)
    return ax


def _scores(x: np.ndarray, y: np.ndarray) -> str:
    """Mean absolute error, and Pearson's r where it is defined."""
    error = f"MAE {np.abs(x - y).mean():.3f}"
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return error
    return f"{error}\nPearson r {np.corrcoef(x, y)[0, 1]:.2f}"
