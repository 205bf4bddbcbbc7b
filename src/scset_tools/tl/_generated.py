"""Are generated cells those of their sample? Composition and distances (ScSet section 4.1.2, appendix H)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import ot
import pandas as pd
from scipy.spatial.distance import cdist, pdist

from scset_tools import _checks, _keys
from scset_tools._numbers import checks_numbers
from scset_tools._samples import sample_of_cells
from scset_tools._short_repr import ShortRepr
from scset_tools.tl._knn import FairNeighborsClassifier
from scset_tools.tl._representation import get_representation

if TYPE_CHECKING:
    from anndata import AnnData

MAX_FOR_BANDWIDTH = 2000
"""Cells from whose distances the width of the kernel is taken."""


@dataclass(frozen=True, repr=False)
class GeneratedComposition(ShortRepr):
    """Proportions of cell types among the true and the generated cells of samples.

    Attributes
    ----------
    true
        Proportions in the samples, samples x cell types; rows sum to 1.
    generated
        Proportions in the generated cells of each sample, likewise.
    correlation
        Pearson correlation of the true proportions of each sample (rows) with the generated ones of each (columns).
    overall
        Cell types x (``"true"``, ``"generated"``): proportions over the cells of all samples together.
    """

    true: pd.DataFrame
    generated: pd.DataFrame
    correlation: pd.DataFrame
    overall: pd.DataFrame

    def per_sample(self) -> pd.DataFrame:
        """For each sample ``pearson`` with its own true sample, ``closest`` (the true sample that it correlates with most) and
        ``is_closest`` (whether that is its own).
        """  # noqa: D205
        own = np.diag(self.correlation.to_numpy())
        closest = self.correlation.fillna(-2).idxmax(axis=0)
        return pd.DataFrame(
            {"pearson": own, "closest": closest, "is_closest": closest.to_numpy() == closest.index.to_numpy()},
            index=self.correlation.columns,
        )

    def summary(self) -> pd.Series:
        """``pearson_overall``, ``pearson_median`` over samples, ``share_closest``, ``chance`` (of the latter) and ``n_samples``."""
        table = self.per_sample()
        return pd.Series(
            {
                "pearson_overall": _pearson(self.overall["true"].to_numpy(), self.overall["generated"].to_numpy()),
                "pearson_median": table["pearson"].median(),
                "share_closest": table["is_closest"].mean(),
                "chance": 1 / len(table),
                "n_samples": len(table),
            }
        )


@checks_numbers
def transfer_labels(
    adata: AnnData,
    reference: AnnData,
    label_key: str,
    *,
    use_rep: str | None = None,
    n_neighbors: int = 15,
    key_added: str | None = None,
) -> None:
    """Give cells the label of most of their nearest neighbours in a reference: generated cells have no cell type of their own.

    Parameters
    ----------
    adata
        Cells to label, as from ``ScSet.sample_cells``: their ``X`` are the features.
    reference
        Labelled cells.
    label_key
        Column of ``reference.obs`` with the labels, without missing values.
    use_rep
        Key of ``reference.obsm`` with the same features. Default: ``reference.X``.
    n_neighbors
        Number of neighbours (Euclidean) that vote. Those as far as the last one share its vote, so that the order of the cells
        does not matter; a tied vote goes to the label whose voters are nearer, then to the one that sorts first.
    key_added
        Column of ``adata.obs`` to write. Default: ``label_key``.

    Returns
    -------
    None. Sets ``adata.obs[key_added]``, a categorical with the categories of the reference.

    Raises
    ------
    KeyError
        If the column or the representation is not there.
    ValueError
        If labels are missing, or both have different numbers of features.
    """
    _checks.require_anndata(adata, caller="tl.transfer_labels")
    labels = _checks.require_obs(reference, label_key)
    _checks.require_no_missing(labels, label_key)
    known, new = get_representation(reference, use_rep), get_representation(adata)
    if known.shape[1] != new.shape[1]:
        msg = (
            f"The reference has {known.shape[1]} features and the cells to label have {new.shape[1]}: name its use_rep."
        )
        raise ValueError(msg)
    text = labels.astype(str).to_numpy()
    voted = FairNeighborsClassifier(min(n_neighbors, len(known))).fit(known, text).predict(new)
    names = labels.cat.categories.astype(str) if isinstance(labels.dtype, pd.CategoricalDtype) else np.unique(text)
    _keys.remember(adata.uns, [key_added or label_key])
    adata.obs[_keys.key(key_added or label_key)] = pd.Categorical(voted, categories=list(names))


def generated_composition(
    adata: AnnData, generated: AnnData, label_key: str, *, sample_key: str = "sample"
) -> GeneratedComposition:
    """Compare the composition of generated samples with that of the true ones (ScSet Fig. 3, Tables 2 to 5).

    Parameters
    ----------
    adata
        True cells. Samples that were not generated are left out.
    generated
        Generated cells, with the sample in ``obs[sample_key]`` and labels from :func:`transfer_labels`.
    label_key
        Column of ``obs`` of both with the cell type.
    sample_key
        Column of ``obs`` of both with the sample.

    Returns
    -------
    :class:`GeneratedComposition`; ``summary()`` has the figures, and ``pl.generated_composition`` draws it.

    Raises
    ------
    KeyError
        If a column is not there, or a generated sample is not among the true ones.
    """
    tables = []
    for cells in (adata, generated):
        columns = [sample_of_cells(cells, sample_key), _checks.require_obs(cells, label_key).astype(str).to_numpy()]
        tables.append(pd.crosstab(columns[0], columns[1]))
    true, made = tables
    absent = [name for name in made.index if name not in true.index]
    if absent:
        msg = f"{len(absent)} generated samples are not in adata.obs[{sample_key!r}] (first: {_checks.first(absent)})."
        raise KeyError(msg)
    types = sorted({*true.columns, *made.columns})
    true = true.loc[made.index].reindex(columns=types, fill_value=0)
    made = made.reindex(columns=types, fill_value=0)
    for table in (true, made):
        table.index.name, table.columns.name = sample_key, label_key
    overall = pd.DataFrame({"true": true.sum() / true.sum().sum(), "generated": made.sum() / made.sum().sum()})
    true, made = true.div(true.sum(axis=1), axis=0), made.div(made.sum(axis=1), axis=0)
    correlation = [[_pearson(a, b) for b in made.to_numpy()] for a in true.to_numpy()]
    return GeneratedComposition(
        true, made, pd.DataFrame(correlation, index=true.index, columns=made.index.rename("generated")), overall
    )


@checks_numbers
def generated_distances(
    adata: AnnData,
    generated: AnnData,
    *,
    sample_key: str = "sample",
    use_rep: str | None = None,
    epsilon: float = 0.1,
    rng: np.random.Generator | int | None = 0,
) -> pd.DataFrame:
    """Distances of generated from true cells of each sample, beside those of one half of the true cells from the other.

    A half against the other is the floor: as close as cells of the same sample are. Both compare sets of equal size.

    Parameters
    ----------
    adata
        True cells.
    generated
        Generated cells, with the same features in ``X``.
    sample_key
        Column of ``obs`` of both with the sample.
    use_rep
        Key of ``adata.obsm`` with the features. Default: ``adata.X``.
    epsilon
        Entropic regularisation of the transport, in units of the mean squared distance between true cells.
    rng
        Seed of the halves and draws.

    Returns
    -------
    DataFrame indexed by sample. ``mmd`` and ``mmd_floor``: squared maximum mean discrepancy (unbiased; Gaussian kernel as wide
    as the median distance between true cells). ``sinkhorn`` and ``sinkhorn_floor``: Sinkhorn divergence for squared Euclidean
    distances. ``n_cells``: the size of the sets.

    Raises
    ------
    KeyError
        If a column is not there, or a generated sample is not among the true ones.
    ValueError
        If the numbers of features differ, or a true sample has fewer than 4 cells.
    """
    rng = np.random.default_rng(rng)
    x, y = get_representation(adata, use_rep), get_representation(generated)
    if x.shape[1] != y.shape[1]:
        msg = f"True cells have {x.shape[1]} features and generated ones {y.shape[1]}: name the representation with use_rep."
        raise ValueError(msg)
    of_x, of_y = (sample_of_cells(a, sample_key) for a in (adata, generated))
    between = pdist(x[rng.choice(len(x), min(len(x), MAX_FOR_BANDWIDTH), replace=False)])
    bandwidth, scale = float(np.median(between)), float(np.mean(between**2))
    rows = {}
    for name in dict.fromkeys(of_y):
        true, made = x[of_x == name], y[of_y == name]
        if not len(true):
            msg = f"The generated sample {name!r} is not in adata.obs[{sample_key!r}]."
            raise KeyError(msg)
        n = min(len(true) // 2, len(made))
        if n < 2:
            msg = f"Sample {name!r} has {len(true)} true and {len(made)} generated cells: at least 4 and 2 are needed."
            raise ValueError(msg)
        order = rng.permutation(len(true))
        first, second = true[order[:n]], true[order[n : 2 * n]]
        drawn = made[rng.choice(len(made), n, replace=False)]
        rows[name] = {
            "mmd": _mmd(first, drawn, bandwidth),
            "mmd_floor": _mmd(first, second, bandwidth),
            "sinkhorn": _sinkhorn(first, drawn, epsilon * scale),
            "sinkhorn_floor": _sinkhorn(first, second, epsilon * scale),
            "n_cells": n,
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n_cells": int}).rename_axis(sample_key)


def _mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2))

    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def _sinkhorn(x: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    """Sinkhorn divergence, S(x, y) - (S(x, x) + S(y, y)) / 2 with S the value of the entropic problem."""

    def value(a: np.ndarray, b: np.ndarray) -> float:
        # KL to the product of the marginals, for which the divergence is zero for equal sets and never negative
        cost, weight = cdist(a, b, "sqeuclidean"), 1 / (len(a) * len(b))
        plan = ot.sinkhorn([], [], cost, epsilon, numItermax=2000, stopThr=1e-5, warn=False)
        return float((plan * cost).sum() + epsilon * (plan * np.log(np.maximum(plan, 1e-300) / weight)).sum())

    return value(x, y) - (value(x, x) + value(y, y)) / 2


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation; NaN where one side does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")
