"""Error of each model for each cell type on spokes (MAESTRO Fig. 5b)."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from scset_tools import _checks
from scset_tools.pl._habits import habits
from scset_tools.pl._style import LINES, MARKERS, axes_or_new, colors_for, ink, legend_beside, turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.projections.polar import PolarAxes

MIN_TYPES = 3
MOST_LEVEL_NAMES = 16
NAME_ROOM = 0.14
"""Inches of the circle for a name along its spoke."""
LONG_NAME = 1.9
"""Inches outside the circle for it."""
ROWS_BESIDE_THE_CIRCLE = 12
"""Entries of a legend that surely fit beside the circle of a new figure."""
NAME_WIDTH = 18
"""Letters after which the name of a cell type is broken into lines."""


@habits()
def radar(errors: pd.DataFrame, *, label: str = "mean absolute error", ax: Axes | None = None) -> Axes:
    """A spoke per cell type, a line per model, the error from the centre outwards: less area is better.

    Parameters
    ----------
    errors
        Cell types x models, zero or more. Missing values leave a gap.
    label
        What the numbers are.
    ax
        Polar axes to draw on. Default: a new figure.

    Returns
    -------
    The polar axes.

    Raises
    ------
    TypeError
        If ``errors`` is no DataFrame or ``ax`` is not polar.
    ValueError
        If there are fewer than three cell types, no models, or a negative error.
    """
    if not isinstance(errors, pd.DataFrame):
        msg = f"pl.radar takes a DataFrame of cell types x models, but was given {type(errors).__name__}."
        raise TypeError(msg)
    values = errors.to_numpy(dtype=float)
    if len(errors) < MIN_TYPES or not errors.shape[1]:
        msg = f"A radar needs at least {MIN_TYPES} cell types and one model, got {errors.shape} (types, models)."
        raise ValueError(msg)
    if (values < 0).any():
        bad = _checks.first(errors.index[(values < 0).any(axis=1)].tolist())
        msg = f"Errors are zero or more, but some are negative (types {bad}): take absolute values."
        raise ValueError(msg)
    if ax is not None and getattr(ax, "name", "") != "polar":
        msg = "pl.radar needs polar axes: plt.subplots(subplot_kw={'projection': 'polar'})."
        raise TypeError(msg)

    # many names stand along their spokes, and the circle is as large as they need
    is_crowded = len(errors) > MOST_LEVEL_NAMES
    across = max(2.8, NAME_ROOM * len(errors) / np.pi) + (2 * LONG_NAME if is_crowded else 2.6)
    polar = cast("PolarAxes", axes_or_new(ax, size=(across + 3.0, across), is_square=True, projection="polar"))
    angles = np.linspace(0, 2 * np.pi, len(errors), endpoint=False)
    closed = np.append(angles, angles[0])
    models = [str(model) for model in errors.columns]
    handles = []
    looks = zip(models, colors_for(models), turns(len(models), LINES), turns(len(models), ("", *MARKERS)), strict=True)
    for j, (name, color, line, marker) in enumerate(looks):
        look: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker, "linewidth": 1.8, "label": name}
        polar.plot(closed, np.append(values[:, j], values[0, j]), **look)
        handles.append(Line2D([], [], **look))
    polar.set_theta_offset(np.pi / 2)
    polar.set_theta_direction(-1)
    polar.set_ylim(0, float(np.nanmax(values, initial=0.0)) * 1.05 or 1.0)
    _name_spokes(polar, angles, [str(t) for t in errors.index], is_crowded=is_crowded)
    polar.yaxis.set_major_locator(MaxNLocator(4))
    polar.set_rlabel_position(180 / len(errors))  # between the first two spokes
    polar.tick_params(axis="y", labelsize="x-small", labelcolor=ink(0.7))
    polar.grid(color=ink(0.15))
    polar.spines["polar"].set_color(ink(0.3))
    polar.set_title(label, fontsize="medium", pad=18 if not is_crowded else 12 + 72 * LONG_NAME)
    legend = legend_beside(polar, [("model", handles)])
    # beside the names, which are outside the circle
    away = 1 + 1.4 / (across - 2.6) if not is_crowded else 1 + LONG_NAME / (across - 2 * LONG_NAME)
    is_long = ax is None and len(models) > ROWS_BESIDE_THE_CIRCLE  # such a legend begins beside the title
    top = blended_transform_factory(polar.transAxes, polar.figure.transFigure) if is_long else polar.transAxes
    legend.set_bbox_to_anchor((away, 0.99 if is_long else 1.0), transform=top)
    return polar


def _name_spokes(polar: PolarAxes, angles: np.ndarray, names: list[str], *, is_crowded: bool) -> None:
    """Names at the ends of the spokes: level while there are few, otherwise along the spokes."""
    if is_crowded:
        polar.set_xticks(angles, [""] * len(names))
        rim = polar.get_ylim()[1] * 1.03
        for name, angle in zip(names, angles, strict=True):
            is_right = angle <= np.pi
            polar.text(
                angle,
                rim,
                name,
                rotation=np.degrees(np.pi / 2 - angle if is_right else 3 * np.pi / 2 - angle),
                ha="left" if is_right else "right",
                va="center",
                rotation_mode="anchor",
                fontsize="x-small",
            )
        return
    polar.set_xticks(angles, [fill(name, NAME_WIDTH) for name in names], fontsize="small")
    for text, angle in zip(polar.get_xticklabels(), angles, strict=True):
        # names grow away from the circle, never into it
        side = np.sin(angle)
        text.set_horizontalalignment("center" if abs(side) < 1e-6 else "left" if side > 0 else "right")
