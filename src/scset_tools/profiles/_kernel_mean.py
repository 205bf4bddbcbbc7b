"""Kernel mean embedding of the cells of a sample, by random Fourier features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scset_tools.profiles._bandwidth import N_CELLS, median_distance
from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells, GroupSums
from scset_tools.profiles._docs import docs


@docs.dedent
class KernelMean(Profile):
    """Mean over the cells of a sample in the feature space of a Gaussian kernel.

    The inner product of two vectors approaches the mean kernel between the cells of the two samples, and their distance
    the maximum mean discrepancy (Rahimi and Recht 2007; Gretton et al. 2012). Keeps the whole distribution of cells
    down to the bandwidth; blind to groups far smaller than one in `sqrt(n_components)` cells, and its columns have no
    names.

    Parameters
    ----------
    %(param_sample_key)s
    n_components
        Number of random features. The error of the kernel falls with its square root.
    %(param_bandwidth)s
    %(param_use_rep)s
    %(param_layer)s
    %(param_rng)s
    """

    name: ClassVar[str] = "kernel_mean"

    def __init__(
        self,
        *,
        sample_key: str,
        n_components: int = 256,
        bandwidth: float | None = None,
        use_rep: str | None = None,
        layer: str | None = None,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        self.sample_key = sample_key
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.use_rep = use_rep
        self.layer = layer
        self.rng = rng

    def _fit(self, cells: Cells) -> None:
        rng = np.random.default_rng(self.rng)
        self.bandwidth_ = self.bandwidth or median_distance(cells.draw(N_CELLS, rng)[1], rng)
        normal = rng.standard_normal((cells.n_features, self.n_components))
        self.weights_ = (normal / self.bandwidth_).astype(np.float32)
        self.offsets_ = rng.uniform(0, 2 * np.pi, self.n_components).astype(np.float32)

    def _transform(self, cells: Cells) -> np.ndarray:
        total = GroupSums(cells.n_samples, self.n_components)
        for rows, x in cells.blocks():
            features = x @ self.weights_
            features += self.offsets_
            total.add(cells.codes[rows], np.cos(features, out=features))
        return total.sums / cells.sizes[:, None] * np.sqrt(2 / self.n_components)
