"""Input, hidden and predicted cells of samples side by side (MAESTRO Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers
from scset_tools._samples import sample_of_cells
from scset_tools.pl._embed import embed
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import column, natural_order, representation
from scset_tools.pl._style import colors_for, ink, new_figure, wrapped

if TYPE_CHECKING:
    from anndata import AnnData

ROLES = {"input": "#E69F00", "hidden": "#D55E00", "predicted": "#0072B2"}
MAX_SAMPLES = 8


@habits()
@checks_numbers
def reconstruction(
    adata: AnnData,
    *,
    basis: str = "umap",
    role_key: str = _keys.role(),
    sample_key: str = "sample",
    sample: str | Sequence[str] | None = None,
    use_rep: str | None = None,
    n_cells: int = 400,
    size: float = 6.0,
    rng: np.random.Generator | int | None = 0,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Cells that a model saw, cells that were hidden from it, and its prediction of those (MAESTRO Fig. 2).

    All cells shown share one map, so a predicted cell far from every real one has a place of its own.

    Parameters
    ----------
    adata
        Cells of one or more samples, as from ``MAESTRO.reconstruct``.
    basis
        ``"umap"`` or ``"pca"``, computed here of the cells shown.
    role_key
        Column of ``adata.obs`` with ``"input"``, ``"hidden"`` or ``"predicted"``.
    sample_key
        Column of ``adata.obs`` with the sample. Without that column, all cells are of one sample.
    sample
        Name of the sample, or names, in this order. Default: the first eight by name.
    use_rep
        Key of ``adata.obsm`` with the features of the map. Default: ``adata.X``.
    n_cells
        At most so many cells of each sample and role, drawn by ``rng``: a map of more is slow and no clearer.
    size
        Area of a point in square points.
    rng
        Seed of the draw and the UMAP.
    axes
        Array of axes, 4 x samples, to draw on. Default: a new figure.

    Returns
    -------
    Array of axes, 4 x samples: all cells together, input, hidden, predicted; a column per sample. In the lower rows the
    other cells are a grey shade.

    Raises
    ------
    KeyError
        If ``role_key`` or a sample is not there.
    ValueError
        If a role is unknown, or ``axes`` has another shape.
    """
    roles = column(adata, role_key, caller="pl.reconstruction").astype(str).to_numpy()
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        msg = f"adata.obs[{role_key!r}] has the values {_checks.first(unknown)}, but must be one of {list(ROLES)}."
        raise ValueError(msg)
    labels = sample_of_cells(adata, sample_key) if sample_key in adata.obs else np.full(adata.n_obs, "")
    names = _names(labels, sample, sample_key)
    hues = dict(zip(ROLES, colors_for(list(ROLES), list(ROLES.values())), strict=True))
    rng = np.random.default_rng(rng)
    shown = _draw(labels, roles, names, n_cells=n_cells, rng=rng)
    xy, axis_names = embed(
        representation(adata[shown], use_rep, caller="pl.reconstruction"), basis, rng=rng, what="cells"
    )

    if axes is None:
        height, width = 4 * 1.7, max(len(names) * 1.8, 2.6)
        figure = new_figure((width + 0.4, height + 0.4))
        axes = figure.subplots(4, len(names), squeeze=False)
    axes = np.asarray(axes, dtype=object).reshape(4, -1) if np.size(axes) == 4 * len(names) else np.asarray(axes)
    if axes.shape != (4, len(names)):
        msg = f"axes has the shape {axes.shape}, but must be (4, {len(names)}): four rows, one column per sample."
        raise ValueError(msg)
    low, high = xy.min(axis=0), xy.max(axis=0)
    rim = 0.04 * (high - low) + 1e-9
    low, high = low - rim, high + rim
    order = rng.permutation(len(shown))  # in the top row no role is drawn over all of another
    for j, name in enumerate(names):
        of_sample = order[labels[shown][order] == name]
        role = roles[shown][of_sample]
        axes[0, j].scatter(
            xy[of_sample, 0], xy[of_sample, 1], s=size, c=[hues[r] for r in role], linewidths=0, alpha=0.7
        )
        axes[0, j].set_title(wrapped([name], 1.6)[0], fontsize="small" if len(name) > 16 else "medium")
        for i, (wanted, color) in enumerate(hues.items(), start=1):
            axes[i, j].scatter(*xy[of_sample[role != wanted]].T, s=size, c=ink(0.1), linewidths=0)
            axes[i, j].scatter(*xy[of_sample[role == wanted]].T, s=size, c=color, linewidths=0, alpha=0.8)
        for ax in axes[:, j]:
            ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
            ax.spines[:].set_color(ink(0.3))
    for ax, label in zip(axes[:, 0], ["all", *ROLES], strict=True):
        ax.set_ylabel(label, color=hues.get(label, ink()), fontweight="bold")
    axes[-1, 0].set_xlabel(f"{axis_names[0]}, {axis_names[1]}", fontsize="small", loc="left")
    return axes


def _names(labels: np.ndarray, sample: str | Sequence[str] | None, sample_key: str) -> list[str]:
    """Samples to show."""
    known = natural_order(set(labels))
    if sample is None:
        return known[:MAX_SAMPLES]
    names = [sample] if isinstance(sample, str) else [str(s) for s in sample]
    absent = [name for name in names if name not in known]
    if absent or not names:
        msg = f"{_checks.first(absent)} is not in adata.obs[{sample_key!r}]. Samples: {_checks.first(known, 20)}."
        raise KeyError(msg)
    return names


def _draw(
    labels: np.ndarray, roles: np.ndarray, names: list[str], *, n_cells: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions of at most ``n_cells`` cells of each sample and role."""
    drawn = []
    for name in names:
        for role in ROLES:
            rows = np.flatnonzero((labels == name) & (roles == role))
            drawn.append(rng.choice(rows, n_cells, replace=False) if len(rows) > n_cells else rows)
    return np.concatenate(drawn)
