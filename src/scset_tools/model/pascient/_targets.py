"""What is predicted: classes, ordered classes or numbers, each with its head and loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scvi import REGISTRY_KEYS
from torch import Tensor, nn

from scset_tools import _checks, _labels

KINDS = ("class", "ordinal", "continuous")


@dataclass(frozen=True)
class Target:
    """One thing to predict of a sample."""

    name: str
    """Column of ``adata.obs``."""
    kind: str
    """``"class"``, ``"ordinal"`` or ``"continuous"``."""
    registry_key: str
    """Where the codes or numbers are registered."""
    classes: tuple[str, ...] = field(default=())
    """Names of the classes, for ordinal targets from lowest to highest."""


def read_kinds(obs: pd.DataFrame, labels_key: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str] | None:
    """Column to kind: as given, or as :func:`scset_tools._labels.guess_kind` reads the column."""
    if labels_key is None:
        return None
    if isinstance(labels_key, Mapping):
        kinds = {str(k): str(v) for k, v in labels_key.items()}
        for key, kind in kinds.items():
            if kind not in KINDS:
                msg = f"labels_key has the kind {kind!r} for {key!r}; kinds are {_checks.first(KINDS)}."
                raise ValueError(msg)
    else:
        keys = [labels_key] if isinstance(labels_key, str) else [str(k) for k in labels_key]
        kinds = {
            key: _labels.guess_kind(_checks.obs_column(obs, key)) if key in obs.columns else "class" for key in keys
        }
    if not kinds:
        msg = "labels_key is empty: name at least one column of adata.obs, or leave it out."
        raise ValueError(msg)
    return kinds


def registry_keys(kinds: Mapping[str, str]) -> dict[str, str]:
    """Column to registry key; the first with classes gets scvi-tools' own, which a stratified split reads."""
    out: dict[str, str] = {}
    for i, (name, kind) in enumerate(kinds.items()):
        is_first = kind != "continuous" and REGISTRY_KEYS.LABELS_KEY not in out.values()
        out[name] = REGISTRY_KEYS.LABELS_KEY if is_first else f"target_{i}"
    return out


def require_two_values(column: pd.Series, key: str, kind: str) -> None:
    """Raise ValueError if there is nothing to tell apart."""
    values = column.dropna().unique()
    if len(values) == 1:
        what = "classes" if kind != "continuous" else "values"
        msg = (
            f"adata.obs[{key!r}] has one value only ({values[0]!r}) in {column.notna().sum()} labelled cells: a classifier "
            f"needs at least two {what}. Is {key!r} the right column, or was the data subset to one group?"
        )
        raise ValueError(msg)


class Head(nn.Module):
    """From the vector of a sample to the prediction of one target."""

    @abstractmethod
    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the labelled samples, and how well they are predicted (accuracy, or absolute error).

        Parameters
        ----------
        z
            Vectors of labelled samples, (samples, n_latent).
        y
            Codes or numbers, (samples,).
        """

    @abstractmethod
    def probabilities(self, z: Tensor) -> Tensor:
        """Probabilities of the classes, (samples, classes); for numbers the prediction, (samples, 1)."""

    @abstractmethod
    def score(self, z: Tensor, which: int | None, reference: int | None) -> Tensor:
        """What attributions explain, (samples,)."""

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        """See the labels of the training samples, (samples,), before training."""


class WeightedHead(Head):
    """A head over classes with one weight per class, whose mean over the training samples is 1.

    The loss of a batch is the mean of its weighted samples: divided by the weights of the batch, as PyTorch does, a batch of
    one class would count as if it had none.

    Parameters
    ----------
    n_classes
        Number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("class_weight", torch.ones(n_classes))

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        counts = np.bincount(y.astype(int), minlength=len(self.class_weight))
        weight = len(y) / (len(counts) * np.maximum(counts, 1)) if balance else np.ones(len(counts))
        self.class_weight.copy_(torch.from_numpy(weight))

    def weighted_mean(self, log_likelihood: Tensor, y: Tensor) -> Tensor:
        """Loss of samples, (), from the logarithm of the probability of the class of each, (samples,)."""
        return -(self.class_weight.float()[y] * log_likelihood).mean()


class ClassHead(WeightedHead):
    """Softmax over classes; cross-entropy with one weight per class.

    Parameters
    ----------
    n_latent, n_classes
        Length of a sample's vector, and number of classes.
    """

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_classes)
        self.linear = nn.Linear(n_latent, n_classes)

    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(z).float()
        log_likelihood = logits.log_softmax(1).gather(1, y[:, None])[:, 0]
        return self.weighted_mean(log_likelihood, y), (logits.argmax(1) == y).float().mean()

    def probabilities(self, z: Tensor) -> Tensor:
        return self.linear(z).float().softmax(1)

    def score(self, z: Tensor, which: int | None, reference: int | None) -> Tensor:
        logits = self.linear(z)
        return logits[:, which] if reference is None else logits[:, which] - logits[:, reference]


class OrdinalHead(WeightedHead):
    r"""Proportional odds: one score and increasing thresholds, :math:`P(y > k) = \sigma(s - \theta_k)`.

    The thresholds start at :math:`\theta_k = \mathrm{logit}(k / K)`, where a score of 0 gives all :math:`K` levels the same
    probability. What is predicted is the median, that is the number of thresholds below the score: the most probable level
    would never be one whose thresholds are near each other.

    Parameters
    ----------
    n_latent, n_classes
        Length of a sample's vector, and number of levels.
    """

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_classes)
        self.linear = nn.Linear(n_latent, 1)
        start = (torch.arange(1, n_classes, dtype=torch.float64) / n_classes).logit()
        self.first = nn.Parameter(start[0].float())
        self.gap = nn.Parameter(start.diff().expm1().log().float())  # softplus of it is the difference

    @property
    def thresholds(self) -> Tensor:
        """One less than the levels, increasing."""
        return torch.cat([self.first[None], self.first + F.softplus(self.gap).cumsum(0)])

    def _above(self, z: Tensor) -> Tensor:
        """Logits of being above each threshold, (samples, levels - 1)."""
        return (self.linear(z) - self.thresholds).float()

    def probabilities(self, z: Tensor) -> Tensor:
        return self._log_probabilities(self._above(z)).exp()

    def _log_probabilities(self, above: Tensor) -> Tensor:
        r"""By :math:`\sigma(a) - \sigma(b) = \sigma(a) \sigma(-b) (1 - e^{b - a})`: no difference of numbers that both are 1."""
        between = (-(-F.softplus(self.gap.float())).expm1()).log().expand(len(above), -1)
        edge = torch.zeros_like(above[:, :1])
        return (
            torch.cat([edge, F.logsigmoid(above)], 1)
            + torch.cat([F.logsigmoid(-above), edge], 1)
            + torch.cat([edge, between, edge], 1)
        )

    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        above = self._above(z)
        log_likelihood = self._log_probabilities(above).gather(1, y[:, None])[:, 0]
        return self.weighted_mean(log_likelihood, y), ((above > 0).sum(1) == y).float().mean()

    def score(self, z: Tensor, which: int | None, reference: int | None) -> Tensor:
        return self.linear(z)[:, 0]


class ContinuousHead(Head):
    """A number; squared error in units of its standard deviation over the training samples.

    Parameters
    ----------
    n_latent
        Length of a sample's vector.
    """

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_latent, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        if len(y):
            self.mean.fill_(float(y.mean()))
            self.scale.fill_(float(y.std()) or 1.0)

    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        off = self.linear(z)[:, 0].float() - (y.float() - self.mean.float()) / self.scale.float()
        return off.square().mean(), off.abs().mean() * self.scale.float()

    def probabilities(self, z: Tensor) -> Tensor:
        return self.score(z, None, None).float()[:, None]

    def score(self, z: Tensor, which: int | None, reference: int | None) -> Tensor:
        return self.linear(z)[:, 0] * self.scale + self.mean


def make_head(target: Target, n_latent: int) -> Head:
    """The head of a target."""
    if target.kind == "continuous":
        return ContinuousHead(n_latent)
    return (OrdinalHead if target.kind == "ordinal" else ClassHead)(n_latent, len(target.classes))
