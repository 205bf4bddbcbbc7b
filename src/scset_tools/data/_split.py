"""Train, validation and test samples. A group (donor, study) is never cut, and cells of a sample never part."""

from __future__ import annotations

import numpy as np
import pandas as pd


def split_samples(
    n_samples: int,
    train_size: float,
    validation_size: float | None = None,
    *,
    groups: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    shuffle: bool = True,
    rng: np.random.Generator | int | None = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the training, validation and test samples, each ascending.

    Parameters
    ----------
    n_samples
        Number of samples.
    train_size, validation_size
        Shares of the samples (or groups). By default validation gets what training leaves; what both leave is the test part.
    groups
        Donor or study of each sample, shape (n_samples,). All samples of a group land in the same part.
    strata
        Class of each sample, shape (n_samples,). Each part gets the classes in like proportions; a group counts as the
        class of its first sample.
    shuffle
        Whether to draw the parts at random rather than in order.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If the shares are not in range, or leave nothing to train on.
    """
    rest = 1 - train_size if validation_size is None else validation_size
    if not 0 < train_size <= 1 or rest < 0 or train_size + rest > 1 + 1e-9:
        msg = f"train_size={train_size} must be in (0, 1], and with validation_size={validation_size} add up to at most 1."
        raise ValueError(msg)
    units = np.arange(n_samples) if groups is None else pd.factorize(np.asarray(groups))[0]
    n_units = int(units.max(initial=-1)) + 1
    order = np.random.default_rng(rng).permutation(n_units) if shuffle else np.arange(n_units)
    if strata is not None:
        first_of_unit = np.unique(units, return_index=True)[1]
        order = _interleave(order, pd.factorize(np.asarray(strata), use_na_sentinel=False)[0][first_of_unit])
    n_validation = max(1, round(n_units * rest)) if rest > 1e-9 else 0
    n_left = n_units - n_validation
    # without a share for the test part nothing may end up there, which rounding both shares could do
    n_train = n_left if train_size + rest > 1 - 1e-9 else min(max(1, round(n_units * train_size)), n_left)
    if n_train < 1:
        what = "samples" if groups is None else "groups"
        msg = (
            f"train_size={train_size} and validation_size={validation_size} leave nothing to train on: there are "
            f"{n_units} {what}. Give train_size=1 to train on all of them."
        )
        raise ValueError(msg)
    parts = order[n_validation : n_validation + n_train], order[:n_validation], order[n_validation + n_train :]
    train, validation, test = (np.flatnonzero(np.isin(units, part)) for part in parts)
    return train, validation, test


def _interleave(order: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Reorder units so that every stretch of them holds the strata in like proportions."""
    place = np.empty(len(order))
    for s in np.unique(stratum):
        of_stratum = order[stratum[order] == s]
        place[of_stratum] = (np.arange(len(of_stratum)) + 0.5) / len(of_stratum)
    return order[np.argsort(place[order], kind="stable")]
