"""Colours of categories: the default ones, or those that the user asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle, islice
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import is_color_like, to_hex, to_rgb

from scset_tools import _checks

T = TypeVar("T")
Palette = str | Sequence[str] | Mapping[str, str]

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's palette, in an order that puts the pale yellow last."""

_asked: ContextVar[Palette | None] = ContextVar("palette", default=None)


@contextmanager
def with_palette(palette: Palette | None, *, caller: str) -> Iterator[None]:
    """Categories have these colours within the block; None: the usual ones."""
    if palette is not None and not isinstance(palette, str):
        values = list(palette.values()) if isinstance(palette, Mapping) else list(palette)
        bad = [v for v in values if not is_color_like(v)]
        if bad or not values:
            msg = f"{caller}: palette holds {_checks.first(bad) if bad else 'nothing'}: name colours such as '#0072B2' or 'red'."
            raise ValueError(msg)
    elif palette is not None:
        _named(palette, 1, caller)
    token = _asked.set(palette)
    try:
        yield
    finally:
        _asked.reset(token)


def is_asked() -> bool:
    """Whether the user gave a palette, which wins over colours that are stored."""
    return _asked.get() is not None


def colors_for(names: Sequence[Any], default: Sequence[str] = OKABE_ITO) -> list[str]:
    """A colour for each name, repeating where there are fewer.

    Parameters
    ----------
    names
        Categories.
    default
        Colours without a palette of the user. Black is white where the background is dark.
    """
    palette = _asked.get()
    if isinstance(palette, Mapping):
        absent = [name for name in names if name not in palette]
        if absent:
            msg = f"palette has no colour for {_checks.first(absent)}. It has some for {_checks.first(list(palette))}."
            raise KeyError(msg)
        return [to_hex(palette[name]) for name in names]
    if isinstance(palette, str):
        return _named(palette, max(len(names), 1), "palette")[: len(names)]
    chosen = [ink() if to_hex(c) == "#000000" else c for c in default] if palette is None else map(to_hex, palette)
    return list(islice(cycle(chosen), len(names)))


def colors_of(n: int) -> list[str]:
    """``n`` colours of things without a name."""
    return colors_for(range(n))


def n_distinct(n: int) -> int:
    """After how many of ``n`` categories the colours start again."""
    palette = _asked.get()
    if palette is None:
        return len(OKABE_ITO)
    return n if isinstance(palette, str | Mapping) else len(palette)


def turns(n: int, shapes: Sequence[T]) -> list[T]:
    """``n`` shapes that change each time the colours start again."""
    return [shapes[i // max(n_distinct(n), 1) % len(shapes)] for i in range(n)]


def ink(strength: float = 1.0) -> str:
    """Colour of what is written or drawn beside the data: that of text, mixed with the background (0) so that dark styles work.

    Parameters
    ----------
    strength
        1 is the colour of text, 0 the background.
    """
    text, behind = np.array(to_rgb(plt.rcParams["text.color"])), np.array(to_rgb(background()))
    return to_hex(behind + strength * (text - behind))


def background() -> str:
    """Colour behind the data."""
    color = plt.rcParams["axes.facecolor"]
    return "#ffffff" if color == "none" else to_hex(color)


def _named(name: str, n: int, caller: str) -> list[str]:
    import seaborn as sns

    try:
        return [to_hex(c) for c in sns.color_palette(name, n)]
    except ValueError as error:
        msg = f"{caller}: seaborn knows no palette {name!r} (for instance 'tab10', 'Set2', 'viridis')."
        raise ValueError(msg) from error
