"""Which cells a model attends to, by cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from scset_tools import _keys
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, column, is_number, stored_colors
from scset_tools.pl._style import axes_or_new, ink, name_size, row_height, text_color_on, tidy

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@habits()
def attention(adata: AnnData, *, groupby: str, key: str = _keys.attention("maestro"), ax: Axes | None = None) -> Axes:
    """Distribution of the attention on the cells of each type, highest median on top.

    Parameters
    ----------
    adata
        Cells with attention, as written by ``annotate_attention`` of a model.
    groupby
        Column of ``adata.obs`` with the cell types.
    key
        Column of ``adata.obs`` with the attention times the number of cells of the sample: 1 is as much as the average
        cell gets. Cells without a value are left out.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes: boxes from the first to the third quartile with the median, whiskers from the 5th to the 95th percentile,
    number of cells behind the name. The scale is logarithmic if all values are positive.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If ``key`` is not numeric, or no cell has a value and a type.
    """
    values = column(adata, key, caller="pl.attention")
    types = column(adata, groupby, caller="pl.attention")
    if not is_number(values):
        msg = f"adata.obs[{key!r}] has the type {values.dtype}, but attention is a number."
        raise ValueError(msg)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(numbers)
    groups = [
        (np.median(numbers[rows & is_known]), name, color, numbers[rows & is_known])
        for name, color, _, rows in categories(types, colors=stored_colors(adata, groupby)).present()
        if (rows & is_known).any()
    ]
    if not groups:
        msg = f"No cell has both a value in adata.obs[{key!r}] and a type in adata.obs[{groupby!r}]."
        raise ValueError(msg)
    groups.sort(key=lambda group: group[0])

    each = row_height(len(groups), 0.34)
    ax = axes_or_new(ax, size=(6.4, 1.2 + each * len(groups)))
    rows = np.arange(len(groups))
    low, q1, median, q3, high = np.array([np.percentile(group[3], (5, 25, 50, 75, 95)) for group in groups]).T
    ax.hlines(rows, low, high, color=ink(0.7), linewidth=1.0, zorder=2)
    ax.barh(rows, q3 - q1, left=q1, height=0.65, color=[group[2] for group in groups], zorder=3)
    on_bars = [text_color_on(group[2]) for group in groups]  # the bars have colours of their own, in any style
    ax.vlines(median, rows - 0.325, rows + 0.325, colors=on_bars, linewidth=1.8, zorder=4)
    ax.set_yticks(rows, [f"{group[1]} ({len(group[3]):,})" for group in groups], fontsize=name_size(each))
    ax.axvline(1.0, color=ink(0.75), linewidth=1.2, linestyle="--", zorder=1)
    if numbers[is_known].min() > 0:
        ax.set_xscale("log", base=2)
        left, right = ax.get_xlim()
        if right < 8 * left:  # powers of two alone would leave a tick or none
            marks = MaxNLocator(5).tick_values(left, right)
            ax.set_xticks([mark for mark in marks if left <= mark <= right and mark > 0])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel="attention (1: as much as the average cell)", ylabel=groupby)
    tidy(ax, grid="x")
    return ax
