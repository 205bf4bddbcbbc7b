"""How likely a study of a given size finds the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of
from scset_tools.pl._style import axes_or_new, background, colors_of, ink, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits()
@checks_numbers
def power(result: object, *, target: float | None = 0.8, ax: Axes | None = None) -> Axes:
    """Power against the number of donors, with its interval; what lies beyond the pilot is dashed.

    Parameters
    ----------
    result
        The result of ``tl.power``, or its ``table``: ``n_samples``, ``power``, and where there are any ``power_low``, ``power_high``,
        ``is_extrapolated``.
    target
        Power marked by a line. None: no line.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    """
    source = result if isinstance(result, pd.DataFrame) else getattr(result, "table", result)
    table = table_of(source, ["n_samples", "power"], caller="pl.power").sort_values("n_samples")
    n, y = table["n_samples"].to_numpy(dtype=float), table["power"].to_numpy(dtype=float)
    beyond = (
        table["is_extrapolated"].to_numpy(dtype=bool) if "is_extrapolated" in table else np.zeros(len(n), dtype=bool)
    )
    ax = axes_or_new(ax, size=(6.0, 4.0))
    color = colors_of(1)[0]
    if {"power_low", "power_high"} <= set(table):
        ax.fill_between(n, table["power_low"], table["power_high"], color=color, alpha=0.2, linewidth=0)
    n_inside = int((~beyond).sum())
    ax.plot(n[:n_inside], y[:n_inside], "o-", color=color)
    if beyond.any():
        ax.plot(n[max(n_inside - 1, 0) :], y[max(n_inside - 1, 0) :], "o--", color=color, markerfacecolor=background())
    if target is not None:
        ax.axhline(target, color=ink(0.7), linewidth=0.8, linestyle=":")
    ax.set(xlabel="donors", ylabel="power", ylim=(-0.02, 1.02))
    tidy(ax, grid="y")
    return ax
