"""Subtypes that differ by opposite shifts of two cell types, invisible to any average over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools import _checks
from scset_tools._numbers import checks_numbers
from scset_tools.datasets._resample import (
    cell_obs,
    cohort,
    draw,
    sample_sizes,
    standardised_latents,
    usable_types,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checks_numbers
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
    latents, labels, base_names, features = standardised_latents(
        adata, cell_type_key, use_rep=use_rep, n_features=n_features
    )
    types = usable_types(labels, cell_types, pool, n_default=4)
    if len(types) < 3:
        msg = f"Equal and opposite shifts need at least 3 cell types (two shifted, one not), got {_checks.first(types.tolist())}."
        raise ValueError(msg)
    if not 1 <= n_features_shifted <= len(features):
        msg = f"n_features_shifted={n_features_shifted} must be 1 to {len(features)}, the number of latents."
        raise ValueError(msg)
    shifted = np.linspace(0, len(features) - 1, n_features_shifted).round().astype(int)
    effect = np.zeros((len(types), len(features)))
    effect[0, shifted], effect[1, shifted] = shift, -shift

    sizes = sample_sizes(n_cells, n_samples, at_least=len(types), rng=rng)
    is_perturbed = np.arange(n_samples) % 2 == 1
    counts = np.stack([_equal_counts(n, len(types)) for n in sizes])
    rows, sample, type_ = draw(counts, labels, types, pool=pool, rng=rng)
    x = latents[rows] + jitter * rng.standard_normal((len(rows), latents.shape[1]))
    x += effect[type_] * is_perturbed[sample][:, None]

    names = np.array(["control", "perturbed"])
    obs = cell_obs(
        sample,
        types[type_],
        base_names[rows],
        pool=pool,
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
    return cohort(x, obs, features, truth=truth, rng=rng)


def _equal_counts(n: int, n_types: int) -> np.ndarray:
    """``n`` cells in equal parts; what is left over never makes the first two types differ."""
    counts = np.full(n_types, n // n_types)
    left = n % n_types
    if left <= n_types - 2:
        counts[2 : 2 + left] += 1
    else:
        counts[:left] += 1
    return counts
