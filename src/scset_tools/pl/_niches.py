"""Niches where they lie on their slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, column, is_number, natural_order, stored_colors, values_of
from scset_tools.pl._style import (
    CMAP,
    MISSING,
    MISSING_LABEL,
    color_bar,
    ink,
    legend_beside,
    new_figure,
    point_handle,
    points,
    tidy,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

PLACE = ("niche_x", "niche_y")
MOST_SLIDES = 12


@habits()
@checks_numbers
def niches(
    niches: AnnData,
    color: str,
    *,
    sample_key: str,
    samples: Sequence[str] | str | None = None,
    cells: AnnData | None = None,
    spatial_key: str = "spatial",
    size: float = 40.0,
    axes: Axes | np.ndarray | None = None,
) -> np.ndarray:
    """Centres of niches on their slides, one panel per tissue, coloured by what is known of them.

    Parameters
    ----------
    niches
        One row per niche, with ``obs["niche_x"]`` and ``obs["niche_y"]``: what a model or profile gives on the cells of ``pp.niches``.
    color
        Column of ``niches.obs``, or a feature of ``niches.var_names``, drawn by its value in ``X``. One scale, or one set of colours, for all panels.
    sample_key
        Column of ``niches.obs`` with the tissue of each niche.
    samples
        Tissues to draw, in this order. Default: the first twelve by name.
    cells
        The cells that niches were made of: drawn beneath, in grey.
    spatial_key
        Key of ``cells.obsm`` with their coordinates.
    size
        Area of a niche in square points.
    axes
        Axes to draw on, as many as tissues. Default: a new figure, at most four panels in a row.

    Returns
    -------
    Array of axes, one per tissue, in the unit of the coordinates and with y downwards, as images have it.

    Raises
    ------
    KeyError
        If a column, a tissue or the coordinates are not there.
    ValueError
        If there are not as many axes as tissues, or too many categories to tell apart.
    """
    tissue = column(niches, sample_key, caller="pl.niches").astype(str).to_numpy()
    absent = [name for name in PLACE if name not in niches.obs]
    if absent:
        msg = (
            f"pl.niches needs the columns {_checks.first(absent)} of niches.obs, which pp.niches writes and models carry along. "
            f"Columns: {_checks.first(niches.obs.columns, 20)}."
        )
        raise KeyError(msg)
    names = _chosen(tissue, samples)
    xy = niches.obs[list(PLACE)].to_numpy(dtype=float)
    panels = _panels(len(names), axes)
    below = _cells_of(cells, sample_key, spatial_key)
    shown = values_of(niches, color, caller="pl.niches")
    looks, handles, scale = _looks(niches, color, shown, in_use=np.isin(tissue, names))
    for ax, name in zip(panels, names, strict=True):
        if below is not None:
            grey = below[1][below[0] == name]
            ax.scatter(grey[:, 0], grey[:, 1], s=size / 10, color=ink(0.2), linewidths=0, zorder=0, rasterized=True)
        for look, rows in looks:
            here = rows & (tissue == name)
            if here.any():
                own = {k: v[here] if isinstance(v, np.ndarray) else v for k, v in look.items()}
                points(ax, xy[here], size=size, **own)
        ax.set(xticks=[], yticks=[])
        # panels of ours are all of one size: a tissue that is less wide gets more room around it
        ax.set_aspect("equal", adjustable="box" if axes is not None else "datalim")
        ax.set_title(wrapped([name], 2.4)[0], fontsize="small" if len(name) > 20 else "medium")
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
        tidy(ax)
    if scale is not None:
        color_bar(list(panels), ScalarMappable(scale, CMAP), color)
    if handles:
        legend_beside(panels[min(3, len(panels) - 1)], [(color, handles)], is_tall=True)
    return panels


def _looks(
    niches: AnnData, color: str, shown: pd.Series, *, in_use: np.ndarray
) -> tuple[list[tuple[dict[str, Any], np.ndarray]], list[Any], Normalize | None]:
    """How groups of niches are drawn, what stands in the legend, and the colour scale of numbers."""
    if not is_number(shown):
        groups = categories(shown, colors=stored_colors(niches, color))
        return [({"c": hue, "marker": m}, rows) for _, hue, m, rows in groups.present()], groups.handles(), None
    values = shown.to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(values)
    scale = Normalize(values[in_use & known].min(), values[in_use & known].max()) if (in_use & known).any() else None
    scale = scale or Normalize(0, 1)
    missing = [point_handle(MISSING_LABEL, color=MISSING)] if (in_use & ~known).any() else []
    return [({"c": MISSING}, ~known), ({"c": values, "cmap": CMAP, "norm": scale}, known)], missing, scale


def _chosen(tissue: np.ndarray, samples: Sequence[str] | str | None) -> list[str]:
    """Names of the tissues to draw."""
    there = natural_order(set(tissue))
    if samples is None:
        return there[:MOST_SLIDES]
    names = [samples] if isinstance(samples, str) else [str(s) for s in samples]
    absent = [name for name in names if name not in there]
    if absent or not names:
        msg = f"{len(absent)} of {len(names)} tissues are not there: {_checks.first(absent)}. Tissues: {_checks.first(there)}."
        raise KeyError(msg)
    return names


def _panels(n: int, axes: Axes | np.ndarray | None) -> np.ndarray:
    if axes is not None:
        given = np.ravel(np.asarray(axes, dtype=object))
        if len(given) != n:
            msg = f"There are {n} tissues, but {len(given)} axes."
            raise ValueError(msg)
        return given
    n_columns = min(4, n)
    n_rows = -(-n // n_columns)
    figure = new_figure((2.8 * n_columns + 1.2, 2.8 * n_rows))
    return np.array([figure.add_subplot(n_rows, n_columns, i + 1) for i in range(n)], dtype=object)


def _cells_of(cells: AnnData | None, sample_key: str, spatial_key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Tissue and place of each cell."""
    if cells is None:
        return None
    tissue = column(cells, sample_key, caller="pl.niches").astype(str).to_numpy()
    return tissue, _checks.dense(_checks.require_obsm(cells, spatial_key), f"cells.obsm[{spatial_key!r}]")[:, :2]
