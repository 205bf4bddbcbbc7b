"""What scanpy's users pass to any plot: ``title``, ``palette``, ``show`` and ``save``, added to every function in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from scset_tools.pl._palette import with_palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

ADDED = {
    "title": (
        "str | Sequence[str] | None",
        "Title of the axes; where a plot has several, of the figure, or one for each.",
    ),
    "palette": (
        "str | Sequence[str] | Mapping[str, str] | None",
        "Colours of the categories: a list, a dictionary of category and colour, or a name that seaborn knows. Default: those in "
        '``uns["<key>_colors"]`` where scanpy stored some, else eight that colour-blind readers tell apart.',
    ),
    "show": ("bool | None", "Whether to show the figure now (``plt.show``); the axes are returned all the same."),
    "save": ("str | Path | None", "File to save the figure to (``.png``, ``.pdf``, ``.svg``)."),
}
"""Parameter: annotation and description."""


def habits(*, palette: bool = True) -> Callable[[Callable[P, Any]], Callable[..., Any]]:
    """Give a plot the arguments that scanpy's plots have; its docstring and signature tell of them.

    Parameters
    ----------
    palette
        Whether it draws categories.
    """
    names = [name for name in ADDED if palette or name != "palette"]

    def decorate(function: Callable[P, Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def plot(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name, None) for name in names}
            where = f"pl.{function.__name__}"
            _require_file(given["save"], where)
            with with_palette(given.get("palette"), caller=where):
                drawn = function(*args, **kwargs)
            axes = _axes_of(drawn)
            if given["title"] is not None:
                _set_title(drawn, axes, given["title"], where)
            if given["save"] is not None:
                cast("Figure", axes[0].figure).savefig(given["save"], dpi=150, bbox_inches="tight")
            if given["show"]:
                plt.show()
            return drawn

        signature = inspect.signature(function)
        extra = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ADDED[n][0]) for n in names
        ]
        plot.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])  # type: ignore[attr-defined]
        plot.__annotations__ = {**function.__annotations__, **{n: ADDED[n][0] for n in names}}
        text = inspect.cleandoc(function.__doc__ or "")
        entries = "".join(f"{n}\n    {ADDED[n][1]}\n" for n in names)
        plot.__doc__ = text.replace("\n\nReturns\n-------", f"\n{entries}\nReturns\n-------", 1)
        return plot

    return decorate


def _axes_of(drawn: Any) -> list[Axes]:
    """The axes of what a plot returns: Axes, an array of them, or seaborn's grid."""
    if isinstance(drawn, Axes):
        return [drawn]
    return list(np.ravel(drawn)) if isinstance(drawn, np.ndarray) else [drawn.ax_heatmap]


def _set_title(drawn: Any, axes: list[Axes], title: str | Sequence[str], where: str) -> None:
    if not isinstance(title, str):
        titles = list(title)
        if len(titles) != len(axes):
            msg = f"{where} drew {len(axes)} axes, but was given {len(titles)} titles: pass one text, or one for each."
            raise ValueError(msg)
        for ax, text in zip(axes, titles, strict=True):
            ax.set_title(text)
    elif isinstance(drawn, Axes):
        drawn.set_title(title)
    else:
        # seaborn's grid has no layout that makes room
        axes[0].figure.suptitle(title, **({} if isinstance(drawn, np.ndarray) else {"y": 1.02}))


def _require_file(save: Any, where: str) -> None:
    """Raise before anything is drawn; scanpy's ``save=True`` means a folder that is set elsewhere, and there is none here."""
    if save is not None and not isinstance(save, str | Path):
        msg = f"{where} takes a file name as save, such as 'figure.pdf', but was given {save!r}."
        raise TypeError(msg)
