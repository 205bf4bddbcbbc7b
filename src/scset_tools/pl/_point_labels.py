"""Names beside points, placed so that none covers another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.transforms import BboxBase

from scset_tools.pl._style import ink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

DIRECTIONS = ((1, 0.4), (-1, 0.4), (1, -1), (-1, -1), (0, 1.2), (0, -1.4))
"""Where a name may stand, in the order they are tried: right, left, below, above."""

DISTANCES = (4, 12, 22, 34, 48)
"""In points; from the third on a line leads to the point."""


def label_points(ax: Axes, xy: np.ndarray, names: Sequence[str]) -> None:
    """Write each name at the nearest free place beside its point; one for which there is none is left out.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    xy
        (names, 2), in data units.
    names
        What to write, most important first.
    """
    figure = ax.figure.canvas.figure  # the whole one, where the axes lie in a part of it
    figure.draw_without_rendering()  # a text has a size, and the axes a place, only then
    frame = ax.get_window_extent()
    taken: list[BboxBase] = [text.get_window_extent() for text in ax.texts]
    for at, name in zip(xy, names, strict=True):
        for distance in DISTANCES:
            text = next((t for t in _tries(ax, at, name, distance) if _is_free(t, frame, taken)), None)
            if text is not None:
                taken.append(text.get_window_extent())
                break


def _tries(ax: Axes, at: np.ndarray, name: str, distance: float) -> Iterator[Annotation]:
    for dx, dy in DIRECTIONS:
        line = {"arrowstyle": "-", "color": ink(0.5), "linewidth": 0.5} if distance >= DISTANCES[2] else None
        text = ax.annotate(
            name,
            tuple(at),
            xytext=(distance * dx, distance * dy),
            textcoords="offset points",
            fontsize="x-small",
            ha={1: "left", -1: "right", 0: "center"}[dx],
            va="center" if abs(dy) < 1 else "bottom" if dy > 0 else "top",
            arrowprops=line,
        )
        yield text


def _is_free(text: Annotation, frame: BboxBase, taken: Sequence[BboxBase]) -> bool:
    """Whether a text lies in the frame and on no other; it is removed if not."""
    box = text.get_window_extent()
    is_inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    if is_inside and not any(box.overlaps(other) for other in taken):
        return True
    text.remove()
    return False
