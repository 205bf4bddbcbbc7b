"""Weights of samples that turn their attributions into a mean of a class, or into a contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

By = Literal["contrast", "mean"]


def sample_weights(
    by: By, labels: pd.Series, classes: Sequence[str], *, kind: str, reference: str | None
) -> np.ndarray:
    """Weights of samples in a contrast, or in the mean over the samples of a class, (samples, classes).

    Parameters
    ----------
    by
        ``"contrast"`` or ``"mean"``; of a time to an event both are the mean.
    labels
        Label of each sample, (samples,).
    classes
        Names of classes.
    kind
        Kind of the label.
    reference
        Class that stands for the others.
    """
    if by == "mean" or kind == "time_to_event":
        return class_weights(labels, classes)
    return contrast_weights(labels, classes, reference=reference, is_number=kind != "class")


def class_weights(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Weights whose sum is the mean over the samples of a class; over all samples where none is of it, (samples, classes).

    Parameters
    ----------
    labels
        Label of each sample, (samples,).
    classes
        Names of classes.
    """
    is_own = np.stack([(labels == name).to_numpy() for name in classes], axis=1)
    is_own |= ~is_own.any(axis=0)
    return is_own / np.maximum(is_own.sum(axis=0), 1)


def contrast_weights(
    labels: pd.Series, classes: Sequence[str], *, reference: str | None, is_number: bool = False
) -> np.ndarray:
    """Weights whose sum is the mean over a class less that over the others, (samples, classes).

    Parameters
    ----------
    labels
        Label of each sample, missing where there is none, (samples,).
    classes
        Classes to contrast.
    reference
        Class that stands for the others. Default: all others that have a label.
    is_number
        Whether labels are numbers: then the sum is the covariance with the standardised label.
    """
    if is_number:
        y = labels.to_numpy(dtype=np.float64, na_value=np.nan)
        is_known = ~np.isnan(y)
        off = np.where(is_known, y - (y[is_known].mean() if is_known.any() else 0), 0.0)
        spread = np.sqrt((off**2).sum() / max(is_known.sum(), 1))
        if not spread:
            return class_weights(labels, classes)
        return np.repeat((off / spread / is_known.sum())[:, None], len(classes), axis=1)
    own = class_weights(labels, classes)
    columns = []
    for name in classes:
        is_other = ((labels != name) & labels.notna() if reference is None else labels == reference).to_numpy()
        is_other = is_other & bool((labels == name).any())  # nothing to compare the others with
        columns.append(is_other / max(is_other.sum(), 1))
    return own - np.stack(columns, axis=1)
