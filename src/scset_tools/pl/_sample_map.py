"""Samples as points in two dimensions, coloured by what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.pl._embed import embed
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, column, fits_palette, is_number, representation, stored_colors, values_of
from scset_tools.pl._style import (
    CMAP,
    MARKERS,
    MISSING,
    MISSING_LABEL,
    axes_or_new,
    color_bar,
    colors_of,
    ink,
    legend_beside,
    new_figure,
    point_handle,
    points,
    tidy,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


@habits()
@checks_numbers
def sample_map(
    samples: AnnData,
    *,
    color: str | Sequence[str] | None = None,
    basis: str = "pca",
    use_rep: str | None = None,
    style: str | None = None,
    size: float = 60.0,
    rng: np.random.Generator | int | None = 0,
    ax: Axes | np.ndarray | None = None,
) -> Axes | np.ndarray:
    """Map of samples in two dimensions (MAESTRO Fig. 3a, scSet Fig. 4). Nothing is written into ``samples``.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    color
        Column of ``samples.obs``, or a feature of ``samples.var_names``, drawn by its value in ``X``; or several of them, a map each. Numbers get a colour scale; categories a colour each, past eight also a shape each.
        Missing values are grey. Colours in ``samples.uns[f"{color}_colors"]`` are used if there is one per category.
    basis
        ``"pca"`` or ``"umap"`` of the representation, computed here, or a key of ``samples.obsm`` whose first two columns
        are drawn as they are.
    use_rep
        Key of ``samples.obsm`` with the representation. Default: ``samples.X``.
    style
        Column of ``samples.obs`` whose categories get a shape each.
    size
        Area of a point in square points.
    rng
        Seed of the UMAP.
    ax
        Axes to draw on, as many as colours if these are several. Default: a new figure.

    Returns
    -------
    The axes; for a list of colours an array of axes.

    Raises
    ------
    KeyError
        If a column or representation is not there.
    ValueError
        If the representation is empty or not finite, if there are fewer than five samples for a UMAP, or if there are too
        many categories to tell apart.
    """
    xy, labels = _coordinates(samples, basis, use_rep=use_rep, rng=rng)
    if color is None or isinstance(color, str):
        target = axes_or_new(None if ax is None else np.ravel(np.asarray(ax))[0], size=(6.0, 4.2))
        return _draw(target, samples, xy, labels=labels, color=color, style=style, size=size)
    panels = _panels(list(color), ax)
    for panel, key in zip(panels, color, strict=True):
        _draw(panel, samples, xy, labels=labels, color=key, style=style, size=size)
        panel.set_title(key)
    return panels


def _panels(colors: list[str], ax: Axes | np.ndarray | None) -> np.ndarray:
    """Axes for several colours, at most three in a row."""
    if not colors:
        msg = "color is an empty list: name a column of samples.obs, or leave it out."
        raise ValueError(msg)
    if ax is not None:
        given = np.ravel(np.asarray(ax, dtype=object))
        if len(given) != len(colors):
            msg = f"There are {len(colors)} colours, but {len(given)} axes."
            raise ValueError(msg)
        return given
    n_columns = min(3, len(colors))
    n_rows = -(-len(colors) // n_columns)
    figure = new_figure((5.4 * n_columns, 4.0 * n_rows))
    return np.array([figure.add_subplot(n_rows, n_columns, i + 1) for i in range(len(colors))], dtype=object)


def _draw(
    ax: Axes,
    samples: AnnData,
    xy: np.ndarray,
    *,
    labels: list[str],
    color: str | None,
    style: str | None,
    size: float,
) -> Axes:
    """One map."""
    shapes = np.full(samples.n_obs, "o", dtype=object)
    sections: list[tuple[str, list[Line2D]]] = []
    style_handles: list[Line2D] = []
    if style is not None:
        shapes, style_handles = _shapes(samples, style)
    if color is None:
        for shape in dict.fromkeys(shapes):
            points(ax, xy[shapes == shape], size=size, c=colors_of(1)[0], marker=shape)
    elif is_number(shown := values_of(samples, color, caller="pl.sample_map")):
        _scatter_numbers(ax, xy, shapes, shown=shown, color=color, size=size)
        if shown.isna().any():
            sections.append((color, [point_handle(MISSING_LABEL, color=MISSING)]))
    else:
        groups = categories(shown, colors=stored_colors(samples, color))
        if style is not None and not fits_palette(len(groups.names)):
            msg = (
                f"{color!r} has {len(groups.names)} categories: past 8 they need the shapes that style={style!r} takes."
            )
            raise ValueError(msg)
        for name, hue, marker, rows in groups.present():
            for shape in dict.fromkeys(shapes[rows]):
                chosen = rows & (shapes == shape)
                points(ax, xy[chosen], size=size, c=hue, marker=marker if style is None else shape, label=name)
        sections.append((color, groups.handles()))
    if style is not None:
        sections.append((style, style_handles))
    if sections:
        legend_beside(ax, sections)
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    ax.margins(0.08)
    tidy(ax)
    return ax


def _coordinates(
    samples: AnnData, basis: str, *, use_rep: str | None, rng: np.random.Generator | int | None
) -> tuple[np.ndarray, list[str]]:
    """Two coordinates of each sample, and the names of the axes."""
    if basis in ("pca", "umap"):
        return embed(representation(samples, use_rep, caller="pl.sample_map"), basis, rng=rng)
    stored = representation(samples, basis, caller="pl.sample_map")
    if stored.ndim != 2 or stored.shape[1] < 2:
        msg = f"samples.obsm[{basis!r}] has the shape {stored.shape}, but a map needs two columns."
        raise ValueError(msg)
    name = basis.removeprefix("X_")
    return stored[:, :2], [f"{name} 1", f"{name} 2"]


def _shapes(samples: AnnData, style: str) -> tuple[np.ndarray, list[Line2D]]:
    """Shape of each sample by a column, and the legend entries."""
    groups = categories(column(samples, style, caller="pl.sample_map"))
    shown = [*groups.names, *([MISSING_LABEL] if (groups.labels == MISSING_LABEL).any() else [])]
    if len(shown) > len(MARKERS):
        msg = (
            f"style={style!r} has {len(shown)} categories, but there are {len(MARKERS)} shapes: {_checks.first(shown)}."
        )
        raise ValueError(msg)
    shape_of = dict(zip(shown, MARKERS, strict=False))
    present = [name for name in shown if (groups.labels == name).any()]
    handles = [point_handle(name, color=ink(0.65), marker=shape_of[name]) for name in present]
    return np.array([shape_of[name] for name in groups.labels], dtype=object), handles


def _scatter_numbers(
    ax: Axes, xy: np.ndarray, shapes: np.ndarray, *, shown: pd.Series, color: str, size: float
) -> None:
    """Points on a colour scale that leaves missing values grey."""
    values = shown.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(values)
    scale = Normalize(values[is_known].min(), values[is_known].max()) if is_known.any() else Normalize(0, 1)
    for shape in dict.fromkeys(shapes):
        unknown, known = ~is_known & (shapes == shape), is_known & (shapes == shape)
        if unknown.any():
            points(ax, xy[unknown], size=size, c=MISSING, marker=shape)
        if known.any():
            points(ax, xy[known], size=size, c=values[known], cmap=CMAP, norm=scale, marker=shape)
    color_bar(ax, ScalarMappable(scale, CMAP), color)
