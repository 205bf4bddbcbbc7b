"""Batch correction within folds: learned from training samples, applied to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from scset_tools import _checks
from scset_tools._correction import LinearCorrection, require_batches
from scset_tools.tl._designs import covariate_matrix

if TYPE_CHECKING:
    from anndata import AnnData

CORRECTED = ", corrected"
"""What is added to the name of a representation."""


@dataclass(frozen=True)
class FoldCorrection:
    """Batches and covariates of the labelled samples."""

    batch: pd.Series
    covariates: np.ndarray

    @classmethod
    def of(cls, samples: AnnData, rows: np.ndarray, batch_key: str, *, covariates: Sequence[str]) -> Self:
        """Read them; ValueError if a batch is missing."""
        batch = _checks.require_obs(samples, batch_key).iloc[rows]
        require_batches(batch)
        return cls(batch, covariate_matrix(samples, covariates)[rows])

    def __call__(self, x: np.ndarray, train: np.ndarray, *, name: str) -> np.ndarray:
        """Corrected vectors of all samples (n, features), by the effects of batches in those at ``train``."""
        try:
            model = LinearCorrection().fit(x[train], self.batch.iloc[train], self.covariates[train])
            return model.transform(x, self.batch)
        except ValueError as error:
            msg = f"Representation {name!r} cannot be corrected in a fold: {error}"
            raise ValueError(msg) from error
