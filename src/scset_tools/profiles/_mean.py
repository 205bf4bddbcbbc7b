"""Mean profiles: what a pseudobulk sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells
from scset_tools.profiles._docs import docs
from scset_tools.profiles._types import type_codes, type_names


@docs.dedent
class Mean(Profile):
    """Mean over the cells of a sample: the pseudobulk, and the first baseline to beat.

    Keeps the mean of each feature; any two samples with equal means look the same.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_use_rep)s
    %(param_layer)s
    """

    name: ClassVar[str] = "mean"

    def __init__(self, *, sample_key: str, use_rep: str | None = None, layer: str | None = None) -> None:
        self.sample_key = sample_key
        self.use_rep = use_rep
        self.layer = layer

    def _fit(self, cells: Cells) -> None:
        del cells  # nothing to learn

    def _transform(self, cells: Cells) -> np.ndarray:
        return cells.sums(cells.codes, cells.n_samples) / cells.sizes[:, None]

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return list(self.feature_names_in_)


@docs.dedent
class MeanPerType(Profile):
    """Mean over the cells of each cell type of a sample, all types side by side.

    Keeps what changes within a type; blind to how many cells of each type there are. Where a sample has no cell of a
    type, its mean stands at the average over the training samples that have some: the one value that moves a linear
    probe neither way. If no training sample has the type either (it was named in `cell_types`), at the average over all
    training samples.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_cell_type_key)s
    %(param_cell_types)s
    %(param_use_rep)s
    %(param_layer)s
    """

    name: ClassVar[str] = "mean_per_type"

    def __init__(
        self,
        *,
        sample_key: str,
        cell_type_key: str,
        cell_types: Sequence[str] | None = None,
        use_rep: str | None = None,
        layer: str | None = None,
    ) -> None:
        self.sample_key = sample_key
        self.cell_type_key = cell_type_key
        self.cell_types = cell_types
        self.use_rep = use_rep
        self.layer = layer

    def _fit(self, cells: Cells) -> None:
        self.cell_types_ = type_names(cells, self.cell_type_key, self.cell_types)
        means, sizes = self._means(cells)
        overall = (means * sizes[:, :, None]).sum(1) / sizes.sum(1)[:, None]  # (samples, features)
        self.fill_ = mean_where_present(means, sizes, otherwise=overall.mean(0))  # (types, features)

    def _transform(self, cells: Cells) -> np.ndarray:
        means, sizes = self._means(cells)
        return np.where(sizes[:, :, None] > 0, means, self.fill_).reshape(cells.n_samples, -1)

    def _means(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """Means of shape (samples, types, features), zero where there is no cell, and sizes of shape (samples, types)."""
        n_types = len(self.cell_types_)
        groups = cells.codes * n_types + type_codes(cells, self.cell_type_key, self.cell_types_)
        sizes = np.bincount(groups[cells.rows], minlength=cells.n_samples * n_types)
        means = cells.sums(groups, len(sizes)) / np.maximum(sizes, 1)[:, None]
        return means.reshape(cells.n_samples, n_types, -1), sizes.reshape(cells.n_samples, n_types)

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return [f"{t}:{f}" for t in self.cell_types_ for f in self.feature_names_in_]


def mean_where_present(means: np.ndarray, sizes: np.ndarray, *, otherwise: np.ndarray) -> np.ndarray:
    """Average of each group's mean over the samples that have the group.

    Parameters
    ----------
    means
        Shape (samples, groups, features).
    sizes
        Number of cells, shape (samples, groups).
    otherwise
        Value for a group that no sample has, shape (features,) or (groups, features).

    Returns
    -------
    Shape (groups, features).
    """
    is_present = sizes > 0
    n_present = is_present.sum(0)[:, None]
    average = np.where(is_present[:, :, None], means, 0.0).sum(0) / np.maximum(n_present, 1)
    return np.where(n_present > 0, average, otherwise)
