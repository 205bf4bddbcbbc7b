"""Samples as points in two dimensions, coloured by what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.pl._embed import embed
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import (
    categories,
    column,
    fits_palette,
    is_number,
    reading_order,
    representation,
    stored_colors,
    values_of,
)
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
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

MOST_COLUMNS = 3
"""Maps in a row."""


@habits()
@checks_numbers
def sample_map(
    samples: AnnData,
    *,
    color: str | Sequence[str] | None = None,
    basis: str = "pca",
    use_rep: str | None = None,
    style: str | None = None,
    groupby: str | None = None,
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
    groupby
        Column of ``samples.obs``, for instance the tissue, whose categories get a panel each, all with the same map, colours and shapes; in
        each the other samples are a shade. Samples of which it is missing have the last panel.
    size
        Area of a point in square points.
    rng
        Seed of the UMAP.
    ax
        Axes to draw on, as many as colours or groups if these are several. Default: a new figure.

    Returns
    -------
    The axes; for a list of colours, or with ``groupby``, an array of axes.

    Raises
    ------
    KeyError
        If a column or representation is not there.
    ValueError
        If the representation is empty or not finite, if there are fewer than five samples for a UMAP, if there are too
        many categories to tell apart, or if there are several colours as well as groups.
    """
    xy, labels = _coordinates(samples, basis, use_rep=use_rep, rng=rng)
    if groupby is not None:
        if not (color is None or isinstance(color, str)):
            msg = f"groupby={groupby!r} makes a panel for each group, and so do {len(color)} colours: name one colour, or call it for each."
            raise ValueError(msg)
        return _draw_groups(samples, xy, groupby, ax, labels=labels, color=color, style=style, size=size)
    if color is None or isinstance(color, str):
        target = axes_or_new(None if ax is None else np.ravel(np.asarray(ax))[0], size=(6.0, 4.2))
        return _draw_alone(target, samples, xy, labels=labels, color=color, style=style, size=size)
    if not len(color):
        msg = "color is an empty list: name a column of samples.obs, or leave it out."
        raise ValueError(msg)
    panels = _panels(len(color), ax, "colours")
    for panel, key in zip(panels, color, strict=True):
        _draw_alone(panel, samples, xy, labels=labels, color=key, style=style, size=size)
        panel.set_title(key)
    return panels


def _panels(n: int, ax: Axes | np.ndarray | None, what: str, *, size: tuple[float, float] = (5.4, 4.0)) -> np.ndarray:
    """Axes for several maps, at most three in a row."""
    if ax is not None:
        given = np.ravel(np.asarray(ax, dtype=object))
        if len(given) != n:
            msg = f"There are {n} {what}, but {len(given)} axes."
            raise ValueError(msg)
        return given
    n_columns = min(MOST_COLUMNS, n)
    n_rows = -(-n // n_columns)
    figure = new_figure((size[0] * n_columns, size[1] * n_rows))
    return np.array([figure.add_subplot(n_rows, n_columns, i + 1) for i in range(n)], dtype=object)


def _draw_groups(
    samples: AnnData, xy: np.ndarray, groupby: str, ax: Axes | np.ndarray | None, *, labels: list[str], **looks: Any
) -> np.ndarray:
    """A panel for each category of a column, with one legend for all."""
    groups = categories(column(samples, groupby, caller="pl.sample_map"))
    rows = {name: is_of for name, _, _, is_of in groups.present()}
    names = [n for n in (*reading_order(groups.names), MISSING_LABEL) if n in rows]
    panels = _panels(len(names), ax, f"categories of {groupby!r}", size=(3.4, 3.2))
    outer = min(MOST_COLUMNS, len(names)) - 1 if ax is None else len(names) - 1
    for i, (panel, name) in enumerate(zip(panels, names, strict=True)):
        keys = _draw(panel, samples, xy, labels=labels, rows=rows[name], **looks)
        panel.set_title(wrapped([name], 3.0)[0], fontsize="medium")
        if i + outer + 1 < len(names):  # another panel lies below
            panel.set_xlabel("")
        if i % (outer + 1):
            panel.set_ylabel("")
    keys.add(panels[outer], list(panels), is_tall=True)
    return panels


@dataclass
class _Keys:
    """What says which colour and shape is which: a legend in sections, and a scale of numbers."""

    sections: list[tuple[str, list[Line2D]]] = field(default_factory=list)
    scale: tuple[Normalize, str] | None = None

    def add(self, ax: Axes, panels: list[Axes], *, is_tall: bool) -> None:
        """Put them beside the axes, for all panels."""
        if self.scale is not None:
            norm, label = self.scale
            color_bar(panels if len(panels) > 1 else ax, ScalarMappable(norm, CMAP), label)
            is_tall = False  # it makes room for itself, between the map and its scale
        if self.sections:
            legend_beside(ax, self.sections, is_tall=is_tall)


def _draw(
    ax: Axes,
    samples: AnnData,
    xy: np.ndarray,
    *,
    labels: list[str],
    color: str | None,
    style: str | None,
    size: float,
    rows: np.ndarray | None = None,
) -> _Keys:
    """One map of some samples, the others as a shade; colours and shapes are those of all."""
    is_shown = np.ones(samples.n_obs, dtype=bool) if rows is None else rows
    shapes = np.full(samples.n_obs, "o", dtype=object)
    keys = _Keys()
    style_handles: list[Line2D] = []
    if style is not None:
        shapes, style_handles = _shapes(samples, style)
    if not is_shown.all():
        ax.scatter(xy[~is_shown, 0], xy[~is_shown, 1], s=size, c=ink(0.12), linewidths=0)
    if color is None:
        for shape in dict.fromkeys(shapes[is_shown]):
            points(ax, xy[is_shown & (shapes == shape)], size=size, c=colors_of(1)[0], marker=shape)
    elif is_number(shown := values_of(samples, color, caller="pl.sample_map")):
        keys.scale = _scatter_numbers(ax, xy, shapes, shown=shown, is_shown=is_shown, size=size), color
        if shown.isna().any():
            keys.sections.append((color, [point_handle(MISSING_LABEL, color=MISSING)]))
    else:
        groups = categories(shown, colors=stored_colors(samples, color))
        if style is not None and not fits_palette(len(groups.names)):
            msg = (
                f"{color!r} has {len(groups.names)} categories: past 8 they need the shapes that style={style!r} takes."
            )
            raise ValueError(msg)
        for name, hue, marker, is_of in groups.present():
            for shape in dict.fromkeys(shapes[is_of & is_shown]):
                chosen = is_of & is_shown & (shapes == shape)
                points(ax, xy[chosen], size=size, c=hue, marker=marker if style is None else shape, label=name)
        keys.sections.append((color, groups.handles()))
    if style is not None:
        keys.sections.append((style, style_handles))
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    ax.margins(0.08)
    tidy(ax)
    return keys


def _draw_alone(ax: Axes, *args: Any, **looks: Any) -> Axes:
    """One map with its own legend."""
    _draw(ax, *args, **looks).add(ax, [ax], is_tall=False)
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
    ax: Axes, xy: np.ndarray, shapes: np.ndarray, *, shown: pd.Series, is_shown: np.ndarray, size: float
) -> Normalize:
    """Points on the colour scale of all samples, which is returned; missing values are grey."""
    values = shown.to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(values)
    scale = Normalize(values[is_known].min(), values[is_known].max()) if is_known.any() else Normalize(0, 1)
    for shape in dict.fromkeys(shapes[is_shown]):
        own = is_shown & (shapes == shape)
        unknown, known = ~is_known & own, is_known & own
        if unknown.any():
            points(ax, xy[unknown], size=size, c=MISSING, marker=shape)
        if known.any():
            points(ax, xy[known], size=size, c=values[known], cmap=CMAP, norm=scale, marker=shape)
    return scale
