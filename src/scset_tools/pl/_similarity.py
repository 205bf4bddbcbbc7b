"""How alike labels are, as a heat map in the order of a clustering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from scset_tools.pl._habits import habits
from scset_tools.pl._style import DIVERGING, axes_or_new, color_bar, ink, name_size, row_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits(palette=False)
def similarity(
    table: pd.DataFrame, *, is_clustered: bool = True, label: str = "correlation", ax: Axes | None = None
) -> Axes:
    """Heat map of a similarity matrix, labels that are alike beside each other (PaSCient App. H-I).

    Parameters
    ----------
    table
        From :func:`scset_tools.tl.label_similarity`: square, with names on both sides.
    is_clustered
        Whether labels stand in the order of an average-linkage clustering of one less their similarity. Otherwise, and with missing values,
        in the order of the table.
    label
        Of the colour bar.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. Red is positive, blue negative; missing values are grey.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If it is empty or not square.
    """
    if not isinstance(table, pd.DataFrame):
        msg = f"pl.similarity takes the table of tl.label_similarity, but was given {type(table).__name__}."
        raise TypeError(msg)
    if not len(table) or list(table.index) != list(table.columns):
        msg = f"pl.similarity takes a square table with the same names on both sides, but was given one of shape {table.shape}."
        raise ValueError(msg)
    values = table.to_numpy(dtype=np.float64)
    order = np.arange(len(values))
    if is_clustered and len(values) > 2 and np.isfinite(values).all():
        distance = np.clip(1 - (values + values.T) / 2, 0, None)
        np.fill_diagonal(distance, 0)
        order = leaves_list(linkage(squareform(distance, checks=False), method="average"))
    each = row_height(len(values), 0.3)
    side = 2.4 + each * len(values)
    ax = axes_or_new(ax, size=(side + 0.8, side))
    limit = max(1.0, float(np.nanmax(np.abs(values)))) if np.isfinite(values).any() else 1.0
    ax.set_facecolor(ink(0.2))
    shown = np.ma.masked_invalid(values[np.ix_(order, order)])
    image = ax.imshow(shown, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="none")
    names = [str(table.index[i]) for i in order]
    ax.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=name_size(each))
    ax.set_yticks(np.arange(len(names)), names, fontsize=name_size(each))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    color_bar(ax, image, label, pad=0.02)
    return ax
