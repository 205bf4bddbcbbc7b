"""Gene sets that a ranking is enriched for, as dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import table_of
from scset_tools.pl._style import CMAP, axes_or_new, color_bar, ink, name_size, row_height, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREAS = (25.0, 220.0)
"""Smallest and largest dot in square points."""


@habits(palette=False)
@checks_numbers
def enrichment(
    table: pd.DataFrame,
    *,
    name: str = "gene_set",
    score: str = "odds_ratio",
    p_value: str = "p_adjusted",
    size: str = "n_overlap",
    n_top: int = 15,
    ax: Axes | None = None,
) -> Axes:
    """The most significant gene sets: position the effect, area the overlap, colour the p-value.

    Parameters
    ----------
    table
        DataFrame with one row per gene set.
    name
        Column with the name of the set.
    score
        Column with the effect.
    p_value
        Column with the (adjusted) p-value.
    size
        Column with the number of genes in common.
    n_top
        Number of sets to draw, smallest p-value on top.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. Infinite effects stand at the right edge; a p-value of zero has the colour of the smallest positive one.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    ValueError
        If no row has a p-value, or one is outside 0 to 1.
    """
    table = table_of(table, [name, score, p_value, size], caller="pl.enrichment")
    p = table[p_value].to_numpy(dtype=float)
    if np.isnan(p).all() or (p < 0).any() or (p > 1).any():
        msg = f"{p_value!r} must hold p-values between 0 and 1, but has {np.nanmin(p):.3g} to {np.nanmax(p):.3g}."
        raise ValueError(msg)
    table = table[~np.isnan(p)].sort_values(p_value, kind="stable").head(n_top)
    p = table[p_value].to_numpy(dtype=float)
    smallest = p[p > 0].min(initial=1.0)
    strength = -np.log10(np.maximum(p, smallest))
    effect = table[score].to_numpy(dtype=float)
    finite = effect[np.isfinite(effect)]
    edge = finite.max() * 1.1 if len(finite) else 1.0
    n_genes = table[size].to_numpy(dtype=float)
    most = max(n_genes.max(initial=1.0), 1.0)

    each = row_height(len(table), 0.32)
    ax = axes_or_new(ax, size=(7.2, max(1.3 + each * len(table), 3.0)))
    y = np.arange(len(table))
    dots = ax.scatter(
        np.where(np.isposinf(effect), edge, effect),
        y,
        s=_area(n_genes, most),
        c=strength,
        cmap=CMAP,
        vmin=0,
        vmax=max(strength.max(), 1.0),
        edgecolors=ink(0.7),
        linewidths=0.5,
        zorder=2,
    )
    ax.set_yticks(y, table[name].astype(str), fontsize=name_size(each))
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlabel(score.replace("_", " "))
    ax.margins(x=0.12)
    tidy(ax, grid="both")
    marks = np.unique(np.linspace(max(n_genes.min(initial=most), 1.0), most, 3).round().astype(int))
    handles = [
        Line2D([], [], linestyle="", marker="o", color=ink(0.5), markersize=np.sqrt(_area(n, most)), label=str(n))
        for n in marks
    ]
    ax.legend(
        handles=handles,
        title=size.replace("n_", "").replace("_", " "),
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize="small",
        labelspacing=0.9,
    )
    color_bar(ax, dots, f"−log10 {p_value.replace('_', ' ')}", anchor=(0, 0))
    return ax


def _area(n: np.ndarray | float, most: float) -> np.ndarray:
    """Area of a dot, linear in the number of genes."""
    return AREAS[0] + (AREAS[1] - AREAS[0]) * np.asarray(n, dtype=float) / most
