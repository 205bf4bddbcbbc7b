"""Scores of genes by cell type as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._style import DIVERGING, axes_or_new, color_bar, ink, name_size, row_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@habits(palette=False)
@checks_numbers
def gene_heatmap(
    table: pd.DataFrame,
    *,
    n_top: int = 5,
    label: str = "mean attribution",
    ax: Axes | None = None,
) -> Axes:
    """Genes that score most in each cell type, over all cell types.

    Parameters
    ----------
    table
        (cell types, genes), such as ``attributions.by_group_and_feature(target)`` or ``adata.varm[key].T``.
    n_top
        Number of genes taken from each cell type, by absolute score; a gene is drawn once.
    label
        Of the colour bar.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes: cell types in the order of the table, genes in the order of a clustering; red is positive, blue negative, on a
    scale that is the same for both signs. Where a value is missing the field is grey.

    Raises
    ------
    TypeError
        If it is no DataFrame.
    ValueError
        If there is nothing to draw.
    """
    if not isinstance(table, pd.DataFrame):
        msg = f"pl.gene_heatmap takes a DataFrame of cell types x genes, but was given {type(table).__name__}."
        raise TypeError(msg)
    values = table.astype(np.float64)
    size = values.abs()
    chosen = list(dict.fromkeys(g for row in size.index for g in size.loc[row].dropna().nlargest(n_top).index))
    if not chosen:
        msg = f"pl.gene_heatmap was given a table of shape {table.shape} without any number."
        raise ValueError(msg)
    shown = values[chosen]
    if len(chosen) > 2:
        shown = shown.iloc[:, leaves_list(linkage(shown.fillna(0).to_numpy().T, method="average"))]
    n_rows, n_columns = shown.shape
    wide, high = row_height(n_columns, 0.26), row_height(n_rows, 0.3)
    ax = axes_or_new(ax, size=(2.6 + wide * n_columns, 1.8 + high * n_rows))
    limit = float(np.nanmax(np.abs(shown.to_numpy()))) or 1.0
    ax.set_facecolor(ink(0.2))
    image = ax.imshow(
        np.ma.masked_invalid(shown.to_numpy()),
        cmap=DIVERGING,
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="none",
    )
    ax.set_xticks(np.arange(shown.shape[1]), [str(g) for g in shown.columns], rotation=90, fontsize=name_size(wide))
    ax.set_yticks(np.arange(len(shown)), [str(t) for t in shown.index], fontsize=name_size(high))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    color_bar(ax, image, label, pad=0.02)
    return ax
