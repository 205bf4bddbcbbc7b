"""One look for all plots: colours that a colour-blind reader tells apart, legends beside the axes, no global settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from scset_tools.pl._palette import OKABE_ITO, background, colors_for, colors_of, ink, turns  # noqa: F401  (one place to import a look from)

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Past eight categories the shape changes as well: 64 pairs of colour and shape."""

HATCHES = ("", "//", "..", "xx", "\\\\", "++")
"""The same for bars."""

LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
"""The same for lines."""

CMAP = "cividis"
"""Numbers: even in lightness, and seen alike with and without colour blindness."""

DIVERGING = "RdBu_r"
"""Numbers of both signs, around zero: red is positive, blue negative, in every plot."""

MISSING = "#B3B3B3"
MISSING_LABEL = "missing"
ROWS_PER_LEGEND_COLUMN = 22


def axes_or_new(
    ax: Axes | None, *, size: tuple[float, float], is_square: bool = False, projection: str | None = None
) -> Axes:
    """The axes given, or those of a new figure whose layout makes room for labels and legends.

    Axes of a fixed shape (``is_square``) need matplotlib's other layout: the usual one would cut off their labels.
    """
    if ax is not None:
        return ax
    figure = plt.figure(figsize=size, layout="compressed" if is_square else "constrained")
    return figure.add_subplot(projection=projection)


def point_handle(label: str, *, color: str | None = None, marker: str = "o") -> Line2D:
    """A point for a legend."""
    color = color or ink()
    return Line2D([], [], linestyle="", marker=marker, markersize=7, color=color, markeredgewidth=0, label=label)


def points(ax: Axes, xy: np.ndarray, *, size: float, marker: str = "o", **kwargs: Any) -> None:
    """Points with a thin rim in the colour of the background, so that those that overlap stay apart."""
    ax.scatter(xy[:, 0], xy[:, 1], s=size, marker=marker, alpha=0.85, linewidths=0.4, edgecolors=background(), **kwargs)


def legend_beside(ax: Axes, sections: Sequence[tuple[str, Sequence[Artist]]]) -> Legend:
    """One legend to the right of the axes; several sections stand below each other under their titles."""
    sections = [(title, list(handles)) for title, handles in sections if handles]
    if len(sections) == 1:
        title, handles = sections[0]
    else:
        title, handles = None, []
        for name, entries in sections:
            handles += [Line2D([], [], linestyle="", label=name), *entries]
    legend = ax.legend(
        handles=handles,
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize="medium" if len(handles) <= ROWS_PER_LEGEND_COLUMN else "small",
        alignment="left",
        ncols=-(-len(handles) // ROWS_PER_LEGEND_COLUMN),
    )
    titles = {name for name, _ in sections} if len(sections) > 1 else set()
    for text in legend.get_texts():
        if text.get_text() in titles:
            text.set_fontweight("bold")
    legend.get_title().set_fontweight("bold")
    return legend


def tidy(ax: Axes, *, grid: Literal["both", "x", "y"] | None = None) -> None:
    """No box around the axes; thin grid lines below the data where values are read off (``"x"``, ``"y"``)."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        ax.grid(visible=True, axis=grid, color=ink(0.1), linewidth=0.8)
        ax.set_axisbelow(True)


def text_color_on(color: Any) -> str:
    """Black or white, whichever is read more easily on ``color`` (relative luminance)."""
    red, green, blue = to_rgb(color)
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"
