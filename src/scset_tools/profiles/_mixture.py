"""Soft composition: the weights of a Gaussian mixture in each sample."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells, GroupSums
from scset_tools.profiles._docs import docs
from scset_tools.profiles._kmeans import fit_clusters


@docs.dedent
class MixtureFractions(Profile):
    """Mean probability of each component of a Gaussian mixture over the cells of a sample.

    Soft clusters of unequal width (diagonal covariances): keeps composition, and some of the movement between
    neighbouring components that hard clusters cut off; blind to movement within a component. Features are scaled to
    unit variance over the training cells first, so their units do not matter.

    Parameters
    ----------
    %(param_sample_key)s
    n_components
        Number of Gaussians.
    %(param_use_rep)s
    %(param_layer)s
    %(param_n_fit_cells)s
    %(param_rng)s
    """

    name: ClassVar[str] = "mixture_fractions"

    def __init__(
        self,
        *,
        sample_key: str,
        n_components: int = 20,
        use_rep: str | None = None,
        layer: str | None = None,
        n_fit_cells: int | None = 20_000,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        self.sample_key = sample_key
        self.n_components = n_components
        self.use_rep = use_rep
        self.layer = layer
        self.n_fit_cells = n_fit_cells
        self.rng = rng

    def _fit(self, cells: Cells) -> None:
        rng = np.random.default_rng(self.rng)
        _, x = cells.draw(self.n_fit_cells, rng)
        self.mean_ = x.mean(0, dtype=np.float64)
        std = x.std(0, dtype=np.float64)
        self.scale_ = np.where(std > 0, std, 1.0)
        x = self._scaled(x)
        self.mixture_ = GaussianMixture(
            self.n_components,
            covariance_type="diag",
            # markers that are zero in most cells would otherwise get components without width
            reg_covar=1e-3,
            means_init=fit_clusters(x, self.n_components, rng).cluster_centers_,
            max_iter=50,
            init_params="random_from_data",
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            # a composition on a mixture that could still improve a little is as good a baseline
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.mixture_.fit(x)

    def _transform(self, cells: Cells) -> np.ndarray:
        total = GroupSums(cells.n_samples, self.n_components)
        for rows, x in cells.blocks():
            total.add(cells.codes[rows], self.mixture_.predict_proba(self._scaled(x)))
        return total.sums / cells.sizes[:, None]

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean_) / self.scale_

    def _feature_names(self, n: int) -> Sequence[str]:
        return [f"component_{i}" for i in range(n)]
