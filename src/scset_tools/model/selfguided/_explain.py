"""The path of attributions of SelfGuidedMAE: in the values of the expressed genes, which are its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from scset_tools.model._inference import MAX_CELLS
from scset_tools.model.explain import FeatureSpace
from scset_tools.nn import completeness_error, gradient, integrated_gradients

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TokenAttributions:
    """Attributions of the expressed genes of a batch of cells to k scores."""

    values: Tensor
    """Of each token, (k, tokens)."""
    feature: Tensor
    """Number of the feature of each token, (tokens,)."""
    ptr: Tensor
    """Where the tokens of each cell begin and end, (cells + 1,)."""
    n_features: int
    """Number of features."""
    cells: Tensor
    """Sum over the genes of each cell, float64, (k, cells)."""
    f_input: Tensor
    """Scores of the samples, (samples, k)."""
    f_baseline: Tensor
    """Scores with all values at the baseline, (samples, k)."""
    completeness_error: Tensor
    """Relative to the difference of the two, (samples, k); NaN where nothing is to add up."""

    def sums(self, place: Tensor, n_places: int) -> Tensor:
        """Sums over the cells in each place (cells,), (k, n_places, features), float64."""
        at = place.repeat_interleave(self.ptr.diff()) * self.n_features + self.feature
        out = self.values.new_zeros(len(self.values), n_places * self.n_features, dtype=torch.float64)
        return out.index_add_(1, at, self.values.double()).view(len(out), n_places, -1)

    def matrix(self, which: int) -> sparse.csr_matrix:
        """Attributions to one score, (cells, features)."""
        values, feature, ptr = (part.cpu().numpy() for part in (self.values[which].float(), self.feature, self.ptr))
        out = sparse.csr_matrix((values, feature, ptr), shape=(len(ptr) - 1, self.n_features))
        out.sort_indices()  # tokens are in the order of the vocabulary
        return out


class TokenSpace(FeatureSpace):
    """Values of the expressed genes of the cells of a batch, as the encoder reads them.

    The path takes these values to the baseline; which genes are expressed, and so which tokens there are, stays as it is. What a
    gene adds by being among the tokens at all is part of the score of the baseline.
    """

    @classmethod
    def most_cells(cls, n_features: int, n_scores: int) -> int:
        """Most cells of a batch: those of inference, as gradients are taken some cells at a time."""
        del n_features, n_scores
        return MAX_CELLS

    @property
    def ptr(self) -> Tensor:
        """Where the cells of each sample begin and end, (samples + 1,)."""
        return self.batch.sample_ptr

    @cached_property
    def value(self) -> Tensor:
        """Values as the encoder reads them, (tokens,)."""
        return self.module.values(self.batch)

    @cached_property
    def feature(self) -> Tensor:
        """Number of the feature of each token, (tokens,)."""
        ids = self.module.gene_ids
        column = torch.full((self.module.n_genes,), -1, device=ids.device)
        column[ids[ids >= 0]] = (ids >= 0).nonzero().squeeze(1)
        return column[self.batch.gene]

    @property
    def _cell(self) -> Tensor:
        sizes = self.batch.ptr.diff()
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    def _sum_cells(self, values: Tensor) -> Tensor:
        """Sums over the tokens of each cell, float64: (k, cells)."""
        out = values.new_zeros(len(values), self.batch.n_cells, dtype=torch.float64)
        return out.index_add_(1, self._cell, values.double())

    def weighted_sum(self, weight: Tensor) -> Tensor:
        """Sum of the cells times their weights (cells,), (features,), float64; a gene that is not expressed is zero."""
        out = torch.zeros(len(self.module.gene_ids), dtype=torch.float64, device=weight.device)
        return out.index_add_(0, self.feature, self.value.double() * weight[self._cell])

    def attribute(self, score: Score, baseline: Tensor | None, *, n_steps: int, is_integrated: bool) -> Any:
        """Contribution of each expressed gene of each cell to the scores of its sample; see :class:`FeatureSpace`."""

        def f(value: Tensor, ptr: Tensor) -> Tensor:
            del ptr  # that of the batch
            return score(self.module.represent_values(value[:, 0], self.batch))

        x, ptr = self.value[:, None], self.ptr
        start = torch.zeros_like(x) if baseline is None else baseline.to(x)[self.feature][:, None]
        if is_integrated:
            ends = self.batch.ptr[ptr]  # tokens of each sample
            found = integrated_gradients(f, x, ends, baseline=start, n_steps=n_steps)
            values, at_cells, at_start = found.attributions[..., 0], found.f_input, found.f_baseline
        else:
            values = (gradient(f, x, self.batch.ptr[ptr]) * (x - start))[..., 0]
            with torch.no_grad():
                at_cells, at_start = f(x, ptr), f(start, ptr)
        cells = self._sum_cells(values)
        error = completeness_error(cells, ptr, f_input=at_cells, f_baseline=at_start)
        return self._found(values, cells, at_cells, at_start, error)

    def attend(self, score: Score, baseline: Tensor | None, weight: Tensor) -> Any:
        """Attention in the place of the gradient; see :class:`FeatureSpace`."""
        f = score(self.module.represent(self.batch))
        nothing, k = torch.full_like(f, torch.nan), f.shape[1]
        off = self.value if baseline is None else self.value - baseline.to(self.value)[self.feature]
        values = (weight[self._cell] * off).expand(k, -1)
        return self._found(values, weight.double().expand(k, -1), f, nothing, nothing)

    def _found(self, values: Tensor, cells: Tensor, *of_samples: Tensor) -> TokenAttributions:
        n_features = len(self.module.gene_ids)
        return TokenAttributions(values, self.feature, self.batch.ptr, n_features, cells, *of_samples)
