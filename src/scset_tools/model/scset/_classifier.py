"""A classifier on the vectors of samples, on a frozen encoder or with it (ScSet section 4.2.3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn

from scset_tools.data._dataset import SampleDataset
from scset_tools.model._inference import represent_samples
from scset_tools.model.scset._module import ScSetModule
from scset_tools.nn import MLP

HEADS = ("linear", "mlp")
MODES = ("frozen", "end_to_end")
PENALTIES = tuple(10.0**k for k in range(-2, 7))
"""Inverse strengths of the penalty of the logistic regression that are tried (appendix D)."""


class Head(nn.Module):
    """Standardises vectors by those of training, then a linear layer or an MLP with two hidden layers.

    Parameters
    ----------
    n_latent, n_classes
        Length of a vector, and number of classes.
    kind
        ``"linear"`` or ``"mlp"``.
    n_hidden
        Width of the hidden layers.
    dropout_rate
        Dropout after each hidden layer.
    """

    def __init__(self, n_latent: int, n_classes: int, *, kind: str, n_hidden: int, dropout_rate: float) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_latent))
        self.register_buffer("spread", torch.ones(n_latent))
        n_layers = 0 if kind == "linear" else 2
        self.layers = MLP(n_latent, n_classes, n_hidden=n_hidden, n_layers=n_layers, dropout_rate=dropout_rate)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of vectors (samples, n_latent): (samples, n_classes)."""
        return self.layers((z - self.center) / self.spread)

    def standardize_by(self, vectors: np.ndarray) -> None:
        """Take location and spread from vectors (samples, n_latent); a dimension without spread is only centred."""
        center, spread = vectors.mean(0), vectors.std(0)
        self.center.copy_(torch.from_numpy(center))
        self.spread.copy_(torch.from_numpy(np.where(spread > 1e-8 * np.abs(center), spread, 1.0)))


@dataclass
class Classifier:
    """A fitted classifier, in a form that is saved with the model."""

    labels_key: str
    classes: list[str]
    mode: str
    samples: list[str]
    """Names of the samples that it was fitted to."""
    head_arguments: dict[str, Any]
    head: dict[str, torch.Tensor]
    encoder: dict[str, torch.Tensor] | None
    """Weights of the fine-tuned encoder; None where the model's own was left as it is."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which scvi-tools saves along with the model."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The classifier of :meth:`to_dict`."""
        return cls(**values)

    def modules(self, module: ScSetModule) -> tuple[ScSetModule, Head]:
        """The module with the classifier's encoder, and the head, on the module's device."""
        if self.encoder is not None:
            module = copy.deepcopy(module)
            module.encoder.load_state_dict(self.encoder)
        head = Head(**self.head_arguments)
        head.load_state_dict(self.head)
        return module, head.to(module.device)

    def proba(
        self, module: ScSetModule, dataset: SampleDataset, positions: np.ndarray, *, batch_size: int
    ) -> np.ndarray:
        """Probability of each class for the numbered samples, (samples, classes)."""
        own, head = self.modules(module)
        vectors = represent_samples(own, dataset, positions, batch_size=batch_size)
        with torch.inference_mode():
            logits = head.eval()(torch.from_numpy(vectors).to(head.center))
        return logits.softmax(1).cpu().numpy()


def class_weights(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """``n / (k n_c)`` for each of ``k`` classes with ``n_c`` of the ``n`` samples: all classes count the same, (n_classes,)."""
    return len(codes) / (n_classes * np.bincount(codes, minlength=n_classes))


def fit_logistic(vectors: np.ndarray, codes: np.ndarray, *, penalty: float | None, seed: int) -> LogisticRegression:
    """Class-weighted logistic regression on standardised vectors; without ``penalty`` it is chosen by cross-validation."""
    regression = LogisticRegression(max_iter=5000, class_weight="balanced", C=1.0 if penalty is None else penalty)
    n_folds = min(5, int(np.bincount(codes).min()))
    if penalty is not None or n_folds < 2:
        return regression.fit(vectors, codes)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    search = GridSearchCV(regression, {"C": list(PENALTIES)}, cv=folds, scoring="f1_weighted")
    return search.fit(vectors, codes).best_estimator_


def fit_classifier(
    module: ScSetModule,
    dataset: SampleDataset,
    positions: np.ndarray,
    *,
    labels: Sequence[str],
    labels_key: str,
    mode: str,
    head: str,
    penalty: float | None,
    max_epochs: int,
    lr: float,
    weight_decay: float,
    n_hidden: int,
    dropout_rate: float,
    batch_size: int,
    seed: int,
) -> Classifier:
    """Fit a classifier to the numbered samples; see :meth:`ScSet.finetune`."""
    classes, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    arguments = {"kind": head, "n_hidden": n_hidden, "dropout_rate": dropout_rate}
    arguments |= {"n_latent": module.denoiser.sample[0].in_features, "n_classes": len(classes)}
    layers = Head(**arguments)
    vectors = represent_samples(module, dataset, positions, batch_size=batch_size)
    layers.standardize_by(vectors)
    if head == "linear":
        # end to end as well: a head that starts at random would first pull the encoder about (probe, then fine-tune)
        z = ((vectors - layers.center.numpy()) / layers.spread.numpy()).astype(np.float64)
        _copy_logistic(layers, fit_logistic(z, codes, penalty=penalty, seed=seed))
    layers = layers.to(module.device)
    tuned = None
    if mode == "end_to_end":
        tuned = copy.deepcopy(module)
        tuned.encoder.train()
    if tuned is not None or head == "mlp":
        frozen: Any = None if tuned is not None else torch.from_numpy(vectors).to(layers.center)

        def encode(epoch: int, which: np.ndarray) -> torch.Tensor:
            if tuned is None:
                return frozen[torch.from_numpy(which)]
            batch = dataset[epoch, positions[which].tolist()].to(module.device)
            return tuned.encoder(tuned.read(batch), batch.ptr)

        _optimise(
            encode,
            layers,
            [*layers.parameters(), *(tuned.encoder.parameters() if tuned is not None else ())],
            codes=codes,
            max_epochs=max_epochs,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            seed=seed,
        )
    return Classifier(
        labels_key=labels_key,
        classes=classes.tolist(),
        mode=mode,
        samples=dataset.index.names[positions].astype(str).tolist(),
        head_arguments=arguments,
        head=_on_cpu(layers),
        encoder=None if tuned is None else _on_cpu(tuned.encoder),
    )


def _optimise(
    encode: Any,
    head: Head,
    parameters: list[nn.Parameter],
    *,
    codes: np.ndarray,
    max_epochs: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    seed: int,
) -> None:
    """Class-weighted cross-entropy by AdamW with a cosine schedule."""
    weight = torch.from_numpy(class_weights(codes, head.layers[-1].out_features)).to(
        head.center
    )  # mean 1 over the samples
    target = torch.from_numpy(codes).to(head.center.device)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    n_steps = max(1, max_epochs * -(-len(codes) // batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    head.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(max_epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(codes))
            for start in range(0, len(order), batch_size):
                which = order[start : start + batch_size]
                y = target[torch.from_numpy(which)]
                # not divided by the weights of the batch, which would take them out again where it has one class
                loss = (weight[y] * F.cross_entropy(head(encode(epoch, which)), y, reduction="none")).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()


def _copy_logistic(head: Head, fitted: LogisticRegression) -> None:
    coef, intercept = fitted.coef_, fitted.intercept_
    if len(coef) == 1:  # two classes share one row, the log-odds of the second: half of it against half for the first
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    with torch.no_grad():
        head.layers[-1].weight.copy_(torch.from_numpy(coef))
        head.layers[-1].bias.copy_(torch.from_numpy(intercept))


def _on_cpu(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
