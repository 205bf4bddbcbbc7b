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
        kinds = {key: _labels.guess_kind(obs[key]) if key in obs else "class" for key in keys}
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


class ClassHead(Head):
    """Softmax over classes; cross-entropy with one weight per class.

    Parameters
    ----------
    n_latent, n_classes
        Length of a sample's vector, and number of classes.
    """

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_latent, n_classes)
        self.register_buffer("class_weight", torch.ones(n_classes))

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        counts = np.bincount(y.astype(int), minlength=len(self.class_weight))
        weight = len(y) / (len(counts) * np.maximum(counts, 1)) if balance else np.ones(len(counts))
        self.class_weight.copy_(torch.from_numpy(weight))

    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(z).float()
        return F.cross_entropy(logits, y, self.class_weight.float()), (logits.argmax(1) == y).float().mean()

    def probabilities(self, z: Tensor) -> Tensor:
        return self.linear(z).float().softmax(1)

    def score(self, z: Tensor, which: int | None, reference: int | None) -> Tensor:
        logits = self.linear(z)
        return logits[:, which] if reference is None else logits[:, which] - logits[:, reference]


class OrdinalHead(Head):
    r"""Proportional odds: one score and increasing thresholds, :math:`P(y > k) = \sigma(s - \theta_k)`.

    Parameters
    ----------
    n_latent, n_classes
        Length of a sample's vector, and number of levels.
    """

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_latent, 1)
        self.first = nn.Parameter(torch.tensor(-0.5 * (n_classes - 2)))
        self.gap = nn.Parameter(torch.full((n_classes - 2,), 0.54))  # softplus of it is 1

    @property
    def thresholds(self) -> Tensor:
        """One less than the levels, increasing."""
        return torch.cat([self.first[None], self.first + F.softplus(self.gap).cumsum(0)])

    def probabilities(self, z: Tensor) -> Tensor:
        above = (self.linear(z) - self.thresholds).float().sigmoid()
        one, none = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        return torch.cat([one, above], 1) - torch.cat([above, none], 1)

    def loss(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p = self.probabilities(z)
        likelihood = p.gather(1, y[:, None]).clamp_min(1e-12)
        return -likelihood.log().mean(), (p.argmax(1) == y).float().mean()

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
