"""What changes in samples under another covariate: composition, and features within cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools._numbers import checks_numbers
from scset_tools.pl._gene_heatmap import gene_heatmap
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import result_of, two_axes
from scset_tools.pl._style import OKABE_ITO, colors_for, ink, name_size, new_figure, row_height, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NEEDED = ("composition", "expression", "table")


@habits()
@checks_numbers
def counterfactual(result: object, *, n_top: int = 5, axes: np.ndarray | None = None) -> np.ndarray:
    """Shifts of composition and of features between the own and the asked cells of generated samples.

    Left, the mean share of each cell type in both arms, with the interval over draws of the difference, drawn about the asked share. Right, the
    shift of the features that move most in each cell type.

    Parameters
    ----------
    result
        From :func:`scset_tools.tl.counterfactual_shifts`.
    n_top
        Number of features taken from each cell type, by absolute shift.
    axes
        Two axes to draw on. Default: a new figure.

    Returns
    -------
    Array of two axes: composition, features.

    Raises
    ------
    TypeError
        If given something else.
    ValueError
        If there are not two axes.
    """
    found = result_of(result, NEEDED, caller="pl.counterfactual", maker="tl.counterfactual_shifts")
    composition: pd.DataFrame = found.composition
    each, shifts = row_height(len(composition), 0.3), found.table()
    if axes is None:
        height = max(1.8 + each * len(composition), 3.0)
        n_shown = min(n_top * len(shifts), shifts.shape[1])
        axes = new_figure((7.4 + 0.2 * n_shown, height)).subplots(1, 2, width_ratios=[3.4, 1.5 + 0.2 * n_shown])
    axes = two_axes(axes)
    _shares(axes[0], composition, name_size(each))
    gene_heatmap(shifts, n_top=n_top, label="shift", ax=axes[1])
    return axes


def _shares(ax: Axes, composition: pd.DataFrame, size: float) -> None:
    at = np.arange(len(composition))[::-1]
    hues = colors_for(["own", "asked"], ("0.55", OKABE_ITO[0]))
    ax.hlines(at, composition["own"], composition["asked"], color=ink(0.4), linewidth=1.2)
    low, high = (composition["own"] + composition[end] for end in ("ci_low", "ci_high"))
    ax.hlines(at, low, high, color=hues[1], linewidth=4, alpha=0.35)
    for column, color in zip(("own", "asked"), hues, strict=True):
        ax.scatter(composition[column], at, s=42, color=color, label=column, zorder=3)
    ax.set_yticks(at, composition.index.astype(str), fontsize=size)
    ax.set(xlabel="share of cells", ylim=(-0.6, len(at) - 0.4))
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    tidy(ax, grid="x")
