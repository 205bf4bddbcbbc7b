"""Which genes a masked autoencoder hides, by how strongly they are expressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from scset_tools import _keys
from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._point_labels import label_points
from scset_tools.pl._style import axes_or_new, colors_of, tidy

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@habits()
@checks_numbers
def masking_frequency(
    genes: pd.DataFrame | AnnData,
    *,
    frequency: str = "times_masked",
    mean: str = "mean_when_masked",
    name: str = "selfguidedmae",
    n_labels: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Masking frequency of each gene against its mean value when masked (Self-guided masking, Figure 2).

    Parameters
    ----------
    genes
        What ``SelfGuidedMAE.get_masking_frequency`` returns, or an AnnData after ``annotate_masking_frequency``.
    frequency
        Column for the vertical axis: ``"times_masked"``, ``"share_masked"`` or ``"share_masked_expressed"``. The last one asks how
        often a gene was hidden where it was expressed, and does not grow with the number of cells that express it.
    mean
        Column for the horizontal axis.
    name
        Prefix of the columns in ``adata.var``.
    n_labels
        How many of the genes masked most often are named.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes; the Spearman correlation stands in a corner. Genes without a value are left out.

    Raises
    ------
    TypeError, KeyError
        If it is no such table.
    ValueError
        If fewer than two genes have both values.
    """
    if isinstance(genes, pd.DataFrame):
        table, columns = genes, [frequency, mean]
    elif hasattr(genes, "var"):
        table, columns = genes.var, [_keys.of_model(name, column) for column in (frequency, mean)]
    else:
        msg = f"pl.masking_frequency takes a DataFrame or an AnnData, but was given {type(genes).__name__}."
        raise TypeError(msg)
    absent = [column for column in columns if column not in table]
    if absent:
        msg = (
            f"pl.masking_frequency needs the columns {absent}: take the table of get_masking_frequency(), or call "
            "annotate_masking_frequency() first."
        )
        raise KeyError(msg)
    values = table[columns].astype(float)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        msg = f"{len(values)} of {len(table)} genes have both {columns[0]!r} and {columns[1]!r}: nothing to draw."
        raise ValueError(msg)
    y, x = values.to_numpy().T
    ax = axes_or_new(ax, size=(6.0, 4.6))
    ax.scatter(x, y, s=12, color=colors_of(1)[0], alpha=0.5, linewidths=0)
    rho = spearmanr(x, y).statistic
    ax.text(
        0.02, 0.98, f"Spearman {rho:.2f}, {len(values):,} genes", transform=ax.transAxes, va="top", fontsize="small"
    )
    ax.set(xlabel=mean.replace("_", " "), ylabel=frequency.replace("_", " "))
    ax.margins(0.06, 0.12)  # the correlation stands above the points
    tidy(ax, grid="both")
    named = np.argsort(-y, kind="stable")[:n_labels]
    label_points(ax, values.to_numpy()[named][:, ::-1], [str(values.index[i]) for i in named])
    return ax
