"""Composition of generated samples beside the true ones (ScSet Fig. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import result_of, two_axes
from scset_tools.pl._style import CMAP, OKABE_ITO, color_bar, colors_for, name_size, new_figure, row_height, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMES = 30
NEEDED = ("overall", "correlation", "summary")


@habits()
def generated_composition(result: object, *, axes: np.ndarray | None = None) -> np.ndarray:
    """Proportions of cell types among true and generated cells, and which true sample each generated one resembles.

    Left, the cells of all samples together. Right, the Pearson correlation of the proportions of every true sample (rows)
    with those of every generated one (columns): a bright diagonal says that samples were generated as themselves. A ring
    marks the true sample that a generated one correlates with most.

    Parameters
    ----------
    result
        From :func:`scset_tools.tl.generated_composition`.
    axes
        Two axes to draw on. Default: a new figure.

    Returns
    -------
    Array of two axes: proportions, correlations.

    Raises
    ------
    TypeError
        If given something else.
    ValueError
        If there are not two axes.
    """
    found = result_of(result, NEEDED, caller="pl.generated_composition", maker="tl.generated_composition")
    overall: pd.DataFrame = found.overall.sort_values("true")
    correlation: pd.DataFrame = found.correlation
    each = row_height(len(overall), 0.26)
    if axes is None:
        height = max(1.2 + each * len(overall), 3.2)
        side = max(min(row_height(len(correlation), 0.2) * len(correlation), height), 2.0)
        axes = new_figure((6.2 + side, height)).subplots(1, 2, width_ratios=[2.6, side])
    axes = two_axes(axes)
    figures = found.summary()
    _bars(axes[0], overall, size=min(name_size(each), 8.5), pearson=float(figures["pearson_overall"]))
    _matrix(axes[1], correlation, figures)
    return axes


def _bars(ax: Axes, overall: pd.DataFrame, *, size: float, pearson: float) -> None:
    at = np.arange(len(overall))
    hues = colors_for(["true", "generated"], ("0.55", OKABE_ITO[0]))
    for offset, column, color in ((0.2, "true", hues[0]), (-0.2, "generated", hues[1])):
        ax.barh(at + offset, overall[column], height=0.4, color=color, label=column)
    ax.set_yticks(at, overall.index.astype(str), fontsize=size)
    ax.set(xlabel="share of all cells", title=f"all samples together: r = {pearson:.2f}", ylim=(-0.6, len(at) - 0.4))
    ax.title.set_fontsize("medium")
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    tidy(ax, grid="x")


def _matrix(ax: Axes, correlation: pd.DataFrame, figures: pd.Series) -> None:
    values = correlation.to_numpy()
    image = ax.imshow(values, cmap=CMAP, vmin=min(0.0, float(np.nanmin(values))), vmax=1.0, aspect="auto")
    color_bar(ax, image, "correlation of proportions")
    best = np.nanargmax(np.where(np.isnan(values), -2.0, values), axis=0)
    size = float(np.clip(400 / max(1, len(values)), 6, 60))
    # a dark ring in a light one is seen on every colour of the map, yellow and blue
    for color, width in (("white", 2.6), ("black", 1.0)):
        ax.scatter(np.arange(len(best)), best, s=size, facecolors="none", edgecolors=color, linewidths=width)
    if len(values) <= MAX_NAMES:
        ax.set_xticks(np.arange(values.shape[1]), correlation.columns, rotation=90, fontsize="x-small")
        ax.set_yticks(np.arange(len(values)), correlation.index, fontsize="x-small")
    else:
        ax.set(xticks=[], yticks=[])
    ax.set(xlabel="generated sample", ylabel="true sample")
    ax.set_title(
        f"closest to itself: {figures['share_closest']:.0%} (chance {figures['chance']:.0%})", fontsize="medium"
    )
