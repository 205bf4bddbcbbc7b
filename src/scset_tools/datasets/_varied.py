"""Samples that all differ, to train on: random compositions and random shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scset_tools._numbers import checks_numbers
from scset_tools.datasets._resample import cell_obs, cohort, draw, sample_sizes, standardised_latents, usable_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@checks_numbers
def varied_cohort(
    adata: AnnData | None = None,
    *,
    cell_type_key: str | None = None,
    use_rep: str | None = "X_pca",
    n_features: int | None = None,
    n_samples: int = 128,
    n_cells: int | tuple[int, int] = 200,
    cell_types: Sequence[str] | None = None,
    concentration: float = 1.0,
    n_features_shifted: int = 5,
    shift: float = 0.75,
    jitter: float = 0.2,
    pool: tuple[int, int] | None = None,
    treatment_shift: float = 0.0,
    treatment_odds: float = 0.0,
    batch_shift: float = 0.0,
    n_batches: int = 2,
    effect_seed: int = 0,
    rng: np.random.Generator | int | None = 0,
) -> AnnData:
    """Samples without subtypes, each of its own composition and with its own shifts: to pretrain a model on.

    What tells the subtypes of :func:`composition_cohort` and :func:`perturbation_cohort` apart occurs here in every
    combination and at random, so that a model that was trained here has seen neither their subtypes nor, with another
    ``pool``, their cells.

    Parameters
    ----------
    adata, cell_type_key, use_rep, n_features, n_samples, n_cells, cell_types, jitter, pool, rng
        As in `composition_cohort`.
    concentration
        Of the symmetric Dirichlet distribution of the composition: 1 makes all compositions equally likely, larger numbers
        bring them closer to equal parts.
    n_features_shifted
        Number of latents that are shifted in a cell type of a sample, drawn anew for each.
    shift
        Standard deviation of the shifts, in standard deviations of a latent. In each sample about half of the cell types
        are shifted.
    treatment_shift
        Effect of a treatment, which half of the samples get (``obs["treatment"]``, "control" or "treated"): standard deviation of what is
        added to the features of each cell type.
    treatment_odds
        Log odds by which the first cell type gains by the treatment. With both effects 0 there is no treatment.
    batch_shift
        Standard deviation of what is added to the features of all cells of a batch (``obs["batch"]``). 0: no batches.
    n_batches
        Number of batches, each with as many samples of both treatments as can be.
    effect_seed
        Seed of the effects of treatment and batches: cohorts of one seed share them.

    Returns
    -------
    Cell-level AnnData as from `composition_cohort`, without `subtype`; ``uns["truth"]`` with `kind`, `cell_types`, `samples`,
    `proportions` (samples x cell types, expected) and `effect`, what was added to the cells of each type (samples x cell
    types x features), and if there are any `treatment_effect` (cell types x features) and `batch_effect` (batches x features), which `effect`
    includes.

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
    if not 0 <= n_features_shifted <= len(features):
        msg = f"n_features_shifted={n_features_shifted} must be 0 to {len(features)}, the number of latents."
        raise ValueError(msg)
    sizes = sample_sizes(n_cells, n_samples, at_least=1, rng=rng)
    (aside,) = rng.spawn(1)  # of its own, so that cohorts without treatment stay as they are
    is_treated, batch = _dealt(n_samples, n_batches, aside)
    has_treatment, has_batches = treatment_shift > 0 or treatment_odds != 0, batch_shift > 0
    proportions = rng.dirichlet(np.full(len(types), concentration), size=n_samples)
    if treatment_odds:
        proportions[is_treated, 0] *= np.exp(treatment_odds)
        proportions /= proportions.sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(n, p) for n, p in zip(sizes, proportions, strict=True)])
    effect = shift * rng.standard_normal((n_samples, len(types), len(features)))
    order = rng.permuted(np.broadcast_to(np.arange(len(features)), effect.shape), axis=2)
    effect[order >= n_features_shifted] = 0.0
    effect[rng.random((n_samples, len(types))) < 0.5] = 0.0

    fixed = np.random.default_rng(effect_seed)
    treatment_effect = treatment_shift * fixed.standard_normal((len(types), len(features)))
    batch_effect = batch_shift * fixed.standard_normal((n_batches, len(features)))
    effect += is_treated[:, None, None] * treatment_effect + batch_effect[batch][:, None]

    rows, sample, type_ = draw(counts, labels, types, pool=pool, rng=rng)
    x = latents[rows] + jitter * rng.standard_normal((len(rows), latents.shape[1])) + effect[sample, type_]
    obs = cell_obs(
        sample,
        types[type_],
        base_names[rows],
        pool=pool,
        donor=np.arange(n_samples),
        study=np.arange(n_samples),
        **({"treatment": np.where(is_treated, "treated", "control")} if has_treatment else {}),
        **({"batch": np.array([f"batch_{i}" for i in batch])} if has_batches else {}),
    )
    truth = {
        "kind": "varied",
        "cell_types": types,
        "samples": obs["sample"].cat.categories.to_numpy(dtype=str),
        "proportions": proportions,
        "effect": effect,
        **({"treatment_effect": treatment_effect} if has_treatment else {}),
        **({"batch_effect": batch_effect} if has_batches else {}),
    }
    return cohort(x, obs, features, truth=truth, rng=rng)


def _dealt(n_samples: int, n_batches: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are treated, and the batch of each: in turn, in random order."""
    at = rng.permutation(n_samples)
    return at % 2 == 1, at // 2 % n_batches
