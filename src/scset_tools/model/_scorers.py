"""Scores of classes that are explained: of a linear probe on frozen vectors, or of a fine-tuned head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from scset_tools.data._batch import SampleBatch


class Scorer(Protocol):
    """Scores of samples for classes, as a function of the features of their cells.

    Attributes
    ----------
    classes
        Names of the classes.
    module
        What embeds the cells, with ``baseline(batch)`` and ``attention(batch)``.
    """

    classes: list[str]
    module: Any

    def score(self, x: torch.Tensor, batch: SampleBatch, which: int) -> torch.Tensor:
        """Score of one class if the cells of the batch had the features ``x``, (samples,)."""


class LinearProbe:
    """Scores ``z @ weight + bias`` of each class, from a logistic regression on standardised vectors."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(vectors, labels)
        scaler, regression = fitted[0], fitted[1]
        coef, intercept = (
            regression.coef_ / scaler.scale_,
            regression.intercept_ - regression.coef_ @ (scaler.mean_ / scaler.scale_),
        )
        if len(coef) == 1:  # two classes share one row, the log-odds of the second
            coef, intercept = np.concatenate([-coef, coef]), np.concatenate([-intercept, intercept])
        self.classes = [str(c) for c in regression.classes_]
        self.weight = torch.from_numpy(coef.T.astype(np.float32))  # (n_latent, classes)
        self.bias = torch.from_numpy(intercept.astype(np.float32))

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Scores of vectors (samples, n_latent): (samples, classes)."""
        return z @ self.weight.to(z) + self.bias.to(z)


class HeadScorer:
    """Scores of a module's vectors by a head, which may be a :class:`LinearProbe`.

    Parameters
    ----------
    module
        With ``represent_features(x, batch)``, ``baseline(batch)`` and ``attention(batch)``.
    head
        Maps vectors (samples, n_latent) to scores (samples, classes).
    classes
        Their names.
    """

    def __init__(self, module: torch.nn.Module, head: Any, classes: list[str]) -> None:
        self.module, self.head, self.classes = module.eval(), head, classes

    def score(self, x: torch.Tensor, batch: SampleBatch, which: int) -> torch.Tensor:
        """Score of one class if the cells of the batch had the features ``x``, (samples,)."""
        return self.head(self.module.represent_features(x, batch))[:, which]
