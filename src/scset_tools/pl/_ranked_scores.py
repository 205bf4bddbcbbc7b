"""Scores of cell types or genes over samples, ranked by their mean: Fig. 4 of PaSCient."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._style import OKABE_ITO, axes_or_new, background, colors_for, ink, name_size, row_height, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.32
"""How far points are spread about their row."""


@habits()
@checks_numbers
def ranked_scores(
    table: pd.DataFrame,
    *,
    n_top: int = 20,
    xlabel: str = "attribution",
    ax: Axes | None = None,
) -> Axes:
    """Boxes and points of the columns of a table, largest mean on top: one point per sample.

    Cell types (``tl.group_scores`` or ``attributions.by_group(target)``, Fig. 4a) or genes of a cell type
    (``attributions.by_sample(target, group="Monocyte")``, Fig. 4b-c).

    Parameters
    ----------
    table
        (samples, columns) of numbers; missing values are left out.
    n_top
        Number of columns to draw, those with the largest means.
    xlabel
        Of the axis.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. The box spans the quartiles, its line is the median; the diamond is the mean.

    Raises
    ------
    TypeError
        If it is no DataFrame of numbers.
    ValueError
        If there is nothing to draw.
    """
    if not isinstance(table, pd.DataFrame):
        msg = f"pl.ranked_scores takes a DataFrame of samples x columns, but was given {type(table).__name__}."
        raise TypeError(msg)
    values = table.astype(np.float64)
    means = values.mean(axis=0).dropna().sort_values(ascending=False, kind="stable").head(n_top)
    if not len(means):
        msg = f"pl.ranked_scores was given a table of shape {table.shape} without any number."
        raise ValueError(msg)
    each = row_height(len(means), 0.28)
    ax = axes_or_new(ax, size=(6.0, 1.2 + each * len(means)))
    columns = [values[c].dropna().to_numpy() for c in means.index]
    place = np.arange(len(columns))
    lying: dict[str, Any] = {"orientation": "horizontal"}
    if "orientation" not in signature(ax.boxplot).parameters:  # matplotlib before 3.10
        lying = {"vert": False}
    ax.boxplot(
        columns,
        positions=place,
        **lying,
        widths=0.6,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        boxprops={"facecolor": ink(0.07), "edgecolor": ink(0.55)},
        whiskerprops={"color": ink(0.55)},
        capprops={"color": ink(0.55)},
        medianprops={"color": ink(), "linewidth": 1.2},
        meanprops={"marker": "D", "markerfacecolor": OKABE_ITO[3], "markeredgecolor": background(), "markersize": 6},
        zorder=2,
    )
    spread = np.random.default_rng(0)
    for y, column in zip(place, columns, strict=True):
        at = y + spread.uniform(-WIDTH, WIDTH, len(column)) * (len(column) > 1)
        ax.scatter(
            column,
            at,
            s=14,
            color=colors_for(["samples"])[0],
            alpha=0.7,
            linewidths=0.3,
            edgecolors=background(),
            zorder=3,
        )
    ax.axvline(0, color=ink(0.4), linewidth=0.8, zorder=1)
    ax.set_yticks(place, [str(c) for c in means.index], fontsize=name_size(each))
    ax.set_ylim(len(columns) - 0.4, -0.6)
    ax.set_xlabel(xlabel)
    tidy(ax, grid="x")
    return ax
