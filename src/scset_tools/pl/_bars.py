"""Horizontal bars in groups, with intervals: what benchmark and confounding plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from scset_tools.pl._style import (
    HATCHES,
    axes_or_new,
    background,
    colors_for,
    ink,
    legend_beside,
    name_size,
    row_height,
    tidy,
    turns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

BAR = 0.8
"""Height of a group of bars; the distance of two groups is 1."""


def grouped_bars(
    table: pd.DataFrame, *, group: str, hue: str, value: str, ax: Axes | None, extra: Sequence[Artist] = ()
) -> Axes:
    """A group of bars per value of ``group`` (top to bottom in order of appearance), a bar per value of ``hue``.

    Colours go by the categories of ``hue`` (also those that do not occur), by the order that a result gave its table, or by appearance: what
    is drawn in several panels has one colour in all of them.
    Intervals are read from ``ci_low`` and ``ci_high`` if there are such columns; a missing one leaves its bar without.
    ``extra`` are further legend entries.
    """
    groups = list(dict.fromkeys(table[group].astype(str)))
    hues = hue_order(table, hue)
    has_intervals = {"ci_low", "ci_high"} <= set(table)
    at = table[group].astype(str).map(groups.index).to_numpy()
    bar = table[hue].astype(str).map(hues.index).to_numpy()
    # a group has the bars that it has, without gaps for the others, and all bars are equally thick
    place = np.array([sum(other < b for other in set(bar[at == g])) for g, b in zip(at, bar, strict=True)])
    n_bars = np.array([len(set(bar[at == g])) for g in at])
    height = BAR / max(n_bars)
    y_of = at + (place - (n_bars - 1) / 2) * height
    n_hues = len(set(bar))
    each = max(row_height(len(groups) * n_hues, 0.22, least=0.11) * n_hues, row_height(len(groups), 0.35))
    ax = axes_or_new(ax, size=(7.0, 1.1 + len(groups) * each))
    handles = []
    for i, (name, color, hatch) in enumerate(zip(hues, colors_for(hues), turns(len(hues), HATCHES), strict=True)):
        rows, y = table[bar == i], y_of[bar == i]
        if not len(rows):
            continue
        x = rows[value].to_numpy(dtype=float)
        ax.barh(y, x, height=height * 0.92, color=color, hatch=hatch, edgecolor=background(), linewidth=0, label=name)
        if has_intervals:
            low, high = rows["ci_low"].to_numpy(dtype=float), rows["ci_high"].to_numpy(dtype=float)
            known = np.isfinite(low) & np.isfinite(high) & np.isfinite(x)
            ax.errorbar(
                x[known],
                y[known],
                xerr=np.maximum([x[known] - low[known], high[known] - x[known]], 0),
                fmt="none",
                ecolor=ink(0.8),
                elinewidth=1.1,
                capsize=2,
            )
        handles.append(Patch(facecolor=color, hatch=hatch, edgecolor=background(), linewidth=0, label=name))
    ax.set_yticks(range(len(groups)), groups, fontsize=name_size(each / (1 + max(g.count("\n") for g in groups))))
    ax.set_ylim(len(groups) - 0.5, -0.5)  # the first group on top
    ax.axvline(0, color=ink(0.7), linewidth=0.8)
    legend_beside(ax, [(hue, [*handles, *extra])])
    tidy(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    return ax


def hue_order(table: pd.DataFrame, hue: str) -> list[str]:
    """Names of ``hue`` in the order of their colours: categories, ``table.attrs["order"]``, or appearance."""
    present = list(dict.fromkeys(table[hue].astype(str)))
    if isinstance(table[hue].dtype, pd.CategoricalDtype):
        known = [str(c) for c in table[hue].cat.categories]
    else:
        known = [str(c) for c in table.attrs.get("order", {}).get(hue, [])]
    return [*known, *(name for name in present if name not in known)]
