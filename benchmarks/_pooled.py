"""Weighted F1 of all out-of-fold predictions of a seed together: the protocol of the reference figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


def pooled_f1(
    vectors: Callable[[list[str]], np.ndarray],
    labels: pd.Series,
    groups: pd.Series | None,
    *,
    seed: int,
    cv: int = 5,
) -> float:
    """scikit-learn's shuffled, stratified (and grouped) folds; logistic regression with C = 1 on standardised vectors.

    Parameters
    ----------
    vectors
        From the names of the training samples to the vectors of all samples, in the order of ``labels``.
    labels, groups
        Class and group of each sample.
    seed
        Of the folds.
    cv
        Number of folds.
    """
    y = labels.astype(str).to_numpy()
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    predicted = np.empty(len(y), dtype=object)
    for train, test in splitter(cv, shuffle=True, random_state=seed).split(y, y, groups):
        x = vectors(labels.index[train].tolist())
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(x[train], y[train])
        predicted[test] = model.predict(x[test])
    return f1_score(y, predicted.astype(str), average="weighted")
