"""An encoder and its heads as one module, as the training plan sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from scset_tools.model._base_module import Batch, Pieces, SampleLoss, SampleModule
from scset_tools.model.supervise._heads import Head
from scset_tools.nn import on_host, to_device


def metric_names(names: Sequence[str], heads: Sequence[Head]) -> list[tuple[str, str]]:
    """Names of loss and quality of each label; with several labels their column is added."""
    out = []
    for name, head in zip(names, heads, strict=True):
        end = "" if len(names) == 1 else "_" + re.sub(r"\W", "_", name)
        out.append((f"{head.metrics[0]}{end}", f"{head.metrics[1]}{end}"))
    return out


def label_loss(
    z: Tensor, heads: Sequence[Head], labels: Sequence[Tensor], *, names: Sequence[tuple[str, str]]
) -> tuple[Tensor, dict[str, Tensor], dict[str, int], int]:
    """Sum over labels of the mean loss of those that have one.

    Parameters
    ----------
    z
        Vectors, (n, n_latent).
    heads, labels
        Of each label: its head, and the labels of the vectors, on the host: how many are known is a shape of the step.
    names
        Names of loss and quality of each.

    Returns
    -------
    The sum, the metrics by name, how many samples each metric is of, and how many samples have any label.
    """
    total = 0 * z.sum(
        dtype=torch.float32
    )  # a batch without labels still has a gradient, which other processes wait for
    metrics: dict[str, Tensor] = {}
    weights: dict[str, int] = {}
    is_any = torch.zeros(len(z), dtype=torch.bool)
    for head, y, (loss_name, quality_name) in zip(heads, labels, names, strict=True):
        is_known = head.is_known(y)
        value = quality = torch.full((), torch.nan, device=z.device)
        n_loss = n_quality = 0
        rows = is_known.nonzero().squeeze(1)
        if len(rows):
            raw = head(z if len(rows) == len(z) else z.index_select(0, to_device(rows, z.device)))
            known = to_device(y[rows], z.device)
            value, quality = head.loss(raw, known), head.quality(raw.detach(), known)
            total = total + value.to(total.dtype)
            n_loss, n_quality = head.n_judged(y[rows])
            value = value if n_loss else torch.full_like(value, torch.nan)
        else:
            total = total + 0 * sum(p.sum() for p in head.parameters())
        is_any |= is_known
        metrics[loss_name], metrics[quality_name] = value, quality
        weights[loss_name], weights[quality_name] = n_loss, n_quality
    return total, metrics, weights, int(is_any.sum())


class SupervisedModule(SampleModule):
    """Heads on the vectors of an encoder, or on vectors that are computed once.

    Parameters
    ----------
    encoder
        Module of a model.
    heads
        Of each label.
    names
        Columns of the labels.
    labels
        Of each label the values of all samples or cells of the AnnData, by their number.
    embed
        Vectors of a batch; None where the batches hold them.
    number
        Which samples or cells a batch is of, in the numbering of ``labels``.
    """

    def __init__(
        self,
        encoder: SampleModule,
        heads: Sequence[Head],
        names: Sequence[str],
        *,
        labels: Sequence[Tensor],
        embed: Callable[[SampleModule, Batch], Tensor] | None,
        number: Callable[[Batch], Tensor],
    ) -> None:
        super().__init__()
        # an encoder whose vectors are there already is not trained and not moved
        self.encoder: Any = encoder if embed is not None else None
        self.heads = nn.ModuleList(heads)
        self._embed, self._number = embed, number
        self._labels = list(labels)  # no buffers: half precision would round times and numbers
        self._names = metric_names(names, heads)
        self.metrics = tuple(name for pair in self._names for name in pair)

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters of the heads, which have a learning rate of their own."""
        return list(self.heads.parameters())

    def loss(self, batch: Batch) -> SampleLoss:
        number = self._number(batch)
        z = batch.z if self._embed is None else self._embed(self.encoder, batch)
        heads = [cast("Head", head) for head in self.heads]
        z = z.to(heads[0].center.dtype)
        number = on_host(number)
        labels = [values[number] for values in self._labels]
        total, metrics, weights, n_any = label_loss(z, heads, labels, names=self._names)
        n_loss = weights[self._names[0][0]] if len(heads) == 1 else n_any
        return SampleLoss(
            loss=total, n_obs_minibatch=len(number), extra_metrics=metrics, weights={**weights, "loss": n_loss}
        )

    def represent(self, batch: Batch) -> Tensor:
        return self.encoder.represent(batch)

    def represent_in_pieces(self, pieces: Pieces) -> Tensor:
        return self.encoder.represent_in_pieces(pieces)


def encoder_parameters(module: nn.Module, z: Tensor) -> list[nn.Parameter]:
    """The parameters that vectors ``z`` of the module depend on."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(z.float().sum(), parameters, allow_unused=True)
    return [p for p, g in zip(parameters, gradients, strict=True) if g is not None]
