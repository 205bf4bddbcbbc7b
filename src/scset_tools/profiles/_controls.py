"""Controls: profiles that know nothing of biology. A label they predict is confounded, or the evaluation leaks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells
from scset_tools.profiles._docs import docs


@docs.dedent
class NumberOfCells(Profile):
    """Logarithm of the number of cells of a sample.

    One column. A label that it predicts goes with how many cells were kept.

    Parameters
    ----------
    %(param_sample_key)s
    """

    name: ClassVar[str] = "number_of_cells"
    _reads_cells: ClassVar[bool] = False

    def __init__(self, *, sample_key: str) -> None:
        self.sample_key = sample_key

    def _fit(self, cells: Cells) -> None:
        del cells  # nothing to learn

    def _transform(self, cells: Cells) -> np.ndarray:
        return np.log(cells.sizes)[:, None]

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return ["log_n_cells"]


@docs.dedent
class SequencingDepth(Profile):
    """Mean over the cells of a sample of their total over all features.

    One column, in the units of the data. Meant for raw counts, where a label that it predicts goes with how deeply a
    sample was sequenced; after normalisation to equal totals it is constant.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_use_rep)s
    %(param_layer)s
    """

    name: ClassVar[str] = "sequencing_depth"

    def __init__(self, *, sample_key: str, use_rep: str | None = None, layer: str | None = None) -> None:
        self.sample_key = sample_key
        self.use_rep = use_rep
        self.layer = layer

    def _fit(self, cells: Cells) -> None:
        del cells  # nothing to learn

    def _transform(self, cells: Cells) -> np.ndarray:
        return cells.sums(cells.codes, cells.n_samples).sum(1, keepdims=True) / cells.sizes[:, None]

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return ["mean_total"]


@docs.dedent
class RandomVector(Profile):
    """Standard normal numbers that depend on the name of the sample alone.

    Whatever is predicted from them is chance. One draw can go with the label of a few dozen samples by accident: average
    over several `rng`. A mean above chance then says that the evaluation leaks.

    Parameters
    ----------
    %(param_sample_key)s
    n_components
        Number of columns.
    %(param_rng)s
    """

    name: ClassVar[str] = "random_vector"
    _reads_cells: ClassVar[bool] = False

    def __init__(self, *, sample_key: str, n_components: int = 32, rng: np.random.Generator | int | None = 0) -> None:
        self.sample_key = sample_key
        self.n_components = n_components
        self.rng = rng

    def _fit(self, cells: Cells) -> None:
        del cells
        self.seed_ = int(np.random.default_rng(self.rng).integers(2**31))

    def _transform(self, cells: Cells) -> np.ndarray:
        # Python's hash of a string changes from process to process
        seeds = [(self.seed_, zlib.crc32(str(name).encode())) for name in cells.names]
        return np.stack([np.random.default_rng(seed).standard_normal(self.n_components) for seed in seeds])
