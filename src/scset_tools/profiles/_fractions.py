"""Cell-type composition of a sample, alone and with the means of each type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells
from scset_tools.profiles._docs import docs
from scset_tools.profiles._mean import MeanPerType
from scset_tools.profiles._types import type_codes, type_names

PSEUDOCOUNT = 0.5
"""Cells added to each type before a logarithm, so that an absent type weighs less the more cells were looked at."""


Scale = Literal["raw", "clr"]


@docs.dedent
class Fractions(Profile):
    """Fraction of each cell type in a sample.

    Keeps the composition; blind to any change within a type. A type that a sample lacks has fraction 0.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_cell_type_key)s
    %(param_cell_types)s
    %(param_scale)s
    """

    name: ClassVar[str] = "fractions"
    _reads_cells: ClassVar[bool] = False

    def __init__(
        self,
        *,
        sample_key: str,
        cell_type_key: str,
        cell_types: Sequence[str] | None = None,
        scale: Scale = "raw",
    ) -> None:
        self.sample_key = sample_key
        self.cell_type_key = cell_type_key
        self.cell_types = cell_types
        self.scale = scale

    def _fit(self, cells: Cells) -> None:
        check_scale(self.scale)
        self.cell_types_ = type_names(cells, self.cell_type_key, self.cell_types)

    def _transform(self, cells: Cells) -> np.ndarray:
        types = type_codes(cells, self.cell_type_key, self.cell_types_)
        return scaled(
            count(cells.codes[cells.rows], types[cells.rows], (cells.n_samples, len(self.cell_types_))), self.scale
        )

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return list(self.cell_types_)


@docs.dedent
class FractionsAndMeans(MeanPerType):
    """Fraction of each cell type and the mean over its cells, side by side.

    Keeps composition and mean state of each type (and so the overall mean); blind to the spread within a type. Absent
    types as in :class:`Fractions` (0) and :class:`MeanPerType` (average of the training samples).

    Parameters
    ----------
    %(param_sample_key)s
    %(param_cell_type_key)s
    %(param_cell_types)s
    %(param_scale)s
    %(param_use_rep)s
    %(param_layer)s
    """

    name: ClassVar[str] = "fractions_and_means"

    def __init__(
        self,
        *,
        sample_key: str,
        cell_type_key: str,
        cell_types: Sequence[str] | None = None,
        scale: Scale = "raw",
        use_rep: str | None = None,
        layer: str | None = None,
    ) -> None:
        super().__init__(
            sample_key=sample_key, cell_type_key=cell_type_key, cell_types=cell_types, use_rep=use_rep, layer=layer
        )
        self.scale = scale

    def _fit(self, cells: Cells) -> None:
        check_scale(self.scale)
        super()._fit(cells)

    def _transform(self, cells: Cells) -> np.ndarray:
        means, sizes = self._means(cells)
        means = np.where(sizes[:, :, None] > 0, means, self.fill_).reshape(cells.n_samples, -1)
        return np.hstack([scaled(sizes, self.scale), means])

    def _feature_names(self, n: int) -> Sequence[str]:
        return [*self.cell_types_, *super()._feature_names(n)]


def check_scale(scale: str) -> None:
    """Raise ValueError unless ``scale`` is known."""
    if scale not in ("raw", "clr"):
        msg = f"scale must be 'raw' or 'clr', but is {scale!r}."
        raise ValueError(msg)


def count(samples: np.ndarray, groups: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of cells of each group in each sample, shape (samples, groups)."""
    return np.bincount(samples * shape[1] + groups, minlength=shape[0] * shape[1]).reshape(shape)


def scaled(counts: np.ndarray, scale: Scale) -> np.ndarray:
    """Counts (samples, groups) as fractions or as centred log-ratios."""
    if scale == "raw":
        return counts / counts.sum(1, keepdims=True)
    logs = np.log(counts + PSEUDOCOUNT)
    return logs - logs.mean(1, keepdims=True)
