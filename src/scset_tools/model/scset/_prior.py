"""Which vectors samples have: a small Gaussian with a mean that depends on their covariates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf

from scset_tools.model._covariates import Covariate

PENALTY = 1.0
"""Ridge penalty of the effects of covariates, in samples."""


@dataclass(frozen=True)
class VectorPrior:
    r"""Vectors given covariates, :math:`z \mid c \sim \mathcal{N}(m + W^T d(c), \Sigma)`.

    ``d`` has a centred indicator for each class and a standardised number for each number; what is not known is zero, the mean. ``W`` is a
    ridge estimate, uncertain as in Bayesian linear regression with noise :math:`\Sigma`, which is the covariance of what is left
    (Ledoit and Wolf 2004).
    """

    mean: np.ndarray
    """Mean vector of the training samples, (n_latent,)."""
    effects: np.ndarray
    """W, (columns, n_latent)."""
    residual: np.ndarray
    """Covariance of what covariates leave, (n_latent, n_latent)."""
    uncertainty: np.ndarray
    """Of W, in units of ``residual``: (columns, columns)."""
    center: np.ndarray
    """What is subtracted from each column of the design, (columns,)."""
    scale: np.ndarray
    """What it is divided by, (columns,)."""

    @classmethod
    def fit(cls, vectors: np.ndarray, values: pd.DataFrame, covariates: Sequence[Covariate]) -> VectorPrior:
        """From vectors (samples, n_latent) and the covariates of the samples, as codes and numbers."""
        z = vectors.astype(np.float64)
        raw = _columns(values, covariates)
        center = np.array([np.nanmean(c) if np.isfinite(c).any() else 0.0 for c in raw.T])
        scale = np.array(
            [
                np.nanstd(raw[:, i]) if kind == "continuous" and np.nanstd(raw[:, i]) > 0 else 1.0
                for i, kind in enumerate(_kinds(covariates))
            ]
        )
        design = np.nan_to_num((raw - center) / scale) if raw.shape[1] else raw
        mean = z.mean(axis=0)
        uncertainty = np.linalg.inv(design.T @ design + PENALTY * np.eye(raw.shape[1]))
        effects = uncertainty @ design.T @ (z - mean)
        residual = LedoitWolf(assume_centered=True).fit(z - mean - design @ effects).covariance_
        return cls(mean, effects, residual, uncertainty, center, scale)

    def expected(
        self, values: pd.DataFrame, covariates: Sequence[Covariate], *, effects: np.ndarray | None = None
    ) -> np.ndarray:
        """Mean vectors given covariates, (samples, n_latent).

        Parameters
        ----------
        values
            Codes and numbers, NaN where unsaid, (samples, covariates).
        covariates
            Registered covariates.
        effects
            Other effects, as :meth:`drawn_effects` gives. Default: the estimate.
        """
        design = np.nan_to_num((_columns(values, covariates) - self.center) / self.scale)
        return self.mean + design @ (self.effects if effects is None else effects)

    def drawn_effects(self, rng: np.random.Generator) -> np.ndarray:
        """Effects that the training samples allow for, (columns, n_latent)."""
        noise = rng.standard_normal(self.effects.shape)
        return self.effects + _root(self.uncertainty) @ noise @ _root(self.residual).T

    def draw(self, values: pd.DataFrame, covariates: Sequence[Covariate], rng: np.random.Generator) -> np.ndarray:
        """One vector for each row of ``values``, (samples, n_latent)."""
        noise = rng.standard_normal((len(values), len(self.mean)))
        return self.expected(values, covariates) + noise @ _root(self.residual).T

    def to_dict(self) -> dict[str, np.ndarray]:
        """In plain types, to be saved with the model."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> VectorPrior:
        """What :meth:`to_dict` gave."""
        return cls(**saved)


def _kinds(covariates: Sequence[Covariate]) -> list[str]:
    """Kind of each column of the design."""
    return [c.kind for c in covariates if c.kind != "cell" for _ in range(max(1, len(c.classes)))]


def _columns(values: pd.DataFrame, covariates: Sequence[Covariate]) -> np.ndarray:
    """Indicators and numbers, NaN where the covariate is not known, (samples, columns)."""
    blocks = [np.zeros((len(values), 0))]
    for c in covariates:
        value = values[c.name].to_numpy(dtype=np.float64)[:, None] if c.kind != "cell" else None
        if value is None:
            continue
        if c.kind == "class":
            value = np.where(np.isnan(value), np.nan, value == np.arange(len(c.classes)))
        blocks.append(value)
    return np.concatenate(blocks, axis=1)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root, which axes of equal variance, chosen by rounding, leave as it is."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
