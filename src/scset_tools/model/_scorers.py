"""Scores of classes that are explained: of a linear probe on frozen vectors, or of a fine-tuned head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from scset_tools.data._batch import SampleBatch


class LinearProbe:
    """Scores ``z @ weight + bias`` of each class, from a logistic regression on standardised vectors."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        # to the end: where it stops early, rounding of the vectors would decide where
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-8)).fit(vectors, labels)
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


class Scorer:
    """Scores of samples for classes, as a function of the features of their cells.

    Parameters
    ----------
    module
        With ``represent_features(x, batch)``, ``baseline(batch)`` and ``attention(batch)``; put into evaluation mode.
    head
        Maps vectors (samples, n_latent) to scores (samples, classes): a :class:`LinearProbe`, or a network.
    classes
        Names of the classes.
    """

    def __init__(self, module: Any, head: Callable[[torch.Tensor], torch.Tensor], classes: list[str]) -> None:
        self.module, self.head, self.classes = module.eval(), head, classes

    def __call__(self, x: torch.Tensor, batch: SampleBatch) -> torch.Tensor:
        """Scores if the cells of the batch had the features ``x``, (samples, classes)."""
        return self.head(self.module.represent_features(x, batch))
