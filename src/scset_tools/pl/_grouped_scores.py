"""Scores of cell types, or any columns, by a label of the samples, with p-values: Fig. 5b and appendix K of PaSCient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import reading_order
from scset_tools.pl._style import (
    MARKERS,
    axes_or_new,
    background,
    colors_for,
    ink,
    legend_beside,
    point_handle,
    row_height,
    tidy,
    turns,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.8
"""Share of the place of a column that its boxes take."""


@habits()
@checks_numbers
def grouped_scores(
    table: pd.DataFrame,
    labels: pd.Series,
    *,
    association: pd.DataFrame | None = None,
    n_top: int = 12,
    ylabel: str = "attribution",
    ax: Axes | None = None,
) -> Axes:
    """Boxes and points of the columns of a table, side by side for each class of a label, with the p-value of each column above.

    Parameters
    ----------
    table
        (samples, columns) of numbers, such as that of :func:`scset_tools.tl.group_scores`; missing values are left out.
    labels
        Class of each sample, indexed by sample: a column of ``samples.obs``. Samples without one are left out.
    association
        Table of :func:`scset_tools.tl.association` of the same columns: its ``p_adjusted`` stand above the boxes, and columns stand in its order,
        smallest p-value first.
    n_top
        Number of columns to draw: the first of ``association``, or without it those of the largest means.
    ylabel
        Of the axis.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. A box spans the quartiles, its line is the median.

    Raises
    ------
    TypeError
        If ``table`` is no DataFrame or ``labels`` no Series.
    ValueError
        If no sample of the table has a label, or the association is of other columns.
    """
    if not isinstance(table, pd.DataFrame) or not isinstance(labels, pd.Series):
        msg = f"pl.grouped_scores takes a DataFrame and a Series, but was given {type(table).__name__} and {type(labels).__name__}."
        raise TypeError(msg)
    kind = "ordinal" if _labels.is_ordered(labels) else "class"
    own = labels.reindex(table.index)
    if not own.notna().any():
        msg = f"None of the {len(table)} samples of the table has a label; samples {_checks.first(table.index)}, labels of {_checks.first(labels.index)}."
        raise ValueError(msg)
    classes = _labels.read_classes(own, kind=kind)
    p_of = _p_values(association, table)
    order = list(p_of) if p_of else list(table.mean(axis=0).dropna().sort_values(ascending=False, kind="stable").index)
    shown = order[:n_top]
    each = max(row_height(len(shown), 0.8, least=0.5), 0.11 * len(classes.names))
    ax = axes_or_new(ax, size=(2.4 + each * len(shown), 4.0))
    hues, shapes = colors_for(list(classes.names)), turns(len(classes.names), MARKERS)
    codes = [classes.names.index(name) for name in reading_order(classes.names)]  # as in the legend
    width = WIDTH / len(classes.names)
    spread = np.random.default_rng(0)
    for i, name in enumerate(shown):
        values = table[name].to_numpy(dtype=np.float64)
        for place, code in enumerate(codes):
            part = values[(classes.codes == code) & np.isfinite(values)]
            if not len(part):
                continue
            color, shape = hues[code], shapes[code]
            at = i + (place - (len(hues) - 1) / 2) * width
            ax.boxplot(
                [part],
                positions=[at],
                widths=width * 0.85,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": ink(0.55)},
                whiskerprops={"color": ink(0.55)},
                capprops={"color": ink(0.55)},
                medianprops={"color": ink(), "linewidth": 1.2},
                manage_ticks=False,
            )
            jitter = spread.uniform(-0.25, 0.25, len(part)) * width * (len(part) > 1)
            ax.scatter(
                at + jitter, part, s=12, color=color, marker=shape, linewidths=0.3, edgecolors=background(), zorder=3
            )
        if name in p_of:
            ax.text(
                i,
                1.01,
                _shown(p_of[name]),
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize="small" if each >= 0.75 else "x-small",
                rotation=0 if each >= 0.75 else 30,
            )
    ax.axhline(0, color=ink(0.4), linewidth=0.8, zorder=1)
    ax.set_xticks(np.arange(len(shown)), [str(name) for name in shown], rotation=40, ha="right")
    ax.set(xlim=(-0.6, len(shown) - 0.4), ylabel=ylabel)
    title = str(labels.name) if labels.name is not None else "label"
    entries = [point_handle(classes.names[code], color=hues[code], marker=shapes[code]) for code in codes]
    legend_beside(ax, [(title, entries)])
    tidy(ax, grid="y")
    return ax


def _p_values(association: pd.DataFrame | None, table: pd.DataFrame) -> dict[object, float]:
    """Adjusted p-value of each column that was tested, in the order of the tests."""
    if association is None:
        return {}
    absent = [name for name in ("feature", "p_adjusted") if name not in association]
    if absent:
        msg = f"association lacks the columns {_checks.first(absent)}: pass the table of tl.association."
        raise ValueError(msg)
    if association["feature"].duplicated().any():
        msg = "association has a column more than once: pass the tests of one label, association[association['label_key'] == ...]."
        raise ValueError(msg)
    found = {f: p for f, p in zip(association["feature"], association["p_adjusted"], strict=True) if f in table.columns}
    if not found:
        msg = f"None of the columns of the table {_checks.first(table.columns)} was tested: {_checks.first(association['feature'])}."
        raise ValueError(msg)
    return found


def _shown(p: float) -> str:
    if np.isnan(p):
        return "not tested"
    return f"p = {p:.2g}" if p >= 1e-3 else f"p = {p:.0e}"
