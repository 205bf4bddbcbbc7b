"""From the vector of a sample, or of a cell, to the prediction of one label: one head for each kind of label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scset_tools.model.supervise._cox import baseline_hazard, concordance, cox_loss
from scset_tools.nn import MLP


class Head(nn.Module):
    """Standardises vectors by those of training, then a linear layer or an MLP; and the loss of the kind of label.

    Parameters
    ----------
    n_latent
        Length of a vector.
    n_outputs
        Length of what the layers put out.
    classes
        Names of the classes, or of the levels from lowest to highest.
    n_hidden, n_layers, activation, dropout_rate
        Of the MLP: width and number of hidden layers, ``"gelu"`` or ``"relu"``, dropout after each. No hidden layer: a linear head.
    """

    kind: str
    """``"class"``, ``"ordinal"``, ``"continuous"`` or ``"time_to_event"``."""
    metrics: tuple[str, str]
    """Names of :meth:`loss` and :meth:`quality` in the history of a training."""

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        n_latent: int,
        n_outputs: int,
        *,
        classes: Sequence[str] = (),
        n_hidden: int = 64,
        n_layers: int = 0,
        activation: str = "gelu",
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.register_buffer("center", torch.zeros(n_latent))
        self.register_buffer("spread", torch.ones(n_latent))
        self.layers = MLP(
            n_latent,
            n_outputs,
            n_hidden=n_hidden,
            n_layers=n_layers,
            activation={"gelu": nn.GELU, "relu": nn.ReLU}[activation],
            dropout_rate=dropout_rate,
        )

    @property
    def is_linear(self) -> bool:
        """Whether there is no hidden layer."""
        return len(self.layers) == 1

    @property
    def linear(self) -> nn.Linear:
        """The last layer."""
        last: Any = self.layers[-1]
        return last

    def forward(self, z: Tensor) -> Tensor:
        """What :meth:`loss` takes, of vectors (n, n_latent): (n, n_outputs)."""
        return self.layers((z - self.center) / self.spread)

    @torch.no_grad()
    def standardize(self, vectors: Tensor) -> None:
        """Take location and spread from vectors (n, n_latent); a dimension without spread is only centred."""
        vectors = vectors.double()
        center, spread = vectors.mean(0), vectors.std(0, correction=0)
        is_flat = spread <= 1e-8 * vectors.abs().amax(0).clamp_min(1e-30)
        self.center.copy_(center)
        self.spread.copy_(spread.where(~is_flat, torch.ones_like(spread)))

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        """See the labels of the training samples, none of them missing, before training.

        Parameters
        ----------
        y
            Codes or numbers (n,), or times and events (n, 2).
        balance
            Whether all classes are to count the same.
        """

    @staticmethod
    def is_known(y: Tensor) -> Tensor:
        """Which labels are not missing, (n,)."""
        return y >= 0

    @abstractmethod
    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        """Mean loss of samples whose labels are known, ().

        Parameters
        ----------
        raw
            What :meth:`forward` gave, (n, n_outputs).
        y
            Codes or numbers (n,), or times and events (n, 2).
        """

    @abstractmethod
    def quality(self, raw: Tensor, y: Tensor) -> Tensor:
        """How well they are predicted, (): accuracy, absolute error in units of the column, or concordance."""

    def n_judged(self, y: Tensor) -> tuple[int, int]:
        """Weights of loss and quality of labels ``y`` in a mean over batches."""
        return len(y), len(y)

    @abstractmethod
    def scores(self, z: Tensor) -> Tensor:
        """What attributions explain, (n, n_scores): a logit per class, one score for the other kinds."""

    @abstractmethod
    def predictions(self, z: Tensor) -> Tensor:
        """Probabilities of the classes (n, classes); otherwise the predicted number or log hazard (n, 1)."""


class WeightedHead(Head):
    """A head over classes with one weight per class, whose mean over the training samples is 1.

    The loss of a batch is the mean of its weighted samples: divided by the weights of the batch, as PyTorch does, a batch of
    one class would count as if it had none.
    """

    metrics = ("cross_entropy", "accuracy")
    class_weight: Tensor

    def __init__(self, n_latent: int, n_outputs: int, *, classes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(n_latent, n_outputs, classes=classes, **kwargs)
        self.register_buffer("class_weight", torch.ones(len(self.classes)))

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        counts = np.bincount(y.astype(int), minlength=len(self.class_weight))
        weight = len(y) / ((counts > 0).sum() * np.maximum(counts, 1)) if balance else np.ones(len(counts))
        self.class_weight.copy_(torch.from_numpy(weight))

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        log_likelihood = self.log_probabilities(raw).gather(1, y[:, None])[:, 0]
        return -(self.class_weight.to(raw.device, log_likelihood.dtype)[y] * log_likelihood).mean()

    @abstractmethod
    def log_probabilities(self, raw: Tensor) -> Tensor:
        """Logarithm of the probability of each class, (n, classes)."""

    def predictions(self, z: Tensor) -> Tensor:
        return self.log_probabilities(self(z)).exp()


class ClassHead(WeightedHead):
    """Softmax over classes; cross-entropy with one weight per class. The score of a class is its logit.

    Parameters
    ----------
    n_latent
        Length of a vector.
    classes
        Names of the classes.
    **kwargs
        As for :class:`Head`.
    """

    kind = "class"

    def __init__(self, n_latent: int, classes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(n_latent, len(classes), classes=classes, **kwargs)

    def log_probabilities(self, raw: Tensor) -> Tensor:
        return _full(raw).log_softmax(1)

    def quality(self, raw: Tensor, y: Tensor) -> Tensor:
        return (raw.argmax(1) == y).float().mean()

    def scores(self, z: Tensor) -> Tensor:
        return self(z)


class OrdinalHead(WeightedHead):
    r"""Proportional odds: one score and increasing thresholds, :math:`P(y > k) = \sigma(s - \theta_k)`.

    The thresholds start at :math:`\theta_k = \mathrm{logit}(k / K)`, where a score of 0 gives all :math:`K` levels the same
    probability. What is predicted is the median, that is the number of thresholds below the score: the most probable level
    would never be one whose thresholds are near each other.

    Parameters
    ----------
    n_latent
        Length of a vector.
    classes
        Names of the levels, from lowest to highest.
    **kwargs
        As for :class:`Head`.
    """

    kind = "ordinal"

    def __init__(self, n_latent: int, classes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(n_latent, 1, classes=classes, **kwargs)
        n_classes = len(self.classes)
        start = (torch.arange(1, n_classes, dtype=torch.float64) / n_classes).logit()
        self.first = nn.Parameter(start[0].float())
        self.gap = nn.Parameter(start.diff().expm1().log().float())  # softplus of it is the difference

    @property
    def thresholds(self) -> Tensor:
        """One less than the levels, increasing."""
        return torch.cat([self.first[None], self.first + F.softplus(self.gap).cumsum(0)])

    def forward(self, z: Tensor) -> Tensor:
        """Logits of being above each threshold, (n, levels - 1)."""
        return super().forward(z) - self.thresholds

    def log_probabilities(self, raw: Tensor) -> Tensor:
        r"""By :math:`\sigma(a) - \sigma(b) = \sigma(a) \sigma(-b) (1 - e^{b - a})`: no difference of numbers that both are 1."""
        above = _full(raw)
        between = (-(-F.softplus(_full(self.gap))).expm1()).log().expand(len(above), -1)
        edge = torch.zeros_like(above[:, :1])
        return (
            torch.cat([edge, F.logsigmoid(above)], 1)
            + torch.cat([F.logsigmoid(-above), edge], 1)
            + torch.cat([edge, between, edge], 1)
        )

    def quality(self, raw: Tensor, y: Tensor) -> Tensor:
        return ((raw > 0).sum(1) == y).float().mean()

    def scores(self, z: Tensor) -> Tensor:
        """The score :math:`s`: the log-odds of being above a threshold, up to the threshold, (n, 1)."""
        return super().forward(z)


class ContinuousHead(Head):
    """A number; squared error in units of its standard deviation over the training samples.

    Parameters
    ----------
    n_latent
        Length of a vector.
    **kwargs
        As for :class:`Head`.
    """

    kind = "continuous"
    metrics = ("squared_error", "error")
    mean: Tensor
    scale: Tensor

    def __init__(self, n_latent: int, **kwargs: Any) -> None:
        super().__init__(n_latent, 1, **kwargs)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @staticmethod
    def is_known(y: Tensor) -> Tensor:
        return ~y.isnan()

    def prepare(self, y: np.ndarray, *, balance: bool) -> None:
        if len(y):
            self.mean.fill_(float(y.mean()))
            self.scale.fill_(float(y.std()) or 1.0)

    def _off(self, raw: Tensor, y: Tensor) -> Tensor:
        raw = _full(raw)[:, 0]
        return raw - (y.to(raw.dtype) - self.mean.to(raw.dtype)) / self.scale.to(raw.dtype)

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        return self._off(raw, y).square().mean()

    def quality(self, raw: Tensor, y: Tensor) -> Tensor:
        return self._off(raw, y).abs().mean() * self.scale

    def scores(self, z: Tensor) -> Tensor:
        return self(z) * self.scale + self.mean

    def predictions(self, z: Tensor) -> Tensor:
        return self.scores(z)


class TimeToEventHead(Head):
    """Proportional hazards: the log hazard relative to the baseline; partial likelihood within the batch.

    The samples at risk at an event are those of the batch: the larger the batch, the nearer to the likelihood of the cohort.

    Parameters
    ----------
    n_latent
        Length of a vector.
    ties
        How events at one time share their risk set: ``"efron"`` or ``"breslow"``.
    **kwargs
        As for :class:`Head`.
    """

    kind = "time_to_event"
    metrics = ("partial_likelihood", "concordance")
    times: Tensor
    hazard: Tensor

    def __init__(self, n_latent: int, *, ties: str = "efron", **kwargs: Any) -> None:
        super().__init__(n_latent, 1, **kwargs)
        self.ties = ties
        # a constant changes no ratio of hazards: its gradient is rounding alone, which the optimiser would blow up
        nn.init.zeros_(self.linear.bias)
        self.linear.bias.requires_grad = False
        self.register_buffer("times", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("hazard", torch.zeros(0, dtype=torch.float64))

    @staticmethod
    def is_known(y: Tensor) -> Tensor:
        return ~y.isnan().any(1)

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        return cox_loss(raw[:, 0], y[:, 0], y[:, 1] > 0, ties=self.ties)

    def quality(self, raw: Tensor, y: Tensor) -> Tensor:
        return concordance(raw[:, 0], y[:, 0], y[:, 1] > 0)[0]

    def n_judged(self, y: Tensor) -> tuple[int, int]:
        """Events, and comparable pairs."""
        is_event = y[:, 1] > 0
        return int(is_event.sum()), concordance(y[:, 0], y[:, 0], is_event)[1]

    def scores(self, z: Tensor) -> Tensor:
        return self(z)

    def predictions(self, z: Tensor) -> Tensor:
        return self(z)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("times", "hazard"):  # as many as there were events, in double precision whatever the weights
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(value, dtype=torch.float64, device=self.center.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def set_baseline(self, z: Tensor, y: Tensor) -> None:
        """Estimate the baseline hazard from the vectors and labels of the training samples (Breslow)."""
        self.times, self.hazard = baseline_hazard(self(z)[:, 0], y[:, 0], y[:, 1] > 0)

    def survival(self, z: Tensor) -> Tensor:
        r"""Probability to be without event at each of ``times``, :math:`\exp(-H_0(t) e^h)`, (n, times)."""
        return torch.exp(-self.hazard * self(z).double().exp())


def _full(x: Tensor) -> Tensor:
    """At least in single precision: half of it has too few digits for logarithms of probabilities."""
    return x if x.dtype == torch.float64 else x.float()


def make_head(kind: str, n_latent: int, *, classes: Sequence[str] = (), **kwargs: Any) -> Head:
    """The head of a kind of label.

    Parameters
    ----------
    kind
        ``"class"``, ``"ordinal"``, ``"continuous"`` or ``"time_to_event"``.
    n_latent
        Length of a vector.
    classes
        Names of the classes, of the first two kinds.
    **kwargs
        As for the head.
    """
    if kind == "class":
        return ClassHead(n_latent, classes, **kwargs)
    if kind == "ordinal":
        return OrdinalHead(n_latent, classes, **kwargs)
    return (ContinuousHead if kind == "continuous" else TimeToEventHead)(n_latent, **kwargs)
