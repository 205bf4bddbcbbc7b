"""Samples and features, both clustered, with bars of metadata beside the samples (scSet Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, is_number, representation, stored_colors, values_of
from scset_tools.pl._palette import is_asked
from scset_tools.pl._style import (
    CMAP,
    DIVERGING,
    MISSING,
    MISSING_LABEL,
    ROWS_PER_LEGEND_COLUMN,
    colors_for,
    ink,
    legend_columns,
    name_size,
    row_height,
    text_color_on,
)

if TYPE_CHECKING:
    from anndata import AnnData

MAX_SAMPLE_NAMES = 120
MAX_FEATURE_NAMES = 50
FOOT = 1.6
"""Inches below the heat map, until the names of features are measured."""
NUMBER_MAPS = (CMAP, "Purples", "Greens", "Oranges")
"""Scales of numeric bars, one after the other."""


@habits()
@checks_numbers
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
        Column of ``samples.obs`` or feature of ``samples.var_names``, or several, drawn as bars left of the heat map. Numbers get a colour
        scale. Each bar begins with other colours than the one before; more categories than colours are numbered in bar and legend.
    use_rep
        Key of ``samples.obsm`` with the representation. Default: ``samples.X``.
    metric
        Distance, as `scipy.cluster.hierarchy.linkage` knows it.
    method
        Linkage, by the names of the same function.
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
    bars, sections, numbers, used = {}, [], {}, [0, 0]
    for key in keys:
        bars[key], handles, numbers[key] = _bar(samples, key, used)
        sections.append((key, handles))

    width = figsize[0] if figsize else float(np.clip(4.0 + 0.16 * z.shape[1], 6.5, 12))
    each = row_height(len(z), 0.2, least=0.11 if len(z) <= MAX_SAMPLE_NAMES else 0.05)
    height = figsize[1] if figsize else max(3.0, 0.9 + each * len(z)) + FOOT
    limit = float(np.clip(np.abs(z).max(initial=0.0), 1e-9, 3.0))
    grid = sns.clustermap(
        pd.DataFrame(z, index=samples.obs_names, columns=features),
        row_colors=pd.DataFrame(bars, index=samples.obs_names) if keys else None,
        row_cluster=bool((z != z[:1]).any()),  # a tree of rows that are all the same has no height
        col_cluster=bool((z != z[:, :1]).any()),
        metric=metric,
        method=method,
        cmap=DIVERGING,
        tree_kws={"colors": ink(0.8)},
        vmin=-limit,
        vmax=limit,
        figsize=(width, height),
        dendrogram_ratio=(0.14, 0.1),
        colors_ratio=0.022,
        xticklabels=z.shape[1] <= MAX_FEATURE_NAMES,
        yticklabels=len(z) <= MAX_SAMPLE_NAMES,
        cbar_kws={"label": "z-score", "orientation": "horizontal"},
    )
    grid.ax_heatmap.set(xlabel="", ylabel="")
    grid.ax_heatmap.tick_params(labelsize="small")
    grid.ax_heatmap.tick_params(axis="y", labelsize=min(8.3, name_size(each)))
    _write_numbers(grid, [numbers[key] for key in keys])
    _lay_out(grid, sections, is_fixed=figsize is not None)
    return grid


def _bar(samples: AnnData, key: str, used: list[int]) -> tuple[list[str], list[Patch], np.ndarray | None]:
    """Colour of each sample by a column, the legend entries, and numbers where colours repeat.

    ``used`` counts the categories and the scales of the bars before, so that two bars do not begin with the same colours.
    """
    values = values_of(samples, key, caller="pl.clustermap")
    if not is_number(values):
        groups = categories(values, colors=stored_colors(samples, key))
        if not is_asked() and list(groups.colors) == colors_for(groups.names):
            groups = replace(groups, colors=colors_for([*range(used[0]), *groups.names])[used[0] :])
        used[0] += len(groups.names)
        color_of = dict(zip([*groups.names, MISSING_LABEL], [*groups.colors, MISSING], strict=True))
        number_of = groups.numbers()
        numbers = np.array([number_of[name] for name in groups.labels]) if number_of else None
        return [color_of[name] for name in groups.labels], groups.patches(), numbers
    map_name = NUMBER_MAPS[used[1] % len(NUMBER_MAPS)]
    used[1] += 1
    level = values.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(level)
    if not is_known.any():
        return [MISSING] * len(level), [Patch(color=MISSING, label=MISSING_LABEL)], None
    low, high = float(level[is_known].min()), float(level[is_known].max())
    scale, cmap = Normalize(low, high), colormaps[map_name]
    colors = [to_hex(cmap(float(scale(v)))) if known else MISSING for v, known in zip(level, is_known, strict=True)]
    marks = np.unique([low, (low + high) / 2, high])
    handles = [Patch(color=cmap(float(scale(v))), label=f"{v:.4g}") for v in marks]
    return colors, handles + ([] if is_known.all() else [Patch(color=MISSING, label=MISSING_LABEL)]), None


def _write_numbers(grid: sns.matrix.ClusterGrid, numbers: list[np.ndarray | None]) -> None:
    """Numbers of categories into the bars whose colours repeat, as long as they can be read."""
    n = grid.data2d.shape[0]
    if n > MAX_SAMPLE_NAMES:
        return
    tree = grid.dendrogram_row
    order = np.arange(n) if tree is None else np.asarray(tree.reordered_ind)
    for x, texts in enumerate(numbers):
        if texts is None:
            continue
        for y, row in enumerate(order):
            color = grid.row_colors[x][row]
            grid.ax_row_colors.text(
                x + 0.5,
                y + 0.5,
                texts[row],
                ha="center",
                va="center",
                fontsize=5 if n <= 60 else 4,
                color=text_color_on(color),
            )


def _lay_out(grid: sns.matrix.ClusterGrid, sections: list[tuple[str, list[Patch]]], *, is_fixed: bool) -> None:
    """Legends in a strip of their own at the right, the colour scale below them: seaborn would lay it over the trees.

    The figure grows by the strip, so that neither legends nor names are cut, unless its size was asked for.
    """
    figure = grid.figure
    figure.canvas.draw()  # names have a size only once they are drawn
    axes = [grid.ax_heatmap] + ([grid.ax_row_colors] if grid.ax_row_colors is not None else [])
    boxes = [
        [text.get_window_extent() for text in names]
        for names in (grid.ax_heatmap.get_yticklabels(), [text for ax in axes for text in ax.get_xticklabels()])
    ]
    longest = max((box.width for box in boxes[0]), default=0.0) / figure.dpi + 0.25
    foot = max((box.height for box in boxes[1]), default=0.0) / figure.dpi + 0.2
    handles: list[Patch | Line2D] = []
    for title, entries in sections:
        handles += [Line2D([], [], linestyle="", label=title), *entries]
    strip, below = 1.4, 0.0
    if handles:
        look = legend_columns(len(handles)) | ({"fontsize": "small"} if len(handles) <= ROWS_PER_LEGEND_COLUMN else {})
        legend = figure.legend(handles=handles, loc="upper left", frameon=False, **look)
        titles = {title for title, _ in sections}
        for text, handle in zip(legend.get_texts(), handles, strict=True):
            text.set_fontweight("bold" if isinstance(handle, Line2D) and text.get_text() in titles else "normal")
        box = legend.get_window_extent()
        strip, below = max(strip, 1.03 * box.width / figure.dpi + 0.1), box.height / figure.dpi
    width, height = figure.get_size_inches()
    if not is_fixed:
        width, height = width + longest + strip, max(height - FOOT + foot, below + 0.9)
        figure.set_size_inches(width, height)
    right = max(1 - (longest + strip) / width, 0.3)
    grid.gs.update(right=right, top=1 - 0.1 / height, bottom=min(foot / height, 0.6), left=0.01)
    if handles:
        legend.set_bbox_to_anchor((1 - strip / width, 1 - 0.1 / height), transform=figure.transFigure)
    grid.ax_cbar.set_position((1 - (strip - 0.2) / width, 0.45 / height, 1.1 / width, 0.13 / height))
    grid.ax_cbar.tick_params(labelsize="small")
