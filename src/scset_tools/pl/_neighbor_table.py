"""Labels of the nearest neighbours as a heat map (MAESTRO Fig. 3b)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize

from scset_tools import _checks
from scset_tools.pl._habits import habits
from scset_tools.pl._style import CMAP, axes_or_new, color_bar, name_size, row_height, text_color_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES_WITH_NUMBERS = 15


@habits(palette=False)
def neighbor_table(table: object, *, ax: Axes | None = None) -> Axes:
    """Proportion of the nearest neighbours' labels (columns) given the true label (rows).

    Parameters
    ----------
    table
        The result of ``tl.neighbor_table``, or a DataFrame of proportions, classes x classes. Missing values stay blank.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes. Numbers are written into the cells for up to 15 classes, on a scale from 0 to 1; values below 0.005 are left out of the writing.
    With more classes the scale ends at the largest value.

    Raises
    ------
    TypeError
        If it is no such table.
    ValueError
        If it is empty or has values outside 0 to 1.
    """
    proportions = getattr(table, "proportions", table)
    if not isinstance(proportions, pd.DataFrame):
        msg = (
            f"pl.neighbor_table takes a DataFrame or a result with .proportions, but was given {type(table).__name__}."
        )
        raise TypeError(msg)
    values = proportions.to_numpy(dtype=float)
    if not values.size:
        msg = "pl.neighbor_table was given an empty table."
        raise ValueError(msg)
    is_outside = (values < 0) | (values > 1 + 1e-9)
    if is_outside.any():
        bad = _checks.first(proportions.index[is_outside.any(axis=1)].tolist())
        msg = f"Proportions must lie in 0 to 1, but {is_outside.sum()} do not (rows {bad}): divide each row by its sum."
        raise ValueError(msg)

    n_rows, n_columns = values.shape
    has_numbers = max(n_rows, n_columns) <= MAX_CLASSES_WITH_NUMBERS
    wide, high = (0.5, 0.42) if has_numbers else (row_height(n_columns, 0.3), row_height(n_rows, 0.3))
    ax = axes_or_new(ax, size=(2.6 + wide * n_columns, 1.8 + high * n_rows))
    # among many classes no share comes near one: on the whole scale all of them would be dark
    top = 1.0 if has_numbers else float(np.nanmax(values, initial=0.0)) or 1.0
    image = ax.imshow(np.ma.masked_invalid(values), cmap=CMAP, norm=Normalize(0, top), aspect="auto")
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if has_numbers else {"rotation": 90}
    ax.set_xticks(range(n_columns), proportions.columns.astype(str), fontsize=name_size(wide), **turned)
    ax.set_yticks(range(n_rows), _with_counts(proportions, getattr(table, "counts", None)), fontsize=name_size(high))
    ax.set(xlabel=f"{proportions.columns.name or 'neighbor'}'s label", ylabel=str(proportions.index.name or "label"))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if has_numbers:
        cmap = colormaps[CMAP]
        for i, j in zip(*np.nonzero(values >= 0.005), strict=True):
            color = text_color_on(cmap(values[i, j]))
            ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=color, fontsize="small")
    color_bar(ax, image, "proportion")
    return ax


def _with_counts(proportions: pd.DataFrame, counts: object) -> list[str]:
    """Row names, with the number of samples where it is known: a row of two samples is not to be trusted."""
    if isinstance(counts, pd.Series) and counts.index.equals(proportions.index):
        return [f"{name} ({n})" for name, n in counts.items()]
    return [str(name) for name in proportions.index]
