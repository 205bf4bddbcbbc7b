"""Losses and metrics over the epochs of a training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from scset_tools import _checks
from scset_tools.pl._habits import habits
from scset_tools.pl._style import MARKERS, axes_or_new, colors_for, ink, legend_beside, tidy, turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS: dict[str, Literal["-", "--", ":"]] = {"train": "-", "validation": "--", "test": ":"}


@habits()
def training_history(
    model_or_history: object, *, metrics: str | Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Training and validation curves on one pair of axes.

    Parameters
    ----------
    model_or_history
        A trained model (anything with ``.history``), or the history itself: name -> DataFrame with one column, indexed by
        epoch. The part is read from the name: ``loss_train`` and ``loss_validation`` are two curves of `loss`.
    metrics
        Names without the part (`loss`). Default: `loss`, or everything if there is no `loss`.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes: one colour per metric, solid for training, dashed for validation, dotted for test.

    Raises
    ------
    TypeError
        If there is no history of that form.
    ValueError
        If the history is empty.
    KeyError
        If a metric is not in the history.
    """
    curves = _curves(model_or_history)
    known = list(dict.fromkeys(metric for metric, _ in curves))
    if metrics is None:
        wanted = ["loss"] if "loss" in known else known
    else:
        wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    absent = [metric for metric in wanted if metric not in known]
    if absent:
        msg = f"{_checks.first(absent)} is not in the history. Metrics: {_checks.first(known, 20)}."
        raise KeyError(msg)

    ax = axes_or_new(ax, size=(6.4, 3.8))
    parts = [part for part in PARTS if any((metric, part) in curves for metric in wanted)]
    hues_of, shapes = colors_for(wanted), turns(len(wanted), ("", *MARKERS))
    for metric, color, shape in zip(wanted, hues_of, shapes, strict=True):
        for part in parts:
            if (metric, part) in curves:
                epochs, values = curves[metric, part]
                # one epoch is a point, not an invisible line
                marker = shape or ("o" if np.isfinite(values).sum() < 2 else "")
                ax.plot(
                    epochs,
                    values,
                    color=color,
                    linestyle=PARTS[part],
                    marker=marker,
                    markevery=max(len(values) // 8, 1),
                    linewidth=1.8,
                    label=f"{metric} {part}",
                )
    styles = [Line2D([], [], color=ink(0.8), linestyle=PARTS[part], label=part) for part in parts]
    hues = [Line2D([], [], color=c, marker=s, label=m) for m, c, s in zip(wanted, hues_of, shapes, strict=True)]
    if len(wanted) == 1:
        for line in styles:
            line.set_color(colors_for(wanted)[0])
    if len(wanted) > 1 or len(parts) > 1:  # a single curve is named by the axis
        legend_beside(ax, [("part", styles)] if len(wanted) == 1 else [("metric", hues), ("part", styles)])
    ax.set(xlabel="epoch", ylabel=wanted[0] if len(wanted) == 1 else "value")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    tidy(ax, grid="y")
    return ax


def _curves(source: object) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """(metric, part) -> (epochs, values) of all curves that can be drawn; step-wise ones are left out."""
    history = source if isinstance(source, Mapping) else getattr(source, "history", None)
    if history is None and hasattr(source, "history"):
        msg = f"{type(source).__name__} has no history yet: call train() first."
        raise ValueError(msg)
    if not isinstance(history, Mapping):
        msg = (
            "pl.training_history takes a model with .history or a dict of name -> DataFrame, "
            f"but was given {type(source).__name__}."
        )
        raise TypeError(msg)
    curves = {}
    for name, frame in history.items():
        split = _metric_and_part(str(name))
        if split is None:
            continue
        values = frame if isinstance(frame, pd.Series) else pd.DataFrame(frame).iloc[:, 0]
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
        curves[split] = (values.index.to_numpy(), numbers)
    if not any(np.isfinite(values).any() for _, values in curves.values()):
        msg = f"The history has no curve with a finite value (entries: {_checks.first(list(history))}): train first."
        raise ValueError(msg)
    return curves


def _metric_and_part(name: str) -> tuple[str, str] | None:
    """``loss_validation`` and ``validation_loss_epoch`` -> (loss, validation); None for values of single steps."""
    if name.endswith("_step"):
        return None
    words = [word for word in re.sub(r"_epoch$", "", name).split("_") if word]
    for part, spellings in {"train": {"train"}, "validation": {"validation", "val"}, "test": {"test"}}.items():
        if spellings & set(words):
            metric = "_".join(word for word in words if word not in spellings)
            return metric or "loss", part
    return "_".join(words), "train"
