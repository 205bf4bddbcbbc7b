"""Drawings within the page: maps of samples, intervals and bars, in the colours of the page, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scset_tools.reporting._html import Html, number, tag

N_COLORS = 8
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
"""A second cue: the shape changes each time the colours start again."""


def style_of(i: int) -> tuple[str, str]:
    """Class of the colour and the shape of the category at a position; a missing one, -1, is grey.

    Parameters
    ----------
    i
        Position of the category.
    """
    if i < 0:
        return "none", "circle"
    return f"c{i % N_COLORS}", SHAPES[i // N_COLORS % len(SHAPES)]


def mark(shape: str, at: tuple[float, float], r: float, **attributes: Any) -> Html:
    """One symbol.

    Parameters
    ----------
    shape
        One of `SHAPES`.
    at, r
        Middle (x, y), and size.
    **attributes
        Of the element; ``title`` is shown on hovering.
    """
    (x, y), title = at, attributes.pop("title", None)
    inside = tag("title", title) if title is not None else None
    if shape == "circle":
        return tag("circle", inside, cx=_n(x), cy=_n(y), r=_n(r), **attributes)
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "cross": ((-.4, -1.2), (.4, -1.2), (.4, -.4), (1.2, -.4), (1.2, .4), (.4, .4), (.4, 1.2), (-.4, 1.2), (-.4, .4), (-1.2, .4), (-1.2, -.4), (-.4, -.4)),
    }[shape]  # fmt: skip
    points = " ".join(f"{_n(x + r * dx)},{_n(y + r * dy)}" for dx, dy in corners)
    return tag("polygon", inside, points=points, **attributes)


def scatter(
    xy: np.ndarray,
    *,
    codes: Sequence[int],
    is_filled: Sequence[bool],
    titles: Sequence[str],
    ids: Sequence[int],
    axes: tuple[str, str],
    label: str,
) -> Html:
    """A map of samples.

    Parameters
    ----------
    xy
        Places, (samples, 2).
    codes
        Category of each sample, -1 where it has none.
    is_filled
        Whether the symbol is filled.
    titles
        What is said of each sample.
    ids
        Number of each sample, the same in all maps and tables.
    axes
        Names of both axes.
    label
        What it shows, for who cannot see it.
    """
    width, height, left, bottom, edge = 340, 290, 22, 24, 14
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    place = (xy - low) / span
    px = left + edge + place[:, 0] * (width - left - 2 * edge)
    py = height - bottom - edge - place[:, 1] * (height - bottom - 2 * edge)
    order = np.argsort(np.asarray(is_filled, dtype=int), kind="stable")  # filled symbols over the others
    marks = []
    for i in order:
        color, shape = style_of(int(codes[i]))
        fill = "filled" if is_filled[i] else "hollow"
        marks.append(
            mark(shape, (px[i], py[i]), 4.6, class_=f"point {color} {fill}", data_s=int(ids[i]), title=titles[i])
        )
    frame = tag("rect", x=left, y=1, width=width - left - 1, height=height - bottom - 1, class_="frame")
    names = [
        tag("text", axes[0], x=left + (width - left) / 2, y=height - 7, text_anchor="middle"),
        tag(
            "text",
            axes[1],
            x=0,
            y=0,
            text_anchor="middle",
            transform=f"translate(14 {(height - bottom) / 2}) rotate(-90)",
        ),
    ]
    return _svg(width, height, [frame, names, marks], label)


def interval(mean: float, low: float, high: float, *, bounds: tuple[float, float], chance: float) -> Html:
    """A score with its interval on a common scale, the level of chance dashed.

    Parameters
    ----------
    mean, low, high
        The score and its interval.
    bounds
        Ends of the scale.
    chance
        Level of chance.
    """
    width, height = 190, 18
    a, b = bounds

    def x(value: float) -> float:
        return 4 + (min(max(value, a), b) - a) / ((b - a) or 1) * (width - 8)

    line = tag("line", x1=_n(x(low)), x2=_n(x(high)), y1=9, y2=9, class_="whisker")
    dash = tag("line", x1=_n(x(chance)), x2=_n(x(chance)), y1=1, y2=17, class_="chance")
    dot = tag("circle", cx=_n(x(mean)), cy=9, r=4, class_="c0 filled")
    return _svg(width, height, [dash, line, dot], f"{number(mean)}, {number(low)} to {number(high)}", class_="small")


def signed_bar(value: float, sd: float, most: float) -> Html:
    """A bar to the left or right of zero, with a line of one standard deviation.

    Parameters
    ----------
    value, sd
        The value and its spread.
    most
        Largest absolute value on the scale.
    """
    width, height, half = 150, 14, 75
    scale = (half - 2) / (most or 1)
    at = min(max(value * scale, -half + 2), half - 2)
    bar = tag(
        "rect",
        x=_n(half + min(at, 0)),
        y=3,
        width=_n(abs(at)),
        height=8,
        class_=f"{'c0' if value >= 0 else 'c3'} filled",
    )
    low, high = (min(max(half + (value + k * sd) * scale, 1), width - 1) for k in (-1, 1))
    line = tag("line", x1=_n(low), x2=_n(high), y1=7, y2=7, class_="whisker")
    zero = tag("line", x1=half, x2=half, y1=0, y2=14, class_="axis")
    return _svg(width, height, [bar, line, zero], f"{number(value, 3)} ± {number(sd, 3)}", class_="small")


def key(code: int, name: str, *, hollow: bool = False) -> Html:
    """An entry of a legend.

    Parameters
    ----------
    code
        Category.
    name
        Its name.
    hollow
        Whether the symbol is.
    """
    color, shape = style_of(code)
    symbol = mark(shape, (8, 8), 5, class_=f"{color} {'hollow' if hollow else 'filled'}")
    drawn = tag("svg", symbol, width=16, height=16, viewBox="0 0 16 16", aria_hidden="true")
    return tag("span", drawn, tag("span", name), class_="key")


def _svg(width: int, height: int, children: Any, label: str, class_: str | None = None) -> Html:
    return tag(
        "svg",
        children,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_=class_,
    )


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
