"""Subtypes that differ in composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools._numbers import checks_numbers
from scset_tools.datasets._resample import (
    cell_obs,
    cohort,
    draw,
    largest_remainder,
    sample_sizes,
    standardised_latents,
    usable_types,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checks_numbers
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
    n_samples
        Number of samples, dealt out in turn to the subtypes.
    n_subtypes
        Number of subtypes.
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
    latents, labels, base_names, features = standardised_latents(
        adata, cell_type_key, use_rep=use_rep, n_features=n_features
    )
    types = usable_types(labels, cell_types, pool, n_default=4)
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

    sizes = sample_sizes(n_cells, n_samples, at_least=len(types), rng=rng)
    subtype = np.arange(n_samples) % n_subtypes
    counts = np.stack([largest_remainder(proportions[s] * n) for s, n in zip(subtype, sizes, strict=True)])
    rows, sample, type_ = draw(counts, labels, types, pool=pool, rng=rng)
    x = latents[rows] + jitter * rng.standard_normal((len(rows), latents.shape[1]))

    names = np.array([f"subtype_{j}" for j in range(n_subtypes)])
    round_ = np.arange(n_samples) // n_subtypes  # the study changes once per round of subtypes: the two are crossed
    obs = cell_obs(
        sample,
        types[type_],
        base_names[rows],
        pool=pool,
        donor=np.arange(n_samples),
        study=round_,
        subtype=names[subtype],
    )
    truth = {"kind": "composition", "cell_types": types, "subtypes": names, "proportions": proportions}
    return cohort(x, obs, features, truth=truth, rng=rng)
