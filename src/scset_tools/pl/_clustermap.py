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

from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, is_number, representation, stored_colors, values_of
from scset_tools.pl._palette import is_asked
from scset_tools.pl._style import CMAP, DIVERGING, MISSING, MISSING_LABEL, colors_for, ink, text_color_on

if TYPE_CHECKING:
    from anndata import AnnData

MAX_SAMPLE_NAMES = 60
MAX_FEATURE_NAMES = 50
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
    bars, sections, numbers, used = {}, [], {}, [0, 0]
    for key in keys:
        bars[key], handles, numbers[key] = _bar(samples, key, used)
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
        cmap=DIVERGING,
        tree_kws={"colors": ink(0.8)},
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
    _write_numbers(grid, [numbers[key] for key in keys])
    _lay_out(grid, sections, width=width)
    return grid


def _bar(samples: AnnData, key: str, used: list[int]) -> tuple[list[str], list[Patch], np.ndarray | None]:
    """Colour of each sample by a column, the legend entries, and numbers where colours repeat.

    ``used`` counts the categories and the scales of the bars before, so that two bars do not begin with the same colours.
    """
    values = values_of(samples, key, caller="pl.clustermap")
    if not is_number(values):
        groups = categories(values, colors=stored_colors(samples, key))
        own = groups.colors
        if not is_asked() and list(own) == colors_for(groups.names):
            own = colors_for([*range(used[0]), *groups.names])[used[0] :]
        used[0] += len(groups.names)
        color_of = dict(zip([*groups.names, MISSING_LABEL], [*own, MISSING], strict=True))
        names = [str(entry.get_label()) for entry in groups.handles()]
        is_numbered = len(set(own)) < len(own)
        number_of = {name: str(i + 1) if name != MISSING_LABEL else "" for i, name in enumerate(names)}
        return (
            [color_of[name] for name in groups.labels],
            [Patch(color=color_of[n], label=f"{number_of[n]}  {n}" if is_numbered else n) for n in names],
            np.array([number_of[name] for name in groups.labels]) if is_numbered else None,
        )
    map_name = NUMBER_MAPS[used[1] % len(NUMBER_MAPS)]
    used[1] += 1
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(numbers)
    if not is_known.any():
        return [MISSING] * len(numbers), [Patch(color=MISSING, label=MISSING_LABEL)], None
    low, high = float(numbers[is_known].min()), float(numbers[is_known].max())
    scale, cmap = Normalize(low, high), colormaps[map_name]
    colors = [to_hex(cmap(float(scale(v)))) if known else MISSING for v, known in zip(numbers, is_known, strict=True)]
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
        for y, row in enumerate(order if texts is not None else []):
            color = grid.row_colors[x][row]
            grid.ax_row_colors.text(
                x + 0.5, y + 0.5, texts[row], ha="center", va="center", fontsize=5, color=text_color_on(color)
            )


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
