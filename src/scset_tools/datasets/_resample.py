"""Drawing the cells of a cohort from base cells: scale, cell types, pools, counts, columns.

Every cohort goes through the same steps, so that pools, names and columns mean the same in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

TRUTH = "truth"
"""Entry of ``uns`` with the make-up of a cohort."""

MIN_CELLS_PER_TYPE = 10
"""A cell type is chosen by default only if every pool holds this many of its cells."""

N_LATENTS = 14
"""Latents kept by default: scSet keeps 14 scVI latents."""

N_STUDIES = 3
"""Studies are dealt out in turn and have no effect on the cells: a split by study is a fair one."""


def base_cells(adata: AnnData | None, cell_type_key: str | None) -> tuple[AnnData, np.ndarray]:
    """Base cells and their cell types as strings."""
    if adata is None:
        from scanpy.datasets import pbmc68k_reduced

        adata, cell_type_key = pbmc68k_reduced(), cell_type_key or "bulk_labels"
    _checks.require_anndata(adata, caller="A cohort")
    if cell_type_key is None:
        msg = "cell_type_key must be given with an adata of your own: the column of adata.obs with the cell types."
        raise ValueError(msg)
    labels = _checks.require_obs(adata, cell_type_key)
    _checks.require_no_missing(labels, cell_type_key)
    return adata, labels.to_numpy(dtype=str)


def standardised_latents(
    adata: AnnData | None, cell_type_key: str | None, *, use_rep: str | None, n_features: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Latents with mean 0 and standard deviation 1 over all base cells, cell types, cell names, latent names.

    All base cells, not those of a pool: pools must share one scale, or a shift of training and test cohort would differ.
    """
    adata, labels = base_cells(adata, cell_type_key)
    values = adata.X if use_rep is None else _checks.require_obsm(adata, use_rep)
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    n_features = N_LATENTS if n_features is None and use_rep is not None else n_features
    values = values[:, :n_features].astype(np.float64)
    if use_rep is None:
        features = adata.var_names.to_numpy(dtype=str)[:n_features]
    else:
        features = np.array([f"{use_rep.removeprefix('X_')}_{i}" for i in range(values.shape[1])])
    scale = values.std(axis=0)
    if not np.isfinite(values).all() or (scale == 0).any():
        bad = features[~np.isfinite(values).all(axis=0) | (scale == 0)]
        msg = f"{len(bad)} of {len(features)} latents are constant or not finite (first: {_checks.first(bad.tolist())}): drop them."
        raise ValueError(msg)
    return (values - values.mean(axis=0)) / scale, labels, adata.obs_names.to_numpy(dtype=str), features


def in_pool(labels: np.ndarray, cell_type: str, pool: tuple[int, int] | None) -> np.ndarray:
    """Positions of a cell type in a pool: every ``of``-th cell, so that pools are disjoint whatever the seed."""
    k, of = (0, 1) if pool is None else pool
    if not 0 <= k < of:
        msg = f"pool={pool} must be (k, of) with 0 <= k < of: part k of so many parts."
        raise ValueError(msg)
    return np.flatnonzero(labels == cell_type)[k::of]


def usable_types(
    labels: np.ndarray, cell_types: Sequence[str] | None, pool: tuple[int, int] | None, *, n_default: int
) -> np.ndarray:
    """The given cell types, or the most frequent ones with enough cells in every pool."""
    if cell_types is None:
        names, n = np.unique(labels, return_counts=True)
        smallest_pool = n // (1 if pool is None else pool[1])
        order = [i for i in np.argsort(-n, kind="stable") if smallest_pool[i] >= MIN_CELLS_PER_TYPE]
        if len(order) < n_default:
            msg = (
                f"Only {len(order)} of {len(names)} cell types have {MIN_CELLS_PER_TYPE} cells in each pool (pool={pool}), "
                f"{n_default} are needed. Name the cell types, or split into fewer pools."
            )
            raise ValueError(msg)
        return names[order[:n_default]]
    if len(set(cell_types)) < len(cell_types):
        msg = f"cell_types={list(cell_types)} names a type twice."
        raise ValueError(msg)
    empty = [t for t in cell_types if not len(in_pool(labels, t, pool))]
    if empty:
        msg = f"No cells of {_checks.first(empty)} in pool={pool}. Cell types: {_checks.first(np.unique(labels).tolist(), 20)}."
        raise ValueError(msg)
    return np.array(cell_types)


def sample_sizes(
    n_cells: int | tuple[int, int], n_samples: int, *, at_least: int, rng: np.random.Generator
) -> np.ndarray:
    """Number of cells of each sample."""
    low, high = (n_cells, n_cells) if isinstance(n_cells, int | np.integer) else n_cells
    if not at_least <= low <= high:
        msg = f"n_cells={n_cells} must be a number of at least {at_least} or a range (low, high) that starts there."
        raise ValueError(msg)
    return rng.integers(low, high + 1, size=n_samples)


def largest_remainder(expected: np.ndarray) -> np.ndarray:
    """Whole numbers next to ``expected`` with the same sum; the largest fractions are rounded up, ties by position."""
    counts = np.floor(expected + 1e-9).astype(int)
    left = round(expected.sum()) - counts.sum()
    counts[np.argsort(counts - expected, kind="stable")[:left]] += 1
    return counts


def draw(
    counts: np.ndarray, labels: np.ndarray, types: np.ndarray, *, pool: tuple[int, int] | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base cell, sample and type of each new cell, for ``counts`` (samples, types); drawn with replacement."""
    n_samples, n_types = counts.shape
    sample = np.repeat(np.arange(n_samples), counts.sum(axis=1))
    type_ = np.repeat(np.tile(np.arange(n_types), n_samples), counts.ravel())
    rows = np.empty(len(sample), dtype=np.intp)
    for j, t in enumerate(types):
        of_type = type_ == j
        rows[of_type] = rng.choice(in_pool(labels, t, pool), size=of_type.sum())
    return rows, sample, type_


def cell_obs(
    sample: np.ndarray,
    cell_type: np.ndarray,
    base_cell: np.ndarray,
    *,
    pool: tuple[int, int] | None,
    donor: np.ndarray,
    study: np.ndarray,
    **sample_columns: np.ndarray,
) -> pd.DataFrame:
    """Cell-level columns. Names carry the pool, so that cohorts of two pools can be concatenated."""
    prefix = "" if pool is None else f"pool{pool[0]}_"
    n_samples = len(donor)
    width = len(str(n_samples - 1))
    columns = {
        "sample": np.array([f"{prefix}sample_{i:0{width}d}" for i in range(n_samples)]),
        "donor": np.array([f"{prefix}donor_{i:0{width}d}" for i in donor]),
        "study": np.array([f"study_{i}" for i in study % N_STUDIES]),
        **sample_columns,
    }
    obs = pd.DataFrame({name: values[sample] for name, values in columns.items()})
    for name, values in columns.items():
        if values.dtype.kind == "U":
            obs[name] = obs[name].astype("category")
    obs["cell_type"] = pd.Categorical(cell_type)
    obs["base_cell"] = base_cell
    obs.index = pd.Index([f"{prefix}cell_{i}" for i in range(len(obs))])
    return obs


def cohort(
    x: np.ndarray, obs: pd.DataFrame, features: np.ndarray, *, truth: dict[str, Any], rng: np.random.Generator
) -> AnnData:
    """The AnnData, with rows shuffled: real files rarely keep the cells of a sample together."""
    from anndata import AnnData

    order = rng.permutation(len(obs))
    out = AnnData(x[order].astype(np.float32), obs=obs.iloc[order], var=pd.DataFrame(index=pd.Index(features)))
    out.uns[TRUTH] = truth
    return out
