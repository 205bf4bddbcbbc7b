"""Remove the batch from vectors of samples by a linear model, learned on some samples and applied to others."""

from __future__ import annotations

from typing import Self

import numpy as np
import pandas as pd

from scset_tools import _checks, _labels


class LinearCorrection:
    """Subtract from each vector what a linear model ascribes to its batch.

    The model of each feature has an intercept, the batches and the covariates; the effects of batches add up to zero over the samples that it
    is fitted on, so that their mean does not move. Covariates are kept: they take part in the fit, so that a batch is not blamed for what
    they explain, and are neither needed nor touched in ``transform``. With a label among them, the vectors are no
    evidence for that label where batches differ in it: what is subtracted by batch is the counterpart of what was kept.
    """

    def fit(self, x: np.ndarray, batch: pd.Series, covariates: np.ndarray | None = None) -> Self:
        """Estimate the effects of the batches.

        Parameters
        ----------
        x
            Vectors, shape (n, features).
        batch
            Batch of each sample, none missing, shape (n,).
        covariates
            Columns of numbers to keep, shape (n, columns); samples with a missing value take no part in the fit.

        Raises
        ------
        ValueError
            If a batch is missing, there is one batch, or covariates and batches cannot be told apart.
        """
        read = require_batches(batch)
        known = np.zeros((len(x), 0)) if covariates is None else np.asarray(covariates, dtype=float)
        use = ~np.isnan(known).any(axis=1)
        codes = read.codes[use]
        sizes = np.bincount(codes, minlength=len(read.names))
        if len(read.names) < 2 or (sizes == 0).any():
            what = (
                "one batch"
                if len(read.names) < 2
                else f"no sample with covariates in {_checks.first(np.array(read.names)[sizes == 0])}"
            )
            msg = f"obs[{batch.name!r}] has {what} in the {use.sum()} samples to learn from: there is no batch effect to estimate."
            raise ValueError(msg)
        indicators = np.eye(len(read.names))[codes]
        kept = known[use] - known[use].mean(axis=0)
        spread = kept.std(axis=0)
        kept = kept[:, spread > 0] / spread[spread > 0]
        full = np.column_stack([indicators, kept])
        n_kept = int(np.linalg.matrix_rank(kept, tol=1e-8)) if kept.size else 0
        if np.linalg.matrix_rank(full, tol=1e-8) < len(read.names) + n_kept:
            msg = (
                f"The covariates cannot be told from obs[{batch.name!r}] in the {use.sum()} samples to learn from: what is subtracted as batch "
                "would be arbitrary. Leave out the covariate that the batches give exactly."
            )
            raise ValueError(msg)
        effects = np.linalg.lstsq(full, np.asarray(x, dtype=float)[use], rcond=None)[0][: len(read.names)]
        self.effects_ = effects - (sizes / sizes.sum()) @ effects  # (batches, features)
        self.names_, self.batch_key_ = read.names, str(batch.name)
        return self

    def transform(self, x: np.ndarray, batch: pd.Series) -> np.ndarray:
        """Corrected vectors, (n, features); ValueError for a batch that was not learned from."""
        read = require_batches(batch)
        new = [name for name in read.names if name not in self.names_]
        if new:
            msg = (
                f"Batches {_checks.first(new)} of obs[{self.batch_key_!r}] are not among those that the correction was fitted on "
                f"{_checks.first(self.names_, 20)}: their effect is not known. Spread each batch over the folds (groups_key by donor, not by batch)."
            )
            raise ValueError(msg)
        place = np.array([self.names_.index(name) for name in read.names])
        return np.asarray(x, dtype=float) - self.effects_[place[read.codes]]


def require_batches(batch: pd.Series) -> _labels.Classes:
    """The batches as classes; ValueError naming samples without one."""
    read = _labels.read_classes(batch)
    is_missing = read.codes < 0
    if is_missing.any():
        culprits = _checks.first(batch.index[is_missing])
        msg = f"obs[{batch.name!r}] is missing for {is_missing.sum()} of {len(batch)} samples (first: {culprits}). Give them a batch, or leave them out."
        raise ValueError(msg)
    return read


def as_columns(column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Columns that stand for a label or covariate, (samples, columns) with NaN for missing, and the classes if it has any.

    Numbers as they are; ordered categories by their level (0, 1, 2, ...); of classes all but the first.
    """
    kind = _labels.guess_kind(column)
    if kind == "continuous":
        return _labels.read_numbers(column)[:, None], ()
    read = _labels.read_classes(column, kind=kind)
    if kind == "ordinal":
        return np.where(read.codes < 0, np.nan, read.codes)[:, None].astype(float), ()
    out = np.eye(len(read.names))[read.codes][:, 1:]
    out[read.codes < 0] = np.nan
    return out, read.names
