"""Cohorts with known truth, built from real cells: for tests, documentation and tutorials.

A cohort is made by resampling the cells of an annotated data set (by default ``scanpy.datasets.pbmc68k_reduced``, which
scanpy carries, so that nothing is downloaded) into samples whose make-up is decided beforehand and written to
``uns["truth"]``. The plan follows scSet, section 4.1.1 and appendix G: a subtype that differs in *composition*, and a
subtype that differs by an equal and opposite *shift* of two cell types, which no average over cells can see.

Samples draw cells with replacement, so the same base cell occurs in many samples. A little seeded noise (``jitter``)
tells the copies apart, and ``pool=(k, of)`` restricts a cohort to one of ``of`` disjoint parts of the base cells:
a model trained on ``pool=(0, 2)`` has seen no cell of a cohort made from ``pool=(1, 2)``.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scset_tools import _checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["composition_cohort", "cytometry_cohort", "pancreas", "perturbation_cohort"]

TRUTH = "truth"
"""Entry of ``uns`` with the make-up of a cohort."""

N_LATENTS = 14
"""Latents kept by default: scSet keeps 14 scVI latents."""

MIN_CELLS_PER_TYPE = 10
"""A cell type is chosen by default only if every pool holds this many of its cells."""

AGE_EFFECT = -0.3
"""Change of the log odds of a cell type per 10 years of age."""

N_STUDIES = 3
"""Studies are dealt out in turn and have no effect on the cells: a split by study is a fair one."""

MARKERS = (
    "CD3D", "CD2", "CD7", "CD8A", "CD8B", "CD4", "IL7R", "CCR7", "CD27", "CD19", "CD79A", "CD79B", "MS4A1", "CD74",
    "HLA-DRA", "LYZ", "S100A8", "CST3", "FCER1A", "FCGR3A", "CD33", "NKG7", "GNLY", "GZMB", "GZMK", "PRF1", "KLRB1",
)  # fmt: skip
"""Lineage and function genes of blood; those present in pbmc68k_reduced are the markers of `cytometry_cohort`."""

PANCREAS_FILE = "hormone2cell/pancreas_downsample200CT.h5ad"
PANCREAS_PIP = "pip install --no-deps hormone2cell==0.1.2"


def composition_cohort(
    adata: AnnData | None = None,
    *,
    cell_type_key: str | None = None,
    use_rep: str | None = "X_pca",
    n_features: int | None = None,
    n_samples: int = 24,
    n_subtypes: int = 2,
    n_cells: int | tuple[int, int] = 200,
    cell_types: Sequence[str] | None = None,
    dominant: float = 0.55,
    jitter: float = 0.2,
    pool: tuple[int, int] | None = None,
    rng: np.random.Generator | int | None = 0,
) -> AnnData:
    """Samples whose subtypes are each enriched for another cell type (scSet, section 4.1.1 and Fig. 5a).

    Parameters
    ----------
    adata
        Annotated base cells. Default: ``scanpy.datasets.pbmc68k_reduced()``.
    cell_type_key
        Column of ``adata.obs`` with the cell types. Default: ``"bulk_labels"`` of the default base.
    use_rep
        Key of ``adata.obsm`` with the latents; None for ``adata.X``. Latents are standardised over all base cells.
    n_features
        The first so many latents are kept. Default: 14 of ``use_rep``, as many as scSet uses, or all of ``adata.X``.
    n_samples, n_subtypes
        Number of samples, dealt out in turn to so many subtypes.
    n_cells
        Cells of every sample, or a range ``(low, high)``, both ends included, from which each sample draws its number.
    cell_types
        Cell types to use; subtype ``j`` is enriched for the ``j``-th. Default: the four most frequent usable ones.
    dominant
        Share of the enriched type; the other types share the rest equally (0.55 and 3 x 0.15 in the paper). Counts are
        exact up to rounding.
    jitter
        Standard deviation of the noise added to every drawn cell, in standard deviations of a latent.
    pool
        ``(k, of)``: use only part ``k`` of ``of`` disjoint parts of the base cells, each with the same cell types.
    rng
        Seed or generator. The same seed gives the same cohort; None gives a new one every time.

    Returns
    -------
    Cell-level AnnData in shuffled order: ``X`` the latents (float32), ``obs`` with `sample`, `subtype` (``"subtype_0"``,
    ...), `donor` (one per sample), `study` (no effect), `cell_type` and `base_cell` (the cell that was copied), and
    ``uns["truth"]`` with `kind`, `cell_types`, `subtypes` and `proportions` (subtypes x cell types).

    Raises
    ------
    KeyError
        If ``cell_type_key`` or ``use_rep`` is not there.
    ValueError
        If a cell type has no cells in the pool, or a number is out of range.
    """
    rng = np.random.default_rng(rng)
    latents, labels, base_names, features = _standardised_base(adata, cell_type_key, use_rep, n_features)
    types = _usable_types(labels, cell_types, pool, n_default=4)
    if not 2 <= n_subtypes <= len(types):
        msg = f"n_subtypes={n_subtypes} must be 2 to {len(types)}: each subtype is enriched for one of {types}."
        raise ValueError(msg)
    if not 1 / len(types) < dominant <= 1:
        msg = (
            f"dominant={dominant} must be above the equal share, 1/{len(types)} = {1 / len(types):.3g}, and at most 1."
        )
        raise ValueError(msg)
    proportions = np.full((n_subtypes, len(types)), (1 - dominant) / (len(types) - 1))
    np.fill_diagonal(proportions, dominant)

    sizes = _sizes(n_cells, n_samples, at_least=len(types), rng=rng)
    subtype = np.arange(n_samples) % n_subtypes
    counts = np.stack([_largest_remainder(proportions[s] * n) for s, n in zip(subtype, sizes, strict=True)])
    rows, sample, type_ = _draw(counts, labels, types, pool, rng)
    x = latents[rows] + jitter * rng.standard_normal((len(rows), latents.shape[1]))

    names = np.array([f"subtype_{j}" for j in range(n_subtypes)])
    round_ = np.arange(n_samples) // n_subtypes  # the study changes once per round of subtypes: the two are crossed
    obs = _obs(
        sample,
        types[type_],
        base_names[rows],
        pool,
        donor=np.arange(n_samples),
        study=round_,
        subtype=names[subtype],
    )
    truth = {"kind": "composition", "cell_types": types, "subtypes": names, "proportions": proportions}
    return _cohort(x, obs, features, truth, rng)


def perturbation_cohort(
    adata: AnnData | None = None,
    *,
    cell_type_key: str | None = None,
    use_rep: str | None = "X_pca",
    n_features: int | None = None,
    n_samples: int = 24,
    n_cells: int | tuple[int, int] = 200,
    cell_types: Sequence[str] | None = None,
    n_features_shifted: int = 5,
    shift: float = 0.75,
    jitter: float = 0.2,
    pool: tuple[int, int] | None = None,
    rng: np.random.Generator | int | None = 0,
) -> AnnData:
    """Two subtypes of equal composition and equal mean: an opposite shift of two cell types (scSet, appendix G, Fig. 5b).

    In the ``"perturbed"`` half of the samples ``shift`` is added to some latents of the first cell type and subtracted
    from the same latents of the second. Both types have the same number of cells in every sample, so that the mean over
    the cells of a sample does not move at all: whoever averages first cannot tell the subtypes apart.

    Parameters
    ----------
    adata, cell_type_key, use_rep, n_features, n_samples, n_cells, jitter, pool, rng
        As in `composition_cohort`.
    cell_types
        Cell types to use, at least three, in equal parts (25 % of each of four in the paper). The first is shifted up,
        the second down. Default: the four most frequent usable ones.
    n_features_shifted
        Number of latents that are shifted, evenly spaced among those kept: the same ones whatever ``rng`` and ``pool``,
        so that cohorts for training and testing agree.
    shift
        Size of the shift in standard deviations of a latent (over all base cells). At the default the per-type means
        tell the subtypes apart without error and the mean over cells does not; the user guide has the figures.

    Returns
    -------
    Cell-level AnnData as from `composition_cohort`, with `subtype` ``"control"`` or ``"perturbed"`` and ``uns["truth"]``
    with `kind`, `cell_types`, `subtypes`, `shift`, `shifted_features`, `up_type`, `down_type` and `effect`: what was
    added to each cell type of the perturbed samples (cell types x features).

    Raises
    ------
    KeyError
        If ``cell_type_key`` or ``use_rep`` is not there.
    ValueError
        If there are fewer than three cell types, too few latents, or a number is out of range.
    """
    rng = np.random.default_rng(rng)
    latents, labels, base_names, features = _standardised_base(adata, cell_type_key, use_rep, n_features)
    types = _usable_types(labels, cell_types, pool, n_default=4)
    if len(types) < 3:
        msg = (
            f"Equal and opposite shifts need at least 3 cell types (two shifted, one not), got {_checks.first(types)}."
        )
        raise ValueError(msg)
    if not 1 <= n_features_shifted <= len(features):
        msg = f"n_features_shifted={n_features_shifted} must be 1 to {len(features)}, the number of latents."
        raise ValueError(msg)
    shifted = np.linspace(0, len(features) - 1, n_features_shifted).round().astype(int)
    effect = np.zeros((len(types), len(features)))
    effect[0, shifted], effect[1, shifted] = shift, -shift

    sizes = _sizes(n_cells, n_samples, at_least=len(types), rng=rng)
    is_perturbed = np.arange(n_samples) % 2 == 1
    counts = np.stack([_equal_counts(n, len(types)) for n in sizes])
    rows, sample, type_ = _draw(counts, labels, types, pool, rng)
    x = latents[rows] + jitter * rng.standard_normal((len(rows), latents.shape[1]))
    x += effect[type_] * is_perturbed[sample][:, None]

    names = np.array(["control", "perturbed"])
    obs = _obs(
        sample,
        types[type_],
        base_names[rows],
        pool,
        donor=np.arange(n_samples),
        study=np.arange(n_samples) // 2,
        subtype=names[is_perturbed.astype(int)],
    )
    truth = {
        "kind": "perturbation",
        "cell_types": types,
        "subtypes": names,
        "shift": float(shift),
        "shifted_features": features[shifted],
        "up_type": str(types[0]),
        "down_type": str(types[1]),
        "effect": effect,
    }
    return _cohort(x, obs, features, truth, rng)


def cytometry_cohort(
    adata: AnnData | None = None,
    *,
    cell_type_key: str | None = None,
    markers: Sequence[str] | None = None,
    n_donors: int = 12,
    n_cells: int | tuple[int, int] = (300, 600),
    composition_type: str = "CD56+ NK",
    composition_effect: float = 1.0,
    marker_type: str = "CD14+ Monocyte",
    marker: str = "HLA-DRA",
    marker_effect: float = -1.0,
    batch_shift: float = 0.2,
    covariates: bool = False,
    age_type: str = "CD8+/CD45RA+ Naive Cytotoxic",
    pool: tuple[int, int] | None = None,
    rng: np.random.Generator | int | None = 0,
) -> AnnData:
    """A cytometry-like cohort of paired samples: every donor once healthy and once with the disease, in two batches.

    Normalised counts of real cells get measurement noise and the transform of mass cytometry, ``arcsinh(count / 5)``.
    Donors differ in composition. The disease multiplies the odds of one cell type by ``exp(composition_effect)`` and
    shifts one marker of another type. Batch and study are crossed with the disease, so neither can stand in for it.

    Parameters
    ----------
    adata
        Annotated base cells, log1p of normalised counts in ``adata.raw`` or else ``adata.X``. Default:
        ``scanpy.datasets.pbmc68k_reduced()``.
    cell_type_key, n_cells, pool, rng
        As in `composition_cohort`.
    markers
        Genes to use as markers. Default: lineage and function markers of blood that the base has.
    n_donors
        Number of donors, with two samples each.
    composition_type, composition_effect
        Cell type whose odds change with the disease, and the change (natural logarithm).
    marker_type, marker, marker_effect
        Cell type and marker that shift with the disease, and the shift on the arcsinh scale.
    batch_shift
        Standard deviation of the constant that is added to each marker in the second batch, on the arcsinh scale.
    covariates
        Whether donors have an `age` (20 to 80 years) and a `sex` (no effect).
    age_type
        Cell type whose log odds fall by 0.3 per 10 years of age, if there are covariates.

    Returns
    -------
    Cell-level AnnData in shuffled order: ``X`` cells x markers (float32), ``obs`` with `sample`, `donor`, `condition`
    (``"healthy"``, ``"disease"``), `batch`, `study` (no effect), `cell_type` and `base_cell`; ``uns["truth"]`` with
    `kind`, the effects, `cell_types`, `samples`, `proportions` (samples x cell types, expected), `batch_effect` (one
    number per marker).

    Raises
    ------
    KeyError
        If ``cell_type_key``, a marker or a gene is not there.
    ValueError
        If a cell type is not there, values are not log1p of counts, or a number is out of range.
    """
    rng = np.random.default_rng(rng)
    adata, labels = _base(adata, cell_type_key)
    types = _usable_types(labels, sorted(set(labels)), pool, n_default=0)
    named = {"composition_type": composition_type, "marker_type": marker_type}
    for name, value in (named | {"age_type": age_type} if covariates else named).items():
        if value not in types:
            msg = f"{name}={value!r} is not a cell type of the base. Cell types: {_checks.first(types, 20)}."
            raise ValueError(msg)
    counts_of, genes = _normalised_counts(adata, markers)
    if marker not in genes:
        msg = f"marker={marker!r} is not among the markers {_checks.first(genes, 30)}."
        raise KeyError(msg)

    n_samples = 2 * n_donors
    donor, is_disease = np.arange(n_samples) // 2, np.arange(n_samples) % 2 == 1
    sizes = _sizes(n_cells, n_samples, at_least=1, rng=rng)
    frequency = np.array([(labels == t).mean() for t in types])
    # 50 pseudo-cells of the base composition: donors differ by about 7 points at a share of one half
    log_odds = np.log(rng.dirichlet(50 * frequency + 0.5, size=n_donors))[donor]  # (samples, types)
    age = rng.integers(20, 81, size=n_donors)
    sex = np.array(["female", "male"])[rng.permutation(np.arange(n_donors) % 2)]
    if covariates:
        log_odds[:, list(types).index(age_type)] += AGE_EFFECT * (age[donor] - 50) / 10
    log_odds[is_disease, list(types).index(composition_type)] += composition_effect
    proportions = np.exp(log_odds) / np.exp(log_odds).sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(n, p) for n, p in zip(sizes, proportions, strict=True)])

    rows, sample, type_ = _draw(counts, labels, types, pool, rng)
    noisy = counts_of[rows] * np.exp(0.15 * rng.standard_normal((len(rows), len(genes))))
    x = np.arcsinh((noisy + rng.standard_normal(noisy.shape)) / 5)
    is_shifted = is_disease[sample] & (types[type_] == marker_type)
    x[is_shifted, list(genes).index(marker)] += marker_effect
    batch = donor % 2
    batch_effect = batch_shift * rng.standard_normal(len(genes))
    x += batch[sample][:, None] * batch_effect

    columns = {
        "condition": np.array(["healthy", "disease"])[is_disease.astype(int)],
        "batch": np.array(["batch_0", "batch_1"])[batch],
    }
    if covariates:
        columns |= {"age": age[donor], "sex": sex[donor]}
    base_names = adata.obs_names.to_numpy(dtype=str)
    obs = _obs(sample, types[type_], base_names[rows], pool, donor=donor, study=donor, **columns)
    obs["condition"] = obs["condition"].cat.reorder_categories(["healthy", "disease"])
    truth = {
        "kind": "cytometry",
        "cell_types": types,
        "samples": obs["sample"].cat.categories.to_numpy(dtype=str),
        "proportions": proportions,
        "composition_type": composition_type,
        "composition_effect": float(composition_effect),
        "marker_type": marker_type,
        "marker": marker,
        "marker_effect": float(marker_effect),
        "batch_effect": batch_effect,
    }
    if covariates:
        truth |= {"age_type": age_type, "age_effect_per_10_years": AGE_EFFECT}
    return _cohort(x, obs, genes, truth, rng)


def pancreas() -> AnnData:
    """Human pancreas of 20 donors from four studies: 3,274 cells, 33,053 genes; counts in ``raw``, logarithms in ``X``.

    The file comes with the PyPI package hormone2cell 0.1.2 (MIT), which is found but not imported. The cells are a
    part, 200 per cell type and assay, of the CellHint pancreas atlas (Xu et al. 2023), so proportions are not those of
    the tissue.

    Returns
    -------
    Cell-level AnnData as in the file, with `sample` and `donor` (both `donor_id`), `study` (`Dataset`) and `age_years`
    added to ``obs``; `cell_type` has nine types, `Curated_annotation` thirteen. Gene symbols are in
    ``var["feature_name"]``.

    Raises
    ------
    FileNotFoundError
        If hormone2cell is not installed, or its version has no such file.
    """
    from anndata import read_h5ad

    adata = read_h5ad(_pancreas_path())
    adata.obs["sample"] = adata.obs["donor_id"]
    adata.obs["donor"] = adata.obs["donor_id"]
    adata.obs["study"] = adata.obs["Dataset"]
    adata.obs["age_years"] = adata.obs["development_stage"].astype(str).str.extract(r"^(\d+)-year", expand=False)
    adata.obs["age_years"] = adata.obs["age_years"].astype(float)
    return adata


def _pancreas_path() -> Path:
    """The file in the installed package, without importing it (its imports are not ours to need)."""
    try:
        files = metadata.files("hormone2cell") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == PANCREAS_FILE and (path := Path(str(file.locate()))).is_file():
            return path
    msg = f"The pancreas cohort is the file {PANCREAS_FILE} of the package hormone2cell: {PANCREAS_PIP}"
    raise FileNotFoundError(msg)


def _base(adata: AnnData | None, cell_type_key: str | None) -> tuple[AnnData, np.ndarray]:
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


def _standardised_base(
    adata: AnnData | None, cell_type_key: str | None, use_rep: str | None, n_features: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Latents with mean 0 and standard deviation 1 over all base cells, cell types, cell names, latent names.

    All base cells, not those of a pool: pools must share one scale, or a shift of training and test cohort would differ.
    """
    adata, labels = _base(adata, cell_type_key)
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
        msg = f"{len(bad)} of {len(features)} latents are constant or not finite (first: {_checks.first(bad)}): drop them."
        raise ValueError(msg)
    return (values - values.mean(axis=0)) / scale, labels, adata.obs_names.to_numpy(dtype=str), features


def _normalised_counts(adata: AnnData, markers: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Normalised counts (log1p undone) of the markers, cells x markers."""
    source = adata.raw if adata.raw is not None else adata
    genes = [g for g in MARKERS if g in source.var_names] if markers is None else list(markers)
    absent = [g for g in genes if g not in source.var_names]
    if absent or not genes:
        msg = f"{len(absent)} markers are not among the genes (first: {_checks.first(absent)}). Pass markers=[...]."
        raise KeyError(msg)
    values = source[:, genes].X
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        msg = f"Markers must be log1p of normalised counts, but reach {values.min():.3g}. Pass values before scaling."
        raise ValueError(msg)
    return np.expm1(values), np.array(genes)


def _in_pool(labels: np.ndarray, cell_type: str, pool: tuple[int, int] | None) -> np.ndarray:
    """Positions of a cell type in a pool: every ``of``-th cell, so that pools are disjoint whatever the seed."""
    k, of = (0, 1) if pool is None else pool
    if not 0 <= k < of:
        msg = f"pool={pool} must be (k, of) with 0 <= k < of: part k of so many parts."
        raise ValueError(msg)
    return np.flatnonzero(labels == cell_type)[k::of]


def _usable_types(
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
    empty = [t for t in cell_types if not len(_in_pool(labels, t, pool))]
    if empty:
        msg = f"No cells of {_checks.first(empty)} in pool={pool}. Cell types: {_checks.first(np.unique(labels), 20)}."
        raise ValueError(msg)
    return np.array(cell_types)


def _sizes(n_cells: int | tuple[int, int], n_samples: int, *, at_least: int, rng: np.random.Generator) -> np.ndarray:
    """Number of cells of each sample."""
    low, high = (n_cells, n_cells) if isinstance(n_cells, int | np.integer) else n_cells
    if not at_least <= low <= high:
        msg = f"n_cells={n_cells} must be a number of at least {at_least} or a range (low, high) that starts there."
        raise ValueError(msg)
    if n_samples < 1:
        msg = f"At least one sample is needed, got {n_samples}."
        raise ValueError(msg)
    return rng.integers(low, high + 1, size=n_samples)


def _largest_remainder(expected: np.ndarray) -> np.ndarray:
    """Whole numbers next to ``expected`` with the same sum; the largest fractions are rounded up, ties by position."""
    counts = np.floor(expected + 1e-9).astype(int)
    left = round(expected.sum()) - counts.sum()
    counts[np.argsort(counts - expected, kind="stable")[:left]] += 1
    return counts


def _equal_counts(n: int, n_types: int) -> np.ndarray:
    """``n`` cells in equal parts; what is left over never makes the first two types differ."""
    counts = np.full(n_types, n // n_types)
    left = n % n_types
    if left <= n_types - 2:
        counts[2 : 2 + left] += 1
    else:
        counts[:left] += 1
    return counts


def _draw(
    counts: np.ndarray, labels: np.ndarray, types: np.ndarray, pool: tuple[int, int] | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base cell, sample and type of each new cell, for ``counts`` (samples, types); drawn with replacement."""
    n_samples, n_types = counts.shape
    sample = np.repeat(np.arange(n_samples), counts.sum(axis=1))
    type_ = np.repeat(np.tile(np.arange(n_types), n_samples), counts.ravel())
    rows = np.empty(len(sample), dtype=np.intp)
    for j, t in enumerate(types):
        of_type = type_ == j
        rows[of_type] = rng.choice(_in_pool(labels, t, pool), size=of_type.sum())
    return rows, sample, type_


def _obs(
    sample: np.ndarray,
    cell_type: np.ndarray,
    base_cell: np.ndarray,
    pool: tuple[int, int] | None,
    *,
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


def _cohort(x: np.ndarray, obs: pd.DataFrame, features: np.ndarray, truth: dict, rng: np.random.Generator) -> AnnData:
    """The AnnData, with rows shuffled: real files rarely keep the cells of a sample together."""
    from anndata import AnnData

    order = rng.permutation(len(obs))
    out = AnnData(x[order].astype(np.float32), obs=obs.iloc[order], var=pd.DataFrame(index=pd.Index(features)))
    out.uns[TRUTH] = truth
    return out
