"""Are the vectors of samples usable: spread along several directions, and about the samples rather than draws of cells?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools._spread import COLLAPSED, effective_rank, share_between
from scset_tools.tl._neighbors import DISTANCES_AT_ONCE, neighbor_weights
from scset_tools.tl._representation import get_representation

if TYPE_CHECKING:
    from anndata import AnnData

NUISANCES = ("n_cells", "depth")
MIN_FOR_LEAKAGE = 10
"""Fewest samples for a cross-validated regression."""
LEAKS = 0.5
"""R2 from which a nuisance is named in the sentence."""


@dataclass(frozen=True)
class RepresentationHealth:
    """What :func:`representation_health` found; printing it gives a plain sentence.

    Attributes
    ----------
    effective_rank
        Participation ratio of the eigenvalues of the covariance of the vectors: along how many directions they vary.
    n_samples
        Number of vectors.
    n_features
        Their length; the rank is at most the smaller of ``n_features`` and ``n_samples - 1``.
    share_between
        Share of the variance that is between samples and not between two draws of their cells (intraclass correlation); NaN
        without a second draw.
    neighbors_kept
        Share of the nearest neighbours of a sample that two draws have in common.
    neighbors_by_chance
        Its expectation for random vectors.
    leakage
        Nuisance -> R2 of a cross-validated ridge regression from the vectors to its logarithm; NaN with fewer than ten samples.
    n_cells
        Cells of each sample in a draw, if they were drawn here.
    """

    effective_rank: float
    n_samples: int
    n_features: int
    share_between: float
    neighbors_kept: float
    neighbors_by_chance: float
    leakage: dict[str, float]
    n_cells: int | None = None

    @property
    def is_collapsed(self) -> bool:
        """Whether the vectors vary along next to one direction, or not at all."""
        return self.effective_rank < COLLAPSED

    def summary(self) -> pd.DataFrame:
        """One row with all figures; leakage in columns ``r2_<nuisance>``."""
        row = {name: getattr(self, name) for name in ("effective_rank", "share_between", "neighbors_kept")}
        row |= {"neighbors_by_chance": self.neighbors_by_chance, "n_samples": self.n_samples}
        return pd.DataFrame([{**row, **{f"r2_{name}": r2 for name, r2 in self.leakage.items()}}])

    def __str__(self) -> str:
        if self.effective_rank == 0:
            return f"Collapsed: the vectors of all {self.n_samples} samples are the same."
        along = f"the vectors of {self.n_samples} samples vary along {self.effective_rank:.1f} of {self.n_features} directions"
        leaking = [f"{name} (R2 {r2:.2f})" for name, r2 in self.leakage.items() if r2 >= LEAKS]
        parts = []
        if self.is_collapsed:
            parts.append(f"Collapsed, unless one label is all they are to tell: {along}")
        elif self.share_between < 0.5:
            parts.append(f"Noisy: {along}, but more between draws of cells than between samples")
        else:
            parts.append(f"{'Sound' if not leaking else 'Spread out, but not by biology alone'}: {along}")
        if np.isfinite(self.share_between):
            drawn = "" if self.n_cells is None else f" of {self.n_cells} cells"
            parts.append(
                f"{self.share_between:.0%} of the variance is between samples, and two draws{drawn} keep "
                f"{self.neighbors_kept:.0%} of the neighbours (by chance {self.neighbors_by_chance:.0%})"
            )
        if leaking:
            parts.append(f"they predict {' and '.join(leaking)}: samples may differ by how they were measured")
        return "; ".join(parts) + "."


@checks_numbers
def representation_health(
    samples: AnnData | Any,
    *,
    use_rep: str | None = None,
    second: AnnData | None = None,
    adata: AnnData | None = None,
    n_cells: int | None = None,
    nuisances: Sequence[str] | None = None,
    n_neighbors: int = 5,
    rng: int = 0,
) -> RepresentationHealth:
    """Whether vectors of samples have collapsed, are mostly noise of the draw of cells, or tell how samples were measured.

    Needs no labels. Look at it before any map of samples: a loss that fell is no sign that vectors are of use.

    Parameters
    ----------
    samples
        Sample-level AnnData, or a model: anything with ``get_sample_representation(adata, n_cells=..., seed=...)``, from which two
        draws of cells are embedded.
    use_rep
        Key of ``samples.obsm``. Default: ``samples.X``.
    second
        Vectors of the same samples from another draw of as many cells, under the same key; for an AnnData.
    adata
        Cells that a model embeds. Default: those it was trained on.
    n_cells
        Cells of each sample in a draw, for a model; samples with fewer are embedded whole and left out of the comparison of draws.
        Default: half the cells of all but the smallest tenth of the samples, and at most 1,000.
    nuisances
        Numeric columns of the samples' ``obs`` that vectors should not tell. Default: ``n_cells`` and ``depth``, where they
        are; for a model of counts ``depth`` is the mean total of a sample's cells.
    n_neighbors
        Number of neighbours that are compared.
    rng
        Seed of the draws of cells, and of the folds.

    Returns
    -------
    :class:`RepresentationHealth`; ``print`` it for a sentence.

    Raises
    ------
    KeyError
        If a nuisance is no column of ``obs``.
    ValueError
        If there are fewer than three samples, the two draws are not of the same samples, or a value is not finite.

    Examples
    --------
    >>> import numpy as np, anndata as ad, scset_tools as sst
    >>> line = np.outer(np.arange(20.0), [1.0, 2.0, 3.0])
    >>> print(sst.tl.representation_health(ad.AnnData(line)))
    Collapsed, unless one label is all they are to tell: the vectors of 20 samples vary along 1.0 of 3 directions.
    """
    if hasattr(samples, "get_sample_representation"):
        return _of_model(
            samples, adata, n_cells=n_cells, nuisances=nuisances, n_neighbors=n_neighbors, rng=rng, use_rep=use_rep
        )
    x = get_representation(samples, use_rep)
    draws = None
    if second is not None:
        if set(second.obs_names) != set(samples.obs_names) or second.n_obs != samples.n_obs:
            apart = samples.obs_names.symmetric_difference(second.obs_names)
            msg = (
                f"The second draw must hold the same {samples.n_obs} samples, but {len(apart)} are in one alone: "
                f"{_checks.first(apart)}."
            )
            raise ValueError(msg)
        draws = x, get_representation(second[samples.obs_names], use_rep)
    return _measure(x, draws, _values(samples.obs, nuisances), n_neighbors=n_neighbors, rng=rng, n_cells=None)


def _of_model(
    model: Any, adata: AnnData | None, *, n_cells: int | None, rng: int, use_rep: str | None, **arguments: Any
) -> RepresentationHealth:
    if use_rep is not None:
        msg = f"use_rep={use_rep!r} is for a sample-level AnnData: a model has one representation."
        raise ValueError(msg)
    whole = model.to_sample_adata(adata)
    sizes = whole.obs["n_cells"]
    if n_cells is None:
        n_cells = int(min(1000, max(1, np.quantile(sizes, 0.1) // 2)))
    is_drawn = (sizes > n_cells).to_numpy()
    draws = None
    if is_drawn.sum() > 2:
        names = list(whole.obs_names[is_drawn])
        draws = tuple(
            model.get_sample_representation(adata, samples=names, n_cells=n_cells, seed=rng + i).to_numpy(dtype=float)
            for i in (0, 1)
        )
    obs = whole.obs
    if "depth" not in obs:
        depth = _depth(model, adata)
        obs = obs if depth is None else obs.assign(depth=depth.reindex(whole.obs_names))
    nuisances = arguments.pop("nuisances")
    return _measure(get_representation(whole), draws, _values(obs, nuisances), n_cells=n_cells, rng=rng, **arguments)


def _measure(
    x: np.ndarray,
    draws: tuple[np.ndarray, ...] | None,
    nuisances: pd.DataFrame,
    *,
    n_neighbors: int,
    rng: int,
    n_cells: int | None,
) -> RepresentationHealth:
    if len(x) < 3:
        msg = f"There are {len(x)} samples: their spread cannot be told from fewer than 3."
        raise ValueError(msg)
    kept = by_chance = share = np.nan
    if draws is not None:
        n_neighbors = min(n_neighbors, len(draws[0]) - 1)
        share, kept = share_between(*draws), _neighbors_kept(draws[0], draws[1], n_neighbors)
        by_chance = n_neighbors / (len(draws[0]) - 1)
    leakage = {str(name): _r2(x, nuisances[name].to_numpy(dtype=float), rng) for name in nuisances}
    return RepresentationHealth(effective_rank(x), x.shape[0], x.shape[1], share, kept, by_chance, leakage, n_cells)


def _neighbors_kept(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Mean share of the k nearest neighbours of a sample in one draw that are among the k nearest in the other.

    Samples tied for the last places share them, as if they were drawn for each draw of cells.
    """
    n = len(first)
    names, total = pd.RangeIndex(n), 0.0
    n_rows = max(1, DISTANCES_AT_ONCE // n)
    for start in range(0, n, n_rows):
        rows = np.arange(start, min(n, start + n_rows))
        is_other = rows[:, None] != np.arange(n)
        one, other = (
            neighbor_weights(cdist(x[rows], x), k, is_candidate=is_other, names=names[rows]) for x in (first, second)
        )
        total += float((one * other).sum())
    return total / (k * n)


def _values(obs: pd.DataFrame, nuisances: Sequence[str] | None) -> pd.DataFrame:
    """Columns of nuisances, on a logarithmic scale where they are positive."""
    if nuisances is None:
        names = [name for name in NUISANCES if name in obs and pd.api.types.is_numeric_dtype(obs[name])]
    else:
        names = [nuisances] if isinstance(nuisances, str) else list(nuisances)
        absent = [name for name in names if name not in obs]
        if absent:
            msg = f"{_checks.first(absent)} is not a column of the samples' obs. Columns: {_checks.first(obs.columns, 20)}."
            raise KeyError(msg)
    values = obs[names].astype(float)
    return np.log(values) if len(names) and (values.to_numpy() > 0).all() else values


def _r2(x: np.ndarray, y: np.ndarray, rng: int) -> float:
    """R2 of a ridge regression on samples that it was not fitted on; NaN where it cannot be known."""
    if len(y) < MIN_FOR_LEAKAGE or not np.isfinite(y).all() or np.ptp(y) <= 1e-9 * np.abs(y).max():
        return np.nan
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    predicted = cross_val_predict(ridge, x, y, cv=KFold(5, shuffle=True, random_state=rng))
    return float(1 - np.square(y - predicted).sum() / np.square(y - y.mean()).sum())


def _depth(model: Any, adata: AnnData | None) -> pd.Series | None:
    """Mean total count of the cells of each sample, if the model reads counts that lie in memory."""
    cells = getattr(model, "adata", None) if adata is None else adata
    arguments = getattr(model, "registry", {}).get("setup_args", {})
    sample_key, layer = arguments.get("sample_key"), arguments.get("layer")
    if cells is None or arguments.get("use_rep") is not None or sample_key not in getattr(cells, "obs", ()):
        return None
    x = cells.X if layer is None else cells.layers[layer]
    if not (isinstance(x, np.ndarray) or sparse.issparse(x)):
        return None
    some = x[:200]
    some = some.data if sparse.issparse(some) else some
    if some.size == 0 or (some < 0).any() or (some != np.rint(some)).any():
        return None
    total = pd.Series(
        np.asarray(x.sum(axis=1), dtype=float).ravel(), index=cells.obs[sample_key].astype(str).to_numpy()
    )
    return total.groupby(level=0).mean()
