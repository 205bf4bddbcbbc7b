"""A Gaussian mixture of cells that miss markers: expectation maximisation with missing values."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.linalg import solve_triangular
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

REGULARIZATION = 0.05
"""Added to the variance of each feature within a kind, as a share of its variance over all cells."""
MAX_ITERATIONS = 50
TOLERANCE = 1e-3
"""Gain of the mean log-likelihood below which nothing more is gained; both as scikit-learn has them."""


def marginal_mixture_of(x: torch.Tensor, n_kinds: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A Gaussian mixture of cells with one covariance, from the centres of k-means.

    Parameters
    ----------
    x
        Cells of all samples at about unit variance, NaN where a marker is not measured, (cells, markers); at least one.
    n_kinds
        Number of components of the mixture.

    Returns
    -------
    What :meth:`scset_tools.nn.MarginalTokenPool.set_kinds` takes: means, covariance and logarithms of the shares.

    Notes
    -----
    What is missing is integrated over (Ghahramani and Jordan 1994), not filled in. K-means needs whole cells: it sees them
    completed by one Gaussian of all cells, which is fitted in the same way.
    """
    cells = x.detach().double().cpu().numpy()
    one = Mixture.of_one(cells).fit(cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal cells make fewer kinds than asked for
        whole = one.completed(cells)
        n_starts = min(n_kinds, len(cells))
        found = KMeans(n_starts, n_init=3, random_state=0).fit(whole)
    kind = found.labels_
    means = np.concatenate([found.cluster_centers_, np.repeat(whole.mean(0)[None], n_kinds - n_starts, axis=0)])
    share = np.maximum(np.bincount(kind, minlength=n_kinds) / len(cells), 1e-12)
    apart = whole - means[kind]
    covariance = apart.T @ apart / len(cells) + REGULARIZATION * np.eye(cells.shape[1])
    mixture = Mixture(means, covariance, share).fit(cells)
    return (
        torch.from_numpy(mixture.means),
        torch.from_numpy(mixture.covariance),
        torch.from_numpy(np.log(mixture.share)),
    )


class Mixture:
    """Components with one covariance.

    Parameters
    ----------
    means
        (components, markers).
    covariance
        (markers, markers).
    share
        (components,).
    """

    def __init__(self, means: np.ndarray, covariance: np.ndarray, share: np.ndarray) -> None:
        self.means, self.covariance, self.share = means, covariance, share

    @classmethod
    def of_one(cls, x: np.ndarray) -> Mixture:
        """One component, with the moments of each marker.

        Parameters
        ----------
        x
            Cells, (cells, markers), with NaN.
        """
        has = ~np.isnan(x)
        n = np.maximum(has.sum(axis=0), 1)
        mean = np.where(has, x, 0).sum(axis=0) / n
        variance = np.where(has, (x - mean) ** 2, 0).sum(axis=0) / n
        return cls(mean[None], np.diag(variance + REGULARIZATION), np.ones(1))

    def fit(self, x: np.ndarray) -> Mixture:
        """Steps of expectation maximisation until the likelihood stands.

        Parameters
        ----------
        x
            Cells, (cells, markers), with NaN.
        """
        panels, which = np.unique(~np.isnan(x), axis=0, return_inverse=True)
        groups = [(panel, x[which.ravel() == i][:, panel]) for i, panel in enumerate(panels)]
        before = -np.inf
        for _ in range(MAX_ITERATIONS):
            likelihood = self._step(groups, len(x))
            if likelihood - before < TOLERANCE:
                break
            before = likelihood
        return self

    def completed(self, x: np.ndarray) -> np.ndarray:
        """Cells with what the first component expects of missing values.

        Parameters
        ----------
        x
            Cells, (cells, markers), with NaN.
        """
        out = x.copy()
        panels, which = np.unique(~np.isnan(x), axis=0, return_inverse=True)
        for i, panel in enumerate(panels):
            own = which.ravel() == i
            _, completion = self._parts(panel)
            expected = self.means[0] + (x[own][:, panel] - self.means[0][panel]) @ completion
            out[own] = np.where(panel, x[own], expected)
        return out

    def _step(self, groups: list[tuple[np.ndarray, np.ndarray]], n: int) -> float:
        """One step; the mean log-likelihood before it."""
        k, m = self.means.shape
        count, shift, square = np.zeros(k), np.zeros((k, m)), np.zeros((m, m))
        total = 0.0
        for panel, cells in groups:
            inverse, completion = self._parts(panel)
            whitened, centres = cells @ inverse.T, self.means[:, panel] @ inverse.T
            distance = (whitened**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2 * whitened @ centres.T
            log = np.log(self.share) - 0.5 * np.maximum(distance, 0)
            top = log.max(axis=1, keepdims=True)
            weight = np.exp(log - top)
            norm = weight.sum(axis=1, keepdims=True)
            weight /= norm
            constant = np.log(np.diag(inverse)).sum() - 0.5 * panel.sum() * np.log(2 * np.pi)
            total += float((top + np.log(norm)).sum() + len(cells) * constant)
            own = weight.sum(axis=0)
            first = weight.T @ cells - own[:, None] * self.means[:, panel]
            centre = self.means[:, panel]
            # sum over kinds of weighted squares about the means: sums over cells and over kinds, without a cell x kind x marker array
            cross = centre.T @ (weight.T @ cells)
            second = cells.T @ cells - cross - cross.T + (centre * own[:, None]).T @ centre
            count += own
            shift += first @ completion
            left = self.covariance - self.covariance[:, panel] @ completion  # what stays unknown of missing markers
            square += completion.T @ second @ completion + len(cells) * left
        moved = shift / np.maximum(count, 1e-300)[:, None]
        self.means = self.means + moved
        covariance = (square - (moved * count[:, None]).T @ moved) / n
        self.covariance = (covariance + covariance.T) / 2 + REGULARIZATION * np.eye(m)
        self.share = np.maximum(count / n, 1e-12)
        return total / n

    def _parts(self, panel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of the root of the covariance of the measured markers, and what they tell of all markers."""
        root = np.linalg.cholesky(self.covariance[np.ix_(panel, panel)])
        inverse = solve_triangular(root, np.eye(len(root)), lower=True)
        return inverse, inverse.T @ (inverse @ self.covariance[panel])
