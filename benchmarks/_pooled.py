"""Weighted F1 of all out-of-fold predictions of a seed together: the protocol of the reference figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import pandas as pd


Predict = Callable[[list[str], list[str]], np.ndarray]
"""From the names of training and of test samples to the predicted classes of the latter."""


def pooled_f1(predict: Predict, labels: pd.Series, groups: pd.Series | None, *, seed: int, cv: int = 5) -> float:
    """Over scikit-learn's shuffled, stratified (and grouped) folds.

    Parameters
    ----------
    predict
        What is measured.
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
        predicted[test] = predict(labels.index[train].tolist(), labels.index[test].tolist())
    return f1_score(y, predicted.astype(str), average="weighted")


def linear_probe(
    vectors: Callable[[list[str]], pd.DataFrame], labels: pd.Series, *, class_weight: str | None = None
) -> Predict:
    """Logistic regression with C = 1 on standardised vectors.

    Parameters
    ----------
    vectors
        From the names of the training samples to the vectors of all samples, indexed by name.
    labels
        Class of each sample.
    class_weight
        ``"balanced"`` lets all classes count the same.
    """

    def predict(train: list[str], test: list[str]) -> np.ndarray:
        x = vectors(train)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, class_weight=class_weight))
        return model.fit(x.loc[train], labels[train].astype(str)).predict(x.loc[test])

    return predict
