"""PCA or UMAP to two dimensions, for plots only: nothing is stored."""

from __future__ import annotations

import warnings

import numpy as np

MIN_FOR_UMAP = 5


def embed(
    x: np.ndarray, basis: str, *, rng: np.random.Generator | int | None, what: str = "samples"
) -> tuple[np.ndarray, list[str]]:
    """Coordinates (rows, 2) and axis names.

    Parameters
    ----------
    x
        Rows x features, finite.
    basis
        ``"pca"`` (centred, not scaled; share of the variance in the axis names) or ``"umap"``.
    rng
        Seed of the UMAP.
    what
        What a row is, for messages.

    Raises
    ------
    ValueError
        If the basis is neither, or there are too few rows for a UMAP.
    """
    if basis == "pca":
        return _pca(x)
    if basis != "umap":
        msg = f"basis={basis!r} must be 'pca' or 'umap'."
        raise ValueError(msg)
    if len(x) < MIN_FOR_UMAP:
        msg = f"A UMAP needs at least {MIN_FOR_UMAP} {what}, there are {len(x)}: use basis='pca'."
        raise ValueError(msg)
    with warnings.catch_warnings():
        # umap says at import that its neural variant lacks Tensorflow, which is of no concern here
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP

    seed = int(np.random.default_rng(rng).integers(2**31))
    # n_jobs=1 is what a seed means to umap-learn anyway; said here, it does not warn
    reducer = UMAP(n_neighbors=min(15, len(x) - 1), min_dist=0.3, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(x), dtype=np.float64), ["UMAP 1", "UMAP 2"]


def _pca(x: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Principal components by singular values: exact, and defined for one row or one feature, where they are zero."""
    if not x.shape[1]:
        return np.zeros((len(x), 2)), ["PC1 (0%)", "PC2 (0%)"]
    centred = x - x.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    # the sign of a component is arbitrary: its largest loading is made positive, so that a figure can be made again
    u = u * np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)])
    n = min(2, len(s))
    xy = np.zeros((len(x), 2))
    xy[:, :n] = u[:, :n] * s[:n]
    total = (s**2).sum()
    shares = [s[i] ** 2 / total if i < len(s) and total > 0 else 0.0 for i in range(2)]
    return xy, [f"PC{i + 1} ({share:.0%})" for i, share in enumerate(shares)]
