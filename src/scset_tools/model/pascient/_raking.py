"""Shares of pairs of label and tissue under which every label and every tissue counts the same: iterative proportional fitting."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from scset_tools import _checks

N_ROUNDS = 1000
TOLERANCE = 0.01
"""Largest deviation of a share from an even one, relative to it, that is not worth a warning."""


def rake(counts: np.ndarray) -> np.ndarray:
    """The shares nearest to ``counts`` (in relative entropy) with equal sums of rows and equal sums of columns, as far as zeros allow.

    Rows and columns are scaled in turn (Deming and Stephan 1940); where no shares with these sums exist, rows, which come last, are even.

    Parameters
    ----------
    counts
        Number of samples of each label and tissue, (labels, tissues). Rows and columns without any are left at zero.

    Returns
    -------
    Shares, (labels, tissues), of sum 1; zero where there is no sample.
    """
    share = counts / counts.sum()
    rows, columns = counts.sum(1) > 0, counts.sum(0) > 0
    for _ in range(N_ROUNDS):
        before = share
        share = share * np.divide(columns / columns.sum(), share.sum(0), where=columns, out=np.zeros(len(columns)))
        share = share * np.divide(rows / rows.sum(), share.sum(1), where=rows, out=np.zeros(len(rows)))[:, None]
        if np.abs(share - before).max() < 1e-12:
            break
    return share


def warn_of_uneven(share: np.ndarray, tissues: Sequence[str]) -> None:
    """Say which tissues do not get the share that all should have, and why; labels do in any case.

    Parameters
    ----------
    share
        From :func:`rake`.
    tissues
        Names of its columns.
    """
    sums = share.sum(0)
    even = 1 / (sums > 0).sum()
    odd = [
        f"{name} ({s:.1%})" for name, s in zip(tissues, sums, strict=True) if s > 0 and abs(s - even) > TOLERANCE * even
    ]
    if odd:
        warnings.warn(
            f"No weights of the training samples make every label and every tissue count the same: labels do, but of the tissues, which should "
            f"have {even:.1%} each, {len(odd)} do not: {_checks.first(odd)}. Some labels are in too few tissues. Leave these tissues out, or "
            "balance labels alone (resampling='oversample_label').",
            UserWarning,
            stacklevel=2,
        )


def raked_sizes(counts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """How many samples of each pair an epoch takes: as many in all as if labels alone were oversampled, one of each pair at least.

    Parameters
    ----------
    counts
        Number of samples of each label and tissue, (labels, tissues).
    share
        From :func:`rake`.
    """
    of_label = counts.sum(1)
    n = int(of_label.max() * (of_label > 0).sum())
    wanted = n * share
    sizes = np.floor(wanted).astype(np.int64)
    rest = np.where(counts > 0, wanted - sizes, -1.0)
    sizes.flat[np.argsort(-rest, axis=None, kind="stable")[: n - int(sizes.sum())]] += 1  # largest remainders
    return np.where(counts > 0, np.maximum(sizes, 1), 0)
