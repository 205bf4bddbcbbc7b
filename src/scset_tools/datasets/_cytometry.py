"""A cohort that looks like cytometry: paired samples, a disease, two batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.datasets._resample import (
    base_cells,
    cell_obs,
    cohort,
    draw,
    sample_sizes,
    usable_types,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

MARKERS = (
    "CD3D", "CD2", "CD7", "CD8A", "CD8B", "CD4", "IL7R", "CCR7", "CD27", "CD19", "CD79A", "CD79B", "MS4A1", "CD74",
    "HLA-DRA", "LYZ", "S100A8", "CST3", "FCER1A", "FCGR3A", "CD33", "NKG7", "GNLY", "GZMB", "GZMK", "PRF1", "KLRB1",
)  # fmt: skip
"""Lineage and function genes of blood; those present in pbmc68k_reduced are the markers of `cytometry_cohort`."""

AGE_EFFECT = -0.3
"""Change of the log odds of a cell type per 10 years of age."""


@checks_numbers
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
    composition_type
        Cell type whose odds change with the disease.
    composition_effect
        The change of its odds (natural logarithm).
    marker_type
        Cell type in which a marker shifts with the disease.
    marker
        The marker that shifts.
    marker_effect
        Its shift on the arcsinh scale.
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
    adata, labels = base_cells(adata, cell_type_key)
    types = usable_types(labels, sorted(set(labels)), pool, n_default=0)
    named = {"composition_type": composition_type, "marker_type": marker_type}
    for name, value in (named | {"age_type": age_type} if covariates else named).items():
        if value not in types:
            msg = f"{name}={value!r} is not a cell type of the base. Cell types: {_checks.first(types.tolist(), 20)}."
            raise ValueError(msg)
    counts_of, genes = _normalised_counts(adata, markers)
    if marker not in genes:
        msg = f"marker={marker!r} is not among the markers {_checks.first(genes.tolist(), 30)}."
        raise KeyError(msg)

    n_samples = 2 * n_donors
    donor, is_disease = np.arange(n_samples) // 2, np.arange(n_samples) % 2 == 1
    sizes = sample_sizes(n_cells, n_samples, at_least=1, rng=rng)
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

    rows, sample, type_ = draw(counts, labels, types, pool=pool, rng=rng)
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
    obs = cell_obs(sample, types[type_], base_names[rows], pool=pool, donor=donor, study=donor, **columns)
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
    return cohort(x, obs, genes, truth=truth, rng=rng)


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
