"""Labels under the null hypothesis that they say nothing about the samples, respecting groups."""

from __future__ import annotations

import numpy as np
import pandas as pd


def permute_labels(codes: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions ``p`` such that ``labels[p]`` are permuted labels.

    A label that is constant in every group is permuted between groups, whatever their sizes: samples of one donor are
    no independent evidence. Otherwise groups of the same size swap their labels as blocks, and labels are shuffled within
    each group: a paired design keeps its pairs.

    Parameters
    ----------
    codes
        Label codes, shape (n,): only which are equal matters.
    groups
        Group codes, shape (n,).
    rng
        Generator.

    Returns
    -------
    Shape (n,), int64.
    """
    group_codes = pd.factorize(np.asarray(groups))[0]
    members = [np.flatnonzero(group_codes == g) for g in range(group_codes.max() + 1)]
    if all(len(np.unique(codes[m])) == 1 for m in members):
        first = np.array([m[0] for m in members])
        return rng.permutation(first)[group_codes]
    out = np.empty(len(codes), dtype=np.int64)
    sizes = np.array([len(m) for m in members])
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        for to, source in zip(same, rng.permutation(same), strict=True):
            out[members[to]] = rng.permutation(members[source])
    return out
