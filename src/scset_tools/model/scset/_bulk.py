"""From a bulk profile to the vector of a sample: a kernel regression on mixtures of the training cells."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial.distance import cdist
from sklearn.model_selection import GroupKFold

from scset_tools import _checks

TOTAL = 1e4
"""Counts to which a profile of counts is scaled before its logarithm."""

MAX_COMPONENTS = 50
PENALTIES = np.logspace(-4, 1, 11)
"""Of the kernel regression, tried on samples left out."""

N_FOLDS = 5


@dataclass(frozen=True)
class BulkHead:
    """Profiles to vectors.

    Profiles are standardised gene by gene and reduced to principal components; vectors are a kernel ridge regression on these, with a linear
    and a Gaussian kernel added up. The penalty is the best one on samples that were left out whole.
    """

    genes: list[str]
    values: str
    """``"counts"`` or ``"mean"``."""
    share: np.ndarray
    """Mean share of each gene in the counts of a training profile, (genes,); ones for means."""
    center: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    """(genes, components), which give scores of unit size."""
    support: np.ndarray
    """Scores of the training profiles, (profiles, components)."""
    weights: np.ndarray
    """(profiles, n_latent)."""
    mean: np.ndarray
    """Mean vector, (n_latent,)."""
    width: float
    error: float
    """Share of the variance of the vectors of samples left out that is not predicted."""

    @classmethod
    def fit(
        cls, profiles: np.ndarray, vectors: np.ndarray, samples: np.ndarray, *, genes: Sequence[str], values: str
    ) -> BulkHead:
        """From summed or mean features (profiles, genes) and vectors (profiles, n_latent) of the same cells, with the sample of each."""
        share = profiles.sum(axis=0) / profiles.sum() if values == "counts" else np.ones(profiles.shape[1])
        x = _transformed(profiles, share, values)
        center, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 1e-9 * (np.abs(center) + 1), scale, np.inf)  # a constant gene says nothing
        standard = (x - center) / scale
        _, size, axes = np.linalg.svd(standard, full_matrices=False)
        n = min(MAX_COMPONENTS, int((size > 1e-6 * size[0]).sum()))
        components = axes[:n].T / (size[0] / np.sqrt(len(x)))
        support = standard @ components
        width = float(np.median(cdist(support, support)[np.triu_indices(len(support), 1)])) or 1.0
        mean = vectors.mean(axis=0)
        kernel = _kernel(support, support, width)
        errors = np.zeros(len(PENALTIES))
        folds = GroupKFold(min(N_FOLDS, len(np.unique(samples))))
        for train, test in folds.split(support, groups=samples):
            local = vectors[train].mean(axis=0)
            eigenvalues, basis = np.linalg.eigh(kernel[np.ix_(train, train)])
            projected, across = basis.T @ (vectors[train] - local), kernel[np.ix_(test, train)] @ basis
            for i, penalty in enumerate(PENALTIES):
                guess = local + across @ (projected / (eigenvalues + penalty * len(train))[:, None])
                errors[i] += ((guess - vectors[test]) ** 2).sum()
        best = int(errors.argmin())
        weights = np.linalg.solve(kernel + PENALTIES[best] * len(support) * np.eye(len(support)), vectors - mean)
        error = float(errors[best] / ((vectors - mean) ** 2).sum())
        return cls(list(genes), values, share, center, scale, components, support, weights, mean, width, error)

    def __call__(self, profiles: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Vectors, (samples, n_latent), of profiles (samples, given genes), where ``where`` is the given column of each gene or -1."""
        known = where >= 0
        x = np.zeros((len(profiles), len(self.genes)))
        x[:, known] = _transformed(profiles[:, where[known]], self.share[known], self.values)
        standard = np.where(known, (x - self.center) / self.scale, 0.0)
        return self.mean + _kernel(standard @ self.components, self.support, self.width) @ self.weights

    def to_dict(self) -> dict[str, Any]:
        """In plain types, to be saved with the model."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> BulkHead:
        """What :meth:`to_dict` gave."""
        return cls(**saved)


def _transformed(profiles: np.ndarray, share: np.ndarray, values: str) -> np.ndarray:
    """Logarithms of counts per so many, of which genes that are not there keep their share; means as they are."""
    profiles = np.asarray(profiles, dtype=np.float64)
    if values == "mean":
        return profiles
    total = profiles.sum(axis=1, keepdims=True)
    return np.log1p(TOTAL * share.sum() * profiles / np.where(total > 0, total, 1.0))


def _kernel(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    return a @ b.T + np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))


def read_profiles(bulk: pd.DataFrame | AnnData, head: BulkHead) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Profiles (samples, given genes), the given column of each gene of the head (-1: none), and names of the samples.

    Raises
    ------
    TypeError
        If it is neither a DataFrame nor an AnnData.
    ValueError
        If no gene is known, one stands twice, a value is missing, or counts are negative.

    Warns
    -----
    UserWarning
        If genes of the head are missing: how many, and which share of the counts they are.
    """
    if isinstance(bulk, AnnData):
        table = pd.DataFrame(_checks.dense(bulk.X, "bulk.X"), index=bulk.obs_names, columns=bulk.var_names)
    elif isinstance(bulk, pd.DataFrame):
        table = bulk
    else:
        msg = f"bulk must be a DataFrame of samples x genes or an AnnData, but is {type(bulk).__name__}."
        raise TypeError(msg)
    columns = table.columns.astype(str)
    twice = columns[columns.duplicated()].unique()
    if len(twice):
        msg = f"bulk has {len(twice)} genes more than once (first: {_checks.first(twice)}): sum their columns, or keep one of each."
        raise ValueError(msg)
    where = columns.get_indexer(head.genes)
    if (where < 0).all():
        msg = (
            f"bulk has none of the {len(head.genes)} genes that the model knows (model: {_checks.first(head.genes)}; bulk: "
            f"{_checks.first(columns)}). Are rows samples, and both symbols or both identifiers?"
        )
        raise ValueError(msg)
    values = _checks.numbers_of(table, "bulk")
    used = values[:, where[where >= 0]]
    is_bad = ~np.isfinite(used) | ((used < 0) if head.values == "counts" else False)
    if is_bad.any():
        names = table.index[is_bad.any(axis=1)]
        what = "missing, infinite or negative" if head.values == "counts" else "missing or infinite"
        msg = f"bulk has {int(is_bad.sum())} values that are {what} in {len(names)} samples (first: {_checks.first(names)})."
        raise ValueError(msg)
    if (where < 0).any():
        absent = [g for g, at in zip(head.genes, where, strict=True) if at < 0]
        part = (
            f"{head.share[where < 0].sum():.1%} of the counts of training"
            if head.values == "counts"
            else "taken to be average"
        )
        warnings.warn(
            f"{len(absent)} of the {len(head.genes)} genes that the model knows are not in bulk (first: {_checks.first(absent)}), {part}. Coverage: "
            f"{1 - len(absent) / len(head.genes):.1%}.",
            UserWarning,
            stacklevel=4,
        )
    return values, where, table.index.astype(str)
