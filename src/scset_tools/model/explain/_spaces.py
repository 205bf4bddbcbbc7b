"""Where the path from a baseline to the cells is straight: by default in the features that a model reads.

A model may have a shorter way, through its linear first layer or through the tokens of its genes; it then names another space
in ``_space_cls``, with the same methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scset_tools.model._inference import MAX_CELLS
from scset_tools.nn import IntegratedGradients, completeness_error, gradient, integrated_gradients

Score = Callable[[Tensor], Tensor]
"""Vectors of samples (samples, n_latent) to scores (samples, k)."""

MAX_VALUES = 2**25
"""Most attributions of cells x features x scores that are held at once."""


@dataclass(frozen=True, eq=False)
class CellAttributions:
    """Attributions of the features of a batch of cells to k scores."""

    values: Tensor
    """(k, cells, features)."""
    cells: Tensor
    """Sum over the features of each cell, float64, (k, cells)."""
    f_input: Tensor
    """Scores of the samples, (samples, k)."""
    f_baseline: Tensor
    """Scores of samples of baseline cells, (samples, k)."""
    completeness_error: Tensor
    """Relative to the difference of the two, (samples, k); NaN where nothing is to add up."""

    def sums(self, place: Tensor, n_places: int) -> Tensor:
        """Sums over the cells in each place, (k, n_places, features), float64.

        Parameters
        ----------
        place
            Number of the place of each cell, (cells,).
        n_places
            Number of places.
        """
        k, _, n_features = self.values.shape
        out = torch.zeros(k, n_places, n_features, dtype=torch.float64, device=place.device)
        return out.index_add_(1, place, self.values.double())

    def matrix(self, which: int) -> np.ndarray | sparse.csr_matrix:
        """Attributions to one score, (cells, features).

        Parameters
        ----------
        which
            Number of the score.
        """
        return self.values[which].float().cpu().numpy()


class FeatureSpace:
    """Cells of a batch in the features that they were registered with.

    Parameters
    ----------
    module
        Network, in evaluation mode, with ``represent_features(x, batch)``.
    batch
        Samples, on the module's device.
    """

    def __init__(self, module: Any, batch: Any) -> None:
        self.module, self.batch = module, batch

    @classmethod
    def most_cells(cls, n_features: int, n_scores: int) -> int:
        """Most cells of a batch.

        Parameters
        ----------
        n_features
            Number of features of a cell.
        n_scores
            Number of scores.
        """
        return max(1, min(MAX_CELLS, MAX_VALUES // max(1, n_features * n_scores)))

    @property
    def ptr(self) -> Tensor:
        """Where the cells of each sample begin and end, (samples + 1,)."""
        return self.batch.ptr

    @property
    def x(self) -> Tensor:
        """Features of the cells, (cells, features); what is missing stands at the mean of training, and gets nothing."""
        x = self.batch.x
        if not getattr(self.module, "is_open", False):
            return x
        return torch.where(x.isnan(), self.module.baseline(self.batch), x)

    def weighted_sum(self, weight: Tensor) -> Tensor:
        """Sum of the cells times their weights, (features,), float64: for mean cells.

        Parameters
        ----------
        weight
            Weight of each cell, (cells,).
        """
        return weight.double() @ self.x.double()

    def attribute(self, score: Score, baseline: Tensor | None, *, n_steps: int, is_integrated: bool) -> Any:
        """Contribution of each feature of each cell to the scores of its sample.

        Parameters
        ----------
        score
            What is explained.
        baseline
            Where the path begins, (features,) or (cells, features). None: zeros.
        n_steps
            Gradients to average.
        is_integrated
            False takes the gradient at the cells: gradient times (cells - baseline).
        """

        def f(x: Tensor, ptr: Tensor) -> Tensor:
            del ptr  # that of the batch
            return score(self.module.represent_features(x, self.batch))

        x = self.x
        start = torch.zeros_like(x) if baseline is None else baseline.to(x).expand_as(x)
        if is_integrated:
            found = integrated_gradients(f, x, self.ptr, baseline=start, n_steps=n_steps)
        else:
            values = gradient(f, x, self.ptr) * (x - start)
            with torch.no_grad():
                at_cells, at_start = f(x, self.ptr), f(start, self.ptr)
                cells = values.sum(-1, dtype=torch.float64)
                error = completeness_error(cells, self.ptr, f_input=at_cells, f_baseline=at_start)
            found = IntegratedGradients(values, at_cells, at_start, error)
        return CellAttributions(
            found.attributions,
            found.attributions.sum(-1, dtype=torch.float64),
            found.f_input,
            found.f_baseline,
            found.completeness_error,
        )

    def attend(self, score: Score, baseline: Tensor | None, weight: Tensor) -> Any:
        """Attention in the place of the gradient: the same for all scores.

        Parameters
        ----------
        score, baseline
            As for :meth:`attribute`.
        weight
            Of each cell, (cells,).
        """
        x = self.x
        f = score(self.module.represent(self.batch))
        values = weight[:, None] * (x if baseline is None else x - baseline.to(x))
        nothing = torch.full_like(f, torch.nan)
        k = f.shape[1]
        return CellAttributions(values.expand(k, *values.shape), weight.double().expand(k, -1), f, nothing, nothing)
