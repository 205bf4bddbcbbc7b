"""What is explained: scores of samples, read off their vectors by a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from scset_tools import _checks


class Head(Protocol):
    """What a scorer needs of a head: its kind, its classes, and its scores of vectors."""

    kind: str
    classes: Sequence[str]

    def scores(self, z: torch.Tensor) -> torch.Tensor:
        """Scores of vectors (samples, n_latent): a logit per class, or one number, (samples, outputs)."""


class Probe:
    """A linear model on frozen vectors: logistic regression for classes, ridge regression for numbers.

    Both are fitted to standardised vectors with a penalty of 1, as scikit-learn counts it.

    Parameters
    ----------
    vectors
        Vectors of labelled samples, (samples, n_latent).
    labels
        Names of classes, or numbers, (samples,).
    kind
        ``"class"`` or ``"continuous"``.
    """

    def __init__(self, vectors: np.ndarray, labels: np.ndarray, *, kind: str) -> None:
        scaler = StandardScaler().fit(vectors.astype(np.float64))
        z = scaler.transform(vectors.astype(np.float64))
        self.kind = kind
        if kind == "class":
            # a tolerance at which two fits of the same vectors are the same fit
            fitted = LogisticRegression(max_iter=5000, tol=1e-8).fit(z, labels)
            coef, intercept = fitted.coef_, fitted.intercept_
            if len(coef) == 1:  # two classes share one row, the log-odds of the second
                coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
            self.classes = [str(c) for c in fitted.classes_]
        else:
            fitted = Ridge(alpha=1.0).fit(z, labels)
            coef, intercept, self.classes = fitted.coef_[None], np.atleast_1d(fitted.intercept_), []
        coef = coef / scaler.scale_
        self.weight = torch.from_numpy(coef.T.copy())  # (n_latent, outputs)
        self.bias = torch.from_numpy(intercept - coef @ scaler.mean_)

    def scores(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of the classes, or the predicted number, of vectors (samples, n_latent), float64: (samples, outputs)."""
        return z.double() @ self.weight.to(z.device) + self.bias.to(z.device)


class Scorer:
    r"""Scores that are explained: log-odds of classes, or the one score of another head.

    The score of a class is its log-odds against all others, :math:`\log p_c / (1 - p_c)`, or with a reference against that class,
    :math:`\log p_c / p_r`. Both depend on the probabilities alone, so two heads that predict the same have the same scores,
    however they write their logits; of two classes one is the negative of the other and is computed once.

    Parameters
    ----------
    head
        Gives logits, or one number per sample.
    label_key
        Column that it predicts, for messages; the name of the one score of a head without classes.
    target
        Class, or classes, to explain. Default: all but the reference.
    reference
        Class to compare with.
    """

    def __init__(self, head: Head, label_key: str, *, target: Sequence[str] | None, reference: str | None) -> None:
        self.head, self.kind, classes = head, head.kind, [str(c) for c in head.classes]
        self._pairs: list[tuple[int, int | None]] = []
        """Class and reference of each score that is computed; None for all others."""
        self.columns: list[tuple[int, float]] = []
        """Which computed score each name stands for, and its sign."""
        if self.kind != "class":
            self.names = [label_key]
            self.columns = [(0, 1.0)]
            self.n_computed = 1
            if reference is not None or (target is not None and list(target) != [label_key]):
                msg = f"{label_key!r} is {self.kind}: it has one score, and no target class ({target}) or reference ({reference!r})."
                raise ValueError(msg)
            return
        for value in target or ():
            _require_class("target", value, classes, label_key)
        if reference is not None:
            _require_class("reference", reference, classes, label_key)
            if target is not None and reference in target:
                msg = f"target and reference are both {reference!r}: their difference is zero. Name another reference."
                raise ValueError(msg)
        self.names = [c for c in classes if c != reference] if target is None else list(dict.fromkeys(target))
        against = None if reference is None else classes.index(reference)
        for name in self.names:
            own = classes.index(name)
            if len(classes) == 2:  # the other class, whether it is named or not
                pair: tuple[int, int | None] = (own, 1 - own)
                if pair[::-1] in self._pairs:
                    self.columns.append((self._pairs.index(pair[::-1]), -1.0))
                    continue
            else:
                pair = (own, against)
            self.columns.append((len(self._pairs), 1.0))
            self._pairs.append(pair)
        self.n_computed = len(self._pairs)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Scores of vectors (samples, n_latent), (samples, n_computed)."""
        logits = self.head.scores(z)
        if self.kind != "class":
            return logits[:, :1]
        others = torch.arange(logits.shape[1], device=logits.device)
        parts = [
            logits[:, own] - (logits[:, against] if against is not None else logits[:, others != own].logsumexp(1))
            for own, against in self._pairs
        ]
        return torch.stack(parts, 1)


def _require_class(name: str, value: str, classes: list[str], label_key: str) -> None:
    if value not in classes:
        msg = f"{name}={value!r} is not a class of {label_key!r}: {_checks.first(classes, 20)}."
        raise ValueError(msg)
