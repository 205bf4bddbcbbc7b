"""One look for all plots: colours that a colour-blind reader tells apart, legends beside the axes, no global settings."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any, Literal, cast
from weakref import WeakSet

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from scset_tools.pl._palette import OKABE_ITO as OKABE_ITO
from scset_tools.pl._palette import background as background
from scset_tools.pl._palette import colors_for as colors_for
from scset_tools.pl._palette import colors_of as colors_of
from scset_tools.pl._palette import ink as ink
from scset_tools.pl._palette import turns as turns

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d")
"""Past eight categories the shape changes as well: 104 pairs of colour and shape."""

HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "||", "oo", "**", "OO", "/.", "|.")
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
MOST_LEGEND_COLUMNS = 3
LEGEND_ROOM = 1.3
"""Inches that the size of every figure has for its legend; a wider one makes the figure wider."""

FULL_ROWS = 24
"""Rows of names that get all their room; more stand closer."""

_OURS: WeakSet[Figure] = WeakSet()
"""Figures that were made here, and not given: they may grow."""


def axes_or_new(
    ax: Axes | None, *, size: tuple[float, float], is_square: bool = False, projection: str | None = None
) -> Axes:
    """The axes given, or those of a new figure whose layout makes room for labels and legends.

    Axes of a fixed shape (``is_square``) need matplotlib's other layout: the usual one would cut off their labels.
    """
    if ax is not None:
        return ax
    return new_figure(size, is_square=is_square).add_subplot(projection=projection)


def new_figure(size: tuple[float, float], *, is_square: bool = False) -> Figure:
    """A figure that grows with its legends; ``is_square`` as above."""
    figure = plt.figure(figsize=size, layout="compressed" if is_square else "constrained")
    _OURS.add(figure)
    return figure


def row_height(n: int, inches: float, *, least: float = 0.16) -> float:
    """Inches for each of ``n`` named rows: ``inches``, or less (not below ``least``) where they are many."""
    return inches if n <= FULL_ROWS else max(least, inches * FULL_ROWS / n)


def name_size(inches: float) -> float:
    """Size in points of names that stand ``inches`` apart."""
    return max(min(float(plt.rcParams["font.size"]), 0.8 * 72 * inches), 3.0)


def wrapped(names: Sequence[Any], inches: float) -> list[str]:
    """Names broken into lines of at most ``inches`` in small type."""
    return [
        fill(str(name), max(int(inches * 72 / (0.62 * 0.833 * float(plt.rcParams["font.size"]))), 4)) for name in names
    ]


def color_bar(ax: Axes | Sequence[Axes], mappable: Any, label: str, **kwargs: Any) -> Colorbar:
    """A colour scale beside the axes, about three inches long however tall they are."""
    first = ax if isinstance(ax, Axes) else ax[0]
    height = float(cast("Figure", first.figure).get_figheight())
    shrink = min(0.7, 3.0 / height)
    return first.figure.colorbar(
        mappable, ax=ax, label=label, shrink=shrink, aspect=20 * min(1.0, height / 6), **kwargs
    )


def point_handle(label: str, *, color: str | None = None, marker: str = "o") -> Line2D:
    """A point for a legend."""
    color = color or ink()
    return Line2D([], [], linestyle="", marker=marker, markersize=7, color=color, markeredgewidth=0, label=label)


def points(ax: Axes, xy: np.ndarray, *, size: float, marker: str = "o", **kwargs: Any) -> None:
    """Points with a thin rim in the colour of the background, so that those that overlap stay apart."""
    ax.scatter(xy[:, 0], xy[:, 1], s=size, marker=marker, alpha=0.85, linewidths=0.4, edgecolors=background(), **kwargs)


def legend_beside(ax: Axes, sections: Sequence[tuple[str, Sequence[Artist]]], *, is_tall: bool = False) -> Legend:
    """One legend to the right of the axes; several sections stand below each other under their titles.

    A figure of ours grows by it; ``is_tall`` says that it may hang beside the axes below as well.
    """
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
        alignment="left",
        **legend_columns(len(handles)),
    )
    titles = {name for name, _ in sections} if len(sections) > 1 else set()
    for text in legend.get_texts():
        if text.get_text() in titles:
            text.set_fontweight("bold")
    legend.get_title().set_fontweight("bold")
    _make_room(ax, legend, is_tall=is_tall)
    return legend


def legend_columns(n: int) -> dict[str, Any]:
    """Columns and size of a legend with ``n`` entries: at most three columns, then longer ones in smaller type."""
    columns = min(-(-n // ROWS_PER_LEGEND_COLUMN), MOST_LEGEND_COLUMNS)
    is_long = n > columns * ROWS_PER_LEGEND_COLUMN
    return {"ncols": columns, "fontsize": "medium" if columns == 1 else "x-small" if is_long else "small"}


def _make_room(ax: Axes, legend: Legend, *, is_tall: bool) -> None:
    """Let a figure of ours grow by what its legend is wider and taller than the room that there is."""
    figure = cast("Figure", ax.figure)
    if figure not in _OURS:
        return
    box = legend.get_window_extent()
    long, tall = 1.03 * box.width / figure.dpi, box.height / figure.dpi  # type is a little wider at other resolutions
    spec = ax.get_subplotspec()
    rows = 1 if spec is None or is_tall else spec.get_gridspec().nrows
    width, height = figure.get_size_inches()
    wider = max(long - LEGEND_ROOM, 0.0)
    figure.set_size_inches(width + wider, max(height, rows * (tall + 0.7)))
    engine = figure.get_layout_engine()
    if is_tall and engine is not None:
        legend.set_in_layout(False)  # or the rows of axes would move apart to make room for it
        engine.set(rect=(0, 0, 1 - (long + 0.2) / (width + wider), 1))  # type: ignore[call-arg]


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
