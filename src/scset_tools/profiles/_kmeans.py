"""Profiles on clusters of cells found by k-means: composition, and means of each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells, GroupSums
from scset_tools.profiles._docs import docs
from scset_tools.profiles._fractions import Scale, check_scale, count, scaled
from scset_tools.profiles._mean import mean_where_present


def fit_clusters(x: np.ndarray, n_clusters: int, rng: np.random.Generator) -> KMeans:
    """K-means of the rows of ``x (cells, features)``: mini-batches from k-means++, then ten full steps.

    Raises
    ------
    ValueError
        If there are fewer rows than clusters.
    """
    if not 1 <= n_clusters <= len(x):
        msg = (
            f"n_clusters must lie between 1 and the number of training cells, but is {n_clusters} for {len(x)} cells. "
            "Ask for fewer clusters or fit on more samples."
        )
        raise ValueError(msg)
    seed = int(rng.integers(2**31))
    start = MiniBatchKMeans(n_clusters, batch_size=1024, n_init=3, random_state=seed).fit(x)
    # mini-batches stop early, about 2 % above the optimum; ten full steps win most of that back at a tenth of the cost
    # of k-means from scratch
    return KMeans(n_clusters, init=start.cluster_centers_, n_init=1, max_iter=10, random_state=seed).fit(x)


class _Clustered(Profile):
    """What the k-means profiles share: the fit."""

    n_clusters: int
    n_fit_cells: int | None
    rng: np.random.Generator | int | None

    def _fit(self, cells: Cells) -> None:
        rng = np.random.default_rng(self.rng)
        rows, x = cells.draw(self.n_fit_cells, rng)
        self.kmeans_ = fit_clusters(x, self.n_clusters, rng)
        self.cluster_centers_ = self.kmeans_.cluster_centers_
        self._fit_clustered(cells.codes[rows], x, cells.n_samples)

    def _fit_clustered(self, samples: np.ndarray, x: np.ndarray, n_samples: int) -> None:
        """Learn more from the cells that the clusters were fitted on: samples (cells,), x (cells, features)."""


@docs.dedent
class KMeansFractions(_Clustered):
    """Fraction of the cells of a sample in each k-means cluster of the training cells.

    Composition without cell types: keeps how many cells are where; blind to movement within a cluster. A cluster
    without cells has fraction 0. MAESTRO F.3 uses it with 512 and 1024 clusters.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_n_clusters)s
    %(param_scale)s
    %(param_use_rep)s
    %(param_layer)s
    %(param_n_fit_cells)s
    %(param_rng)s
    """

    name: ClassVar[str] = "kmeans_fractions"

    def __init__(
        self,
        *,
        sample_key: str,
        n_clusters: int = 60,
        scale: Scale = "raw",
        use_rep: str | None = None,
        layer: str | None = None,
        n_fit_cells: int | None = 200_000,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        self.sample_key = sample_key
        self.n_clusters = n_clusters
        self.scale = scale
        self.use_rep = use_rep
        self.layer = layer
        self.n_fit_cells = n_fit_cells
        self.rng = rng

    def _fit(self, cells: Cells) -> None:
        check_scale(self.scale)
        super()._fit(cells)

    def _transform(self, cells: Cells) -> np.ndarray:
        counts = np.zeros((cells.n_samples, self.n_clusters), dtype=np.int64)
        for rows, x in cells.blocks():
            counts += count(cells.codes[rows], self.kmeans_.predict(x), counts.shape)
        return scaled(counts, self.scale)

    def _feature_names(self, n: int) -> Sequence[str]:
        return [f"cluster_{i}" for i in range(n)]


@docs.dedent
class KMeansMeans(_Clustered):
    """Mean over the cells of a sample in each k-means cluster, all clusters side by side.

    Keeps what moves within a cluster; blind to how many cells are there. Where a sample has no cell in a cluster, its
    mean stands at the average over the training samples that have some (among the cells that the fit saw): the one
    value that moves a linear probe neither way, which the centre of the cluster is not, being an average over cells. If
    no training sample has any, at the centre.

    Parameters
    ----------
    %(param_sample_key)s
    %(param_n_clusters)s
    %(param_use_rep)s
    %(param_layer)s
    %(param_n_fit_cells)s
    %(param_rng)s
    """

    name: ClassVar[str] = "kmeans_means"

    def __init__(
        self,
        *,
        sample_key: str,
        n_clusters: int = 60,
        use_rep: str | None = None,
        layer: str | None = None,
        n_fit_cells: int | None = 200_000,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        self.sample_key = sample_key
        self.n_clusters = n_clusters
        self.use_rep = use_rep
        self.layer = layer
        self.n_fit_cells = n_fit_cells
        self.rng = rng

    def _fit_clustered(self, samples: np.ndarray, x: np.ndarray, n_samples: int) -> None:
        shape = (n_samples, self.n_clusters)
        labels = self.kmeans_.predict(x)
        total = GroupSums(n_samples * self.n_clusters, x.shape[1])
        total.add(samples * self.n_clusters + labels, x)
        means, sizes = _means(total.sums, count(samples, labels, shape))
        self.fill_ = mean_where_present(means, sizes, otherwise=self.cluster_centers_)

    def _transform(self, cells: Cells) -> np.ndarray:
        counts = np.zeros((cells.n_samples, self.n_clusters), dtype=np.int64)
        total = GroupSums(counts.size, cells.n_features)
        for rows, x in cells.blocks():
            samples, labels = cells.codes[rows], self.kmeans_.predict(x)
            counts += count(samples, labels, counts.shape)
            total.add(samples * self.n_clusters + labels, x)
        means, sizes = _means(total.sums, counts)
        return np.where(sizes[:, :, None] > 0, means, self.fill_).reshape(cells.n_samples, -1)

    def _feature_names(self, n: int) -> Sequence[str]:
        del n
        return [f"cluster_{i}:{f}" for i in range(self.n_clusters) for f in self.feature_names_in_]


def _means(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (samples, clusters, features), zero where there is no cell, and the sizes (samples, clusters)."""
    return sums.reshape(*sizes.shape, -1) / np.maximum(sizes, 1)[:, :, None], sizes
