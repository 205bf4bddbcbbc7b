"""Optimal-transport kernel embedding (OTKE): cells are aligned with a learned set of points, softly, and averaged there.

Mialon, Chen, d'Aspremont, Mairal (2021), "A trainable optimal transport embedding for feature aggregation and its
relationship to attention", ICLR. It is the OTKE that MAESTRO F.3 compares with, there on 10,000 cells per sample because
that implementation takes sets of one size; here a sample is embedded with all its cells.
"""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from scset_tools.profiles._bandwidth import median_distance
from scset_tools.profiles._base import Profile
from scset_tools.profiles._cells import Cells
from scset_tools.profiles._docs import docs
from scset_tools.profiles._kmeans import fit_clusters
from scset_tools.profiles._transport import transport_plan

_TOLERANCE = 1e-4
"""Wasserstein k-means has settled when no point moves further than this (kernel features have length about 1)."""


@docs.dedent
class OTKE(Profile):
    r"""Optimal-transport kernel embedding: cells gathered at the points of a reference by a transport plan.

    With a sample :math:`x` of :math:`n` cells, a reference :math:`z` of :math:`p` points, features
    :math:`\varphi`, and the plan :math:`P` that minimises :math:`-\sum_{ij} P_{ij} \langle\varphi(x_i), z_j\rangle
    + \varepsilon \sum_{ij} P_{ij} \log P_{ij}` with margins :math:`1/n` and :math:`1/p`, the embedding is
    :math:`\sqrt{p}\, P^\top \varphi(x)`, flattened; those of :math:`q` references are put side by side and divided by
    :math:`\sqrt{q}`.

    Keeps how each part of the sample's distribution is displaced from the reference, absent groups included; blind to
    detail below one :math:`p`-th of the cells. The fit has no labels: points start at k-means centres and move by
    Wasserstein k-means, that is each sample is assigned to its nearest reference, and each reference becomes the
    Wasserstein barycentre (with free points of equal weight) of its samples.

    Parameters
    ----------
    %(param_sample_key)s
    n_points
        Number of points of a reference, :math:`p`.
    n_references
        Number of references, :math:`q`.
    kernel
        `"linear"`: features are the data, scaled to unit variance over the training cells and divided by the square root
        of their number; the embedding has one column per point and feature. `"gaussian"`: Nyström features of a Gaussian
        kernel on the scaled data; one column per point and anchor. Either way a cell has a squared length of about 1.
    n_anchors
        Number of anchors of the Gaussian kernel (k-means centres).
    bandwidth
        Width of the Gaussian kernel, in standard deviations of a feature. Default: the median distance between two training
        cells, over a draw of 2,000.
    epsilon
        Strength of the entropic term. Smaller is nearer to a hard assignment, and slower.
    %(param_use_rep)s
    %(param_layer)s
    %(param_n_fit_cells)s
    n_steps
        Most steps of Wasserstein k-means.
    %(param_rng)s
    """

    name: ClassVar[str] = "otke"

    def __init__(
        self,
        *,
        sample_key: str,
        n_points: int = 10,
        n_references: int = 1,
        kernel: Literal["linear", "gaussian"] = "gaussian",
        n_anchors: int = 64,
        bandwidth: float | None = None,
        epsilon: float = 0.1,
        use_rep: str | None = None,
        layer: str | None = None,
        n_fit_cells: int | None = 20_000,
        n_steps: int = 10,
        rng: np.random.Generator | int | None = 0,
    ) -> None:
        self.sample_key = sample_key
        self.n_points = n_points
        self.n_references = n_references
        self.kernel = kernel
        self.n_anchors = n_anchors
        self.bandwidth = bandwidth
        self.epsilon = epsilon
        self.use_rep = use_rep
        self.layer = layer
        self.n_fit_cells = n_fit_cells
        self.n_steps = n_steps
        self.rng = rng

    def _fit(self, cells: Cells) -> None:
        self._check_params(cells)
        rng = np.random.default_rng(self.rng)
        rows, x = cells.draw(self.n_fit_cells, rng)
        if not 1 <= self.n_points <= len(x):
            msg = (
                f"n_points must lie between 1 and the number of training cells, but is {self.n_points} for {len(x)} cells. "
                "Ask for fewer points or fit on more samples."
            )
            raise ValueError(msg)
        self._fit_features(x, rng)
        features, samples = self._features(x), cells.codes[rows]
        sets = [features[samples == i] for i in np.unique(samples)]
        self.references_ = self._start(sets, rng)  # (references, points, kernel features)
        for _ in range(self.n_steps):
            before = self.references_
            self.references_ = self._step(sets)
            if np.linalg.norm(self.references_ - before, axis=2).max() < _TOLERANCE:
                break

    def _transform(self, cells: Cells) -> np.ndarray:
        q, p, d = self.references_.shape
        out = np.empty((cells.n_samples, q, p, d))
        for i, blocks in cells.by_sample():
            features = np.vstack([self._features(x) for x in blocks])
            for j, reference in enumerate(self.references_):
                plan = transport_plan(-features @ reference.T, self.epsilon)
                out[i, j] = np.sqrt(p / q) * plan.T @ features
        return out.reshape(cells.n_samples, -1)

    def _fit_features(self, x: np.ndarray, rng: np.random.Generator) -> None:
        """Scaling of the data, and anchors and bandwidth of the Gaussian kernel."""
        std = x.std(0, dtype=np.float64)
        self.mean_, self.scale_ = x.mean(0, dtype=np.float64), np.where(std > 0, std, 1.0)
        if self.kernel == "gaussian":
            x = self._scaled(x)
            self.bandwidth_ = self.bandwidth or median_distance(x, rng)
            self.anchors_ = _centres(x, min(self.n_anchors, len(x)), rng)
            gram = self._gaussian(self.anchors_)
            values, vectors = np.linalg.eigh(gram)
            # anchors that nearly coincide give eigenvalues near zero, which would be blown up
            roots = np.where(values > 1e-6, 1 / np.sqrt(np.maximum(values, 1e-6)), 0.0)
            self.whitening_ = (vectors * roots) @ vectors.T  # gram to the power -1/2

    def _features(self, x: np.ndarray) -> np.ndarray:
        """Kernel features of cells, shape (cells, features), float64."""
        x = self._scaled(x)
        return x / np.sqrt(x.shape[1]) if self.kernel == "linear" else self._gaussian(x) @ self.whitening_

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean_) / self.scale_

    def _gaussian(self, x: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(x, self.anchors_, "sqeuclidean") / (2 * self.bandwidth_**2))

    def _start(self, sets: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """First references: k-means centres of the cells of alike samples (alike in their mean features)."""
        if self.n_references == 1:
            groups = np.zeros(len(sets), dtype=int)
        else:
            means = np.stack([x.mean(0) for x in sets])
            seed = int(rng.integers(2**31))
            groups = KMeans(self.n_references, n_init=5, random_state=seed).fit_predict(means)
        starts = []
        for j in range(self.n_references):
            cells = np.vstack([x for x, group in zip(sets, groups, strict=True) if group == j])
            # an odd sample of few cells may be a group of its own; its reference starts among all cells
            starts.append(_centres(cells if len(cells) >= self.n_points else np.vstack(sets), self.n_points, rng))
        return np.stack(starts)

    def _step(self, sets: list[np.ndarray]) -> np.ndarray:
        """References after one step of Wasserstein k-means: assign samples, then move points to the barycentres."""
        points, costs = [], []  # of each sample, for each reference
        for x in sets:
            plans = [transport_plan(-x @ z.T, self.epsilon) for z in self.references_]
            points.append([self.n_points * plan.T @ x for plan in plans])
            # squared distance of the sample to the reference, less what is the same for all references
            costs.append(
                [
                    (z**2).sum() / len(z) - 2 * (plan * (x @ z.T)).sum()
                    for z, plan in zip(self.references_, plans, strict=True)
                ]
            )
        nearest = np.argmin(costs, axis=1)
        moved = np.asarray(points)  # (samples, references, points, features)
        return np.stack(
            [
                moved[nearest == j, j].mean(0) if (nearest == j).any() else self.references_[j]
                for j in range(self.n_references)
            ]
        )

    def _check_params(self, cells: Cells) -> None:
        if self.kernel not in ("linear", "gaussian"):
            msg = f"kernel must be 'linear' or 'gaussian', but is {self.kernel!r}."
            raise ValueError(msg)
        if not 1 <= self.n_references <= cells.n_samples:
            msg = (
                f"n_references must lie between 1 and the number of training samples, but is {self.n_references} for "
                f"{cells.n_samples} samples."
            )
            raise ValueError(msg)


def _centres(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """K-means centres of the rows of ``x``, shape (n, columns); some coincide if ``x`` has fewer distinct rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # coinciding anchors and points do no harm here
        return fit_clusters(x, n, rng).cluster_centers_
