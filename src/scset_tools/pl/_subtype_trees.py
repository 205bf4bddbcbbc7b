"""Hierarchical clustering of the same samples by several representations, side by side (ScSet Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import pdist, squareform

from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import categories, column, representation, stored_colors
from scset_tools.pl._style import CMAP, ink, legend_beside, new_figure, text_color_on, wrapped

if TYPE_CHECKING:
    from anndata import AnnData

NUMBER_ROOM = 0.075
"""Inches below a leaf for the number of its category, where colours repeat."""


@habits()
def subtype_trees(
    samples: Mapping[str, AnnData],
    color: str,
    *,
    use_rep: str | None = None,
    method: str = "ward",
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Trees of samples and their distances, one column per representation, with the known subtype below the leaves.

    Parameters
    ----------
    samples
        Sample-level AnnData by name of the representation, for instance ``{"ScSet": ..., "average": ...}``.
    color
        Column of ``obs`` with the subtype of each sample.
    use_rep
        Key of ``obsm`` with the representation. Default: ``X``.
    method
        Linkage, as `scipy.cluster.hierarchy.linkage` knows it; on Euclidean distances.
    axes
        Array of axes, 3 x representations: tree, subtype, distances. Default: a new figure.

    Returns
    -------
    Array of axes, 3 x representations.

    Raises
    ------
    KeyError
        If a column or representation is not there.
    ValueError
        If there are no representations, fewer than two samples, or axes of another shape.
    """
    if not samples:
        msg = "There is no representation to draw: pass {'name': samples, ...}."
        raise ValueError(msg)
    if axes is None:
        most = max(len(data.obs) for data in samples.values())
        side = float(np.clip(NUMBER_ROOM * most, 3.0, 8.0))  # as wide as numbers below the leaves need
        figure = new_figure((side * len(samples) + 1.3, side + 1.2))
        axes = figure.subplots(3, len(samples), squeeze=False, height_ratios=[1.0, 0.15, side - 0.6])
    axes = np.asarray(axes, dtype=object)
    axes = axes.reshape(3, -1) if axes.size == 3 * len(samples) else axes
    if axes.shape != (3, len(samples)):
        msg = f"axes has the shape {axes.shape}, but must be (3, {len(samples)}): one column per representation."
        raise ValueError(msg)
    for (name, data), (top, middle, bottom) in zip(samples.items(), axes.T, strict=True):
        x = representation(data, use_rep, caller="pl.subtype_trees")
        if len(x) < 2:
            msg = f"{name!r} has {len(x)} samples: a tree needs at least 2."
            raise ValueError(msg)
        groups = categories(column(data, color, caller="pl.subtype_trees"), colors=stored_colors(data, color))
        d = pdist(x)
        tree = dendrogram(
            linkage(d, method=method),
            ax=top,
            no_labels=True,
            color_threshold=0,
            above_threshold_color=ink(0.7),
        )
        leaves = tree["leaves"]
        hues = np.zeros((1, len(leaves), 3))
        for _, hue, _, rows in groups.present():
            hues[0, rows[leaves]] = to_rgb(hue)
        middle.imshow(hues, aspect="auto", interpolation="nearest")
        number_of = groups.numbers() if NUMBER_ROOM * len(leaves) <= 8.0 else {}
        for at, label in enumerate(groups.labels[leaves] if number_of else []):
            text = {"ha": "center", "va": "center", "fontsize": 5, "rotation": 90, "color": text_color_on(hues[0, at])}
            middle.text(at, 0, number_of[label], **text)
        bottom.imshow(squareform(d)[np.ix_(leaves, leaves)], cmap=f"{CMAP}_r", aspect="auto", interpolation="nearest")
        top.set_title(wrapped([name], 2.8)[0], fontsize="medium")
        for ax in (top, middle, bottom):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        bottom.set_xlabel("samples")
    axes[2, 0].set_ylabel("distances")
    legend_beside(axes[0, -1], [(color, groups.patches())], is_tall=True)
    return axes
