"""Cells on their way from noise, one panel per step (ScSet Fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from scset_tools import _keys
from scset_tools._numbers import checks_numbers
from scset_tools.pl._embed import embed
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, column, is_number, representation, stored_colors, values_of
from scset_tools.pl._style import CMAP, MISSING, colors_of, ink, legend_beside, new_figure

if TYPE_CHECKING:
    from anndata import AnnData

MOST_COLUMNS = 4
"""Panels in a row: in one long row the text would be tiny on a page."""


@habits()
@checks_numbers
def denoising(
    adata: AnnData,
    *,
    color: str | None = None,
    basis: str = "umap",
    step_key: str = _keys.step(),
    reference: AnnData | None = None,
    use_rep: str | None = None,
    n_cells: int = 1500,
    size: float = 6.0,
    rng: np.random.Generator | int | None = 0,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Generated cells at several steps from noise to the finished cells, all on one map (ScSet Fig. 2).

    Parameters
    ----------
    adata
        Cells at several steps, as from ``ScSet.denoising_trajectory``.
    color
        Column of ``adata.obs`` or feature of ``adata.var_names``. Numbers get a colour scale, categories a colour each, for instance of :func:`scset_tools.tl.transfer_labels`.
    basis
        ``"umap"`` or ``"pca"``, computed here of the cells shown.
    step_key
        Column of ``adata.obs`` with the step; the largest is noise.
    reference
        True cells with the same features, drawn as a grey shade in every panel and part of the map.
    use_rep
        Key of ``reference.obsm`` with those features. Default: ``reference.X``.
    n_cells
        At most so many cells of each step, and of the reference, drawn by ``rng``.
    size
        Area of a point in square points.
    rng
        Seed of the draw and the UMAP.
    axes
        As many axes as there are steps. Default: a new figure.

    Returns
    -------
    Array of axes, one per step from noise to cells.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the numbers of features or of axes differ.
    """
    steps = column(adata, step_key, caller="pl.denoising").to_numpy(dtype=float)
    rng = np.random.default_rng(rng)
    order = np.unique(steps)[::-1]
    drawn = [_draw(np.flatnonzero(steps == step), n_cells, rng) for step in order]
    rows = np.concatenate(drawn)
    x = representation(adata[rows], None, caller="pl.denoising")
    if reference is not None:
        behind = representation(reference, use_rep, caller="pl.denoising")
        behind = behind[_draw(np.arange(len(behind)), n_cells, rng)]
        if behind.shape[1] != x.shape[1]:
            msg = (
                f"The reference has {behind.shape[1]} features and the generated cells {x.shape[1]}: name its use_rep."
            )
            raise ValueError(msg)
        x = np.concatenate([x, behind])
    xy, names = embed(x, basis, rng=rng, what="cells")
    outer = len(order) - 1  # the panel beside which the legend stands
    lowest = 0  # the panel that names the axes: no other lies below it
    if axes is None:
        n_rows = -(-len(order) // MOST_COLUMNS)
        n_columns = -(-len(order) // n_rows)
        figure = new_figure((2.2 * n_columns + 1.6, 2.5 * n_rows))
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        outer, lowest = n_columns - 1, (n_rows - 1) * n_columns
        for spare in axes[len(order) :]:
            spare.remove()
        axes = axes[: len(order)]
    axes = np.ravel(np.asarray(axes, dtype=object))
    if len(axes) != len(order):
        msg = f"There are {len(order)} steps, but {len(axes)} axes."
        raise ValueError(msg)
    low, high = xy.min(axis=0), xy.max(axis=0)
    rim = 0.04 * (high - low) + 1e-9
    groups = numbers = None
    if color is not None:
        shown = values_of(adata, color, caller="pl.denoising")
        if is_number(shown):
            numbers = shown.to_numpy(dtype=float, na_value=np.nan)
        else:
            groups = categories(shown, colors=stored_colors(adata, color))
    start = 0
    for ax, step, part in zip(axes, order, drawn, strict=True):
        here = xy[start : start + len(part)]
        start += len(part)
        ax.scatter(*xy[len(rows) :].T, s=size, c=ink(0.12), linewidths=0)
        if numbers is not None:
            known = np.isfinite(numbers)
            scale = Normalize(*(numbers[known].min(), numbers[known].max()) if known.any() else (0, 1))
            ax.scatter(*here[~known[part]].T, s=size, c=MISSING, linewidths=0)
            ax.scatter(*here[known[part]].T, s=size, c=numbers[part][known[part]], cmap=CMAP, norm=scale, linewidths=0)
        elif groups is None:
            ax.scatter(*here.T, s=size, c=colors_of(1)[0], linewidths=0, alpha=0.8)
        else:
            hues, shapes = np.empty(len(part), dtype=object), np.empty(len(part), dtype=object)
            for _, hue, marker, is_of in groups.present():
                hues[is_of[part]], shapes[is_of[part]] = hue, marker
            for marker in dict.fromkeys(shapes):  # cells of one shape are mixed: no category lies over all of another
                own = shapes == marker
                ax.scatter(*here[own].T, s=size, c=list(hues[own]), marker=marker, linewidths=0, alpha=0.8)
        ax.set(xlim=(low[0] - rim[0], high[0] + rim[0]), ylim=(low[1] - rim[1], high[1] + rim[1]), xticks=[], yticks=[])
        ax.set_title(f"step {step:g}", fontsize="medium")
        ax.spines[:].set_color(ink(0.3))
    axes[lowest].set(xlabel=names[0], ylabel=names[1])
    if numbers is not None:
        axes[outer].figure.colorbar(ScalarMappable(scale, CMAP), ax=axes[outer], label=str(color), aspect=15)
    if groups is not None:
        legend_beside(axes[outer], [(str(color), groups.handles())], is_tall=True)
    return axes


def _draw(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, n, replace=False) if len(rows) > n else rows
