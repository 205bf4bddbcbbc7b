"""The path of attributions of PaSCient: straight behind its linear first layer, and carried back to the genes once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scset_tools.data._sparse import SparseRows
from scset_tools.model._inference import MAX_CELLS
from scset_tools.model.explain import FeatureSpace
from scset_tools.nn import LinearAttributions, attribute_through_linear

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class SparseAttributions(LinearAttributions):
    """Attributions through the first layer, with a matrix that is as sparse as the input."""

    def matrix(self, which: int) -> np.ndarray | sparse.csr_matrix:
        """Attributions to one score, (cells, features); sparse for sparse input and a baseline of zeros."""
        values = self.split()[which].values().float().cpu()
        if values.ndim == 2:
            return values.numpy()
        x: Any = self.x  # values alone: the input is sparse
        indices, ptr = (part.cpu().numpy() for part in (x.indices, x.indptr))
        return sparse.csr_matrix((values.numpy(), indices, ptr), shape=(len(ptr) - 1, len(self.weight)))


class FirstLayerSpace(FeatureSpace):
    """Cells behind the linear first layer, where the path from a baseline is as straight as in the genes.

    Exact, and cells x genes are never held per step: :func:`scset_tools.nn.attribute_through_linear`.
    """

    @classmethod
    def most_cells(cls, n_features: int, n_scores: int) -> int:
        """Most cells of a batch: those of inference, whatever the number of genes."""
        del n_features, n_scores
        return MAX_CELLS

    @cached_property
    def x(self) -> Any:
        """What the network reads, sparse or dense, (cells, features)."""
        return self.module.features(self.batch.x)

    def weighted_sum(self, weight: Tensor) -> Tensor:
        """Sum of the cells times their weights (cells,), (features,), float64."""
        if not isinstance(self.x, SparseRows):
            return super().weighted_sum(weight)
        out = torch.zeros(self.x.n_features, dtype=torch.float64, device=weight.device)
        return out.index_add_(0, self.x.indices.long(), self.x.values.double() * weight[self.x.row_of_value()])

    def attribute(self, score: Score, baseline: Tensor | None, *, n_steps: int, is_integrated: bool) -> Any:
        """Contribution of each gene of each cell to the scores of its sample; see :class:`FeatureSpace`."""
        module, second = self.module, self.module.second_layer()
        behind = module.from_first_layer if second is None else module.from_two_layers
        with torch.no_grad():
            hidden = module.first(self.x)
            weight, bias = module.first.folded()
        found = attribute_through_linear(
            lambda h, ptr: score(behind(h, ptr)),
            self.x,
            self.ptr,
            hidden=hidden,
            weight=weight,
            bias=bias,
            baseline=baseline,
            second=second,
            n_steps=n_steps,
            is_integrated=is_integrated,
        )
        return SparseAttributions(**vars(found))

    def attend(self, score: Score, baseline: Tensor | None, weight: Tensor) -> Any:
        """Attention in the place of the gradient: with one hidden unit and a weight of 1, values are weight x input."""
        f = score(self.module.represent(self.batch))
        k, nothing = f.shape[1], torch.full_like(f, torch.nan)
        one = weight.new_ones(self.x.shape[1], 1)
        slope = weight[:, None].expand(k, -1, 1)
        return SparseAttributions(self.x, one, baseline, slope, weight.double().expand(k, -1), f, nothing, nothing)
