"""One value before and after, donor by donor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels
from scset_tools.pl._habits import habits
from scset_tools.pl._inputs import reading_order, representation
from scset_tools.pl._style import MISSING, OKABE_ITO, axes_or_new, colors_for, ink, tidy, wrapped

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@habits()
def paired(
    samples: AnnData,
    feature: str,
    label_key: str,
    *,
    paired_by: str,
    use_rep: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A line per donor from one class to the next: what ``tl.association(..., paired_by=)`` compares.

    Parameters
    ----------
    samples
        Sample-level AnnData.
    feature
        A numeric column of ``samples.obs``, a name of ``samples.var_names``, or with ``use_rep`` the name of a column as ``tl.association`` gives
        it (``"X_maestro_3"``).
    label_key
        Column with the classes (visits, conditions): a category in its order, others by name.
    paired_by
        Column with the donor. Several samples of one donor and class are averaged.
    use_rep
        Key of ``samples.obsm``.
    ax
        Axes to draw on. Default: a new figure.

    Returns
    -------
    The axes: lines that rise and fall in two colours, donors with one class as grey points, medians of the complete donors in black.

    Raises
    ------
    KeyError
        If a column or feature does not exist.
    ValueError
        If there are fewer than two classes, or no donor has all of them.
    """
    values = _values(samples, feature, use_rep)
    codes, names = _classes(_checks.require_obs(samples, label_key))
    donors = _checks.require_obs(samples, paired_by).map(_labels.name_of, na_action="ignore").astype(object)
    table = pd.DataFrame({"donor": donors.to_numpy(), "code": codes, "value": values})
    table = table[(table["code"] >= 0) & table["donor"].notna() & table["value"].notna()]
    wide = table.pivot_table(index="donor", columns="code", values="value").reindex(columns=range(len(names)))
    whole = wide.dropna()
    if len(names) < 2 or not len(whole):
        msg = (
            f"{len(whole)} of {len(wide)} values of {paired_by!r} have samples of all {len(names)} classes of {label_key!r} "
            f"{_checks.first(names)}: there are no pairs to draw."
        )
        raise ValueError(msg)
    ax = axes_or_new(ax, size=(1.6 + 1.3 * len(names), 4.0))
    fall, rise = colors_for(["fall", "rise"], (OKABE_ITO[0], OKABE_ITO[3]))
    place = np.arange(len(names))
    for row in wide.drop(index=whole.index).to_numpy():
        ax.plot(place, row, "o", color=MISSING, markersize=4)
    for row in whole.to_numpy():
        ax.plot(place, row, "o-", color=rise if row[-1] > row[0] else fall, markersize=4, linewidth=1, alpha=0.75)
    medians = whole.median().to_numpy()
    ax.hlines(medians, place - 0.18, place + 0.18, color=ink(), linewidth=2.2, zorder=3)
    ax.set_xticks(place, wrapped(names, 1.2))
    ax.set(xlim=(-0.4, place[-1] + 0.4), ylabel=feature, xlabel=label_key)
    tidy(ax, grid="y")
    return ax


def _classes(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Number of the class of each sample, -1 where missing, and the classes.

    Those of a category stand in its order, as scanpy draws them; others with week 2 before week 10.
    """
    read = _labels.read_classes(column, kind="ordinal" if _labels.is_ordered(column) else "class")
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = [name for name in map(_labels.name_of, column.cat.categories) if name in read.names]
    else:
        names = reading_order(read.names)
    return np.append([names.index(name) for name in read.names], -1)[read.codes], names


def _values(samples: AnnData, feature: str, use_rep: str | None) -> np.ndarray:
    _checks.require_anndata(samples, caller="pl.paired")
    if use_rep is not None:
        matrix = _checks.require_obsm(samples, use_rep)
        names = list(map(str, getattr(matrix, "columns", [f"{use_rep}_{j}" for j in range(matrix.shape[1])])))
    else:
        names = list(samples.var_names)
        if feature in samples.obs:
            return pd.to_numeric(samples.obs[feature]).to_numpy(dtype=float)
    if feature not in names:
        where = "samples.var_names or samples.obs" if use_rep is None else f"the columns of samples.obsm[{use_rep!r}]"
        msg = f"{feature!r} is not in {where}. First ones: {_checks.first(names)}."
        raise KeyError(msg)
    return representation(samples, use_rep, caller="pl.paired")[:, names.index(feature)]
