"""Samples and features, both clustered, with bars of metadata beside the samples (scSet Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scset_tools.pl._inputs import categories, column, is_number, representation, stored_colors
from scset_tools.pl._style import CMAP, MISSING, MISSING_LABEL

if TYPE_CHECKING:
    from anndata import AnnData

MAX_SAMPLE_NAMES = 60
MAX_FEATURE_NAMES = 50


def clustermap(
    samples: AnnData,
    *,
    color: str | Sequence[str] = (),
    use_rep: str | None = None,
    metric: str = "euclidean",
    method: str = "average",
    figsize: tuple[float, float] | None = None,
) -> sns.matrix.ClusterGrid:
    """Heat map of the representation with trees of samples and features, and a bar per column of metadata.

    Features are centred and scaled to one standard deviation over the samples before clustering. Equal rows or columns get no tree.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    color
        Column of ``samples.obs``, or columns, drawn as bars left of the heat map. Numbers get a colour scale.
    use_rep
        Key of ``samples.obsm`` with the representation. Default: ``samples.X``.
    metric, method
        Distance and linkage, as `scipy.cluster.hierarchy.linkage` knows them.
    figsize
        Size of the figure in inches. Default: from the numbers of samples and features.

    Returns
    -------
    seaborn's ClusterGrid and not Axes, because the figure is made of several (``ax_heatmap``, ``ax_row_colors``, trees) and
    the order of the rows is read from it (``dendrogram_row.reordered_ind``). It cannot be drawn on axes of your own.

    Raises
    ------
    KeyError
        If a column or representation is not there.
    ValueError
        If the representation is empty or not finite.
    """
    x = representation(samples, use_rep, caller="pl.clustermap")
    scale = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    features = (
        samples.var_names if use_rep is None else [f"{use_rep.removeprefix('X_')}_{i}" for i in range(z.shape[1])]
    )
    keys = [color] if isinstance(color, str) else list(color)
    bars, sections = {}, []
    for key in keys:
        bars[key], handles = _bar(samples, key)
        sections.append((key, handles))

    width = figsize[0] if figsize else float(np.clip(4.0 + 0.16 * z.shape[1], 6.5, 12))
    height = figsize[1] if figsize else float(np.clip(2.5 + 0.17 * len(z), 5, 12))
    limit = float(np.clip(np.abs(z).max(initial=0.0), 1e-9, 3.0))
    grid = sns.clustermap(
        pd.DataFrame(z, index=samples.obs_names, columns=features),
        row_colors=pd.DataFrame(bars, index=samples.obs_names) if keys else None,
        row_cluster=bool((z != z[:1]).any()),  # a tree of rows that are all the same has no height
        col_cluster=bool((z != z[:, :1]).any()),
        metric=metric,
        method=method,
        cmap="PuOr_r",
        vmin=-limit,
        vmax=limit,
        figsize=(width + 1.8, height),
        dendrogram_ratio=(0.14, 0.1),
        colors_ratio=0.022,
        xticklabels=z.shape[1] <= MAX_FEATURE_NAMES,
        yticklabels=len(z) <= MAX_SAMPLE_NAMES,
        cbar_kws={"label": "z-score", "orientation": "horizontal"},
    )
    grid.ax_heatmap.set(xlabel="", ylabel="")
    grid.ax_heatmap.tick_params(labelsize="small")
    _lay_out(grid, sections, width=width)
    return grid


def _bar(samples: AnnData, key: str) -> tuple[list[str], list[Patch]]:
    """Colour of each sample by a column, and the legend entries."""
    values = column(samples, key, caller="pl.clustermap")
    if not is_number(values):
        groups = categories(values, colors=stored_colors(samples, key))
        color_of = dict(zip([*groups.names, MISSING_LABEL], [*groups.colors, MISSING], strict=True))
        entries = groups.handles()
        return [color_of[name] for name in groups.labels], [
            Patch(color=color_of[str(entry.get_label())], label=entry.get_label()) for entry in entries
        ]
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(numbers)
    if not is_known.any():
        return [MISSING] * len(numbers), [Patch(color=MISSING, label=MISSING_LABEL)]
    low, high = float(numbers[is_known].min()), float(numbers[is_known].max())
    scale, cmap = Normalize(low, high), colormaps[CMAP]
    colors = [to_hex(cmap(float(scale(v)))) if known else MISSING for v, known in zip(numbers, is_known, strict=True)]
    marks = np.unique([low, (low + high) / 2, high])
    handles = [Patch(color=cmap(float(scale(v))), label=f"{v:.4g}") for v in marks]
    return colors, handles + ([] if is_known.all() else [Patch(color=MISSING, label=MISSING_LABEL)])


def _lay_out(grid: sns.matrix.ClusterGrid, sections: list[tuple[str, list[Patch]]], *, width: float) -> None:
    """Legends in a strip of their own at the right, the colour scale below them: seaborn would lay it over the trees."""
    right = width / (width + 1.8)
    grid.figure.canvas.draw()  # names have a size only once they are drawn
    names = grid.ax_heatmap.get_yticklabels()
    longest = max((label.get_window_extent().width for label in names), default=0.0) / grid.figure.bbox.width
    grid.gs.update(right=right - longest - 0.01, top=0.98, left=0.01)
    handles: list[Patch | Line2D] = []
    for title, entries in sections:
        handles += [Line2D([], [], linestyle="", label=title), *entries]
    if handles:
        legend = grid.figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(right + 0.01, 0.98), frameon=False, fontsize="small"
        )
        titles = {title for title, _ in sections}
        for text, handle in zip(legend.get_texts(), handles, strict=True):
            text.set_fontweight("bold" if isinstance(handle, Line2D) and text.get_text() in titles else "normal")
    grid.ax_cbar.set_position((right + 0.02, 0.08, 1.2 / (width + 1.8), 0.02))
    grid.ax_cbar.tick_params(labelsize="small")
